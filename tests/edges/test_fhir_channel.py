"""Status told to another FHIR server: it is read, merged and written in one transaction."""

from datetime import UTC, datetime
from typing import Any

import pytest
from fhir_receiver import Answer, Asked, looped, receiving

from gateway.domain.resources import Resource
from gateway.edges.channel import Outcome
from gateway.edges.fhir_channel import TRIES, FHIRChannel, NotificationChannel
from gateway.edges.fhir_client import FHIRClient
from gateway.wire import fhir_json
from gateway.wire.fhir_transaction import draft, query_of
from gateway.workflow.outbox import Attempt, Delivery
from gateway.workflow.ports import DeliveryKind

UID = {"system": "urn:dicom:uid", "value": "urn:oid:2.25.5550001"}
PROCEDURE = {"resourceType": "Procedure", "id": "p-1", "identifier": [UID], "status": "completed",
             "subject": {"type": "Patient", "identifier": {"value": "P1"}},
             "basedOn": [{"reference": "urn:uuid:w-2", "type": "ServiceRequest"}]}  # fmt: skip
PROVENANCE = {"resourceType": "Provenance", "id": "v-1", "recorded": "2026-07-05T09:50:00Z",
              "target": [{"reference": "urn:uuid:w-1"}, {"reference": "urn:uuid:p-1"}],
              "agent": [{"who": {"display": "Modality gateway"}}]}  # fmt: skip
SEARCHED = query_of("ServiceRequest", {"system": "urn:oid:1.2.3", "value": "PL|1"})
WORDS: list[tuple[str, Resource]] = [
    ("Task/7", {"resourceType": "Task", "id": "w-1", "status": "completed"}),
    (SEARCHED, {"resourceType": "ServiceRequest", "id": "w-2", "status": "completed"}),
]


def delivery(bundle: Resource | bytes, operation: str = "transaction") -> Delivery:
    payload = bundle if isinstance(bundle, bytes) else fhir_json.write(bundle)
    at = datetime(2026, 7, 5, tzinfo=UTC)
    return Delivery(1, DeliveryKind.FHIR, 1, "ehr", "", "c", payload, at, at, operation=operation)


class EHR:
    """A server with one Task and one ServiceRequest. `statuses` are answered to transactions, one after the other."""

    def __init__(self, *statuses: int, task: str = "in-progress", reads: int = 200, requests: int = 1) -> None:
        self.statuses = list(statuses) or [200]
        self.task, self.reads, self.requests = task, reads, requests
        self.version = 3

    def __call__(self, asked: Asked) -> Answer:
        if asked.method == "POST":
            status = self.statuses.pop(0)
            if status == 412:
                self.version += 1
            outcome = {"resourceType": "OperationOutcome", "issue": [
                {"severity": "error", "code": "conflict", "diagnostics": "SECRET"}]}  # fmt: skip
            done = {"resourceType": "Bundle", "type": "transaction-response", "entry": []}
            return status, done if status == 200 else outcome
        if self.reads != 200:
            return self.reads, None
        if asked.path == "/Task/7":
            return 200, {"resourceType": "Task", "id": "7", "status": self.task, "intent": "order",
                         "meta": {"versionId": str(self.version)}}  # fmt: skip
        found: list[dict[str, Any]] = []
        if asked.path.startswith("/ServiceRequest?"):
            found = [{"resourceType": "ServiceRequest", "id": f"s{n}", "status": "active",
                      "subject": {"reference": "Patient/9"}, "meta": {"versionId": "1"}}
                     for n in range(self.requests)]  # fmt: skip
        entries = [{"resource": each, "search": {"mode": "match"}} for each in found]
        return 200, {"resourceType": "Bundle", "type": "searchset", **({"entry": entries} if entries else {})}


async def tell(ehr: EHR, made: Any = (PROCEDURE, PROVENANCE)) -> tuple[Outcome, list[Asked]]:
    with receiving(ehr) as server:
        channel = FHIRChannel(FHIRClient(server.url))
        try:
            outcome = await channel.send(delivery(draft("c", WORDS, list(made))))
        finally:
            await channel.close()
        return outcome, server.asked


@looped
async def test_what_is_there_is_merged_and_put_with_its_version_and_ours_is_put_by_identifier() -> None:
    outcome, asked = await tell(EHR())
    assert outcome.attempt is Attempt.ACCEPTED
    (sent,) = [each.body for each in asked if each.method == "POST"]
    by_type = {each["resource"]["resourceType"]: each for each in sent["entry"]}
    assert by_type["Task"]["request"] == {"method": "PUT", "url": "Task/7", "ifMatch": 'W/"3"'}
    assert by_type["Task"]["resource"]["intent"] == "order"
    assert by_type["ServiceRequest"]["request"]["url"] == "ServiceRequest/s0"
    procedure = by_type["Procedure"]
    assert procedure["request"]["url"].startswith("Procedure?identifier=urn%3Adicom%3Auid%7C")
    assert "id" not in procedure["resource"]
    assert procedure["resource"]["subject"] == {"reference": "Patient/9"}
    assert procedure["resource"]["basedOn"] == [{"reference": "ServiceRequest/s0", "type": "ServiceRequest"}]
    targets = [each["reference"] for each in by_type["Provenance"]["resource"]["target"]]
    assert targets == ["Task/7", procedure["fullUrl"]]


@looped
async def test_an_identifier_is_searched_with_its_signs_escaped() -> None:
    _, asked = await tell(EHR())
    assert any(each.path.startswith("/ServiceRequest?identifier=urn%3Aoid%3A1.2.3%7CPL%5C%7C1") for each in asked)


@looped
async def test_a_task_that_is_final_there_is_left() -> None:
    _, asked = await tell(EHR(task="cancelled"))
    (sent,) = [each.body for each in asked if each.method == "POST"]
    assert "Task" not in {each["resource"]["resourceType"] for each in sent["entry"]}


@looped
async def test_what_is_no_news_is_not_sent() -> None:
    outcome, asked = await tell(EHR(task="completed", requests=0), made=())
    assert outcome.attempt is Attempt.ACCEPTED
    assert not [each for each in asked if each.method == "POST"]


@looped
async def test_an_order_that_is_not_there_is_referred_to_by_its_number_alone() -> None:
    _, asked = await tell(EHR(requests=0))
    (sent,) = [each.body for each in asked if each.method == "POST"]
    (procedure,) = [each["resource"] for each in sent["entry"] if each["resource"]["resourceType"] == "Procedure"]
    assert procedure["basedOn"] == [{"type": "ServiceRequest"}]


@looped
async def test_somebody_else_wrote_meanwhile_so_it_is_read_again() -> None:
    outcome, asked = await tell(EHR(412, 200))
    assert outcome.attempt is Attempt.ACCEPTED
    sent = [each.body for each in asked if each.method == "POST"]
    matches = [next(e["request"]["ifMatch"] for e in each["entry"] if "Task" in e["request"]["url"]) for each in sent]
    assert matches == ['W/"3"', 'W/"4"']


@looped
async def test_who_writes_all_the_time_is_met_a_few_times_and_again_later() -> None:
    outcome, asked = await tell(EHR(*[412] * TRIES))
    assert outcome.attempt is Attempt.ERROR
    assert len([each for each in asked if each.method == "POST"]) == TRIES


@pytest.mark.parametrize(
    ("status", "attempt"),
    [(400, Attempt.REJECTED), (422, Attempt.REJECTED), (404, Attempt.UNSUPPORTED), (500, Attempt.ERROR),
     (503, Attempt.UNREACHABLE), (429, Attempt.UNREACHABLE), (401, Attempt.UNREACHABLE), (403, Attempt.UNREACHABLE)],
)  # fmt: skip
@looped
async def test_what_an_answer_means_and_nothing_of_it_is_in_words(status: int, attempt: Attempt) -> None:
    outcome, _ = await tell(EHR(status))
    assert outcome.attempt is attempt
    assert "SECRET" not in outcome.reason
    assert str(status) in outcome.reason


@looped
async def test_a_server_that_cannot_be_read_is_asked_later() -> None:
    outcome, asked = await tell(EHR(reads=503))
    assert outcome.attempt is Attempt.UNREACHABLE
    assert not [each for each in asked if each.method == "POST"]


@looped
async def test_several_with_one_identifier_are_left_out_and_the_rest_is_told() -> None:
    outcome, asked = await tell(EHR(requests=2))
    assert outcome.attempt is Attempt.ACCEPTED
    assert "several ServiceRequest" in outcome.reason
    (sent,) = [each.body for each in asked if each.method == "POST"]
    assert [each["resource"]["resourceType"] for each in sent["entry"]] == ["Task", "Procedure", "Provenance"]
    assert "reference" not in sent["entry"][1]["resource"]["basedOn"][0]


@looped
async def test_several_with_one_identifier_and_nothing_else_are_a_persons_matter() -> None:
    for words, requests in (([WORDS[1]], 2), ([WORDS[1], WORDS[1]], 1)):  # there, and here
        with receiving(EHR(requests=requests)) as server:
            channel = FHIRChannel(FHIRClient(server.url))
            outcome = await channel.send(delivery(draft("c", words, [])))
            await channel.close()
        assert outcome.attempt is Attempt.REJECTED
        assert "several ServiceRequest" in outcome.reason


@looped
async def test_nobody_there_is_not_reachable() -> None:
    with receiving(EHR()) as server:
        url = server.url
    channel = FHIRChannel(FHIRClient(url))
    outcome = await channel.send(delivery(draft("c", WORDS, [])))
    await channel.close()
    assert outcome.attempt is Attempt.UNREACHABLE


@looped
async def test_what_is_no_bundle_is_parked() -> None:
    channel = FHIRChannel(FHIRClient("http://127.0.0.1:9"))
    assert (await channel.send(delivery(b"{"))).attempt is Attempt.REJECTED


@pytest.mark.parametrize(("status", "attempt"), [(200, Attempt.ACCEPTED), (204, Attempt.ACCEPTED),
                                                 (410, Attempt.REJECTED), (500, Attempt.ERROR)])  # fmt: skip
@looped
async def test_a_notification_goes_to_its_endpoint_with_the_headers_asked_for(status: int, attempt: Attempt) -> None:
    with receiving(lambda asked: (status, None)) as server:
        channel = NotificationChannel(FHIRClient(f"{server.url}/hook/1"), {"Authorization": "Bearer x"})
        outcome = await channel.send(delivery({"resourceType": "Bundle", "type": "history"}, "handshake"))
        await channel.close()
    assert outcome.attempt is attempt
    (asked,) = server.asked
    assert (asked.path, asked.headers["authorization"]) == ("/hook/1", "Bearer x")
    assert asked.headers["content-type"] == "application/fhir+json; fhirVersion=4.0"


@pytest.mark.parametrize(
    "entry", [7, [7], [{"resource": "x"}], [{"resource": {"resourceType": "ServiceRequest", "id": 7}}],
              [{"resource": {"resourceType": "ServiceRequest", "id": "s"}, "search": "match"}]]
)  # fmt: skip
@looped
async def test_pages_of_anything_else_than_entries_find_nothing(entry: Any) -> None:
    ehr = EHR()

    def lying(asked: Asked) -> Answer:
        status, said = ehr(asked)
        return status, {**said, "entry": entry} if (said or {}).get("type") == "searchset" else said

    with receiving(lying) as server:
        channel = FHIRChannel(FHIRClient(server.url))
        outcome = await channel.send(delivery(draft("c", WORDS, [PROCEDURE])))
        await channel.close()
    assert outcome.attempt is Attempt.ACCEPTED


@looped
async def test_what_may_not_be_told_any_more_is_not_sent() -> None:
    with receiving(lambda _: (200, None)) as server:
        channel = NotificationChannel(FHIRClient(server.url), {}, why_not=lambda: "its client is gone")
        outcome = await channel.send(delivery(b"{}", "event-notification"))
        await channel.close()
    assert (outcome.attempt, outcome.reason) == (Attempt.UNREACHABLE, "its client is gone")
    assert server.asked == []


@looped
async def test_a_notification_that_was_taken_is_taken_however_much_is_said_of_it() -> None:
    with receiving(lambda _: (200, {"said": "x" * 100_000})) as server:
        channel = NotificationChannel(FHIRClient(server.url), {})
        outcome = await channel.send(delivery(b"{}", "event-notification"))
        await channel.close()
    assert outcome.attempt is Attempt.ACCEPTED


@pytest.mark.parametrize("status", [429, 503])
@looped
async def test_how_long_it_asks_to_be_left_in_peace_is_heard(status: int) -> None:
    with receiving(EHR(status)) as server:
        server.headers = {"Retry-After": "45"}
        channel = FHIRChannel(FHIRClient(server.url))
        outcome = await channel.send(delivery(draft("c", WORDS, [PROCEDURE])))
        await channel.close()
    assert (outcome.attempt, outcome.wait_s) == (Attempt.UNREACHABLE, 45)
    with receiving(lambda _: (status, None)) as server:
        server.headers = {"Retry-After": "45"}
        notifying = NotificationChannel(FHIRClient(server.url), {})
        outcome = await notifying.send(delivery(b"{}", "event-notification"))
        await notifying.close()
    assert (outcome.attempt, outcome.wait_s) == (Attempt.UNREACHABLE, 45)
