"""`gateway outbox`: what waits to be told to other systems, what was parked, and a person's say in both.

A service that runs meanwhile sees what is changed here within a second.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.console import (
    CONFIG,
    ConfigOption,
    JSONOption,
    fail,
    moment,
    out,
    print_json,
    print_table,
    site_of,
    store_of,
)

if TYPE_CHECKING:
    from gateway.edges.store import Store, StoreReader
    from gateway.workflow.outbox import Delivery, OutboxState

outbox = typer.Typer(help="Messages of ours that wait for their destination or were parked.", no_args_is_help=True)

NumbersArgument = Annotated[list[int] | None, typer.Argument(help="Numbers from `outbox list`.", show_default=False)]
DestinationOption = Annotated[str, typer.Option(help="All of this destination instead of single ones.")]

PAGE = 100
"""Messages looked at together: they are read whole."""


@outbox.command("list")
def outbox_list(
    config: ConfigOption = CONFIG,
    destination: Annotated[str, typer.Option(help="Only what is for this one.")] = "",
    parked: Annotated[bool, typer.Option("--parked", help="Only what was parked.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 100,
    json_output: JSONOption = False,
) -> None:
    """What waits and what was parked, oldest first. What was sent is in `gateway messages list --direction out`."""
    from gateway.workflow.outbox import OutboxState

    zone = site_of(config).zone
    state = OutboxState.PARKED if parked else None
    found = [each for each, _ in zip(_of(store_of(config).reader, destination, state), range(limit), strict=False)]
    if json_output:
        print_json([_shown(each) for each in found])
        return
    print_table(
        ["number", "message", "destination", "control ID", "state", "since", "next try", "attempts", "reason"],
        [
            (each.id, each.message_id, each.destination, each.control_id, each.state.value,
             moment(each.created_at, zone), moment(each.due_at, zone), each.attempts, each.reason)
            for each in found
        ],
    )  # fmt: skip


@outbox.command("retry")
def outbox_retry(
    numbers: NumbersArgument = None, config: ConfigOption = CONFIG, destination: DestinationOption = ""
) -> None:
    """Send again what was parked, or at once what waits for its next try; with the same control ID as before."""
    from gateway.workflow.outbox import OutboxState, retry

    at = datetime.now(UTC)
    _each(store_of(config), numbers, destination, OutboxState.PARKED, partial(retry, at=at))


@outbox.command("park")
def outbox_park(
    numbers: NumbersArgument = None, config: ConfigOption = CONFIG, destination: DestinationOption = ""
) -> None:
    """Set messages aside, so that those behind them go on."""
    from gateway.workflow.outbox import OutboxState, park

    _each(store_of(config), numbers, destination, OutboxState.WAITING, park)


def _each(
    store: "Store",
    numbers: list[int] | None,
    destination: str,
    state: "OutboxState",
    change: Callable[..., bool],
) -> None:
    if bool(numbers) == bool(destination):
        raise typer.BadParameter("name the numbers of messages, or --destination", param_hint="NUMBERS")
    wanted = numbers or [each.id for each in _of(store.reader, destination, state)]

    missing = [number for number in wanted if not store.write(partial(change, delivery_id=number)).result()]
    store.close()
    out.print(f"{len(wanted) - len(missing)} message(s) changed.")
    if missing:
        fail(f"not in the outbox: {', '.join(map(str, missing))}")


def _of(reader: "StoreReader", destination: str, state: "OutboxState | None") -> "Iterator[Delivery]":
    last = 0
    while page := reader.deliveries(PAGE, last):
        last = page[-1].id
        yield from (
            each for each in page if destination in ("", each.destination) and state in (None, each.state)
        )  # fmt: skip


def _shown(delivery: "Delivery") -> dict[str, object]:
    return {
        "number": delivery.id,
        "message": delivery.message_id,
        "destination": delivery.destination,
        "control_id": delivery.control_id,
        "state": delivery.state.value,
        "created_at": delivery.created_at.isoformat(),
        "due_at": delivery.due_at.isoformat(),
        "attempts": delivery.attempts,
        "reason": delivery.reason,
    }
