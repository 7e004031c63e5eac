"""Every row of the table of what was performed, by value: said by a modality, read where the row says, in each release.

N-CREATE and N-SET come as bytes, are kept and taken effect of, and what our own FHIR server then holds is read by the
paths of the row itself, so the table and this cannot part.
"""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import fhirpathpy
import pytest
from fhir_values import CASES, CREATED, ENDED, OTHER_STUDY, SCHEMES, STUDY, UID, Road

from gateway.domain.identifiers import Identifier, Issuers
from gateway.domain.order import Order, Procedure, Step
from gateway.domain.patient import Patient
from gateway.domain.performed import Operation
from gateway.domain.performed_table import BY_TAG
from gateway.domain.resources import OrderPart, Resource, ResourceKey
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store, StoreUnit
from gateway.testing.fhir_validity import check
from gateway.wire import fhir_json
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN, write_attributes
from gateway.wire.fhir_performed_table import CARRIED, OURS, Carried
from gateway.wire.fhir_release import Release
from gateway.workflow.audience import Audience, FHIRWriting
from gateway.workflow.fhir_server import keep
from gateway.workflow.linking import PatientIssuers
from gateway.workflow.perform import PerformAnswer, create_step, set_step
from gateway.workflow.performed_request import PerformRequest, read_request
from gateway.workflow.telling import tell_progress
from tests.wire.performed_sample import attributes

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
SYSTEMS = {
    "CLINIC": "https://clinic.example/patients", "RIS": "https://ris.example/numbers", "HOSPITAL": "urn:oid:1.2.3",
}  # fmt: skip
ROWS = (*CARRIED, *OURS)


def test_every_row_has_a_road_for_each_of_its_places_and_no_road_is_of_another() -> None:
    assert set(CASES) == {row.attribute for row in ROWS}
    for row in ROWS:
        reached = {place for road in CASES[row.attribute] for place in road.told}
        assert reached == {-1} or reached == set(range(len(row.places))), row.attribute
        for road in CASES[row.attribute]:
            assert bool(road.nowhere) == (not row.places), row.attribute
            assert not road.nowhere or road.nowhere in json.dumps([road.said, CREATED])


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty database: making one is most of the work."""
    file = tmp_path_factory.mktemp("empty") / "gateway.db"
    Store(f"sqlite:///{file}").close()
    return file


class Department:
    """An order of two procedures, each of one step and one ServiceRequest, and what modalities make of it."""

    def __init__(self, store: Store, release: Release, road: Road) -> None:
        self.store, self.release, self.road = store, release, road
        writing = FHIRWriting(release, SYSTEMS, gateway="GATEWAY", schemes=SCHEMES)
        self.audience = Audience(offered=writing)
        self.order = store.write(self._ordered).result()
        if road.by_fhir:
            store.write(self._held).result()

    def _ordered(self, unit: StoreUnit) -> Order:
        number, issuer = self.road.patient
        patient = unit.save_patient(Patient(None, (Identifier(number, issuer),), {}), AT)
        procedures = tuple(
            Procedure(None, study, f"RP{n}", None, {}, (Step(None, f"SPS{n}", SPSStatus.SCHEDULED, {}),))
            for n, study in enumerate((STUDY, OTHER_STUDY), 1)
        )
        return unit.save_order(Order(None, patient, None, Identifier("PL1", "EHR"), None, {}, procedures), "x", AT)

    def _held(self, unit: StoreUnit) -> None:
        intent = {"status": "active", "intent": "order", "subject": {"reference": "Patient/p"}}
        participant = [{"status": "accepted", "actor": {"reference": "Patient/p"}}]
        resources: list[tuple[Resource, str, str]] = [
            ({"resourceType": "ServiceRequest", "id": "sr1", **intent}, "RP1", ""),
            ({"resourceType": "ServiceRequest", "id": "sr2", **intent}, "RP2", ""),
            ({"resourceType": "Task", "id": "t1", "status": "ready", "intent": "order"}, "RP1", "SPS1"),
            ({"resourceType": "Appointment", "id": "a1", "status": "booked", "participant": participant}, "RP1",
             "SPS1"),
        ]  # fmt: skip
        parts = []
        for content, procedure, sps_id in resources:
            key = ResourceKey(self.release.base, content["resourceType"], content["id"])
            keep(unit, key, content, self.release, AT)
            parts.append(OrderPart(self.order.id or 0, key, procedure, sps_id))
        unit.set_order_parts(self.order.id or 0, parts)

    def report(self) -> None:
        """What the modality says on this road, and where it says so what the order comes to behind it."""
        created, ended = {**CREATED, "PatientID": self.road.patient[0]}, dict(ENDED)
        for name, value in self.road.said.items():
            (tag,) = attributes({name: value if value is not None else ""})
            is_set = tag in BY_TAG and BY_TAG[tag].settable and name != "SpecificCharacterSet"
            (ended if is_set else created)[name] = value
        self._say(Operation.CREATE, created, AT)
        running = self.road.state == "IN PROGRESS"
        self._say(
            Operation.SET, {**ended, "PerformedProcedureStepStatus": self.road.state},
            AT + timedelta(minutes=1),
        )  # fmt: skip
        if self.road.cancelled and not running:
            self.store.write(self._cancelled).result()

    def _say(self, operation: Operation, said: dict[str, Any], at: datetime) -> None:
        held = attributes({name: value for name, value in said.items() if value is not None})
        raw = write_attributes(held, EXPLICIT_VR_LITTLE_ENDIAN, ("ISO_IR 192",))
        request = read_request(operation, PerformRequest(UID, "CALLER", EXPLICIT_VR_LITTLE_ENDIAN, raw))

        def use_case(unit: StoreUnit) -> PerformAnswer:
            if operation is Operation.CREATE:
                issuers = PatientIssuers(Issuers(), "HOSPITAL")
                return create_step(unit, request, at, issuers=issuers, audience=self.audience, zone=BERLIN)
            return set_step(unit, request, at, audience=self.audience, zone=BERLIN)

        answer = self.store.write(use_case).result()
        assert answer.performed is not None, answer.refusals
        assert answer.performed.steps, answer.notes
        assert not answer.performed.quarantined

    def _cancelled(self, unit: StoreUnit) -> None:
        at = AT + timedelta(minutes=2)
        steps = [step.id or 0 for each in self.order.procedures[:1] for step in each.steps]
        unit.set_step_status(steps[0], SPSStatus.CANCELED, "x", at)
        tell_progress(
            unit, self.audience, self.order.id or 0, {steps[0]: SPSStatus.SCHEDULED}, at.astimezone(BERLIN), "x"
        )

    def held(self) -> dict[str, Resource]:
        """What our server holds of the first procedure by now, by type; of Provenance the one of the last N-SET."""
        found: dict[str, Resource] = {}
        for kind in ("Procedure", "ImagingStudy", "Observation", "Provenance", "ServiceRequest", "Task", "Appointment"):
            several = self.store.reader.find_resources(self.release.base, kind)
            mine = [each.content for each in several if each.key.id != "sr2"]
            mine.sort(key=lambda each: ("entity" in each, str(each.get("recorded", ""))))
            if mine:
                found[kind] = json.loads(fhir_json.write(mine[-1]))
        return found


@pytest.fixture
def database(tmp_path: Path, empty: Path) -> Path:
    return Path(shutil.copy(empty, tmp_path / "gateway.db"))


_ROADS = [
    pytest.param(row, road, id=f"{row.attribute}-{number}" if number else row.attribute)
    for row in ROWS
    for number, road in enumerate(CASES.get(row.attribute, ()))
]


@pytest.mark.parametrize("release", list(Release), ids=str)
@pytest.mark.parametrize(("row", "road"), _ROADS)
def test_what_the_modality_says_is_where_the_row_says(
    row: Carried, road: Road, release: Release, database: Path
) -> None:
    with Store(f"sqlite:///{database}", zone="Europe/Berlin") as store:
        department = Department(store, release, road)
        department.report()
        held = department.held()
    for kind in ("Procedure", "ImagingStudy", "Observation", "Provenance"):
        check(held[kind], release)
    if road.nowhere:
        made = {kind: held[kind] for kind in ("Procedure", "ImagingStudy", "Observation", "Provenance")}
        assert road.nowhere not in json.dumps(made), row.why
    for number, place in enumerate(row.places):
        if -1 in road.told or number in road.told:
            path = place.of(release)
            kind = path.partition(".")[0]
            found = fhirpathpy.evaluate(held.get(kind, {}), path, {})
            assert found == list(road.told.get(number, road.told.get(-1, ()))), path
