"""The commands `gateway worklist add`, `cancel`, `link`, `export`: the list when the RIS, or the gateway, is away."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from gateway.commands.console import (
    CONFIG,
    ConfigOption,
    JSONOption,
    err,
    fail,
    out,
    print_json,
    print_table,
    site_of,
    store_of,
)
from gateway.commands.worklist import ITEM_COLUMNS, item_row, order_ids, worklist

if TYPE_CHECKING:
    from gateway.config import Site
    from gateway.domain.order import Order
    from gateway.domain.refusal import Refusal
    from gateway.domain.worklist import WorklistItem
    from gateway.edges.store import Store
    from gateway.workflow.by_hand import Form
    from gateway.workflow.intake import Feed

__all__ = ["worklist"]

MappingOption = Annotated[str, typer.Option(help="Completed by the rules of this mapping; default: ihe-swf.")]


@worklist.command("add")
def worklist_add(
    config: ConfigOption = CONFIG,
    template: Annotated[
        Path | None,
        typer.Option("--from", help="A YAML file with any of these fields; options count more.", dir_okay=False),
    ] = None,
    patient_id: Annotated[str, typer.Option(help="Required.")] = "",
    issuer: Annotated[str, typer.Option(help="Who issued it; default: as the first HL7 listener says.")] = "",
    name: Annotated[str, typer.Option(help="Family^Given^Middle^Prefix^Suffix; or the options for its parts.")] = "",
    family_name: Annotated[str, typer.Option(help="Required.")] = "",
    given_name: str = "",
    middle_name: str = "",
    name_prefix: str = "",
    name_suffix: str = "",
    birth_date: Annotated[str, typer.Option(help="YYYYMMDD or YYYY-MM-DD.")] = "",
    sex: Annotated[str, typer.Option(help="F, M or O.")] = "",
    procedure: Annotated[str, typer.Option(help="Code of the catalogue; or --description, --modality.")] = "",
    description: str = "",
    modality: str = "",
    station: Annotated[str, typer.Option(help="AE title, where the catalogue does not say it.")] = "",
    start: Annotated[
        str, typer.Option(help="YYYYMMDDHHMM, 'YYYY-MM-DD HH:MM', HH:MM of today, or now. Required.")
    ] = "",
    accession: Annotated[str, typer.Option(help="Default: one is made.")] = "",
    physician: Annotated[str, typer.Option(help="Who asks for it: Family^Given.")] = "",
    comment: str = "",
    mapping: MappingOption = "",
    json_output: JSONOption = False,
) -> None:
    """Put an order on the list by hand while the RIS is down; its own order takes this one over later."""
    from gateway.domain.refusal import Refused
    from gateway.processing import now
    from gateway.workflow.by_hand import Form, add

    options = Form(
        patient_id, issuer, family_name, given_name, middle_name, name_prefix, name_suffix, birth_date, sex, procedure,
        description, modality, station, start, accession, physician, comment,
    )  # fmt: skip
    parts = ("family_name", "given_name", "middle_name", "name_prefix", "name_suffix")
    said = _read(template) if template else {}
    said |= {part: text for part, text in zip(parts, name.split("^"), strict=False) if text}
    said |= {option: text for option, text in asdict(options).items() if text}
    form = _tidy(Form(**said), config)
    site, store = site_of(config), store_of(config, make=True)
    feed = _feed(site, store, mapping)
    if not form.issuer:
        form = replace(form, issuer=feed.issuer or _issuer_known(store, form.patient_id))
    at = now()
    try:
        order = store.write(
            lambda unit: add(unit, form, feed, at, site.wall_clock(at), f"H{uuid4().hex[:16]}")
        ).result()
    except Refused as refused:
        _fail_by_fields(refused.refusals)
    items = store.reader.items(step.id for each in order.procedures for step in each.steps if step.id is not None)
    if json_output:
        print_json([item.attributes for item in items])
    else:
        print_table(ITEM_COLUMNS, map(item_row, items))


def _read(template: Path) -> dict[str, str]:
    """A template's fields. Fails for one that there is not."""
    from gateway.domain.problem import Problem, did_you_mean
    from gateway.workflow.by_hand import Form
    from gateway.yaml_files import load_yaml, plain

    problems: list[Problem] = []
    said = plain(load_yaml(template, problems))
    known = [each.name for each in fields(Form)]
    if not problems and not isinstance(said, dict):
        fail(f"{template}: a template is a list of `field: value`")
    for key in said or ():
        if key.replace("-", "_") not in known:
            hint = did_you_mean(key, known) or f"known are {', '.join(known)}"
            problems.append(Problem(template.name, key, "there is no such field", hint))
    if problems:
        for problem in problems:
            err.print(str(problem), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    return {key.replace("-", "_"): "" if value is None else str(value) for key, value in said.items()}


def _tidy(form: "Form", config: Path) -> "Form":
    """Dates and times as people write them, in the digits that a message has."""
    from gateway.processing import now

    clock = site_of(config).wall_clock(now())
    start = form.start.strip()
    if start == "now":
        start = clock.strftime("%Y%m%d%H%M")
    elif len(start) == len("9:30") + 1 and start[2] == ":":
        start = clock.strftime("%Y%m%d") + start.replace(":", "")
    digits = "".join(sign for sign in start if sign not in "-: T")
    return replace(form, start=digits, birth_date=form.birth_date.replace("-", ""), sex=form.sex.upper())


def _issuer_known(store: "Store", patient_id: str) -> str:
    """Who issued this patient ID, where orders of one such patient are held: else the RIS would mean another person."""
    from gateway.domain.attributes import text
    from gateway.workflow.ports import ItemKey

    items = store.reader.items_by(ItemKey.PATIENT, patient_id) if patient_id else ()
    issuers = {text(item.attributes, "IssuerOfPatientID") for item in items}
    return issuers.pop() if len(issuers) == 1 else ""


def _fail_by_fields(refusals: "Iterable[Refusal]") -> None:
    for refusal in refusals:
        option = f"--{refusal.where.replace('_', '-')}" if refusal.where.replace("_", "").isalpha() else refusal.where
        text = f"{option}: {refusal.text}" + (f" ({refusal.hint})" if refusal.hint else "")
        err.print(text.removeprefix("--: "), markup=False, highlight=False, soft_wrap=True)
    fail("Nothing was put on the list.")


def _feed(site: "Site", store: "Store", mapping: str = "") -> "Feed":
    """How orders typed by hand are read. Fails where there is no such mapping."""
    from gateway.domain.identifiers import Mint
    from gateway.processing import by_hand_feed

    feed = by_hand_feed(site, Mint(store.site_namespace()), mapping)
    if feed is None:
        fail(f"there is no mapping {mapping or 'ihe-swf'}; have: {', '.join(sorted(site.mappings)) or 'none'}")
    return feed


@worklist.command("cancel")
def worklist_cancel(
    accession: Annotated[str, typer.Argument(help="The accession number of an order that was typed by hand.")],
    config: ConfigOption = CONFIG,
) -> None:
    """Take an order that was typed by hand off the list; those of the RIS are cancelled there."""
    from gateway.domain.identifiers import Identifier
    from gateway.domain.refusal import Refusal, RefusalKind, Refused
    from gateway.processing import now
    from gateway.workflow.by_hand import cancel
    from gateway.workflow.ports import Unit

    site, store = site_of(config), store_of(config)
    feed = _feed(site, store)
    at = now()

    def take_off(unit: Unit) -> None:
        orders = unit.orders_by_accession(Identifier(accession, feed.issuer))
        patient = unit.patient(orders[0].patient_id) if len(orders) == 1 else None
        if patient is None or not patient.identifiers:
            raise Refused(Refusal(RefusalKind.UNKNOWN_ORDER, "", f"no order typed by hand has the number {accession}"))
        cancel(unit, orders[0], patient.identifiers[0], feed, at, site.wall_clock(at), f"H{uuid4().hex[:16]}")

    try:
        store.write(take_off).result()
    except Refused as refused:
        fail("; ".join(map(str, refused.refusals)))
    out.print(f"{accession} is off the list.", highlight=False, markup=False)


@worklist.command("link")
def worklist_link(
    item: Annotated[str, typer.Argument(help="Accession number or step ID of an order that was typed by hand.")],
    order: Annotated[str, typer.Argument(help="Order or accession number of the RIS's own order for the same.")],
    config: ConfigOption = CONFIG,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only show.")] = False,
) -> None:
    """Say that an order typed by hand and one of the RIS are the same, where that cannot be told from them."""
    from gateway.domain.identifiers import Mint
    from gateway.domain.refusal import Refused
    from gateway.edges.store_unit import StoreUnit
    from gateway.processing import now
    from gateway.workflow.by_hand import link

    store = store_of(config)
    typed, ordered = _one_order(store, item), _one_order(store, order)
    mint, at = Mint(store.site_namespace()), now()

    def linked(unit: StoreUnit) -> "Sequence[WorklistItem]":
        made = link(unit, typed, ordered, mint, at)
        return unit.items([step.id for each in made.procedures for step in each.steps if step.id is not None])

    try:
        items = (store.write if yes else store.rehearse)(linked).result()
    except Refused as refused:
        fail("; ".join(map(str, refused.refusals)))
    print_table(ITEM_COLUMNS, map(item_row, items))
    out.print("Linked." if yes else "Nothing is changed yet: --yes does it.", highlight=False, markup=False)


def _one_order(store: "Store", key: str) -> "Order":
    """Fails where there is none or there are several."""
    found = [held for number in order_ids(store, key) if (held := store.reader.order(number)) is not None]
    if len(found) != 1:
        fail(f"{len(found) or 'no'} order(s) are known by {key}; name one by its own number")
    return found[0]


@worklist.command("export")
def worklist_export(
    directory: Annotated[Path, typer.Argument(help="The folder; made if it is not there.", file_okay=False)],
    config: ConfigOption = CONFIG,
    date: Annotated[str, typer.Option(help="Scheduled day, YYYYMMDD, or 'today'; default: every day.")] = "",
) -> None:
    """Write the listed items as .wl files that DCMTK's wlmscpfs and Orthanc serve, one for each item."""
    from gateway.domain.matching import Narrowing
    from gateway.processing import now
    from gateway.wire.worklist_files import write_worklist_file

    site = site_of(config)
    if date == "today":
        date = site.wall_clock(now()).strftime("%Y%m%d")
    narrowing = Narrowing(start_from=f"{date}000000", start_to=f"{date}235959") if date else Narrowing()
    reader = store_of(config).reader
    items = reader.items([step_id for step_id, _ in reader.candidates(narrowing)])
    failed = 0
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for item in items:
            try:
                data = write_worklist_file(item)
            except (UnicodeEncodeError, ValueError, TypeError) as problem:
                failed += 1
                err.print(f"item #{item.step_id} cannot be written: {type(problem).__name__}", highlight=False)
                continue
            (directory / f"item-{item.step_id}.wl").write_bytes(data)
    except OSError as error:
        fail(f"{directory}: {error.strerror}")
    out.print(f"{len(items) - failed} item(s) written to {directory}.", highlight=False, markup=False)
    raise typer.Exit(1 if failed else 0)
