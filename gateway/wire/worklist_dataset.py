"""The C-FIND identifier of the worklist: the request read into keys, the answer made of exactly the keys asked for.

The answer's bytes are written by `gateway.wire.dicom_json` and not by pydicom. Measured on an answer of 30 keys with
three sequences: pydicom takes 2.7 ms to build the dataset and write it (1.2 ms for writing alone), this module 0.08 ms,
and 0.12 ms with letters beyond ASCII. A property test reads the bytes back with pydicom.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from gateway.domain.attributes import BY_TAG, SPS_SEQUENCE, TAG, Attributes, Element, Level, Matching, element
from gateway.domain.matching import Query, compile_query, item_matcher, known_key, supported
from gateway.domain.refusal import RefusalKind, Refused
from gateway.domain.worklist import WorklistItem
from gateway.wire.charsets import Terms, choose
from gateway.wire.dicom_json import CHARACTER_SET, read_dataset_bytes, write_attributes

_STATUS = TAG["ScheduledProcedureStepStatus"]

# What Python needs to keep an entry besides its bytes: key and value tuples, two numbers, the dictionary's slots.
_ENTRY_OVERHEAD_BYTES = 400


@dataclass(frozen=True, slots=True)
class Identifier:
    """A request's keys, the character set it came in, and notes on what was odd about it (which hold no values)."""

    keys: Attributes = field(repr=False)
    terms: Terms
    notes: tuple[str, ...] = ()


def read_identifier(data: bytes, transfer_syntax: str) -> Identifier:
    """The keys of a C-FIND request. Raises Refused (UNUSABLE_QUERY) where the bytes are no dataset."""
    try:
        read = read_dataset_bytes(data, transfer_syntax)
    except Refused as refused:
        raise Refused(*(replace(refusal, kind=RefusalKind.UNUSABLE_QUERY) for refusal in refused.refusals)) from None
    return Identifier(*read)


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """A request read and compiled: what matches, what an answer looks like, whether every key is supported."""

    identifier: Identifier
    query: Query
    shape: "AnswerShape"
    supported: bool


# Devices poll with the same bytes for hours; a department's devices have a few shapes of query each.
_PREPARED_MAX = 512
_PREPARED_BYTES_MAX = 4096  # longer identifiers are prepared afresh each time, which bounds what is kept to 2 MB


def prepare_query(data: bytes, transfer_syntax: str, declared_terms: tuple[str, ...] | None = None) -> PreparedQuery:
    """All that a request asks. Raises Refused (UNUSABLE_QUERY) with every problem of its keys."""
    prepare = _prepare_kept if len(data) <= _PREPARED_BYTES_MAX else _prepare
    return prepare(data, transfer_syntax, declared_terms)


def _prepare(data: bytes, transfer_syntax: str, declared_terms: tuple[str, ...] | None) -> PreparedQuery:
    identifier = read_identifier(data, transfer_syntax)
    query = compile_query(identifier.keys)
    shape = answer_shape(identifier.keys, transfer_syntax, identifier.terms, declared_terms)
    return PreparedQuery(identifier, query, shape, supported(identifier.keys))


_prepare_kept = lru_cache(maxsize=_PREPARED_MAX)(_prepare)


@dataclass(frozen=True, slots=True)
class ReturnKey:
    """One requested attribute. `keys` are those named inside a sequence; none means the whole of it.

    `when_empty` says that the attribute is returned without a value where the item has none (types 1 and 2).
    `selects` chooses the items that are returned, where the request's item carries values.
    """

    tag: str
    vr: str
    when_empty: bool
    keys: "tuple[ReturnKey, ...]" = ()
    selects: Callable[[Attributes], bool] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, eq=False, slots=True)
class AnswerShape:
    """What an answer looks like, whatever the item: requested keys, transfer syntax, character sets.

    Equal shapes give equal bytes for the same revision of an item. A shape that is not `cacheable` selects items of
    sequences by values, so its answers must not be kept.
    """

    keys: tuple[ReturnKey, ...]
    transfer_syntax: str
    requested_terms: Terms
    declared_terms: tuple[str, ...] | None
    cacheable: bool
    identity: bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnswerShape) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


def answer_shape(
    keys: Attributes, transfer_syntax: str, requested_terms: Terms = (), declared_terms: Sequence[str] | None = None
) -> AnswerShape:
    """The shape of the answers to these keys. `declared_terms` are the character sets that the device declares.

    Raises Refused (UNUSABLE_QUERY) for keys that cannot select items; `matching.compile_query` refuses the same.
    """
    return_keys = _return_keys(keys, Level.PATIENT)
    declared = tuple(declared_terms) if declared_terms is not None else None
    said = repr((return_keys, transfer_syntax, requested_terms, declared)).encode()
    identity = hashlib.blake2b(said, digest_size=16).digest()
    cacheable = not any(_has_selection(key) for key in return_keys)
    return AnswerShape(return_keys, transfer_syntax, requested_terms, declared, cacheable, identity)


def _has_selection(key: ReturnKey) -> bool:
    return key.selects is not None or any(map(_has_selection, key.keys))


def _return_keys(keys: Attributes, level: Level) -> tuple[ReturnKey, ...]:
    return tuple(_return_key(tag, keys[tag], level) for tag in sorted(keys) if tag != CHARACTER_SET)


def _return_key(tag: str, key: Element, level: Level) -> ReturnKey:
    known = known_key(tag, level)
    vr = BY_TAG[tag].vr if tag in BY_TAG else key["vr"]
    # 1C and 2C are left out like type 3: an empty value would say that their condition holds (PS3.5 7.4).
    when_empty = known and BY_TAG[tag].return_type in ("1", "2")
    items = key.get("Value") or () if vr == key["vr"] == "SQ" else ()
    if not items or not items[0]:
        return ReturnKey(tag, vr, when_empty)
    inside = Level.STEP if tag == SPS_SEQUENCE else Level.NESTED
    selects = None
    if tag != SPS_SEQUENCE and not (known and BY_TAG[tag].matching is Matching.NEVER):
        selects = item_matcher(items[0])
    return ReturnKey(tag, vr, when_empty, _return_keys(items[0], inside), selects)


def answer(item: WorklistItem, shape: AnswerShape) -> Attributes:
    """The item's attributes that were asked for (PS3.4 K.4.1.1.3.2): those, and nothing else."""
    attributes = item.attributes
    if SPS_SEQUENCE in attributes:
        step = {**item.step, _STATUS: element("ScheduledProcedureStepStatus", str(item.status))}
        attributes = {**attributes, SPS_SEQUENCE: {"vr": "SQ", "Value": [step]}}
    return _requested(attributes, shape.keys)


def _requested(attributes: Attributes, keys: tuple[ReturnKey, ...]) -> Attributes:
    found: Attributes = {}
    for key in keys:
        held = attributes.get(key.tag)
        if held is not None and key.keys and held["vr"] == "SQ":
            items = held.get("Value") or ()
            if key.selects is not None:
                items = [item for item in items if key.selects(item or {})]
            if items:
                found[key.tag] = {"vr": "SQ", "Value": [_requested(item or {}, key.keys) for item in items]}
                continue
            held = None
        if held is not None and ("Value" in held or "InlineBinary" in held):
            found[key.tag] = held
        elif key.when_empty:
            found[key.tag] = {"vr": key.vr}
    return found


def encode_answer(item: WorklistItem, shape: AnswerShape) -> bytes:
    """The bytes of the answer, in a character set that holds every letter.

    Raises ValueError or struct.error where an item holds a value that its VR cannot carry; import and mapping see to
    it that none does, and a caller leaves out such an item alone.
    """
    attributes = answer(item, shape)
    try:
        return write_attributes(attributes, shape.transfer_syntax, ())
    except UnicodeEncodeError:  # a letter beyond the default repertoire: seldom enough to try first and look then
        terms = choose(_texts(attributes), shape.requested_terms, shape.declared_terms)
        return write_attributes(attributes, shape.transfer_syntax, terms)


def _texts(attributes: Mapping[str, Element]) -> Iterator[str]:
    """Every text among the values, of whatever VR: an imported CS may hold letters that the standard forbids it."""
    for held in attributes.values():
        for value in held.get("Value") or ():
            if isinstance(value, str):
                yield value
            elif isinstance(value, dict):
                if held["vr"] == "SQ":
                    yield from _texts(value)
                else:
                    yield from map(str, value.values())


class EncodedAnswers:
    """Answers that were encoded before, by step and shape, while the item's revision is the same (design D2).

    Bounded by bytes, the least lately used go first. Not for several threads: the event loop alone uses it.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: OrderedDict[tuple[int, AnswerShape], tuple[int, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes_held(self) -> int:
        """What the entries take, with an allowance for Python's own bookkeeping."""
        return self._bytes

    def get(self, step_id: int, revision: int, shape: AnswerShape) -> bytes | None:
        """The answer for this revision; None where it has to be encoded."""
        key = (step_id, shape)
        entry = self._entries.get(key)
        if entry is None or entry[0] != revision:
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, step_id: int, revision: int, shape: AnswerShape, encoded: bytes) -> None:
        """Keep an answer in place of the one of another revision; shapes that select by values are not kept."""
        if not shape.cacheable:
            return
        key = (step_id, shape)
        before = self._entries.pop(key, None)
        if before is not None:
            self._bytes -= _cost(before[1])
        if _cost(encoded) > self._bytes_max:
            return
        self._entries[key] = (revision, encoded)
        self._bytes += _cost(encoded)
        while self._bytes > self._bytes_max:
            _, (_, oldest) = self._entries.popitem(last=False)
            self._bytes -= _cost(oldest)


def _cost(encoded: bytes) -> int:
    return len(encoded) + _ENTRY_OVERHEAD_BYTES
