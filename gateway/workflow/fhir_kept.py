"""What the archive keeps beside a FHIR request, so that it can be explained, compared and run again without the store.

A request that was done is kept as what it said (`Speech`): its resources may have other versions by then. One that was
refused is kept as the request it was, since none of its resources is held. Answers are kept as HTTP text, which people
can read.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gateway.domain.resources import Resource
from gateway.wire import fhir_json
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Verb
from gateway.wire.fhir_release import Release
from gateway.workflow.fhir_meaning import Speech

BYTES_MAX = 4_000_000
"""As JSON. A usual order has ten thousand; a Bundle of a thousand orders has more, and is not kept."""
WAITING_BYTES_MAX = 64_000_000
"""The same of what waits, and is run again by itself: four times the longest body that is taken unless a site says
otherwise."""

_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """One of both. `waiting` are the subjects of a speech that could not act then: they are run again by themselves."""

    speech: Speech | None = field(default=None, repr=False)
    request: FHIRRequest | None = field(default=None, repr=False)
    waiting: tuple[str, ...] = ()


def kept(what: Kept) -> bytes | None:
    """What `restored` makes the same of; None for what is too large to be kept."""
    said: dict[str, Any] = {"fhir": 1}
    if what.speech is not None:
        speech = what.speech
        said["speech"] = {
            "release": speech.release.value, "server": speech.server, "subjects": list(speech.subjects),
            "now": dict(speech.now), "before": dict(speech.before), "new": list(speech.new),
            "places": dict(speech.places), "heard": list(speech.heard),
            "beside": list(speech.beside),
        }  # fmt: skip
        said["waiting"] = list(what.waiting)
    if what.request is not None:
        said["request"] = _request(what.request)
    data = fhir_json.write(said)
    return zlib.compress(data, _LEVEL) if len(data) <= (WAITING_BYTES_MAX if what.waiting else BYTES_MAX) else None


def restored(data: bytes) -> Kept:
    """What was kept."""
    said = json.loads(zlib.decompress(data), parse_float=Decimal)
    speech = said.get("speech")
    request = said.get("request")
    return Kept(
        None
        if speech is None
        else Speech(
            Release(speech["release"]), speech["server"], tuple(speech["subjects"]), speech["now"], speech["before"],
            tuple(speech["new"]), speech["places"], tuple(speech.get("heard", ())),
            tuple(speech.get("beside", ())),
        ),
        None if request is None else _restored_request(request),
        tuple(said.get("waiting", ())),
    )  # fmt: skip


def _request(request: FHIRRequest) -> dict[str, Any]:
    """Without its bytes: the archive has them."""
    return {
        "kind": request.kind.value, "source": request.source, "release": request.release.value,
        "peer": request.peer, "sender": request.sender, "message_id": request.message_id, "event": request.event,
        "header": request.header, "base": request.base, "notes": list(request.notes),
        "may_read": sorted(request.may_read) if request.may_read is not None else None,
        "interactions": [_interaction(each) for each in request.interactions],
    }  # fmt: skip


def _interaction(interaction: Interaction) -> dict[str, Any]:
    said = {name: getattr(interaction, name) for name in Interaction.__slots__}
    said["verb"] = interaction.verb.value
    return {name: value for name, value in said.items() if value not in ("", None, ())}


def _restored_request(said: Mapping[str, Any]) -> FHIRRequest:
    interactions = tuple(
        Interaction(**{**each, "verb": Verb(each["verb"]), "notes": tuple(each.get("notes", ()))})
        for each in said["interactions"]
    )
    may_read = said.get("may_read")
    return FHIRRequest(
        Kind(said["kind"]), said["source"], Release(said["release"]), interactions, b"", said["peer"], said["sender"],
        said["message_id"], said["event"], said["header"], said.get("base", ""), tuple(said.get("notes", ())),
        frozenset(may_read) if may_read is not None else None,
    )  # fmt: skip


# --- answers ----------------------------------------------------------------------------------------------------------


_RESPONSES = frozenset({"transaction-response", "batch-response"})


def answer_text(answer: Answer) -> bytes:
    """An answer as HTTP has it: status line, headers, body; of a response Bundle what became of its entries, without
    the resources that were found or made, which may be many."""
    lines = [f"HTTP/1.1 {answer.status}", *(f"{name}: {value}" for name, value in answer.headers.items())]
    notes = [f"X-Note: {note}" for note in answer.notes]
    said = answer.body
    if said is not None and said.get("type") in _RESPONSES:
        said = {**said, "entry": [{"response": each["response"]} for each in said.get("entry", ())]}
    body = fhir_json.write(said) if said is not None else b""
    return "\r\n".join([*lines, *map(_on_one_line, notes), "", ""]).encode() + body


def answer_of(text: bytes) -> Answer:
    """The answer that `answer_text` wrote."""
    head, _, body = text.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs: Sequence[tuple[str, str]] = [(name, value) for name, _, value in (each.partition(": ") for each in lines)]
    resource: Resource | None = json.loads(body, parse_float=Decimal) if body else None
    return Answer(
        int(first.split()[1]),
        {name: value for name, value in pairs if name != "X-Note"},
        resource,
        tuple(value for name, value in pairs if name == "X-Note"),
    )


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
