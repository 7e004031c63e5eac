"""`$validate` rehearses: it says what sending would do, in the words of the refusal or of the worklist, and does not.

Each rehearsal is compared with all rows of the store before it, and most of them with what sending then does.
"""

import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from typing import Any, NamedTuple

import httpx
import pytest

from gateway.domain.attributes import text
from gateway.domain.scopes import scopes
from gateway.edges.database import StoreUnavailable
from gateway.edges.fhir_door import Authorised, Door
from gateway.testing import ImagingOrder, invented_person
from gateway.wire import fhir_xml
from gateway.wire.fhir_release import Release
from gateway.workflow import fhir_rehearsal
from tests.edges.fhir_whole import WholeService, issues
from tests.fhir_department import ISSUERS, patient, request, task, transaction

Resource = dict[str, Any]
START = datetime(2026, 12, 1, 9, 30)
WHEN = "2026-12-01 09:30"
_numbers = count(1)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeService]:
    with WholeService(tmp_path_factory.mktemp("site"), fhir={}, issuers=ISSUERS) as running:
        yield running


@pytest.fixture(scope="module")
def holding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeService]:
    """Orders without a procedure rule are held here."""
    with WholeService(tmp_path_factory.mktemp("site"), fhir={"uncovered": "hold"}, issuers=ISSUERS) as running:
        yield running


@pytest.fixture
def order() -> ImagingOrder:
    """One that nobody has ordered yet, for a patient of its own."""
    number = next(_numbers)
    return ImagingOrder(number, invented_person(number), START)


def rows(service: WholeService) -> dict[str, list[Any]]:
    """Every row of every table, and the numbers that are given out."""
    with sqlite3.connect(service.config.with_name("gateway.db")) as connection:
        named = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        return {name: connection.execute(f"select * from {name}").fetchall() for name in sorted(named)}


def rehearsed(service: WholeService, address: str, body: Any = None, **headers: str) -> httpx.Response:
    """The answer, after which everything is as it was before."""
    before = rows(service)
    answer = service.client.post(address, json=body, headers=headers)
    assert rows(service) == before
    return answer


def told(answer: httpx.Response) -> str:
    """What an outcome without errors tells."""
    assert answer.status_code == 200, answer.text
    found = answer.json()["issue"]
    assert {each["severity"] for each in found} == {"information"}, answer.text
    return "\n".join(each["details"]["text"] for each in found)


def put(service: WholeService, *resources: Resource) -> httpx.Response:
    answer = service.client.post("", json=transaction(*resources))
    assert answer.status_code == 200, answer.text
    return answer


def parameters(mode: str, resource: Resource | None = None) -> Resource:
    said: list[Resource] = [{"name": "mode", "valueCode": mode}]
    if resource is not None:
        said.append({"name": "resource", "resource": resource})
    return {"resourceType": "Parameters", "parameter": said}


def without(resource: Resource, *names: str) -> Resource:
    return {name: value for name, value in resource.items() if name not in names}


# --- what would be done -----------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """`held` is sent before; the order's resources are under their names in the words. `{o}` is the order."""

    held: str
    address: str
    body: str
    says: tuple[str, ...]
    never: tuple[str, ...] = ()


_MADE = ("a worklist item would be made: order {p}, step", "station CT1", f"start {WHEN}, SCHEDULED")
_NEW = ("a ServiceRequest would be created",)
_NO_ITEM = "no worklist item would be made or changed"
CASES = {
    "a new order": Case("patient", "ServiceRequest/$validate", "request", (*_NEW, *_MADE)),
    "at the base": Case("patient", "$validate", "request", (*_NEW, *_MADE)),
    "an order with an id": Case(
        "patient", "ServiceRequest/{o}/$validate", "request", ("ServiceRequest/{o} would be created", *_MADE)
    ),
    "in Parameters": Case("patient", "ServiceRequest/$validate", "create", (*_NEW, *_MADE)),
    "by the mode of the address": Case(
        "patient", "ServiceRequest/$validate?mode=update", "request", ("ServiceRequest/{o} would be created", *_MADE)
    ),
    "before its patient": Case(
        "", "ServiceRequest/{o}/$validate", "request", ("waits for Patient/{pat}", _NO_ITEM), ("would be made:",)
    ),
    "a draft": Case("patient", "ServiceRequest/{o}/$validate", "draft", ("draft", _NO_ITEM), ("would be made:",)),
    "said again": Case(
        "whole", "ServiceRequest/{o}/$validate", "request", ("says the same already: nothing would change",)
    ),
    "moved": Case(
        "whole", "ServiceRequest/{o}/$validate", "named",
        ("ServiceRequest/{o} would be updated to version 2", "a worklist item would change: order {p}",
         "in RequestedProcedureDescription"),
    ),
    "revoked": Case(
        "whole", "ServiceRequest/{o}/$validate", "revoked",
        ("would change: order {p}, step {s}", "CANCELED instead of SCHEDULED, which no device is shown"),
    ),
    "deleted": Case("whole", "Task/{t}/$validate?mode=delete", "", ("Task/{t} would be deleted",)),
    "deleted by Parameters": Case("whole", "Task/{t}/$validate", "delete", ("Task/{t} would be deleted",)),
    "deleted though it is not there": Case(
        "", "Task/{t}/$validate?mode=delete", "", ("Task/{t} is not held: nothing to delete",)
    ),
    "a patient with orders": Case(
        "whole", "Patient/{pat}/$validate", "renamed",
        ("Patient/{pat} would be updated to version 2", "1 worklist item of orders that are held already would show"),
        ("{p}",),
    ),
    "a transaction": Case(
        "", "$validate", "bundle",
        ("Bundle.entry[0]: Patient/{pat} would be created", "Bundle.entry[1]: ServiceRequest/{o} would be created",
         "order {p}, step {s}, station CT1"),
    ),
    "a transaction in Parameters": Case("", "$validate", "bundled", ("Bundle.entry[2]: Task/{t} would be created",)),
    "a batch": Case(
        "patient", "$validate", "batch",
        ("Bundle.entry[0]: Patient/{pat} says the same already", "Bundle.entry[1]: ServiceRequest/{o} would be"),
    ),
    "a batch of a patient and an order": Case(
        "", "$validate", "batch",
        ("Bundle.entry[0]: Patient/{pat} would be created", "Bundle.entry[1]: ServiceRequest/{o} would be created",
         *_MADE),
        ("waits for",),
    ),
    "a profile alone": Case("", "ServiceRequest/$validate?mode=profile", "request", ("nothing is wrong with it",)),
    "a profile that nobody knows": Case(
        "patient", "ServiceRequest/$validate?profile=http://sample.example/p", "request",
        ("profiles are not known here", *_MADE),
    ),
}  # fmt: skip


def bodies(order: ImagingOrder) -> dict[str, Resource | None]:
    whole = transaction(patient(order.person), request(order), task(order))
    return {
        "": None,
        "request": request(order),
        "draft": request(order, status="draft"),
        "named": request(order, code={**request(order)["code"], "text": "CT head, twice"}),
        "revoked": request(order, status="revoked"),
        "renamed": patient(order.person, name=[{"family": "Sample", "given": ["Otto"]}]),
        "create": parameters("create", without(request(order), "id")),
        "delete": parameters("delete"),
        "bundle": whole,
        "bundled": parameters("create", whole),
        "batch": {**transaction(patient(order.person), request(order)), "type": "batch"},
    }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_says_what_would_be_done(service: WholeService, order: ImagingOrder, case: Case) -> None:
    named = {"o": f"o{order.number}", "t": f"t{order.number}", "p": order.placer, "s": order.sps_id,
             "pat": order.person.patient_id}  # fmt: skip
    if case.held:
        others = (request(order), task(order)) if case.held == "whole" else ()
        put(service, patient(order.person), *others)
    said = told(rehearsed(service, case.address.format(**named), bodies(order)[case.body]))
    for each in case.says:
        assert each.format(**named) in said
    for each in case.never:
        assert each.format(**named) not in said


@pytest.mark.parametrize("release", Release, ids=lambda each: each.base)
@pytest.mark.parametrize("form", ["json", "xml"])
def test_every_release_and_format_rehearses(
    service: WholeService, order: ImagingOrder, release: Release, form: str
) -> None:
    said = request(order)
    if release is Release.R5:
        said["code"] = {"concept": said["code"]}
    bundle = transaction(patient(order.person), said)
    before = rows(service)
    content = fhir_xml.write(bundle, release) if form == "xml" else httpx.Request("POST", "/", json=bundle).content
    kind = f"application/fhir+{form}"
    answer = service.client.post(
        f"{service.url}/{release.base}/$validate", content=content,
        headers={"Content-Type": kind, "Accept": "application/fhir+json"},
    )  # fmt: skip
    assert rows(service) == before
    assert f"order {order.placer}, step" in told(answer)
    shown = service.client.post(
        f"{service.url}/{release.base}/$validate", content=content, headers={"Content-Type": kind, "Accept": kind}
    )
    assert shown.headers["content-type"].startswith(kind)
    assert "a worklist item would be made" in shown.text


def test_what_is_rehearsed_is_what_sending_does(service: WholeService, order: ImagingOrder) -> None:
    bundle = transaction(patient(order.person), request(order), task(order))
    said = told(rehearsed(service, "$validate", bundle))
    assert told(rehearsed(service, "Bundle/$validate", bundle)) == said
    put(service, patient(order.person), request(order), task(order))
    (item,) = service.service.store.reader.item_of(order.accession)
    assert item.status == "SCHEDULED"
    assert f"order {order.placer}, step {text(item.step, 'ScheduledProcedureStepID')}, station CT1" in said
    again = told(rehearsed(service, "$validate", bundle))
    assert again.count("says the same already") == 3
    assert _NO_ITEM in again


def test_an_order_without_a_rule_is_said_to_be_held(holding: WholeService, order: ImagingOrder) -> None:
    put(holding, patient(order.person))
    unknown = request(order, code={"coding": [{"system": "http://sample.example", "code": "NECK"}]})
    said = told(rehearsed(holding, "ServiceRequest/$validate", unknown))
    assert "held: no procedure rule covers this order yet" in said
    assert _NO_ITEM in said


def test_ids_that_would_be_made_are_not_told(service: WholeService, order: ImagingOrder) -> None:
    said = told(rehearsed(service, "ServiceRequest/$validate", without(request(order), "id")))
    assert "ServiceRequest/" not in said
    assert f"waits for Patient/{order.person.patient_id}" in said


# --- what would be refused --------------------------------------------------------------------------------------------


WRONG: dict[str, tuple[str, str, Any, str, str]] = {
    # address, what is sent with it, code, expression
    "a code": ("ServiceRequest/$validate", "", {"status": "busy"}, "code-invalid", "ServiceRequest.status"),
    "no procedure rule": (
        "ServiceRequest/$validate", "", {"code": {"coding": [{"code": "NECK"}]}}, "business-rule", "ServiceRequest"
    ),
    "another id": ("ServiceRequest/other/$validate", "", {}, "structure", "ServiceRequest.id"),
    "a resource of another type": ("Patient/$validate", "", {}, "value", "resourceType"),
    "no such mode": ("ServiceRequest/$validate?mode=guess", "", {}, "code-invalid", "mode"),
    "a create at an address": ("ServiceRequest/x1/$validate?mode=create", "", {"id": "x1"}, "invalid", "mode"),
    "an update of nothing": (
        "ServiceRequest/$validate?mode=update", "", {"id": None}, "required", "ServiceRequest"
    ),
    "a version that is not held": ("ServiceRequest/{o}/$validate", 'W/"7"', {}, "conflict", "ServiceRequest"),
    "a modifier that nobody knows": (
        "ServiceRequest/$validate", "", {"modifierExtension": [{"url": "http://sample.example/m", "valueCode": "x"}]},
        "extension", "ServiceRequest.modifierExtension[0]",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("address", "version", "said", "code", "where"), WRONG.values(), ids=WRONG)
def test_it_refuses_as_sending_would(
    service: WholeService, order: ImagingOrder, address: str, version: str, said: Any, code: str, where: str
) -> None:
    put(service, patient(order.person))
    body = {name: value for name, value in {**request(order), **said}.items() if value is not None}
    headers = {"If-Match": version} if version else {}
    answer = rehearsed(service, address.format(o=body.get("id")), body, **headers)
    assert answer.status_code == 200
    assert (code, where) in issues(answer)
    found = [each for each in answer.json()["issue"] if each.get("expression") == [where]]
    assert all(each["diagnostics"] for each in found)


@pytest.mark.parametrize("wrong", [{"status": "busy"}, {"code": {"coding": [{"code": "NECK"}]}}])
def test_errors_are_those_of_the_refusal_word_for_word(
    service: WholeService, order: ImagingOrder, wrong: Resource
) -> None:
    put(service, patient(order.person))
    body = request(order, **wrong)
    rehearsal = rehearsed(service, f"ServiceRequest/{body['id']}/$validate", body)
    refusal = service.client.put(f"ServiceRequest/{body['id']}", json=body)
    assert refusal.status_code == 422
    assert rehearsal.json() == refusal.json()
    bundle = transaction(patient(order.person), body)
    assert rehearsed(service, "$validate", bundle).json() == service.client.post("", json=bundle).json()


def test_entries_of_a_batch_are_refused_by_themselves(service: WholeService, order: ImagingOrder) -> None:
    uncovered = request(order, code={"coding": [{"code": "NECK"}]})
    entries = (patient(order.person), request(order, status="busy"), uncovered)
    batch = {**transaction(*entries), "type": "batch"}
    put(service, patient(order.person))
    answer = rehearsed(service, "$validate", batch)
    assert set(issues(answer)) == {
        ("business-rule", "Bundle.entry[2].resource"), ("code-invalid", "Bundle.entry[1].resource.status"),
    }  # fmt: skip
    assert "Bundle.entry[0]: Patient/" in answer.text


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (parameters("create"), "Parameters.parameter"),
        ({"resourceType": "Bundle", "type": "collection"}, "Bundle.type"),
        ({"resourceType": "Medication"}, ""),
        (parameters("guess", {"resourceType": "Patient"}), "mode"),
    ],
)
def test_what_cannot_be_sent_cannot_be_rehearsed(service: WholeService, body: Resource, where: str) -> None:
    answer = rehearsed(service, "$validate", body)
    assert answer.status_code == 200
    assert [each for _, each in issues(answer)] == [where]


def test_a_message_that_was_answered_is_said_to_be_a_repeat(service: WholeService, order: ImagingOrder) -> None:
    header = {
        "resourceType": "MessageHeader", "id": f"m{order.number}", "eventCoding": {"system": "urn:x", "code": "order"},
        "source": {"endpoint": "http://sample.example"},
    }  # fmt: skip
    message = {
        "resourceType": "Bundle", "type": "message",
        "entry": [{"fullUrl": f"http://sample.example/{each['resourceType']}/{each['id']}", "resource": each}
                  for each in (header, patient(order.person), request(order))],
    }  # fmt: skip
    assert f"order {order.placer}, step" in told(rehearsed(service, "$validate", message))
    done = service.client.post("$process-message", json=message)
    assert done.status_code == 200, done.text
    assert "answered before" in told(rehearsed(service, "$validate", message))


# --- who may ask, and what of it --------------------------------------------------------------------------------------


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whoever calls has these scopes from now on."""
    return lambda said: monkeypatch.setattr(Door, "admit", lambda *_: Authorised("ehr", scopes(said)))


@pytest.mark.parametrize(
    ("granted", "address", "body", "status"),
    [
        ("system/ServiceRequest.rs", "ServiceRequest/$validate", "request", 403),
        ("system/ServiceRequest.rs", "$validate", "request", 403),
        ("system/ServiceRequest.c", "ServiceRequest/$validate", "request", 200),
        ("system/ServiceRequest.c", "ServiceRequest/{o}/$validate", "request", 403),
        ("system/ServiceRequest.u", "ServiceRequest/{o}/$validate", "request", 200),
        ("system/ServiceRequest.c", "ServiceRequest/$validate?mode=update", "request", 403),
        ("system/ServiceRequest.cu", "ServiceRequest/{o}/$validate?mode=delete", "", 403),
        ("system/ServiceRequest.d", "ServiceRequest/{o}/$validate?mode=delete", "", 200),
        ("system/ServiceRequest.u", "$validate", "bundle", 403),
        ("system/ServiceRequest.u system/Patient.u system/Task.u", "$validate", "bundle", 200),
        ("system/Patient.cruds", "ServiceRequest/$validate?mode=profile", "request", 403),
        ("system/ServiceRequest.r", "ServiceRequest/$validate?mode=profile", "request", 200),
    ],
)
def test_what_may_not_be_done_may_not_be_rehearsed(
    service: WholeService, order: ImagingOrder, allowed: Any, granted: str, address: str, body: str, status: int
) -> None:
    allowed(granted)
    answer = rehearsed(service, address.format(o=f"o{order.number}"), bodies(order)[body])
    assert answer.status_code == status, answer.text


def test_of_a_batch_what_is_permitted_is_rehearsed(service: WholeService, order: ImagingOrder, allowed: Any) -> None:
    put(service, patient(order.person))
    allowed("system/ServiceRequest.cu")
    answer = rehearsed(service, "$validate", bodies(order)["batch"])
    assert issues(answer) == [("forbidden", "Bundle.entry[0]")]
    assert f"order {order.placer}" in answer.text


def test_conditions_need_the_scope_of_a_search(service: WholeService, order: ImagingOrder, allowed: Any) -> None:
    put(service, patient(order.person))
    allowed("system/ServiceRequest.cu system/Patient.c")
    named = f"Patient?identifier={order.person.patient_id}"
    by_search = request(order, subject={"reference": named})
    assert issues(rehearsed(service, "$validate", by_search))[0][0] == "forbidden"
    answer = rehearsed(service, "Patient/$validate", patient(order.person),
                       **{"If-None-Exist": named.partition("?")[2]})  # fmt: skip
    assert issues(answer)[0][0] == "forbidden"


def test_what_is_held_is_told_to_nobody_who_may_not_read_it(
    service: WholeService, order: ImagingOrder, allowed: Any
) -> None:
    put(service, patient(order.person), request(order), task(order))
    allowed("system/ServiceRequest.u")
    moved = request(order, occurrenceDateTime=(START + timedelta(days=1)).isoformat() + "+01:00", status="revoked")
    said = told(rehearsed(service, f"ServiceRequest/{moved['id']}/$validate", moved))
    assert "1 worklist item of what is held already would change" in said
    for secret in ("CT1", WHEN, order.sps_id, "SCHEDULED"):
        assert secret not in said


def test_orders_of_others_are_counted_and_not_named(service: WholeService, order: ImagingOrder) -> None:
    """A practitioner stands in the orders of many patients."""
    doctor = {"resourceType": "Practitioner", "id": f"d{order.number}", "name": [{"family": "Asker"}]}
    number = next(_numbers)
    other = ImagingOrder(number, invented_person(number), START)
    asked = {"requester": {"reference": f"Practitioner/d{order.number}"}}
    put(service, doctor, patient(order.person), request(order, **asked), patient(other.person), request(other, **asked))
    said = told(rehearsed(
        service, f"Practitioner/{doctor['id']}/$validate", {**doctor, "name": [{"family": "Renamed"}]}
    ))  # fmt: skip
    assert "2 worklist items of orders that are held already would show what changes" in said
    for secret in (order.placer, other.placer, "CT1", WHEN, order.person.patient_id):
        assert secret not in said


# --- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trouble", "status"), [(StoreUnavailable("away"), 503), (RuntimeError("Sample^Ann"), 500)])
def test_what_cannot_be_said_is_no_good_answer(
    service: WholeService, order: ImagingOrder, monkeypatch: pytest.MonkeyPatch, trouble: Exception, status: int
) -> None:
    def fails(*_: Any) -> None:
        raise trouble

    monkeypatch.setattr(fhir_rehearsal.fhir_intake, "receive", fails)
    answer = rehearsed(service, "ServiceRequest/$validate", request(order))
    assert answer.status_code == status
    assert "Sample" not in answer.text


def test_rehearsals_beside_changes_leave_them_alone(service: WholeService, order: ImagingOrder) -> None:
    """What is committed together with a rehearsal stays, and only that."""
    store = service.service.store
    before = len(rows(service)["feed_marks"])

    def marks(name: str) -> Any:
        return lambda unit: unit.set_feed_mark(name, "x")

    jobs = [store.write(marks(f"a{order.number}")), store.rehearse(marks(f"b{order.number}")),
            store.write(marks(f"c{order.number}"))]  # fmt: skip
    for job in jobs:
        job.result(60)
    held = [each[0] for each in rows(service)["feed_marks"]]
    assert len(held) == before + 2
    assert f"b{order.number}" not in held
