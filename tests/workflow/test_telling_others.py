"""What one system's message does to an order is told to the others, and not back to that system."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from people import tried
from roads import AT

from gateway.config import Site
from gateway.domain.identifiers import Issuers, Mint
from gateway.domain.order import OrderControl
from gateway.domain.progress import STATUS_TOLD, Progress
from gateway.domain.report import Header
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store, StoreUnit
from gateway.mapping_files import load_mappings
from gateway.processing import feeds_of
from gateway.testing import Draft, ImagingOrder, cancel, invented_person, omi
from gateway.wire import er7
from gateway.workflow import intake
from gateway.workflow.audience import Audience, MessageSource, Outbound, StatusTarget, Writing

ORDER = ImagingOrder(1, invented_person(1), datetime(2026, 7, 5, 9, 30))
MAPPINGS = Path(__file__).parents[2] / "mappings"


@pytest.fixture(scope="module")
def status_orm() -> Outbound:
    return load_mappings(MAPPINGS, Issuers(), []).outbound["status-orm"]


class Feeds:
    """RIS and EHR, each with a listener; both are told status. Messages come a minute apart."""

    def __init__(self, site: Site, store: Store, unit: StoreUnit, writer: Outbound, **ehr: Any) -> None:
        self.unit, self.sent = unit, 0
        own: dict[str, Any] = {"listeners": frozenset({"ehr"}), **ehr}
        writing = Writing(writer, Header())
        audience = Audience((
            StatusTarget("ris", writing, listeners=frozenset({"ris"})), StatusTarget("ehr", writing, **own)
        ))  # fmt: skip
        feed = feeds_of(site, Mint(store.site_namespace()), audience)["ris"]
        self.feed = replace(feed, discontinue_started=True)

    def send(self, draft: Draft, control: str = "", by: str = "ris") -> None:
        self.sent += 1
        raw = draft.message(f"M{self.sent}", AT + timedelta(minutes=self.sent))
        raw = raw.replace(b"ORC|CA", b"ORC|" + control.encode()) if control else raw
        receipt = intake.receive(self.unit, raw, replace(self.feed, name=by), "test", AT)
        assert receipt.disposition == "accepted"

    def begins(self) -> None:
        for step in self.unit.find_steps(ORDER.study_instance_uid, "", "", ""):
            self.unit.set_step_status(step.step_id, SPSStatus.STARTED, "MPPS", AT)

    def told(self) -> list[tuple[str, str, str]]:
        """Who was told which ORC-1 and ORC-5."""
        found = []
        for each in self.unit.deliveries(100):
            orc = er7.parse(each.payload).first("ORC")
            assert orc is not None
            found.append((each.destination, orc.text(1), orc.text(5)))
        return found


def happened(store: Store, site: Site, writer: Outbound, *what: Any, **ehr: Any) -> list[tuple[str, str, str]]:
    """What was told when this happened, one after the other."""

    def job(unit: StoreUnit) -> list[tuple[str, str, str]]:
        feeds = Feeds(site, store, unit, writer, **ehr)
        for each in what:
            each(feeds)
        return feeds.told()

    return tried(store, job)


def ordered(feeds: Feeds) -> None:
    feeds.send(omi(ORDER))


def begun(feeds: Feeds) -> None:
    feeds.begins()


def cancelled(feeds: Feeds) -> None:
    feeds.send(cancel(ORDER))


def cancelled_by_the_ehr(feeds: Feeds) -> None:
    feeds.send(cancel(ORDER), by="ehr")


def held_back(feeds: Feeds) -> None:
    feeds.send(cancel(ORDER), OrderControl.HD)


def let_go(feeds: Feeds) -> None:
    feeds.send(cancel(ORDER), OrderControl.RL)


def discontinued(feeds: Feeds) -> None:
    feeds.send(cancel(ORDER), OrderControl.DC)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ((ordered,), []),
        ((ordered, ordered), []),
        ((ordered, cancelled), [("ehr", "OC", "CA")]),
        ((ordered, cancelled, cancelled), [("ehr", "OC", "CA")]),
        ((ordered, begun, cancelled), [("ehr", "SC", "DC")]),
        ((ordered, begun, discontinued), [("ehr", "SC", "DC")]),
        ((ordered, held_back, let_go), [("ehr", "SC", "HD"), ("ehr", "SC", "SC")]),
        ((ordered, cancelled_by_the_ehr), [("ris", "OC", "CA")]),
    ],
)
def test_the_others_are_told_what_a_message_made_of_an_order(
    store: Store, template: tuple[Site, Path], status_orm: Outbound, what: Any, told: Any
) -> None:
    assert happened(store, template[0], status_orm, *what) == told


@pytest.mark.parametrize(
    ("ehr", "told"),
    [
        ({"listeners": None}, []),
        ({"listeners": frozenset({"ehr", "ris"})}, []),
        ({"listeners": frozenset()}, [("ehr", "OC", "CA")]),
        ({"listeners": frozenset(), "application": "RIS"}, []),
        ({"listeners": frozenset(), "application": "EHR"}, [("ehr", "OC", "CA")]),
        ({"tells": {**STATUS_TOLD, Progress.CANCELED: ("SC", "CA")}}, [("ehr", "SC", "CA")]),
        ({"sites": frozenset({"elsewhere"})}, []),
    ],
)
def test_who_said_it_is_known_by_listener_and_by_application(
    store: Store, template: tuple[Site, Path], status_orm: Outbound, ehr: Any, told: Any
) -> None:
    assert happened(store, template[0], status_orm, ordered, cancelled, **ehr) == told


def test_an_application_that_nobody_named_is_nobodys() -> None:
    assert not StatusTarget("ehr", Writing.__new__(Writing), listeners=frozenset()).said_itself(MessageSource("ris"))
