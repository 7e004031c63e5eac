"""The command `gateway`: run, check, demo, explain, and the lists an operator looks at.

Exit codes: 0 done, 1 refused or failed, 2 usage. Every listing takes --json. What is shown here is for people with
the right to see it, so it may name patients; logs never do.
"""

import asyncio
import sys
from collections.abc import Iterable
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.console import (
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
from gateway.worklist_commands import worklist

if TYPE_CHECKING:
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
messages = typer.Typer(help="The archive of received messages.", no_args_is_help=True)
cli.add_typer(worklist, name="worklist")
cli.add_typer(messages, name="messages")


def main() -> None:
    """Entry point of the console script."""
    from gateway.edges.database import StoreError

    try:
        cli()
    except StoreError as error:  # whenever it happens, it has a text for people
        err.print(str(error), style="red", markup=False, highlight=False)
        sys.exit(1)


@cli.command()
def init(directory: Annotated[Path, typer.Argument(help="A new or empty folder.")]) -> None:
    """Lay out a site: annotated configuration, devices, mappings, procedure catalogue, golden cases."""
    from gateway.examples import lay_out

    try:
        made = lay_out(directory)
    except FileExistsError as error:
        fail(f"{error} exists already; nothing was written.")
    except OSError as error:
        fail(f"{directory}: {error.strerror}")
    for path in made:
        out.print(f"  {path}", highlight=False)
    out.print(f"Next: gateway run --config {directory / 'gateway.yaml'}", highlight=False)


@cli.command()
def run(config: ConfigOption = CONFIG) -> None:
    """Run the service in the foreground until SIGTERM; SIGHUP reads mappings, catalogue and devices again."""
    from gateway.edges.database import StoreError
    from gateway.service import serve

    site = site_of(config)
    try:
        serve(site, announce=lambda line: out.print(line, highlight=False, markup=False))
    except StoreError as error:
        fail(str(error))
    except OSError as error:
        fail(f"A listener could not be opened: {error.strerror or error}")


@cli.command()
def check(config: ConfigOption = CONFIG) -> None:
    """Name every problem in configuration, mappings, catalogue and devices, and in imported items."""
    site = site_of(config)
    out.print(
        f"{config}: ok. {len(site.settings.hl7)} HL7 listener(s), {len(site.mappings)} mapping(s), "
        f"{len(site.devices.known)} device(s).",
        highlight=False,
    )
    from gateway.edges.database import database_path

    if database_path(site.store_url).exists():
        store = store_of(config)
        unreadable: list[int] = []
        store.reader.left_out = lambda step_id, _reason: unreadable.append(step_id)
        incomplete = list(_incomplete(store))
        for name, lacking in incomplete:
            err.print(f"worklist item {name}: lacks {', '.join(lacking)}", markup=False, highlight=False)
        for step_id in unreadable:
            err.print(
                f"worklist item #{step_id}: is damaged in the store and left out of every answer; send its order "
                "again, or restore a backup",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
        if unreadable:
            err.print(f"{len(unreadable)} listed item(s) cannot be read.", style="red", highlight=False)
        if incomplete:
            err.print(f"{len(incomplete)} listed item(s) lack keys that devices rely on.", style="red", highlight=False)
        if incomplete or unreadable:
            raise typer.Exit(1)


def _incomplete(store: "Store") -> Iterable[tuple[str, tuple[str, ...]]]:
    """Listed items that came by import without a key that the worklist answer must have."""
    from gateway.domain.attributes import text
    from gateway.domain.matching import Narrowing
    from gateway.domain.worklist import missing_for_listing

    refs = store.reader.candidates(Narrowing())
    needed = ("StudyInstanceUID", "RequestedProcedureID", "PatientName", "PatientID")
    for item in store.reader.items([step_id for step_id, _ in refs]):
        try:
            lacking = missing_for_listing(item.step)
            lacking += tuple(keyword for keyword in needed if not text(item.attributes, keyword))
            name = text(item.attributes, "AccessionNumber") or f"#{item.step_id}"
        except (AttributeError, TypeError, LookupError) as reason:  # JSON, but not what an attribute looks like
            store.reader.left_out(item.step_id, reason)
            continue
        if lacking:
            yield name, lacking


@cli.command()
def demo() -> None:
    """A department's day in under a minute: orders in, worklist out, MPPS back, printed as it happens."""
    from gateway.demo import play

    raise typer.Exit(play(out))


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

    site = site_of(config)
    feed = feed_for_explaining(site, listener)
    if feed is None:
        fail(f"there is no listener {listener}; have: {', '.join(entry.name for entry in site.settings.hl7)}")
    refused = False
    explained = []
    for path in message:
        for raw in _frames(path.read_bytes()):
            result = explanation(raw, feed)
            refused |= bool(result["refusals"])
            explained.append({"file": str(path), **result})
    if json_output:
        print_json(explained)
    else:
        for result in explained:
            render(result, out)
    raise typer.Exit(1 if refused else 0)


@cli.command()
def conformance(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Also say what holds for this site.")] = None,
) -> None:
    """The DICOM conformance statement, in Markdown, from the tables that the gateway runs on."""
    from gateway.conformance import site_statement, statement

    lines = ["# DICOM conformance statement", "", *statement()]
    if config is not None:
        lines += site_statement(site_of(config))
    print("\n".join(lines).rstrip())


def _frames(data: bytes) -> list[bytes]:
    """The messages in a file: as captured with MLLP frames, or one bare message."""
    from gateway.wire.mllp import Frame, Framer

    if b"\x0b" not in data:
        return [data]
    return [event.data for event in Framer(len(data) + 1).feed(data) if isinstance(event, Frame)]


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
    zone = site_of(config).zone
    rows = store_of(config).reader.list_messages(limit, listener, disposition, key)
    if json_output:
        print_json([_shown(stored, zone) for stored in rows])
        return
    print_table(
        ("No.", "Received", "Listener", "Type", "Control ID", "Outcome", "Why"),
        (
            (row.id, moment(row.record.received_at, zone), row.record.listener, row.record.message_type,
             row.record.control_id, row.record.disposition, next(iter(row.record.reasons.splitlines()), ""))
            for row in rows
        ),
    )  # fmt: skip


@messages.command("show")
def messages_show(number: int, config: ConfigOption = CONFIG, json_output: JSONOption = False) -> None:
    """One message: its text, what became of it and why, and the answer that was sent."""
    stored = store_of(config).reader.message(number)
    if stored is None:
        fail(f"there is no message {number}")
    shown = _shown(stored, site_of(config).zone)
    if json_output:
        print_json(shown)
        return
    for name, value in shown.items():
        lines = value if isinstance(value, list) else str(value).splitlines()
        for position, line in enumerate(lines or [""]):
            out.print(f"{'' if position else name:>10}  {line}", markup=False, highlight=False)


def _shown(stored: "StoredMessage", zone: tzinfo) -> dict[str, object]:
    """An archived message as people read it."""
    record = stored.record
    return {
        "number": stored.id,
        "received": moment(record.received_at, zone),
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

    site, store = site_of(config), store_of(config)
    feeds = feeds_of(site, Mint(store.site_namespace()))
    for number in numbers:
        stored = store.reader.message(number)
        if stored is None:
            fail(f"there is no message {number}")
        feed = feeds.get(stored.record.listener)
        if feed is None:
            fail(f"message {number} came by listener {stored.record.listener}, which is not configured any more")
        receipt = asyncio.run(process_message(store, stored.record.raw, feed, "replay", number))
        out.print(f"message {number}: {receipt.disposition}", highlight=False)
        if receipt.disposition not in ("accepted", "ignored"):
            out.print(_readable(receipt.answer), markup=False, highlight=False)
            raise typer.Exit(1)


@cli.command()
def backup(target: Path, config: ConfigOption = CONFIG) -> None:
    """A consistent copy of the store, also while the service runs."""
    from gateway.edges.database import StoreError
    from gateway.edges.maintenance import backup as copy

    try:
        copy(site_of(config).store_url, target)
    except (StoreError, OSError) as error:
        fail(str(error))
    out.print(f"Backup written to {target}.", highlight=False)


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
        aside = put_back(source, site_of(config).store_url, now(), force=force)
    except (StoreError, OSError) as error:
        fail(str(error))
    out.print("Restored." + (f" The former store is kept as {aside}." if aside else ""), highlight=False)


@cli.command()
def upgrade(config: ConfigOption = CONFIG) -> None:
    """Bring the store's schema up to this version, after a backup; refused when the store is newer."""
    from gateway.edges.database import StoreError
    from gateway.edges.maintenance import upgrade as migrate
    from gateway.processing import now

    try:
        copy = migrate(site_of(config).store_url, now())
    except (StoreError, OSError) as error:
        fail(str(error))
    out.print(f"Upgraded; the store before that is kept as {copy}." if copy else "Nothing to do.", highlight=False)
