"""Bad FHIR at the running service: every refusal says what, where and what to do, and nothing but the archive changes.

Tokens that are not taken are in `test_fhir_door`, servers that lie to our client in `test_fhir_client`.
"""

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from gateway.domain.matching import Narrowing
from tests.cases.fhir_corpus.model import fragment
from tests.edges.fhir_whole import WholeService, issues

_numbers = itertools.count(10_001)
Body = dict[str, Any]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeService]:
    with WholeService(tmp_path_factory.mktemp("bad"), fhir={"limits": {"body_bytes_max": 1_048_576}}) as running:
        yield running


@pytest.fixture
def number() -> str:
    return str(next(_numbers))


def made(kind: str, number: str, release: str = "R4", **changes: Any) -> Body:
    """A resource of the corpus; None takes an element away."""
    resource = {**fragment(release, kind, number), **changes}
    return {key: value for key, value in resource.items() if value is not None}


def bundle(kind: str, *entries: Body) -> Body:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def put(resource: Body) -> Body:
    url = f"{resource['resourceType']}/{resource['id']}"
    return {"resource": resource, "request": {"method": "PUT", "url": url}}


def post(resource: Body, **request: str) -> Body:
    resource = {key: value for key, value in resource.items() if key != "id"}
    return {"resource": resource, "request": {"method": "POST", "url": resource["resourceType"], **request}}


def sent(gateway: WholeService, resource: Body, base: str = "r4") -> httpx.Response:
    """PUT to its own address; a Bundle goes to the base."""
    url = f"{gateway.url}/{base}"
    if resource["resourceType"] == "Bundle":
        return gateway.client.post(url, json=resource)
    return gateway.client.put(f"{url}/{resource['resourceType']}/{resource['id']}", json=resource)


def listed(gateway: WholeService) -> int:
    """How many steps the worklist has."""
    return len(gateway.service.store.reader.candidates(Narrowing()))


@contextmanager
def nothing_changes(gateway: WholeService, disposition: str = "refused") -> Iterator[Callable[..., None]]:
    """Of what happens inside only the archive knows, with its reasons; afterwards the next order is taken as ever.

    Gives a function that looks whether an answer is refused as it should be.
    """
    before, archived = gateway.everything(), gateway.archived()
    told: list[tuple[str, str]] = []

    def refused(answer: httpx.Response, status: int, *expected: tuple[str, str]) -> None:
        assert (answer.status_code, issues(answer)) == (status, sorted(expected)), answer.text
        assert all(
            issue["details"]["text"] and issue.get("diagnostics")
            for issue in answer.json()["issue"] if issue["severity"] != "information"
        ), answer.text  # fmt: skip
        told.extend(expected)

    yield refused
    assert gateway.everything() == before
    assert gateway.archived() > archived
    (newest,) = gateway.newest()
    assert newest.record.disposition == disposition
    assert all(place in newest.record.reasons for _, place in told), newest.record.reasons
    assert not any(word in newest.record.reasons for word in ("Example", "Ada"))
    good = str(next(_numbers))
    items = listed(gateway)
    assert sent(gateway, bundle("transaction", put(made("patient", good)), put(made("request", good)))).is_success
    assert listed(gateway) == items + 1


# --- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"resourceType": "Patient"', b"[]", b"null", b"\xff\xfe", b'{"a": 1} {}', b'{"a": NaN}',
     b'{"resourceType": "Patient", "id": "x", "id": "y"}', b'{"resourceType": "Patient", "active": tru}',
     b"<Patient xmlns='http://hl7.org/fhir'/>", b'{"x":' * 50 + b"1" + b"}" * 50],
    ids=["empty", "cut", "cut later", "a list", "null", "no UTF-8", "two values", "NaN", "a member twice",
         "a word cut", "XML", "too deep"],
)  # fmt: skip
def test_a_body_that_is_no_resource_is_refused_and_archived(gateway: WholeService, body: bytes) -> None:
    with nothing_changes(gateway, "unreadable"):
        answer = gateway.client.post("Patient", content=body)
        assert answer.status_code in (400, 422)
        (issue, *_) = answer.json()["issue"]
        assert issue["details"]["text"]
        assert issue["diagnostics"]
    assert gateway.newest(3)[-1].record.raw == body or body in [each.record.raw for each in gateway.newest(3)]


INVALID: Mapping[str, tuple[Body, list[tuple[str, str]]]] = {
    "an element that is none": ({"statuss": "active"}, [("structure", "ServiceRequest.statuss")]),
    "a required element missing": ({"subject": None}, [("required", "ServiceRequest.subject")]),
    "several at once": (
        {"status": "busy", "authoredOn": "yesterday", "priority": 1, "note": {"text": "x"}},
        [("code-invalid", "ServiceRequest.status"), ("value", "ServiceRequest.authoredOn"),
         ("value", "ServiceRequest.priority"), ("structure", "ServiceRequest.note")],
    ),
    "two types of one choice": (
        {"occurrencePeriod": {"start": "2026-07-06"}}, [("structure", "ServiceRequest.occurrence")],
    ),
    "a code outside of its value set, below": (
        {"identifier": [{"use": "mine", "value": "1"}]}, [("code-invalid", "ServiceRequest.identifier[0].use")],
    ),
    "a subject that is no patient": (
        {"subject": {"reference": "Practitioner/1"}}, [("value", "ServiceRequest.subject")],
    ),
    "a requester that requests nothing": (
        {"requester": {"reference": "Encounter/1"}}, [("value", "ServiceRequest.requester")],
    ),
    "based on what orders nothing": (
        {"basedOn": [{"reference": "Patient/1"}]}, [("value", "ServiceRequest.basedOn[0]")],
    ),
    "a reference by a type it does not have": (
        {"encounter": {"type": "Patient", "identifier": {"value": "1"}}}, [("value", "ServiceRequest.encounter")],
    ),
    "a contained resource that is not there": (
        {"requester": {"reference": "#gone"}}, [("value", "ServiceRequest.requester")],
    ),
    "a contained resource that contains": (
        {"contained": [{"resourceType": "Practitioner", "id": "a",
                        "contained": [{"resourceType": "Patient", "id": "b"}]}]},
        [("structure", "ServiceRequest.contained[0].contained")],
    ),
    "rules that nobody knows": (
        {"implicitRules": "http://sample.example/rules"}, [("extension", "ServiceRequest.implicitRules")],
    ),
    "a modifier extension": (
        {"modifierExtension": [{"url": "http://sample.example/not", "valueBoolean": True}]},
        [("extension", "ServiceRequest.modifierExtension[0]")],
    ),
    "a modifier extension of a contained resource": (
        {"contained": [{"resourceType": "Practitioner", "id": "a",
                        "modifierExtension": [{"url": "http://sample.example/not", "valueBoolean": True}]}],
         "requester": {"reference": "#a"}},
        [("extension", "ServiceRequest.contained[0].modifierExtension[0]")],
    ),
    "not to be performed": ({"doNotPerform": True}, [("value", "ServiceRequest.doNotPerform")]),
}  # fmt: skip


@pytest.mark.parametrize("which", INVALID)
def test_an_order_that_is_wrong_is_refused_at_each_place(gateway: WholeService, number: str, which: str) -> None:
    changes, expected = INVALID[which]
    assert sent(gateway, made("patient", number)).status_code == 201
    with nothing_changes(gateway) as refused:
        answer = sent(gateway, made("request", number, **changes))
        status = 400 if any(code == "structure" for code, _ in expected) else 422
        refused(answer, status, *expected)
    assert sent(gateway, made("request", number)).status_code == 201


def test_a_modifier_extension_inside_of_an_element_is_refused_there(gateway: WholeService, number: str) -> None:
    unknown = [{"url": "http://sample.example/not", "valueBoolean": True}]
    task = made("task", number, restriction={"repetitions": 1, "modifierExtension": unknown})
    with nothing_changes(gateway) as refused:
        refused(sent(gateway, task), 422, ("extension", "Task.restriction.modifierExtension[0]"))
    with nothing_changes(gateway) as refused:
        whole = bundle("transaction", put(made("patient", number)), put(task) | {"modifierExtension": unknown})
        refused(
            sent(gateway, whole), 422, ("extension", "Bundle.entry[1].modifierExtension[0]"),
            ("extension", "Bundle.entry[1].resource.restriction.modifierExtension[0]"),
        )  # fmt: skip


@pytest.mark.parametrize("base", ["r4b", "r5"])
def test_every_release_refuses_by_its_own_rules(gateway: WholeService, number: str, base: str) -> None:
    order = made("request", number, base.upper(), status="busy", doNotPerform=True)
    with nothing_changes(gateway) as refused:
        refused(sent(gateway, order, base), 422, ("code-invalid", "ServiceRequest.status"))
    other = made("request", number, "R4" if base == "r5" else "R5")  # `code` is another data type there
    with nothing_changes(gateway) as refused:
        answer = sent(gateway, other, base)
        assert answer.status_code == 400
        assert all(place.startswith("ServiceRequest.code") for _, place in issues(answer))


# --- circles ----------------------------------------------------------------------------------------------------------


def test_resources_that_refer_to_each_other_in_a_circle_are_refused(gateway: WholeService, number: str) -> None:
    order = made("order", number, basedOn=[{"reference": f"ServiceRequest/rp{number}"}])
    with nothing_changes(gateway) as refused:
        circle = map(put, (made("patient", number), order, made("procedure", number)))
        refused(
            sent(gateway, bundle("transaction", *circle)),
            422, ("value", "Bundle.entry[1].resource.basedOn"), ("value", "Bundle.entry[2].resource.basedOn"),
        )  # fmt: skip
    own = made("request", number, basedOn=[{"reference": f"ServiceRequest/r{number}"}])
    with nothing_changes(gateway):
        assert sent(gateway, bundle("transaction", put(made("patient", number)), put(own))).status_code == 422
    tasks = [made("task", number, partOf=[{"reference": f"Task/u{number}"}]),
             made("task", number, id=f"u{number}", partOf=[{"reference": f"Task/t{number}"}])]  # fmt: skip
    tasks.append(made("task", number, id=f"v{number}", partOf=[{"reference": f"Task/u{number}"}]))
    with nothing_changes(gateway):
        whole = bundle("transaction", *map(put, (made("patient", number), made("request", number), *tasks)))
        answer = sent(gateway, whole)
        assert answer.status_code == 422
        assert all(place.endswith("partOf") for _, place in issues(answer))


def test_contained_resources_that_refer_to_each_other_do_no_harm(gateway: WholeService, number: str) -> None:
    assert sent(gateway, made("patient", number)).status_code == 201
    role = {"resourceType": "PractitionerRole", "id": "role", "organization": {"reference": "#org"}}
    organization = {"resourceType": "Organization", "id": "org", "partOf": {"reference": "#org"}, "name": "Clinic"}
    before = listed(gateway)
    order = made("request", number, contained=[role, organization], requester={"reference": "#role"})
    assert sent(gateway, order).status_code == 201
    assert listed(gateway) == before + 1


# --- too much ---------------------------------------------------------------------------------------------------------


def test_a_bundle_of_fifty_megabytes_is_refused_unread_while_others_are_served(gateway: WholeService) -> None:
    piece = b'{"resource": {"resourceType": "Patient", "name": [{"family": "' + b"x" * 65_000 + b'"}]}},'
    half, whole = threading.Event(), threading.Event()
    answers: list[httpx.Response] = []

    def body() -> Iterator[bytes]:
        yield b'{"resourceType": "Bundle", "type": "transaction", "entry": ['
        for at in range(800):
            yield piece
            if at == 10:
                half.set()
                whole.wait(60)

    def send() -> None:
        with httpx.Client(timeout=60) as client:
            answers.append(client.post(f"{gateway.url}/r4", content=body(), headers=gateway.client.headers))

    before = gateway.everything()
    sender = threading.Thread(target=send)
    sender.start()
    assert half.wait(60)
    assert gateway.client.get("Patient?_summary=count").status_code == 200
    good = str(next(_numbers))
    assert sent(gateway, made("patient", good)).status_code == 201
    whole.set()
    sender.join()
    (answer,) = answers
    assert answer.status_code == 413
    assert issues(answer) == [("too-long", "")]
    changed = {name for name, rows in gateway.everything().items() if rows != before[name]}
    assert "orders" not in changed
    assert gateway.client.get(f"Patient/p{good}").status_code == 200


def test_more_entries_than_are_taken_are_refused_before_they_are_looked_at(gateway: WholeService, number: str) -> None:
    with nothing_changes(gateway, "unreadable"):
        answer = sent(gateway, bundle("batch", *({"request": {}} for _ in range(1001))))
        assert answer.status_code == 413 or issues(answer) == [("too-long", "Bundle.entry")], answer.text


# --- all or nothing ---------------------------------------------------------------------------------------------------


def test_a_transaction_with_a_bad_entry_changes_nothing_and_tells_every_problem(
    gateway: WholeService, number: str
) -> None:
    assert sent(gateway, bundle("transaction", put(made("patient", number)), put(made("request", number)))).is_success
    other = str(next(_numbers))
    shape = [
        put(made("patient", number, name=[{"family": "Changed"}])),
        put(made("request", number, status="revoked")),
        put(made("patient", other)),
        put(made("request", other, status="busy", priority="soon")),
    ]
    with nothing_changes(gateway) as refused:
        refused(
            sent(gateway, bundle("transaction", *shape)), 422,
            ("code-invalid", "Bundle.entry[3].resource.status"), ("code-invalid", "Bundle.entry[3].resource.priority"),
        )  # fmt: skip
    # One that is as the specification says, and cannot be scheduled.
    unknown = {"coding": [{"system": "http://hospital.example/codes/procedures", "code": "ZZZ"}]}
    with nothing_changes(gateway):
        answer = sent(gateway, bundle("transaction", *shape[:3], put(made("request", other, code=unknown))))
        assert answer.status_code == 422
        assert {place for _, place in issues(answer)} == {"Bundle.entry[3].resource"}
    # Two that do what cannot be done.
    with nothing_changes(gateway) as refused:
        missing = {"request": {"method": "PATCH", "url": "Patient/nobody"}, "resource": {
            "resourceType": "Binary", "contentType": "application/json-patch+json", "data": "W10="}}  # fmt: skip
        stale = shape[1] | {"request": shape[1]["request"] | {"ifMatch": 'W/"7"'}}
        refused(
            sent(gateway, bundle("transaction", shape[0], stale, missing)), 404,
            ("conflict", "Bundle.entry[1].request.ifMatch"), ("not-found", "Bundle.entry[2].request"),
        )  # fmt: skip


def test_the_operator_finds_what_was_refused_and_why(gateway: WholeService, number: str) -> None:
    sent(gateway, made("request", number, status="busy"))
    found = gateway.command("messages", "list", "--outcome", "refused", "--limit", "1")
    assert "PUT ServiceRequest" in found
    assert "ServiceRequest.status" in found


@pytest.mark.parametrize("whole", [False, True], ids=["alone", "in a transaction"])
def test_what_was_refused_is_refused_again_when_it_is_replayed(gateway: WholeService, number: str, whole: bool) -> None:
    assert sent(gateway, made("patient", number)).is_success
    order = made("request", number, modifierExtension=[{"url": "http://sample.example/not", "valueBoolean": True}])
    assert sent(gateway, bundle("transaction", put(order)) if whole else order).status_code == 422
    (refused,) = gateway.newest()
    before = gateway.everything()
    told = gateway.command("messages", "replay", str(refused.id), exit_code=1)
    assert "modifierExtension" in told
    assert gateway.everything() == before


def test_entries_of_a_batch_that_are_refused_before_they_are_tried_are_archived(
    gateway: WholeService, number: str
) -> None:
    before = gateway.archived()
    answer = sent(gateway, bundle("batch", put(made("patient", number)), put(made("request", number, status="busy"))))
    assert [each["response"]["status"][:3] for each in answer.json()["entry"]] == ["201", "422"]
    assert gateway.archived() == before + 2
    assert "Bundle.entry[1].resource.status" in gateway.newest()[0].record.reasons


# --- the same again, and conditions -----------------------------------------------------------------------------------


def test_a_post_that_comes_again_makes_no_second_order(gateway: WholeService, number: str) -> None:
    assert sent(gateway, made("patient", number)).status_code == 201
    order = post(made("request", number))["resource"]
    first = gateway.client.post("ServiceRequest", json=order)
    assert first.status_code == 201
    items, everything = listed(gateway), gateway.everything()
    again = gateway.client.post("ServiceRequest", json=order)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert "nothing was created" in again.headers["X-Note"]
    other = post(made("request", number, identifier=[{"value": "unlike"}]))["resource"]
    search = {"If-None-Exist": f"identifier=urn:oid:1.2.40.0.13.1.1.1|O{number}"}
    conditional = gateway.client.post("ServiceRequest", json=other, headers=search)
    assert (conditional.status_code, conditional.json()["id"]) == (200, first.json()["id"])
    assert (gateway.everything(), listed(gateway)) == (everything, items)
    with nothing_changes(gateway) as refused:
        answer = gateway.client.post("ServiceRequest", json={**order, "priority": "stat"})
        refused(answer, 409, ("duplicate", "ServiceRequest.identifier"))


def test_a_condition_that_several_meet_is_refused(gateway: WholeService, number: str) -> None:
    shared = [{"system": "urn:oid:1.2.3", "value": f"S{number}"}]
    for name in ("a", "b"):
        assert sent(gateway, made("patient", number, id=f"{name}{number}", identifier=shared)).is_success
    search = f"identifier=urn:oid:1.2.3|S{number}"
    patient = post(made("patient", number))["resource"]
    for ask in (
        lambda: gateway.client.put(f"Patient?{search}", json=patient),
        lambda: gateway.client.post("Patient", json=patient, headers={"If-None-Exist": search}),
        lambda: gateway.client.delete(f"Patient?{search}"),
        lambda: gateway.client.patch(
            f"Patient?{search}", json=[], headers={"Content-Type": "application/json-patch+json"}
        ),
    ):
        with nothing_changes(gateway) as refused:
            refused(ask(), 412, ("conflict", "Patient"))
    subject = {"reference": f"Patient?{search}"}
    with nothing_changes(gateway) as refused:
        refused(
            sent(gateway, bundle("transaction", put(made("request", number, subject=subject)))), 412,
            ("conflict", "Bundle.entry[0].resource.subject"),
        )  # fmt: skip


# --- what is taken with a remark --------------------------------------------------------------------------------------


def test_a_profile_that_is_not_known_is_taken_with_a_note_that_the_sender_sees(
    gateway: WholeService, number: str
) -> None:
    profile = "http://sample.example/StructureDefinition/imaging-order"
    assert sent(gateway, made("patient", number)).status_code == 201
    order = made("request", number, meta={"profile": [profile]})
    alone = sent(gateway, order)
    assert alone.status_code == 201
    assert profile in alone.headers["X-Note"]
    wanted = gateway.client.put(
        f"ServiceRequest/r{number}", json=order, headers={"Prefer": "return=OperationOutcome"}
    ).json()
    assert any(profile in issue["details"]["text"] for issue in wanted["issue"])
    assert {issue["severity"] for issue in wanted["issue"]} == {"information"}
    whole = sent(gateway, bundle("transaction", put(made("patient", number)), put(order))).json()
    assert profile in json.dumps(whole)
    assert profile in gateway.newest()[0].record.reasons


def test_what_a_message_holds_and_is_not_kept_is_told(gateway: WholeService, number: str) -> None:
    header = {"resourceType": "MessageHeader", "id": f"m{number}", "eventCoding": {"code": "order"},
              "source": {"endpoint": "http://sender.example/fhir"}}  # fmt: skip
    account = {"resourceType": "Account", "status": "active"}
    resources = (header, made("patient", number), account, made("request", number))
    entries = [{"fullUrl": f"http://sender.example/fhir/{each['resourceType']}/{each.get('id', '1')}", "resource": each}
               for each in resources]  # fmt: skip
    answer = gateway.client.post("$process-message", json=bundle("message", *entries))
    assert answer.status_code == 200, answer.text
    assert "Account is not kept here" in answer.text
    assert "Bundle.entry[2]" in answer.text


# --- what the edge does with what it is asked -------------------------------------------------------------------------


def test_each_change_of_a_bundle_is_answered_as_preferred(gateway: WholeService, number: str) -> None:
    whole = bundle("transaction", put(made("patient", number)), put(made("request", number)))
    plain = sent(gateway, whole).json()["entry"]
    assert [sorted(each) for each in plain] == [["response"], ["response"]]
    for kind in ("transaction", "batch"):
        headers = {"Prefer": "return=representation"}
        full = gateway.client.post("", json={**whole, "type": kind}, headers=headers).json()["entry"]
        assert [each["resource"]["id"] for each in full] == [f"p{number}", f"r{number}"]
    headers = {"Prefer": "return=OperationOutcome"}
    told = gateway.client.post("", json=whole, headers=headers).json()["entry"]
    assert all(each["response"]["outcome"]["issue"] for each in told)


def test_absolute_references_to_the_called_address_are_to_us(gateway: WholeService, number: str) -> None:
    assert sent(gateway, made("patient", number)).status_code == 201
    before = listed(gateway)
    order = made("request", number, subject={"reference": f"{gateway.url}/r4/Patient/p{number}"})
    assert sent(gateway, order).json()["subject"] == {"reference": f"Patient/p{number}"}
    assert listed(gateway) == before + 1


def test_the_form_of_a_search_names_the_format(gateway: WholeService, number: str) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    xml = gateway.client.post("Patient/_search", content=f"_id=p{number}&_format=xml", headers=form)
    assert xml.headers["Content-Type"].startswith("application/fhir+xml")
    assert xml.text.startswith("<")
    none = gateway.client.post("Patient/_search", content="_format=turtle", headers=form)
    assert none.status_code == 406


def test_an_order_by_identifier_alone_knows_its_patient_when_that_comes(gateway: WholeService, number: str) -> None:
    identifier = made("patient", number)["identifier"][0]
    subject = {"identifier": {key: identifier[key] for key in ("system", "value")}}
    assert sent(gateway, made("request", number, subject=subject)).is_success
    flag = made("flag", number)
    assert sent(gateway, made("patient", number)).is_success
    assert sent(gateway, flag).is_success
    reader = gateway.service.store.reader
    items = [
        item for item in reader.items([step_id for step_id, _ in reader.candidates(Narrowing())])
        if item.attributes["00080050"]["Value"] == [f"A{number}"]
    ]  # fmt: skip
    (item,) = items
    assert item.attributes["00100010"]["Value"] == [{"Alphabetic": "Example^Ada^Maria"}]
    assert item.attributes["00102000"]["Value"] == ["Pacemaker"]
