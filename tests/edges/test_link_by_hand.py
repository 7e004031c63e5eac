"""An order typed by hand and the RIS's own for the same: a person says that they are one; what was typed runs again."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from gateway.config import load_site
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store
from gateway.testing import ImagingOrder, cancel, invented_person, rad4_orm
from tests.edges.command_site import CommandSite

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
TOMORROW = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)
ORDER = ImagingOrder(1, invented_person(1), TOMORROW)
PERSON = ORDER.person


@pytest.fixture
def gateway(tmp_path):
    return CommandSite(tmp_path / "site")


def type_in(gateway, *options, patient=PERSON.patient_id):
    typed = gateway("worklist", "add", "--patient-id", patient, "--name", "Doe^Jane", "--start", "now",
                    "--procedure", "MRHEAD", "--accession", "HAND1", *options)  # fmt: skip
    assert typed.exit_code == 0, typed.output


def listed(gateway):
    return json.loads(gateway("worklist", "list", "--json").output)


def held(gateway, key):
    return json.loads(gateway("orders", "show", key, "--json").output)


def test_a_link_is_shown_first_and_changes_nothing(gateway):
    gateway.receive(rad4_orm(ORDER).message("M1", AT))
    type_in(gateway)
    before = listed(gateway)
    result = gateway("worklist", "link", "HAND1", ORDER.accession)
    assert result.exit_code == 0, result.output
    assert "--yes" in result.output
    assert listed(gateway) == before


def test_linked_orders_are_one_which_keeps_the_published_uid_and_follows_the_ris(gateway):
    gateway.receive(rad4_orm(ORDER).message("M1", AT))
    type_in(gateway)
    (typed,) = held(gateway, "HAND1")
    result = gateway("worklist", "link", "HAND1", ORDER.accession, "--yes")
    assert result.exit_code == 0, result.output
    (one,) = held(gateway, ORDER.accession)
    assert one["order"] == typed["order"]
    assert one["by_hand"] is False
    assert one["placer"] == ORDER.placer
    assert one["steps"][0]["study_instance_uid"] == typed["steps"][0]["study_instance_uid"]
    assert len(listed(gateway)) == 1
    assert gateway.receive(cancel(ORDER).message("M2", AT + timedelta(minutes=1))) == ["accepted"]
    assert listed(gateway) == []


def test_a_linked_order_is_not_derived_from_half_of_its_messages(gateway):
    gateway.receive(rad4_orm(ORDER).message("M1", AT))
    type_in(gateway)
    assert gateway("worklist", "link", "HAND1", ORDER.accession, "--yes").exit_code == 0
    before = listed(gateway)
    result = gateway("orders", "rederive", "--yes")
    assert "not every message" in " ".join(result.output.split())
    assert listed(gateway) == before


def test_orders_of_two_patients_are_not_linked(gateway):
    gateway.receive(rad4_orm(ORDER).message("M1", AT))
    type_in(gateway, patient="SOMEBODY")
    result = gateway("worklist", "link", "HAND1", ORDER.accession, "--yes")
    assert result.exit_code == 1
    assert "two patients" in result.output
    assert len(listed(gateway)) == 2


def test_an_order_on_which_work_has_begun_gives_its_keys_to_no_other(gateway):
    gateway.receive(rad4_orm(ORDER).message("M1", AT))
    type_in(gateway)
    site = load_site(gateway.config)
    with Store(site.store_url, zone=site.settings.timezone) as store:
        store.write(lambda unit: unit.set_step_status(1, SPSStatus.STARTED, "test", AT)).result()
    result = gateway("worklist", "link", "HAND1", ORDER.accession, "--yes")
    assert result.exit_code == 1
    assert "has begun" in result.output


def test_two_orders_of_the_ris_are_not_linked(gateway):
    other = ImagingOrder(2, PERSON, TOMORROW)
    gateway.receive(rad4_orm(ORDER).message("M1", AT), rad4_orm(other).message("M2", AT))
    result = gateway("worklist", "link", ORDER.accession, other.accession, "--yes")
    assert result.exit_code == 1
    assert "typed by hand" in result.output


def test_a_message_typed_by_hand_can_be_run_again(gateway):
    type_in(gateway)
    (typed,) = held(gateway, "HAND1")
    result = gateway("messages", "replay", typed["messages"][0])
    assert result.exit_code == 0, result.output
    assert "cannot be run" not in result.output
    assert len(listed(gateway)) == 1
