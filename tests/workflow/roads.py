"""A store and a feed to send whole messages down, and what is on the list then."""

import asyncio
import shutil
from datetime import UTC, datetime, timedelta

from gateway.domain.identifiers import Mint
from gateway.domain.matching import Narrowing
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store
from gateway.processing import feeds_of, process_message
from gateway.wire import er7

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)


def opened(template, folder):
    """Yields a road; for fixtures."""
    loaded, empty = template
    made = Road(loaded, shutil.copy(empty, folder))
    yield made
    made.store.close()


class Road:
    """Messages are a minute apart."""

    def __init__(self, loaded, database):
        self.loaded = loaded
        self.store = Store(f"sqlite:///{database}", zone="Europe/Berlin")
        self.feed = feeds_of(loaded, Mint(self.store.site_namespace()))["ris"]
        self.sent = 0

    def send(self, draft):
        self.sent += 1
        raw = draft.message(f"M{self.sent}", AT + timedelta(minutes=self.sent))
        answer = er7.parse(asyncio.run(process_message(self.store, raw, self.feed, "test")).answer, "utf-8")
        said = " ".join(segment.text(n) for segment in answer.segments for n in (3, 7, 8) if segment.name != "MSH")
        return answer.first("MSA").text(1), said

    def accepted(self, draft):
        code, said = self.send(draft)
        assert code == "AA", said
        return said

    def items(self, statuses=frozenset(SPSStatus)):
        refs = self.store.reader.candidates(Narrowing(statuses=statuses))
        return self.store.reader.items([step_id for step_id, _ in refs])

    def item(self):
        (item,) = self.items()
        return item
