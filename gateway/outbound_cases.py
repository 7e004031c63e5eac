"""Golden cases of outbound mappings: a report as people write it, and the HL7 v2 message that it must give.

A case is `cases/outbound/NAME.json` and beside it `NAME.hl7`, one segment a line. The report has attributes by their
keyword, codes as `code^meaning^scheme` and names as in DICOM; `facts` are those of `domain.report.FACTS`.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.case_files import OUTBOUND, CaseError
from gateway.domain.attributes import Attributes, code_item, person_name_value
from gateway.domain.outbound_sources import known_attributes
from gateway.domain.problem import one_of
from gateway.domain.refusal import Refused
from gateway.domain.report import FACTS, Header, Report
from gateway.wire.er7_writer import MessageWriter

AT = datetime(2026, 7, 5, 10, 15, 2, tzinfo=ZoneInfo("Europe/Berlin"))
HEADER = Header("GATEWAY", "RADIOLOGY", "RIS", "HOSPITAL", "0123456789ABCDEF0123", AT)
"""What a case that says nothing else under `header` is written with."""

_HEADER_KEYS = ("sending_application", "sending_facility", "receiving_application", "receiving_facility", "charset",
                "timezone")  # fmt: skip
_KEYS = ("mapping", "report", "header")
_PARTS = ("facts", "person", "items", "performed", "first")


@dataclass(frozen=True, slots=True)
class OutboundCase:
    """One golden case. `expected` is None where nobody said yet what it must give."""

    name: str
    file: Path
    mapping: str
    report: Report = field(repr=False)
    header: Header = field(repr=False)
    expected: str | None = field(repr=False)

    @property
    def expected_file(self) -> Path:
        return self.file.with_suffix(".hl7")

    @property
    def files(self) -> tuple[Path, ...]:
        return self.file, self.expected_file


@dataclass(frozen=True, slots=True)
class OutboundResult:
    """What a case gave, and where that is not what it must give."""

    case: OutboundCase
    got: str = field(repr=False)
    differences: tuple[str, ...] = field(repr=False)

    @property
    def passed(self) -> bool:
        return self.case.expected is not None and not self.differences

    def accept(self) -> None:
        """Say from now on that this is what the case must give."""
        self.case.expected_file.write_text(self.got, encoding="utf-8", newline="\n")


def outbound_cases_in(folder: Path, known: Collection[str]) -> list[OutboundCase]:
    """The cases below `folder` (the cases folder), by name; `known` are the outbound mappings. Raises CaseError."""
    return [read_outbound_case(path, folder, known) for path in sorted((folder / OUTBOUND).rglob("*.json"))]


def read_outbound_case(file: Path, folder: Path, known: Collection[str]) -> OutboundCase:
    """The case of one file in the cases folder. Raises CaseError."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        strange = [*(key for key in said if key not in _KEYS), *(key for key in said["report"] if key not in _PARTS)]
        if strange:
            raise CaseError(f"{strange[0]!r} is no key here; have: {', '.join((*_KEYS, *_PARTS))}")
        mapping, told, header = str(said["mapping"]), report(said["report"]), _header(said.get("header", {}))
    except CaseError as error:
        raise CaseError(f"{file}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CaseError(f"{file}: is no case: {type(error).__name__}: {error}") from None
    if mapping not in known:
        raise CaseError(f"{file}: there is no outbound mapping {mapping!r}: {one_of(mapping, known)}")
    expected_file = file.with_suffix(".hl7")
    expected = expected_file.read_text(encoding="utf-8") if expected_file.is_file() else None
    name = file.relative_to(folder).as_posix().removesuffix(".json")
    return OutboundCase(name, file, mapping, told, header, expected)


def _header(said: Mapping[str, str]) -> Header:
    strange = [key for key in said if key not in _HEADER_KEYS]
    if strange:
        raise CaseError(f"`header` has no {strange[0]}; it may have {', '.join(_HEADER_KEYS)}")
    rest = {key: str(value) for key, value in said.items() if key != "timezone"}
    try:
        at = AT.astimezone(ZoneInfo(said.get("timezone", "Europe/Berlin")))
    except (ZoneInfoNotFoundError, ValueError):
        raise CaseError(f"{said['timezone']!r} is no time zone name such as Europe/Berlin") from None
    return replace(HEADER, at=at, **rest)


def run_outbound_cases(
    cases: Sequence[OutboundCase], mappings: Mapping[str, MessageWriter]
) -> Iterator[OutboundResult]:
    """Each case's result: the message, one segment a line, or a line for each reason why there is none."""
    for case in cases:
        try:
            raw = mappings[case.mapping].message(case.report, case.header)
            # Bytes of another character set show as what they are.
            got = raw.decode("utf-8", "backslashreplace").replace("\r", "\n")
        except Refused as refused:
            got = "".join(f"refused: {refusal}\n" for refusal in refused.refusals)
        yield OutboundResult(case, got, tuple(_differences(case.expected or "", got)))


def _differences(expected: str, got: str) -> Iterator[str]:
    """Field by field where the same segments stand, else line by line."""
    then, now = expected.splitlines(), got.splitlines()
    same = [line[:3] for line in then] == [line[:3] for line in now]
    counts: dict[str, int] = {}
    for old, new in zip_longest(then, now, fillvalue=""):
        segment = new[:3] or old[:3]
        counts[segment] = counts.get(segment, 0) + 1
        if old == new:
            continue
        place = f"{segment}[{counts[segment]}]" if counts[segment] > 1 else segment
        if not same:
            yield f"{place}: {new or 'nothing'} in place of {old or 'nothing'}"
            continue
        first = 1 if segment == "MSH" else 0
        for number, (was, is_now) in enumerate(zip_longest(old.split("|"), new.split("|"), fillvalue="")):
            if was != is_now:
                yield f"{place}-{number + first}: {is_now or 'nothing'} in place of {was or 'nothing'}"


# ---- reports as people write them ------------------------------------------------------------------------------------

_KNOWN = known_attributes("performed")


def report(said: Mapping[str, Any]) -> Report:
    """The report that this describes. Raises CaseError for an attribute or a fact that there is not."""
    facts = {str(name): str(value) for name, value in said.get("facts", {}).items()}
    for name in facts:
        if name.partition(" ")[0] not in FACTS:
            raise CaseError(f"there is no fact {name!r}: {one_of(name, FACTS)}")
    return Report(
        facts,
        _attributes(said.get("person", {})),
        tuple(_attributes(item) for item in said.get("items", ())),
        _attributes(said.get("performed", {})),
        bool(said.get("first", True)),
    )


def _attributes(said: Mapping[str, Any]) -> Attributes:
    """Attributes in the DICOM JSON Model; an attribute without a value is there and empty."""
    made: Attributes = {}
    for keyword, values in said.items():
        if keyword not in _KNOWN:
            raise CaseError(f"there is no attribute {keyword!r}: {one_of(keyword, _KNOWN)}")
        tag, vr = _KNOWN[keyword]
        found = [_value(vr, value) for value in (values if isinstance(values, list) else [values]) if value != ""]
        made[tag] = {"vr": vr, "Value": found} if found else {"vr": vr}
    return made


def _value(vr: str, value: Any) -> Any:
    if vr == "PN":
        return person_name_value(value)
    if vr == "SQ" and isinstance(value, str):
        if value.count("^") != 2:
            raise CaseError(f"{value!r} is no code: write code^meaning^scheme")
        code, meaning, scheme = value.split("^")
        return code_item(code, scheme, meaning)
    return _attributes(value) if isinstance(value, dict) else value
