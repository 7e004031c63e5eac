"""The tutorial "your first feed in fifteen minutes", followed to the letter: its commands, and what it says they print.

Only the ports are others, and `make demo`, which sets up what the tests run in, is passed over.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from gateway.testing import free_port

PAGE = Path(__file__).parents[2] / "docs" / "first-feed.md"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PASSED_OVER = "make demo\n"
DEFAULT_PORTS = ("2575", "11112", "8080")
PATIENCE_S = 120
"""For one block or one wait: far above what any takes, so that what hangs ends."""


class Reader:
    """Somebody who types what stands on the page, in a folder like a fresh clone's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {port: str(free_port()) for port in DEFAULT_PORTS}
        self.reloads = 0
        (folder / ".venv").mkdir()
        (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)

    def types(self, block: str) -> str:
        """Runs one block in a shell of its own and gives what it printed; waits for a service that it started."""
        done = subprocess.run(
            ["sh", "-c", self.with_ports(block)], cwd=self.folder, timeout=PATIENCE_S, check=False, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        if "gateway init" in block:
            configuration = self.folder / "site" / "gateway.yaml"
            configuration.write_text(self.with_ports(configuration.read_text(encoding="utf-8")), encoding="utf-8")
        if "gateway run" in block:
            self._wait_for("the service", self._is_ready)
        if "kill -HUP" in block:
            self.reloads += 1
            self._wait_for("the reload", lambda: self._log().count('"reloaded"') >= self.reloads)
        return done.stdout

    def with_ports(self, text: str) -> str:
        """The text with the ports that are free here."""
        return re.sub(r"\b(" + "|".join(self.ports) + r")\b", lambda found: self.ports[found[0]], text)

    def stops(self) -> None:
        """Ends the service if the page did not come so far."""
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self.folder / "site" / "gateway.pid").read_text()), signal.SIGTERM)

    def _log(self) -> str:
        return (self.folder / "site" / "gateway.log").read_text(encoding="utf-8")

    def _is_ready(self) -> bool:
        address = f"http://127.0.0.1:{self.ports['8080']}/health/ready"
        with suppress(URLError, ConnectionError), urlopen(address, timeout=PATIENCE_S) as answer:
            return bool(answer.status == 200)
        return False

    def _wait_for(self, what: str, done: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < until, f"{what} did not come: {self._log()}"
            time.sleep(0.05)  # another process cannot be awaited, only asked


def blocks() -> list[tuple[str, str]]:
    """The blocks of the page in their order: what is typed (sh) and what is printed (text)."""
    return BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def missing(told: str, printed: str) -> Sequence[str]:
    """The lines of the page that were not printed, in that order. `...` stands for anything; blanks do not count."""
    rest, lost = " ".join(printed.split()), []
    for line in told.splitlines():
        parts = [re.escape(" ".join(part.split())) for part in line.split("...")]
        found = re.search(r"\s?.*?\s?".join(parts).strip(), rest)
        if found is None:
            lost.append(line)
        else:
            rest = rest[found.end() :]
    return lost


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    somebody = Reader(tmp_path)
    yield somebody
    somebody.stops()


def test_the_tutorial_works_as_it_is_written(reader: Reader) -> None:
    printed = ""
    for kind, block in blocks():
        if kind == "sh":
            printed = "" if block == PASSED_OVER else reader.types(block)
        else:
            assert missing(reader.with_ports(block), printed) == [], printed


def test_every_block_of_the_tutorial_is_typed_or_printed() -> None:
    fences = re.findall(r"^```(\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert fences == [kind for kind, _ in blocks()]
