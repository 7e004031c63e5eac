"""A gateway to test against: its clock, its site folder, and the process itself, which can be killed and restarted."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ruamel.yaml import YAML

from gateway.examples import folder

# Below the ports that systems lend to outgoing connections (32768 on Linux, 49152 elsewhere): while a killed
# service is away, none of its clients can be lent the port that it will ask for again.
PORTS = range(15_000, 32_000)
BLOCK_PORTS = 500
"""Each process gives out the ports of a block of its own, in turn: so tests that run at once in several processes never
give the same port to two listeners that are not open yet. It is the block whose first port the process has bound."""
READY_S = 30.0  # a loaded test machine starts many processes at once
STOP_S = 15.0
OUTPUT_CHARACTERS_MAX = 4_000  # of the service's last words, in an error message


@dataclass
class FixedClock:
    """A clock that stands still until it is told to go on."""

    time: datetime

    def now(self) -> datetime:
        """The time it was set to."""
        return self.time

    def advance(self, by: timedelta) -> datetime:
        """Go on by this much, and say the new time."""
        self.time += by
        return self.time


def free_port() -> int:
    """A loopback port that nobody listens on now, that was not given out lately and that no outgoing connection will be
    lent. Raises OSError when there is none.
    """
    for port in islice(_own_ports, BLOCK_PORTS):
        with socket.socket() as probe:
            if _bound(probe, port):
                return port
    raise OSError(f"no port of {PORTS} is free")


def _turns() -> Iterator[int]:
    """The ports of this process's block, round and round; the block is kept until the process ends."""
    firsts = PORTS[::BLOCK_PORTS]
    with socket.socket() as guard:
        if any(_bound(guard, first) for first in random.sample(firsts, len(firsts))):
            first = guard.getsockname()[1]
            yield from cycle(range(first + 1, first + BLOCK_PORTS))


def _bound(end: socket.socket, port: int) -> bool:
    try:
        end.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


_own_ports = _turns()


def site(directory: Path, **overrides: Any) -> Path:
    """Write the smallest `gateway.yaml` into `directory`, on free loopback ports, and return its path.

    The shipped mappings are used and unknown devices are accepted. An override replaces a key of the top level; where
    both are mappings it is merged into it: `site(path, dicom={"idle_s": 5}, timezone="Asia/Tokyo")`.
    """
    settings: dict[str, Any] = {
        "ae_title": "GATEWAY",
        "store": "sqlite:///gateway.db",
        "dicom": {"host": "127.0.0.1", "port": free_port()},
        "hl7": [{"name": "ris", "host": "127.0.0.1", "port": free_port(), "mapping": "ihe-swf"}],
        "http": {"host": "127.0.0.1", "port": free_port()},
        "devices": {"unknown": "accept"},
        "mappings": str(folder("mappings")),
        "timezone": "Europe/Berlin",
    }
    for key, value in overrides.items():
        held = settings.get(key)
        settings[key] = {**held, **value} if isinstance(held, dict) and isinstance(value, Mapping) else value
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "gateway.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(settings, file)
    return path


class ServiceFailed(Exception):  # noqa: N818  (reads as what happened)
    """The service did not start or did not stop; the message ends with its last output."""


class ServiceProcess:
    """`gateway run` as a process of its own; a context manager that starts it and stops it.

    `output` is the file its output goes to, beside the configuration, across restarts.
    """

    def __init__(self, config: Path, ready_s: float = READY_S) -> None:
        settings = YAML(typ="safe").load(config.read_text(encoding="utf-8"))
        self.config = config
        self.output = config.with_name("output.log")
        self.ae_title: str = settings["ae_title"]
        self.host: str = settings["dicom"]["host"]
        self.dicom_port: int = settings["dicom"]["port"]
        self.hl7_port: int = settings["hl7"][0]["port"] if settings["hl7"] else 0
        self.http_port: int = settings["http"]["port"]
        self._ready_s = ready_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process number. Raises ServiceFailed if it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ServiceFailed("the service does not run")
        return self._process.pid

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it and do not wait."""
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  (our own command line, no shell)
                [sys.executable, "-m", "gateway", "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self._process

    def start(self) -> Self:
        """Start it and wait until it says that it is ready. Raises ServiceFailed."""
        process = self.launch()
        deadline = time.monotonic() + self._ready_s
        while not self._is_ready():
            if process.poll() is not None:
                raise ServiceFailed(f"the service ended with {process.returncode}\n{self._last_words()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServiceFailed(f"the service was not ready after {self._ready_s:g} s\n{self._last_words()}")
            time.sleep(0.02)  # another process cannot be awaited, only asked
        return self

    def kill(self) -> None:
        """Let it die at once, as a power cut would: SIGKILL to exactly this process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ask it to stop (SIGTERM) and wait. Raises ServiceFailed if it has to be killed or ends with an error."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServiceFailed(f"the service did not stop within {STOP_S:g} s\n{self._last_words()}") from None
        self._process = None
        if code:
            raise ServiceFailed(f"the service ended with {code}\n{self._last_words()}")

    def reload(self) -> None:
        """Have it read its files again (SIGHUP); it takes them on a moment later, or says in its output why not."""
        os.kill(self.pid, signal.SIGHUP)

    def restart(self) -> Self:
        """Stop it cleanly if it runs, and start it again on the same store."""
        self.stop()
        return self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except ServiceFailed:
            if error is None:
                raise  # otherwise the test's own failure is the better story
        if error is not None:
            error.add_note(f"the service said:\n{self._last_words()}")

    def _is_ready(self) -> bool:
        url = f"http://{self.host}:{self.http_port}/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _last_words(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")[-OUTPUT_CHARACTERS_MAX:]
