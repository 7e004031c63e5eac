"""Whose word stands in a resource: what the gateway told must neither come back as its sender's, nor be undone by an
older copy."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.domain.resources import HeldResource, ResourceKey
from gateway.edges.store import Store
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Verb
from gateway.wire.fhir_release import Release
from gateway.workflow.fhir_server import tell_in, transact
from gateway.workflow.fhir_words import overruled_by, said_anew

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
KEY = ResourceKey("r4", "Task", "t1")
SENT = {"resourceType": "Task", "id": "t1", "status": "requested", "intent": "order", "description": "no contrast"}
TOLD = {**SENT, "status": "in-progress", "executionPeriod": {"start": "2026-07-05T09:30:00+02:00"}}
WORDS = {"executionPeriod": None, "status": "requested"}


def held(**more: object) -> HeldResource:
    return HeldResource(KEY, 2, AT, {**TOLD, **more}, overruled=overruled_by(HeldResource(KEY, 1, AT, SENT), TOLD))


def test_what_is_told_is_read_and_what_was_sent_is_kept_beside_it() -> None:
    assert held().overruled == WORDS
    assert held().content["status"] == "in-progress"
    assert held().as_sent == SENT


@pytest.mark.parametrize("copy", [TOLD, SENT], ids=["as it was told", "as it was before"])
def test_a_copy_that_is_sent_back_says_nothing_of_what_was_told(copy: dict[str, object]) -> None:
    content, overruled = said_anew(held(), {**copy, "description": "with contrast"})
    assert content == {**TOLD, "description": "with contrast"}
    assert overruled == WORDS


def test_a_new_word_of_the_sender_counts() -> None:
    content, overruled = said_anew(held(), {**TOLD, "status": "cancelled"})
    assert content["status"] == "cancelled"
    assert overruled == {"executionPeriod": None}


@pytest.mark.parametrize("verb", [Verb.UPDATE, Verb.PATCH])
def test_a_held_resource_shows_the_gateways_word_until_its_sender_has_a_new_one(tmp_path: Path, verb: Verb) -> None:
    def sends(status: str) -> Interaction:
        if verb is Verb.PATCH:
            return Interaction(verb, "Task", "t1", patch=[{"op": "replace", "path": "/status", "value": status}])
        return Interaction(verb, "Task", "t1", {**SENT, "status": status})

    with Store(f"sqlite:///{tmp_path / 'gateway.db'}") as store:

        def does(interaction: Interaction) -> HeldResource:
            request = FHIRRequest(Kind.SINGLE, "r4", Release.R4, (interaction,), b"", event="x")
            store.write(lambda unit: transact(unit, request, AT)).result()
            found = store.reader.resource(KEY)
            assert found is not None
            return found

        first = does(Interaction(Verb.UPDATE, "Task", "t1", SENT))
        told = store.write(lambda unit: tell_in(unit, first, TOLD, Release.R4, AT)).result()
        assert (told.version, told.content["status"], told.as_sent["status"]) == (2, "in-progress", "requested")
        assert store.reader.resource(KEY) == told
        assert does(sends("requested")).version == 2  # an older copy
        assert does(sends("in-progress")).version == 2  # our own word
        new = does(sends("cancelled"))
        assert (new.content["status"], new.as_sent["status"]) == ("cancelled", "cancelled")
        assert new.content["executionPeriod"] == TOLD["executionPeriod"]
