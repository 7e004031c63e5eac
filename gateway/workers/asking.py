"""What a worker asks its main process and waits for. Not for a channel's own rules: those are in `channel`."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

ANSWER_S = 20.0
"""For the main process to write what came to a worker: four times what its writer waits for a locked database."""


class Unanswered(Exception):  # noqa: N818  (reads as what happened)
    """Whether the main process did what it was asked for is not known: it did not say so in time, or is gone."""


class Asking(Generic[T]):
    """Questions of one kind, each with a number of its own until it is answered."""

    def __init__(self, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._number = 0
        self._waiting: dict[int, asyncio.Future[T]] = {}

    async def ask(self, say: Callable[[int], bool]) -> T:
        """The answer to what `say` says, which is given the number of the question. Raises Unanswered."""
        self._number += 1
        number = self._number
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            if not say(number):
                raise Unanswered
            async with asyncio.timeout(self._answer_s):
                return await answer
        except TimeoutError:
            raise Unanswered from None
        finally:
            del self._waiting[number]

    def answered(self, number: int, answer: T) -> None:
        """The main process says so; nobody may wait for it any more."""
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)
