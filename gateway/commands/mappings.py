"""The commands `gateway mappings`: golden cases, and what a changed mapping would do before it goes live.

What is shown here is for people with the right to see messages.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from gateway.commands.console import (
    CONFIG,
    ConfigOption,
    JSONOption,
    err,
    fail,
    out,
    print_json,
    print_table,
    progress,
    site_of,
    store_of,
    when,
)

if TYPE_CHECKING:
    from gateway.archive_runs import Extent
    from gateway.case_files import Result
    from gateway.config import Site
    from gateway.domain.mapping import Mapping as FieldMapping
    from gateway.outbound_cases import OutboundResult
    from gateway.workflow.compare import Comparison, Examples

mappings = typer.Typer(help="Rule sets: golden cases, and what a change would do to the archive.", no_args_is_help=True)

SinceOption = Annotated[str, typer.Option(help="Only messages received since: 7d, 12h, or a day as YYYY-MM-DD.")]
ListenerOption = Annotated[str, typer.Option(help="Only messages of this listener.")]
ProcessesOption = Annotated[int, typer.Option(min=0, max=64, help="Processes at work; 0: one for each processor.")]
FolderOption = Annotated[
    Path | None,
    typer.Option("--mappings", help="Another mappings folder than the site's.", exists=True, file_okay=False),
]


# ---- golden cases ------------------------------------------------------------------------------------------------


@mappings.command("test")
def mappings_test(
    case: Annotated[list[str] | None, typer.Argument(help="Names, patterns or files; default: all cases.")] = None,
    config: ConfigOption = CONFIG,
    folder: FolderOption = None,
    update: Annotated[bool, typer.Option(help="Write what the cases give now as what they must give.")] = False,
    json_output: JSONOption = False,
) -> None:
    """Run golden cases: each message must give exactly the items, refusals and notes beside it.

    Those in cases/outbound go the other way: each report must give exactly the message beside it.
    """
    from gateway.case_files import Case, CaseError, cases_in, chosen, run_cases
    from gateway.outbound_cases import OutboundCase, outbound_cases_in, run_outbound_cases

    site = _site_with(site_of(config, fhir=True), folder)
    place = (folder or _folder_of(site)) / "cases"
    try:
        known: list[Case | OutboundCase] = [
            *cases_in(place, site.mappings), *outbound_cases_in(place, site.outbound)
        ]  # fmt: skip
        wanted = chosen(known, case or [])
        results: list[Result | OutboundResult] = [
            *run_cases([each for each in wanted if isinstance(each, Case)], site.mappings),
            *run_outbound_cases([each for each in wanted if isinstance(each, OutboundCase)], site.outbound),
        ]
    except CaseError as error:
        fail(str(error))
    if not results:
        fail(f"{place} holds no golden cases; `gateway mappings record MESSAGE` makes one from the archive")
    different = [result for result in results if not result.passed]
    if json_output:
        print_json([
            {"case": result.case.name, "mapping": result.case.mapping, "passed": result.passed,
             "differences": list(result.differences)} for result in results
        ])  # fmt: skip
    else:
        for result in different:
            _print_case(result)
    if update:
        for result in different:
            result.accept()
    if not json_output:
        said = f"{len(results)} case(s), {len(different)} different"
        out.print(said + (", written as expected." if update and different else "."), highlight=False)
    raise typer.Exit(1 if different and not update else 0)


def _print_case(result: "Result | OutboundResult") -> None:
    out.print(f"[bold red]{escape(result.case.name)}[/bold red], mapping {result.case.mapping}", highlight=False)
    if result.case.expected is None:
        out.print(f"  {result.case.expected_file.name} is not there; --update writes it", markup=False, highlight=False)
        return
    for line in result.differences:
        out.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


@mappings.command("record")
def mappings_record(
    number: Annotated[int, typer.Argument(help="The message's number, as `gateway messages list` shows it.")],
    name: Annotated[str, typer.Option(help="The case's name; default: message type and number.")] = "",
    config: ConfigOption = CONFIG,
) -> None:
    """Make a golden case from an archived message, with everything that identifies a person replaced."""
    import secrets

    from gateway.case_files import DEFAULT_MAPPING, CaseError, write_case
    from gateway.domain.refusal import Refused
    from gateway.processing import feeds_of
    from gateway.site_tools import EXAMPLE_MINT, came_by_fhir
    from gateway.workflow.anonymise import anonymise

    site, store = site_of(config), store_of(config)
    stored = store.reader.message(number)
    if stored is None:
        fail(f"there is no message {number}")
    feed = feeds_of(site, EXAMPLE_MINT).get(stored.record.listener)
    if came_by_fhir(site, stored.record.listener):
        fail(f"message {number} is FHIR: cases are made of HL7 v2 messages; write a .json file with invented people")
    if feed is None:
        fail(f"message {number} came by listener {stored.record.listener}, which is not configured any more")
    try:
        message = feed.read(stored.record.raw)
    except Refused as refused:
        fail(f"message {number} cannot be read, so nothing in it can be replaced: {refused.refusals[0]}")
    made = anonymise(message, secrets.token_bytes(32))
    mapping = feed.mapping
    given = {} if mapping.name == DEFAULT_MAPPING else {"mapping": mapping.name}
    if feed.issuer:
        given["default_issuer"] = feed.issuer
    if not message.msh.raw(18) and feed.charset:
        given["default_charset"] = feed.charset
    kind = f"{message.message_code}-{message.trigger_event}".strip("-").lower()
    lines = made.raw.replace(b"\r", b"\n")
    try:
        case = write_case(_folder_of(site) / "cases", name or f"{kind}-{number}", lines, mapping, given)
    except (CaseError, OSError) as error:
        fail(str(error))
    out.print(f"{case.message}\n{case.expected_file}", markup=False, highlight=False, soft_wrap=True)
    if made.left:
        told = f"{', '.join(made.left)}: a word stays that was replaced elsewhere; look whether it names somebody."
        err.print(told, highlight=False, soft_wrap=True)
    out.print("Look both files through before you share them.", highlight=False)


# ---- runs over the archive -------------------------------------------------------------------------------------


@mappings.command("diff")
def mappings_diff(
    folder: Annotated[Path, typer.Argument(help="The changed mappings folder.", exists=True, file_okay=False)],
    config: ConfigOption = CONFIG,
    since: SinceOption = "",
    listener: ListenerOption = "",
    processes: ProcessesOption = 0,
    json_output: JSONOption = False,
) -> None:
    """Say what changed mappings would do to archived messages, attribute by attribute. Changes nothing.

    Exit code 1: something would change.
    """
    from gateway.archive_runs import Extent, compare

    site = site_of(config, fhir=True)
    versions = _versions(site, _compiled(site, folder), listener)  # mistakes are told before any process starts
    which = _which(config, site, since)
    if all(each["same"] for each in versions):
        which = Extent(1, 0)  # nothing to find out
    with progress(which.messages_max, "messages") as done:
        comparison = compare(config, folder, which, listener, processes, done)
    if json_output:
        print_json({"listeners": versions, **_plain_comparison(comparison)})
        raise typer.Exit(0 if comparison.nothing_changes else 1)
    for each in versions:
        said = f"{each['now']}, the same in {folder}" if each["same"] else f"{each['now']} -> {each['then']}"
        out.print(f"{each['listener']}: {said}", markup=False, highlight=False, soft_wrap=True)
    if all(each["same"] for each in versions):
        out.print("Nothing would change: the mapping of every listener is the same.", highlight=False)
    else:
        _print_comparison(comparison)
    raise typer.Exit(0 if comparison.nothing_changes else 1)


def _versions(site: "Site", changed: "Mapping[str, FieldMapping]", listener: str) -> list[dict[str, Any]]:
    """By which version of its mapping each listener's messages, and FHIR server's, are read now, and would be then."""
    every = list(_readers(site))
    readers = [(reader, mapping) for reader, mapping in every if listener in ("", reader)]
    if not readers:
        have = ", ".join(dict.fromkeys(reader for reader, _ in every))
        fail(f"there is no listener {listener}; have: {have}")
    return [
        {
            "listener": reader,
            "now": site.mappings[mapping].version_id,
            "then": changed[mapping].version_id,
            "same": changed[mapping].digest == site.mappings[mapping].digest,
        }
        for reader, mapping in readers
    ]


def _readers(site: "Site") -> Iterator[tuple[str, str]]:
    """(Listener, our FHIR server or feed; a mapping by which it is read)."""
    from gateway.wire.fhir_release import Release
    from gateway.workflow.fhir_feed import OUR_SERVER

    for listener in site.settings.hl7:
        yield listener.name, site.mapping_name(listener)
    settings = site.settings.fhir
    if settings is not None:
        yield from ((OUR_SERVER, name) for name in dict.fromkeys((settings.mapping, settings.mapping_r5)))
        for feed in settings.feeds:
            own = settings.mapping_r5 if feed.release is Release.R5 else settings.mapping
            yield feed.name, feed.mapping or own


def _plain_comparison(comparison: "Comparison") -> dict[str, Any]:
    return {
        "messages": comparison.messages,
        "same": comparison.same,
        "changed": comparison.changed,
        "refused_by_both": comparison.refused_by_both,
        "same_mapping": comparison.unchanged,
        "not_read": comparison.skipped,
        "attributes": {
            attribute: {"orders": len(tally.orders), **_plain_examples(tally.examples)}
            for attribute, tally in _by_messages(comparison.attributes, lambda tally: tally.examples.messages)
        },
        "newly_refused": {reason: _plain_examples(each) for reason, each in comparison.newly_refused.items()},
        "newly_accepted": {reason: _plain_examples(each) for reason, each in comparison.newly_accepted.items()},
        "refused_otherwise": {reason: _plain_examples(each) for reason, each in comparison.refused_otherwise.items()},
    }


def _plain_examples(examples: "Examples") -> dict[str, Any]:
    return {
        "messages": examples.messages,
        "examples": [{"message": number, "old": old, "new": new} for (old, new), number in examples.shown.items()],
    }


def _by_messages(tallies: Mapping[str, Any], messages: Callable[[Any], int]) -> list[tuple[str, Any]]:
    return sorted(tallies.items(), key=lambda each: (-messages(each[1]), each[0]))


def _print_comparison(comparison: "Comparison") -> None:
    from gateway.workflow.compare import ORDERS_COUNTED_MAX

    if comparison.attributes:
        rows: list[tuple[object, ...]] = []
        for attribute, tally in _by_messages(comparison.attributes, lambda tally: tally.examples.messages):
            orders = len(tally.orders)
            counted = f"{orders} or more" if orders >= ORDERS_COUNTED_MAX else orders
            for place, ((old, new), number) in enumerate(tally.examples.shown.items()):
                first = (attribute, counted, tally.examples.messages) if not place else ("", "", "")
                rows.append((*first, f"{old} -> {new}", number))
        print_table(("Attribute", "Orders", "Messages", "Old -> new", "In message"), rows)
    for title, reasons in (
        ("newly refused", comparison.newly_refused),
        ("newly accepted, before refused", comparison.newly_accepted),
        ("still refused, for another reason", comparison.refused_otherwise),
    ):
        for reason, examples in _by_messages(reasons, lambda examples: examples.messages):
            numbers = ", ".join(str(number) for number in examples.shown.values())
            out.print(
                f"{title}: {examples.messages} message(s): {reason}; such as message {numbers}",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
    out.print(
        f"{comparison.messages} message(s): {comparison.same} the same, {comparison.changed} changed, "
        f"{_total(comparison.newly_refused)} newly refused, {_total(comparison.newly_accepted)} newly accepted, "
        f"{comparison.refused_by_both} refused by both; {comparison.unchanged} of listeners whose mapping is the same, "
        f"{comparison.skipped} not read by any mapping.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _total(reasons: "Mapping[str, Examples]") -> int:
    from gateway.workflow.compare import totals

    return totals(reasons)


@mappings.command("coverage")
def mappings_coverage(
    config: ConfigOption = CONFIG,
    since: SinceOption = "",
    listener: ListenerOption = "",
    values: Annotated[bool, typer.Option(help="Show example values as they are, not only their shape.")] = False,
    processes: ProcessesOption = 0,
    json_output: JSONOption = False,
) -> None:
    """Say which fields of archived messages carry values that no rule reads."""
    from gateway.archive_runs import cover
    from gateway.workflow.coverage import rows

    site = site_of(config, fhir=True)
    which = _which(config, site, since)
    with progress(which.messages_max, "messages") as done:
        coverage = cover(config, which, listener, processes, done)
    found = rows(coverage, values)
    if json_output:
        print_json({"messages": coverage.messages, "not_read": coverage.skipped, "unread": found})
        return
    print_table(
        ("Message", "Field", "Name", "Messages", "Of", "Such as", "In message"),
        (tuple(row.values()) for row in found),
    )
    out.print(
        f"{coverage.messages} message(s) looked at, {coverage.skipped} not read by any mapping; "
        f"{len(found)} field(s) carry values that no rule reads.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _which(config: Path, site: "Site", since: str) -> "Extent":
    from gateway.archive_runs import extent

    return extent(store_of(config).reader, when(since, site.zone))


# ---- the mapping as a table ------------------------------------------------------------------------------------


@mappings.command("table")
def mappings_table(
    name: Annotated[str, typer.Argument(help="A mapping's name; default: that of the first listener.")] = "",
    config: ConfigOption = CONFIG,
    folder: FolderOption = None,
    codes: Annotated[bool, typer.Option(help="Write out the code tables.")] = True,
    json_output: JSONOption = False,
) -> None:
    """A mapping as "source field -> target", with constants and code tables, to go through with a vendor."""
    from gateway.mapping_table import code_tables, table_rows

    site = site_of(config, fhir=True)
    compiled = _compiled(site, folder)
    name = name or next((listener.mapping for listener in site.settings.hl7), "")
    if name not in compiled:
        fail(f"there is no mapping {name}; have: {', '.join(sorted(compiled)) or 'none'}")
    rows, tables = table_rows(compiled[name]), code_tables(compiled[name]) if codes else {}
    if json_output:
        print_json({"mapping": compiled[name].version_id, "rows": rows, "tables": tables})
        return
    print_table(
        ("Source", "Field name", "", "Target", "Converter", "When", "Otherwise"),
        ((row["source"], row["name"], "->", row["target"], row["converter"], row["when"], row["otherwise"])
         for row in rows),
    )  # fmt: skip
    for title, table in tables.items():
        out.print(f"\n[bold]Table {escape(title)}[/bold]", highlight=False)
        print_table(("Sent", "Means"), sorted(table.items()))


# ---- the folders -----------------------------------------------------------------------------------------------


def _folder_of(site: "Site") -> Path:
    return site.file.parent / site.settings.mappings


def _compiled(site: "Site", folder: Path | None) -> "Mapping[str, FieldMapping]":
    """The site's mappings, or those of another folder; fails with every problem of it."""
    return _site_with(site, folder).mappings


def _site_with(site: "Site", folder: Path | None) -> "Site":
    """The site, as if another folder were its mappings; fails with every problem of it."""
    if folder is None:
        return site
    from gateway.config import ConfigError, load_site

    try:
        return load_site(site.file, folder, fhir=True)
    except ConfigError as error:
        for problem in error.problems:
            err.print(str(problem), markup=False, highlight=False, soft_wrap=True)
        fail(f"{len(error.problems)} problem(s) in {folder}.")
