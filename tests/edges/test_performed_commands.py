"""`gateway performed`: what the desk shows, what people decide there, and how refusals read."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from ruamel.yaml import YAML

from gateway.commands.console import out
from gateway.commands.reconciliation import REASON_CODES
from gateway.config import load_site
from gateway.desks import assume_overdue_completed
from gateway.domain.discontinuation import CHOICES
from gateway.domain.performed import Attention
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store
from gateway.outgoing import audience_of
from gateway.testing import ImagingOrder, invented_person
from gateway.workflow.outbox import Attempt, Patience, after
from tests.edges.performed_site import OTHER, UID, PerformedSite, began, ended

ANN = ("--actor", "ann")


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PerformedSite:
    monkeypatch.setattr(out, "width", 400)
    return PerformedSite(tmp_path / "site")


def performed(gateway: PerformedSite, *words: object) -> Any:
    result = gateway("performed", *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(gateway: PerformedSite, *words: object) -> str:
    result: Result = gateway("performed", *words)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    return " ".join(result.output.split())


def uids(gateway: PerformedSite, *options: object) -> list[str]:
    return [each["uid"] for each in performed(gateway, "list", *options)]


def held(gateway: PerformedSite, uid: str = UID) -> Any:
    return performed(gateway, "show", uid)


def statuses(gateway: PerformedSite, order: ImagingOrder) -> list[str]:
    (found,) = json.loads(gateway("orders", "show", order.accession, "--json").stdout)
    return [each["status"] for each in found["steps"]]


def told(config: Path) -> list[tuple[str, str]]:
    """The destinations and operations of what waits."""
    site = load_site(config)
    with Store(site.store_url) as store:
        return [(each.destination, each.operation) for each in store.reader.deliveries(99)]


def set_up(gateway: PerformedSite, **settings: Any) -> None:
    """Change settings of the site."""
    yaml = YAML()
    said = yaml.load(gateway.config.read_text())
    said |= settings
    with gateway.config.open("w") as file:
        yaml.dump(said, file)


# --- looking


def test_performed_steps_are_listed_by_what_is_to_be_decided(gateway: PerformedSite) -> None:
    order = gateway.order(1)
    gateway.begin(began(invented_person(1), order), UID)
    gateway.end(ended(), UID)
    gateway.begin(began(invented_person(2)), OTHER, caller="MR1")
    gateway.begin(began(invented_person(3), order), "1.2.840.99.7.1003")
    assert uids(gateway) == ["1.2.840.99.7.1003", OTHER, UID]
    assert uids(gateway, "--attention", "no-order") == [OTHER]
    assert uids(gateway, "--attention", "another-patient") == ["1.2.840.99.7.1003"]
    assert uids(gateway, "--attention", "any") == ["1.2.840.99.7.1003", OTHER]
    assert uids(gateway, "--open", "--by", "MR1") == [OTHER]
    assert uids(gateway, "--patient", invented_person(1).patient_id) == [UID]
    assert uids(gateway, "--limit", "1") == ["1.2.840.99.7.1003"]
    assert uids(gateway, "--before", OTHER) == [UID]
    assert uids(gateway, "--since", "1h") == uids(gateway)
    assert uids(gateway, "--since", "2099-01-01") == []
    assert uids(gateway, "--unfinished") == []
    assert invented_person(2).patient_id in gateway("performed", "list").stdout


def test_a_list_of_what_there_is_not_is_refused(gateway: PerformedSite) -> None:
    gateway.begin(began(invented_person(1)))
    assert gateway("performed", "list", "--attention", "no-ordr").exit_code == 2
    assert "nobody is known" in refused(gateway, "list", "--patient", "NOBODY")


def test_everything_held_of_one_is_shown(gateway: PerformedSite) -> None:
    order = gateway.order(1)
    pacs = {"name": "pacs", "host": "127.0.0.1", "port": 11_113, "performed": {"ae_title": "PACS"}}
    set_up(gateway, destinations=[pacs])
    gateway.begin(began(invented_person(1), order))
    gateway.end(ended())
    performed(gateway, "unlink", UID, *ANN, "--note", "was a phantom")
    view = held(gateway)
    assert (view["state"], view["attention"], view["from"]) == ("COMPLETED", "unlinked", "CT1")
    assert view["names"][0]["accession"] == order.accession
    assert view["linked"] == []
    asked = [(each["operation"], each["status"], each["from"]) for each in view["requests"]]
    assert asked == [("N-CREATE", "0000", "CT1"), ("N-SET", "0000", "CT1")]
    assert view["requests"][0]["dataset"]["00400241"]["Value"] == ["CT1"]
    assert [(each["action"], each["actor"], each["details"]["note"]) for each in view["decisions"]] == [
        ("unlinked", "ann", "was a phantom")
    ]
    assert [(each["destination"], each["operation"]) for each in view["forwards"]] == [
        ("pacs", "N-CREATE"), ("pacs", "N-SET"),
    ]  # fmt: skip
    shown = gateway("performed", "show", UID, "--datasets").stdout
    for word in ("PerformedStationAETitle", "was a phantom", "N-CREATE of", "To be passed on", order.accession):
        assert word in shown


def test_a_performed_step_is_named_by_the_end_of_its_uid_if_that_is_ones(gateway: PerformedSite) -> None:
    gateway.begin(began(invented_person(1)), UID)
    gateway.begin(began(invented_person(2)), f"{OTHER}.1001")
    assert held(gateway, "7.1001")["uid"] == UID
    several = refused(gateway, "show", "1001")
    assert "several performed steps end with 1001" in several
    assert UID in several
    assert "write more of the UID" in several
    assert "see `gateway performed list`" in refused(gateway, "set-aside", "4711")
    assert "no performed step" in refused(gateway, "show", "%")


# --- deciding


def test_a_proposal_is_confirmed_by_a_link_that_says_who_and_why(gateway: PerformedSite) -> None:
    order = gateway.order(1)
    gateway.begin(began(invented_person(1)))
    (proposed,) = performed(gateway, "propose")
    (best,) = proposed["proposals"]
    assert (proposed["uid"], best["accession"], best["minutes_apart"]) == (UID, order.accession, 15)
    assert best["reasons"] == ["the patient is the same", "the station is the same", "the modality is the same"]
    assert "15 min" in gateway("performed", "propose", "1001").stdout
    assert statuses(gateway, order) == ["SCHEDULED"]  # nothing is applied
    done = performed(gateway, "link", UID, "--step", f"#{best['step']}", *ANN, "--note", "saw the images")
    assert done["changes"] == [{"step": best["step"], "before": "SCHEDULED", "after": "STARTED"}]
    assert statuses(gateway, order) == ["STARTED"]
    assert uids(gateway, "--attention", "any") == []
    (decision,) = held(gateway)["decisions"]
    assert (decision["action"], decision["actor"], decision["details"]["note"]) == ("linked", "ann", "saw the images")
    gateway.end(ended())
    assert statuses(gateway, order) == ["COMPLETED"]


def test_the_account_decides_where_nobody_is_named(gateway: PerformedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "night-shift")
    gateway.begin(began(invented_person(1)))
    performed(gateway, "set-aside", UID)
    assert [each["actor"] for each in held(gateway)["decisions"]] == ["night-shift"]


def test_steps_are_named_by_id_number_or_accession_and_never_guessed(gateway: PerformedSite) -> None:
    order, other = gateway.order(1), gateway.order(2)
    gateway.begin(began(invented_person(1)))
    assert gateway("performed", "link", UID).exit_code == 2
    assert "no scheduled step has the scheduled procedure step ID S9" in refused(gateway, "link", UID, "--step", "S9")
    assert "no scheduled step #99" in refused(gateway, "link", UID, "--step", "#99")
    assert "different patients" in refused(gateway, "link", UID, "--step", order.sps_id, "--step", other.sps_id)
    performed(gateway, "link", UID, "--step", order.sps_id)
    assert "linked to these steps already" in refused(gateway, "link", UID, "--accession", order.accession)
    done = performed(gateway, "unlink", UID, "--step", order.sps_id)
    assert [(each["before"], each["after"]) for each in done["changes"]] == [("STARTED", "SCHEDULED")]
    assert statuses(gateway, order) == ["SCHEDULED"]


def test_another_patients_step_is_linked_by_force_only(gateway: PerformedSite) -> None:
    order = gateway.order(1)
    gateway.order(2)
    gateway.begin(began(invented_person(2)))
    words = ("link", UID, "--accession", order.accession)
    assert "names another patient" in refused(gateway, *words)
    assert held(gateway)["steps"] == []
    performed(gateway, *words, "--force")
    assert statuses(gateway, order) == ["STARTED"]


@pytest.mark.parametrize(("options", "status", "attention"), [((), "SCHEDULED", "unlinked"),
                                                             (("--believed",), "STARTED", "")])  # fmt: skip
def test_a_quarantine_ends_by_a_person(
    gateway: PerformedSite, options: tuple[str, ...], status: str, attention: str
) -> None:
    order = gateway.order(1)
    gateway.order(2)
    gateway.begin(began(invented_person(2), order))
    assert statuses(gateway, order) == ["SCHEDULED"]
    performed(gateway, "release", UID, *options)
    assert statuses(gateway, order) == [status]
    assert held(gateway)["attention"] == attention
    assert "not quarantined" in refused(gateway, "release", UID)


def test_what_needs_no_order_is_set_aside_and_brought_back(gateway: PerformedSite) -> None:
    gateway.begin(began(invented_person(1)))
    performed(gateway, "set-aside", UID)
    assert uids(gateway, "--attention", "any") == []
    assert uids(gateway, "--attention", "set-aside") == [UID]
    performed(gateway, "bring-back", UID)
    assert uids(gateway, "--attention", "no-order") == [UID]


def test_an_order_is_made_of_what_nobody_ordered_and_its_placer_is_told(gateway: PerformedSite) -> None:
    set_up(gateway, destinations=[
        {"name": "placer", "host": "127.0.0.1", "port": 2577, "status": {"mapping": "status-orm"}}
    ])  # fmt: skip
    gateway.order(1)  # by which the patient is known
    gateway.begin(began(invented_person(1)))
    made = performed(gateway, "order", UID, *ANN)
    found = json.loads(gateway("orders", "show", invented_person(1).patient_id, "--json").stdout)
    (order,) = [each for each in found if not each["placer"]]
    assert order["order"] == made["order"]
    assert [(each["study_instance_uid"], each["status"]) for each in order["steps"]] == [("2.25.999", "STARTED")]
    assert told(gateway.config) == [("placer", "")]
    assert "linked to a scheduled step" in refused(gateway, "order", UID)


def test_one_that_its_modality_never_ends_is_closed_by_a_person(gateway: PerformedSite) -> None:
    order = gateway.order(1)
    gateway.begin(began(invented_person(1), order))
    assert gateway("performed", "close", UID, "--as", "DONE").exit_code == 2
    performed(gateway, "close", UID, "--as", "discontinued", "--reason", "110500")
    view = held(gateway)
    assert (view["state"], statuses(gateway, order)) == ("DISCONTINUED", ["DISCONTINUED"])
    assert "has ended already, DISCONTINUED" in refused(gateway, "close", UID, "--as", "COMPLETED")


def test_a_reason_is_one_of_those_that_the_help_names(gateway: PerformedSite) -> None:
    gateway.begin(began(invented_person(1)))
    told = refused(gateway, "close", UID, "--as", "DISCONTINUED", "--reason", "?")
    assert "110500 Doctor canceled procedure; 110501 Equipment failure;" in told
    assert "110541" not in told
    assert "has no reason" in refused(gateway, "close", UID, "--as", "COMPLETED", "--reason", "110501")
    named = {
        str(code)
        for part in REASON_CODES.split(", ")
        for first, _, last in [part.partition(" to ")]
        for code in range(int(first), int(last or first) + 1)
    }
    assert named == {reason.code for reason in CHOICES}
    assert held(gateway)["state"] == "IN PROGRESS"


def test_a_quarantined_one_is_shown_beside_whose_the_order_is(gateway: PerformedSite) -> None:
    order = gateway.order(1)
    gateway.begin(began(invented_person(2), order))
    shown = gateway("performed", "show", UID).stdout
    _, _, behind = shown.partition("of another patient; it counts for none of them")
    assert order.person.patient_id in behind.partition("It says")[0]
    assert "It is linked to" not in shown
    assert gateway("performed", "release", UID, "--believed", *ANN).exit_code == 0
    shown = gateway("performed", "show", UID).stdout
    _, _, behind = shown.partition("It is linked to")
    assert order.person.patient_id in behind.partition("It says")[0]


def test_who_was_told_of_one_is_shown_after_it_was_sent(gateway: PerformedSite) -> None:
    pacs = {"name": "pacs", "host": "127.0.0.1", "port": 11_113, "performed": {"ae_title": "PACS"}}
    set_up(gateway, destinations=[pacs])
    gateway.begin(began(invented_person(1)))
    assert held(gateway)["passed_on"] == []
    site = load_site(gateway.config)
    at = datetime(2026, 7, 5, 10, tzinfo=UTC)
    with Store(site.store_url) as store:
        (waiting,) = store.reader.deliveries(9)
        answered = after(waiting, Attempt.HELD_ALREADY, "0111", at, Patience())
        store.write(lambda unit: unit.save_delivery(answered, b"", at)).result()
    view = held(gateway)
    assert view["passed_on"] == [
        {"destination": "pacs", "operation": "N-CREATE", "answer": "held there already: 0111", "at": at.isoformat()}
    ]
    assert view["forwards"] == []
    assert "held there already: 0111" in gateway("performed", "show", UID).stdout


# --- work nobody reported


def test_overdue_steps_are_those_past_their_time_without_a_performed_step(gateway: PerformedSite) -> None:
    local = datetime.now(load_site(gateway.config).zone).replace(tzinfo=None, microsecond=0)
    late, later = gateway.order(1, start=local - timedelta(hours=9)), gateway.order(2, start=local - timedelta(hours=5))
    gateway.order(3, start=local - timedelta(hours=2))
    done = gateway.order(4, start=local - timedelta(hours=9))
    other = gateway.order(5, start=local - timedelta(hours=8), station="MR1", modality="MR")
    gateway.begin(began(invented_person(4), done))
    found = [each["accession"] for each in performed(gateway, "overdue")]
    assert found == [late.accession, other.accession, later.accession]
    assert [each["accession"] for each in performed(gateway, "overdue", "--station", "MR1")] == [other.accession]
    assert [each["accession"] for each in performed(gateway, "overdue", "--limit", "1")] == [late.accession]
    assert len(performed(gateway, "overdue", "--hours", "1")) == 4
    set_up(gateway, performed={"overdue_after_h": 6})
    assert [each["accession"] for each in performed(gateway, "overdue")] == [late.accession, other.accession]
    assert late.accession in gateway("performed", "overdue").stdout


def test_stations_that_never_report_are_told_from_those_that_do(gateway: PerformedSite) -> None:
    local = datetime.now(load_site(gateway.config).zone).replace(tzinfo=None, microsecond=0)
    first = gateway.order(1, start=local - timedelta(days=1))
    gateway.order(2, start=local - timedelta(days=1), station="MR1", modality="MR")
    gateway.begin(began(invented_person(1), first))
    reports = {each["ae_title"]: (each["scheduled"], each["performed"], each["received"], each["reports"])
               for each in performed(gateway, "senders")}  # fmt: skip
    assert reports == {"CT1": (1, 1, 1, "all"), "MR1": (1, 0, 0, "never")}
    assert [each["ae_title"] for each in performed(gateway, "senders", "--never")] == ["MR1"]


def test_one_that_is_never_ended_is_unfinished(gateway: PerformedSite) -> None:
    gateway.begin(began(invented_person(1)))
    site = load_site(gateway.config)
    with Store(site.store_url) as store:
        assert store.reader.unfinished(datetime.now(UTC) + timedelta(seconds=1)) == 1
        assert store.reader.unfinished(datetime.now(UTC) - timedelta(hours=24)) == 0
        assert store.reader.attention_counts() == {Attention.NO_ORDER: 1}


# --- the timed rule


def assumed(gateway: PerformedSite, at: datetime) -> int:
    site = load_site(gateway.config)
    with Store(site.store_url, zone=site.settings.timezone) as store:
        return assume_overdue_completed(site, store, store.open_reader(), audience_of(site), at)


def test_what_a_silent_station_should_have_done_is_taken_as_done_after_its_time(gateway: PerformedSite) -> None:
    placer = {"name": "placer", "host": "127.0.0.1", "port": 2577, "status": {"mapping": "status-orm"}}
    set_up(gateway, destinations=[placer], timezone="Europe/Berlin",
           performed={"assume_completed": {"after_min": 90, "stations": ["CT9"]}})  # fmt: skip
    start = datetime(2026, 7, 5, 9, 30)  # 07:30 UTC
    silent, speaking = gateway.order(1, start=start, station="CT9"), gateway.order(2, start=start)
    assert assumed(gateway, datetime(2026, 7, 5, 9, 0, tzinfo=UTC)) == 0  # not a minute before
    assert assumed(gateway, datetime(2026, 7, 5, 9, 1, tzinfo=UTC)) == 1
    assert (statuses(gateway, silent), statuses(gateway, speaking)) == (["COMPLETED"], ["SCHEDULED"])
    assert told(gateway.config) == [("placer", "")]
    assert assumed(gateway, datetime(2026, 7, 5, 9, 2, tzinfo=UTC)) == 0


def test_what_a_modality_reports_on_is_left_to_it(gateway: PerformedSite) -> None:
    set_up(gateway, performed={"assume_completed": {"after_min": 1, "stations": ["CT1"]}})
    order = gateway.order(1)
    gateway.begin(began(invented_person(1), order))
    assert assumed(gateway, datetime(2026, 7, 6, tzinfo=UTC)) == 0
    assert statuses(gateway, order) == [SPSStatus.STARTED]


def test_a_rule_for_nobody_in_particular_is_refused(gateway: PerformedSite) -> None:
    set_up(gateway, performed={"assume_completed": {"after_min": 90}})
    result = gateway("check")
    assert result.exit_code == 1
    assert "name the stations" in " ".join(result.output.split())
