"""Distinguished names of LDAP as text (RFC 4514): written so that no value can become structure, and taken apart.

Names of devices and AE titles come from people and from other directories: a comma, a plus sign or a quotation mark
in one must never move an entry elsewhere.
"""

from dataclasses import dataclass
from functools import lru_cache

_SPECIAL = '"+,;<>\\='  # '=' need not be escaped, and may be: some readers take it for structure
_EXACT = frozenset({"dicomaetitle"})  # caseExactIA5Match; whatever else names entries here is matched without case
_HEX = frozenset("0123456789abcdefABCDEF")

_READ_CLOSELY = frozenset('\\"+;#')

Part = tuple[str, str]
"""An attribute type and its value."""
RDN = tuple[Part, ...]


class DNError(ValueError):
    """A text that is no distinguished name."""


@dataclass(frozen=True, slots=True)
class DN:
    """A distinguished name, from the entry up to the root."""

    rdns: tuple[RDN, ...] = ()

    @property
    def parent(self) -> "DN":
        """The name without its first part; that of the root is the root."""
        return DN(self.rdns[1:])

    @property
    def key(self) -> tuple[frozenset[Part], ...]:
        """The same for names that mean the same entry: case and superfluous spaces count in AE titles only."""
        return tuple(map(_compared_rdn, self.rdns))

    def is_below(self, other: "DN") -> bool:
        """Whether it stands anywhere below the other."""
        depth = len(other.rdns)
        return len(self.rdns) > depth and self.key[len(self.rdns) - depth :] == other.key

    def child(self, *parts: Part) -> "DN":
        """The name of an entry right below, with one part or several."""
        return DN((tuple(parts), *self.rdns))

    def value(self, kind: str) -> str:
        """The value that its first part has for an attribute; '' for none."""
        for each, value in self.rdns[0] if self.rdns else ():
            if each.lower() == kind.lower():
                return value
        return ""

    def __str__(self) -> str:
        return ",".join("+".join(f"{kind}={escaped(value)}" for kind, value in rdn) for rdn in self.rdns)


@lru_cache(maxsize=4096)  # most parts are those of parents
def _compared_rdn(rdn: RDN) -> frozenset[Part]:
    return frozenset(_compared(kind.lower(), value) for kind, value in rdn)


def _compared(kind: str, value: str) -> Part:
    return kind, value if kind in _EXACT else " ".join(value.split()).casefold()


def escaped(value: str) -> str:
    """A value as it stands in a name (RFC 4514 section 2.4)."""
    text = "".join(_escaped_letter(letter) for letter in value)
    if text.startswith((" ", "#")):
        text = "\\" + text
    if text.endswith(" ") and len(value) > 1:
        text = text[:-1] + "\\ "
    return text


def _escaped_letter(letter: str) -> str:
    if letter in _SPECIAL:
        return "\\" + letter
    if letter < " " or letter == "\x7f":
        return f"\\{ord(letter):02x}"
    return letter


def parse_dn(text: str) -> DN:
    """The name that a text is; an empty one is the root. Raises DNError."""
    if not text.strip():
        return DN()
    if not _READ_CLOSELY.isdisjoint(text):
        return DN(tuple(tuple(_part(part) for part in _split(rdn, "+")) for rdn in _split(text, ",;")))
    return DN(tuple((_plain_part(part),) for part in text.split(",")))


def _split(text: str, separators: str) -> list[str]:
    """Apart at the separators that are neither escaped nor, as older writers do it, inside quotation marks."""
    parts = [""]
    escaping = quoted = False
    for letter in text:
        if not escaping and not quoted and letter in separators:
            parts.append("")
            continue
        if letter == '"' and not escaping:
            quoted = not quoted
        escaping = letter == "\\" and not escaping
        parts[-1] += letter
    if escaping or quoted:
        raise DNError("it ends inside an escape or a quotation")
    return parts


@lru_cache(maxsize=4096)
def _plain_part(text: str) -> Part:
    return _part(text)


def _part(text: str) -> Part:
    kind, equals, value = text.partition("=")
    kind = kind.strip(" ")
    if not equals or not kind or not all(each.isalnum() or each in "-._" for each in kind):
        raise DNError("a part of it is not of the form attribute=value")
    return kind, _value(value)


def _value(text: str) -> str:
    """Outer spaces do not count unless they are escaped."""
    text = text.lstrip(" ")
    if text.startswith("#"):
        return _from_hex(text[1:].rstrip(" "))
    if text.startswith('"') and text.rstrip(" ").endswith('"') and len(text.rstrip(" ")) > 1:
        text = text.rstrip(" ")[1:-1]
    else:
        while text.endswith(" ") and not _is_escaped(text, len(text) - 1):
            text = text[:-1]
    return _unescaped(text)


def _is_escaped(text: str, position: int) -> bool:
    before = text[:position]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _unescaped(text: str) -> str:
    data = bytearray()
    position = 0
    while position < len(text):
        letter = text[position]
        pair = text[position + 1 : position + 3]
        if letter != "\\":
            data += letter.encode()
            position += 1
        elif len(pair) == 2 and set(pair) <= _HEX:
            data.append(int(pair, 16))
            position += 3
        else:
            data += pair[:1].encode()
            position += 2
    return _text(bytes(data))


def _from_hex(text: str) -> str:
    """A value given as the BER of a string: tag, length, bytes."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        raise DNError("a value of it begins with # and is not hexadecimal") from None
    if len(data) < 2 or data[1] > 0x7F or len(data) != data[1] + 2:
        raise DNError("a value of it begins with # and is no short string")
    return _text(data[2:])


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DNError("a value of it is not UTF-8") from None
