"""How far another FHIR server was read, and what is still to be fetched from it: kept in the store, so that a restart
goes on where the last run ended and nothing that a notification told is forgotten.

What may live here: one feed's mark and how each thing that happens changes it. Nothing is fetched or stored here.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Self

from gateway.wire.fhir_notifications import Notification, Occasion

PENDING_MAX = 10_000
"""References that wait to be fetched. Beyond it a search finds them: `whole` says that one is due."""
LATE_MAX = 20
"""An event that comes so many numbers late is a late one; one that is further behind was counted from a new start."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How far one search was read; times are meta.lastUpdated, ISO 8601.

    `since` is where the last look that came to its end had got to. The others are of a look that broke off: the
    address of the page to go on with, the newest that was seen before it, and when that look began.
    """

    since: str = ""
    next: str = ""
    newest: str = ""
    began: str = ""

    def read(self, newest: str, following: str, began: str) -> "Reading":
        """After a page: `newest` on it, '' where it had none, and the address of the one after it, '' at the end.

        What changes while pages are turned may stand on none of them: the next look begins no later than this one did.
        """
        began = self.began or began
        newest = _later(self.newest, newest)
        if following:
            return replace(self, next=following, newest=newest, began=began)
        reached = newest if not newest or instant(newest) <= instant(began) else began
        return Reading(_later(self.since, reached))

    def restarted(self) -> "Reading":
        """Without a look that broke off: the next one begins where this one did."""
        return Reading(self.since)


@dataclass(frozen=True, slots=True)
class Mark:
    """One feed's.

    `pending` are references told and not fetched yet, the oldest first, with how often they were told. `subscription`
    is the id of ours there, `asked` a digest of what was asked for, `status` the last that was heard of it. `events` is
    the highest number of its events that was heard of, `missed` the first and last of those that went by. `whole`
    counts the reasons for a search that is due; `looked` is when the last look came to its end (ISO 8601).
    """

    readings: Mapping[str, Reading] = field(default_factory=dict)
    pending: Mapping[str, int] = field(default_factory=dict)
    subscription: str = ""
    asked: str = ""
    status: str = ""
    events: int = 0
    missed: tuple[int, int] | None = None
    whole: int = 0
    looked: str = ""

    @classmethod
    def of(cls, text: str) -> Self:
        """As `text` wrote it; the beginning for ''."""
        if not text:
            return cls()
        said = json.loads(text)
        said["readings"] = {search: Reading(**each) for search, each in said["readings"].items()}
        said["missed"] = tuple(said["missed"]) if said["missed"] else None
        return cls(**said)

    @property
    def text(self) -> str:
        """For the store."""
        return json.dumps(asdict(self))

    @property
    def is_behind(self) -> bool:
        """Whether something is known to be there that was not fetched."""
        return bool(self.pending or self.missed or self.whole)

    # --- what was told ----------------------------------------------------------------------------------------------

    def told(self, references: Iterable[str]) -> Self:
        """The same with more to fetch; what waits already waits once."""
        pending, whole = dict(self.pending), self.whole
        for each in references:
            if each in pending or len(pending) < PENDING_MAX:
                pending[each] = pending.get(each, 0) + 1
            else:
                whole += 1
        return replace(self, pending=pending, whole=whole)

    def fetched(self, done: Mapping[str, int]) -> Self:
        """The same without these, as `pending` had them; what was told once more meanwhile is fetched once more."""
        pending = {each: times for each, times in self.pending.items() if done.get(each) != times}
        return replace(self, pending=pending)

    def heard(self, notification: Notification) -> Self:
        """The same after what a notification says of itself; what it names is `told`.

        One that comes again, or late, changes nothing. A gap is noted; where the other server began to count anew,
        nobody knows what went by, so everything is searched.
        """
        if self._is_of_another(notification.subscription):
            return self
        mark = replace(self, status=notification.status or self.status)
        if notification.occasion is Occasion.HANDSHAKE:
            known = notification.events or 0
            if notification.events is not None and known < self.events:
                return replace(mark, events=known, missed=None, whole=self.whole + 1)
            return replace(mark, events=known)._without(self.events + 1, known)
        last, begins = notification.last, notification.begins
        if last is None or begins is None:  # it does not count
            return mark
        is_event = notification.occasion is Occasion.EVENT
        if last < self.events - (LATE_MAX if is_event else 0):
            return replace(mark, events=last, missed=None, whole=self.whole + 1)
        mark = mark._without(self.events + 1, begins - 1)
        if notification.gap is not None:
            mark = mark._without(*notification.gap)
        return replace(mark, events=max(notification.reaches or 0, self.events))

    def _without(self, first: int, last: int) -> Self:
        """The same where these events went by, if there are any."""
        if last < first:
            return self
        before = self.missed or (first, last)
        return replace(self, missed=(min(first, before[0]), max(last, before[1])))

    def _is_of_another(self, reference: str) -> bool:
        named = reference.rpartition("/")[2]
        return bool(self.subscription and named and named != self.subscription)

    # --- what was read ----------------------------------------------------------------------------------------------

    def reading(self, search: str) -> Reading:
        """How far this search was read."""
        return self.readings.get(search, Reading())

    def read(self, search: str, reading: Reading) -> Self:
        """The same with this search read so far."""
        return replace(self, readings={**self.readings, search: reading})

    def only(self, searches: Iterable[str]) -> Self:
        """The same without searches that nobody asks for any more."""
        asked = frozenset(searches)
        return replace(self, readings={each: how for each, how in self.readings.items() if each in asked})

    def searched(self, reasons: int, at: datetime) -> Self:
        """The same after every search came to its end; `reasons` were there when the first of them began."""
        return replace(self, whole=max(0, self.whole - reasons), looked=at.isoformat(timespec="seconds"))


def going_back(since: str, overlap_s: float) -> str:
    """The instant that a search begins with, `overlap_s` before this one; '' for everything."""
    try:
        return (instant(since) - timedelta(seconds=overlap_s)).isoformat(timespec="milliseconds") if since else ""
    except OverflowError:  # servers that know no time of a change say the first day there is
        return ""


def instant(text: str) -> datetime:
    """A FHIR instant. Raises ValueError for what is none, also for one without an offset."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("an instant names its offset from UTC")
    return found


def _later(one: str, other: str) -> str:
    if not one or not other:
        return one or other
    return one if instant(one) >= instant(other) else other
