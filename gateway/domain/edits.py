"""Edits: small changes to a text before it is converted (`edit:`), ours and a site's own Python functions.

An edit is a pure function of the text that reading begins with. A site's function is declared by name in the rule set,
tried on its example before the first message, and told apart from ours by nothing else: it is traced and explained
like them, and what it raises is a refusal that names it.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.domain.converters import Converter, Setting, Unconvertible, part
from gateway.domain.refusal import RefusalKind
from gateway.domain.source import NULL, Repetition

Edit = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class TextEdit:
    """A row of the table: how an edit is named, what it has to be told ('', 'text' or 'number'), and what it does."""

    name: str
    needs: str
    does: str
    make: Callable[[Any], Edit]


def _before(separator: str) -> Edit:
    return lambda text: text.split(separator, 1)[0].strip()


def _after(separator: str) -> Edit:
    return lambda text: text.split(separator, 1)[1].strip() if separator in text else text


def _digits(text: str) -> str:
    return "".join(character for character in text if character in "0123456789")


EDITS: Mapping[str, TextEdit] = {
    row.name: row
    for row in (
        TextEdit("upper", "", "capital letters", lambda _: str.upper),
        TextEdit("lower", "", "small letters", lambda _: str.lower),
        TextEdit("digits", "", "the digits, without everything else", lambda _: _digits),
        TextEdit("strip-leading-zeros", "", "without zeros in front; the last one stays",
                 lambda _: lambda text: text.lstrip("0") or text[-1:]),
        TextEdit("no-blanks", "", "without blanks anywhere", lambda _: lambda text: "".join(text.split())),
        TextEdit("prefix", "text", "with this in front, unless it is there already",
                 lambda said: lambda text: text if text.startswith(said) else said + text),
        TextEdit("suffix", "text", "with this at the end, unless it is there already",
                 lambda said: lambda text: text if text.endswith(said) else text + said),
        TextEdit("drop-prefix", "text", "without this in front", lambda said: lambda text: text.removeprefix(said)),
        TextEdit("drop-suffix", "text", "without this at the end", lambda said: lambda text: text.removesuffix(said)),
        TextEdit("before", "text", "what stands before the first of these; all where there is none", _before),
        TextEdit("after", "text", "what stands after the first of these; all where there is none", _after),
        TextEdit("first", "number", "so many characters from the beginning", lambda n: lambda text: text[:n]),
        TextEdit("last", "number", "so many characters from the end", lambda n: lambda text: text[-n:]),
    )
}  # fmt: skip
"""The edits that a rule may name."""


@dataclass(frozen=True, slots=True)
class SiteFunction:
    """A Python function of the site: its name in rule files (`ids.clean_mrn`), where it is, what its file says."""

    name: str
    function: Callable[[str], Any]
    place: str
    digest: str = ""

    @property
    def summary(self) -> str:
        """The function's docstring, for traces and documentation."""
        return " ".join((inspect.getdoc(self.function) or "").split())

    def unfit(self) -> str:
        """Why it cannot be an edit by its signature; '' where it can."""
        try:
            parameters = list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):
            return "its parameters cannot be told"
        plain = [one for one in parameters if one.default is one.empty and one.kind is not one.VAR_POSITIONAL]
        if inspect.iscoroutinefunction(self.function):
            return "it is asynchronous"
        if len(plain) != 1 or plain[0].kind in (plain[0].KEYWORD_ONLY, plain[0].VAR_KEYWORD):
            return "it has to take one text"
        return ""

    def named(self, name: str) -> Edit:
        """The function as an edit. What goes wrong inside is Unconvertible, naming the converter and its place."""

        def edit(text: str) -> str:
            try:
                found = self.function(text)
            except ValueError as error:  # the function's way to say no
                raise Unconvertible(
                    RefusalKind.BAD_VALUE, f"{text[:80]!r} is not taken by the site's converter {name}: {error}",
                    f"send another value, or change {self.place}", 1,
                ) from error  # fmt: skip
            except (Exception, SystemExit) as error:
                raise Unconvertible(
                    RefusalKind.BAD_VALUE, f"the site's converter {name} failed: {type(error).__name__}",
                    f"mend {self.place}", 1,
                ) from error  # fmt: skip
            if found is None or isinstance(found, str):
                return found or ""
            raise Unconvertible(
                RefusalKind.BAD_VALUE, f"the site's converter {name} gave {type(found).__name__} instead of a text",
                f"mend {self.place}", 1,
            )  # fmt: skip

        return edit


def edited(repetition: Repetition, edits: tuple[Edit, ...]) -> Repetition:
    """The repetition with its first text edited; nothing and the HL7 null stay. Raises Unconvertible."""
    said = part(repetition, 1)
    if not said or repetition[0][0] == NULL:
        return repetition
    for edit in edits:
        said = edit(said)
        if not said:
            break
    return ((said, *repetition[0][1:]), *repetition[1:])


def after_edits(converter: Converter, edits: tuple[Edit, ...]) -> Converter:
    """The converter, put to texts that were edited."""
    if not edits:
        return converter
    function, row = converter.function, converter.row

    def convert(said: Any, setting: Setting) -> Any:
        if converter.joint:
            return function([edited(repetition, edits) for repetition in said], setting)
        return function(edited(said, edits), setting)

    def row_of(repetition: Repetition, setting: Setting) -> str:
        return row(edited(repetition, edits), setting) if row else ""

    return Converter(converter.name, convert, converter.vrs, converter.joint, row_of if row else None)
