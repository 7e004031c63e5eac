"""The C-FIND identifier of the worklist: the request read into keys, the answer made of exactly the keys asked for.

The answer's bytes are written by `gateway.wire.dicom_json` and not by pydicom. Measured on an answer of 30 keys with
three sequences: pydicom takes 2.7 ms to build the dataset and write it (1.2 ms for writing alone), this module 0.08 ms,
and 0.12 ms with letters beyond ASCII. A property test reads the bytes back with pydicom.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from gateway.domain.attributes import (
    BY_TAG,
    LENGTH_MAX,
    SPS_SEQUENCE,
    TAG,
    Attributes,
    Element,
    Level,
    element,
    held_tag,
    is_private,
    private_creator,
    text,
)
from gateway.domain.devices import PLAIN, CannotShow, CharacterSets, Profile
from gateway.domain.keys import UnsupportedKey, known_key, unsupported_keys
from gateway.domain.matching import LITERAL, MatchingRules, Query, compile_query, item_matcher
from gateway.domain.refusal import RefusalKind, Refused
from gateway.domain.worklist import WorklistItem, start_of
from gateway.wire.charsets import Terms, choose, composed, declarable, decode_key_terms, holds, replaced, transliterated
from gateway.wire.dicom_json import (
    CHARACTER_SET,
    CHARACTER_SET_VRS,
    dictionary_vr,
    element_from_text,
    read_dataset_bytes,
    tag_of,
    write_attributes,
)
from gateway.wire.dimse import Status

_STATUS = TAG["ScheduledProcedureStepStatus"]
_TIMEZONE = TAG["TimezoneOffsetFromUTC"]
_DOCUMENTS, _DOCUMENT_REFERENCES = TAG["PertinentDocumentsSequence"], TAG["HL7StructuredDocumentReferenceSequence"]

# What Python needs to keep an entry besides its bytes: key and value tuples, two numbers, the dictionary's slots.
_ENTRY_OVERHEAD_BYTES = 400


@dataclass(frozen=True, slots=True)
class Identifier:
    """A request's keys, the character set it came in, and notes on what was odd about it (which hold no values)."""

    keys: Attributes = field(repr=False)
    terms: Terms
    notes: tuple[str, ...] = ()


def read_identifier(data: bytes, transfer_syntax: str, assumed_terms: Terms = ()) -> Identifier:
    """The keys of a C-FIND request. Raises Refused (UNUSABLE_QUERY) where the bytes are no dataset.

    `assumed_terms` are what its text is in where it does not say so, or says what cannot be.
    """
    try:
        read = read_dataset_bytes(data, transfer_syntax, assumed_terms)
    except Refused as refused:
        raise Refused(*(replace(refusal, kind=RefusalKind.UNUSABLE_QUERY) for refusal in refused.refusals)) from None
    return Identifier(*read)


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """A request read and compiled: what matches, what an answer looks like, which keys only some items support.

    `bytes_held` is what it takes in memory, for those who keep it.
    """

    identifier: Identifier
    query: Query
    shape: "AnswerShape"
    unsupported: tuple[UnsupportedKey, ...] = ()
    bytes_held: int = 0

    def pending(self, item: WorklistItem) -> Status:
        """The status of this item's answer (PS3.4 table K.4-1).

        FF01 says that an optional key was not supported for this item: one outside the table that it does not hold.
        """
        if not self.unsupported or all(key.held_by(item.attributes) for key in self.unsupported):
            return Status.PENDING
        return Status.PENDING_WITH_WARNING


# Devices poll with the same bytes for hours, each with a few shapes of its own.
_PREPARED_MAX = 1_024
# A real query has 300 to 1,000 bytes. Of longer ones fewer are kept, which bounds all to 200 MB at the very worst.
_PREPARED_BYTES_MAX = 1_024
_LONG_PREPARED_MAX = 32

_BYTES_HELD_PER_BYTE = 64  # measured: an object or two of Python's for each element; of hostile ones twice as much


def prepare_query(
    data: bytes, transfer_syntax: str, profile: Profile = PLAIN, rules: MatchingRules = LITERAL
) -> PreparedQuery:
    """All that a request asks, by the rules for its device and association.

    Raises Refused (UNUSABLE_QUERY) with every problem of its keys.
    """
    prepare = _prepare_kept if len(data) <= _PREPARED_BYTES_MAX else _prepare_long
    return prepare(data, transfer_syntax, profile, rules)


def _prepare(data: bytes, transfer_syntax: str, profile: Profile, rules: MatchingRules) -> PreparedQuery:
    assumed, _ = decode_key_terms(profile.character_sets.assumed)
    identifier = read_identifier(data, transfer_syntax, assumed)
    asked = _without_values(identifier.keys, profile.ignore)
    query = compile_query(_forced(asked, profile.force), rules)
    identifier = replace(identifier, notes=(*identifier.notes, *query.notes))
    shape = answer_shape(asked, transfer_syntax, identifier.terms, profile, rules)
    unsupported = unsupported_keys(identifier.keys)
    return PreparedQuery(identifier, query, shape, unsupported, _BYTES_HELD_PER_BYTE * len(data))


_prepare_kept = lru_cache(maxsize=_PREPARED_MAX)(_prepare)
_prepare_long = lru_cache(maxsize=_LONG_PREPARED_MAX)(_prepare)


def _held_tag(attributes: Attributes, tag: str, creator: str) -> str:
    """Where the item has this attribute: another writer may have reserved another block for the same creator.

    A private key that names no creator means what the item has under the same tag.
    """
    return (held_tag(attributes, tag, creator) or "") if creator else tag


def _without_values(keys: Attributes, ignored: Iterable[str]) -> Attributes:
    """The keys with those of the profile's `ignore` as if they had been sent empty."""
    tags = frozenset(map(tag_of, ignored))
    if not tags:
        return keys
    top, inside = (frozenset(tag for tag in tags if _is_at(tag, level)) for level in (Level.PATIENT, Level.STEP))
    asked = {tag: _emptied(key) if tag in top else key for tag, key in keys.items()}
    step = asked.get(SPS_SEQUENCE)
    if inside and step is not None and step["vr"] == "SQ" and step.get("Value"):
        items = [
            {tag: _emptied(key) if tag in inside else key for tag, key in (item or {}).items()}
            for item in step["Value"]
        ]
        asked[SPS_SEQUENCE] = {"vr": "SQ", "Value": items}
    return asked


def _is_at(tag: str, level: Level) -> bool:
    """Whether a profile's tag is meant here: those outside the table are meant in the step and on top."""
    return tag not in BY_TAG or (BY_TAG[tag].level is Level.STEP) is (level is Level.STEP)


def _emptied(key: Element) -> Element:
    """The key without values; of a sequence the keys that are named in it stay named."""
    if key["vr"] == "SQ" and key.get("Value"):
        items = [{tag: _emptied(inside) for tag, inside in (item or {}).items()} for item in key["Value"]]
        return {"vr": "SQ", "Value": items}
    return {"vr": key["vr"]}


def _forced(keys: Attributes, forced: Iterable[tuple[str, str]]) -> Attributes:
    """The keys to match by: those asked, with those of the profile's `force` in place of them or besides."""
    matched = dict(keys)
    step: Attributes = {}
    for name, value in forced:
        tag = tag_of(name)
        (step if _is_step(tag) else matched)[tag] = element_from_text(dictionary_vr(tag) or "LO", value)
    asked = matched.get(SPS_SEQUENCE, {"vr": "SQ"})
    if step and (asked["vr"] == "SQ" or not asked.get("Value")):  # else it is refused, with or without forced keys
        items = asked.get("Value") or [{}]
        matched[SPS_SEQUENCE] = {"vr": "SQ", "Value": [{**(item or {}), **step} for item in items]}
    return matched


def _is_step(tag: str) -> bool:
    return tag in BY_TAG and BY_TAG[tag].level is Level.STEP


@dataclass(frozen=True, slots=True)
class ReturnKey:
    """One requested attribute. `keys` are those named inside a sequence; none means the whole of it.

    `when_empty` says that the attribute is returned without a value where the item has none (types 1 and 2), `fill`
    is what the site answers then. `fills` are for the items of a sequence that is wanted whole. `selects` chooses the
    items that are returned, where the request's item carries values. A `private` key names its `creator`.
    """

    tag: str
    vr: str
    when_empty: bool
    keys: "tuple[ReturnKey, ...]" = ()
    selects: Callable[[Attributes], bool] | None = field(default=None, compare=False, repr=False)
    fill: Element | None = None
    fills: tuple[tuple[str, Element], ...] = ()
    private: bool = False
    creator: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class AnswerShape:
    """What an answer looks like, whatever the item: requested keys, transfer syntax, character sets.

    `fixed_terms` are those that every answer has, None where each answer has its own. `timezone` says whether answers
    tell their offset from UTC, and `zone` the one of items that hold none.
    Equal shapes give equal bytes for the same revision of an item. A shape that is not `cacheable` selects items of
    sequences by values, so its answers must not be kept.
    """

    keys: tuple[ReturnKey, ...]
    transfer_syntax: str
    requested_terms: Terms
    character_sets: CharacterSets
    fixed_terms: Terms | None
    timezone: bool
    zone: tzinfo | None
    cacheable: bool
    identity: bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnswerShape) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


def answer_shape(
    keys: Attributes,
    transfer_syntax: str,
    requested_terms: Terms = (),
    profile: Profile = PLAIN,
    rules: MatchingRules = LITERAL,
) -> AnswerShape:
    """The shape of the answers to these keys.

    Raises Refused (UNUSABLE_QUERY) for keys that cannot select items; `matching.compile_query` refuses the same.
    """
    return_keys = _return_keys(keys, Level.PATIENT, _Site(_fills(profile), rules))
    sets = profile.character_sets
    fixed = declarable(decode_key_terms(sets.fixed)[0]) if sets.fixed else None
    timezone = _TIMEZONE in keys or rules.timezone_adjusted
    zone = rules.zone if timezone else None
    said = repr((return_keys, transfer_syntax, requested_terms, sets, timezone, zone)).encode()
    identity = hashlib.blake2b(said, digest_size=16).digest()
    cacheable = not any(_has_selection(key) for key in return_keys)
    return AnswerShape(
        return_keys, transfer_syntax, requested_terms, sets, fixed, timezone, zone, cacheable, identity
    )  # fmt: skip


def _has_selection(key: ReturnKey) -> bool:
    return key.selects is not None or any(map(_has_selection, key.keys))


def _fills(profile: Profile) -> Attributes:
    """What the site answers in place of nothing, by tag."""
    tags = ((tag_of(name), value) for name, value in profile.fill)
    return {tag: element_from_text(dictionary_vr(tag) or "LO", value) for tag, value in tags}


@dataclass(frozen=True, slots=True)
class _Site:
    """What the request does not say: what the site answers in place of nothing, and how keys are compared."""

    fills: Attributes
    rules: MatchingRules


def _return_keys(keys: Attributes, level: Level, site: _Site) -> tuple[ReturnKey, ...]:
    blocks = {f"{tag[:4]}00{tag[4:6]}" for tag in keys if is_private(tag)}
    return tuple(
        _return_key(tag, keys, level, site)
        for tag in sorted(keys)
        # The creator of a private key is answered with it.
        if tag not in (CHARACTER_SET, _TIMEZONE) and tag not in blocks
    )


def _return_key(tag: str, keys: Attributes, level: Level, site: _Site) -> ReturnKey:
    key, known = keys[tag], known_key(tag, level)
    vr = BY_TAG[tag].vr if tag in BY_TAG else key["vr"]
    # 1C and 2C are left out like type 3: an empty value would say that their condition holds (PS3.5 7.4).
    when_empty = known and BY_TAG[tag].return_type in ("1", "2")
    private = is_private(tag)
    creator = private_creator(keys, tag) if private else ""
    fill = (
        site.fills.get(tag)
        if level is not Level.NESTED and vr != "SQ" and _is_step(tag) is (level is Level.STEP)
        else None
    )
    items = key.get("Value") or () if vr == key["vr"] == "SQ" else ()
    if not items or not items[0]:
        inside = (
            tuple((each, said) for each, said in site.fills.items() if _is_step(each)) if tag == SPS_SEQUENCE else ()
        )
        return ReturnKey(tag, vr, when_empty, fill=fill, fills=inside, private=private, creator=creator)
    inner = Level.STEP if tag == SPS_SEQUENCE else Level.NESTED
    selects = None
    if tag != SPS_SEQUENCE and (not known or BY_TAG[tag].is_matched):
        selects = item_matcher(items[0], site.rules)
    return ReturnKey(
        tag, vr, when_empty, _return_keys(items[0], inner, site), selects, private=private, creator=creator
    )  # fmt: skip


def answer(item: WorklistItem, shape: AnswerShape) -> Attributes:
    """The item's attributes that were asked for (PS3.4 K.4.1.1.3.2): those, and nothing else."""
    attributes = item.attributes
    if SPS_SEQUENCE in attributes:
        step = {**item.step, _STATUS: element("ScheduledProcedureStepStatus", str(item.status))}
        attributes = {**attributes, SPS_SEQUENCE: {"vr": "SQ", "Value": [step]}}
    found = _requested(attributes, shape.keys)
    if shape.timezone:
        offset = text(attributes, "TimezoneOffsetFromUTC") or _offset_at_start(item, shape.zone)
        if offset:
            found[_TIMEZONE] = element("TimezoneOffsetFromUTC", offset)
    if _DOCUMENTS in found and _has_value(attributes.get(_DOCUMENT_REFERENCES)):
        found[_DOCUMENT_REFERENCES] = attributes[_DOCUMENT_REFERENCES]
    return found


def _offset_at_start(item: WorklistItem, zone: tzinfo | None) -> str:
    """`+0200`, of a zone when the step starts; '' where either is not known (the attribute is never empty)."""
    if zone is None or SPS_SEQUENCE not in item.attributes:
        return ""
    try:
        offset = datetime.strptime(start_of(item.step), "%Y%m%d%H%M%S").replace(tzinfo=zone).utcoffset()
    except ValueError:
        return ""
    if offset is None:
        return ""
    minutes = round(offset.total_seconds() / 60)
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"


def _requested(attributes: Attributes, keys: tuple[ReturnKey, ...]) -> Attributes:
    found: Attributes = {}
    for key in keys:
        held = attributes.get(_held_tag(attributes, key.tag, key.creator) if key.private else key.tag)
        if held is not None and (key.keys or key.fills) and held["vr"] == "SQ":
            items = held.get("Value") or ()
            if key.selects is not None:
                items = [item for item in items if key.selects(item or {})]
            held = {"vr": "SQ", "Value": [_item(item or {}, key) for item in items]} if items else None
        if held is not None and ("Value" in held or "InlineBinary" in held) and (key.fill is None or _has_value(held)):
            found[key.tag] = held
            if key.private:
                creator = key.creator or private_creator(attributes, key.tag)
                if creator:
                    found[f"{key.tag[:4]}00{key.tag[4:6]}"] = {"vr": "LO", "Value": [creator]}
        elif key.fill is not None:
            found[key.tag] = key.fill
        elif key.when_empty:
            found[key.tag] = {"vr": key.vr}
    return found


def _item(item: Attributes, key: ReturnKey) -> Attributes:
    if key.keys:
        return _requested(item, key.keys)
    return {**item, **{tag: said for tag, said in key.fills if not _has_value(item.get(tag))}}


def _has_value(held: Element | None) -> bool:
    if held is None:
        return False
    return bool(held.get("InlineBinary")) or any(value not in (None, "") for value in held.get("Value") or ())


def encode_answer(item: WorklistItem, shape: AnswerShape) -> bytes:
    """The bytes of the answer, in a character set that holds every letter, or in the one that the device is fixed to.

    Raises ValueError, struct.error, or what a value of a wrong kind causes, where an item holds a value that its VR
    cannot carry; import and mapping see to it that none does, and a caller leaves out such an item alone.
    """
    attributes = answer(item, shape)
    if shape.fixed_terms:
        attributes[CHARACTER_SET] = {"vr": "CS", "Value": list(shape.fixed_terms)}
    try:
        return write_attributes(attributes, shape.transfer_syntax, ())
    except UnicodeEncodeError:  # a letter beyond the default repertoire: seldom enough to try first and look then
        shown, terms = _shown(attributes, shape)
        return write_attributes(shown, shape.transfer_syntax, terms)


def _shown(attributes: Attributes, shape: AnswerShape) -> tuple[Attributes, Terms]:
    """The answer as its character set can show it, and the terms of that set."""
    found: list[tuple[str, str, str]] = []
    _texts(attributes, found)
    as_held = True
    texts: list[str] = []
    first_groups: list[str] = []
    for vr, group, said in found:
        if vr in CHARACTER_SET_VRS:
            written = composed(said)
            if written is not said:
                as_held = False
            texts.append(written)
            if group == "Alphabetic":
                first_groups.append(written)
        else:
            as_held = False
    terms, policy = shape.fixed_terms, CannotShow.SWITCH
    if terms is not None and not all(holds(terms, each) for each in texts):
        policy = shape.character_sets.cannot_show
        if policy is CannotShow.SWITCH:
            terms = None
        else:
            as_held = False
    if terms is None:
        terms = choose(texts, shape.requested_terms, shape.character_sets.declared, first_groups)
    return attributes if as_held else _rewritten(attributes, terms, policy), terms


def _texts(attributes: Mapping[str, Element], found: list[tuple[str, str, str]]) -> None:
    """Adds (VR, component group or '', text) of every text beyond ASCII."""
    for held in attributes.values():
        for value in held.get("Value") or ():
            if isinstance(value, str):
                if not value.isascii():
                    vr = held["vr"]
                    found.append((vr, "Alphabetic" if vr == "PN" else "", value))
            elif isinstance(value, dict):
                vr = held["vr"]
                if vr == "SQ":
                    _texts(value, found)
                else:
                    found += [(vr, group, str(said)) for group, said in value.items() if not str(said).isascii()]


def _rewritten(attributes: Mapping[str, Element], terms: Terms, policy: CannotShow) -> Attributes:
    return {
        tag: {**held, "Value": [_written(held["vr"], value, terms, policy) for value in held["Value"]]}
        if held.get("Value")
        else held
        for tag, held in attributes.items()
    }


def _written(vr: str, value: Any, terms: Terms, policy: CannotShow) -> Any:
    if isinstance(value, dict):
        if vr == "SQ":
            return _rewritten(value, terms, policy)
        return {group: _written(vr, said, terms, policy) for group, said in value.items()}
    if not isinstance(value, str) or value.isascii():
        return value
    if vr not in CHARACTER_SET_VRS:
        return _in_default_repertoire(vr, value)
    if policy is CannotShow.TRANSLITERATE:
        return _cut(vr, value, transliterated(value, terms))
    return replaced(value, terms) if policy is CannotShow.REPLACE else composed(value)


def _in_default_repertoire(vr: str, value: str) -> str:
    """A text of a VR for which Specific Character Set does not count: a device would read its letters as others."""
    if vr == "UR":
        return quote(value, safe="".join(map(chr, range(0x21, 0x7F))))
    ascii_text = transliterated(value)
    return _cut(vr, value, ascii_text.upper() if vr == "CS" else ascii_text)


def _cut(vr: str, value: str, longer: str) -> str:
    """What became longer than its VR allows, cut there; a value that was too long before stays as long."""
    limit = LENGTH_MAX.get(vr)
    return longer if limit is None else longer[: max(limit, len(value))]


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
