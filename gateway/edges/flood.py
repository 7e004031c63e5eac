"""How many lines of a log strangers can fill: what is refused is told one by one, and in a flood of it by number.

What may live here: the count for the log alone. Metrics count each by themselves.

    refusals_not_told   of (the event), reason, more (how many of them within `TOLD_EVERY_S` have no line of their own)
"""

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

TOLD_ONE_BY_ONE = 10
"""Events of one kind and reason within `TOLD_EVERY_S` that have a line of their own; the others are counted in one."""
TOLD_EVERY_S = 10.0

_log = structlog.get_logger()


def log_more(event: str, reason: str, more: int) -> None:
    """Tell in one line of events that had none of their own."""
    _log.warning("refusals_not_told", of=event, reason=reason, more=more)


class Flood:
    """Tells which events have a line of their own. Of reasons there are few. Needs a running event loop."""

    def __init__(self, summarise: Callable[[str, str, int], None] = log_more) -> None:
        """`summarise` takes event, reason, and how many more there were."""
        self._summarise = summarise
        self._seen: Counter[tuple[str, str]] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def lets(self, event: str, reason: str) -> bool:
        """Whether this one, which has just happened, is told by itself."""
        self._seen[event, reason] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOLD_EVERY_S, self.flush)
        return self._seen[event, reason] <= TOLD_ONE_BY_ONE

    def flush(self) -> None:
        """Tell of those that were not told one by one, and begin anew."""
        seen, self._seen = self._seen, Counter()
        for (event, reason), count in seen.items():
            if count > TOLD_ONE_BY_ONE:
                self._summarise(event, reason, count - TOLD_ONE_BY_ONE)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
