"""What the archive keeps, and for how long: messages that are too old or too many go, and the disk gets the space back.

Done in small jobs with other writes between them, so that no sender waits for it. It may be stopped at any point and
begun again. What is about an order on the list, or not done with, stays whatever the settings say.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.config import ArchiveSettings
from gateway.edges.archive_reader import ArchiveReader, Prunable
from gateway.edges.store import Store
from gateway.workflow.ports import MessageSearch

BATCH = 100
"""Messages looked at by one job: with their keys some milliseconds of the writer."""

PAGES = 256
"""Pages given back by one job, a megabyte: each may have to be filled from the file's end."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted, or would be, and how many of those looked at stay because somebody still needs them."""

    deleted: int = 0
    kept: int = 0


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


def would_prune(archive: ArchiveReader, settings: ArchiveSettings, at: datetime) -> Pruned:
    """What `prune` would do, without doing it."""
    return _sum(_walk(due(archive, settings, at), archive.prunable_messages))


def prune(store: Store, settings: ArchiveSettings, at: datetime) -> Pruned:
    """Delete what is due and give its space back. Blocks its thread; raises StoreUnavailable.

    The file itself is shorter after the next checkpoint.
    """

    def look(before: int, limit: int, after: int) -> Prunable:
        return store.write(lambda unit: unit.prune_messages(before, limit, after)).result()

    pruned = _sum(_walk(store.write(lambda unit: due(unit, settings, at)).result(), look))
    while store.write(lambda unit: unit.give_back_space(PAGES)).result():
        pass
    return pruned


def _walk(what: Due, look: Callable[[int, int, int], Prunable]) -> Iterator[Prunable]:
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


def _sum(batches: Iterator[Prunable]) -> Pruned:
    deleted = looked_at = 0
    for batch in batches:
        deleted += len(batch.numbers)
        looked_at += batch.looked_at
    return Pruned(deleted, looked_at - deleted)
