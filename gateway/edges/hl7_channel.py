"""HL7 v2 messages to one receiver over MLLP, each answered before the next."""

from gateway.edges.channel import Destination, Outcome, why
from gateway.edges.mllp import MLLPClient, Release
from gateway.wire import ack_received
from gateway.workflow.outbox import Attempt, Delivery, attempt_of

_CONTROL_ID_CHARACTERS_MAX = 40  # of one that is not ours, in a reason; twice what HL7 had at first


class HL7Channel:
    """A receiver's connection, opened when there is something to send and kept."""

    def __init__(self, destination: Destination, release: Release = 1) -> None:
        self._timeout_s = destination.answer_timeout_s
        self._client = MLLPClient(
            destination.host, destination.port, destination.answer_timeout_s, release, destination.tls,
            destination.certificate_name,
        )  # fmt: skip

    async def send(self, delivery: Delivery) -> Outcome:
        """Send the message and wait for the acknowledgement of its control ID; others are passed over."""
        if not self._client.connected:
            try:
                await self._client.connect()
            except (OSError, TimeoutError) as error:
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
            answer = await self._client.send(delivery.payload, is_answer)
        except TimeoutError:
            why_not = f"no answer within {self._timeout_s:g} s"
        except OSError as error:
            why_not = str(error) or type(error).__name__
        else:
            return Outcome(attempt_of(told), " ".join([told.code, told.text]).strip() if told else "", answer)
        if not other or told is None:
            return Outcome(Attempt.UNANSWERED, why_not)
        # Late answers to earlier messages end with the connection; who gives others on every one is not just away.
        meant = f"answers were for other messages, the last for MSA-2 {told.control_id[:_CONTROL_ID_CHARACTERS_MAX]}"
        return Outcome(Attempt.UNUSABLE, f"{meant}; {why_not}", other)

    async def close(self) -> None:
        """End the connection."""
        await self._client.close()
