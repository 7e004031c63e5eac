"""Bundles: what their entries ask for, with places; and the Bundles that answer them."""

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import ResourceKey
from gateway.wire.fhir_bundle import (
    answer,
    json_patch,
    refused,
    request_of,
    searchset,
    single,
    with_entries,
)
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Result, Verb
from gateway.wire.fhir_models import problems
from gateway.wire.fhir_negotiation import Returned
from gateway.wire.fhir_release import Release

AT = datetime(2026, 7, 5, 9, 30, tzinfo=UTC)
PATIENT: dict[str, Any] = {"resourceType": "Patient", "name": [{"family": "Sample"}]}


def transaction(*entries: Any, kind: str = "transaction") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def entry(method: str, url: str, resource: Any = None, full_url: str = "", **request: str) -> dict[str, Any]:
    made: dict[str, Any] = {"request": {"method": method, "url": url, **request}}
    if resource is not None:
        made["resource"] = resource
    return {**made, **({"fullUrl": full_url} if full_url else {})}


def read(bundle: dict[str, Any], release: Release = Release.R4, **more: Any) -> FHIRRequest:
    return request_of(bundle, release, b"raw", **more)


def places(bundle: dict[str, Any]) -> list[str]:
    with pytest.raises(Refused) as caught:
        read(bundle)
    return [refusal.where for refusal in caught.value.refusals]


# --- transactions and batches -----------------------------------------------------------------------------------------


def test_every_method_of_a_transaction_becomes_its_interaction() -> None:
    request = read(
        transaction(
            entry("POST", "Patient", PATIENT, "urn:uuid:1", ifNoneExist="identifier=s|1"),
            entry("PUT", "Patient/9", {**PATIENT, "id": "9"}, ifMatch='W/"3"'),
            entry("PUT", "Patient?identifier=s|2", PATIENT),
            entry("DELETE", "Patient/8"),
            entry("GET", "Patient/7"),
            entry("GET", "Patient?name=x"),
        )
    )
    assert request.kind is Kind.TRANSACTION
    assert request.source == "r4"
    first, second, third, fourth, fifth, sixth = request.interactions
    assert first == Interaction(
        Verb.CREATE, "Patient", resource=PATIENT, if_none_exist="identifier=s|1", full_url="urn:uuid:1",
        where="Bundle.entry[0]",
    )  # fmt: skip
    assert (second.verb, second.id, second.if_match) == (Verb.UPDATE, "9", "3")
    assert (third.verb, third.id, third.query) == (Verb.UPDATE, "", "identifier=s|2")
    assert (fourth.verb, fourth.id, fourth.resource) == (Verb.DELETE, "8", None)
    assert (fifth.verb, fifth.id) == (Verb.READ, "7")
    assert (sixth.verb, sixth.query) == (Verb.SEARCH, "name=x")


def test_urls_may_be_written_with_our_own_address() -> None:
    bundle = transaction(entry("DELETE", "http://here/fhir/r4/Patient/8"))
    request = read(bundle, base_url="http://here/fhir/r4")
    assert request.interactions[0].id == "8"


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"resource": PATIENT}, "Bundle.entry[1].request"),
        (entry("HEAD", "Patient/1"), "Bundle.entry[1].request.method"),
        (entry("POST", "Patient"), "Bundle.entry[1].resource"),
        (entry("POST", "Patient/1", PATIENT), "Bundle.entry[1].request.url"),
        (entry("POST", "Observation", PATIENT), "Bundle.entry[1].resource.resourceType"),
        (entry("PUT", "Patient", PATIENT), "Bundle.entry[1].request.url"),
        (entry("PUT", "Patient/1?name=x", PATIENT), "Bundle.entry[1].request.url"),
        (entry("PUT", "Patient/1", {**PATIENT, "id": "2"}), "Bundle.entry[1].resource.id"),
        (entry("DELETE", "http://elsewhere/fhir/Patient/1"), "Bundle.entry[1].request.url"),
        (entry("DELETE", "Patient/a b"), "Bundle.entry[1].request.url"),
        (entry("GET", "Patient/1/_history/2"), "Bundle.entry[1].request.url"),
        (entry("POST", "Patient/$validate", PATIENT), "Bundle.entry[1].request.url"),
        (entry("DELETE", ""), "Bundle.entry[1].request.url"),
        (entry("DELETE", "Patient/1", ifMatch="third"), "Bundle.entry[1].request.ifMatch"),
        (entry("PATCH", "Patient/1", PATIENT), "Bundle.entry[1].resource.resourceType"),
    ],
)
def test_a_wrong_entry_is_named_by_its_place(wrong: dict[str, Any], place: str) -> None:
    assert places(transaction(entry("POST", "Patient", PATIENT), wrong)) == [place]


def test_all_problems_of_a_transaction_are_told_at_once() -> None:
    assert places(transaction(entry("HEAD", "Patient"), entry("POST", "Patient"))) == [
        "Bundle.entry[0].request.method",
        "Bundle.entry[1].resource",
    ]


def test_a_batch_leaves_out_what_cannot_be_read_and_does_the_rest() -> None:
    batch = transaction(entry("HEAD", "Patient"), entry("POST", "Patient", PATIENT), kind="batch")
    request = read(batch)
    assert [each.where for each in request.interactions] == ["Bundle.entry[1]"]
    assert [*request.unreadable] == [0]


@pytest.mark.parametrize("kind", ["collection", "searchset", "history", "transaction-response", ""])
def test_bundles_that_do_not_say_what_to_do_are_refused_with_a_hint(kind: str) -> None:
    with pytest.raises(Refused) as caught:
        read(transaction(kind=kind))
    assert caught.value.refusals[0].where == "Bundle.type"
    assert "transaction" in caught.value.refusals[0].hint


@pytest.mark.parametrize("entries", ["x", [1], {"a": 1}])
def test_entries_that_are_no_list_of_elements_are_refused(entries: Any) -> None:
    with pytest.raises(Refused):
        read({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def test_patches_in_a_bundle_are_json_patch_or_parameters() -> None:
    operations = [{"op": "replace", "path": "/status", "value": "revoked"}]
    data = base64.b64encode(b'[{"op": "replace", "path": "/status", "value": "revoked"}]').decode()
    binary = {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data}
    parameters = {"resourceType": "Parameters", "parameter": []}
    request = read(
        transaction(entry("PATCH", "ServiceRequest/1", binary), entry("PATCH", "ServiceRequest/2", parameters))
    )
    assert [each.patch for each in request.interactions] == [operations, parameters]


@pytest.mark.parametrize("data", [b"{", b"{}", b"[1]", b"\xff", b"[" * 10_000])
def test_what_is_no_json_patch_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        json_patch(data)


def test_a_single_update_has_the_id_of_its_address() -> None:
    with pytest.raises(Refused) as caught:
        single(Interaction(Verb.UPDATE, "Patient", "1", {**PATIENT, "id": "2"}), Release.R4, b"", "PUT Patient")
    assert caught.value.refusals[0].where == "Patient.id"


# --- messages and documents -------------------------------------------------------------------------------------------

HEADER: dict[str, Any] = {
    "resourceType": "MessageHeader",
    "id": "m1",
    "eventCoding": {"system": "urn:sample", "code": "new-order"},
    "source": {"name": "EHR", "endpoint": "https://ehr.example/fhir"},
    "destination": [{"endpoint": "https://gateway.example/fhir"}],
    "focus": [{"reference": "ServiceRequest/o1"}],
}


def message(*entries: Any, header: dict[str, Any] = HEADER) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "message", "entry": [{"resource": header}, *entries]}


def test_resources_of_a_message_are_updates_by_their_business_identifier() -> None:
    order = {
        "resourceType": "ServiceRequest",
        "id": "o1",
        "identifier": [
            {"system": "urn:sample:any", "value": "7"},
            {"type": {"coding": [{"code": "PLAC"}]}, "system": "urn:sample:placer", "value": "4|711"},
        ],
        "subject": {"reference": "Patient/p1"},
    }
    patient = {**PATIENT, "id": "p1"}
    request = read(
        message(
            {"fullUrl": "https://ehr.example/fhir/ServiceRequest/o1", "resource": order},
            {"fullUrl": "https://ehr.example/fhir/Patient/p1", "resource": patient},
        ),
        kept=lambda name: name != "MessageHeader",
    )
    assert (request.kind, request.message_id, request.event) == (Kind.MESSAGE, "m1", "message")
    first, second = request.interactions
    assert first.query == "identifier=urn%3Asample%3Aplacer%7C4%5C%7C711"
    assert first.resource is not None
    assert "id" not in first.resource
    assert first.where == "Bundle.entry[1]"
    assert (second.verb, second.id, second.query) == (Verb.UPDATE, "p1", "")
    assert first.resource["subject"] == {"reference": second.full_url}


def test_a_resource_of_a_message_without_identifier_has_the_uuid_that_names_it() -> None:
    uuid = "3f2f6a0e-0f6b-4b8e-9d64-111111111111"
    request = read(message({"fullUrl": f"urn:uuid:{uuid}", "resource": PATIENT}), kept=lambda name: name == "Patient")
    assert request.interactions[0].id == uuid
    assert request.interactions[0].resource == {**PATIENT, "id": uuid}


def test_what_is_not_kept_of_a_message_is_passed_over() -> None:
    request = read(
        message({"resource": {"resourceType": "Basic"}}, {"resource": PATIENT}), kept=lambda n: n == "Patient"
    )
    assert [each.type for each in request.interactions] == ["Patient"]


@pytest.mark.parametrize(
    ("bundle", "place"),
    [
        (transaction({"resource": PATIENT}, kind="message"), "Bundle.entry[0].resource"),
        (transaction(kind="message"), "Bundle.entry[0].resource"),
        (message(header={"resourceType": "MessageHeader"}), "Bundle.entry[0].resource.event[x]"),
        (message(header={**HEADER, "response": {"code": "ok"}}), "Bundle.entry[0].resource.response"),
        (transaction({"resource": PATIENT}, kind="document"), "Bundle.entry[0].resource"),
    ],
)
def test_messages_and_documents_begin_with_what_they_are(bundle: dict[str, Any], place: str) -> None:
    assert places(bundle) == [place]


def test_a_document_is_a_transaction_of_what_it_holds() -> None:
    document = transaction(
        {"resource": {"resourceType": "Composition"}}, {"resource": {**PATIENT, "id": "p1"}}, kind="document"
    )
    document["identifier"] = {"system": "urn:sample", "value": "d1"}
    request = read(document, kept=lambda name: name == "Patient")
    assert (request.kind, request.event, request.message_id) == (Kind.TRANSACTION, "document", "d1")
    assert [each.id for each in request.interactions] == ["p1"]


# --- answers ----------------------------------------------------------------------------------------------------------


def done(status: int = 201, **more: Any) -> Result:
    return Result(status, ResourceKey("r4", "Patient", "a"), 1, AT, {**PATIENT, "id": "a"}, **more)


def asked(kind: Kind, *interactions: Interaction, **more: Any) -> FHIRRequest:
    return FHIRRequest(kind, "r4", Release.R4, interactions, b"", **more)


CREATE = Interaction(Verb.CREATE, "Patient", resource=PATIENT, where="Bundle.entry[0]")
REFUSAL = Refusal(RefusalKind.MISSING_FIELD, "Bundle.entry[0].resource.subject", "is missing", "send it")


def test_a_create_is_answered_with_where_it_is() -> None:
    said = answer(asked(Kind.SINGLE, CREATE), [done()])
    assert said.status == 201
    assert said.headers == {
        "ETag": 'W/"1"',
        "Last-Modified": "Sun, 05 Jul 2026 09:30:00 GMT",
        "Location": "Patient/a/_history/1",
    }
    assert said.body == {**PATIENT, "id": "a"}


def test_a_transaction_is_answered_entry_by_entry() -> None:
    reading = Interaction(Verb.READ, "Patient", "a")
    said = answer(asked(Kind.TRANSACTION, CREATE, reading), [done(notes=("waits for Patient/9",)), done(200)])
    assert said.body is not None
    assert said.body["type"] == "transaction-response"
    first, second = said.body["entry"]
    assert first["response"]["status"] == "201 Created"
    assert first["response"]["location"] == "Patient/a/_history/1"
    assert first["response"]["lastModified"] == "2026-07-05T09:30:00.000Z"
    assert first["response"]["outcome"]["issue"][0]["details"]["text"] == "waits for Patient/9"
    assert "resource" not in first
    assert second["resource"]["id"] == "a"
    assert problems(said.body, Release.R4)[0] == []


def test_a_transaction_with_one_refusal_is_refused_as_a_whole() -> None:
    said = answer(asked(Kind.TRANSACTION, CREATE, CREATE), [done(), Result(422, refusals=(REFUSAL,))])
    assert said.status == 422
    assert said.body is not None
    assert said.body["issue"][0]["expression"] == [REFUSAL.where]


def test_a_batch_is_answered_with_its_refused_entries_at_their_places() -> None:
    request = asked(Kind.BATCH, CREATE, CREATE)
    refused = Result(422, refusals=(REFUSAL,))
    said = with_entries(answer(request, [done(), refused]), request, {0: refused, 2: refused})
    assert said.status == 200
    assert said.body is not None
    assert [each["response"]["status"][:3] for each in said.body["entry"]] == ["422", "201", "422", "422"]
    assert problems(said.body, Release.R4)[0] == []


@pytest.mark.parametrize("release", list(Release))
@pytest.mark.parametrize("kind", [None, RefusalKind.MISSING_FIELD, RefusalKind.TRANSIENT])
def test_a_message_is_answered_by_a_message(release: Release, kind: RefusalKind | None) -> None:
    header = HEADER
    if release is Release.R5:
        header = {**HEADER, "source": {"endpointUrl": "https://ehr.example"}, "destination": [{"name": "gateway"}]}
    request = FHIRRequest(Kind.MESSAGE, release.base, release, (CREATE,), b"", message_id="m1", header=header)
    said = answer(request, [done()]) if kind is None else refused(request, [Refusal(kind, "", "no", "later")])
    assert said.body is not None
    answered = said.body["entry"][0]["resource"]
    code = {None: "ok", RefusalKind.TRANSIENT: "transient-error"}.get(kind, "fatal-error")
    assert answered["response"]["code"] == code
    identifier = answered["response"]["identifier"]
    assert identifier == ({"value": "m1"} if release is Release.R5 else "m1")
    assert answered["response"]["details"]["reference"] == said.body["entry"][1]["fullUrl"]
    assert said.body["entry"][1]["resource"]["resourceType"] == "OperationOutcome"
    assert problems(said.body, release)[0] == []
    assert said.status == {None: 200, RefusalKind.TRANSIENT: 503}.get(kind, 422)


def test_the_same_message_is_answered_the_same() -> None:
    request = asked(Kind.MESSAGE, CREATE, message_id="m1", header=HEADER)
    assert answer(request, [done()]) == answer(request, [done()])


def test_a_page_of_a_search_says_what_matches_and_what_is_included() -> None:
    page = searchset(
        [
            ("http://here/Patient/a", {**PATIENT, "id": "a"}, "match"),
            ("http://here/Device/b", {"resourceType": "Device"}, "include"),
        ],
        {"self": "http://here/Patient?name=s", "next": "http://here/Patient?name=s&_cursor=x"},
        7,
        ["left out"],
    )
    assert page["total"] == 7
    assert [each["relation"] for each in page["link"]] == ["self", "next"]
    assert [each["search"]["mode"] for each in page["entry"]] == ["match", "include", "outcome"]
    assert problems(page, Release.R4)[0] == []


def test_a_page_without_matches_has_no_entries() -> None:
    assert "entry" not in searchset([], {"self": "x"}, 0)


@pytest.mark.parametrize(
    ("interaction", "status", "is_shown"),
    [
        (Interaction(Verb.CREATE, "Patient"), 201, True),
        (Interaction(Verb.CREATE, "Patient"), 200, False),
        (Interaction(Verb.UPDATE, "Patient"), 200, True),
        (Interaction(Verb.PATCH, "Patient"), 200, False),
    ],
)
def test_who_may_not_read_is_shown_only_what_it_sent(interaction: Interaction, status: int, is_shown: bool) -> None:
    result = Result(status, ResourceKey("r4", "Patient", "1"), 1, AT, PATIENT)
    for kind in (Kind.SINGLE, Kind.TRANSACTION):
        request = FHIRRequest(
            kind, "r4", Release.R4, (interaction,), b"", may_read=frozenset({"Task"}), returned=Returned.REPRESENTATION
        )
        said = answer(request, [result]).body or {}
        if kind is Kind.TRANSACTION:
            said = said["entry"][0].get("resource", {})
        assert ("name" in said) is is_shown
