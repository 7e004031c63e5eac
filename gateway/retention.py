"""What the archive keeps, and for how long: what is too old or too many goes, and the disk gets the space back.

These are messages, and by age alone the requests of performed steps as they came; what is held of the steps stays.

Done in small jobs with other writes between them, so that no sender waits for it. It may be stopped at any point and
begun again. What is about an order on the list, a performed step that is not over, or not done with, stays whatever
the settings say.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.config import ArchiveSettings
from gateway.edges.archive_reader import ArchiveReader, Prunable
from gateway.edges.store import Store
from gateway.workflow.ports import MessageSearch

BATCH = 100
"""Messages or requests looked at by one job: with their keys some milliseconds of the writer."""

PAGES = 256
"""Pages given back by one job, a megabyte: each may have to be filled from the file's end."""

_Look = Callable[[int, int, int], Prunable]
"""Looks at the next so many, by the number they are before, how many, and the number they are behind."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted, or would be, and how many of those looked at stay because somebody still needs them.

    Of messages, and of the requests of performed steps.
    """

    deleted: int = 0
    kept: int = 0
    requests: int = 0
    requests_kept: int = 0


@dataclass(frozen=True, slots=True)
class Due:
    """What retention is to look at: all before number `aged`, and at least the oldest `beyond` messages.

    Never the newest one, so that no number is given twice.
    """

    aged: int
    beyond: int
    newest: int


def due(archive: ArchiveReader, settings: ArchiveSettings, at: datetime) -> Due:
    """What is too old or too much at this time."""
    newest = archive.newest_message()
    aged = archive.first_message_since(at - timedelta(days=settings.days)) if settings.days else 0
    beyond = archive.count_messages(MessageSearch()) - settings.messages_max if settings.messages_max else 0
    return Due(min(aged, newest), beyond, newest)


def requests_due(archive: ArchiveReader, settings: ArchiveSettings, at: datetime) -> int:
    """The number before which requests of performed steps are too old. Never the newest one's, as of messages."""
    if not settings.days:
        return 0
    return min(archive.first_request_since(at - timedelta(days=settings.days)), archive.newest_request())


def would_prune(archive: ArchiveReader, settings: ArchiveSettings, at: datetime) -> Pruned:
    """What `prune` would do, without doing it."""
    messages = _walk(due(archive, settings, at), archive.prunable_messages)
    return _sum(messages, _to(requests_due(archive, settings, at), archive.prunable_requests))


def prune(store: Store, settings: ArchiveSettings, at: datetime) -> Pruned:
    """Delete what is due and give its space back. Blocks its thread; raises StoreUnavailable.

    The file itself is shorter after the next checkpoint.
    """

    def look(before: int, limit: int, after: int) -> Prunable:
        return store.write(lambda unit: unit.prune_messages(before, limit, after)).result()

    def look_at_requests(before: int, limit: int, after: int) -> Prunable:
        return store.write(lambda unit: unit.prune_requests(before, limit, after)).result()

    messages = _walk(store.write(lambda unit: due(unit, settings, at)).result(), look)
    before = store.write(lambda unit: requests_due(unit, settings, at)).result()
    pruned = _sum(messages, _to(before, look_at_requests))
    while store.write(lambda unit: unit.give_back_space(PAGES)).result():
        pass
    return pruned


def _to(before: int, look: _Look) -> Iterator[Prunable]:
    """Looks at everything before this number."""
    after = 0
    while (found := look(before, BATCH, after)).looked_at:
        after = found.last
        yield found


def _walk(what: Due, look: _Look) -> Iterator[Prunable]:
    """Looks at what is too old, then at as many more as are too much."""
    seen = after = 0
    for before, most in ((what.aged, None), (what.newest, what.beyond)):
        while most is None or seen < most:
            found = look(before, BATCH if most is None else min(BATCH, most - seen), after)
            if not found.looked_at:
                break
            seen += found.looked_at
            after = found.last
            yield found


def _sum(messages: Iterator[Prunable], requests: Iterator[Prunable]) -> Pruned:
    return Pruned(*_counted(messages), *_counted(requests))


def _counted(batches: Iterator[Prunable]) -> tuple[int, int]:
    """How many go, and how many of those looked at stay."""
    deleted = looked_at = 0
    for batch in batches:
        deleted += len(batch.numbers)
        looked_at += batch.looked_at
    return deleted, looked_at - deleted
