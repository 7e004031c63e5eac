"""The commands `gateway orders`: what is held of one, and bringing open ones in line with today's mappings.

What is shown here is for people with the right to see it.
"""

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.console import (
    CONFIG,
    ConfigOption,
    JSONOption,
    fail,
    out,
    print_json,
    print_table,
    site_of,
    store_of,
    when,
)
from gateway.commands.worklist import order_ids

if TYPE_CHECKING:
    from gateway.config import Site
    from gateway.domain.order import Order
    from gateway.edges.store import Store
    from gateway.workflow.rederive import Rederived

orders = typer.Typer(help="Orders as held.", no_args_is_help=True)

SHOWN_MAX = 200
"""Changes printed; --json has all of them."""


@orders.command("show")
def orders_show(
    key: Annotated[str, typer.Argument(help="Order number, accession number, patient ID or step ID.")],
    config: ConfigOption = CONFIG,
    json_output: JSONOption = False,
) -> None:
    """Orders with their procedures and steps, and the messages that made them."""
    from gateway.workflow.ports import MessageSearch

    store = store_of(config)
    found = [order for order_id in order_ids(store, key) if (order := store.reader.order(order_id)) is not None]
    if not found:
        fail(f"no order is known by {key}")
    messages = {order.id: store.reader.find_messages(MessageSearch(order=order.id), 50) for order in found}
    if json_output:
        print_json([{**_plain(order), "messages": [each.id for each in messages[order.id]]} for order in found])
        return
    for order in found:
        said = _plain(order)
        kind = ", typed by hand" if order.by_hand else ""
        out.print(
            f"Order #{order.id}{kind}: placer {said['placer'] or '-'}, filler {said['filler'] or '-'}",
            style="bold", highlight=False, markup=False,
        )  # fmt: skip
        print_table(
            ("Accession", "Study Instance UID", "SPS ID", "Start", "Station", "Mod", "Status"),
            ((step["accession"], step["study_instance_uid"], step["sps_id"], step["start"], step["stations"],
              step["modality"], step["status"]) for step in said["steps"]),
        )  # fmt: skip
        numbers = ", ".join(str(each.id) for each in messages[order.id])
        out.print(f"Messages: {numbers or 'none archived'}", highlight=False)


def _plain(order: "Order") -> dict[str, Any]:
    from gateway.domain.attributes import text, values
    from gateway.domain.worklist import start_of

    return {
        "order": order.id,
        "placer": order.placer.value if order.placer else "",
        "filler": order.filler.value if order.filler else "",
        "site": order.site,
        "by_hand": order.by_hand,
        "steps": [
            {
                "accession": procedure.accession.value if procedure.accession else "",
                "study_instance_uid": procedure.study_instance_uid,
                "sps_id": step.sps_id,
                "start": start_of(step.attributes),
                "stations": ", ".join(values(step.attributes, "ScheduledStationAETitle")),
                "modality": text(step.attributes, "Modality"),
                "status": step.status.value,
            }
            for procedure in order.procedures
            for step in procedure.steps
        ],
    }


@orders.command("rederive")
def orders_rederive(
    config: ConfigOption = CONFIG,
    order: Annotated[str, typer.Option(help="Only orders with this order or accession number, or patient ID.")] = "",
    since: Annotated[str, typer.Option(help="Only orders with messages since: 7d, 12h, or YYYY-MM-DD.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only show.")] = False,
    json_output: JSONOption = False,
) -> None:
    """Apply today's mappings, catalogue and stations to open orders, from their archived messages.

    Keys, statuses, and steps that have begun never change.
    """
    from gateway.domain.identifiers import Mint
    from gateway.fhir_processing import all_archive_feeds
    from gateway.processing import now
    from gateway.workflow.rederive import rederive, rederived

    site, store = site_of(config), store_of(config)
    feeds = all_archive_feeds(site, Mint(store.site_namespace()))
    wanted = order_ids(store, order) if order else _open_orders(store, site, since)
    if order and not wanted:
        fail(f"no order is known by {order}")
    results: dict[int, Rederived] = {}
    for order_id in wanted:
        if yes:
            derived = store.write(partial(rederive, order_id=order_id, feeds=feeds, at=now())).result()
        else:
            derived = rederived(store.reader, order_id, feeds)
        if derived is not None:
            results[order_id] = derived
    if json_output:
        print_json(_plain_results(results, yes))
    else:
        _print_results(results, yes)


def _open_orders(store: "Store", site: "Site", since: str) -> list[int]:
    """The orders with a step on the list; of those with messages since then, where that is asked."""
    from gateway.domain.matching import Narrowing
    from gateway.workflow.ports import ORDER_LINK, MessageSearch

    step_ids = [step_id for step_id, _ in store.reader.candidates(Narrowing())]
    found = dict.fromkeys(ref.order_id for ref in store.reader.steps(step_ids))
    at = when(since, site.zone)
    if at is None:
        return list(found)
    summaries = store.reader.message_summaries(MessageSearch(since=at, direction="in"), 1_000_000)
    spoken = {int(value) for each in summaries for kind, value in each.keys if kind == ORDER_LINK}
    return [order_id for order_id in found if order_id in spoken]


def _plain_results(results: "dict[int, Rederived]", done: bool) -> dict[str, Any]:
    return {
        "done": done,
        "orders": [
            {
                "order": order_id,
                "changes": [
                    {"sps_id": each.item, "attribute": each.attribute, "old": each.old, "new": each.new}
                    for each in derived.changes
                ],
                "steps_added": derived.added,
                "left": derived.left,
                "notes": list(derived.notes),
            }
            for order_id, derived in results.items()
            if derived.changes or derived.added or derived.left or derived.notes
        ],
        "unchanged": sum(_is_unchanged(each) for each in results.values()),
    }


def _is_unchanged(derived: "Rederived") -> bool:
    return not (derived.changes or derived.added or derived.left)


def _print_results(results: "dict[int, Rederived]", done: bool) -> None:
    changes = [(order_id, each) for order_id, derived in results.items() for each in derived.changes]
    if changes:
        print_table(
            ("Order", "Step", "Attribute", "Old -> new"),
            ((f"#{order_id}", each.item, each.attribute, f"{_short(each.old)} -> {_short(each.new)}")
             for order_id, each in changes[:SHOWN_MAX]),
        )  # fmt: skip
    if len(changes) > SHOWN_MAX:
        out.print(f"... and {len(changes) - SHOWN_MAX} more; --json has all of them.", highlight=False)
    for attribute, number in Counter(each.attribute for _, each in changes).most_common():
        out.print(f"  {attribute}: {number} time(s)", highlight=False, markup=False)
    for order_id, derived in results.items():
        for note in derived.notes:
            out.print(f"order #{order_id}: {note}", highlight=False, markup=False)
    left = Counter(derived.left for derived in results.values() if derived.left)
    for reason, number in left.most_common():
        out.print(f"{number} order(s) left as they are: {reason}", highlight=False, markup=False, soft_wrap=True)
    changed = sum(not _is_unchanged(each) and not each.left for each in results.values())
    added = sum(each.added for each in results.values())
    said = f"{changed} order(s) {'changed' if done else 'would change'}, {added} step(s) added, {len(results)} open."
    out.print(said if done or not changed else f"{said} Nothing is done without --yes.", highlight=False)


def _short(value: object) -> str:
    from gateway.workflow.compare import readable_text

    return "(none)" if value is None else readable_text(value)
