"""Reading a directory in a process of its own, so that nobody who waits for the event loop waits for that.

Taking a big answer of LDAP apart is Python, some seconds of it for ten thousand devices; in a thread it would hold up
every answer of the gateway (design D3b). The process is started for one question and ends with the answer, or with
whoever asked: it costs a third of a second, and stays away where devices do not change.
"""

import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from typing import Any, Literal

from gateway.domain.directory_loss import Roll
from gateway.edges.ldap_directory import LDAPAccess, LDAPDirectory, LDAPFailed, Mark, Snapshot

WALK_DEVICES = 200
"""A mark that looks at every entry is found in a process too where there are more devices; fewer take milliseconds."""

_Question = Literal["snapshot", "mark"]


class DirectoryProcess:
    """Reads a directory like `LDAPDirectory`, apart. Blocks; for one thread at a time."""

    def __init__(self, access: LDAPAccess) -> None:
        self._access = access
        self._walks_far = False

    def snapshot(self, known: Roll) -> Snapshot:
        """Every device, with problems and mark, as `LDAPDirectory` has them. Raises LDAPFailed."""
        found: Snapshot = _answer("snapshot", self._access, known)
        self._walks_far = len(found.directory.devices) > WALK_DEVICES
        return found

    def mark(self, since: Mark) -> Mark:
        """The mark of the directory now; cheap where the server says that nothing changed. Raises LDAPFailed."""
        client = LDAPDirectory(self._access)
        if not self._walks_far:
            return client.mark(since)
        if since.suffix and client.suffix() == since.suffix:
            return since
        mark: Mark = _answer("mark", self._access, since)
        return mark


def _answer(question: _Question, access: LDAPAccess, known: Roll | Mark) -> Any:
    """What a process of its own says to the question. Raises LDAPFailed in its words."""
    command = [sys.executable, "-m", __name__]
    try:
        process = subprocess.Popen(  # noqa: S603  (our own command line, no shell)
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )  # fmt: skip
    except OSError as error:
        raise LDAPFailed(f"no process can be started to read LDAP: {error.strerror}; see memory and limits") from None
    with process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both are pipes")
        with contextlib.suppress(BrokenPipeError):  # it ended early, as is said below
            # The password goes this way: other users can see command lines. The pipe stays open while we wait.
            process.stdin.write(pickle.dumps((question, access, known)))
        said = process.stdout.read()
    if not said:
        raise LDAPFailed(
            f"the process that reads LDAP ended without an answer (exit code {process.returncode}); see what it wrote "
            "into the log before, and start the gateway again if it was upgraded while it ran"
        )
    kind, answer = _loaded(said)
    if kind == "answer":
        return answer
    raise LDAPFailed(answer) if kind == "failed" else RuntimeError(answer)


def _loaded(said: bytes) -> tuple[str, Any]:
    """Without the garbage collector, which would stop everybody to look through what grows here and is no garbage."""
    collects = gc.isenabled()
    gc.disable()
    try:
        answer: tuple[str, Any] = pickle.loads(said)  # noqa: S301  (written by our own code, over a pipe of ours)
    finally:
        if collects:
            gc.enable()
    return answer


# --- in the process -------------------------------------------------------------------------------------------------


def _serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is meant for the gateway, and this ends with that
    gc.disable()  # it lives for one answer
    question, access, known = pickle.load(sys.stdin.buffer)  # noqa: S301  (as above)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    directory = LDAPDirectory(access)
    answer: tuple[str, object]
    try:
        answer = "answer", directory.snapshot(known) if question == "snapshot" else directory.mark(known)
    except LDAPFailed as error:
        answer = "failed", str(error)
    except Exception:  # a defect of ours, to be logged by whoever asked
        answer = "broke", traceback.format_exc()
    sys.stdout.buffer.write(pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL))
    sys.stdout.buffer.flush()
    os._exit(0)


def _end_with_parent() -> None:
    """Nobody writes any more; the pipe is closed when whoever asked has ended, however that ended."""
    while os.read(0, 1):
        continue
    os._exit(1)


if __name__ == "__main__":
    _serve()
