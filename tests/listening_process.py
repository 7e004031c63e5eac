"""Another program that listens on a port, as a process of its own: started, waited for, and ended by its number."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S_MAX = 60.0  # preparing 10,000 datasets takes a while
STOP_S_MAX = 20.0


@contextmanager
def listening(command: list[str], port: int) -> Iterator[None]:
    """The program while it runs. Raises RuntimeError if it does not listen in time."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S_MAX
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{Path(command[0]).name} did not start")
            time.sleep(0.05)  # another process cannot be awaited, only asked
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
