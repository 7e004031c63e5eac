"""`gateway performed link`, `unlink`, `release`, `set-aside`, `bring-back`, `order`, `close`: the desk's decisions.

Every one has its line in the log: who, when, why, and what was changed. A service that runs meanwhile sees it with its
next look, and sends what follows from it within a second.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.console import (
    CONFIG,
    ActorOption,
    ConfigOption,
    JSONOption,
    NoteOption,
    account,
    out,
    print_json,
    print_table,
    site_of,
    store_at,
)
from gateway.commands.performed import (
    PERFORMED_COLUMNS,
    UIDArgument,
    fail_refused,
    performed,
    performed_row,
    performed_uid,
)

if TYPE_CHECKING:
    from gateway.config import Site
    from gateway.edges.desk import Desk
    from gateway.edges.store import Store, StoreReader, StoreUnit
    from gateway.workflow.reconcile import By, Reconciled

__all__ = ["performed"]

REASON_CODES = "110500 to 110516, 110521 to 110524, 110526 to 110530, 110533, 113568"
"""What may be given as `--reason` (`domain.discontinuation.CHOICES`): as text, the table is loaded with the command."""

ForceOption = Annotated[bool, typer.Option("--force", help="Also where they name two patients.")]
StepOption = Annotated[list[str], typer.Option("--step", help="SPS ID, or #number; may be repeated.")]


@dataclass(frozen=True, slots=True)
class _Opened:
    """The desk, opened by somebody for one performed step."""

    site: "Site"
    store: "Store"
    desk: "Desk"
    uid: str
    by: "By"


def _open(config: Path, uid: str, actor: str, note: str) -> _Opened:
    from gateway.desks import desk_of
    from gateway.domain.identifiers import Mint
    from gateway.processing import now

    site = site_of(config)
    store = store_at(site)
    desk = desk_of(site, Mint(store.site_namespace()))
    return _Opened(site, store, desk, performed_uid(store.reader, uid), desk.by(actor or account(), now(), note))


def _decide(
    opened: _Opened, use_case: "Callable[[StoreUnit], Reconciled]", json_output: bool, made: Sequence[int | None] = ()
) -> None:
    """Do it and print what came of it; a refusal ends the command with 1. `made` then has the number of a new order."""
    from gateway.domain.refusal import Refused
    from gateway.edges.desk_views import reconciled_view

    try:
        done = opened.store.write(use_case).result()
    except Refused as refused:
        fail_refused(refused)
    view = reconciled_view(opened.store.reader, done)
    opened.store.close()
    if json_output:
        print_json({"order": made[-1], **view} if made else view)
        return
    print_table(PERFORMED_COLUMNS, [performed_row(view["performed_step"], opened.site.zone)])
    for order in made:
        out.print(f"Order #{order} was made.", highlight=False)
    for each in view["changes"]:
        out.print(f"Step #{each['step']}: {each['before']} -> {each['after']}", highlight=False)
    for note in view["notes"]:
        out.print(f"Note: {note}", highlight=False, markup=False, soft_wrap=True)


@performed.command("link")
def performed_link(
    uid: UIDArgument,
    config: ConfigOption = CONFIG,
    step: StepOption = [],  # noqa: B006  (typer copies it)
    accession: Annotated[str, typer.Option(help="The one step of this accession number.")] = "",
    force: ForceOption = False,
    actor: ActorOption = "",
    note: NoteOption = "",
    json_output: JSONOption = False,
) -> None:
    """It is what was done for these scheduled steps; `propose` says which they may be."""
    from gateway.workflow.reconcile import link

    if not step and not accession:
        raise typer.BadParameter("name a step with --step or --accession", param_hint="--step")
    opened = _open(config, uid, actor, note)
    steps = _scheduled(opened.store.reader, step, accession)
    _decide(opened, partial(link, uid=opened.uid, step_ids=steps, by=opened.by, force=force), json_output)


@performed.command("unlink")
def performed_unlink(
    uid: UIDArgument,
    config: ConfigOption = CONFIG,
    step: StepOption = [],  # noqa: B006  (typer copies it)
    actor: ActorOption = "",
    note: NoteOption = "",
    json_output: JSONOption = False,
) -> None:
    """It is not what was done for these steps, or for any it is linked to; they get back the status they had."""
    from gateway.workflow.reconcile import unlink

    opened = _open(config, uid, actor, note)
    steps = _scheduled(opened.store.reader, step)
    _decide(opened, partial(unlink, uid=opened.uid, by=opened.by, step_ids=steps), json_output)


@performed.command("release")
def performed_release(
    uid: UIDArgument,
    config: ConfigOption = CONFIG,
    believed: Annotated[
        bool, typer.Option("--believed", help="It counts: the modality had the wrong patient.")
    ] = False,
    actor: ActorOption = "",
    note: NoteOption = "",
    json_output: JSONOption = False,
) -> None:
    """End the quarantine of one that names another patient: it is linked to nothing, or believed."""
    from gateway.workflow.reconcile import release

    opened = _open(config, uid, actor, note)
    _decide(opened, partial(release, uid=opened.uid, by=opened.by, believed=believed), json_output)


@performed.command("set-aside")
def performed_set_aside(
    uid: UIDArgument,
    config: ConfigOption = CONFIG,
    actor: ActorOption = "",
    note: NoteOption = "",
    json_output: JSONOption = False,
) -> None:
    """It needs no order, such as a phantom or a test: nobody has to look at it any more."""
    from gateway.workflow.reconcile import set_aside

    opened = _open(config, uid, actor, note)
    _decide(opened, partial(set_aside, uid=opened.uid, by=opened.by), json_output)


@performed.command("bring-back")
def performed_bring_back(
    uid: UIDArgument,
    config: ConfigOption = CONFIG,
    actor: ActorOption = "",
    note: NoteOption = "",
    json_output: JSONOption = False,
) -> None:
    """It was wrong to set it aside."""
    from gateway.workflow.reconcile import bring_back

    opened = _open(config, uid, actor, note)
    _decide(opened, partial(bring_back, uid=opened.uid, by=opened.by), json_output)


@performed.command("order")
def performed_order(
    uid: UIDArgument,
    config: ConfigOption = CONFIG,
    actor: ActorOption = "",
    note: NoteOption = "",
    json_output: JSONOption = False,
) -> None:
    """Make an order of one that nobody ordered, and tell the placer of it."""
    from gateway.workflow.unscheduled import order_from

    opened = _open(config, uid, actor, note)
    under = opened.desk.circumstances(opened.by)
    made: list[int | None] = []

    def use_case(unit: "StoreUnit") -> "Reconciled":
        order, done = order_from(unit, opened.uid, opened.by, under)
        made[:] = [order.id]  # a use case may be run anew
        return done

    _decide(opened, use_case, json_output, made)


@performed.command("close")
def performed_close(
    uid: UIDArgument,
    state: Annotated[str, typer.Option("--as", help="COMPLETED or DISCONTINUED.")],
    config: ConfigOption = CONFIG,
    reason: Annotated[
        str, typer.Option(help=f"Why it was discontinued, a DCM code of CID 9300: {REASON_CODES}; ? says what each is.")
    ] = "",
    actor: ActorOption = "",
    note: NoteOption = "",
    json_output: JSONOption = False,
) -> None:
    """End one that its modality never will, as if it had: a later N-SET of the modality is refused."""
    from gateway.domain.performed import MPPSState
    from gateway.workflow.reconcile import close

    final = {MPPSState.COMPLETED.value: MPPSState.COMPLETED, MPPSState.DISCONTINUED.value: MPPSState.DISCONTINUED}
    if state.upper() not in final:
        raise typer.BadParameter("COMPLETED or DISCONTINUED", param_hint="--as")
    opened = _open(config, uid, actor, note)
    use_case = partial(close, uid=opened.uid, state=final[state.upper()], by=opened.by, reason=reason)
    _decide(opened, use_case, json_output)


# --- in common --------------------------------------------------------------------------------------------------------


def _scheduled(reader: "StoreReader", steps: Sequence[str], accession: str = "") -> tuple[int, ...]:
    from gateway.domain.refusal import Refused
    from gateway.edges.desk import scheduled_named

    try:
        return scheduled_named(reader, steps, accession)
    except Refused as refused:
        fail_refused(refused)
