"""A kept query asked again: today's data, and the rules of whichever device it is asked as.

Decides what `query` decides, by the same view and the same compiled query, but gives items and not bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.domain.refusal import Refused
from gateway.domain.worklist import WorklistItem
from gateway.wire.dimse import Status
from gateway.wire.worklist_dataset import PreparedQuery, prepare_query
from gateway.workflow.ports import QueryRecord, Reader
from gateway.workflow.query import Caller

_CHUNK = 256  # items read together; nobody waits for them one by one


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a query is answered now. `items` are those answered, `beyond` how many more match than are answered.

    `refusals` say why it cannot be used at all.
    """

    items: tuple[WorklistItem, ...] = field(default=(), repr=False)
    beyond: int = 0
    refusals: tuple[str, ...] = field(default=(), repr=False)


def replay(reader: Reader, caller: Caller, record: QueryRecord) -> Replayed:
    """Ask it again as this caller."""
    try:
        prepared = prepare_query(record.identifier, record.transfer_syntax, caller.device.profile, caller.rules)
    except Refused as refused:
        return Replayed(refusals=tuple(map(str, refused.refusals)))
    found = tuple(matching_items(reader, caller, prepared))
    answered = found[: caller.device.profile.answers_max or None]
    return Replayed(answered, len(found) - len(answered))


def matching_items(reader: Reader, caller: Caller, prepared: PreparedQuery) -> Iterator[WorklistItem]:
    """Every item that answers the query now, in the answer's order, whatever the device's `answers_max`."""
    asked = prepared.query.narrowing()
    refs = reader.candidates(caller.view.narrow(asked))
    for first in range(0, len(refs), _CHUNK):
        for item in reader.items(step_id for step_id, _ in refs[first : first + _CHUNK]):
            try:
                found = caller.view.admits(item, asked) and prepared.query.matches(item.attributes, item.status)
            except Exception:  # noqa: S112  (design rule 4; `check` and the service name the item)
                continue
            if found:
                yield item


_STATUS_WORDS: dict[int, str] = {
    Status.SUCCESS: "success",
    Status.OUT_OF_RESOURCES: "A700 (more items than this device is answered, or the worklist could not be read)",
    Status.IDENTIFIER_DOES_NOT_MATCH: "A900 (its keys cannot be used)",
    Status.UNABLE_TO_PROCESS: "C001 (unable to process)",
    Status.CANCEL: "FE00 (cancelled by the device, or the device went away before the end)",
}


def status_words(status: int) -> str:
    """A final status of a query for people (PS3.4 table K.4-1)."""
    return _STATUS_WORDS.get(status, f"status {status:04X}")
