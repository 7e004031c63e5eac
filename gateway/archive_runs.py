"""Runs over the archive in processes of their own (design D3b): what a changed mapping would do, what no rule reads.

Each process reads the site and the archive by itself and sums up; only sums come back, so a run over a million messages
needs no more memory than one over a thousand. Nothing here changes anything.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar
from uuid import UUID

from gateway.config import Site, load_site
from gateway.domain.identifiers import Mint
from gateway.edges.store import StoreReader, read_only
from gateway.fhir_processing import fhir_feeds_of
from gateway.processing import feeds_of
from gateway.wire.hl7_source import HANDLED
from gateway.workflow.compare import Comparison
from gateway.workflow.coverage import Coverage
from gateway.workflow.fhir_feed import FHIRFeed
from gateway.workflow.intake import Feed
from gateway.workflow.ports import MessageSearch, StoredMessage
from gateway.workflow.rereading import AnyFeed, meanings

CHUNK = 2_000
"""Messages of one task: some seconds of work, so that a bar moves and no process waits for the last one."""

ALONE_MAX = 1_000
"""Messages that one process is done with before others have started."""

_PAGE = 200
_NO_MINT = Mint(UUID(int=0))  # keys that would be made are not compared
_EVENTS = {code: {event for known, event in HANDLED if known == code} for code, _ in HANDLED}


class _Adds(Protocol):
    """A sum over messages; sums of the same kind add up."""

    def add(self, other: Self, /) -> None: ...


Sum = TypeVar("Sum", bound=_Adds)
Sum_co = TypeVar("Sum_co", bound=_Adds, covariant=True)
Progress = Callable[[int], None]
"""Told how many messages more are done."""


def _untold(_messages: int) -> None:
    """For a run that nobody watches."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Which messages: from number `first` to `last`, both included."""

    first: int
    last: int

    @property
    def messages_max(self) -> int:
        """How many there can be."""
        return max(0, self.last - self.first + 1)


def extent(reader: StoreReader, since: datetime | None) -> Extent:
    """The archive's messages received since then, or all."""
    oldest = reader.messages_in_order(MessageSearch(since=since), 1)
    newest = reader.find_messages(MessageSearch(), 1)
    return Extent(oldest[0].id, newest[0].id) if oldest and newest else Extent(1, 0)


def compare(
    config: Path, mappings: Path, which: Extent, listener: str = "", processes: int = 0, progress: Progress = _untold
) -> Comparison:
    """What the mappings of this folder would make otherwise of the archive. `processes` 0: one for each processor."""
    return _over(_Comparing(config, listener, mappings), which, processes, progress, Comparison())


def cover(
    config: Path, which: Extent, listener: str = "", processes: int = 0, progress: Progress = _untold
) -> Coverage:
    """Which fields of the archive no rule reads. Of HL7 v2: requests of FHIR are counted as skipped."""
    return _over(_Covering(config, listener), which, processes, progress, Coverage())


@dataclass(frozen=True)
class _Covering:
    config: Path
    listener: str

    def prepare(self) -> Callable[[Extent], Coverage]:
        site = load_site(self.config)
        feeds, reader = feeds_of(site, _NO_MINT), read_only(site.store_url)

        def run(part: Extent) -> Coverage:
            coverage = Coverage()
            for stored in _received(reader, part, self.listener):
                feed = _feed(stored, feeds)
                if feed is None:
                    coverage.skipped += 1
                else:
                    coverage.note(stored.id, stored.record.raw, feed)
            return coverage

        return run


@dataclass(frozen=True)
class _Comparing:
    config: Path
    listener: str
    mappings: Path = field(default=Path())

    def prepare(self) -> Callable[[Extent], Comparison]:
        site = load_site(self.config)
        feeds, reader = _feeds(site), read_only(site.store_url)
        changed = _feeds(load_site(self.config, self.mappings))
        alike = {name for name, feed in feeds.items() if _digests(feed) == _digests(changed[name])}

        def run(part: Extent) -> Comparison:
            comparison = Comparison()
            for stored in _received(reader, part, self.listener):
                feed = _any_feed(stored, feeds)
                if feed is None:
                    comparison.skipped += 1
                elif feed.name in alike:  # the same mapping gives the same: there is nothing to read
                    comparison.unchanged += 1
                else:
                    kept = reader.kept_report(stored.id) if isinstance(feed, FHIRFeed) else None
                    comparison.note(stored.id, *meanings(stored.record.raw, feed, changed[feed.name], kept))
            return comparison

        return run


def _feeds(site: Site) -> dict[str, AnyFeed]:
    return {**fhir_feeds_of(site, _NO_MINT), **feeds_of(site, _NO_MINT)}


def _digests(feed: AnyFeed) -> frozenset[str]:
    """What the feed's rule sets are made of."""
    mappings = feed.mappings.values() if isinstance(feed, FHIRFeed) else (feed.mapping,)
    return frozenset(mapping.digest for mapping in mappings)


def _any_feed(stored: StoredMessage, feeds: dict[str, AnyFeed]) -> AnyFeed | None:
    """The feed it came by; None where there is none any more, or it said nothing that a mapping reads."""
    found = feeds.get(stored.record.listener)
    if isinstance(found, FHIRFeed):
        return found if stored.record.disposition not in _NOTHING_SAID else None
    return _feed(stored, {found.name: found}) if found is not None else None


_NOTHING_SAID = frozenset({"refused", "unreadable", "ignored"})


def _received(reader: StoreReader, part: Extent, listener: str) -> Iterator[StoredMessage]:
    """What came by a feed, and not again by a replay."""
    after = part.first - 1
    while after < part.last:
        page = reader.messages_in_order(MessageSearch(), _PAGE, after)
        for stored in page:
            if stored.id > part.last:
                return
            record = stored.record
            if record.direction == "in" and record.replay_of is None and listener in ("", record.listener):
                yield stored
        if len(page) < _PAGE:
            return
        after = page[-1].id


def _feed(stored: StoredMessage, feeds: dict[str, Feed]) -> Feed | None:
    """The feed it came by; None where there is none any more, or nothing that a mapping reads."""
    record = stored.record
    feed = feeds.get(record.listener)
    code, _, event = record.message_type.partition("^")
    if feed is None or code not in _EVENTS or (event and event not in _EVENTS[code]):
        return None
    return None if record.message_type in feed.ignore or code in feed.ignore else feed


class _Job(Protocol[Sum_co]):
    """What each process has to do, small enough to send: it prepares itself from the site's files."""

    def prepare(self) -> Callable[[Extent], Sum_co]: ...


def _over(job: _Job[Sum], which: Extent, processes: int, progress: Progress, total: Sum) -> Sum:
    chunks = [Extent(first, min(first + CHUNK - 1, which.last)) for first in range(which.first, which.last + 1, CHUNK)]
    workers = min(processes or os.cpu_count() or 1, len(chunks))
    if workers <= 1 or which.messages_max <= ALONE_MAX:
        run = job.prepare()
        for chunk in chunks:
            total.add(run(chunk))
            progress(chunk.messages_max)
        return total
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(job,)
    ) as pool:
        waiting = {pool.submit(_run, chunk): chunk for chunk in chunks}
        for done in as_completed(waiting):
            total.add(done.result())
            progress(waiting.pop(done).messages_max)
    return total


_prepared: list[Callable[[Extent], Any]] = []


def _start(job: _Job[Any]) -> None:
    """In a process of the pool: get ready once for all chunks."""
    _prepared.append(job.prepare())


def _run(part: Extent) -> Any:
    return _prepared[0](part)
