"""Performed steps as modalities send them, over a real store: what they name, begin and end."""

from typing import Any

from people import AT

from gateway.domain.identifiers import Issuers
from gateway.domain.performed import Operation, PerformedStep
from gateway.edges.store import StoreUnit
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN, write_attributes
from gateway.workflow.audience import NOBODY, Audience
from gateway.workflow.linking import PatientIssuers
from gateway.workflow.perform import create_step, set_step
from gateway.workflow.performed_request import PerformRequest, ReadRequest, read_request

ISSUERS = PatientIssuers(Issuers(), "HOSPITAL")


def valued(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def named(study: str, accession: str = "", sps_id: str = "", procedure: str = "") -> dict[str, Any]:
    """An item of the Scheduled Step Attributes Sequence."""
    return {
        "0020000D": valued("UI", study), "00080050": valued("SH", *filter(None, [accession])),
        "00401001": valued("SH", *filter(None, [procedure])), "00400009": valued("SH", *filter(None, [sps_id])),
    }  # fmt: skip


def begun(unit: StoreUnit, uid: str, *items: dict[str, Any], patient: str = "P1", **more: Any) -> PerformedStep:
    """An N-CREATE of station CT1; `more` are attributes by `t` and the tag."""
    said = {
        "00400270": valued("SQ", *items), "00100010": valued("PN", {"Alphabetic": "Doe^Jane"}),
        "00100020": valued("LO", *filter(None, [patient])), "00400253": valued("SH", "PPS1"),
        "00400241": valued("AE", "CT1"), "00400244": valued("DA", "20260705"), "00400245": valued("TM", "094500"),
        "00400252": valued("CS", "IN PROGRESS"), "00080060": valued("CS", "CT"),
        "00400254": valued("LO", "Head native"),
        **{tag.removeprefix("t"): value for tag, value in more.items()},
    }  # fmt: skip
    answer = create_step(unit, _request(Operation.CREATE, uid, said), AT, issuers=ISSUERS)
    assert answer.performed is not None, answer.refusals
    return answer.performed


def ended(
    unit: StoreUnit, uid: str, status: str = "COMPLETED", reason: str = "", audience: Audience = NOBODY
) -> PerformedStep:  # fmt: skip
    """Its last N-SET."""
    said = {
        "00400252": valued("CS", status), "00400250": valued("DA", "20260705"), "00400251": valued("TM", "101500"),
        "00400340": valued("SQ"),
    }  # fmt: skip
    if reason:
        code = {"00080100": valued("SH", reason), "00080102": valued("SH", "DCM"), "00080104": valued("LO", "why")}
        said["00400281"] = valued("SQ", code)
    answer = set_step(unit, _request(Operation.SET, uid, said), AT, audience=audience)
    assert answer.performed is not None, answer.refusals
    return answer.performed


def _request(operation: Operation, uid: str, said: dict[str, Any]) -> ReadRequest:
    raw = write_attributes(said, EXPLICIT_VR_LITTLE_ENDIAN, ())
    return read_request(operation, PerformRequest(uid, "CT1", EXPLICIT_VR_LITTLE_ENDIAN, raw))
