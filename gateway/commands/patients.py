"""The commands `gateway patients`: who is known by which identifiers, what was merged, and taking a merge back.

What is shown here is for people with the right to see it.
"""

from collections.abc import Iterable
from datetime import tzinfo
from typing import TYPE_CHECKING, Annotated, Any

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
    store_of,
    when,
)

if TYPE_CHECKING:
    from gateway.domain.identifiers import Identifier
    from gateway.domain.patient import IdentityChange, Patient
    from gateway.edges.store import StoreReader
    from gateway.workflow.identities import TakingBack

patients = typer.Typer(help="Patients, their identifiers, and merges.", no_args_is_help=True)

FOUND_MAX = 50
"""Patients listed for the beginning of a name."""


@patients.command("find")
def patients_find(
    key: Annotated[str, typer.Argument(help="An identifier, also a retired one; else the beginning of a name.")],
    config: ConfigOption = CONFIG,
    json_output: JSONOption = False,
) -> None:
    """The patients with an identifier, whoever issued it; where there are none, those of that name."""
    reader = store_of(config).reader
    found = reader.patients_of_value(key) or reader.patients_of_name(key, FOUND_MAX)
    if json_output:
        print_json([_plain(patient) for patient in found])
        return
    if not found:
        fail("nobody is known by this identifier or name")
    print_table(_PATIENT_COLUMNS, map(_patient_row, found))


@patients.command("show")
def patients_show(
    number: Annotated[int, typer.Argument(help="The number that `patients find` shows.")],
    config: ConfigOption = CONFIG,
    json_output: JSONOption = False,
) -> None:
    """Everything held of one patient: identifiers, data and where they come from, orders, and what was merged."""
    from gateway.domain.attributes import BY_TAG, text

    zone = site_of(config).zone
    reader = store_of(config).reader
    patient = reader.patient(number)
    if patient is None or patient.id is None:
        fail(f"there is no patient {number}")
    owned, lines = reader.belongings(patient.id), reader.identity_changes(patient.id)
    lent = patient.stamps.weak_names()
    if json_output:
        print_json(
            _plain(patient)
            | {"attributes": patient.attributes, "lent": sorted(lent), "orders": owned.orders, "visits": owned.visits,
               "performed_steps": owned.performed_steps, "log": [_plain_line(line) for line in lines]}
        )  # fmt: skip
        return
    if patient.id != number:
        out.print(f"{number} was merged into {patient.id}.", highlight=False)
    print_table(_PATIENT_COLUMNS, [_patient_row(patient)])
    out.print()
    print_table(
        ("Attribute", "Value", ""),
        (
            (name, text(patient.attributes, name) if name != tag else "", "of a merged record" if tag in lent else "")
            for tag, name in ((tag, BY_TAG[tag].keyword if tag in BY_TAG else tag) for tag in patient.attributes)
        ),
    )
    out.print(
        f"\n{len(owned.orders)} order(s), {len(owned.visits)} visit(s), {len(owned.performed_steps)} performed step(s)",
        highlight=False,
    )
    if lines:
        print_table(_LINE_COLUMNS, _line_rows(lines, reader, zone))


@patients.command("merges")
def patients_merges(
    config: ConfigOption = CONFIG,
    since: Annotated[str, typer.Option(help="Only since: 7d, 12h, today, or a date.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    json_output: JSONOption = False,
) -> None:
    """The newest merges, links, moves and changes of identifiers, and which of them were taken back."""
    zone = site_of(config).zone
    reader = store_of(config).reader
    lines = reader.identity_changes(since=when(since, zone), limit=limit)
    if json_output:
        print_json([_plain_line(line) for line in lines])
        return
    print_table(_LINE_COLUMNS, _line_rows(lines, reader, zone))
    out.print(f"{len(lines)} line(s)", highlight=False)


@patients.command("unmerge")
def patients_unmerge(
    number: Annotated[int, typer.Argument(help="The line's number in `patients merges`.")],
    config: ConfigOption = CONFIG,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only show.")] = False,
    json_output: JSONOption = False,
) -> None:
    """Take back a merge, link, move or change of identifiers; shows what that does first."""
    from gateway.domain.identifiers import Mint
    from gateway.domain.refusal import Refused
    from gateway.outgoing import audience_of
    from gateway.processing import now
    from gateway.workflow.circumstances import Circumstances
    from gateway.workflow.fhir_identities import take_back
    from gateway.workflow.identities import BY_HAND, taking_back

    site, store = site_of(config), store_of(config)
    mint = Mint(store.site_namespace())
    under = Circumstances(BY_HAND, mint, site.issuers, audience=audience_of(site), zone=site.zone)
    notes: tuple[str, ...] = ()
    try:
        plan = taking_back(store.reader, number)
        if yes:
            notes = store.write(lambda unit: take_back(unit, number, under, now())).result()
    except Refused as refused:
        fail("; ".join(f"{refusal.text}: {refusal.hint}" for refusal in refused.refusals))
    if json_output:
        print_json({"done": yes, **_plain_plan(plan), "notes": notes})
        return
    for sentence in _sentences(plan):
        out.print(sentence, highlight=False, markup=False, soft_wrap=True)
    for note in notes:
        out.print(f"Note: {note}.", highlight=False, markup=False, soft_wrap=True)
    out.print("Done." if yes else "Nothing is done without --yes.", highlight=False)


def _sentences(plan: "TakingBack") -> Iterable[str]:
    """What taking it back does, in words."""
    from gateway.domain.patient import IdentityKind

    change, patient = plan.change, _named(plan.patient)
    match change.kind:
        case IdentityKind.CHANGE:
            yield f"{patient} gets back the identifiers of before: {_listed_pairs(change.details['identifiers'])}."
            return
        case IdentityKind.LINK if not change.details:
            yield f"{patient} and {_named(plan.other)} are not linked any more."
            return
        case IdentityKind.MOVE:
            yield f"These return from {patient} to {_named(plan.other)}:"
        case _:
            yield f"{_named(plan.other)} is a patient again, apart from {patient}."
            yield "What was said of it, also since, is its own again, and no longer shown with the other. Return:"
    yield f"  orders: {', '.join(map(str, plan.returning.orders)) or 'none'}"
    yield f"  visits: {', '.join(map(str, plan.returning.visits)) or 'none'}"
    yield f"  performed steps: {', '.join(plan.returning.performed_steps) or 'none'}"
    if plan.followed:
        numbers = ", ".join(map(str, plan.followed))
        yield f"Of the orders these came since, under identifiers of {_named(plan.other)}: {numbers}."
    if plan.missing:
        yield f"{plan.missing} of what moved then belongs to somebody else by now, and stays there."
    if plan.since:
        numbers = ", ".join(map(str, plan.since))
        yield f"Orders that came since and stay with {patient}: {numbers}. Check whose they are."


_PATIENT_COLUMNS = ("No.", "Name", "Born", "Sex", "Identifiers", "Retired")
_LINE_COLUMNS = ("Line", "When", "What", "Patient", "Other", "Cause", "Taken back")


def _patient_row(patient: "Patient") -> tuple[object, ...]:
    from gateway.domain.attributes import text

    return (
        patient.id,
        text(patient.attributes, "PatientName"),
        text(patient.attributes, "PatientBirthDate"),
        text(patient.attributes, "PatientSex"),
        _listed(patient.identifiers),
        _listed(patient.retired),
    )


def _line_rows(
    lines: Iterable["IdentityChange"], reader: "StoreReader", zone: tzinfo
) -> Iterable[tuple[object, ...]]:  # fmt: skip
    for line in lines:
        yield (
            line.id,
            moment(line.at, zone),
            f"{line.kind} of line {line.details['line']}" if "line" in line.details else line.kind,
            _whose(reader, line.patient_id),
            _listed_pairs(line.details["identifiers"]) if "identifiers" in line.details
            else _whose(reader, line.other_id),
            line.cause,
            moment(line.undone, zone) if line.undone else "",
        )  # fmt: skip


def _whose(reader: "StoreReader", number: int | None) -> str:
    patient = reader.patient(number) if number is not None else None
    return _named(patient) if patient else ""


def _named(patient: "Patient | None") -> str:
    if patient is None:
        return "nobody"
    return f"{patient.id} ({_listed(patient.identifiers[:1])})" if patient.identifiers else str(patient.id)


def _listed(identifiers: Iterable["Identifier"]) -> str:
    return ", ".join(f"{each.value} of {each.issuer}" if each.issuer else each.value for each in identifiers)


def _listed_pairs(identifiers: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{value} of {issuer}" if issuer else value for value, issuer in identifiers)


def _plain(patient: "Patient") -> dict[str, Any]:
    number, name, born, sex, _, _ = _patient_row(patient)
    return {
        "number": number, "name": name, "birth_date": born, "sex": sex,
        "identifiers": [{"value": each.value, "issuer": each.issuer} for each in patient.identifiers],
        "retired": [{"value": each.value, "issuer": each.issuer} for each in patient.retired],
    }  # fmt: skip


def _plain_line(line: "IdentityChange") -> dict[str, Any]:
    return {
        "line": line.id, "at": line.at.isoformat(), "kind": line.kind, "cause": line.cause, "patient": line.patient_id,
        "other": line.other_id, "details": line.details, "undone": line.undone.isoformat() if line.undone else None,
    }  # fmt: skip


def _plain_plan(plan: "TakingBack") -> dict[str, Any]:
    return {
        "line": _plain_line(plan.change), "orders": plan.returning.orders, "visits": plan.returning.visits,
        "performed_steps": plan.returning.performed_steps, "missing": plan.missing, "orders_since": plan.since,
        "orders_followed": plan.followed,
    }  # fmt: skip
