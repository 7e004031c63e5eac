"""Edits: small changes to a text before it is converted (`edit:`), ours and a site's own Python functions.

An edit is a pure function of the text that reading begins with. A site's function is declared by name in the rule set,
tried on its example before the first message, and told apart from ours by nothing else: it is traced and explained
like them, and what it raises is a refusal that names it.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.domain.converters import Converter, Setting, Unconvertible, part
from gateway.domain.refusal import RefusalKind
from gateway.domain.source import NULL, Repetition

Edit = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class TextEdit:
    """A row of the table: how an edit is named, what it has to be told, and what it does.

    `needs` is '', 'text', 'number' or 'pattern' (one that `is_date_pattern`).
    """

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


_DATE_PARTS = {"YYYY": r"\d{4}", "MM": r"\d{1,2}", "DD": r"\d{1,2}", "hh": r"\d{1,2}", "mm": r"\d{2}", "ss": r"\d{2}"}
_DATE_PART = re.compile("|".join(_DATE_PARTS))


def is_date_pattern(pattern: str) -> bool:
    """Whether it has year, month and day, each part once, and no part of a time without the greater ones."""
    parts = _DATE_PART.findall(pattern)
    return sorted(parts, key=list(_DATE_PARTS).index) == list(_DATE_PARTS)[: max(len(parts), 3)]


def _date(pattern: str) -> Edit:
    pieces = re.split(f"({_DATE_PART.pattern})", pattern)
    form = "".join(
        f"(?P<{piece}>{_DATE_PARTS[piece]})" if piece in _DATE_PARTS else re.escape(piece) for piece in pieces
    )
    written = re.compile(form)

    def edit(text: str) -> str:
        found = written.fullmatch(text.strip())
        if found is None:  # not a date of this kind: another edit or the converter may know it
            return text
        return "".join(found[part].zfill(len(part)) for part in _DATE_PARTS if part in pieces)

    return edit


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
        TextEdit("date", "pattern", "a local date as HL7 writes it: YYYY, MM, DD and for a time hh, mm, ss, as in "
                 "DD.MM.YYYY hh:mm; what is written otherwise stays", _date),
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

    def raised_at(self, error: BaseException) -> str:
        """Where in the function's file an exception came from."""
        line = line_raised(error, inspect.getfile(self.function))
        return f"{self.place.rpartition(':')[0]}:{line}" if line else self.place

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
                    f"send another value, or change {self.raised_at(error)}", 1,
                ) from error  # fmt: skip
            except (Exception, SystemExit) as error:
                raise Unconvertible(
                    RefusalKind.BAD_VALUE, f"the site's converter {name} failed: {type(error).__name__}: {error}"[:200],
                    f"mend {self.raised_at(error)}", 1,
                ) from error  # fmt: skip
            if found is None or isinstance(found, str):
                return found or ""
            raise Unconvertible(
                RefusalKind.BAD_VALUE, f"the site's converter {name} gave {type(found).__name__} instead of a text",
                f"mend {self.place}", 1,
            )  # fmt: skip

        return edit


def line_raised(error: BaseException, file: str) -> int | None:
    """The line of the file that an exception came from; None where it has nothing to do with it."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


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
