"""Bodies of FHIR requests: the process that reads large ones, when it takes too long or is not needed any more."""

import asyncio
import multiprocessing

from fhir_receiver import looped

from gateway.domain.refusal import RefusalKind
from gateway.edges.fhir_bodies import LARGE_BYTES, Bodies
from gateway.edges.fhir_calls import IN_HAND_BYTES_MAX, SHARE_BYTES_MAX, Room
from gateway.wire.fhir_bounds import Bounds
from gateway.wire.fhir_negotiation import Sent
from gateway.wire.fhir_release import Release

LARGE = b'{"resourceType": "Patient", "language": "' + b"a" * LARGE_BYTES + b'"}'


async def _gone(before: set[int | None]) -> None:
    async with asyncio.timeout(60):
        while {each.pid for each in multiprocessing.active_children()} - before:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.01)


def _pids() -> set[int | None]:
    return {each.pid for each in multiprocessing.active_children()}


@looped
async def test_a_body_that_takes_too_long_is_refused_and_its_process_ended() -> None:
    before, bodies = _pids(), Bodies(read_s=0.0)
    said = await bodies.understood(LARGE, Sent.JSON, Release.R4, Bounds(), False)
    assert [each.kind for each in said.refusals] == [RefusalKind.TOO_LONG]
    await _gone(before)


@looped
async def test_a_process_that_is_busy_ends_with_the_server() -> None:
    before, bodies = _pids(), Bodies()
    assert (await bodies.understood(LARGE, Sent.JSON, Release.R4, Bounds(), False)).resource is not None
    many = b'{"resourceType": "Bundle", "entry": [' + b",".join([b"{}"] * 900_000) + b"]}"
    reading = asyncio.ensure_future(bodies.understood(many, Sent.JSON, Release.R4, Bounds(), True))
    await asyncio.sleep(0)
    bodies.close()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    bodies.close()  # the process that was started meanwhile, if it was
    await _gone(before)


def test_a_client_has_no_more_than_its_share_of_the_room() -> None:
    room = Room()
    assert room.take("a", IN_HAND_BYTES_MAX + 1), "what is alone always fits"
    room.give_back("a", IN_HAND_BYTES_MAX + 1)
    assert room.take("a", SHARE_BYTES_MAX)
    assert not room.take("a", 1)
    assert room.take("a", 1, taken=SHARE_BYTES_MAX), "the same body goes on"
    room.give_back("a", 1)
    assert room.take("b", SHARE_BYTES_MAX)
    assert not room.take("c", 1)
    room.give_back("a", SHARE_BYTES_MAX)
    assert room.take("c", 1)
