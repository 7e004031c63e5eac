"""The commands `gateway worklist`: the list as devices see it, why an item is or is not on it, import and expiry."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from gateway.commands.console import (
    CONFIG,
    ConfigOption,
    JSONOption,
    err,
    fail,
    moment,
    out,
    print_json,
    print_table,
    site_of,
    store_of,
)

if TYPE_CHECKING:
    from gateway.config import Site
    from gateway.domain.attributes import Attributes
    from gateway.domain.worklist import WorklistItem
    from gateway.edges.store import Store
    from gateway.workflow.ports import QueryRecord, StoredQuery
    from gateway.workflow.query import Caller
    from gateway.workflow.why import Finding

worklist = typer.Typer(help="The worklist as devices see it.", no_args_is_help=True)

CalledOption = Annotated[
    str, typer.Option(help="The called AE title, where there are several worklists; default: the one there is.")
]


@worklist.command("list")
def worklist_list(
    config: ConfigOption = CONFIG,
    seen_by: Annotated[str, typer.Option("--as", help="As the device with this AE title sees it.")] = "",
    called: CalledOption = "",
    date: Annotated[str, typer.Option(help="Scheduled day, YYYYMMDD, or 'today'.")] = "",
    all_states: Annotated[bool, typer.Option("--all", help="Also what is no longer listed.")] = False,
    json_output: JSONOption = False,
) -> None:
    """The worklist, by start; with --as exactly what that device is answered that names no other key."""
    from gateway.domain.matching import Narrowing
    from gateway.domain.worklist import LISTED, SPSStatus
    from gateway.processing import now
    from gateway.workflow.replay import replay

    site = site_of(config)
    if date == "today":
        date = site.wall_clock(now()).strftime("%Y%m%d")
    if date and not (len(date) == 8 and date.isdecimal()):
        raise typer.BadParameter("a day is written YYYYMMDD, or 'today'", param_hint="--date")
    if called and not seen_by:
        raise typer.BadParameter("say with --as who calls it", param_hint="--called")
    caller = _caller(site, seen_by, called) if seen_by else None
    reader = store_of(config).reader
    beyond = 0
    if caller is None:
        narrowing = Narrowing(
            start_from=f"{date}000000" if date else "",
            start_to=f"{date}235959" if date else "",
            statuses=frozenset(SPSStatus) if all_states else LISTED,
        )
        items = reader.items([step_id for step_id, _ in reader.candidates(narrowing)])
    else:
        if all_states:
            caller = replace(caller, view=replace(caller.view, statuses=frozenset(SPSStatus)))
        answered = replay(reader, caller, _query_for_a_day(date))
        items, beyond = answered.items, answered.beyond
    if json_output:
        print_json([item.attributes for item in items])
        return
    print_table(ITEM_COLUMNS, map(item_row, items))
    out.print(f"{len(items)} item(s)", highlight=False)
    if beyond:
        out.print(f"{beyond} more match, but this device is not answered so many (answers_max).", highlight=False)


def _query_for_a_day(date: str) -> "QueryRecord":
    """A query for everything, or everything of a day, as a device would ask it."""
    from gateway.domain.attributes import SPS_SEQUENCE, TAG, element
    from gateway.processing import now
    from gateway.wire.dicom_json import IMPLICIT_VR_LITTLE_ENDIAN, write_attributes
    from gateway.workflow.ports import QueryRecord

    keyword = "ScheduledProcedureStepStartDate"
    step = {TAG[keyword]: element(keyword, date) if date else element(keyword)}
    keys = {SPS_SEQUENCE: {"vr": "SQ", "Value": [step]}}
    identifier = write_attributes(keys, IMPLICIT_VR_LITTLE_ENDIAN, ())
    return QueryRecord(now(), "", "", "", IMPLICIT_VR_LITTLE_ENDIAN, identifier)


def _caller(site: "Site", calling: str, called: str = "", negotiation: bytes = b"", profile: str = "") -> "Caller":
    """Who asks; fails in words where nobody of that name is served. `profile` takes the place of the device's own."""
    from gateway.processing import now
    from gateway.workflow.query import caller_of

    devices = site.devices
    device = devices.device(calling)
    if device is None:
        fail(f"{calling} is not in the device registry, and unknown callers are rejected.")
    if not called and len(devices.worklists) > 1:
        names = ", ".join(sorted(devices.worklists))
        raise typer.BadParameter(f"there are several worklists; name one of {names}", param_hint="--called")
    called = called or next(iter(devices.worklists), "")
    if profile:
        if profile not in devices.profiles:
            fail(f"there is no profile {profile}; have: {', '.join(sorted(devices.profiles)) or 'none'}")
        changed = replace(device, profile=devices.profiles[profile])
        devices = replace(devices, known={**devices.known, calling: changed})
    caller = caller_of(devices, calling, called, negotiation, site.zone, site.wall_clock(now()).date())
    if caller is None:
        fail(f"there is no worklist {called}; have: {', '.join(sorted(devices.worklists))}")
    return caller


ITEM_COLUMNS = ("Start", "Station", "Mod", "Patient", "ID", "Accession", "SPS ID", "Status", "Description")


def item_row(item: "WorklistItem") -> tuple[str, ...]:
    """An item as lists show it, by ITEM_COLUMNS."""
    from gateway.domain.attributes import text, values

    return (
        f"{text(item.step, 'ScheduledProcedureStepStartDate')} "
        f"{text(item.step, 'ScheduledProcedureStepStartTime')[:4]}",
        ", ".join(values(item.step, "ScheduledStationAETitle")),
        text(item.step, "Modality"),
        text(item.attributes, "PatientName"),
        text(item.attributes, "PatientID"),
        text(item.attributes, "AccessionNumber"),
        text(item.step, "ScheduledProcedureStepID"),
        item.status,
        text(item.step, "ScheduledProcedureStepDescription"),
    )


@worklist.command("why")
def worklist_why(
    asked_by: Annotated[str, typer.Option("--as", help="The AE title of the device that does not show it.")],
    config: ConfigOption = CONFIG,
    called: CalledOption = "",
    accession: Annotated[str, typer.Option(help="An accession number.")] = "",
    patient: Annotated[str, typer.Option(help="A patient ID.")] = "",
    order: Annotated[str, typer.Option(help="A placer or filler order number.")] = "",
    step: Annotated[str, typer.Option(help="A scheduled procedure step ID.")] = "",
    json_output: JSONOption = False,
) -> None:
    """Say in plain words why an item is or is not on a device's list."""
    from gateway.processing import now
    from gateway.workflow.ports import ItemKey
    from gateway.workflow.why import Question, why

    numbers = zip(
        (ItemKey.ACCESSION, ItemKey.PATIENT, ItemKey.ORDER, ItemKey.STEP),
        (accession, patient, order, step), strict=True,
    )  # fmt: skip
    given = [(key, value.strip()) for key, value in numbers if value.strip()]
    if len(given) != 1:
        raise typer.BadParameter("give one of them", param_hint="--accession, --patient, --order or --step")
    ((key, value),) = given
    site = site_of(config)
    question = Question(asked_by, key, value, called)
    explanation = why(store_of(config).reader, site.devices, question, site.zone, now())
    if json_output:
        print_json({
            "device": explanation.calling_ae_title, "worklist": explanation.called_ae_title, "asked": str(key),
            "value": value, "findings": [asdict(finding) for finding in explanation.findings],
            "items": [
                {"shown": each.shown, "status": each.item.status, "attributes": each.item.attributes,
                 "findings": [asdict(finding) for finding in each.findings]}
                for each in explanation.items
            ],
        })  # fmt: skip
        return
    _print_findings(explanation.findings)
    for each in explanation.items:
        said = "is shown to" if each.shown else "is not shown to"
        out.print(f"\n{_named(each.item)} {said} {asked_by}.", markup=False, highlight=False, soft_wrap=True)
        _print_findings(each.findings)


_MARKS = {"shown": "[green]+[/green]", "hidden": "[red]-[/red]", "note": " "}


def _print_findings(findings: "Iterable[Finding]") -> None:
    for finding in findings:
        out.print(f"  {_MARKS[finding.severity]} {escape(finding.sentence)}", highlight=False, soft_wrap=True)


def _named(item: "WorklistItem") -> str:
    from gateway.domain.attributes import text

    start, station, modality, _, _, accession, sps_id, *_ = item_row(item)
    name = text(item.step, "ScheduledProcedureStepDescription")
    parts = (sps_id, accession, start.strip(), modality, station, name)
    return "Item " + ", ".join(part for part in parts if part)


@worklist.command("queries")
def worklist_queries(
    config: ConfigOption = CONFIG,
    asked_by: Annotated[str, typer.Option("--as", help="Only those of this calling AE title.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    json_output: JSONOption = False,
) -> None:
    """The newest queries of devices with their keys, how each was answered and how long that took."""
    from gateway.workflow.replay import status_words

    zone = site_of(config).zone
    queries = store_of(config).reader.queries(asked_by, limit)
    if json_output:
        print_json([_shown_query(query) for query in queries])
        return
    print_table(
        ("No.", "When", "Device", "Called", "Ended with", "Answers", "ms", "Asked for", "Notes"),
        (
            (query.id, moment(query.record.at, zone), query.record.calling_ae_title, query.record.called_ae_title,
             status_words(query.record.status), query.record.matches, f"{query.record.milliseconds:.1f}",
             ", ".join(_keys_asked(query.record)), "; ".join(query.record.notes))
            for query in queries
        ),
    )  # fmt: skip


def _shown_query(query: "StoredQuery") -> dict[str, object]:
    record = query.record
    return {
        "number": query.id,
        "at": record.at.isoformat(),
        "calling_ae_title": record.calling_ae_title,
        "called_ae_title": record.called_ae_title,
        "remote_host": record.remote_host,
        "transfer_syntax": record.transfer_syntax,
        "status": f"{record.status:04X}",
        "matches": record.matches,
        "milliseconds": record.milliseconds,
        "keys": list(_keys_asked(record)),
        "notes": list(record.notes),
        "identifier": record.identifier.hex(),
    }


def _keys_asked(record: "QueryRecord") -> Iterable[str]:
    """The keys with their values as people read them, then how many were asked for without one."""
    from gateway.domain.refusal import Refused
    from gateway.wire.worklist_dataset import read_identifier

    try:
        keys = read_identifier(record.identifier, record.transfer_syntax).keys
    except Refused as refused:
        yield f"not readable: {refused.refusals[0]}"
        return
    empty = 0
    for _, keyword, value in _lines(keys):
        if not value:
            empty += 1
        elif not keyword.endswith(("Sequence", "SpecificCharacterSet")):
            yield f"{keyword.strip()} {value!r}"
    if empty:
        yield f"{empty} key(s) without a value"


@worklist.command("replay")
def worklist_replay(
    number: Annotated[int, typer.Argument(help="A query's number, as `gateway worklist queries` shows it.")],
    config: ConfigOption = CONFIG,
    asked_by: Annotated[str, typer.Option("--as", help="As if this device had asked it.")] = "",
    called: CalledOption = "",
    profile: Annotated[str, typer.Option(help="By the rules of this profile instead of the device's own.")] = "",
    json_output: JSONOption = False,
) -> None:
    """Run a kept query again, against today's list or by another profile, and say what differs."""
    from gateway.workflow.replay import replay

    site = site_of(config)
    reader = store_of(config).reader
    stored = reader.query(number)
    if stored is None:
        fail(f"there is no query {number}; older ones are dropped as newer come")
    record = stored.record
    who = (asked_by or record.calling_ae_title, called or record.called_ae_title, record.negotiation)
    present = replay(reader, _caller(site, *who), record)
    answered = replay(reader, _caller(site, *who, profile=profile), record) if profile else present
    if answered.refusals:
        fail(f"the query cannot be used: {'; '.join(answered.refusals)}")
    before = {item.step_id for item in present.items}
    after = {item.step_id for item in answered.items}
    appear = [item for item in answered.items if item.step_id not in before]
    disappear = [item for item in present.items if item.step_id not in after]
    if json_output:
        print_json({
            "query": number, "answered_then": record.matches, "answered_now": len(answered.items),
            "beyond_answers_max": answered.beyond, "items": [item.attributes for item in answered.items],
            "appear": [item.attributes for item in appear], "disappear": [item.attributes for item in disappear],
        })  # fmt: skip
        return
    print_table(ITEM_COLUMNS, map(item_row, answered.items))
    out.print(
        f"{len(answered.items)} item(s) now; {record.matches} when {record.calling_ae_title} asked at "
        f"{moment(record.at, site.zone)}.",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    if answered.beyond:
        out.print(
            f"{answered.beyond} more match, but this device is not answered so many (answers_max).", highlight=False
        )
    if not profile:
        return
    if present.refusals:
        out.print("By the device's present profile the query cannot be used at all.", highlight=False)
    for items, what in ((appear, "appear"), (disappear, "disappear")):
        out.print(f"{len(items)} item(s) {what} with profile {profile}.", highlight=False, markup=False)
        if items:
            print_table(ITEM_COLUMNS, map(item_row, items))


@worklist.command("show")
def worklist_show(
    key: Annotated[str, typer.Argument(help="Accession number or scheduled procedure step ID.")],
    config: ConfigOption = CONFIG,
    json_output: JSONOption = False,
) -> None:
    """One item with every attribute and the history of its status."""
    zone = site_of(config).zone
    reader = store_of(config).reader
    unreadable: list[int] = []
    reader.left_out = lambda step_id, _: unreadable.append(step_id)
    items = reader.item_of(key)
    if not items:
        damaged = ", ".join(f"#{step_id}" for step_id in unreadable)
        if damaged:
            fail(f"{key}: the item ({damaged}) cannot be read from the store; restore it, or have its order sent again")
        fail(f"no item has the accession number or step ID {key}")
    if json_output:
        print_json([
            {"status": item.status, "revision": item.revision, "attributes": item.attributes,
             "history": [asdict(entry) for entry in reader.step_history(item.step_id)]}
            for item in items
        ])  # fmt: skip
        return
    for item in items:
        out.print(f"[bold]{item.status}[/bold], revision {item.revision}", highlight=False)
        print_table(("Tag", "Attribute", "Value"), _lines(item.attributes))
        print_table(
            ("When", "Status", "Start", "Why"),
            (
                (moment(entry.at, zone), entry.status, entry.start_local, entry.cause)
                for entry in reader.step_history(item.step_id)
            ),
        )


def _lines(attributes: "Attributes", depth: int = 0) -> Iterable[tuple[str, str, str]]:
    """(tag, keyword, value) of every attribute, items of sequences indented."""
    from gateway.domain.attributes import person_name_text
    from gateway.wire.dicom_json import keyword_of

    indent = "  " * depth
    for tag in sorted(attributes):
        held = attributes[tag]
        found = held.get("Value") or []
        if held["vr"] == "SQ":
            yield f"({tag[:4]},{tag[4:]})", indent + keyword_of(tag), f"{len(found)} item(s)"
            for item in found:
                yield from _lines(item, depth + 1)
        else:
            shown = (person_name_text(value) if isinstance(value, dict) else str(value) for value in found)
            yield f"({tag[:4]},{tag[4:]})", indent + keyword_of(tag), "\\".join(shown)


@worklist.command("import")
def worklist_import(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Worklist files (.wl, .dcm), DICOM JSON, or folders; empty files in folders are passed over.",
            exists=True,
        ),
    ],
    config: ConfigOption = CONFIG,
    site: Annotated[str, typer.Option(help="The site whose orders they are, where the gateway serves several.")] = "",
) -> None:
    """Take over worklist files as DCMTK and Orthanc serve them, or DICOM JSON, with all their attributes."""
    from gateway.site_tools import import_files

    files = [
        file
        for path in paths
        for file in (
            sorted(entry for entry in path.rglob("*") if entry.is_file() and entry.stat().st_size)
            if path.is_dir()
            else [path]
        )
    ]
    configured = site_of(config)
    sites = configured.settings.sites
    if site and site not in sites:
        fail(f"no orders of site {site} come here; have: {', '.join(sorted(sites)) or 'none'}")
    report = import_files(configured, store_of(config, make=True), files, site)
    for name, problem in report.problems:
        err.print(f"{name}: {problem}", markup=False, highlight=False)
    out.print(f"{report.imported} item(s) imported, {report.refused} refused.", highlight=False)
    raise typer.Exit(1 if report.refused else 0)


@worklist.command("expire")
def worklist_expire(
    config: ConfigOption = CONFIG,
    now_: Annotated[bool, typer.Option("--now", help="Do it; without this, only show.")] = False,
    json_output: JSONOption = False,
) -> None:
    """What the nightly expiry would take off the list, before it happens."""
    from gateway.domain.attributes import text
    from gateway.processing import now
    from gateway.site_tools import expiring
    from gateway.workflow.maintain import expire

    site, store = site_of(config), store_of(config)
    limit, refs = expiring(site, store)
    items = store.reader.items([ref.step_id for ref in refs])
    columns = ("start", "station", "accession", "sps_id", "status")
    rows = [
        (
            text(item.step, "ScheduledProcedureStepStartDate"),
            text(item.step, "ScheduledStationAETitle"),
            text(item.attributes, "AccessionNumber"),
            text(item.step, "ScheduledProcedureStepID"),
            item.status.value,
        )
        for item in items
    ]
    if json_output:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)
        out.print(f"{len(rows)} step(s) scheduled before {limit[:8]} are still waiting.", highlight=False)
    if now_:
        from gateway.outgoing import audience_of

        audience = audience_of(site)
        expired = store.write(lambda unit: expire(unit, refs, now(), audience, site.zone)).result()
        out.print(f"{expired} step(s) expired.", highlight=False)


def order_ids(store: "Store", key: str) -> list[int]:
    """The orders with an item of this key, of any status."""
    from gateway.workflow.ports import ItemKey

    found: list[int] = []
    for kind in (ItemKey.ORDER, ItemKey.ACCESSION, ItemKey.STEP, ItemKey.PATIENT):
        items = store.reader.items_by(kind, key)
        found += [ref.order_id for ref in store.reader.steps([item.step_id for item in items])]
        if found:
            break
    return list(dict.fromkeys(found))
