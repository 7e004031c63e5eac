"""The gateway in a process that also watches itself: told by signals when, it writes what it saw into a file.

Such a process is `python -m MODULE CONFIG OUT ...`: its module installs what watches by `on_signals` and then calls
`run_gateway`. Nothing of the product knows about this.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.testing import ServiceProcess
from tests.benchmarks.measure import CPUSeconds, cpu_seconds

WRITE_S_MAX = 10.0


class ObservedService(ServiceProcess):
    """The service as another module runs it, with what that module watches."""

    def __init__(self, config: Path, module: str, out: Path, *arguments: str) -> None:
        super().__init__(config)
        self._command = [sys.executable, "-m", module, str(config), str(out), *arguments]
        self._out = out

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start it and do not wait."""
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        return self._process

    def begin(self) -> None:
        """From now on it counts."""
        os.kill(self.pid, signal.SIGUSR1)
        self._before = cpu_seconds(self.pid)

    def end(self) -> tuple[dict[str, Any], CPUSeconds]:
        """What was seen since `begin`, and the processor time spent. Raises RuntimeError if it does not say."""
        after = cpu_seconds(self.pid)
        os.kill(self.pid, signal.SIGUSR2)
        deadline = time.monotonic() + WRITE_S_MAX
        while not self._out.exists():
            if time.monotonic() > deadline:
                raise RuntimeError("the profile was not written")
            time.sleep(0.02)  # another process cannot be awaited, only asked
        seen: dict[str, Any] = json.loads(self._out.read_text(encoding="utf-8"))
        return seen, CPUSeconds(after.user - self._before.user, after.system - self._before.system)


def on_signals(out: Path, begin: Callable[[], None], end: Callable[[], Mapping[str, object]]) -> None:
    """In that process: SIGUSR1 begins, SIGUSR2 ends and writes what was seen."""

    def write() -> None:
        unfinished = out.with_suffix(".part")
        unfinished.write_text(json.dumps(end()), encoding="utf-8")
        unfinished.rename(out)

    signal.signal(signal.SIGUSR1, lambda _number, _frame: begin())
    signal.signal(signal.SIGUSR2, lambda _number, _frame: write())


def run_gateway(config: str) -> None:
    """`gateway run` in this process, until it ends."""
    sys.argv = ["gateway", "run", "--config", config]
    runpy.run_module("gateway", run_name="__main__")
