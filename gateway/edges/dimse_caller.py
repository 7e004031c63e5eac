"""pynetdicom's AE as SCU (design D1), where it needs help to be one for days on end.

It reaches into what pynetdicom keeps for itself; the version is pinned to 3.x, and the tests of delivery would show
a change.
"""

import socket
import sys
from enum import StrEnum
from queue import Empty, Queue
from ssl import SSLContext, SSLError
from typing import Any

from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket

from gateway.edges.channel import CONNECT_S_MAX, Destination, why
from gateway.edges.resolving import Hosts

# By default pynetdicom writes what it sends and receives to the log, patients and all (design D15).
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False


class Phase(StrEnum):
    """How far an attempt to connect came."""

    TCP = "TCP"
    TLS = "TLS"
    ASSOCIATION = "association"


class Caller(AE):
    """An application entity that asks one destination for associations. All of it blocks."""

    failure = ""
    """Why the last connection could not be had; '' where it could."""
    error: OSError | None = None
    """What it failed by."""
    phase = Phase.ASSOCIATION
    """Where it failed."""
    address = ""
    """The address that was connected to last, or in vain."""

    def __init__(self, calling_ae_title: str, destination: Destination, hosts: Hosts | None = None) -> None:
        super().__init__(calling_ae_title)
        self._to = destination
        self._hosts = hosts or Hosts()
        # To these a living receiver answers at once, and nothing interrupts them.
        self.connection_timeout = self.acse_timeout = min(destination.answer_timeout_s, CONNECT_S_MAX)
        self.dimse_timeout = destination.answer_timeout_s
        self.network_timeout = None  # whoever uses it ends it

    def associated(
        self,
        called_ae_title: str,
        contexts: list[PresentationContext],
        roles: list[SCP_SCU_RoleSelectionNegotiation],
    ) -> Association:
        """The association, established or not; answers on it are waited for in `dimse.msg_queue`.

        Every address of the host is tried. Raises OSError where its name has none.
        """
        to = self._to
        context = to.context
        for address in self._hosts.addresses(to.host):
            self.failure, self.error, self.phase, self.address = "", None, Phase.ASSOCIATION, address
            association = self.associate(
                address,
                to.port,
                contexts,
                ae_title=called_ae_title,
                ext_neg=roles,  # type: ignore[arg-type]  # its list of a union is invariant
                tls_args=(context, to.certificate_name or to.host) if context is not None else None,
            )
            if not self.failure:
                self._hosts.worked(to.host, address)
                break
        association.dimse.msg_queue = _Answers()
        if not association.is_established:
            self.doubt()
            _let_go(association)
        return association

    def doubt(self) -> None:
        """The association ended before its time, or there was none: its host may be elsewhere by now."""
        self._hosts.doubt(self._to.host)

    @property
    def moved(self) -> bool:
        """Whether the name of the host does not mean the address any more that was connected to last."""
        try:
            return self.address not in self._hosts.addresses(self._to.host)
        except OSError:
            return False  # nobody knows it at this moment

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[SSLContext, str] | None
    ) -> AssociationSocket:
        made = _Connection(assoc, address=address)
        made.tls_args = tls_args
        return made


class _Connection(AssociationSocket):
    """A connection that sends at once, closes for certain, and says why there is none."""

    def _create_socket(self, address: AddressInformation) -> socket.socket:
        made = super()._create_socket(address)
        # Command and dataset are two writes: the second would wait 40 ms for the peer's delayed ACK of the first.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _shutdown_socket(self) -> None:
        error = sys.exc_info()[1]  # it is called where the connection failed, and nobody else is told why
        held = self.socket
        if isinstance(error, OSError) and isinstance(self.assoc.ae, Caller):
            self.assoc.ae.failure, self.assoc.ae.error = why(error), error
            self.assoc.ae.phase = Phase.TLS if self.tls_args and _shook_hands(error, held) else Phase.TCP
        super()._shutdown_socket()
        if held is not None:
            held.close()  # the above leaves a connection open that never was one


def _let_go(association: Association) -> None:
    """Close the connection of an association that never was: pynetdicom leaves some open, as of peers that hang up."""
    if association.dul.is_alive():
        association.dul.join(_END_S)
    held = association.dul.socket
    if held is not None and held.socket is not None:
        held.socket.close()


_END_S = 1.0


def _shook_hands(error: OSError, held: socket.socket | None) -> bool:
    """Whether a connection was there already when this happened to it."""
    if isinstance(error, SSLError | ConnectionResetError | BrokenPipeError):
        return True
    try:
        return held is not None and bool(held.getpeername())
    except OSError:
        return False


class _Answers(Queue[Any]):
    """What came over an association, for whoever waits for it.

    pynetdicom's own thread looks in now and then and would take an answer for a request of the peer's. Its `send_*`
    have that thread pause, but may see it paused when it is just going on; so it finds nothing here at all.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not block:
            raise Empty
        return super().get(block, timeout)
