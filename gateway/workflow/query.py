"""A modality asks for its worklist (RAD-5, PS3.4 annex K).

The registry says who calls and what may be seen, the store narrows by index, the matcher decides, and each answer is
encoded once per revision and shape. Ids and revisions are read first and the read is over before anything is sent,
so a slow peer holds no transaction. Where they are those of the last time, so is the answer.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, tzinfo
from itertools import islice

from gateway.domain.devices import CalledWorklist, Device, Devices, WhenMore
from gateway.domain.matching import MatchingRules, Narrowing
from gateway.domain.refusal import Refused
from gateway.domain.visibility import View, view_of
from gateway.domain.worklist import WorklistItem
from gateway.wire.dimse import FindAnswer, FindAnswers, FindPart, Status
from gateway.wire.worklist_dataset import EncodedAnswers, PreparedQuery, encode_answer, prepare_query
from gateway.workflow.ports import Reader

ENCODED_BYTES_MAX = 96 * 1_048_576
"""Some 80,000 answers of a kilobyte: the list of a large department in the shapes its devices ask for."""

ITEMS_MAX = 4_096
"""Items kept as read, about 17 KB each, for the matcher: what the devices of a busy department ask about in a day."""

CHUNK = 32
"""Items read and looked at between two turns of the event loop: a few milliseconds when none of them is kept."""

LIGHT_QUERY_BYTES = 262_144
"""What a prepared query of 4 KB takes. One that takes more is asked of one item between two turns: it may have
thousands of keys."""

IDENTIFIER_BYTES_MAX = 16_384
"""A query that asks for every attribute of the worklist by name has 4 KB; one of this size takes 0.1 s to prepare."""

TOGETHER_BYTES_MAX = 49_152
"""Answers kept together leave together: less than a socket's buffer, so that memory stays flat for a slow peer."""

LISTS_BYTES_MAX = 64 * 1_048_576
"""Complete answers kept as they were given, with their queries: the lists of today of some 800 devices."""

_FUZZY, _TIMEZONE = 2, 3  # places in the extended negotiation of the worklist (PS3.4 table K.5-1, from 0)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, which worklist it called, by which rules it is matched, and what it may see today."""

    device: Device
    worklist: CalledWorklist
    rules: MatchingRules
    view: View


def caller_of(
    devices: Devices,
    calling_ae_title: str,
    called_ae_title: str,
    negotiation: bytes,
    zone: tzinfo | None,
    today: date,
) -> Caller | None:
    """The caller of an association; None means that it is not to be served.

    `negotiation` is the extended negotiation it offered (PS3.4 K.5.1), b'' for none.
    """
    device, worklist = devices.device(calling_ae_title), devices.worklist(called_ae_title)
    if device is None or worklist is None:
        return None
    rules = MatchingRules(
        fuzzy_names=negotiation[_FUZZY : _FUZZY + 1] == b"\x01",
        timezone_adjusted=negotiation[_TIMEZONE : _TIMEZONE + 1] == b"\x01",
        zone=zone,
        empty_values=device.profile.empty_values,
        whole_names=device.profile.whole_names,
    )
    return Caller(device, worklist, rules, view_of(devices, device, worklist, today))


def _tell_nobody(step_id: int, reason: Exception) -> None:
    """For a worklist whose bad items nobody wants to know."""


class Worklist:
    """Answers worklist queries from a reader. For the event loop's thread alone."""

    def __init__(
        self, reader: Reader, unavailable: type[Exception], left_out: Callable[[int, Exception], None] = _tell_nobody
    ) -> None:
        """`unavailable` is what the reader raises when it cannot read now.

        `left_out` is told the step and the reason when an item cannot be read or written; the others are answered.
        """
        reader.left_out = left_out
        self._reader = reader
        self._unavailable = unavailable
        self._left_out = left_out
        self._encoded = EncodedAnswers(ENCODED_BYTES_MAX)
        self._items: OrderedDict[int, WorklistItem] = OrderedDict()
        self._lists = _Lists(LISTS_BYTES_MAX)

    def answer(self, caller: Caller, transfer_syntax: str, identifier: bytes) -> Iterator[FindPart]:
        """Pending for each match, then Success; a refusal (A900) or failure (A700) in its place.

        None says that nothing was found in the last few milliseconds, so that others have their turn.
        Statuses are those of PS3.4 table K.4-1.
        """
        if len(identifier) > IDENTIFIER_BYTES_MAX:
            yield FindAnswer(Status.OUT_OF_RESOURCES, None, "the identifier is longer than any worklist query")
            return
        try:
            prepared = prepare_query(identifier, transfer_syntax, caller.device.profile, caller.rules)
        except Refused as refused:
            first = refused.refusals[0]
            yield FindAnswer(Status.IDENTIFIER_DOES_NOT_MATCH, None, str(first), _offending(first.where))
            return
        profile, sent = caller.device.profile, 0
        try:
            for found in self._matches(caller.view, prepared):
                more = 0 if found is None else len(found) if isinstance(found, FindAnswers) else 1
                if profile.answers_max and sent + more > profile.answers_max:
                    if isinstance(found, FindAnswers):
                        yield from islice(found, profile.answers_max - sent)
                    yield _CUT[profile.when_more]
                    return
                sent += more
                yield found
        except self._unavailable:
            yield FindAnswer(Status.OUT_OF_RESOURCES, None, "the worklist cannot be read now")
            return
        yield _SUCCESS

    def notes(self, caller: Caller, transfer_syntax: str, identifier: bytes) -> tuple[str, ...]:
        """What was odd about an identifier, for the record of the query; holds no values."""
        if len(identifier) > IDENTIFIER_BYTES_MAX:
            return ()
        try:
            return prepare_query(identifier, transfer_syntax, caller.device.profile, caller.rules).identifier.notes
        except Refused as refused:
            return tuple(map(str, refused.refusals))

    def _matches(self, view: View, prepared: PreparedQuery) -> Iterator[FindPart]:
        asked = prepared.query.narrowing()
        kept = self._lists.get(prepared, view)
        narrowed = kept.narrowed if kept is not None else view.narrow(asked)
        refs = self._reader.candidates(narrowed)
        if kept is not None and kept.refs == refs:
            yield from kept.answers
            return
        answers: list[FindAnswer] = []
        whole = prepared.shape.cacheable
        length = CHUNK if prepared.bytes_held <= LIGHT_QUERY_BYTES else 1
        for first in range(0, len(refs), length):
            chunk = refs[first : first + length]
            for item in self._current(chunk):
                try:
                    if not (view.admits(item, asked) and prepared.query.matches(item.attributes, item.status)):
                        continue  # or it left the list while a slow device took the answers before it
                    found = FindAnswer(prepared.pending(item), self._encode(item, prepared))
                except Exception as reason:
                    self._left_out(item.step_id, reason)  # design rule 4: one bad item spoils no answer
                    whole = False
                    continue
                answers.append(found)
                yield found
            yield None
        if whole:
            self._lists.put(_Kept(prepared, view, narrowed, refs, _together(answers)))

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


_SUCCESS = FindAnswer(Status.SUCCESS)
_CUT = {
    WhenMore.FAILURE: FindAnswer(Status.OUT_OF_RESOURCES, None, "more items match than this device is answered"),
    WhenMore.SUCCESS: _SUCCESS,
}


@dataclass(frozen=True, slots=True)
class _Kept:
    """One query as one view of it was last answered, and the revisions of the items that was found among."""

    prepared: PreparedQuery
    view: View
    narrowed: Narrowing
    refs: Sequence[tuple[int, int]]
    answers: Sequence[FindAnswers]

    @property
    def size(self) -> int:
        """In bytes, rather too many: a reference takes 150 of Python's, an answer its bytes twice and 400 besides."""
        identifiers = (identifier for together in self.answers for identifier in together.identifiers)
        answers = sum(2 * len(identifier) + 400 for identifier in identifiers)
        return 1_000 + self.prepared.bytes_held + 150 * len(self.refs) + answers


def _together(answers: Iterable[FindAnswer]) -> Sequence[FindAnswers]:
    """Answers of one status that follow each other, up to as many bytes as are sent between two turns for others."""
    found: list[FindAnswers] = []
    status, identifiers, size = 0, list[bytes](), 0
    for answer in answers:
        identifier = answer.identifier or b""
        if identifiers and (answer.status != status or size + len(identifier) > TOGETHER_BYTES_MAX):
            found.append(FindAnswers(status, identifiers))
            identifiers, size = [], 0
        status = answer.status
        identifiers.append(identifier)
        size += len(identifier)
    return [*found, FindAnswers(status, identifiers)] if identifiers else found


class _Lists:
    """Answers as they were last given, by query and view, while the same revisions of the same items may match.

    Bounded by their bytes and those of their queries; the least lately used go first.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        # The query is kept with its answer: while it is, no other can have its id.
        self._held: OrderedDict[tuple[int, View], tuple[_Kept, int]] = OrderedDict()

    def get(self, prepared: PreparedQuery, view: View) -> _Kept | None:
        """How this query was last answered to this view."""
        key = (id(prepared), view)
        held = self._held.get(key)
        if held is None:
            return None
        self._held.move_to_end(key)
        return held[0]

    def put(self, kept: _Kept) -> None:
        """Keep it in place of the one before."""
        key = (id(kept.prepared), kept.view)
        before = self._held.pop(key, None)
        if before is not None:
            self._bytes -= before[1]
        size = kept.size
        if size > self._bytes_max // 8:
            return  # a query for everything must not push out everyone else's
        self._held[key] = (kept, size)
        self._bytes += size
        while self._bytes > self._bytes_max:
            _, (_, oldest) = self._held.popitem(last=False)
            self._bytes -= oldest


def _offending(where: str) -> tuple[int, ...]:
    """The last tag of DICOM coordinates, for the Offending Element (0000,0901)."""
    tag = where.rpartition("/")[2].strip("()").replace(",", "")[:8]
    try:
        return (int(tag, 16),)
    except ValueError:
        return ()
