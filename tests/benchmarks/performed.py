"""Performed steps as modalities report them, and as others have them back."""

import random
from collections.abc import Sequence
from itertools import count

import uvloop

from gateway.testing.load import (
    LoadAssociation,
    encode_association,
    encode_create,
    encode_get,
    encode_set,
    exchanged,
)
from gateway.testing.modality import final_state, performed_step
from tests.benchmarks import population
from tests.benchmarks.measure import Operation, rates
from tests.benchmarks.questions import ASSOCIATE, HOST
from tests.benchmarks.report import Row

MODALITIES = 8
SUCCESS = 0x0000
PAIRS_BUDGET = 300
_UID = "2.25.9999999999"
_RETRIEVE = encode_association("BENCHMARK", retrieves=True)


def performed_rows(port: int, items: int, seconds: float) -> list[Row]:
    """Pairs of N-CREATE and N-SET for this many items in turn, and N-GET of what they made, each for so long."""
    made: list[str] = []
    (pairs,) = uvloop.run(rates([performing(port, items, made)], seconds))
    (gets,) = uvloop.run(rates([_retrieving(port, made)], seconds))
    by = f"{MODALITIES} modalities"
    return [
        Row(f"performed steps, {by}", pairs.per_s, "/s", at_least=PAIRS_BUDGET, times=pairs.times),
        Row(f"performed steps had back (N-GET), {by}", gets.per_s, "/s", times=gets.times),
    ]


def performing(port: int, items: int, made: list[str]) -> list[Operation]:
    """An association, N-CREATE for the next item, N-SET to COMPLETED, release; `made` gets the UIDs."""
    held = population.TEMPLATE
    create = encode_create(_UID, performed_step(population.item(held), "BENCHMARK", population.FIRST_DAY))
    final = encode_set(_UID, final_state("COMPLETED", population.FIRST_DAY))
    numbers = count()

    async def perform() -> None:
        number = next(numbers)
        order = population.order(number % items)
        uid = f"2.25.9{number:09}"
        texts = {
            _UID: uid,
            held.study_instance_uid: order.study_instance_uid,
            held.accession: order.accession,
            held.requested_procedure_id: order.requested_procedure_id,
            held.sps_id: order.sps_id,
            held.person.patient_id: order.person.patient_id,
        }
        async with LoadAssociation(HOST, port, ASSOCIATE) as association:
            assert await association.report(exchanged(create, texts)) == SUCCESS
            assert await association.report(exchanged(final, {_UID: uid})) == SUCCESS
        made.append(uid)

    return [perform] * MODALITIES


def _retrieving(port: int, made: Sequence[str]) -> list[Operation]:
    """An association, N-GET of all attributes of one of these, release."""
    request = encode_get(_UID)

    async def retrieve() -> None:
        async with LoadAssociation(HOST, port, _RETRIEVE) as association:
            assert await association.report(exchanged(request, {_UID: random.choice(made)})) == SUCCESS

    return [retrieve] * MODALITIES
