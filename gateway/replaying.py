"""Runs of archived messages, again or only to see what would come of it: chosen, in order, a few at a time.

A run is as long as the archive wants and holds no more messages than one dry-run job takes.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice

from gateway.config import Site
from gateway.domain.identifiers import Mint
from gateway.domain.refusal import Refusal
from gateway.edges.store import Store
from gateway.edges.strict_checks import STRICT_CHECKS
from gateway.fhir_processing import all_archive_feeds, replay_request
from gateway.processing import now, process_message, remember_mappings
from gateway.workflow.fhir_feed import FHIRFeed
from gateway.workflow.intake import is_from_elsewhere
from gateway.workflow.ports import MessageRecord, MessageSearch, StoredMessage
from gateway.workflow.rehearsal import REPLAY_PEER, Rehearsed, rehearse
from gateway.workflow.rereading import AnyFeed

REHEARSED_TOGETHER = 50
"""Messages of one dry-run job: they see each other's effects, and the service's senders wait some 0.1 s for it."""

CANNOT_BE_RUN = "cannot be run"
"""What becomes of a message that is not there, that we sent, or whose listener is gone."""

_NOT_ACCEPTED = frozenset({"refused", "unreadable"})


class Replaying:
    """One run of archived messages over a site's store."""

    def __init__(self, site: Site, store: Store) -> None:
        self._site, self._store = site, store
        self._reader = store.open_reader()
        self._feeds = all_archive_feeds(site, Mint(store.site_namespace()))
        self.passed_over = 0
        """Messages found that were replays themselves, or were accepted by one since."""

    def originals(self, search: MessageSearch) -> Iterator[int]:
        """The numbers of what the search finds now, oldest first, without those that `passed_over` counts."""
        last = self._reader.newest_message()
        for number in self._reader.message_numbers(search):
            if number > last:  # made by this run
                return
            stored = self._reader.message(number)
            if stored is None:
                continue
            if stored.record.replay_of is not None or self._accepted_since(stored) or is_from_elsewhere(stored.record):
                self.passed_over += 1
            else:
                yield number

    def _accepted_since(self, stored: StoredMessage) -> bool:
        """Whether a refused message was run again already, and accepted."""
        record = stored.record
        if record.disposition not in _NOT_ACCEPTED:
            return False
        same = self._reader.earlier_messages(record.listener, record.sender, record.control_id)
        return any(each.record.replay_of == stored.id and each.record.disposition == "accepted" for each in same)

    async def run(self, numbers: Iterable[int]) -> AsyncIterator[Rehearsed]:
        """Run these again, one after the other."""
        await remember_mappings(self._store, self._site)
        for number in numbers:
            stored = self._reader.message(number)
            feed, hindrance = self._feed(stored)
            if stored is None or feed is None:
                yield Rehearsed(number, CANNOT_BE_RUN, (hindrance,))
                continue
            disposition = await self._again(stored, feed)
            yield Rehearsed(number, disposition, self._reasons(number, stored.record))

    async def _again(self, stored: StoredMessage, feed: AnyFeed) -> str:
        """What became of it."""
        if isinstance(feed, FHIRFeed):
            return (await replay_request(self._store, stored, feed)).disposition
        return (await process_message(self._store, stored.record.raw, feed, REPLAY_PEER, stored.id)).disposition

    async def rehearse(self, numbers: Iterable[int]) -> AsyncIterator[Rehearsed]:
        """What would become of these; nothing is changed."""
        rest = iter(numbers)
        while chunk := list(islice(rest, REHEARSED_TOGETHER)):
            for result in await self._rehearse(chunk):
                yield result

    async def _rehearse(self, numbers: Sequence[int]) -> Sequence[Rehearsed]:
        at = now()
        loaded: list[tuple[StoredMessage, AnyFeed, Sequence[Refusal]]] = []
        results: dict[int, Rehearsed] = {}
        for number in numbers:
            stored = self._reader.message(number)
            feed, hindrance = self._feed(stored)
            if stored is None or feed is None:
                results[number] = Rehearsed(number, CANNOT_BE_RUN, (hindrance,))
                continue
            problems = (
                await STRICT_CHECKS.problems(stored.record.raw, feed.charset, feed.charset_override)
                if not isinstance(feed, FHIRFeed) and feed.strict
                else ()
            )
            loaded.append((stored, feed, problems))
        done = self._store.rehearse(
            lambda unit: [rehearse(unit, stored, feed, at, problems) for stored, feed, problems in loaded]
        ).result()
        results |= {result.message: result for result in done}
        return [results[number] for number in numbers]

    def _feed(self, stored: StoredMessage | None) -> tuple[AnyFeed | None, str]:
        if stored is None:
            return None, "there is no such message"
        if stored.record.direction == "out":
            return None, f"it was sent to {stored.record.listener}, not received"
        feed = self._feeds.get(stored.record.listener)
        return feed, "" if feed else f"it came by listener {stored.record.listener}, which is not configured any more"

    def _reasons(self, number: int, record: MessageRecord) -> tuple[str, ...]:
        """What the archive says of the replay."""
        same = self._reader.earlier_messages(record.listener, record.sender, record.control_id)
        made = next((each for each in same if each.record.replay_of == number), None)
        return tuple(made.record.reasons.splitlines()) if made else ()
