"""The file that keeps what was read from LDAP last: the form of `devices.yaml`, as JSON.

It is written by the gateway, so that nothing in it is taken from the environment. It is read entry by entry: one that
cannot be read keeps its AE titles out of service and none of the others.
"""

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.device_settings import DevicesFile
from gateway.domain.directory import DeviceEntry, Directory, NetworkAE
from gateway.domain.problem import Problem
from gateway.registry import directory_of, entries_of
from gateway.whole_files import write_whole


class SnapshotUnusable(Exception):  # noqa: N818  (reads as what happened)
    """There is none, or it is none; in words for people."""


def read_snapshot(path: Path) -> tuple[Directory, Sequence[Problem]]:
    """The directory, and what of it could not be read. Raises SnapshotUnusable."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SnapshotUnusable("nothing has been read from LDAP yet") from None
    except OSError as error:
        raise SnapshotUnusable(f"cannot be read: {error.strerror or type(error).__name__}") from error
    try:
        with _uncollected():
            return directory_of(DevicesFile.model_validate_json(data)), ()
    except ValidationError:  # which of the entries, and why: read once more, and slower
        return _entry_by_entry(path.name, data)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which looks again and again through what grows here and is no garbage: half the
    time of 10,000 devices."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _entry_by_entry(source: str, data: bytes) -> tuple[Directory, Sequence[Problem]]:
    """What can be read of it, and the AE titles of what cannot."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SnapshotUnusable("is not JSON") from error
    entries = said.get("devices") if isinstance(said, dict) else None
    if not isinstance(entries, list):
        raise SnapshotUnusable("has no list of devices")
    devices: list[DeviceEntry] = []
    problems: list[Problem] = []
    for number, entry in enumerate(entries):
        try:
            devices += directory_of(DevicesFile.model_validate({"devices": [entry]})).devices
        except ValidationError as error:
            detail = error.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(map(str, detail["loc"][2:]))
            text = f"{where}: {detail['msg'].removeprefix('Value error, ')}".removeprefix(": ")
            hint = "mend it in LDAP; until then its AEs are known and not served"
            problems.append(Problem(source, f"devices {_name(entry, number)}", text, hint))
            devices.append(_unread(entry, number))
    return Directory(tuple(devices)), problems


def write_snapshot(path: Path, directory: Directory) -> None:
    """Replace the file by this directory: whole or not at all, for the owner's eyes. Raises OSError.

    What it said before, if that was something else, is kept beside it with .bak.
    """
    said = json.dumps(entries_of(directory), ensure_ascii=False).encode()  # indented it would take a second for 10,000
    before = path.read_bytes() if path.exists() else None
    if said == before:
        return
    if before is not None:
        write_whole(path.with_name(f"{path.name}.bak"), before, secret=True)
    write_whole(path, said, secret=True)


def _unread(entry: Any, number: int) -> DeviceEntry:
    """What is left of an entry that cannot be read: its AE titles, as of a device that is not installed."""
    aes = entry.get("aes") if isinstance(entry, dict) else None
    said = [entry, *(aes if isinstance(aes, list) else ())]
    titles = (each.get("ae_title") for each in said if isinstance(each, dict))
    named = tuple(NetworkAE(title.strip()) for title in titles if isinstance(title, str) and title.strip())
    return DeviceEntry(_name(entry, number), installed=False, aes=named)


def _name(entry: Any, number: int) -> str:
    names = (entry.get("name"), entry.get("ae_title")) if isinstance(entry, dict) else ()
    return next((each for each in names if isinstance(each, str) and each), f"number {number + 1}")
