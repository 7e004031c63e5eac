"""`gateway performed list`, `show`, `propose`, `overdue`, `senders`: what the reconciliation desk is decided by.

What is shown here is for people with the right to see it, so it may name patients; logs never do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

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
    site_of,
    store_at,
    when,
)

if TYPE_CHECKING:
    from gateway.domain.performed import Attention
    from gateway.domain.refusal import Refused
    from gateway.edges.store import StoreReader
    from gateway.workflow.ports import PerformedSearch, StoredPerformed

performed = typer.Typer(
    help="Performed steps (MPPS): what has no order, what has no report, and linking the two.", no_args_is_help=True
)

UIDArgument = Annotated[
    str, typer.Argument(help="SOP Instance UID of the performed step, or its end if that is one's.")
]
_ANY = "any"


@performed.command("list")
def performed_list(
    config: ConfigOption = CONFIG,
    attention: Annotated[
        str,
        typer.Option(help="no-order, several-steps, another-patient, unlinked, set-aside; any: all but set-aside."),
    ] = "",
    is_open: Annotated[bool, typer.Option("--open", help="Only those in progress.")] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Only those in progress for longer than unfinished_after_h.")
    ] = False,
    by: Annotated[str, typer.Option(help="Only from this AE title.")] = "",
    patient: Annotated[str, typer.Option(help="Only of patients known by this ID.")] = "",
    since: Annotated[str, typer.Option(help="2h, 7d, today, yesterday, 2026-11-23, 2026-11-23T14:00")] = "",
    before: Annotated[str, typer.Option(help="Only those before this UID: the next page.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    json_output: JSONOption = False,
) -> None:
    """Performed steps, newest first, of those of which everything holds that is given."""
    from gateway.domain.performed import MPPSState
    from gateway.edges.desk_views import performed_view
    from gateway.processing import now
    from gateway.workflow.ports import PerformedSearch

    site = site_of(config)
    search = PerformedSearch(
        _attentions(attention),
        MPPSState.IN_PROGRESS if is_open or unfinished else None,
        by,
        since=when(since, site.zone),
        until=now() - timedelta(hours=site.settings.performed.unfinished_after_h) if unfinished else None,
    )
    reader = store_at(site).reader
    if before:
        before = performed_uid(reader, before)
    found = _of_patient(reader, search, patient, limit, before)
    views = [performed_view(each) for each in found]
    if json_output:
        print_json(views)
        return
    print_table(PERFORMED_COLUMNS, (performed_row(view, site.zone) for view in views))
    out.print(f"{len(views)} performed step(s)", highlight=False)


def _attentions(said: str) -> "frozenset[Attention]":
    from gateway.domain.performed import Attention
    from gateway.domain.problem import one_of
    from gateway.edges.desk import TO_BE_LOOKED_AT

    if said == _ANY:
        return TO_BE_LOOKED_AT
    known = {each.value.replace(" ", "-"): each for each in Attention if each}
    if said and said not in known:
        raise typer.BadParameter(f"{said!r}: {one_of(said, [*known, _ANY])}", param_hint="--attention")
    return frozenset({known[said]}) if said else frozenset()


def _of_patient(
    reader: "StoreReader", search: "PerformedSearch", patient: str, limit: int, before: str
) -> "Sequence[StoredPerformed]":
    if not patient:
        return reader.performed_steps(search, limit, before)
    numbers = [each.id for each in reader.patients_of_value(patient) if each.id is not None]
    if not numbers:
        fail(f"nobody is known by the patient ID {patient}; see `gateway patients find`")
    found = [
        each for number in numbers for each in reader.performed_steps(replace(search, patient=number), limit, before)
    ]
    return sorted(found, key=lambda each: (each.created_at, each.performed.sop_instance_uid), reverse=True)[:limit]


PERFORMED_COLUMNS = ("Received", "From", "State", "Attention", "Patient ID", "Name", "Mod", "Accession", "Description",
                 "Linked", "SOP Instance UID")  # fmt: skip


def performed_row(view: dict[str, Any], zone: tzinfo) -> tuple[object, ...]:
    """A performed step as lists show it, by PERFORMED_COLUMNS."""
    return (
        _at(view["received_at"], zone), view["from"], view["state"], view["attention"], view["patient_id"],
        view["patient_name"], view["modality"], ", ".join(_distinct(each["accession"] for each in view["names"])),
        view["description"], ", ".join(f"#{step}" for step in view["steps"]), view["uid"],
    )  # fmt: skip


@performed.command("show")
def performed_show(
    uid: UIDArgument,
    config: ConfigOption = CONFIG,
    datasets: Annotated[bool, typer.Option("--datasets", help="Also every request as it came.")] = False,
    json_output: JSONOption = False,
) -> None:
    """What is held of a performed step, what it is linked to, requests and decisions, and who was told of it."""
    from gateway.domain.performed import Attention
    from gateway.edges.desk_views import whole_view

    site = site_of(config)
    reader = store_at(site).reader
    stored = reader.stored_performed(performed_uid(reader, uid))
    if stored is None:
        fail("the performed step is not there any more")
    view = whole_view(reader, stored)
    if json_output:
        print_json(view)
        return
    print_table(PERFORMED_COLUMNS, [performed_row(view, site.zone)])
    _section("It names", ("Accession", "Requested procedure", "SPS ID", "Study Instance UID"), (
        (each["accession"], each["requested_procedure_id"], each["sps_id"], each["study_instance_uid"])
        for each in view["names"]
    ))  # fmt: skip
    quarantined = view["attention"] == Attention.ANOTHER_PATIENT
    whose = "It names these, which are of another patient; it counts for none of them"
    _section(whose if quarantined else "It is linked to", _STEP_COLUMNS, map(_step_row, view["linked"]))
    _section("It says", ("Attribute", "Value"), _said(view["attributes"]))
    _section("Requests", ("When", "Operation", "From", "Answer", "Bytes", "Notes"), (
        (_at(each["at"], site.zone), each["operation"], each["from"], each["status"], each["bytes"], each["notes"])
        for each in view["requests"]
    ))  # fmt: skip
    for each in view["requests"] if datasets else ():
        _section(f"{each['operation']} of {_at(each['at'], site.zone)}", ("Attribute", "Value"), _said(each["dataset"]))
    _section("Decisions", ("When", "What", "Who", "Why"), (
        (_at(each["at"], site.zone), each["action"], each["actor"], each["details"].get("note", ""))
        for each in view["decisions"]
    ))  # fmt: skip
    _section("Passed on, the last of each destination", ("To", "What", "When", "Answer"), (
        (each["destination"], each["operation"], _at(each["at"], site.zone), each["answer"])
        for each in view["passed_on"]
    ))  # fmt: skip
    _section("To be passed on", ("Number", "To", "What", "State", "Attempts", "Reason"), (
        (each["number"], each["destination"], each["operation"], each["state"], each["attempts"], each["reason"])
        for each in view["forwards"]
    ))  # fmt: skip
    _section("Decisions on passing it on", ("When", "What", "To", "Who", "Why"), (
        (_at(each["at"], site.zone), each["action"], each["destination"], each["actor"], each["note"])
        for each in view["queue_decisions"]
    ))  # fmt: skip


_STEP_COLUMNS = ("No.", "Status", "SPS ID", "Accession", "Start", "Station", "Mod", "Patient ID", "Name", "Description")


def _step_row(view: dict[str, Any]) -> tuple[object, ...]:
    return (
        f"#{view['step']}", view["status"], view["sps_id"], view["accession"], _local(view["start"]),
        ", ".join(view["stations"]), view["modality"], view["patient_id"], view["patient_name"], view["description"],
    )  # fmt: skip


def _said(attributes: dict[str, Any] | None) -> Iterable[tuple[str, str]]:
    """Attributes by name; sequences by how many items they have."""
    from gateway.wire.dicom_json import keyword_of
    from gateway.workflow.compare import readable_text

    if attributes is None:
        yield "(cannot be read)", ""
    for tag, element in sorted((attributes or {}).items()):
        values = element.get("Value") or ()
        if element.get("vr") == "SQ":
            yield keyword_of(tag) or tag, f"{len(values)} item(s)"
        else:
            yield keyword_of(tag) or tag, readable_text(list(values)) if values else ""


# --- lists to decide by -----------------------------------------------------------------------------------------------


@performed.command("propose")
def performed_propose(
    uid: Annotated[
        str | None,
        typer.Argument(help="SOP Instance UID or its end; default: all to be looked at.", show_default=False),
    ] = None,
    config: ConfigOption = CONFIG,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Performed steps, where none is named.")] = 50,
    json_output: JSONOption = False,
) -> None:
    """Scheduled steps that a performed one may belong to, the likeliest first, with reasons. `link` confirms one."""
    from gateway.edges.desk import TO_BE_LOOKED_AT
    from gateway.edges.desk_views import proposal_views
    from gateway.workflow.ports import PerformedSearch
    from gateway.workflow.proposals import proposals

    site = site_of(config)
    reader = store_at(site).reader
    if uid is not None:
        uids = [performed_uid(reader, uid)]
    else:
        found = reader.performed_steps(PerformedSearch(TO_BE_LOOKED_AT), limit)
        uids = [each.performed.sop_instance_uid for each in found]
    proposed = {each: proposal_views(reader, proposals(reader, each, site.issuers)) for each in uids}
    if json_output:
        print_json([{"uid": each, "proposals": views} for each, views in proposed.items()])
        return
    for each, views in proposed.items():
        out.print(each, style="bold", highlight=False)
        if not views:
            out.print("  nothing fits; `order` makes an order of it, `set-aside` puts it away", highlight=False)
            continue
        print_table(
            (*_STEP_COLUMNS, "Apart", "Because"),
            ((*_step_row(view), _apart(view["minutes_apart"]), "; ".join(view["reasons"]))
             for view in views),
        )  # fmt: skip


@performed.command("overdue")
def performed_overdue(
    config: ConfigOption = CONFIG,
    hours: Annotated[
        int | None, typer.Option(min=0, help="After its start; default: overdue_after_h.", show_default=False)
    ] = None,
    station: Annotated[str, typer.Option(help="Only planned at this AE title.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    json_output: JSONOption = False,
) -> None:
    """Scheduled steps past their time that no performed step is linked to, the oldest first."""
    from gateway.edges.desk_views import overdue_views
    from gateway.processing import now

    site = site_of(config)
    reader = store_at(site).reader
    after = timedelta(hours=site.settings.performed.overdue_after_h if hours is None else hours)
    before = f"{site.wall_clock(now() - after):%Y%m%d%H%M%S}"
    views: list[dict[str, Any]] = []
    last = 0
    while len(views) < limit and (page := reader.overdue_steps(before, _PAGE, last)):
        last = page[-1].step.step_id
        views += overdue_views(reader, [each for each in page if station in ("", *each.stations)])
    views = views[:limit]
    if json_output:
        print_json(views)
        return
    print_table(_STEP_COLUMNS, map(_step_row, views))
    out.print(f"{len(views)} scheduled step(s)", highlight=False)


@performed.command("senders")
def performed_senders(
    config: ConfigOption = CONFIG,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Looked back.")] = 30,
    never: Annotated[bool, typer.Option("--never", help="Only those that never reported.")] = False,
    json_output: JSONOption = False,
) -> None:
    """Which stations report what they do by MPPS, and which never do."""
    from gateway.edges.desk_views import sender_view
    from gateway.processing import now

    site = site_of(config)
    until = now()
    since = until - timedelta(days=days)
    start_from, start_to = (f"{site.wall_clock(at):%Y%m%d%H%M%S}" for at in (since, until))
    reports = store_at(site).reader.performance_reports(start_from, start_to, since, until)
    views = [view for view in map(sender_view, reports) if not never or view["reports"] == "never"]
    if json_output:
        print_json(views)
        return
    print_table(
        ("AE title", "Planned", "With a performed step", "Received from it", "Last", "Reports"),
        ((view["ae_title"], view["scheduled"], view["performed"], view["received"], _at(view["last_at"], site.zone),
          view["reports"]) for view in views),
    )  # fmt: skip


_PAGE = 500


# --- in common --------------------------------------------------------------------------------------------------------


def performed_uid(reader: "StoreReader", uid: str) -> str:
    """The whole UID of the one that is meant; fails in words."""
    from gateway.domain.refusal import Refused
    from gateway.edges.desk import performed_named

    try:
        return performed_named(reader, uid)
    except Refused as refused:
        fail_refused(refused)


def fail_refused(refused: "Refused") -> NoReturn:
    """What is wrong, where, and what to do."""
    fail("\n".join(map(str, refused.refusals)))


def _section(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table with its title, where there is anything in it."""
    shown = list(rows)
    if shown:
        out.print(f"\n{title}", style="bold", highlight=False)
        print_table(columns, shown)


def _at(said: str | None, zone: tzinfo) -> str:
    return moment(datetime.fromisoformat(said), zone) if said else ""


def _local(start: str) -> str:
    """14 digits of the department's clock as people read them."""
    return f"{start[:4]}-{start[4:6]}-{start[6:8]} {start[8:10]}:{start[10:12]}" if len(start) >= 12 else start


def _apart(minutes: int | None) -> str:
    if minutes is None:
        return ""
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{rest} min"


def _distinct(values: Iterable[str]) -> list[str]:
    return [value for value in dict.fromkeys(values) if value]
