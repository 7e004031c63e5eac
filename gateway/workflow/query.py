"""A modality asks for its worklist (RAD-5, PS3.4 annex K).

The device registry says what the caller may see, the store narrows by index, the matcher decides, and each answer is
encoded once per revision and shape. Ids and revisions are read first and the read is over before anything is sent,
so a slow peer holds no transaction.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from gateway.domain.attributes import values
from gateway.domain.devices import Device, Sees
from gateway.domain.matching import Narrowing
from gateway.domain.refusal import Refused
from gateway.domain.worklist import WorklistItem
from gateway.wire.dimse import FindAnswer, Status
from gateway.wire.worklist_dataset import EncodedAnswers, PreparedQuery, encode_answer, prepare_query
from gateway.workflow.ports import Reader

ENCODED_BYTES_MAX = 96 * 1_048_576
"""Some 80,000 answers of a kilobyte: the list of a large department in the shapes its devices ask for."""

ITEMS_MAX = 4_096
"""Items kept as read, about 10 KB each, for the matcher: what the devices of a busy department ask about in a day."""

CHUNK = 32
"""Items read and looked at between two turns of the event loop: a few milliseconds when none of them is kept."""

IDENTIFIER_BYTES_MAX = 65_536
"""A query that asks for every attribute of the worklist by name has 4 KB."""


def _tell_nobody(step_id: int, reason: Exception) -> None:
    """For a worklist whose bad items nobody wants to know."""


class Worklist:
    """Answers worklist queries from a reader. For the event loop's thread alone."""

    def __init__(
        self, reader: Reader, unavailable: type[Exception], left_out: Callable[[int, Exception], None] = _tell_nobody
    ) -> None:
        """`unavailable` is what the reader raises when it cannot read now.

        `left_out` is told the step and the reason when an item cannot be written; the others are answered.
        """
        self._reader = reader
        self._unavailable = unavailable
        self._left_out = left_out
        self._encoded = EncodedAnswers(ENCODED_BYTES_MAX)
        self._items: OrderedDict[int, WorklistItem] = OrderedDict()

    def answer(self, device: Device, transfer_syntax: str, identifier: bytes) -> Iterator[FindAnswer | None]:
        """Pending for each match, then Success; a refusal (A900) or failure (A700) in its place.

        None says that nothing was found in the last few milliseconds, so that others have their turn.
        Statuses are those of PS3.4 table K.4-1.
        """
        if len(identifier) > IDENTIFIER_BYTES_MAX:
            yield FindAnswer(Status.OUT_OF_RESOURCES, None, "the identifier is longer than any worklist query")
            return
        try:
            prepared = prepare_query(identifier, transfer_syntax)
        except Refused as refused:
            first = refused.refusals[0]
            yield FindAnswer(Status.IDENTIFIER_DOES_NOT_MATCH, None, str(first), _offending(first.where))
            return
        pending = Status.PENDING if prepared.supported else Status.PENDING_WITH_WARNING
        try:
            for encoded in self._matches(device, prepared):
                yield FindAnswer(pending, encoded) if encoded is not None else None
        except self._unavailable:
            yield FindAnswer(Status.OUT_OF_RESOURCES, None, "the worklist cannot be read now")
            return
        yield FindAnswer(Status.SUCCESS)

    def _matches(self, device: Device, prepared: PreparedQuery) -> Iterator[bytes | None]:
        may_see = _visibility(device)
        narrowing = visible(prepared.query.narrowing(), device)
        refs = self._reader.candidates(narrowing)
        for first in range(0, len(refs), CHUNK):
            chunk = refs[first : first + CHUNK]
            for item in self._current(chunk):
                if item.status not in narrowing.statuses:
                    continue  # it left the list while a slow device took the answers before it
                try:
                    if may_see(item) and prepared.query.matches(item.attributes, item.status):
                        encoded = self._encode(item, prepared)
                    else:
                        continue
                except Exception as reason:
                    self._left_out(item.step_id, reason)  # design rule 4: one bad item spoils no answer
                    continue
                yield encoded
            yield None

    def _encode(self, item: WorklistItem, prepared: PreparedQuery) -> bytes:
        encoded = self._encoded.get(item.step_id, item.revision, prepared.shape)
        if encoded is None:
            encoded = encode_answer(item, prepared.shape)
            self._encoded.put(item.step_id, item.revision, prepared.shape, encoded)
        return encoded

    def _current(self, refs: Sequence[tuple[int, int]]) -> Iterator[WorklistItem]:
        """The items at these revisions or newer, those not kept read together."""
        kept = {step_id: self._kept(step_id, revision) for step_id, revision in refs}
        absent = [step_id for step_id, item in kept.items() if item is None]
        if absent:
            for item in self._reader.items(absent):
                kept[item.step_id] = item
                self._items[item.step_id] = item
            while len(self._items) > ITEMS_MAX:
                self._items.popitem(last=False)
        yield from (item for item in kept.values() if item is not None)  # None: it went away meanwhile

    def _kept(self, step_id: int, revision: int) -> WorklistItem | None:
        item = self._items.get(step_id)
        if item is None or item.revision != revision:
            return None
        self._items.move_to_end(step_id)
        return item


def visible(narrowing: Narrowing, device: Device) -> Narrowing:
    """The narrowing within what the device may see."""
    if device.sees is Sees.ALL:
        return narrowing
    own = frozenset({device.ae_title})
    if narrowing.station_ae_titles and not narrowing.station_ae_titles & own:
        # The key names other stations only; a step may still be scheduled to both, which the matcher decides.
        return narrowing
    return replace(narrowing, station_ae_titles=own)


def _visibility(device: Device) -> Callable[[WorklistItem], bool]:
    if device.sees is Sees.ALL:
        return lambda _: True
    return lambda item: device.ae_title in values(item.step, "ScheduledStationAETitle")


def _offending(where: str) -> tuple[int, ...]:
    """The last tag of DICOM coordinates, for the Offending Element (0000,0901)."""
    tag = where.rpartition("/")[2].strip("()").replace(",", "")[:8]
    try:
        return (int(tag, 16),)
    except ValueError:
        return ()
