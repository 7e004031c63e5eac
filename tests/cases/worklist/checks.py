"""What is wrong with a reply: everything the case expects, and what PS3.4 K.4.1 demands of every reply."""

from collections.abc import Iterator, Sequence

from .datasets import (
    CHARACTER_SET,
    STEP,
    STUDY_INSTANCE_UID,
    TIMEZONE,
    Dataset,
    Element,
    decode,
    name_of,
    normal_values,
    path_name,
)
from .model import ALL, EXPLICIT, Case, Item, population
from .scu import Caller, NoAnswer, Reply

_STRUCTURED_DOCUMENTS = 0x0040A390
# Returned under conditions of their own (K.4.1.1.3.2).
_UNASKED = frozenset({CHARACTER_SET, TIMEZONE, _STRUCTURED_DOCUMENTS})
# Where an item says nothing, an SCP may say what its times are the wall clock of: Central European Summer Time.
_DEPARTMENT_ZONE = Element("SH", ("+0200",))
_START = (0x00400002, 0x00400003, TIMEZONE)


def run_case(case: Case, caller: Caller) -> list[str]:
    """Ask what the case asks; what is wrong with the reply, one sentence each."""
    try:
        reply = caller.find(
            case.request, syntax=case.syntax, calling=case.calling, negotiate=case.negotiate,
            cancel_after=case.cancel_after,
        )  # fmt: skip
    except NoAnswer as reason:
        return [str(reason)]
    return list(problems(case, reply))


def problems(case: Case, reply: Reply) -> Iterator[str]:
    """Everything wrong with this reply."""
    if reply.status not in case.statuses:
        yield f"the final status is {reply.status}, not {' or '.join(case.statuses)}"
    if reply.has_identifier:
        yield "the final answer has an identifier (K.4.1.3)"
    if case.offending is not None and case.offending not in reply.offending:
        named = ", ".join(map(name_of, reply.offending)) or "nothing"
        yield f"Offending Element names {named}, not {name_of(case.offending)}"
    if case.accepts is not None and (reply.accepted or b"") != case.accepts:
        yield f"extended negotiation is answered with {_hex(reply.accepted)}, not {_hex(case.accepts)}"
    found: list[str] = []
    for pending in reply.pending:
        try:
            answer = decode(pending.identifier, explicit=case.syntax == EXPLICIT)
        except (ValueError, LookupError) as reason:
            yield f"an answer cannot be read: {reason}"
            continue
        item = _item_of(answer)
        if item is None:
            yield "an answer has no Study Instance UID of an item (type 1)"
            continue
        found.append(item.name)
        if pending.status != case.pending_of(item.name):
            yield f"{item.name}: pending status {pending.status}, not {case.pending_of(item.name)}"
        yield from (f"{item.name}: {problem}" for problem in _answer_problems(case, item, answer))
    yield from _count_problems(case, found)


def _hex(data: bytes | None) -> str:
    return data.hex(" ") if data else "nothing"


def _count_problems(case: Case, found: Sequence[str]) -> Iterator[str]:
    if len(found) != len(set(found)):
        yield "an item is answered twice (K.6.1.2.1)"
    if case.finds is None:
        return
    if missing := sorted(case.finds - set(found)):
        yield f"not found: {', '.join(missing)}"
    if more := sorted(set(found) - case.finds):
        yield f"found as well: {', '.join(more)}"


def _item_of(answer: Dataset) -> Item | None:
    uid = normal_values(answer.get(STUDY_INSTANCE_UID))
    return next((item for item in population().values() if [item.study_instance_uid] == uid), None)


def _answer_problems(case: Case, item: Item, answer: Dataset) -> Iterator[str]:
    yield from _shape_problems(case.keys, answer, item.attributes, top=True, shifted=bool(case.negotiate))
    for name in (ALL, item.name):
        yield from _lacking(case.returns.get(name, {}), answer, ())
    for path in case.absent:
        if _at(answer, path) is not None:
            yield f"{path_name(path)} is there"
    for path in case.empty:
        held = _at(answer, path)
        if held is None or not held.empty:
            yield f"{path_name(path)} is {'absent' if held is None else 'not empty'}"
    terms = answer[CHARACTER_SET].values if CHARACTER_SET in answer else ()
    wanted = case.answers_in.get(item.name, case.answers_in.get(ALL))
    if wanted is not None and tuple(term.strip() for term in terms) != wanted:
        yield f"its character set is {_listed(terms)}, not {_listed(wanted)}"
    if CHARACTER_SET in answer and answer[CHARACTER_SET].empty:
        yield "its Specific Character Set is of zero length (C.2.2.2)"


def _listed(terms: Sequence[str]) -> str:
    return "\\".join(terms) or "left out"


def _shape_problems(keys: Dataset, answer: Dataset, item: Dataset, *, top: bool, shifted: bool) -> Iterator[str]:
    """An answer holds what was asked for and nothing else (K.4.1.1.3.2), with the item's own values."""
    for tag, element in answer.items():
        key = keys.get(tag)
        if key is None:
            if not (top and tag in _UNASKED):
                yield f"{name_of(tag)} was not asked for"
            continue
        if tag == CHARACTER_SET or _is_private_creator(tag):
            continue
        if tag == STEP and len(element.items) != 1:
            yield f"the step's sequence has {len(element.items)} items (Table K.6-1: one)"
        held = item.get(_where_held(tag, answer, item), _DEPARTMENT_ZONE if tag == TIMEZONE else None)
        if element.items:
            yield from _item_problems(key, element, held, shifted=shifted)
        elif not element.empty and not (shifted and tag in _START) and normal_values(element) != normal_values(held):
            yield f"{name_of(tag)} is not the item's value"


def _is_private_creator(tag: int) -> bool:
    return bool((tag >> 16) % 2) and 0x10 <= tag & 0xFFFF <= 0xFF


def _where_held(tag: int, answer: Dataset, item: Dataset) -> int:
    """The tag that the item has this attribute under: a private block may lie elsewhere (PS3.5 7.8.1)."""
    group, number = tag & 0xFFFF0000, tag & 0xFFFF
    if not (tag >> 16) % 2 or number <= 0xFF:
        return tag
    creator = normal_values(answer.get(group | number >> 8))
    for block in range(0x10, 0x100):
        if creator and normal_values(item.get(group | block)) == creator:
            return group | block << 8 | number & 0xFF
    return tag


def _item_problems(key: Element, element: Element, held: Element | None, *, shifted: bool) -> Iterator[str]:
    inner = key.items[0] if key.items else {}
    stored = list(held.items) if held else []
    for answered in element.items:
        # Returned items keep their order, some may be left out: each is one of those not passed yet.
        # The whole of a sequence may have attributes without a value that the SCP knows and the item lacks.
        empty = [tag for tag, each in answered.items() if each.empty]
        found: list[str] = ["a returned item is none of the item's"]
        for position, candidate in enumerate(stored):
            asked = inner or dict.fromkeys((*candidate, *empty), Element("UN"))
            found = list(_shape_problems(asked, answered, candidate, top=False, shifted=shifted))
            if not found:
                del stored[: position + 1]
                break
        yield from found


def _lacking(wanted: Dataset, answer: Dataset, path: tuple[int, ...]) -> Iterator[str]:
    for tag, element in wanted.items():
        here = (*path, tag)
        held = answer.get(tag)
        if held is None:
            yield f"{path_name(here)} is absent"
        elif element.items:
            if len(held.items) != len(element.items):
                yield f"{path_name(here)} has {len(held.items)} items, not {len(element.items)}"
            for want, have in zip(element.items, held.items, strict=False):
                yield from _lacking(want, have, here)
        elif normal_values(held) != normal_values(element):
            yield f"{path_name(here)} has another value than expected"


def _at(answer: Dataset, path: tuple[int, ...]) -> Element | None:
    """What is at this path, through the first item of each sequence that has it."""
    element = answer.get(path[0])
    if element is None or len(path) == 1:
        return element
    return next((found for each in element.items if (found := _at(each, path[1:])) is not None), None)
