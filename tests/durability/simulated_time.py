"""An event loop whose clock goes only when everything waits: an hour in a second, and the same every time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Where the loop would wait for the time to pass, it has passed."""

    def __init__(self, loop: "SimulatedTime") -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits for something that has no time")
        self._loop.now += max(timeout, 0.0)
        return super().select(0)


class SimulatedTime(asyncio.SelectorEventLoop):
    """For code that has no other clock than the loop's, and neither threads nor sockets."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, in simulated time."""
    with asyncio.Runner(loop_factory=SimulatedTime) as runner:
        return runner.run(main)
