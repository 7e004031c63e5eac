"""Somebody who follows a page of the documentation to the letter: types its commands, and compares what they print.

Only the ports are others, and `make demo`, which sets up what the tests run in, is passed over.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from gateway.testing import free_port

DOCS = Path(__file__).parents[2] / "docs"
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
        (folder / ".venv").symlink_to(Path(sys.executable).parents[1])

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


def blocks(page: str) -> list[tuple[str, str]]:
    """The blocks of a page of docs in their order: what is typed (sh) and what is printed (text)."""
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


def fences(page: str) -> list[str]:
    """What every block of the page is written in."""
    return re.findall(r"^```(\w+)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)


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


def follow(page: str, reader: Reader) -> None:
    """Types every block in turn. What the page says was printed has to have been, in that order."""
    printed = ""
    for kind, block in blocks(page):
        if kind == "sh":
            printed = "" if block == PASSED_OVER else reader.types(block)
        else:
            assert missing(reader.with_ports(block), printed) == [], printed
