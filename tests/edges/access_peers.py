"""A gateway with a registry of who may do what, and peers that call it from one of the loopback's many addresses."""

import json
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.sop_class import (
    InstanceAvailabilityNotification,
    ModalityPerformedProcedureStep,
    ModalityPerformedProcedureStepRetrieve,
    ModalityWorklistInformationFind,
    Verification,
)
from ruamel.yaml import YAML

from gateway.testing import ServiceProcess, site
from gateway.testing.load import encode_association

OWN, ELSEWHERE = "127.0.0.1", "127.0.0.2"
EVERYTHING = {
    "verification": Verification,
    "worklist": ModalityWorklistInformationFind,
    "mpps": ModalityPerformedProcedureStep,
    "mpps-retrieve": ModalityPerformedProcedureStepRetrieve,
    "availability": InstanceAvailabilityNotification,
}
WAIT_S = 60.0
ABORT = bytes((7, 0, 0, 0, 0, 4, 0, 0, 0, 0))


def secured(folder: Path, entries: list[dict[str, Any]], **settings: Any) -> ServiceProcess:
    """A gateway whose devices.yaml has these entries; nobody else is let in unless the settings say so."""
    folder.mkdir(parents=True, exist_ok=True)
    write_devices(folder, entries)
    devices = {"file": "devices.yaml", "unknown": "reject", **settings.pop("devices", {})}
    return ServiceProcess(site(folder, devices=devices, **settings), ready_s=120)  # many start at once


def write_devices(folder: Path, entries: list[dict[str, Any]]) -> None:
    with (folder / "devices.yaml").open("w") as file:
        YAML().dump({"devices": entries}, file)


@contextmanager
def associated(
    service: ServiceProcess, ae_title: str, *, called: str = "GATEWAY", source: str = OWN, user: str = ""
) -> Iterator[Association]:
    """An association, or the refusal of one, with every SOP class proposed."""
    ae = AE(ae_title)
    for sop_class in EVERYTHING.values():
        ae.add_requested_context(sop_class)
    identity = []
    if user:
        said = UserIdentityNegotiation()
        said.user_identity_type, said.primary_field = 1, user.encode()
        identity = [said]
    association = ae.associate(
        service.host, service.dicom_port, ae_title=called, bind_address=(source, 0), ext_neg=identity or None
    )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def rejection(
    service: ServiceProcess, ae_title: str, *, called: str = "GATEWAY", source: str = OWN, user_item: bytes = b""
) -> tuple[int, int, int] | None:
    """Result, source and reason of the A-ASSOCIATE-RJ; None where it was let in. `user_item` names a user."""
    address = (service.host, service.dicom_port)
    with socket.create_connection(address, timeout=WAIT_S, source_address=(source, 0)) as peer:
        peer.sendall(with_user_item(encode_association(ae_title, called), user_item))
        header = _exactly(peer, 6)
        body = _exactly(peer, int.from_bytes(header[2:], "big"))
        if header[0] == 2:
            peer.sendall(ABORT)
            return None
        assert header[0] == 3
        return body[1], body[2], body[3]


def with_user_item(pdu: bytes, sub_item: bytes) -> bytes:
    """The A-ASSOCIATE-RQ with one more sub-item in its user information, which is its last item."""
    place = pdu.rindex(b"\x50\x00", 0, pdu.index(b"\x51\x00\x00\x04") + 1)
    information = pdu[place + 4 :] + sub_item
    body = pdu[6:place] + b"\x50\x00" + len(information).to_bytes(2, "big") + information
    return b"\x01\x00" + len(body).to_bytes(4, "big") + body


def _exactly(peer: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = peer.recv(length - len(data))
        assert more, "the gateway hung up"
        data += more
    return data


def permitted(association: Association) -> set[str]:
    """What the association may be about, by the words of the registry; the others were refused by the user."""
    assert {context.result for context in association.rejected_contexts} <= {1}
    accepted = {context.abstract_syntax for context in association.accepted_contexts}
    return {word for word, sop_class in EVERYTHING.items() if sop_class in accepted}


def logged(service: ServiceProcess, event: str) -> list[dict[str, Any]]:
    """The lines of the log so far with this event."""
    lines = service.output.read_text().splitlines()
    return [line for line in map(_json, lines) if line.get("event") == event]


def _json(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def until(what: Any, service: ServiceProcess) -> None:
    """Wait for it; the log says why it did not come."""
    end = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < end, service.output.read_text()[-3000:]
        time.sleep(0.02)


def reload(service: ServiceProcess, workers: int = 0) -> None:
    """Have it read its files again, and every worker know of it."""
    before = len(logged(service, "reloaded"))
    os.kill(service.pid, signal.SIGHUP)
    until(lambda: len(logged(service, "reloaded")) >= before + 1 + workers, service)


def metric(service: ServiceProcess, line: str) -> float:
    """The value of this line of the exposition; 0 where it is not there."""
    with urllib.request.urlopen(f"http://{service.host}:{service.http_port}/metrics") as answer:
        for said in answer.read().decode().splitlines():
            if said.startswith(f"{line} "):
                return float(said.rpartition(" ")[2])
    return 0.0
