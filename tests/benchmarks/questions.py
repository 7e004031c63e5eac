"""What the load asks and how: one query an association as most modalities do, or many, by one client or several."""

import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from gateway.testing import worklist_identifier
from gateway.testing.load import LoadAssociation, encode_association, encode_find, exchanged
from tests.benchmarks import population
from tests.benchmarks.measure import Operation, Rate, rates

HOST = "127.0.0.1"
ASSOCIATE = encode_association("BENCHMARK")

_STATION_AND_DAY = encode_find(
    worklist_identifier({"ScheduledStationAETitle": "STATIONXX", "ScheduledProcedureStepStartDate": "19991231"})
)

Question = Callable[[], bytes]
"""The next request."""


def list_request(station: str, day: str) -> bytes:
    """A station's list of a day."""
    return exchanged(_STATION_AND_DAY, {"STATIONXX": station, "19991231": day})


def group_request(group: int) -> bytes:
    """The list of a group's station and day: ten matches."""
    return list_request(population.station_of(group), population.day_of(group))


def question(size: int, matches: int) -> Question:
    """As modalities ask: each for its own station on the first day, which is today to them, over and over.

    `matches` is 10 for one of the forty stations, 500 for the busy one, 0 for one that nothing is scheduled to.
    """
    if matches != population.GROUP:
        station = population.BUSY_STATION if matches else population.NOBODYS_STATION
        request = list_request(station, population.day_of(0))
        return lambda: request
    today = min(population.STATIONS, population.others(size) // population.GROUP)
    requests = [group_request(group) for group in range(today)]
    return lambda: random.choice(requests)


def asking_once(port: int, ask: Question, matches: int) -> Operation:
    """Associate, ask, release."""

    async def once() -> None:
        request = ask()
        async with LoadAssociation(HOST, port, ASSOCIATE) as association:
            found = await association.find(request)
        assert found == matches, f"{found} matches"

    return once


def asking_again(association: LoadAssociation, ask: Question, matches: int) -> Operation:
    """Ask on an association that is open and stays so."""

    async def again() -> None:
        found = await association.find(ask())
        assert found == matches, f"{found} matches"

    return again


async def query_rates(
    ports: Sequence[int], size: int, matches: int, clients: int, seconds: float, *, many: bool = False
) -> list[Rate]:
    """How fast each of these servers answers so many clients, one query an association or `many`."""
    ask = question(size, matches)
    if not many:
        return await rates([[asking_once(port, ask, matches)] * clients for port in ports], seconds)
    async with AsyncExitStack() as opened:
        contestants = []
        for port in ports:
            associations = [
                await opened.enter_async_context(LoadAssociation(HOST, port, ASSOCIATE)) for _ in range(clients)
            ]
            contestants.append([asking_again(association, ask, matches) for association in associations])
        return await rates(contestants, seconds)
