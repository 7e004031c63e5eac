"""Performed steps told again to a destination that gets coerced copies, after their patient's data changed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.performed import text_of
from gateway.edges.performed_channel import restating
from gateway.edges.store import Store
from gateway.testing import Draft, invented_person
from gateway.wire.mpps_dataset import read_step
from gateway.workflow.outbox import retry
from gateway.workflow.requeue import requeue_performed
from tests.edges.performed_site import UID, PerformedSite, began, ended

AT, LONG_AGO = datetime(2026, 7, 6, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
PACS = "{name: pacs, host: 127.0.0.1, port: 11113, performed: {ae_title: PACS, sends: coerced}}"
NAME, ID, STATUS = "00100010", "00100020", "00400252"
PERSON = invented_person(1)


@pytest.fixture
def gateway(tmp_path: Path) -> PerformedSite:
    """A site where somebody was examined, and the destination was told."""
    made = PerformedSite(tmp_path)
    with made.config.open("a") as settings:
        settings.write(f"destinations: [{PACS}]\n")
    order = made.order(1)
    made.begin(began(PERSON, order))
    made.end(ended())
    return made


@pytest.fixture
def store(gateway: PerformedSite, tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'gateway.db'}", zone="Europe/Berlin") as opened:
        yield opened


def told(site: PerformedSite, *segments: str) -> None:
    code = "ADT^A40" if segments[-1].startswith("MRG") else "ADT^A08"
    draft = Draft(code, "2.5.1", (f"EVN|{code[4:]}|20260705120000", *segments))
    assert site.receive(draft.message(f"T{len(segments)}{code}", datetime(2026, 7, 5, 12))) == ["accepted"]


def pid(patient_id: str, name: str) -> str:
    return f"PID|||{patient_id}^^^HOSPITAL||{name}||19700101|F"


def again(store: Store) -> list[dict[str, Any]]:
    """What the destination is told when all is sent again: the datasets, N-CREATE first."""
    for each in store.reader.deliveries(9):
        store.write(lambda unit, number=each.id: unit.drop_delivery(number)).result()
    done = store.write(lambda unit: requeue_performed(unit, "pacs", LONG_AGO, AT, sends="coerced")).result()
    found = store.reader.deliveries(9, destination="pacs")
    assert (done.count, [each.operation for each in found]) == (2, ["N-CREATE", "N-SET"])
    said = [read_step(each.payload, each.transfer_syntax) for each in found]
    assert [notes for _, notes in said] == [(), ()]
    return [dict(attributes) for attributes, _ in said]


def test_what_is_told_again_has_the_patient_as_known_by_now(gateway: PerformedSite, store: Store) -> None:
    told(gateway, pid(PERSON.patient_id, "Щукина^Анна"))  # in a character set that the modality did not use
    create, change = again(store)
    assert create[NAME] == {"vr": "PN", "Value": [{"Alphabetic": "Щукина^Анна"}]}
    assert text_of(create, ID) == PERSON.patient_id
    assert (text_of(create, STATUS), text_of(change, STATUS)) == ("IN PROGRESS", "COMPLETED")
    assert NAME not in change


def test_after_a_merge_the_surviving_identifier_is_told(gateway: PerformedSite, store: Store) -> None:
    told(gateway, pid("B77", "Weide^Wanda"), f"MRG|{PERSON.patient_id}^^^HOSPITAL")
    create, _ = again(store)
    assert text_of(create, ID) == "B77"
    assert create[NAME]["Value"] == [{"Alphabetic": "Weide^Wanda"}]


def test_what_a_receiver_does_not_know_is_created_anew_with_the_patient_as_known_by_now(
    gateway: PerformedSite, store: Store
) -> None:
    told(gateway, pid("B77", "Щукина^Анна"), f"MRG|{PERSON.patient_id}^^^HOSPITAL")
    made = restating(store.reader.performed_step, store.reader.items)(UID)
    assert made is not None
    held, notes = read_step(*made)
    assert notes == ()
    assert (text_of(held, ID), held[NAME]["Value"]) == ("B77", [{"Alphabetic": "Щукина^Анна"}])
    assert text_of(held, STATUS) == "IN PROGRESS"  # the N-SET that follows ends it


def test_what_waits_or_was_parked_goes_out_as_it_was_written(gateway: PerformedSite, store: Store) -> None:
    before = store.reader.deliveries(9)
    told(gateway, pid(PERSON.patient_id, "Weide^Wanda"))
    for each in before:
        assert store.write(lambda unit, number=each.id: retry(unit, number, AT)).result()
    assert [each.payload for each in store.reader.deliveries(9)] == [each.payload for each in before]
