"""The command `gateway`: run, check, demo, explain, and the lists an operator looks at.

Exit codes: 0 done, 1 refused or failed, 2 usage. Every listing takes --json. What is shown here is for people with
the right to see it, so it may name patients; logs never do.
"""

import asyncio
import atexit
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gateway.config import Site
    from gateway.domain.attributes import Attributes
    from gateway.edges.store import Store
    from gateway.workflow.ports import StoredMessage

DISPOSITIONS = ("accepted", "held", "released", "superseded", "withdrawn", "ignored", "refused", "unreadable")
"""What may have become of a message."""

cli = typer.Typer(
    name="gateway",
    help="Modality worklist gateway: HL7 v2 orders in, DICOM worklist out, MPPS back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
worklist = typer.Typer(help="The worklist as devices see it.", no_args_is_help=True)
messages = typer.Typer(help="The archive of received messages.", no_args_is_help=True)
cli.add_typer(worklist, name="worklist")
cli.add_typer(messages, name="messages")

_WIDE = 200
"""Columns where nobody's terminal says otherwise: what is piped is searched, not looked at."""

_out = Console() if sys.stdout.isatty() else Console(width=_WIDE)
_err = Console(stderr=True)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
JSONOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
CONFIG = Path("gateway.yaml")


def main() -> None:
    """Entry point of the console script."""
    from gateway.edges.database import StoreError

    try:
        cli()
    except StoreError as error:  # whenever it happens, it has a text for people
        _err.print(str(error), style="red", markup=False, highlight=False)
        sys.exit(1)


def _fail(text: str) -> NoReturn:
    _err.print(text, style="red", markup=False, highlight=False)
    raise typer.Exit(1)


def _site(config: Path) -> "Site":
    from gateway.config import ConfigError, load_site

    try:
        return load_site(config)
    except ConfigError as error:
        for problem in error.problems:
            _err.print(str(problem), markup=False, highlight=False, soft_wrap=True)
        _fail(f"{len(error.problems)} problem(s); nothing was started or changed.")


def _store(config: Path, make: bool = False) -> "Store":
    """The site's store. One that is not there is made only for commands that bring something to it."""
    from gateway.edges import logs
    from gateway.edges.database import StoreError, database_path
    from gateway.edges.store import Store

    site = _site(config)
    atexit.register(logs.configure(sys.stderr))  # what fails below must not print a message's values
    try:
        if not make and not database_path(site.store_url).exists():
            _fail(f"{config}: there is no store yet; `gateway run` or `gateway worklist import` makes it.")
        return Store(site.store_url, zone=site.settings.timezone)
    except StoreError as error:
        _fail(str(error))


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # an identifier cut short is no identifier
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    _out.print(table)


@cli.command()
def init(directory: Annotated[Path, typer.Argument(help="A new or empty folder.")]) -> None:
    """Lay out a site: annotated configuration, devices, mappings, procedure catalogue, golden cases."""
    from gateway.examples import lay_out

    try:
        made = lay_out(directory)
    except FileExistsError as error:
        _fail(f"{error} exists already; nothing was written.")
    except OSError as error:
        _fail(f"{directory}: {error.strerror}")
    for path in made:
        _out.print(f"  {path}", highlight=False)
    _out.print(f"Next: gateway run --config {directory / 'gateway.yaml'}", highlight=False)


@cli.command()
def run(config: ConfigOption = CONFIG) -> None:
    """Run the service in the foreground until SIGTERM; SIGHUP reads mappings, catalogue and devices again."""
    from gateway.edges.database import StoreError
    from gateway.service import serve

    site = _site(config)
    try:
        serve(site, announce=lambda line: _out.print(line, highlight=False, markup=False))
    except StoreError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"A listener could not be opened: {error.strerror or error}")


@cli.command()
def check(config: ConfigOption = CONFIG) -> None:
    """Name every problem in configuration, mappings, catalogue and devices, and in imported items."""
    site = _site(config)
    _out.print(
        f"{config}: ok. {len(site.settings.hl7)} HL7 listener(s), {len(site.mappings)} mapping(s), "
        f"{len(site.devices.known)} device(s).",
        highlight=False,
    )
    from gateway.edges.database import database_path

    if database_path(site.store_url).exists():
        incomplete = list(_incomplete(_store(config)))
        for name, lacking in incomplete:
            _err.print(f"worklist item {name}: lacks {', '.join(lacking)}", markup=False, highlight=False)
        if incomplete:
            _fail(f"{len(incomplete)} listed item(s) lack keys that devices rely on.")


def _incomplete(store: "Store") -> Iterable[tuple[str, tuple[str, ...]]]:
    """Listed items that came by import without a key that the worklist answer must have."""
    from gateway.domain.attributes import text
    from gateway.domain.matching import Narrowing
    from gateway.domain.worklist import missing_for_listing

    refs = store.reader.candidates(Narrowing())
    for item in store.reader.items([step_id for step_id, _ in refs]):
        lacking = missing_for_listing(item.step)
        needed = ("StudyInstanceUID", "RequestedProcedureID", "PatientName", "PatientID")
        lacking += tuple(keyword for keyword in needed if not text(item.attributes, keyword))
        if lacking:
            yield text(item.attributes, "AccessionNumber") or f"#{item.step_id}", lacking


@cli.command()
def demo() -> None:
    """A department's day in under a minute: orders in, worklist out, MPPS back, printed as it happens."""
    from gateway.demo import play

    raise typer.Exit(play(_out))


@cli.command()
def explain(
    message: Annotated[list[Path], typer.Argument(help="Files with HL7 v2 messages.", exists=True, dir_okay=False)],
    config: ConfigOption = CONFIG,
    listener: Annotated[str, typer.Option(help="Read as this listener would; default: the first.")] = "",
    json_output: JSONOption = False,
) -> None:
    """Say what a message would do: every attribute with its source, raw value, rule and converter, or each refusal."""
    from gateway.explain import explanation, render
    from gateway.site_tools import feed_for_explaining

    site = _site(config)
    feed = feed_for_explaining(site, listener)
    if feed is None:
        _fail(f"there is no listener {listener}; have: {', '.join(entry.name for entry in site.settings.hl7)}")
    refused = False
    explained = []
    for path in message:
        for raw in _frames(path.read_bytes()):
            result = explanation(raw, feed)
            refused |= bool(result["refusals"])
            explained.append({"file": str(path), **result})
    if json_output:
        _print_json(explained)
    else:
        for result in explained:
            render(result, _out)
    raise typer.Exit(1 if refused else 0)


def _frames(data: bytes) -> list[bytes]:
    """The messages in a file: as captured with MLLP frames, or one bare message."""
    from gateway.wire.mllp import Frame, Framer

    if b"\x0b" not in data:
        return [data]
    return [event.data for event in Framer(len(data) + 1).feed(data) if isinstance(event, Frame)]


@worklist.command("list")
def worklist_list(
    config: ConfigOption = CONFIG,
    seen_by: Annotated[str, typer.Option("--as", help="As the device with this AE title sees it.")] = "",
    date: Annotated[str, typer.Option(help="Scheduled day, YYYYMMDD, or 'today'.")] = "",
    all_states: Annotated[bool, typer.Option("--all", help="Also what is no longer listed.")] = False,
    json_output: JSONOption = False,
) -> None:
    """The worklist, by start."""
    from gateway.domain.attributes import text, values
    from gateway.domain.matching import Narrowing
    from gateway.domain.worklist import LISTED, SPSStatus
    from gateway.processing import now
    from gateway.workflow.query import visible

    site = _site(config)
    if date == "today":
        date = site.wall_clock(now()).strftime("%Y%m%d")
    if date and not (len(date) == 8 and date.isdecimal()):
        raise typer.BadParameter("a day is written YYYYMMDD, or 'today'", param_hint="--date")
    narrowing = Narrowing(
        start_from=f"{date}000000" if date else "",
        start_to=f"{date}235959" if date else "",
        statuses=frozenset(SPSStatus) if all_states else LISTED,
    )
    if seen_by:
        device = site.devices.device(seen_by)
        if device is None:
            _fail(f"{seen_by} is not in the device registry, and unknown callers are rejected.")
        narrowing = visible(narrowing, device)
    reader = _store(config).reader
    items = reader.items([step_id for step_id, _ in reader.candidates(narrowing)])
    if json_output:
        _print_json([item.attributes for item in items])
        return
    _print_table(
        ("Start", "Station", "Mod", "Patient", "ID", "Accession", "SPS ID", "Status", "Description"),
        (
            (
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
            for item in items
        ),
    )
    _out.print(f"{len(items)} item(s)", highlight=False)


@worklist.command("show")
def worklist_show(
    key: Annotated[str, typer.Argument(help="Accession number or scheduled procedure step ID.")],
    config: ConfigOption = CONFIG,
    json_output: JSONOption = False,
) -> None:
    """One item with every attribute and the history of its status."""
    reader = _store(config).reader
    items = reader.item_of(key)
    if not items:
        _fail(f"no item has the accession number or step ID {key}")
    if json_output:
        _print_json([
            {"status": item.status, "revision": item.revision, "attributes": item.attributes,
             "history": [asdict(entry) for entry in reader.step_history(item.step_id)]}
            for item in items
        ])  # fmt: skip
        return
    for item in items:
        _out.print(f"[bold]{item.status}[/bold], revision {item.revision}", highlight=False)
        _print_table(("Tag", "Attribute", "Value"), _lines(item.attributes))
        _print_table(
            ("When", "Status", "Start", "Why"),
            (
                (_moment(entry.at), entry.status, entry.start_local, entry.cause)
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
    report = import_files(_site(config), _store(config, make=True), files)
    for name, problem in report.problems:
        _err.print(f"{name}: {problem}", markup=False, highlight=False)
    _out.print(f"{report.imported} item(s) imported, {report.refused} refused.", highlight=False)
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

    site, store = _site(config), _store(config)
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
        _print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        _print_table(columns, rows)
        _out.print(f"{len(rows)} step(s) scheduled before {limit[:8]} are still waiting.", highlight=False)
    if now_:
        _out.print(f"{store.write(lambda unit: expire(unit, refs, now())).result()} step(s) expired.", highlight=False)


@messages.command("list")
def messages_list(
    config: ConfigOption = CONFIG,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    disposition: Annotated[str, typer.Option(help="One of: " + ", ".join(DISPOSITIONS))] = "",
    listener: str = "",
    key: Annotated[str, typer.Option(help="A patient ID, placer or filler number, or accession number.")] = "",
    json_output: JSONOption = False,
) -> None:
    """The newest messages first."""
    if disposition and disposition not in DISPOSITIONS:
        raise typer.BadParameter(f"one of {', '.join(DISPOSITIONS)}", param_hint="--disposition")
    rows = _store(config).reader.list_messages(limit, listener, disposition, key)
    if json_output:
        _print_json([_shown(stored) for stored in rows])
        return
    _print_table(
        ("No.", "Received", "Listener", "Type", "Control ID", "Outcome", "Why"),
        (
            (row.id, _moment(row.record.received_at), row.record.listener, row.record.message_type,
             row.record.control_id, row.record.disposition, next(iter(row.record.reasons.splitlines()), ""))
            for row in rows
        ),
    )  # fmt: skip


def _moment(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


@messages.command("show")
def messages_show(number: int, config: ConfigOption = CONFIG, json_output: JSONOption = False) -> None:
    """One message: its text, what became of it and why, and the answer that was sent."""
    stored = _store(config).reader.message(number)
    if stored is None:
        _fail(f"there is no message {number}")
    shown = _shown(stored)
    if json_output:
        _print_json(shown)
        return
    for name, value in shown.items():
        lines = value if isinstance(value, list) else str(value).splitlines()
        for position, line in enumerate(lines or [""]):
            _out.print(f"{'' if position else name:>10}  {line}", markup=False, highlight=False)


def _shown(stored: "StoredMessage") -> dict[str, object]:
    """An archived message as people read it."""
    record = stored.record
    return {
        "number": stored.id,
        "received": _moment(record.received_at),
        "listener": record.listener,
        "peer": record.peer,
        "sender": record.sender,
        "type": record.message_type,
        "control_id": record.control_id,
        "mapping": record.mapping,
        "outcome": record.disposition,
        "why": record.reasons.splitlines(),
        "message": _readable(record.raw),
        "answer": _readable(record.answer),
    }


def _readable(raw: bytes) -> str:
    """HL7 text for the screen: one segment a line, bytes that are no UTF-8 shown as escapes."""
    return raw.decode("utf-8", "backslashreplace").replace("\r\n", "\n").replace("\r", "\n").strip("\n")


@messages.command("replay")
def messages_replay(numbers: list[int], config: ConfigOption = CONFIG) -> None:
    """Run archived messages again with today's mapping and catalogue; the first of them that is refused stops it."""
    from gateway.domain.identifiers import Mint
    from gateway.processing import feeds_of, process_message

    site, store = _site(config), _store(config)
    feeds = feeds_of(site, Mint(store.site_namespace()))
    for number in numbers:
        stored = store.reader.message(number)
        if stored is None:
            _fail(f"there is no message {number}")
        feed = feeds.get(stored.record.listener)
        if feed is None:
            _fail(f"message {number} came by listener {stored.record.listener}, which is not configured any more")
        receipt = asyncio.run(process_message(store, stored.record.raw, feed, "replay", number))
        _out.print(f"message {number}: {receipt.disposition}", highlight=False)
        if receipt.disposition not in ("accepted", "ignored"):
            _out.print(_readable(receipt.answer), markup=False, highlight=False)
            raise typer.Exit(1)


@cli.command()
def backup(target: Path, config: ConfigOption = CONFIG) -> None:
    """A consistent copy of the store, also while the service runs."""
    from gateway.edges.database import StoreError
    from gateway.edges.maintenance import backup as copy

    try:
        copy(_site(config).store_url, target)
    except (StoreError, OSError) as error:
        _fail(str(error))
    _out.print(f"Backup written to {target}.", highlight=False)


@cli.command()
def restore(
    source: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    config: ConfigOption = CONFIG,
    force: Annotated[bool, typer.Option(help="Replace the store there is; it is kept aside.")] = False,
) -> None:
    """Put a backup in place of the store; the service must not be running."""
    from gateway.edges.database import StoreError
    from gateway.edges.maintenance import restore as put_back
    from gateway.processing import now

    try:
        aside = put_back(source, _site(config).store_url, now(), force=force)
    except (StoreError, OSError) as error:
        _fail(str(error))
    _out.print("Restored." + (f" The former store is kept as {aside}." if aside else ""), highlight=False)


@cli.command()
def upgrade(config: ConfigOption = CONFIG) -> None:
    """Bring the store's schema up to this version, after a backup; refused when the store is newer."""
    from gateway.edges.database import StoreError
    from gateway.edges.maintenance import upgrade as migrate
    from gateway.processing import now

    try:
        copy = migrate(_site(config).store_url, now())
    except (StoreError, OSError) as error:
        _fail(str(error))
    _out.print(f"Upgraded; the store before that is kept as {copy}." if copy else "Nothing to do.", highlight=False)
