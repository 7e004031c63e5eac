"""The command `gateway`: run, check, demo, explain, and the lists an operator looks at.

Exit codes: 0 done, 1 refused or failed, 2 usage. Every listing takes --json. What is shown here is for people with
the right to see it, so it may name patients; logs never do.
"""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import gateway.commands.approve  # registers its commands on `devices`
import gateway.commands.ldap  # noqa: F401  (as above)
from gateway.commands.certificates import certs
from gateway.commands.console import (
    CONFIG,
    ConfigOption,
    JSONOption,
    at_end,
    err,
    fail,
    out,
    print_json,
    print_table,
    site_of,
    store_of,
)
from gateway.commands.devices import devices
from gateway.commands.fhir import fhir
from gateway.commands.mappings import mappings
from gateway.commands.messages import messages
from gateway.commands.orders import orders
from gateway.commands.patients import patients
from gateway.commands.queues import queues
from gateway.commands.reconciliation import performed
from gateway.commands.users import users
from gateway.commands.worklist_entries import worklist

if TYPE_CHECKING:
    from gateway.edges.store import Store

cli = typer.Typer(
    name="gateway",
    help="Modality worklist gateway: HL7 v2 orders in, DICOM worklist out, MPPS back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(worklist, name="worklist")
cli.add_typer(orders, name="orders")
cli.add_typer(patients, name="patients")
cli.add_typer(mappings, name="mappings")
cli.add_typer(messages, name="messages")
cli.add_typer(performed, name="performed")
cli.add_typer(queues, name="queues")
cli.add_typer(devices, name="devices")
cli.add_typer(certs, name="certs")
cli.add_typer(users, name="users")
cli.add_typer(fhir, name="fhir")


def main() -> None:
    """Entry point of the console script."""
    from gateway.edges.database import StoreError

    try:
        cli()
    except StoreError as error:  # whenever it happens, it has a text for people
        err.print(str(error), style="red", markup=False, highlight=False)
        sys.exit(1)


@cli.callback()
def closing(context: typer.Context) -> None:
    """Runs before every command."""
    context.call_on_close(at_end.close)


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

    site = site_of(config, fhir=None)
    try:
        serve(site, announce=lambda line: out.print(line, highlight=False, markup=False))
    except StoreError as error:
        fail(str(error))
    except OSError as error:
        fail(f"A listener could not be opened: {error.strerror or error}")


@cli.command()
def check(config: ConfigOption = CONFIG) -> None:
    """Name every problem in configuration, mappings, catalogue and devices, and in imported items."""
    from gateway.certificate_expiry import doubts as certificate_doubts
    from gateway.processing import now

    site = site_of(config, fhir=True)
    doubts = (*site.doubts, *certificate_doubts(site.settings, site.file.parent, now()))
    for doubt in doubts:
        err.print(str(doubt), markup=False, highlight=False, soft_wrap=True)
    verdict = f"{len(doubts)} doubt(s)" if doubts else "ok"
    out.print(
        f"{config}: {verdict}. {len(site.settings.hl7)} HL7 listener(s), "
        f"{len(site.mappings)} mapping(s), {len(site.devices.known)} device(s).",
        highlight=False,
    )
    from gateway.edges.database import database_path

    if database_path(site.store_url).exists():
        from gateway.workflow.outbox import left_behind

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
        behind = left_behind(store.reader.queues(), (place.name for place in site.settings.destinations))
        for queue in behind:
            err.print(
                f"destinations: {queue.waiting} message(s) wait and {queue.parked} are parked for {queue.destination}, "
                f"which is no destination any more; see `gateway queues show {queue.destination}`",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
        if incomplete or unreadable or behind:
            raise typer.Exit(1)
    if doubts:
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
def clock(
    servers: Annotated[
        list[str] | None, typer.Argument(help="NTP servers; default: those of the configuration.", show_default=False)
    ] = None,
    config: ConfigOption = CONFIG,
    json_output: JSONOption = False,
) -> None:
    """Compare this machine's clock with NTP servers; refused when it is off by more than `clock.warn_s`."""
    import asyncio

    from gateway.edges.clock import asking, in_words, median_of, readings_of
    from gateway.edges.resolving import Hosts

    said = site_of(config).settings.clock
    asked = servers or said.servers
    if not asked:
        fail(f"{config}: `clock.servers` names nobody to compare with.")
    readings = asyncio.run(readings_of(asked, asking(Hosts())))
    offset_s = median_of(readings)
    if json_output:
        print_json({"offset_s": offset_s, "servers": [asdict(reading) for reading in readings]})
    else:
        print_table(
            ("Server", "This clock is", "Round trip", "Stratum", "Why not"),
            (
                (each.server, "", "", "", each.failure)
                if each.offset_s is None
                else (each.server, in_words(each.offset_s), f"{each.delay_s * 1000:.1f} ms", each.stratum, "")
                for each in readings
            ),
        )
    if offset_s is None:
        fail("No server tells the time: nobody knows whether this clock is right.")
    if abs(offset_s) > said.warn_s:
        fail(f"This machine's clock is {in_words(offset_s)}; let the system's NTP service set it.")


@cli.command()
def demo() -> None:
    """A department's day in about a minute: orders in, worklist out, MPPS back, printed as it happens."""
    from gateway.demo import play

    raise typer.Exit(play(out))


@cli.command()
def explain(
    message: Annotated[
        list[str] | None,
        typer.Argument(help="Files with HL7 v2 messages, or FHIR resources or Bundles; - reads standard input."),
    ] = None,
    config: ConfigOption = CONFIG,
    number: Annotated[list[int] | None, typer.Option("--message", help="Number of an archived message.")] = None,
    listener: Annotated[
        str, typer.Option(help="Read as this listener would; default: the one it came by, or the first.")
    ] = "",
    on_store: Annotated[bool, typer.Option("--store", help="Also what it would do to the orders held now.")] = False,
    release: Annotated[str, typer.Option("--fhir", help="The release of FHIR files: R4, R4B or R5.")] = "",
    json_output: JSONOption = False,
) -> None:
    """Say what a message would do: every attribute with its source, raw value, rule and converter, or each refusal."""
    from gateway.explain import explanation, render
    from gateway.site_tools import came_by_fhir, feed_for_explaining

    site = site_of(config)
    if release not in ("", "R4", "R4B", "R5"):
        raise typer.BadParameter("R4, R4B or R5", param_hint="--fhir")
    given = [*_given(message or []), *_archived(config, number or [])]
    if not given:
        raise typer.BadParameter("name a file, - or --message NUMBER", param_hint="MESSAGE")
    refused = False
    explained = []
    for name, came_by, raw, number_ in given:
        if came_by_fhir(site, came_by) if came_by else _is_fhir(raw):
            result = _explained_fhir(config, raw, number_, listener or came_by, release, on_store)
            refused |= bool(result["refusals"])
            explained.append({"file": name, **result})
            continue
        feed = feed_for_explaining(site, listener or came_by)
        if feed is None and not listener:  # typed by hand, or by a listener that is not there any more
            feed = feed_for_explaining(site, "")
        if feed is None:
            have = ", ".join(entry.name for entry in site.settings.hl7)
            fail(f"there is no listener {listener or came_by}; have: {have}")
        result = explanation(raw, feed, partial(_rehearsed, config, feed.name) if on_store else None)
        refused |= bool(result["refusals"])
        explained.append({"file": name, **result})
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


def _is_fhir(raw: bytes) -> bool:
    """Whether a file is a FHIR resource, as JSON or XML."""
    return raw.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"<")


def _explained_fhir(
    config: Path, raw: bytes, number: int | None, source: str, release: str, on_store: bool
) -> dict[str, Any]:
    """The explanation of a FHIR file, or of an archived request by what was kept beside it."""
    from gateway.explain import FHIRSaid, explanation
    from gateway.fhir_processing import feed_for_explaining
    from gateway.site_tools import EXAMPLE_MINT
    from gateway.wire.fhir_release import Release

    site = site_of(config, fhir=True)
    feed = feed_for_explaining(site, source, EXAMPLE_MINT)
    if feed is None:
        fail(f"there is no FHIR feed {source}")
    if on_store and number is None:
        fail(
            "--store is for HL7 v2 files and archived requests; what a FHIR file would do says $validate of the server"
        )
    own = site.settings.fhir.release if site.settings.fhir is not None else Release.R4
    kept = store_of(config).reader.kept_report(number) if number is not None else None
    rehearse = partial(_rehearsed_again, config, number) if on_store and number is not None else None
    return explanation(raw, feed, rehearse, FHIRSaid(kept, Release(release) if release else own))


def _rehearsed_again(config: Path, number: int, _raw: bytes) -> list[str]:
    """What an archived request would do to the store as it is."""
    import asyncio

    from gateway.replaying import Replaying

    async def run() -> list[str]:
        replaying = Replaying(site_of(config), store_of(config))
        return [
            line
            async for done in replaying.rehearse([number])
            for line in (done.disposition, *done.reasons, *done.changes)
        ]

    return asyncio.run(run())


def _given(names: Iterable[str]) -> Iterable[tuple[str, str, bytes, int | None]]:
    """(name, "", message, None) of each message in these files."""
    for name in names:
        try:
            data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        except OSError as error:
            raise typer.BadParameter(f"{name}: {error.strerror}", param_hint="MESSAGE") from None
        yield from ((name, "", raw, None) for raw in _frames(data))


def _archived(config: Path, numbers: Iterable[int]) -> Iterable[tuple[str, str, bytes, int | None]]:
    """(name, listener, message, number) of archived messages."""
    for number in numbers:
        stored = store_of(config).reader.message(number)
        if stored is None:
            fail(f"there is no message {number}")
        if stored.record.direction == "out":
            fail(f"message {number} is one of ours: `gateway messages show {number} --trace` says how it was written")
        yield f"message {number}", stored.record.listener, stored.record.raw, number


def _rehearsed(config: Path, listener: str, raw: bytes) -> list[str]:
    """What the message would do to the store as it is; nothing of it stays."""
    from gateway.domain.identifiers import Mint
    from gateway.processing import feeds_of, now
    from gateway.workflow.ports import MessageRecord, StoredMessage
    from gateway.workflow.rehearsal import Rehearsed, Rehearsing, rehearse

    site, store = site_of(config), store_of(config)
    feed = feeds_of(site, Mint(store.site_namespace()))[listener]
    at = now()

    def run(unit: Rehearsing) -> Rehearsed:
        record = MessageRecord(at, feed.name, "explain", "", "", "", b"", raw)
        return rehearse(unit, StoredMessage(unit.add_message(record), record), feed, at)

    done = store.rehearse(run).result()
    return [done.disposition, *done.reasons, *done.changes]


def _frames(data: bytes) -> list[bytes]:
    """The messages in a file: as captured with MLLP frames, a batch, bare messages in a row or one."""
    from gateway.wire.hl7_batch import split
    from gateway.wire.mllp import Frame, Framer

    if _is_fhir(data):
        return [data]
    blocks = [data]
    if b"\x0b" in data:
        blocks = [event.data for event in Framer(len(data) + 1).feed(data) if isinstance(event, Frame)]
    batches = ((block, split(block)) for block in blocks)
    return [message for block, batch in batches for message in (batch.messages if batch else [block])]


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
