"""What a message would do, told so that an interface engineer can follow it: source, raw value, rule, converter.

For a refusal it tells the nearest fix. For people with the right to see the message: the explanation quotes it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.domain.attributes import text, values
from gateway.domain.converters import Assigned, cx, ei
from gateway.domain.mapping import Mapping as FieldMapping
from gateway.domain.mapping import TraceEntry
from gateway.domain.order import Order
from gateway.domain.refusal import Refusal, Refused
from gateway.domain.rules import STEP_PREFIX
from gateway.domain.source import Entry, Repetition
from gateway.wire import fhir_json, fhir_xml, hl7_source
from gateway.wire.er7_writer import MessageWriter
from gateway.wire.fhir_release import Release
from gateway.wire.hl7_names import field_name
from gateway.workflow.fhir_feed import FHIRFeed
from gateway.workflow.fhir_meaning import meanings, meanings_of_file
from gateway.workflow.fixes import Fix, fixes
from gateway.workflow.intake import Feed, preview, previewed
from gateway.workflow.kept_reports import restored
from gateway.workflow.rereading import AnyFeed, speech_kept

Rehearse = Callable[[bytes], Sequence[str]]
"""Says what a message would do to what is held now."""


@dataclass(frozen=True, slots=True)
class FHIRSaid:
    """What is known of a FHIR request beside its bytes: what the archive `kept`, or the release of a bare file."""

    kept: bytes | None = field(default=None, repr=False)
    release: Release = Release.R4


def explanation(
    raw: bytes, feed: AnyFeed, rehearse: Rehearse | None = None, said: FHIRSaid | None = None
) -> dict[str, Any]:
    """The mapping's trace, the worklist items on an empty store, notes, and each refusal with its fixes.

    With `rehearse` also what it would do to the store as it is. `said` is what is to be explained of FHIR.
    """
    if isinstance(feed, FHIRFeed):
        now = {"now": list(rehearse(raw))} if rehearse is not None else {}
        return _explanation_of_fhir(raw, feed, said or FHIRSaid()) | now
    read, entries = _read(raw, feed)
    told: dict[str, Any] = {"mapping": feed.mapping.version_id, "listener": feed.name, **read}
    try:
        seen = preview(raw, feed)
    except Refused as refused:
        return told | _refusals(refused.refusals, feed.mapping, entries)
    told |= {
        "does": [type(event).__name__ for event in seen.result.events],
        "trace": [_traced(entry) for entry in seen.result.trace],
        "items": [item for order in seen.orders for item in _items(order)],
        "authorities": _authorities(entries, feed.mapping, feed),
        "notes": [*read["notes"], *seen.result.notes, *seen.notes],
    }
    if rehearse is not None:
        told["now"] = list(rehearse(raw))
    return told | _refusals(seen.refusals, feed.mapping, entries)


def _explanation_of_fhir(raw: bytes, feed: FHIRFeed, said: FHIRSaid) -> dict[str, Any]:
    """The same of a FHIR request: a file is its own world, an archived request is read as it was kept."""
    speech = speech_kept(said.kept)
    release = speech.release if speech is not None else said.release
    mapping = feed.mapping(release)
    told: dict[str, Any] = {
        "mapping": mapping.version_id, "listener": feed.name, "type": f"FHIR {release}", "control_id": "",
        "version": release.version, "sender": "", "notes": [],
    }  # fmt: skip
    try:
        if speech is not None:
            meant = meanings(speech, feed, trace=True)
        else:
            is_xml = raw.lstrip()[:1] == b"<"
            meant = meanings_of_file(fhir_xml.parse(raw, release) if is_xml else fhir_json.parse(raw), release, feed)
    except Refused as refused:
        return told | _refusals(refused.refusals, mapping, ())
    entries = tuple(entry for each in meant if each.document is not None for entry in each.document.entries)
    seen = [previewed(replace(each.result, events=each.news), feed.mint) for each in meant]
    told |= {
        "does": [type(event).__name__ for each in seen for event in each.result.events],
        "trace": [_traced(entry) for each in seen for entry in each.result.trace],
        "items": [item for each in seen for order in each.orders for item in _items(order)],
        "authorities": _authorities(entries, mapping, feed),
        "notes": list(dict.fromkeys(note for each in seen for note in (*each.result.notes, *each.notes))),
    }
    return told | _refusals([refusal for each in seen for refusal in each.refusals], mapping, entries)


def explanation_of_written(report: bytes, writer: MessageWriter, sent: bytes) -> dict[str, Any]:
    """How a message of ours came about: each field with its source, or why it could not be written.

    `report` is what the archive kept (`workflow.kept_reports`), `sent` the message as it was made then.
    """
    told: dict[str, Any] = {"mapping": writer.name, "trace": [], "notes": [], "refusals": []}
    try:
        message, trace = writer.explained(*restored(report))
    except Refused as refused:
        return told | {"refusals": [str(each) for each in refused.refusals]}
    told["trace"] = [{**entry._asdict(), "name": field_name(_field_of(entry.target))} for entry in trace]
    if message != sent:
        told["notes"].append("made again it is not the same, byte by byte: the release has changed since")
    return told


def _field_of(target: str) -> str:
    """The field of a target such as `OBR[2]-4.4` or `OBX of study-5`, without its place in the message."""
    return f"{target[:3]}-{target.rpartition('-')[2]}"


def _read(raw: bytes, feed: Feed) -> tuple[dict[str, Any], tuple[Entry, ...]]:
    """What the message says of itself and what was tolerated in reading it, as far as that goes; and its entries."""
    try:
        message = feed.read(raw)
    except Refused:
        return {"notes": []}, ()
    said = {
        "type": f"{message.message_code}^{message.trigger_event}",
        "control_id": message.control_id,
        "version": message.version,
        "sender": message.sender,
        "character_set": message.charset,
    }
    try:
        document = hl7_source.document(message)
    except Refused:
        return {**said, "notes": list(message.notes)}, ()
    return {**said, "notes": [*message.notes, *document.notes]}, document.entries


_ASSIGNED: Mapping[str, Callable[[Repetition], Assigned]] = {
    "PatientID": cx,
    "PriorPatientID": cx,
    "AdmissionID": cx,
    "PlacerOrderNumberImagingServiceRequest": ei,
    "FillerOrderNumberImagingServiceRequest": ei,
    "AccessionNumber": ei,
}


def _authorities(entries: Iterable[Entry], mapping: FieldMapping, feed: AnyFeed) -> list[str]:
    """Who issued each identifier, and by which line of `issuers` that is known: only so are two of them the same."""
    told: dict[str, None] = {}
    of_fhir = isinstance(feed, FHIRFeed)
    for entry in entries:
        for keyword, parse in _ASSIGNED.items():
            paths = mapping.rules.identity[keyword].paths
            said = next((found for path in paths if (found := entry.read(path))), ())
            for sourced in said:
                assigned = (cx if of_fhir else parse)(sourced.repetition)  # an Identifier is read as a CX, whatever of
                if assigned.value:
                    why = feed.issuers.explain(assigned.namespace, assigned.universal_id, feed.issuer)
                    told[f"{sourced.where}: {why}"] = None
    return list(told)


def _refusals(refusals: Iterable[Refusal], mapping: FieldMapping, entries: tuple[Entry, ...]) -> dict[str, Any]:
    listed = list(dict.fromkeys(refusals))
    once: dict[Fix, Refusal] = {}  # one row of a table may mend several refusals
    for each in listed:
        for fix in fixes(each, mapping, entries):
            once[fix] = each
    return {
        "refusals": [str(each) for each in listed],
        "fixes": [
            {"refusal": str(each), "text": fix.text, "file": fix.file, "line": fix.line} for fix, each in once.items()
        ],
    }


def _traced(entry: TraceEntry) -> dict[str, str]:
    return {**entry._asdict(), "name": field_name(entry.where)}


def _items(order: Order) -> list[dict[str, str]]:
    return [
        {
            "accession": text(procedure.attributes, "AccessionNumber"),
            "study_instance_uid": procedure.study_instance_uid,
            "sps_id": step.sps_id,
            "stations": ", ".join(values(step.attributes, "ScheduledStationAETitle")),
            "modality": text(step.attributes, "Modality"),
            "start": text(step.attributes, "ScheduledProcedureStepStartDate")
            + " "
            + text(step.attributes, "ScheduledProcedureStepStartTime"),
            "status": step.status.value,
        }
        for procedure in order.procedures
        for step in procedure.steps
    ]


# ---- for the screen --------------------------------------------------------------------------------------------


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


_FIELD_NAME = "Field name"
_TITLES = ("Source", _FIELD_NAME, "Raw", "", "Target", "Value", "Converter", "Rule")


def render(explained: dict[str, Any], console: Console) -> None:
    """Print an explanation as tables; with colours where the console shows them."""
    heading = Text(explained["file"], style="bold")
    heading.append(f", mapping {explained['mapping']}", style="not bold")
    if explained.get("type"):
        heading.append(f", {explained['type']}", "dim")
        for before, key in ((" of ", "sender"), (", control ID ", "control_id")):
            if explained[key]:
                heading.append(f"{before}{explained[key]}", "dim")
    console.print(heading)
    if explained.get("trace"):
        named = any(entry["name"] for entry in explained["trace"])  # a place in FHIR is its own name
        table = _table(*(title for title in _TITLES if named or title != _FIELD_NAME))
        for entry in explained["trace"]:
            row = _trace_row(entry)
            table.add_row(*(row if named else (row[0], *row[2:])))
        console.print(table)
    if explained.get("items"):
        console.print("\n[bold]Worklist items, were the store empty[/bold]")
        table = _table(*explained["items"][0])
        for item in explained["items"]:
            table.add_row(*map(Text, item.values()))
        console.print(table)
    for line in explained.get("authorities", ()):
        _say(console, f"issuer of {line}", "dim")
    for line in explained.get("now", ()):
        _say(console, f"now: {line}", "cyan")
    for note in explained.get("notes", ()):
        _say(console, f"note: {note}", "yellow")
    for refusal in explained["refusals"]:
        _say(console, f"refused: {refusal}", "red")
        for fix in explained["fixes"]:
            if fix["refusal"] == refusal:
                _say(console, "  fix: " + (f"{fix['file']}: " if fix["file"] else "") + fix["text"], "green")
                if fix["line"]:
                    _say(console, f"    {fix['line']}", "bold green")


_WRITTEN_TITLES = ("Target", "Field name", "Value", "", "Source", "Raw", "Converter", "Rule")


def render_written(explained: dict[str, Any], console: Console) -> None:
    """Print the explanation of a message of ours; as `render`."""
    heading = Text(explained["file"], style="bold")
    heading.append(f", written by {explained['mapping']}", style="not bold")
    console.print(heading)
    if explained["trace"]:
        table = _table(*_WRITTEN_TITLES)
        for entry in explained["trace"]:
            made_up = "" if entry["where"] else "dim"
            rule = entry["rule"].removesuffix(f" rules.{_field_of(entry['target'])}")
            table.add_row(
                Text(entry["target"], "bold"), Text(entry["name"], "dim"), Text(entry["value"], made_up or "green"),
                Text("<-", "dim"), Text(entry["where"], "cyan"), Text(entry["raw"]),
                Text(entry["converter"] if entry["where"] else "constant", made_up), Text(rule.rstrip(":"), "dim"),
            )  # fmt: skip
        console.print(table)
    for note in explained["notes"]:
        _say(console, f"note: {note}", "yellow")
    for refusal in explained["refusals"]:
        _say(console, f"not written: {refusal}", "red")


def _trace_row(entry: dict[str, str]) -> list[Text]:
    # The rule is named by its attribute, which is the target already; `>` is the step's sequence.
    rule = entry["rule"].removesuffix(f" rules.{entry['target']}").removesuffix(f" identity.{entry['target']}")
    made_up = "" if entry["where"] else "dim"
    return [
        Text(entry["where"], "cyan"),
        Text(entry["name"], "dim"),
        Text(entry["raw"]),
        Text("->", "dim"),
        Text(entry["target"].replace(STEP_PREFIX, ">"), "bold"),
        Text(entry["value"], "green" if entry["where"] else made_up),
        Text(entry["converter"], made_up),
        Text(rule.rstrip(":"), "dim"),
    ]


def _say(console: Console, line: str, style: str) -> None:
    console.print(line, markup=False, highlight=False, style=style, soft_wrap=True)
