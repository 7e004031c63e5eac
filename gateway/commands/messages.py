"""`gateway messages`: search the archive, look at a message, run messages again, and see what retention deletes.

What is shown here is for people with the right to see it, so it may name patients; logs never do.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.console import (
    CONFIG,
    ConfigOption,
    JSONOption,
    fail,
    moment,
    out,
    print_json,
    print_table,
    progress,
    site_of,
    store_at,
    when,
)

if TYPE_CHECKING:
    from gateway.config import Site
    from gateway.domain.mapping import Mapping as FieldMapping
    from gateway.edges.store import StoreReader
    from gateway.workflow.intake import Feed
    from gateway.workflow.ports import MessageRecord, MessageSearch, MessageSummary, StoredMessage
    from gateway.workflow.rehearsal import Rehearsed

OUTCOMES = ("accepted", "held", "released", "superseded", "withdrawn", "early", "ignored", "refused", "unreadable",
            "waiting", "sent", "parked", "dropped")  # fmt: skip
"""What may have become of a message."""

messages = typer.Typer(help="The archive of messages received and sent.", no_args_is_help=True)

KeyOption = Annotated[str, typer.Option(help="A patient ID, order number, accession number or study, whole.")]
SinceOption = Annotated[str, typer.Option(help="2h, 7d, today, yesterday, 2026-11-23, 2026-11-23T14:00")]
UntilOption = Annotated[str, typer.Option(help="Before this time; as --since.")]
OutcomeOption = Annotated[
    list[str],
    typer.Option("--outcome", "--disposition", help="One of: " + ", ".join(OUTCOMES) + "; may be repeated."),
]
TypeOption = Annotated[str, typer.Option("--type", help="Such as OMI^O23.")]
DirectionOption = Annotated[str, typer.Option(help="in, or out for what was sent to a destination.")]

_KINDS = {"accession": "accession", "patient": "patient", "placer": "placer", "filler": "filler", "study": "study"}


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options of a search, as they were typed."""

    keys: dict[str, str] = field(repr=False)
    control_id: str = ""
    since: str = ""
    until: str = ""
    outcomes: Sequence[str] = ()
    listener: str = ""
    message_type: str = ""
    direction: str = ""

    @property
    def nothing(self) -> bool:
        return not any((
            *self.keys.values(), self.control_id, self.since, self.until, self.outcomes, self.listener,
            self.message_type, self.direction,
        ))  # fmt: skip

    def search(self, zone: tzinfo) -> "MessageSearch":
        from gateway.workflow.ports import MessageSearch

        given = {kind: value.strip() for kind, value in self.keys.items() if value.strip()}
        if len(given) > 1:
            options = " and ".join(f"--{kind}" for kind in given)
            raise typer.BadParameter(f"{options} are two numbers of an order or patient: give one of them")
        kind, value = next(iter(given.items()), ("", ""))
        unknown = [outcome for outcome in self.outcomes if outcome not in OUTCOMES]
        if unknown:
            raise typer.BadParameter(f"one of {', '.join(OUTCOMES)}", param_hint="--outcome")
        if self.direction not in ("", "in", "out"):
            raise typer.BadParameter("in or out", param_hint="--direction")
        return MessageSearch(
            value, _KINDS.get(kind, ""), self.control_id, self.listener, frozenset(self.outcomes), self.message_type,
            self.direction, when(self.since, zone), when(self.until, zone, "--until"),
        )  # fmt: skip


@messages.command("list")
def messages_list(
    config: ConfigOption = CONFIG,
    key: KeyOption = "",
    accession: str = "",
    patient: Annotated[str, typer.Option(help="A patient ID.")] = "",
    placer: str = "",
    filler: str = "",
    study: Annotated[str, typer.Option(help="A Study Instance UID.")] = "",
    control_id: Annotated[str, typer.Option(help="MSH-10.")] = "",
    since: SinceOption = "",
    until: UntilOption = "",
    outcome: OutcomeOption = [],  # noqa: B006  (typer copies it)
    listener: str = "",
    type_: TypeOption = "",
    direction: DirectionOption = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    before: Annotated[int, typer.Option(help="Only messages before this number: the next page.")] = 0,
    json_output: JSONOption = False,
) -> None:
    """The newest messages first, of those of which everything holds that is given."""
    keys = {"key": key, "accession": accession, "patient": patient, "placer": placer, "filler": filler, "study": study}
    site = site_of(config)
    zone = site.zone
    search = _Asked(keys, control_id, since, until, outcome, listener, type_, direction).search(zone)
    rows = store_at(site).reader.message_summaries(search, limit, before)
    if json_output:
        print_json([_summary(row) for row in rows])
        return
    print_table(
        ("No.", "Received", "Listener", "Type", "Control ID", "Outcome", "Why"),
        (
            (row.id, moment(row.received_at, zone), row.listener if row.direction == "in" else f"to {row.listener}",
             row.message_type, row.control_id, row.disposition, next(iter(row.reasons.splitlines()), ""))
            for row in rows
        ),
    )  # fmt: skip
    if len(rows) == limit:
        out.print(f"There may be more: --before {rows[-1].id} shows them.", highlight=False)


def _summary(row: "MessageSummary") -> dict[str, object]:
    return {
        "number": row.id,
        "received": row.received_at.isoformat(),
        "listener": row.listener,
        "direction": row.direction,
        "peer": row.peer,
        "sender": row.sender,
        "type": row.message_type,
        "control_id": row.control_id,
        "mapping": row.mapping,
        "outcome": row.disposition,
        "why": row.reasons.splitlines(),
        "keys": [list(pair) for pair in row.keys if not pair[0].startswith("#")],
        "replay_of": row.replay_of,
    }


# --- one message ------------------------------------------------------------------------------------------------------


@messages.command("show")
def messages_show(
    number: int,
    config: ConfigOption = CONFIG,
    trace: Annotated[bool, typer.Option("--trace", help="Also how each value was read, or written, then.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Only the message's bytes, exactly.")] = False,
    to: Annotated[Path | None, typer.Option(help="With --raw: into this new file.")] = None,
    json_output: JSONOption = False,
) -> None:  # fmt: skip
    """One message: its text, what became of it and why, the answer that was sent, and what it is about."""
    site = site_of(config)
    reader = store_at(site).reader
    stored = reader.message(number)
    if stored is None:
        fail(f"there is no message {number}; older ones are deleted as the configuration's `archive` says")
    if raw:
        _write_bytes(stored.record.raw, to)
        return
    shown = _shown(stored, site.zone) | _links(reader, stored) | _decisions(reader, stored, site.zone)
    explained = _trace(site, reader, stored) if trace else None
    if json_output:
        print_json(shown | ({"trace": explained} if explained is not None else {}))
        return
    for name, value in shown.items():
        lines = [str(line) for line in value] if isinstance(value, list) else str(value).splitlines()
        for position, line in enumerate(lines or [""]):
            out.print(f"{'' if position else name:>10}  {line}", markup=False, highlight=False)
    if explained is not None:
        from gateway.explain import render, render_written

        tell = render_written if stored.record.direction == "out" else render
        tell({"file": f"Message {number}", **explained}, out)


def _write_bytes(raw: bytes, to: Path | None) -> None:
    if to is None:
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
        return
    try:
        with to.open("xb") as file:
            file.write(raw)
    except OSError as error:
        fail(f"{to}: {error.strerror}")


def _shown(stored: "StoredMessage", zone: tzinfo) -> dict[str, object]:
    """An archived message as people read it."""
    record = stored.record
    shown: dict[str, object] = {
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
        "message": readable(record.raw),
        "answer": readable(record.answer),
    }
    if record.direction == "out":
        shown["sent_to"] = record.listener
    if record.replay_of is not None:
        shown["replay_of"] = record.replay_of
    return shown


def readable(raw: bytes) -> str:
    """HL7 text for the screen: one segment a line, bytes that are no UTF-8 shown as escapes."""
    return raw.decode("utf-8", "backslashreplace").replace("\r\n", "\n").replace("\r", "\n").strip("\n")


def _links(reader: "StoreReader", stored: "StoredMessage") -> dict[str, object]:
    """What the message is about, as far as it is held now: patient, order and items by their numbers."""
    from gateway.domain.attributes import text
    from gateway.workflow.ports import ORDER_LINK, PATIENT_LINK

    numbers = {
        kind: [int(value) for of, value in stored.record.keys if of == kind] for kind in (ORDER_LINK, PATIENT_LINK)
    }
    patients = [f"#{number}" for number in numbers[PATIENT_LINK]]
    orders, items = [], []
    for number in numbers[ORDER_LINK]:
        order = reader.order(number)
        if order is None:
            orders.append(f"#{number}, not held any more")
            continue
        said = [f"{name} {each.value}" for name, each in (("placer", order.placer), ("filler", order.filler)) if each]
        orders.append(", ".join([f"#{number}", *said]))
        steps = [step.id for procedure in order.procedures for step in procedure.steps if step.id is not None]
        items += [
            ", ".join(filter(None, (
                text(item.attributes, "AccessionNumber"), text(item.step, "ScheduledProcedureStepID"), item.status
            )))
            for item in reader.items(steps)
        ]  # fmt: skip
    keys = [f"{kind} {value}" for kind, value in stored.record.keys if not kind.startswith("#")]
    found = {"keys": keys, "patients": patients, "orders": orders, "items": items}
    return {name: lines for name, lines in found.items() if lines}


def _decisions(reader: "StoreReader", stored: "StoredMessage", zone: tzinfo) -> dict[str, object]:
    """What people decided about a message of ours, newest first: `2026-11-23 14:00:00 dropped by anna: sent by fax`."""
    from gateway.workflow.ports import message_kind

    if stored.record.direction != "out":
        return {}
    lines = [
        f"{moment(each.at, zone)} {each.action} by {each.actor}" + (f": {note}" if note else "")
        for each in reader.queue_decisions_of((message_kind(stored.record.raw), stored.id))
        for note in [each.details.get("note", "")]
    ]
    return {"decisions": lines} if lines else {}


def _trace(site: "Site", reader: "StoreReader", stored: "StoredMessage") -> dict[str, object]:
    """How the message was read: the trace is made again with the mapping of then, as the archive keeps it."""
    from gateway.explain import explanation
    from gateway.site_tools import came_by_fhir, feed_for_explaining

    record = stored.record
    if record.direction == "out":
        return _written(site, reader, stored)
    if came_by_fhir(site, record.listener):
        return _fhir_trace(site, reader, stored)
    feed = feed_for_explaining(site, record.listener)
    if feed is None:
        fail(f"message {stored.id} came by listener {record.listener}, which is not configured any more")
    feed, note = _feed_of_then(site, reader, record, feed)
    explained = explanation(record.raw, feed)
    if note:
        explained["notes"] = [note, *explained.get("notes", ())]
    return explained


def _fhir_trace(site: "Site", reader: "StoreReader", stored: "StoredMessage") -> dict[str, object]:
    """How a FHIR request was read: what was kept beside it, read with the mapping of then."""
    from gateway.explain import FHIRSaid, explanation
    from gateway.fhir_processing import feed_for_explaining
    from gateway.site_tools import EXAMPLE_MINT
    from gateway.workflow.rereading import speech_kept

    record, kept = stored.record, reader.kept_report(stored.id)
    feed = feed_for_explaining(site, record.listener, EXAMPLE_MINT)
    speech = speech_kept(kept)
    if feed is None:
        fail(f"message {stored.id} came by feed {record.listener}, which is not configured any more")
    if speech is None:
        fail(f"what message {stored.id} said is not kept: it was refused, which its reasons explain, or is too large")
    mapping, note = _mapping_of_then(site, reader, record, feed.mapping(speech.release))
    explained = explanation(
        record.raw, replace(feed, mappings={**feed.mappings, speech.release: mapping}), None, FHIRSaid(kept)
    )
    if note:
        explained["notes"] = [note, *explained.get("notes", ())]
    return explained


def _written(site: "Site", reader: "StoreReader", stored: "StoredMessage") -> dict[str, object]:
    """How a message of ours was written: again, from what it was written from then and with the mapping of then."""
    from gateway.domain.problem import MappingError
    from gateway.explain import explanation_of_written
    from gateway.mapping_files import outbound_of

    version = stored.record.mapping
    if not version:
        fail(f"no mapping wrote message {stored.id}: it was passed on as it came, or is an answer")
    report, content = reader.kept_report(stored.id), reader.mapping_version(version)
    if report is None:
        fail(f"what message {stored.id} was written from is not kept: it was too large")
    if content is None:
        fail(f"the archive does not have {version}, which wrote message {stored.id}")
    try:
        writer = outbound_of(content, site.file.parent / site.settings.mappings)
    except MappingError as error:
        fail(f"{version} cannot be made again: {error}")
    explained = explanation_of_written(report, writer, stored.record.raw)
    if writer.name != version:
        explained["notes"].insert(0, f"functions of {version} have changed since: today's were used")
    return explained


def _feed_of_then(
    site: "Site", reader: "StoreReader", record: "MessageRecord", feed: "Feed"
) -> "tuple[Feed, str]":  # fmt: skip
    """The listener with the mapping that read the message, and what to say where that is not to be had."""
    mapping, note = _mapping_of_then(site, reader, record, feed.mapping)
    return replace(feed, mapping=mapping), note


def _mapping_of_then(
    site: "Site", reader: "StoreReader", record: "MessageRecord", today: "FieldMapping"
) -> "tuple[FieldMapping, str]":
    """The mapping that read the message, or today's, and what to say then."""
    from gateway.domain.problem import MappingError
    from gateway.mapping_files import mapping_of

    if today.version_id == record.mapping:
        return today, ""
    content = reader.mapping_version(record.mapping)
    if content is None:
        return today, f"read with today's mapping: the archive does not have {record.mapping}, which read it then"
    try:
        mapping = mapping_of(content, site.issuers, site.file.parent / site.settings.mappings)
    except MappingError as error:
        return today, f"read with today's mapping: {record.mapping} cannot be made again: {error}"
    if mapping.version_id != record.mapping:
        return mapping, f"functions of {record.mapping} have changed since: today's were used"
    return mapping, ""


# --- again ------------------------------------------------------------------------------------------------------------


@messages.command("replay")
def messages_replay(
    numbers: Annotated[list[int] | None, typer.Argument(help="Messages by number.")] = None,
    config: ConfigOption = CONFIG,
    refused: Annotated[bool, typer.Option("--refused", help="All that were refused or unreadable.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="All that were received; give --since.")] = False,
    key: KeyOption = "",
    control_id: str = "",
    since: SinceOption = "",
    until: UntilOption = "",
    outcome: OutcomeOption = [],  # noqa: B006  (typer copies it)
    listener: str = "",
    type_: TypeOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of each.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop at the first that is refused.")] = False,
    json_output: JSONOption = False,
) -> None:  # fmt: skip
    """Run archived messages again with today's mapping and catalogue, in the order they came.

    Messages chosen by a search are originals: neither replays nor what a replay accepted since, and none that came
    from elsewhere than its sender has to (`bound_senders`). Exit code 1 if any is refused or cannot be run.
    """
    from gateway.replaying import Replaying

    asked = _Asked({"key": key}, control_id, since, until, [*outcome, *(("refused", "unreadable") if refused else ())],
                   listener, type_)  # fmt: skip
    if bool(numbers) == (all_ or not asked.nothing):
        raise typer.BadParameter("name messages by number, or choose them by --refused, --all --since or a search")
    if all_ and not since:
        raise typer.BadParameter("--all needs --since", param_hint="--all")
    site = site_of(config)
    store = store_at(site)
    replaying = Replaying(site, store)
    if numbers:
        chosen, total = iter(sorted(set(numbers))), len(set(numbers))
    else:
        search = replace(asked.search(site.zone), direction="in")
        chosen, total = replaying.originals(search), store.reader.count_messages(search)
    outcomes: Counter[str] = Counter()
    refusals = 0
    shown: list[dict[str, object]] = []

    async def run() -> None:
        nonlocal refusals
        results = replaying.rehearse(chosen) if dry_run else replaying.run(chosen)
        with progress(total, "replayed") as advance:
            async for result in results:
                outcomes[result.disposition] += 1
                refusals += result.refused
                if json_output:
                    shown.append(asdict(result))
                else:
                    _tell(result)
                advance(1)
                if stop and result.refused:
                    return

    asyncio.run(run())
    if json_output:
        print_json({"dry_run": dry_run, "outcomes": outcomes, "passed_over": replaying.passed_over, "messages": shown})
    else:
        _tell_sum(outcomes, replaying.passed_over, dry_run)
    raise typer.Exit(1 if refusals else 0)


def _tell(result: "Rehearsed") -> None:
    out.print(f"message {result.message}: {result.disposition}", highlight=False, markup=False)
    for line in (*result.reasons, *result.changes):
        out.print(f"    {line}", highlight=False, markup=False, soft_wrap=True)


def _tell_sum(outcomes: "Counter[str]", passed_over: int, dry_run: bool) -> None:
    done = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or "none"
    would = "would be run again" if dry_run else "run again"
    out.print(f"{outcomes.total()} message(s) {would}: {done}.", highlight=False, markup=False)
    if passed_over:
        words = "passed over: replays, accepted by one since, or by somebody else than they say."
        out.print(f"{passed_over} {words}", highlight=False, markup=False)
    if dry_run:
        out.print("Nothing was changed.", highlight=False)


# --- retention --------------------------------------------------------------------------------------------------------


@messages.command("prune")
def messages_prune(
    config: ConfigOption = CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
    json_output: JSONOption = False,
) -> None:
    """Delete the messages, and the requests of performed steps, whose days are over, as every night.

    Those of open orders and of performed steps that are not over stay.
    """
    from gateway.processing import now
    from gateway.retention import prune, would_prune

    site = site_of(config)
    store = store_at(site)
    keep = site.settings.archive
    pruned = would_prune(store.reader, keep, now()) if dry_run else prune(store, keep, now())
    if json_output:
        print_json({"dry_run": dry_run, **asdict(pruned)})
        return
    would = "would be deleted" if dry_run else "deleted"
    out.print(
        f"{pruned.deleted} message(s) {would}, {pruned.kept} kept longer: they are of open orders or not done with.",
        highlight=False,
    )
    out.print(
        f"{pruned.requests} MPPS request(s) {would}, {pruned.requests_kept} kept longer: their performed steps are not "
        "over, or have to be decided or passed on.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
