"""pynetdicom's AE as SCU (design D1), where it needs help to be one for days on end.

It reaches into what pynetdicom keeps for itself; the version is pinned to 3.x, and the tests of delivery would show
a change.
"""

import socket
import sys
from queue import Empty, Queue
from ssl import SSLContext
from typing import Any

from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket

from gateway.edges.channel import Destination, why

# By default pynetdicom writes what it sends and receives to the log, patients and all (design D15).
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False

CONNECT_S_MAX = 10.0
"""For the connection and the association: to these a living receiver answers at once, and nothing interrupts them."""


class Caller(AE):
    """An application entity that asks one destination for associations. All of it blocks."""

    failure = ""
    """Why the last connection could not be had; '' where it could."""

    def __init__(self, calling_ae_title: str, destination: Destination) -> None:
        super().__init__(calling_ae_title)
        self._to = destination
        self.connection_timeout = self.acse_timeout = min(destination.answer_timeout_s, CONNECT_S_MAX)
        self.dimse_timeout = destination.answer_timeout_s
        self.network_timeout = None  # whoever uses it ends it

    def associated(
        self,
        called_ae_title: str,
        contexts: list[PresentationContext],
        roles: list[SCP_SCU_RoleSelectionNegotiation],
    ) -> Association:
        """The association, established or not; answers on it are waited for in `dimse.msg_queue`."""
        self.failure = ""
        to = self._to
        association = self.associate(
            to.host,
            to.port,
            contexts,
            ae_title=called_ae_title,
            ext_neg=roles,  # type: ignore[arg-type]  # its list of a union is invariant
            tls_args=(to.tls, to.certificate_name or to.host) if to.tls else None,
        )
        association.dimse.msg_queue = _Answers()
        return association

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
        if isinstance(error, OSError) and isinstance(self.assoc.ae, Caller):
            self.assoc.ae.failure = why(error)
        held = self.socket
        super()._shutdown_socket()
        if held is not None:
            held.close()  # the above leaves a connection open that never was one


class _Answers(Queue[Any]):
    """What came over an association, for whoever waits for it.

    pynetdicom's own thread looks in now and then and would take an answer for a request of the peer's. Its `send_*`
    have that thread pause, but may see it paused when it is just going on; so it finds nothing here at all.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not block:
            raise Empty
        return super().get(block, timeout)
