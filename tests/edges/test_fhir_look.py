"""`gateway fhir look`: one resource or number, why it is or is not on a worklist, and what that rests on."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.config import load_site
from gateway.domain.identifiers import Mint
from gateway.domain.resources import ResourceKey
from gateway.edges.store import Store
from gateway.fhir_processing import fhir_feeds_of, process_request, refuse_request
from gateway.outgoing import audience_of
from gateway.processing import feeds_of, process_message
from gateway.testing import ImagingOrder, invented_person, omi, site
from gateway.wire import fhir_bundle
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_interactions import Interaction, Kind, Verb
from gateway.wire.fhir_models import problems
from gateway.wire.fhir_release import Release
from gateway.workflow.fhir_marks import Mark
from gateway.workflow.fhir_topics import destination_of
from tests.fhir_department import ISSUERS, ORDERS, identifier, patient, request, task, transaction
from tests.workflow.fhir_roads import request_of

Resource = dict[str, Any]
EHR = {"name": "ehr", "fhir": {"url": "http://127.0.0.1:9/fhir"}}
EMR = {"name": "emr", "url": "http://127.0.0.1:9/emr", "poll": {"every_s": 3600}}
ORDER = ImagingOrder(1, invented_person(1), datetime(2026, 12, 1, 9, 30))
UNKNOWN = {"code": {"coding": [{"system": "http://sample.example", "code": "NECK"}]}}


class Desk:
    """A site whose service does not run: what comes is run through its store here, and commands look at it."""

    def __init__(self, folder: Path) -> None:
        self.config = site(
            folder, fhir={"uncovered": "hold", "feeds": [EMR]}, issuers=ISSUERS, destinations=[EHR],
        )  # fmt: skip
        self.site = load_site(self.config)
        self.store = Store(self.site.store_url, zone=self.site.settings.timezone)
        mint = Mint(self.store.site_namespace())
        self.feeds = fhir_feeds_of(self.site, mint, audience_of(self.site))
        self.hl7 = next(iter(feeds_of(self.site, mint).values()))

    def close(self) -> None:
        self.store.close()

    def send(self, *resources: Resource, release: Release = Release.R4, feed: str = "fhir", verb: Verb = Verb.UPDATE,
             status: int = 200) -> None:  # fmt: skip
        """Each as an update, together as a transaction; what is invalid is refused as the server would."""
        asked = [Interaction(verb, each["resourceType"], each["id"], None if verb is Verb.DELETE else each)
                 for each in resources]  # fmt: skip
        kind = Kind.FETCHED if feed != "fhir" else Kind.SINGLE if len(asked) == 1 else Kind.TRANSACTION
        source = release.base if feed == "fhir" else feed
        said = request_of(asked, kind, source=source)
        wrong = (
            [refusal for each in resources for refusal in problems(each, release)[0]] if verb is not Verb.DELETE else []
        )
        run = refuse_request(self.store, said, wrong, self.feeds[feed]) if wrong else process_request(
            self.store, said, self.feeds[feed]
        )  # fmt: skip
        answer: Answer = asyncio.run(run)
        assert answer.status // 100 == status // 100, answer

    def whole(self) -> None:
        self.send(patient(ORDER.person), request(ORDER), task(ORDER))

    def __call__(self, *words: str, code: int = 0) -> str:
        """What the command prints, with single blanks."""
        done = CliRunner().invoke(cli, ["fhir", "look", *words, "--config", str(self.config)], env={"COLUMNS": "400"})
        assert done.exit_code == code, done.output
        return re.sub(r"[^\S\n]+", " ", done.output)

    def top(self, *words: str) -> tuple[str, str]:
        """The sentence and the advice."""
        sentence, advice, *_ = self(*words).splitlines()
        return sentence, advice.removeprefix("To do: ")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with closing(Desk(tmp_path)) as made:
        yield made


def test_a_task_is_told_of_by_its_own_step(desk: Desk) -> None:
    other = {**task(ORDER), "id": "other", "identifier": [{"value": "OTHER"}]}
    desk.whole()
    desk.send(other)
    desk.send({**other, "status": "cancelled"})
    assert desk.top("Task/other")[0] == "Not on a worklist any more: what was scheduled of it is cancelled (CANCELED)."
    assert "On the worklist of" in desk.top(f"Task/{task(ORDER)['id']}")[0]


# --- the sentence -----------------------------------------------------------------------------------------------------


def whole(desk: Desk) -> None:
    desk.whole()


def before_its_patient(desk: Desk) -> None:
    desk.send(request(ORDER))


def before_its_order(desk: Desk) -> None:
    desk.send(task(ORDER))


def draft(desk: Desk) -> None:
    desk.send(patient(ORDER.person), request(ORDER, status="draft"))


def uncovered(desk: Desk) -> None:
    desk.send(patient(ORDER.person))
    desk.send(request(ORDER, **UNKNOWN))


def refused(desk: Desk) -> None:
    desk.send(request(ORDER, status="busy"), status=422)


def revoked(desk: Desk) -> None:
    desk.whole()
    desk.send(request(ORDER, status="revoked"))


def on_hold(desk: Desk) -> None:
    desk.whole()
    desk.send(request(ORDER, status="on-hold"))


def deleted(desk: Desk) -> None:
    before_its_patient(desk)
    desk.send(request(ORDER), verb=Verb.DELETE)


def early(desk: Desk) -> None:
    desk.send(patient(ORDER.person))
    desk.send(request(ORDER, status="on-hold"))


def alone(desk: Desk) -> None:
    desk.send(patient(ORDER.person))


def told_of(desk: Desk) -> None:
    mark = Mark().told(["ServiceRequest/o1"])
    desk.store.write(lambda unit: unit.set_feed_mark("emr", mark.text)).result()


def fetched(desk: Desk) -> None:
    desk.send(patient(ORDER.person), request(ORDER), task(ORDER), feed="emr")


PATIENT = f"Patient/{ORDER.person.patient_id}"
SENTENCES = {
    "listed": (whole, "ServiceRequest/o1", "On the worklist of CT1: step S", "gateway worklist why --as"),
    "listed, by its task": (whole, "Task/t1", "On the worklist of CT1: step S", f"--order {ORDER.placer}"),
    "listed, by its patient": (whole, PATIENT, "On the worklist of CT1", "gateway worklist why"),
    "fetched": (fetched, "ServiceRequest/o1", "On the worklist of CT1", "gateway worklist why"),
    "before its patient": (before_its_patient, "ServiceRequest/o1", f"waits for {PATIENT}, which is not held",
                           f"have its sender send {PATIENT}"),
    "before its order": (before_its_order, "Task/t1", "waits for ServiceRequest/o1, which is not held",
                         "have its sender send ServiceRequest/o1"),
    "a draft": (draft, "ServiceRequest/o1", "Not on a worklist: ServiceRequest: is a draft", "have its sender change"),
    "without a rule": (uncovered, "ServiceRequest/o1", "request 2 is held: ", "mappings/procedures.csv"),
    "refused": (refused, "ServiceRequest/o1", "is not held; request 1 was refused: ServiceRequest.status",
                "gateway messages replay 1"),
    "revoked": (revoked, "ServiceRequest/o1", "is cancelled (CANCELED)", "active again"),
    "on hold": (on_hold, "ServiceRequest/o1", "is on hold (ON HOLD)", "set the order to active"),
    "deleted": (deleted, "ServiceRequest/o1", "ServiceRequest/o1 was deleted", "send it again"),
    "early": (early, "ServiceRequest/o1", "is early: ", "have its sender send the order"),
    "a patient alone": (alone, PATIENT, f"nothing that is held orders anything for {PATIENT}", "fhir look NUMBER"),
    "still to be fetched": (told_of, "ServiceRequest/o1", "the server of emr told of", "gateway fhir feeds"),
}  # fmt: skip


@pytest.mark.parametrize(("story", "reference", "says", "advises"), SENTENCES.values(), ids=SENTENCES)
def test_the_first_line_says_why_and_the_second_what_to_do(
    desk: Desk, story: Any, reference: str, says: str, advises: str
) -> None:
    story(desk)
    sentence, advice = desk.top(reference)
    assert says in sentence
    assert sentence.startswith("On the worklist") == says.startswith("On the worklist")
    assert advises in advice


def test_an_order_that_is_lost_is_run_again(desk: Desk) -> None:
    desk.whole()
    desk.store.write(lambda unit: unit.set_order_parts(1, [])).result()
    sentence, advice = desk.top("ServiceRequest/o1")
    assert "no order is held of ServiceRequest/o1" in sentence
    assert "gateway messages replay" in advice


# --- what it rests on -------------------------------------------------------------------------------------------------


def test_one_screen_has_all_of_it(desk: Desk) -> None:
    desk.whole()
    desk.send(task(ORDER, description="no contrast"))
    shown = desk("Task/t1")
    assert "Task/t1 of r4, version 3, R4" in shown
    assert "by ehr in request" in shown
    assert "the gateway tells status accepted; its sender says requested" in shown
    assert ORDER.person.patient_id in shown
    assert f"{ORDER.placer} {ORDER.accession} {ORDER.sps_id} SCHEDULED CT1 2026-12-01 09:30" in shown
    assert re.search(r"\d+ \S+ \S+ fhir ehr test transaction accepted", shown)
    assert re.search(r"\d+ \S+ \S+ ehr transaction waiting", shown)
    assert len(shown.splitlines()) < 40


def test_what_came_later_and_was_refused_is_told_beside_what_is_held(desk: Desk) -> None:
    desk.whole()
    desk.send(request(ORDER, status="busy"), status=422)
    shown = desk("ServiceRequest/o1")
    assert shown.startswith("On the worklist")
    assert "was refused, so its sender may mean something newer than what is held" in shown
    assert "outside the required value set" in shown


def test_a_message_of_the_same_order_by_hl7_is_told_as_that(desk: Desk) -> None:
    desk.whole()
    raw = omi(ORDER).message("C1", datetime(2026, 11, 23, 8, tzinfo=UTC))
    assert asyncio.run(process_message(desk.store, raw, desk.hl7, "test")).disposition == "accepted"
    assert re.search(r"OMI\S* \(same order\) accepted", desk("ServiceRequest/o1"))


def test_notifications_are_told_where_they_are_of_the_same_name_space(desk: Desk) -> None:
    desk.whole()
    for source in ("r4", "r5"):
        destination = destination_of(ResourceKey(source, "Subscription", "s1"))
        desk.store.write(lambda unit, to=destination: _notified(unit, to)).result()
    shown = desk("ServiceRequest/o1")
    assert "r4/s1 event-notification waiting" in shown
    assert "r5/s1" not in shown


def _notified(unit: Any, destination: str) -> None:
    from gateway.workflow.outbox import enqueue_fhir

    keys = (("resource", "ServiceRequest/o1"),)
    enqueue_fhir(unit, destination, None, "c", b"{}", "event-notification", datetime.now(UTC), keys)


def test_nothing_is_changed(desk: Desk) -> None:
    desk.whole()
    before = desk.store.reader.newest_message(), desk.store.reader.resource(ResourceKey("r4", "Task", "t1"))
    for words in (("Task/t1",), ("--number", ORDER.placer), (PATIENT, "--json")):
        desk(*words)
    assert (desk.store.reader.newest_message(), desk.store.reader.resource(ResourceKey("r4", "Task", "t1"))) == before


def test_json_has_all_of_it(desk: Desk) -> None:
    desk.whole()
    said = json.loads(CliRunner().invoke(
        cli, ["fhir", "look", "ServiceRequest/o1", "--json", "--config", str(desk.config)]
    ).output)  # fmt: skip
    assert said["sentence"].startswith("On the worklist of CT1")
    assert said["resource"]["reference"] == "ServiceRequest/o1"
    assert said["resource"]["content"]["status"] == "active"
    (step,) = said["steps"]
    assert (step["placer"], step["status"], step["stations"]) == (ORDER.placer, "SCHEDULED", ["CT1"])
    (came,) = said["requests"]
    assert (came["outcome"], came["brought"]) == ("accepted", True)
    assert {each["destination"] for each in said["sent"]} == {"ehr"}
    assert set(said) == {
        "sentence", "advice", "resource", "requests", "patients", "steps", "waits_for", "notes", "sent", "others",
    }  # fmt: skip


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [ORDER.placer, ORDER.filler, ORDER.accession, ORDER.sps_id, ORDER.person.patient_id])
def test_any_number_finds_its_order(desk: Desk, number: str) -> None:
    desk.whole()
    shown = desk(number)
    assert shown.startswith("On the worklist of CT1")
    assert "ServiceRequest/o1 of r4" in shown
    assert "Task/t1 of r4" in shown


def test_a_number_finds_what_waits_and_what_was_refused(desk: Desk) -> None:
    before_its_patient(desk)
    assert f"waits for {PATIENT}" in desk(ORDER.placer)
    desk.send(request(ORDER, id="o9", status="busy", identifier=[identifier("PLAC", ORDERS, "P9")]), status=422)
    sentence, advice = desk.top("P9")
    assert "is not held; message 2 by fhir was refused" in sentence
    assert "replay 2" in advice


def test_a_number_that_came_by_hl7_alone_is_found(desk: Desk) -> None:
    raw = omi(ORDER).message("C1", datetime(2026, 11, 23, 8, tzinfo=UTC))
    asyncio.run(process_message(desk.store, raw, desk.hl7, "test"))
    shown = desk(ORDER.placer)
    assert shown.startswith("On the worklist of CT1")
    assert "Resource" not in shown


def test_a_name_space_may_be_named(desk: Desk) -> None:
    desk.whole()
    desk.send(patient(ORDER.person), request(ORDER), feed="emr")
    assert "ServiceRequest/o1 of r4" in desk("ServiceRequest/o1")
    assert "ServiceRequest/o1 of r4" in desk("ServiceRequest/o1", "--base", "R4")
    assert "ServiceRequest/o1 of emr" in desk("ServiceRequest/o1", "--feed", "emr")
    assert "is held (r5)" in desk("ServiceRequest/o1", "--base", "r5", code=1)


@pytest.mark.parametrize(
    "said",
    ["ServiceRequest/o1/_history/1", "http://127.0.0.1:8080/fhir/r4/ServiceRequest/o1", "/fhir/ServiceRequest/o1"],
)
def test_an_address_is_a_reference(desk: Desk, said: str) -> None:
    desk.whole()
    assert "ServiceRequest/o1 of r4" in desk(said)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("ServiceRequest/o7",), 1, "no ServiceRequest/o7 is held (r4, r4b, r5, emr)"),
        (("ServiceRequest/o7",), 1, "gateway messages list"),
        (("--number", "4711"), 1, "nothing with the number 4711 is held"),
        (("ServiceRequest/o1", "--feed", "other"), 1, "gateway fhir feeds"),
        (("ServiceRequest/o1", "--base", "r3"), 2, "--base"),
        (("4711",), 1, "nothing with the number 4711 is held"),
        ((), 2, "REFERENCE or --number"),
        (("Task/t1", "--number", "1"), 2, "REFERENCE or --number"),
        (("Task/t1", "--base", "r4", "--feed", "emr"), 2, "--base or --feed"),
    ],
)
def test_what_is_not_known_is_said_so(desk: Desk, words: tuple[str, ...], code: int, says: str) -> None:
    assert says in desk(*words, code=code)


def test_a_site_without_fhir_says_so(tmp_path: Path) -> None:
    config = site(tmp_path)
    done = CliRunner().invoke(cli, ["fhir", "look", "Task/t1", "--config", str(config)])
    assert done.exit_code == 1
    assert "FHIR is not served" in done.output


def test_a_transaction_that_was_refused_names_each_of_its_entries(desk: Desk) -> None:
    bundle = transaction(patient(ORDER.person), request(ORDER, status="busy"))
    said = fhir_bundle.request_of(bundle, Release.R4, json.dumps(bundle).encode(), peer="test", sender="ehr")
    wrong = problems(bundle, Release.R4)[0]
    asyncio.run(refuse_request(desk.store, said, wrong, desk.feeds["fhir"]))
    for reference in (PATIENT, "ServiceRequest/o1"):
        assert "is not held; request 1 was refused" in desk.top(reference)[0]
