"""Whether a peer can be reached, and if not, how far one gets: name, TCP, TLS, association, answer.

DICOM peers are asked by C-ECHO. To HL7 peers a connection is opened and closed: a message would be taken for one.
"""

import contextlib
import socket
import time
from dataclasses import dataclass
from enum import StrEnum

from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from gateway.edges.channel import Destination, why
from gateway.edges.dimse_caller import Caller
from gateway.edges.dimse_caller import Phase as Reached
from gateway.edges.handshake_words import Side, explained
from gateway.edges.resolving import Hosts
from gateway.wire.upper_layer import TRANSFER_SYNTAXES, VERIFICATION


class Phase(StrEnum):
    """Where an attempt ended, in their order."""

    NAME = "name"
    TCP = "TCP"
    TLS = "TLS"
    ASSOCIATION = "association"
    ECHO = "echo"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Echoed:
    """What came of it. `text` says what failed and what to do; `address` is the one that was spoken to last."""

    phase: Phase
    text: str = ""
    address: str = ""
    seconds: float = 0.0

    @property
    def answered(self) -> bool:
        """Whether all went well."""
        return self.phase is Phase.DONE


def echo(to: Destination, called_ae_title: str, calling_ae_title: str, hosts: Hosts) -> Echoed:
    """Ask by C-ECHO (PS3.4 Annex A). Blocks for some multiples of the answer's time at most."""
    began = time.perf_counter()
    caller = Caller(calling_ae_title, to, hosts)
    context = PresentationContext()
    context.abstract_syntax = UID(VERIFICATION)
    context.transfer_syntax = [UID(each) for each in TRANSFER_SYNTAXES]
    try:
        association = caller.associated(called_ae_title, [context], [])
    except OSError as error:
        return Echoed(Phase.NAME, why(error))
    try:
        phase, text = _asked(association, caller, to, called_ae_title, calling_ae_title)
    finally:
        if association.is_established:
            association.release()
        if association.is_alive():
            association.abort()
    return Echoed(phase, text, caller.address, time.perf_counter() - began)


def _asked(
    association: Association, caller: Caller, to: Destination, called_ae_title: str, calling_ae_title: str
) -> tuple[Phase, str]:
    if caller.error is not None:
        if caller.phase is Reached.TLS:
            return Phase.TLS, str(explained(caller.error, Side.CLIENT))
        return Phase.TCP, caller.failure
    if association.is_rejected:
        said = association.acceptor.primitive
        reason = (said.result_source, said.diagnostic) if said else (None, None)
        words = _REJECTED.get(reason, said.reason_str if said else "for no reason")
        words = words.format(called=called_ae_title, calling=calling_ae_title)
        return Phase.ASSOCIATION, f"rejected: {words}"
    if association.rejected_contexts and not association.accepted_contexts:
        return Phase.ASSOCIATION, "it takes the association, but no C-ECHO in it"
    if not association.is_established:
        hint = "" if to.tls else ", or wants TLS on this port"
        return Phase.ASSOCIATION, f"connected, but the request is not answered: it is no DICOM port{hint}"
    try:
        status = association.send_c_echo().get("Status")
    except (RuntimeError, ValueError):  # it ended, or answered by something else
        status = None
    if status is None:
        return Phase.ECHO, f"no answer to C-ECHO within {to.answer_timeout_s:g} s"
    return (Phase.DONE, "") if status == 0 else (Phase.ECHO, f"answered by status {status:04X}")


_REJECTED: dict[tuple[int | None, int | None], str] = {
    (1, 1): "it gives no reason; often it knows {calling} not, or not from this address",
    (1, 2): "it does not know the DICOM application context",
    (1, 3): "it does not know {calling}: register this AE title there, with this machine's address",
    (1, 7): "it is not called {called}: compare its AE title, case counts",
    (2, 1): "it could not tell who asks",
    (2, 2): "it does not speak this version of the protocol",
    (3, 1): "it is too busy for now",
    (3, 2): "it has no association free for now",
}
"""Source and reason of A-ASSOCIATE-RJ (PS3.8 table 9-21), and what to do."""


def connects(to: Destination, hosts: Hosts) -> Echoed:
    """Connect, with TLS where it is asked for, and close. Blocks for the answer's time for each address at most."""
    began = time.perf_counter()
    try:
        addresses = hosts.addresses(to.host)
    except OSError as error:
        return Echoed(Phase.NAME, why(error))
    phase, text = Phase.TCP, ""
    for address in addresses:
        phase, text = _connected(to, address)
        if phase is Phase.DONE:
            hosts.worked(to.host, address)
            break
    return Echoed(phase, text, address, time.perf_counter() - began)


def _connected(to: Destination, address: str) -> tuple[Phase, str]:
    try:
        plain = socket.create_connection((address, to.port), to.answer_timeout_s)
    except OSError as error:
        return Phase.TCP, why(error)
    with plain:
        context = to.context
        if context is None:
            return Phase.DONE, ""
        try:
            with context.wrap_socket(plain, server_hostname=to.certificate_name) as secured:
                _see_whether_it_stays(secured)
        except OSError as error:
            return Phase.TLS, str(explained(error, Side.CLIENT))
    return Phase.DONE, ""


def _see_whether_it_stays(secured: socket.socket) -> None:
    """By TLS 1.3 a server that does not take our certificate says so only after the handshake. Raises OSError."""
    secured.settimeout(_AFTERWARDS_S)
    with contextlib.suppress(TimeoutError):  # it waits for a message, as it should
        if not secured.recv(1):
            raise ConnectionResetError


_AFTERWARDS_S = 0.3
