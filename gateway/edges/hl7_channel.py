"""HL7 v2 messages to one receiver over MLLP, each answered before the next."""

import asyncio

from gateway.edges.channel import CONNECT_S_MAX, Destination, Outcome, why
from gateway.edges.mllp import MLLPClient, Release
from gateway.edges.resolving import Hosts
from gateway.wire import ack_received
from gateway.workflow.outbox import Attempt, Delivery, attempt_of

_CONTROL_ID_CHARACTERS_MAX = 40  # of one that is not ours, in a reason; twice what HL7 had at first


class HL7Channel:
    """A receiver's connection, opened when there is something to send and kept while its name means that address."""

    def __init__(self, destination: Destination, release: Release = 1, hosts: Hosts | None = None) -> None:
        self._to = destination
        self._timeout_s = destination.answer_timeout_s
        self._release = release
        self._hosts = hosts or Hosts()
        self._client: MLLPClient | None = None
        self._address = ""

    async def send(self, delivery: Delivery) -> Outcome:
        """Send the message and wait for the acknowledgement of its control ID; others are passed over."""
        try:
            client = await self._connected()
        except OSError as error:  # TimeoutError is one
            return Outcome(Attempt.UNREACHABLE, why(error))
        told: ack_received.Told | None = None
        other = b""

        def is_answer(data: bytes) -> bool:
            nonlocal told, other
            told = ack_received.read(data)
            if ack_received.means(told, delivery.control_id):
                return True
            other = data
            return False

        try:
            answer = await client.send(delivery.payload, is_answer)
        except TimeoutError:
            why_not = f"no answer within {self._timeout_s:g} s"
        except OSError as error:
            why_not = str(error) or type(error).__name__
        else:
            return Outcome(attempt_of(told), " ".join([told.code, told.text]).strip() if told else "", answer)
        self._hosts.doubt(self._to.host)
        if not other or told is None:
            return Outcome(Attempt.UNANSWERED, why_not)
        # Late answers to earlier messages end with the connection; who gives others on every one is not just away.
        meant = f"answers were for other messages, the last for MSA-2 {told.control_id[:_CONTROL_ID_CHARACTERS_MAX]}"
        return Outcome(Attempt.UNUSABLE, f"{meant}; {why_not}", other)

    async def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            await self._client.close()

    async def _connected(self) -> MLLPClient:
        """A connection to an address that the name of the host means now. Raises OSError."""
        held = self._client if self._client is not None and self._client.connected else None
        try:
            addresses = await self._hosts.addresses_soon(self._to.host)
        except OSError:
            if held is None:
                raise
            return held  # nobody knows the name at this moment, and there was no reason to leave
        if held is not None and self._address in addresses:
            return held
        await self.close()
        failure: OSError = ConnectionError()
        for address in addresses:
            try:
                return await self._connect(address)
            except OSError as error:
                failure = error
        self._hosts.doubt(self._to.host)
        raise failure

    async def _connect(self, address: str) -> MLLPClient:
        to = self._to
        client = MLLPClient(address, to.port, to.answer_timeout_s, self._release, to.context, to.certificate_name)
        self._client, self._address = client, address
        async with asyncio.timeout(CONNECT_S_MAX):  # the next address has its turn too
            await client.connect()
        self._hosts.worked(to.host, address)
        return client
