"""Files that are replaced whole: whoever reads meanwhile, or after a power failure, has the old text or the new one.

What may live here: that one way of writing. What is written is the callers' matter.
"""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

NEW_MODE, SECRET_MODE = 0o644, 0o600
"""Permissions of files that were not there before."""


def write_whole(file: Path, content: str | bytes, *, secret: bool = False) -> None:
    """Replace the file, or make it; text is written as UTF-8. Raises OSError, and then nothing has changed.

    It keeps mode and owner of the file before, as far as the system lets us: a service under another account has to
    go on reading what an administrator changes. A secret one is for its owner alone where it is new, never for
    everybody, and so from its first byte on.
    """
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as written:
            written.write(data)
            written.flush()
            os.fchmod(handle, _take_over(handle, file, secret))
            os.fsync(handle)
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # its name too
    finally:
        os.close(folder)


def _take_over(handle: int, file: Path, secret: bool) -> int:
    """Give the new file to whom the old one belongs; the mode it shall have."""
    try:
        before = file.stat()
    except FileNotFoundError:
        return SECRET_MODE if secret else NEW_MODE
    mode = stat.S_IMODE(before.st_mode)
    if secret:
        mode &= ~stat.S_IRWXO
    for owner, group in ((before.st_uid, -1), (-1, before.st_gid)):
        with contextlib.suppress(OSError):  # only root gives files away; a group has to be one of ours
            os.fchown(handle, owner, group)
    if os.fstat(handle).st_gid != before.st_gid and secret:
        mode &= ~stat.S_IRWXG  # what was for one group is not for another
    return mode
