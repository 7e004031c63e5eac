"""`gateway queues`: what waits for each destination and what was parked, and a person's say in both.

A service that runs meanwhile sees what is changed here within a second. Every change has its line in the log: who, when
and why. What is shown is for people with the right to see it: reasons may quote what a destination answered.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.console import (
    CONFIG,
    ActorOption,
    ConfigOption,
    JSONOption,
    NoteOption,
    account,
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
    from gateway.edges.store import Store, StoreReader, StoreUnit
    from gateway.workflow.outbox import OutboxState
    from gateway.workflow.queue_decisions import QueueAction
    from gateway.workflow.reconcile import By
    from gateway.workflow.requeue import Requeued

queues = typer.Typer(help="What waits for each destination, and what was parked.")

NumbersArgument = Annotated[list[int] | None, typer.Argument(help="Numbers from `queues show`.", show_default=False)]
DestinationArgument = Annotated[str, typer.Argument(help="Its name in the configuration.")]
DestinationOption = Annotated[str, typer.Option(help="All of this destination instead of single ones.")]

DECISIONS = 20
"""The newest lines of a queue's log that are shown with it."""

PAGE = 100
"""Messages looked at, or changed by one transaction, together: they are read whole."""


# --- looking ----------------------------------------------------------------------------------------------------------


@queues.callback(invoke_without_command=True)
def queues_all(context: typer.Context, config: ConfigOption = CONFIG, json_output: JSONOption = False) -> None:
    """What waits for each destination, and what was parked. Without a command: `list`."""
    if context.invoked_subcommand is None:
        _list(config, json_output)
    elif config != CONFIG or json_output:
        raise typer.BadParameter(f"write options behind {context.invoked_subcommand}")


@queues.command("list")
def queues_list(config: ConfigOption = CONFIG, json_output: JSONOption = False) -> None:
    """Every destination, also those that were never told anything: what waits, since when, and the last error."""
    _list(config, json_output)


def _list(config: Path, json_output: bool) -> None:
    site = site_of(config)
    views = _views(site, store_at(site).reader)
    if json_output:
        print_json(views)
    else:
        print_table(_QUEUE_COLUMNS, (_queue_row(view, site.zone) for view in views))


@queues.command("show")
def queues_show(
    destination: DestinationArgument,
    config: ConfigOption = CONFIG,
    parked: Annotated[bool, typer.Option("--parked", help="Only what was parked.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 100,
    json_output: JSONOption = False,
) -> None:
    """What waits for a destination and what was parked, oldest first, with the reason; and what people decided."""
    from gateway.edges.desk_views import delivery_view, queue_decision_view
    from gateway.workflow.outbox import OutboxState

    site = site_of(config)
    reader = store_at(site).reader
    view = _view(site, reader, destination)
    state = OutboxState.PARKED if parked else None
    found = [delivery_view(each) for each in islice(_deliveries(reader, destination, state), limit)]
    decisions = [queue_decision_view(each) for each in reader.queue_decisions(destination, DECISIONS)]
    if json_output:
        print_json({**view, "deliveries": found, "decisions": decisions})
        return
    print_table(_QUEUE_COLUMNS, [_queue_row(view, site.zone)])
    out.print()
    print_table(
        ("Number", "What", "Control ID", "Archived", "State", "Since", "Next try", "Attempts", "Reason"),
        ((each["number"], each["operation"] or each["kind"], each["control_id"], each["archived"], each["state"],
          _at(each["created_at"], site.zone), _next_try(each, site.zone), each["attempts"], each["reason"])
         for each in found),
    )  # fmt: skip
    if decisions:
        out.print()
        print_table(
            ("When", "What", "Messages", "Who", "Why"),
            ((_at(each["at"], site.zone), each["action"], each["messages"], each["actor"], each["note"])
             for each in decisions),
        )  # fmt: skip


_QUEUE_COLUMNS = ("Destination", "Gets", "Address", "Waiting", "Parked", "Oldest", "Held", "Last sent", "Last error")


def _queue_row(view: dict[str, Any], zone: tzinfo) -> tuple[object, ...]:
    error = f"{_at(view['last_error_at'], zone)} {view['last_error']}".strip()
    return (
        view["destination"], view["gets"] if view["configured"] else "not configured any more", view["address"],
        view["waiting"], view["parked"], _age(view["oldest_s"]), _held(view, zone), _at(view["last_sent_at"], zone),
        error,
    )  # fmt: skip


def _next_try(view: dict[str, Any], zone: tzinfo) -> str:
    """When it is tried the next time, as far as that is up to the message; '' where it is not."""
    if view["state"] != "waiting":
        return ""
    due_at = datetime.fromisoformat(view["due_at"])
    return moment(due_at, zone) if due_at > datetime.now(UTC) else "in its turn"


def _held(view: dict[str, Any], zone: tzinfo) -> str:
    """`held by anna since 2026-11-23 14:00:00: its disk is full`"""
    if not view["held"]:
        return ""
    who = f" by {view['held_by']} since {_at(view['held_at'], zone)}" if view["held_by"] else ""
    why = f": {view['held_why']}" if view["held_why"] else ""
    return f"held{who}{why}"


# --- keeping back -----------------------------------------------------------------------------------------------------


@queues.command("hold")
def queues_hold(
    destination: DestinationArgument, config: ConfigOption = CONFIG, actor: ActorOption = "", note: NoteOption = ""
) -> None:
    """Keep back what waits for a destination, and what comes: it is sent after `release`."""
    _keep(destination, config, True, _by(actor, note))


@queues.command("release")
def queues_release(
    destination: DestinationArgument, config: ConfigOption = CONFIG, actor: ActorOption = "", note: NoteOption = ""
) -> None:
    """Let what was held go on, in its order."""
    _keep(destination, config, False, _by(actor, note))


def _keep(destination: str, config: Path, held: bool, by: "By") -> None:
    from gateway.workflow.queue_decisions import keep

    site = site_of(config)
    store = store_at(site)
    before = _view(site, store.reader, destination)
    changed = store.write(lambda unit: keep(unit, destination, held, by)).result()
    store.close()
    already = "" if changed else " already"
    unknown = "" if before["configured"] else f" It is not in {site.file}, so nothing is sent there."
    out.print(f"{destination} is {'held' if held else 'not held'}{already}; {before['waiting']} waiting.{unknown}",
              highlight=False, markup=False, soft_wrap=True)  # fmt: skip


# --- single messages, or all of a destination -------------------------------------------------------------------------


@queues.command("drop")
def queues_drop(
    numbers: NumbersArgument = None,
    config: ConfigOption = CONFIG,
    destination: DestinationOption = "",
    parked: Annotated[bool, typer.Option("--parked", help="Of the destination only what was parked.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    actor: ActorOption = "",
    note: NoteOption = "",
) -> None:
    """Take messages out unsent, for good. Of HL7 messages the archive says so; who did it is kept for all."""
    from gateway.workflow.outbox import OutboxState
    from gateway.workflow.queue_decisions import QueueAction, by_whom

    site, store = _opened(config, numbers, destination)
    states = (OutboxState.PARKED,) if parked else (OutboxState.WAITING, OutboxState.PARKED)
    chosen, count = _chosen(site, store, numbers, destination, states)
    there = sum(store.reader.delivery(number) is not None for number in numbers) if numbers else count
    if there and not yes:
        typer.confirm(f"{there} message(s) will never be sent. Drop them?", abort=True)
    by = _by(actor, note)
    reason = by_whom(QueueAction.DROPPED, by)
    _change(store, chosen, count, QueueAction.DROPPED, by, lambda unit, number: unit.drop_delivery(number, reason))


@queues.command("park")
def queues_park(
    numbers: NumbersArgument = None,
    config: ConfigOption = CONFIG,
    destination: DestinationOption = "",
    actor: ActorOption = "",
    note: NoteOption = "",
) -> None:
    """Set messages aside, so that those behind them go on."""
    from gateway.workflow.outbox import OutboxState, park
    from gateway.workflow.queue_decisions import QueueAction, by_whom

    site, store = _opened(config, numbers, destination)
    chosen, count = _chosen(site, store, numbers, destination, (OutboxState.WAITING,))
    by = _by(actor, note)
    reason = by_whom(QueueAction.PARKED, by)
    _change(store, chosen, count, QueueAction.PARKED, by, lambda unit, number: park(unit, number, reason))


@queues.command("replay")
def queues_replay(
    numbers: NumbersArgument = None,
    config: ConfigOption = CONFIG,
    destination: DestinationOption = "",
    since: Annotated[
        str, typer.Option(help="What was sent to the destination since: 2h, 7d, today, 2026-11-23, 2026-11-23T14:00")
    ] = "",
    until: Annotated[str, typer.Option(help="With --since: before this time.")] = "",
    as_it_was: Annotated[
        bool, typer.Option("--as-it-was", help="Also what newer news about its order has overtaken since.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
    actor: ActorOption = "",
    note: NoteOption = "",
) -> None:
    """Send what was parked again, or at once what waits for its next try; with --since what was sent before.

    It has the same control ID or SOP Instance UID as before. What its mapping could not write is written now, as things
    stand now. What was parked stays so where the destination has accepted newer news about the same order since: it
    would take that back.
    """
    from gateway.workflow.outbox import OutboxState, retry
    from gateway.workflow.queue_decisions import QueueAction
    from gateway.workflow.telling import tell_again

    if since and (numbers or not destination):
        raise typer.BadParameter("it goes with --destination", param_hint="--since")
    site, store = _opened(config, numbers, destination)
    if since:
        _send_again(site, store, destination, since, until, _by(actor, note), dry_run)
        return
    chosen, count = _chosen(site, store, numbers, destination, (OutboxState.PARKED,))
    kept_back = partial(_kept_back, site, as_it_was)
    if dry_run:
        count -= sum(bool(kept_back(store.reader, number)) for number in chosen)
        out.print(f"{count} message(s) would be sent again. Nothing was changed.", highlight=False)
        return
    from gateway.outgoing import audience_of

    by, audience = _by(actor, note), audience_of(site)

    def again(unit: "StoreUnit", number: int) -> bool:
        if kept_back(unit, number):
            return False
        return retry(unit, number, by.at) or tell_again(unit, audience, number, by.at, site.zone)

    _change(store, chosen, count, QueueAction.SENT_AGAIN, by, again, kept_back)


def _kept_back(site: "Site", as_it_was: bool, reader: "StoreReader | StoreUnit", number: int) -> str:
    """Why something in the outbox is better not sent again; '' where nothing speaks against it."""
    from gateway.workflow.outbox import can_be_sent
    from gateway.workflow.requeue import overtaken

    held = reader.delivery(number)
    if held is None:
        return ""
    if held.destination not in {place.name for place in site.settings.destinations}:
        return f"{held.destination} is not in {site.file}, so nothing is sent there"
    if not as_it_was and can_be_sent(held) and overtaken(reader, held):
        return (
            f"{held.destination} has accepted newer news about the same order since, which these would take back; "
            "drop them, or send them all the same with --as-it-was"
        )
    return ""


def _opened(config: Path, numbers: list[int] | None, destination: str) -> "tuple[Site, Store]":
    if bool(numbers) == bool(destination):
        raise typer.BadParameter("name the numbers of messages, or --destination", param_hint="NUMBERS")
    site = site_of(config)
    return site, store_at(site)


def _chosen(
    site: "Site", store: "Store", numbers: list[int] | None, destination: str, states: "Sequence[OutboxState]"
) -> tuple[Iterable[int], int]:
    """The numbers that are meant, and how many they are now; what comes meanwhile is not meant."""
    if numbers:
        return numbers, len(numbers)
    view = _view(site, store.reader, destination)
    count = sum(view.get(state.value, 0) for state in states)
    found = (each.id for state in states for each in _deliveries(store.reader, destination, state))
    return islice(found, count), count


def _by(actor: str, note: str) -> "By":
    """Somebody who decides now."""
    from gateway.edges.desk import actor_named
    from gateway.workflow.reconcile import By

    return By(actor_named(actor or account()), datetime.now(UTC), note=note)


def _change(
    store: "Store",
    chosen: Iterable[int],
    count: int,
    action: "QueueAction",
    by: "By",
    change: "Callable[[StoreUnit, int], bool]",
    kept_back: "Callable[[StoreReader, int], str]" = lambda *_: "",
) -> None:
    """Change them, many in one transaction with their line in the log, and say which of them were not, and why."""
    what = _DONE.get(action, action.value)
    not_done: list[int] = []
    done = 0
    left = iter(chosen)
    with progress(count, what) as advance:
        while page := list(islice(left, PAGE)):
            outcomes = store.write(partial(_changed, page, action, by, change)).result()
            done += sum(outcomes)
            not_done += [number for number, is_done in zip(page, outcomes, strict=True) if not is_done]
            advance(len(page))
    reasons: dict[str, list[int]] = {}
    for number in not_done:
        reasons.setdefault(kept_back(store.reader, number) or _why_not(store.reader, number), []).append(number)
    store.close()
    out.print(f"{done} message(s) {what}.", highlight=False)
    if reasons:
        fail("\n".join(f"{', '.join(map(str, which))}: {why}" for why, which in reasons.items()))


def _why_not(reader: "StoreReader", number: int) -> str:
    if reader.delivery(number) is None:
        return "not in the outbox: sent or dropped meanwhile"
    return "never written and not to be written now, as `queues show` says why"


def _changed(
    page: Sequence[int],
    action: "QueueAction",
    by: "By",
    change: "Callable[[StoreUnit, int], bool]",
    unit: "StoreUnit",
) -> list[bool]:
    from gateway.workflow import queue_decisions

    return queue_decisions.change(unit, page, action, by, partial(change, unit))


_DONE = {"sent again": "to be sent again"}
"""What was done, where the log's word for what was decided would say too much."""


# --- what was sent before ---------------------------------------------------------------------------------------------


def _send_again(
    site: "Site", store: "Store", destination: str, since: str, until: str, by: "By", dry_run: bool
) -> None:  # fmt: skip
    """Everything that was sent there in this time, in pages of a transaction each."""
    from gateway.domain.problem import one_of

    begin, end = when(since, site.zone), when(until, site.zone, "--until") or by.at
    place = next((each for each in site.settings.destinations if each.name == destination), None)
    if place is None:
        hint = one_of(destination, [each.name for each in site.settings.destinations])
        fail(f"there is no destination {destination} in {site.file}, so nothing can be sent there ({hint})")
    assert begin is not None  # noqa: S101  (--since was given)
    run = store.rehearse if dry_run else store.write
    count = after = 0
    more = True
    while more:
        sends = place.performed.sends if place.performed else ""
        done: Requeued = run(partial(_requeue, destination, sends, begin, end, by, after)).result()
        count, after, more = count + done.count, done.last, done.more
    store.close()
    would = "would be sent again. Nothing was changed." if dry_run else "to be sent again."
    out.print(f"{count} message(s) {would}", highlight=False)


def _requeue(
    destination: str, sends: Any, since: datetime, until: datetime, by: "By", after: int, unit: "StoreUnit"
) -> "Requeued":
    from gateway.workflow.queue_decisions import QueueAction, note
    from gateway.workflow.requeue import requeue_messages, requeue_performed

    if sends:
        done = requeue_performed(unit, destination, since, by.at, PAGE, after, until, sends)
    else:
        done = requeue_messages(unit, destination, since, by.at, PAGE, after, until)
    note(unit, destination, QueueAction.SENT_AGAIN, by, done.archived)
    return done


# --- in common --------------------------------------------------------------------------------------------------------


def _views(site: "Site", reader: "StoreReader") -> list[dict[str, Any]]:
    """Every destination that is configured or was ever told anything."""
    from gateway.desks import places_of
    from gateway.edges.desk_views import queue_views

    return queue_views(reader, places_of(site), datetime.now(UTC))


def _view(site: "Site", reader: "StoreReader", destination: str) -> dict[str, Any]:
    """One destination; fails where there is none of this name."""
    from gateway.domain.problem import one_of

    views = {view["destination"]: view for view in _views(site, reader)}
    if destination not in views:
        fail(f"there is no destination {destination} ({one_of(destination, views)})")
    return views[destination]


def _deliveries(reader: "StoreReader", destination: str, state: "OutboxState | None") -> "Iterator[Any]":
    last = 0
    while page := reader.deliveries(PAGE, last, destination, state):
        last = page[-1].id
        yield from page


def _at(said: str | None, zone: tzinfo) -> str:
    return moment(datetime.fromisoformat(said), zone) if said else ""


def _age(seconds: int | None) -> str:
    """In the two largest units: `2 d 3 h`, `5 min 10 s`."""
    if seconds is None:
        return ""
    counts = []
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        counts.append((count, name))
    first = next((place for place, (count, _) in enumerate(counts) if count), len(counts) - 1)
    return " ".join(f"{count} {name}" for count, name in counts[first : first + 2])
