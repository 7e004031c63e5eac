"""What a device is answered when it reports a performed step, from the request's bytes to the store and back."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from gateway import processing
from gateway.config import Site, load_site
from gateway.device_settings import DevicesFile
from gateway.domain.devices import Device, MPPSAnswers
from gateway.domain.performed import MPPSState, Operation
from gateway.edges.store import Store
from gateway.processing import READ_AT_ONCE_BYTES, report_performed
from gateway.registry import device, directory_of
from gateway.testing import invented_person, site
from gateway.testing.modality import final_state, performed_step
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN, attributes_from_dataset, write_attributes
from gateway.wire.dimse import NAnswer
from gateway.wire.mpps_dataset import read_step
from gateway.workflow.performed_request import PerformRequest, ReadRequest, read_request

UID = "2.25.1"
AT = datetime(2026, 7, 5, 9, 30)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Site, Store]]:
    loaded = load_site(site(tmp_path))
    with Store(loaded.store_url) as store:
        yield loaded, store


def created() -> Dataset:
    person, item, step = invented_person(1), Dataset(), Dataset()
    item.StudyInstanceUID, item.PatientID, item.PatientName = "2.25.100", person.patient_id, person.name
    step.ScheduledProcedureStepID, step.Modality = "S1", "CT"
    item.ScheduledProcedureStepSequence = [step]
    return performed_step(item, "CT1", AT)


def request(dataset: Dataset, uid: str = UID) -> PerformRequest:
    raw = write_attributes(attributes_from_dataset(dataset), EXPLICIT_VR_LITTLE_ENDIAN, ("ISO_IR 192",))
    return PerformRequest(uid, "CT1", EXPLICIT_VR_LITTLE_ENDIAN, raw)


def report(
    place: tuple[Site, Store], operation: Operation, asked: PerformRequest, caller: Device | None = None
) -> NAnswer:
    loaded, store = place
    return asyncio.run(report_performed(store, loaded, operation, asked, caller or Device("CT1")))


def test_a_positive_answer_is_a_status_unless_the_device_wants_the_attributes(place: tuple[Site, Store]) -> None:
    assert report(place, Operation.CREATE, request(created())).dataset is None
    wants = Device("CT1", mpps_answers=MPPSAnswers.DATASET)
    answer = report(place, Operation.CREATE, request(created(), "2.25.2"), wants)
    assert answer.status == 0x0000
    assert answer.dataset is not None
    held = place[1].reader.performed_step("2.25.2")
    assert held is not None
    assert read_step(answer.dataset, EXPLICIT_VR_LITTLE_ENDIAN)[0] == held.attributes
    done = request(final_state("COMPLETED", AT), "2.25.2")
    answer = report(place, Operation.SET, done, wants)
    assert answer.dataset is not None
    shown = read_step(answer.dataset, EXPLICIT_VR_LITTLE_ENDIAN)[0]
    assert shown["00400252"]["Value"] == ["COMPLETED"]
    assert "00100020" not in shown
    repeated = report(place, Operation.SET, done, wants)
    assert (repeated.status, repeated.error_id, repeated.dataset) == (0x0110, 0xA710, None)


def test_the_registry_says_what_a_device_wants() -> None:
    said = {"devices": [{"ae_title": "CT1", "mpps_answers": "dataset"}, {"ae_title": "CT2"}]}
    directory = directory_of(DevicesFile.model_validate(said))
    asked, silent = (device(entry, entry.aes[0]) for entry in directory.devices)
    assert asked.mpps_answers is MPPSAnswers.DATASET
    assert silent.mpps_answers is MPPSAnswers.STATUS


def test_a_refusal_shows_what_is_wrong_whatever_the_device_wants(place: tuple[Site, Store]) -> None:
    bad = created()
    bad.PerformedProcedureStepStatus = "COMPLETED"
    answer = report(place, Operation.CREATE, request(bad))
    assert answer.status == 0x0106
    assert answer.dataset is not None
    assert list(read_step(answer.dataset, EXPLICIT_VR_LITTLE_ENDIAN)[0]) == ["00400252"]


def test_a_strict_device_is_refused_what_others_are_forgiven(place: tuple[Site, Store]) -> None:
    assert report(place, Operation.CREATE, request(created())).status == 0x0000
    end = Dataset()
    end.PerformedProcedureStepStatus = "COMPLETED"
    assert report(place, Operation.SET, request(end), Device("CT1", mpps_strict=True)).status == 0x0121
    assert report(place, Operation.SET, request(end)).status == 0x0000


def test_a_large_dataset_is_read_outside_the_loop_and_stored(place: tuple[Site, Store]) -> None:
    report(place, Operation.CREATE, request(created()))
    end = final_state("COMPLETED", AT)
    end.PerformedSeriesSequence = [end.PerformedSeriesSequence[0] for _ in range(200)]
    asked = request(end)
    assert len(asked.raw) > READ_AT_ONCE_BYTES
    assert report(place, Operation.SET, asked).status == 0x0000
    held = place[1].reader.performed_step(UID)
    assert held is not None
    assert (held.state, len(held.attributes["00400340"]["Value"])) == (MPPSState.COMPLETED, 200)


def test_a_usual_dataset_is_read_by_the_writer_so_that_no_query_waits_for_it(
    place: tuple[Site, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[str] = []

    def noted(operation: Operation, asked: PerformRequest) -> ReadRequest:
        readers.append(threading.current_thread().name)
        return read_request(operation, asked)

    monkeypatch.setattr(processing, "read_request", noted)
    assert report(place, Operation.CREATE, request(created())).status == 0x0000
    assert report(place, Operation.SET, request(final_state("COMPLETED", AT))).status == 0x0000
    assert readers == ["store-writer", "store-writer"]


def test_a_request_that_we_fail_to_read_is_kept_and_harms_no_other(
    place: tuple[Site, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(operation: Operation, asked: PerformRequest) -> ReadRequest:
        raise RuntimeError("a defect of ours")

    asked = request(created())
    with monkeypatch.context() as defective:
        defective.setattr(processing, "read_request", fail)
        assert report(place, Operation.CREATE, asked).status == 0x0110
    assert place[1].reader.performed_step(UID) is None
    (kept,) = place[1].reader.performed_requests(UID)
    assert (kept.raw, kept.status) == (asked.raw, 0x0110)
    assert report(place, Operation.CREATE, asked).status == 0x0000


def test_a_modality_that_left_before_its_answer_goes_on_where_it_was(place: tuple[Site, Store]) -> None:
    """An association aborted between request and answer: what was stored stays, and a repeat says so."""
    loaded, store = place

    async def leave() -> None:
        asking = asyncio.create_task(
            report_performed(store, loaded, Operation.CREATE, request(created()), Device("CT1"))
        )
        await asyncio.sleep(0)  # it has asked, and waits
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    asyncio.run(leave())
    first = report(place, Operation.CREATE, request(created()))
    assert first.status in (0x0000, 0x0111)
    assert report(place, Operation.CREATE, request(created())).status == 0x0111
    assert report(place, Operation.SET, request(final_state("COMPLETED", AT))).status == 0x0000
    held = store.reader.performed_step(UID)
    assert held is not None
    assert held.state is MPPSState.COMPLETED
