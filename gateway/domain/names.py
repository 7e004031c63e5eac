"""Person names as query keys (PS3.4 C.2.2.2.1.1, PS3.5 6.2.1): folding, the literal rule, the fuzzy rule, the index.

The literal rule compares without regard to case and accents, component by component. A key of one component group is
compared with each group held, a key of several groups group by group. Components that the key leaves empty match
anything, unless whole names are asked for. A wild card may also run across the `^` between components.

The fuzzy rule (K.5.1.1.2, where it was negotiated) finds all that the literal rule finds, and names in which each
component of the key is *like* some component of the same group, wherever it stands. Two components are alike if

1. they are equal once written in plain Latin letters and digits: case, accents, blanks, hyphens and apostrophes do
   not count, other scripts are transliterated letter by letter (anyascii; kanji come out as Chinese, so a Japanese
   name is found by its kana or Latin group), and `ae`, `oe`, `ue` are `a`, `o`, `u`, which is what `ä`, `ö`, `ü` are
   without their accents; or
2. they sound alike: their Metaphone codes are equal, an initial vowel standing for any, and have two letters or more;
   or
3. they begin with the same sound and are spelled alike but for `ei`, `ey`, `ai`, `ay` being one, or nearly alike: one
   insertion, deletion, substitution or exchange of neighbours between components of four letters or more, two between
   those of eight or more.

A component of the key with wild cards is compared by them, with the letters as held and as in 1.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from anyascii import anyascii
from jellyfish import damerau_levenshtein_distance, metaphone

from gateway.domain.attributes import person_name_value
from gateway.domain.wildcards import before_wild_card, glob, is_pattern

NameTest: TypeAlias = Callable[[Any], bool]
"""Whether a held name, as the DICOM JSON Model has it or as text, meets a key."""


class _Group(NamedTuple):
    """A held component group: folded, and cut into components, the empty ones between others included."""

    folded: str
    components: tuple[str, ...]


_GroupTest: TypeAlias = Callable[[_Group], bool]
_ComponentTest: TypeAlias = Callable[[str], bool]

SOUND_MARK = "~"
"""What the index's sound keys begin with. A folded name may too; that only widens what a bound lets through."""

# Letters that carry their accent in one piece, so that decomposition does not free them of it.
_WHOLE_LETTERS = str.maketrans(
    {"ø": "o", "đ": "d", "ł": "l", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"}
)
_NO_GROUP = _Group("", ("",))
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_NEITHER_LETTER_NOR_DIGIT = re.compile(r"[^a-z0-9]+")
_DIPHTHONG = re.compile(r"[ae][iyj]")
_UMLAUT = re.compile(r"([aou])e")
_BETWEEN_WILD_CARDS = re.compile(r"([*?\ufffd]+)")


def fold_name(text: str) -> str:
    """A name, or part of one, without case and accents, for comparing and for the store's index.

    Half-width and full-width forms become one. Marks of combining class 200 and above are accents; those below are
    letters' parts in their scripts (the voicing of kana, vowels of Thai and Hebrew) and stay.
    """
    stripped = text.strip(" ")
    if stripped.isascii():
        return stripped.lower()
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", stripped).casefold())
    kept = "".join(letter for letter in decomposed if unicodedata.combining(letter) < 200)
    return unicodedata.normalize("NFC", kept.translate(_WHOLE_LETTERS)).strip(" ")


def _group(text: str) -> _Group:
    folded = fold_name(text)
    return _Group(folded, tuple([part.strip(" ") for part in folded.split("^")]))


# The names of a department are asked about over and over. Keys are not kept: any peer may send long ones.
_held_group = lru_cache(maxsize=8192)(_group)


def _groups(name: Any) -> list[_Group | None]:
    """The component groups of a held name, in their order; None for one that is not held."""
    value = name if isinstance(name, Mapping) else person_name_value(str(name))
    groups = [value.get(group) for group in _GROUPS]
    return [_held_group(group) if group and isinstance(group, str) else None for group in groups]


def name_index(name: Mapping[str, Any] | str) -> tuple[str, ...]:
    """What the store keeps of a held name, so that a prefix bound finds it: see `name_prefix`.

    The folded component groups, and the sound of every component behind `SOUND_MARK`.
    """
    groups = [group for group in _groups(name) if group is not None and group.folded]
    sounds = (_held_sound(part)[1] for group in groups for part in group.components if part)
    return tuple(dict.fromkeys((*(group.folded for group in groups), *(SOUND_MARK + each for each in sounds if each))))


def name_prefix(wanted: str, fuzzy: bool = False) -> str:
    """What one entry of `name_index` begins with for every name that the key matches; '' where nothing is known.

    The literal rule: the family name up to a wild card. The fuzzy rule: the first sound of a component.
    """
    groups = [group for group in wanted.strip(" \0").split("=")[:3] if group.strip(" ^")]
    if not fuzzy:
        return before_wild_card(fold_name(groups[0]).split("^")[0]).rstrip(" ") if groups else ""
    # A component without wild cards is one of the name's components, by either rule, and begins with its sound.
    parts = [part for group in groups for part in _group(group).components if part and not is_pattern(part)]
    sounds = sorted((_sound(_spelling(part)) for part in parts), key=len)
    return SOUND_MARK + sounds[-1][0] if sounds and sounds[-1] else ""


def name_test(wanted: str, *, fuzzy: bool = False, whole: bool = False) -> NameTest:
    """The test of held names for one key value.

    `whole`: components beyond those of the key have to be empty, unless the key's last component ends in `*`.
    """
    groups = [_group_test(group, fuzzy, whole) for group in wanted.split("=")[:3]]
    if len(groups) == 1:
        only = groups[0]
        if only is None:
            return lambda held: True

        def any_group(held: Any) -> bool:
            return any(only(group) for group in _groups(held) if group is not None)

        return any_group

    def each_group(held: Any) -> bool:
        names = _groups(held)
        return all(test is None or test(name or _NO_GROUP) for test, name in zip(groups, names, strict=False))

    return each_group


def _group_test(wanted: str, fuzzy: bool, whole: bool) -> _GroupTest | None:
    """The test of one folded component group; None for an empty one."""
    components = list(_group(wanted).components)
    while components and not components[-1]:
        components.pop()
    if not components:
        return None
    closed = whole and not components[-1].endswith("*")
    literally = _literal_test(components, closed)
    if not fuzzy:
        return literally
    alike = _fuzzy_test([part for part in components if part], closed)
    return lambda group: literally(group) or alike(group)


def _literal_test(components: Sequence[str], closed: bool) -> _GroupTest:
    """Each component that the key has equals, or fulfils the pattern of, the one in its place."""
    count = len(components)
    tests = [_component_test(part) if part else None for part in components]
    across = glob("^".join(components)) if any("*" in part for part in components) else None

    def met(group: _Group) -> bool:
        held = group.components
        if len(held) < count:
            held += ("",) * (count - len(held))
        for test, part in zip(tests, held, strict=False):
            if test is not None and not test(part):
                break
        else:
            if not (closed and any(held[count:])):
                return True
        return across is not None and across(group.folded.rstrip("^ "))

    return met


def _component_test(wanted: str) -> _ComponentTest:
    return glob(wanted) if is_pattern(wanted) else wanted.__eq__


def _fuzzy_test(components: Sequence[str], closed: bool) -> _GroupTest:
    tests = [_likeness(part) for part in components]

    def alike(group: _Group) -> bool:
        held = [part for part in group.components if part]
        if not all(any(test(part) for part in held) for test in tests):
            return False
        return not closed or all(any(test(part) for test in tests) for part in held)

    return alike


def _likeness(wanted: str) -> _ComponentTest:
    """Whether a folded component is like this one."""
    if is_pattern(wanted):
        as_held = glob(wanted)
        spelled = "".join(
            part if is_pattern(part) else _spelling(part) for part in _BETWEEN_WILD_CARDS.split(wanted) if part
        )
        as_spelled = glob(spelled)
        return lambda held: as_held(held) or as_spelled(_held_sound(held)[0])
    spelling = _spelling(wanted)
    if not spelling:
        return lambda held: held == wanted
    sound, diphthongs_alike = _sound(spelling), _DIPHTHONG.sub("ai", spelling)

    def alike(held: str) -> bool:
        other, other_sound = _held_sound(held)
        if other == spelling:
            return True
        if not other_sound or other_sound[0] != sound[0]:
            return False
        if _DIPHTHONG.sub("ai", other) == diphthongs_alike:
            return True
        return (len(sound) > 1 and other_sound == sound) or _nearly(spelling, other)

    return alike


def _nearly(left: str, right: str) -> bool:
    shorter = min(len(left), len(right))
    allowed = 2 if shorter >= 8 else 1 if shorter >= 4 else 0
    return abs(len(left) - len(right)) <= allowed and damerau_levenshtein_distance(left, right) <= allowed


def _spelling(folded: str) -> str:
    """A folded component in plain Latin letters and digits; '' where none can be told."""
    plain = folded if folded.isascii() else anyascii(folded).lower()
    return _UMLAUT.sub(r"\1", _NEITHER_LETTER_NOR_DIGIT.sub("", plain))


def _sound(spelling: str) -> str:
    """What a spelling sounds like, roughly and in English; the spelling itself where that is nothing."""
    sound = metaphone(spelling) or spelling
    return "A" + sound[1:] if sound[:1] in tuple("AEIOU") else sound


@lru_cache(maxsize=8192)
def _held_sound(folded: str) -> tuple[str, str]:
    """Spelling and sound of a held component."""
    spelling = _spelling(folded)
    return spelling, _sound(spelling)
