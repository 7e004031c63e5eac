"""Wild cards in query keys (PS3.4 C.2.2.2.4): `*` any run of characters, `?` any one of them.

A character that could not be decoded (U+FFFD) is `?`: the device meant one, and it is not known which.
"""

import re
from collections.abc import Callable

_WILD = re.compile(r"[*?\ufffd]")
_STARS = re.compile(r"\*+")


def is_pattern(text: str) -> bool:
    """Whether the text has a wild card."""
    return _WILD.search(text) is not None


def before_wild_card(text: str) -> str:
    """The text up to its first wild card."""
    return _WILD.split(text, maxsplit=1)[0]


def glob(wanted: str) -> Callable[[str], bool]:
    """Whether a whole text fulfils a pattern. Atomic groups keep a key of many stars linear in each star.

    Compiled when a text is met that may be long enough: a key as long as a dataset allows would take seconds.
    """
    least = len(wanted) - wanted.count("*")
    fullmatch: Callable[[str], object] | None = None

    def met(text: str) -> bool:
        nonlocal fullmatch
        if len(text) < least:
            return False
        if fullmatch is None:
            fullmatch = _compiled(wanted).fullmatch
        return fullmatch(text) is not None

    return met


def _compiled(wanted: str) -> re.Pattern[str]:
    parts = [
        "".join("." if letter in "?\ufffd" else re.escape(letter) for letter in part) for part in _STARS.split(wanted)
    ]
    if len(parts) == 1:
        return re.compile(parts[0], re.DOTALL)
    middle = "".join(f"(?>.*?{part})" for part in parts[1:-1])
    return re.compile(f"{parts[0]}{middle}.*{parts[-1]}", re.DOTALL)
