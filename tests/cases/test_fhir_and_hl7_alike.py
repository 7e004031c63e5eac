"""The same order by HL7 v2 and by FHIR gives the same worklist item, attribute by attribute, and is one order.

What cannot be the same is in `_NOT_ALIKE`, with its reason.
"""

import asyncio
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.config import Site, load_site
from gateway.domain.identifiers import Mint
from gateway.edges.store import Store
from gateway.mapping_files import load_mappings
from gateway.processing import feeds_of, process_message
from gateway.testing import site
from gateway.wire import er7
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_states import IMAGING_CATEGORIES
from gateway.workflow.fhir_feed import OUR_SERVER, FHIRFeed
from tests.cases.fhir_corpus.runner import Desk, all_shown

MAPPINGS = Path(__file__).parents[2] / "mappings"
V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"

_NOT_ALIKE: Mapping[str, str] = {
    "StudyInstanceUID": "made by the gateway where neither says it, from the order as it is held",
    "RequestedProcedureID": "made in the same way; FHIR has no identifier of that type",
    "ScheduledProcedureStepID": "the id of the Task or Appointment, where HL7 v2 sends none",
    "IssuerOfPatientIDQualifiersSequence": "FHIR names the authority by a URI, HL7 v2 by a namespace; the issuer "
    "registry makes them one authority",
    "VisitStatusID": "an Encounter says the state of the visit; of HL7 v2 only ADT does, not an order",
    "TimezoneOffsetFromUTC": "FHIR's times always name their offset, HL7 v2's mostly do not",
}
"""Attributes that may differ, and why."""


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Path]:
    folder = tmp_path_factory.mktemp("alike")
    issuers = [
        {"name": "HOSPA", "fhir": ["http://hospital.example/patients"]},
        {"name": "EHR", "fhir": ["http://hospital.example/orders"]},
        {"name": "RISACC", "fhir": ["http://hospital.example/accessions"]},
        {"name": "VISITS", "fhir": ["http://hospital.example/visits"]},
    ]
    loaded = load_site(site(folder, issuers=issuers))
    Store(loaded.store_url).close()
    return loaded, folder / "gateway.db"


class _Department:
    """A store with both ways in."""

    def __init__(self, loaded: Site, database: Path) -> None:
        self.store = Store(f"sqlite:///{database}", zone="Europe/Berlin")
        mint = Mint(self.store.site_namespace())
        self.hl7 = feeds_of(loaded, mint)["ris"]
        shipped = load_mappings(MAPPINGS, loaded.issuers, []).mappings
        named = {Release.R4: "imaging-order", Release.R5: "imaging-order-r5"}
        self.desk = Desk(self.store, FHIRFeed(
            OUR_SERVER, {release: shipped[name] for release, name in named.items()}, mint, loaded.issuers,
            department=ZoneInfo("Europe/Berlin"), categories=IMAGING_CATEGORIES,
        ))  # fmt: skip

    def send(self, said: str | Mapping[str, Any], release: Release) -> None:
        if isinstance(said, str):
            raw = said.strip().replace("\n", "\r").encode()
            answer = er7.parse(asyncio.run(process_message(self.store, raw, self.hl7, "test")).answer, "utf-8")
            msa = answer.first("MSA")
            assert msa is not None
            assert msa.text(1) == "AA", answer.segments
        else:
            answered = self.desk.send(said, release)
            assert answered.status == 200, answered.told


@pytest.fixture
def departments(department: tuple[Site, Path], tmp_path: Path) -> Iterator[tuple[_Department, _Department]]:
    loaded, empty = department
    made = []
    for name in ("hl7", "fhir"):
        shutil.copy(empty, tmp_path / f"{name}.db")
        made.append(_Department(loaded, tmp_path / f"{name}.db"))
    yield made[0], made[1]
    for each in made:
        each.store.close()


def _bundle(*resources: Mapping[str, Any]) -> Mapping[str, Any]:
    entries = [
        {"resource": each, "request": {"method": "PUT", "url": f"{each['resourceType']}/{each['id']}"}}
        for each in resources
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _identifier(code: str, system: str, value: str) -> Mapping[str, Any]:
    return {"type": {"coding": [{"system": V2_0203, "code": code}]}, "system": f"http://hospital.example/{system}",
            "value": value}  # fmt: skip


_PATIENT: Mapping[str, Any] = {
    "resourceType": "Patient", "id": "1",
    "identifier": [_identifier("MR", "patients", "100")],
    "name": [{"use": "official", "family": "Novak", "given": ["Ana", "Maria"], "prefix": ["Dr."]},
             {"use": "maiden", "family": "Horvat", "given": ["Ana"]}],
    "birthDate": "1975-12-03", "gender": "female",
    "address": [{"use": "home", "line": ["Main Street 1"], "city": "Springfield", "postalCode": "1010",
                 "country": "AT"}],
    "telecom": [{"system": "phone", "value": "+43 1 555 99"}],
    "communication": [{"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "de", "display": "German"}]}}],
}  # fmt: skip
_PID = (
    "PID|||100^^^HOSPA^MR||Novak^Ana^Maria^^Dr.^^L~Horvat^Ana^^^^^M||19751203|F|||Main Street 1^^Springfield^^1010^AT||"
    "+43 1 555 99||de^German^RFC5646"
)
_REQUESTER: Mapping[str, Any] = {
    "resourceType": "Practitioner", "id": "2", "name": [{"family": "Rot", "given": ["Rosa"], "prefix": ["Dr."]}],
}  # fmt: skip
_ENCOUNTER: Mapping[str, Any] = {
    "resourceType": "Encounter", "id": "3", "status": "in-progress", "subject": {"reference": "Patient/1"},
    "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
    "identifier": [_identifier("VN", "visits", "V7")],
    "period": {"start": "2026-07-05T07:00:00+02:00"},
    "reasonCode": [{"coding": [{"system": "http://snomed.info/sct", "code": "25064002", "display": "Headache"}]}],
    "location": [{"status": "active", "location": {"display": "4N 12 A"}}],
}  # fmt: skip
_REQUEST: Mapping[str, Any] = {
    "resourceType": "ServiceRequest", "id": "4", "status": "active", "intent": "order",
    "subject": {"reference": "Patient/1"},
    "identifier": [_identifier("PLAC", "orders", "O1"), _identifier("ACSN", "accessions", "A1")],
    "code": {"coding": [{"system": "http://hospital.example/codes/procedures", "code": "CTHEAD",
                         "display": "CT head"}]},
    "occurrenceDateTime": "2026-07-06T09:30:00+02:00",
}  # fmt: skip

_BARE_OMI = f"""\
MSH|^~\\&|RIS|RADX|GATEWAY|RADX|20260705080000||OMI^O23^OMI_O23|M1|P|2.5.1
{_PID}
ORC|NW|O1^EHR
TQ1|||||||20260706093000
OBR|1|O1^EHR||CTHEAD^CT head^99PROC
IPC|A1^RISACC
"""

_FULL = _bundle(
    _PATIENT, _REQUESTER, _ENCOUNTER,
    {**_REQUEST, "encounter": {"reference": "Encounter/3"}, "requester": {"reference": "Practitioner/2"},
     "priority": "stat", "authoredOn": "2026-07-05T07:30:00+02:00",
     "reasonCode": [{"coding": [{"system": "http://snomed.info/sct", "code": "25064002", "display": "Headache"}]}],
     "note": [{"text": "Fell off a ladder"}]},
    {"resourceType": "Observation", "id": "5", "status": "final", "subject": {"reference": "Patient/1"},
     "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
     "valueQuantity": {"value": 61.5, "unit": "kg", "code": "kg"}},
    {"resourceType": "Observation", "id": "6", "status": "final", "subject": {"reference": "Patient/1"},
     "code": {"coding": [{"system": "http://loinc.org", "code": "8302-2"}]},
     "valueQuantity": {"value": 172, "unit": "cm", "code": "cm"}},
    {"resourceType": "AllergyIntolerance", "id": "7", "patient": {"reference": "Patient/1"},
     "code": {"text": "Iodine contrast"}},
)  # fmt: skip
_FULL_OMI = f"""\
MSH|^~\\&|RIS|RADX|GATEWAY|RADX|20260705080000||OMI^O23^OMI_O23|M1|P|2.5.1
{_PID}
PV1||I|4N^12^A|||||^Rot^Rosa^^^Dr.|||||||||||V7^^^VISITS{"|" * 25}20260705070000
PV2|||25064002^Headache^SCT
AL1|1||^Iodine contrast
ORC|NW|O1^EHR|||||||20260705073000|||^Rot^Rosa^^^Dr.
NTE|1||Fell off a ladder
TQ1|||||||20260706093000||S
OBR|1|O1^EHR||CTHEAD^CT head^99PROC||||||||||||^Rot^Rosa^^^Dr.{"|" * 15}25064002^Headache^SCT
NTE|1||Fell off a ladder
OBX|1|NM|29463-7^Body weight^LN||61.5|kg
OBX|2|NM|8302-2^Body height^LN||172|cm
IPC|A1^RISACC
"""

_TASKS = _bundle(
    _PATIENT,
    {"resourceType": "Device", "id": "8", "deviceName": [{"name": "CT7", "type": "user-friendly-name"}]},
    {**_REQUEST, "identifier": [*_REQUEST["identifier"], {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.4"}]},
    {"resourceType": "Task", "id": "S1", "status": "requested", "intent": "order",
     "basedOn": [{"reference": "ServiceRequest/4"}],
     "owner": {"reference": "Device/8"},
     "restriction": {"period": {"start": "2026-07-06T10:00:00+02:00", "end": "2026-07-06T10:20:00+02:00"}},
     "location": {"display": "Room 7"},
     "input": [{"type": {"text": "Modality"}, "valueCodeableConcept": {"coding": [{"code": "CT"}]}}],
     "code": {"coding": [{"system": "http://hospital.example/codes/protocols", "code": "P-X",
                          "display": "Protocol X"}]}},
)  # fmt: skip
_TASKS_OMI = f"""\
MSH|^~\\&|RIS|RADX|GATEWAY|RADX|20260705080000||OMI^O23^OMI_O23|M1|P|2.5.1
{_PID}
ORC|NW|O1^EHR
TQ1|||||||20260706100000|20260706102000
OBR|1|O1^EHR||CTHEAD^CT head^99PROC
IPC|A1^RISACC||1.2.3.4|S1|CT|P-X^Protocol X^99PROT|CT7|Room 7|CT7
"""

_ORM = f"""\
MSH|^~\\&|RIS|RADX|GATEWAY|RADX|20260705080000||ORM^O01|M1|P|2.3.1
{_PID}
ORC|NW|O1^EHR|||||^^^20260706093000^^S
OBR|1|O1^EHR||CTHEAD^CT head^99PROC||||||||||||||A1^RISACC
"""

PAIRS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "a bare order": (_BARE_OMI, _bundle(_PATIENT, _REQUEST)),
    "an order by ORM": (_ORM, _bundle(_PATIENT, {**_REQUEST, "priority": "stat"})),
    "an order with visit, requester, reason, weight, height and allergies": (_FULL_OMI, _FULL),
    "a step with its own station, time and protocol": (_TASKS_OMI, _TASKS),
}


def _r5(bundle: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same as R5 has it, as far as the pairs need."""
    said = [dict(entry["resource"]) for entry in bundle["entry"]]
    for each in said:
        match each["resourceType"]:
            case "ServiceRequest":
                each["code"] = {"concept": each["code"]}
                if "reasonCode" in each:
                    each["reason"] = [{"concept": reason} for reason in each.pop("reasonCode")]
            case "Encounter":
                each["class"] = [{"coding": [each["class"]]}]
                each["actualPeriod"] = each.pop("period")
                each["reason"] = [{"value": [{"concept": reason} for reason in each.pop("reasonCode")]}]
            case "Task":
                each["requestedPeriod"] = each.pop("restriction")["period"]
                each["requestedPerformer"] = [{"reference": each.pop("owner")}]
            case "Device":  # where R4 has a name that is an AE title, R5 has a type for such names
                kinds = ("user-friendly-name", "registered-name")
                each["name"] = [{"value": name["name"], "type": kind} for name in each.pop("deviceName")
                                for kind in kinds]  # fmt: skip
    return _bundle(*said)


def _items(department: _Department) -> list[dict[str, str]]:
    return [all_shown(item) for item in department.desk.items()]


def _compared(
    departments: tuple[_Department, _Department], hl7: str, fhir: Mapping[str, Any], release: Release
) -> None:
    one, other = departments
    one.send(hl7, release)
    other.send(fhir, release)
    (by_hl7,), (by_fhir,) = _items(one), _items(other)
    keywords = sorted({*by_hl7, *by_fhir} - set(_NOT_ALIKE))
    assert len(keywords) > 15  # so that something is compared
    different = {key: (by_hl7.get(key, ""), by_fhir.get(key, "")) for key in keywords
                 if by_hl7.get(key, "") != by_fhir.get(key, "")}  # fmt: skip
    assert not different


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_order_gives_the_same_item(name: str, departments: tuple[_Department, _Department]) -> None:
    _compared(departments, *PAIRS[name], Release.R4)


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_order_gives_the_same_item_by_r5(name: str, departments: tuple[_Department, _Department]) -> None:
    hl7, fhir = PAIRS[name]
    _compared(departments, hl7, _r5(fhir), Release.R5)


@pytest.mark.parametrize("first", ["hl7", "fhir"])
def test_the_same_order_both_ways_is_one_order(first: str, departments: tuple[_Department, _Department]) -> None:
    both = departments[0]
    said: list[str | Mapping[str, Any]] = [*PAIRS["a bare order"]]
    for each in said if first == "hl7" else reversed(said):
        both.send(each, Release.R4)
    assert len(_items(both)) == 1
