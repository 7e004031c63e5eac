"""Whose word stands in a resource: its sender's, or what the gateway told of how the order gets on. Pure.

The gateway tells status in resources that others own (ServiceRequest, Task, Appointment). A sender that reads such a
resource, changes something else and sends it back must not be taken to have said that status itself, nor must an older
copy undo it. So what is told is held with what its sender says in its place (`HeldResource.overruled`): readers see the
gateway's word, and orders are read from the sender's (`HeldResource.as_sent`).
"""

from collections.abc import Mapping
from typing import Any

from gateway.domain.resources import HeldResource, Resource

_OF_THE_SERVER = frozenset({"resourceType", "id", "meta"})


def overruled_by(held: HeldResource, told: Resource) -> Mapping[str, Any]:
    """What the sender of a held resource says of each element that says otherwise now; None where it says nothing."""
    sent = held.as_sent
    names = (sent.keys() | told.keys()) - _OF_THE_SERVER
    return {name: sent.get(name) for name in sorted(names) if sent.get(name) != told.get(name)}


def said_anew(held: HeldResource, sent: Resource) -> tuple[Resource, Mapping[str, Any]]:
    """What is to be held after the sender of a held resource says `sent`, and what of it stays overruled.

    Where the sender says back our word, or what it said before, our word stands; where it says something new, that
    counts.
    """
    stays = {
        name: before
        for name, before in held.overruled.items()
        if sent.get(name) in (held.content.get(name), before)
    }  # fmt: skip
    if not stays:
        return sent, {}
    ours = {name: held.content.get(name) for name in stays}
    made = {name: ours.pop(name, value) for name, value in sent.items()}
    made |= ours
    return {name: value for name, value in made.items() if value is not None}, stays
