"""Every shipped report in mappings/cases/outbound gives exactly the message beside it, one segment a line."""

import json
from functools import cache
from pathlib import Path

import hl7
import hl7apy.parser
import pytest

from gateway.domain.identifiers import Issuers
from gateway.domain.problem import Problem
from gateway.domain.report import Report
from gateway.mapping_files import load_mappings, outbound_of
from gateway.outbound_cases import AT, HEADER, report
from gateway.wire import er7, hl7_source, strict
from gateway.wire.er7_writer import MessageWriter
from gateway.workflow.kept_reports import CHARACTERS_MAX, kept, restored

MAPPINGS = Path(__file__).parents[2] / "mappings"
CASES = sorted((MAPPINGS / "cases" / "outbound").glob("*.json"))


@cache
def _folder():
    problems: list[Problem] = []
    folder = load_mappings(MAPPINGS, Issuers(), problems)
    assert not problems
    return folder


def shipped(name: str) -> MessageWriter:
    return _folder().outbound[name]


def _case(path: Path):
    said = json.loads(path.read_text(encoding="utf-8"))
    return shipped(said["mapping"]), report(said["report"])


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    writer, told = _case(path)
    message = writer.message(told, HEADER).decode()
    assert message.replace("\r", "\n") == path.with_suffix(".hl7").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_is_built_as_the_standard_says(path: Path) -> None:
    writer, told = _case(path)
    assert [str(each) for each in strict.problems(er7.parse(writer.message(told, HEADER)))] == []


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_an_explanation_has_what_is_written_and_where_each_value_came_from(path: Path) -> None:
    writer, told = _case(path)
    message, trace = writer.explained(told, HEADER)
    assert message == writer.message(told, HEADER)
    assert all(entry.rule and entry.value for entry in trace)
    assert all(entry.where and entry.converter and entry.raw for entry in trace if entry.where)
    name = next(entry for entry in trace if entry.target == "PID-5")
    assert (name.where, name.converter) == ("PatientName", "xpn")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_what_the_archive_keeps_of_a_report_gives_the_same_message(path: Path) -> None:
    writer, told = _case(path)
    again, header = restored(kept(told, HEADER) or b"")
    assert (again, header) == (told, HEADER)
    assert header.at.tzinfo == AT.tzinfo  # its summer times count for other dates in the message
    assert writer.message(again, header) == writer.message(told, HEADER)


def test_a_report_that_is_too_large_is_not_kept() -> None:
    told = Report({"Progress": "started" * CHARACTERS_MAX}, {})
    assert kept(told, HEADER) is None


@pytest.mark.parametrize("name", sorted(_folder().outbound))
def test_a_version_that_the_archive_keeps_is_the_same_mapping(name: str) -> None:
    again = outbound_of(_folder().outbound_content(name), MAPPINGS)
    assert again.name == shipped(name).name


# hl7apy 1.3.5 refuses every ORM^O01 for a CHOICE group that it lacks (design D4), and has no Z segments.
FOR_HL7APY = [path for path in CASES if not path.stem.startswith("orm")]


@pytest.mark.parametrize("path", FOR_HL7APY, ids=lambda path: path.stem)
def test_hl7apy_finds_it_valid(path: Path) -> None:
    writer, told = _case(path)
    lines = writer.message(told, HEADER).decode().split("\r")
    message = hl7apy.parser.parse_message("\r".join(line for line in lines if not line.startswith("ZDS")))
    assert message.validate()


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_python_hl7_reads_the_same_fields(path: Path) -> None:
    writer, told = _case(path)
    raw = writer.message(told, HEADER)
    ours, theirs = er7.parse(raw), hl7.parse(raw.decode())
    assert [str(segment[0]) for segment in theirs] == [segment.name for segment in ours.segments]
    for mine, other in zip(ours.segments[1:], list(theirs)[1:], strict=True):
        assert [str(field) for field in other] == mine.fields
    assert theirs.unescape(str(theirs.segment("PID")[5][0][0])) == ours.first("PID").text(5)


def test_every_shipped_mapping_has_a_case() -> None:
    assert {json.loads(path.read_text(encoding="utf-8"))["mapping"] for path in CASES} == set(_folder().outbound)


ORDERS = [path for path in CASES if path.stem.startswith(("orm-started", "orm-comp", "orm-disc", "om", "oru", "order"))]


@pytest.mark.parametrize("path", [path for path in ORDERS if "walk-in" not in path.stem], ids=lambda path: path.stem)
def test_our_own_inbound_mapping_reads_the_same_numbers(path: Path) -> None:
    """Placer, filler, accession, study, procedure and patient come back as they were told."""
    writer, told = _case(path)
    document = hl7_source.document(er7.parse(writer.message(told, HEADER)))
    result = _folder().mappings["ihe-swf"].apply(document)
    assert not result.refusals
    events = result.events
    assert {event.placer.value for event in events} == {"PL7"}
    assert {event.filler.value for event in events} == {"F7"}
    assert {event.patient.identifiers[0].value for event in events if event.patient.identifiers} <= {"4711"}
    procedures = [each for event in events for each in event.procedures]
    expected = [
        {"0020000D": item["0020000D"], "00080050": item["00080050"], "00401001": item["00401001"]}
        for item in told.items
    ]
    if not path.stem.startswith("oru") and "discontinued" not in path.stem:
        read = [(each.study_instance_uid, each.accession.value, each.requested_procedure_id) for each in procedures]
        assert read == [tuple(held["Value"][0] for held in each.values()) for each in expected]
