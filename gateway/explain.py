"""What a message would do, told so that an interface engineer can follow it: source, raw value, rule, converter.

For people with the right to see the message: the explanation quotes it.
"""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.domain.attributes import text, values
from gateway.domain.order import Order
from gateway.domain.refusal import Refused
from gateway.workflow.intake import Feed, preview


def explanation(raw: bytes, feed: Feed) -> dict[str, Any]:
    """The mapping's trace, the worklist items on an empty store, notes, and each refusal."""
    try:
        seen = preview(raw, feed)
    except Refused as refused:
        return {"mapping": feed.mapping.version_id, "refusals": [str(each) for each in refused.refusals]}
    return {
        "mapping": feed.mapping.version_id,
        "does": [type(event).__name__ for event in seen.result.events],
        "trace": [entry._asdict() for entry in seen.result.trace],
        "items": [item for order in seen.orders for item in _items(order)],
        "notes": list(seen.result.notes),
        "refusals": [str(each) for each in seen.refusals],
    }


def _items(order: Order) -> list[dict[str, str]]:
    return [
        {
            "accession": text(procedure.attributes, "AccessionNumber"),
            "study_instance_uid": procedure.study_instance_uid,
            "sps_id": step.sps_id,
            "stations": ", ".join(values(step.attributes, "ScheduledStationAETitle")),
            "modality": text(step.attributes, "Modality"),
            "start": text(step.attributes, "ScheduledProcedureStepStartDate")
            + " "
            + text(step.attributes, "ScheduledProcedureStepStartTime"),
            "status": step.status.value,
        }
        for procedure in order.procedures
        for step in procedure.steps
    ]


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def render(explained: dict[str, Any], console: Console) -> None:
    """Print an explanation as tables."""
    console.print(f"[bold]{explained['file']}[/bold], mapping {explained['mapping']}", highlight=False)
    if explained.get("trace"):
        table = _table("Attribute", "From", "Raw", "Rule", "Converter", "Value")
        for entry in explained["trace"]:
            # The rule is named by its attribute, which the first column says already; `>` is the step's sequence.
            rule = entry["rule"].removesuffix(f" rules.{entry['target']}").removesuffix(f" identity.{entry['target']}")
            target = entry["target"].replace("ScheduledProcedureStepSequence.", ">")
            cells = (target, entry["where"], entry["raw"], rule.rstrip(":"), entry["converter"], entry["value"])
            table.add_row(*(Text(cell) for cell in cells))
        console.print(table)
    if explained.get("items"):
        console.print("\n[bold]Worklist items, were the store empty[/bold]")
        table = _table(*explained["items"][0])
        for item in explained["items"]:
            table.add_row(*item.values())
        console.print(table)
    for note in explained.get("notes", ()):
        console.print(f"note: {note}", markup=False, highlight=False)
    for refusal in explained["refusals"]:
        console.print(f"refused: {refusal}", markup=False, highlight=False, style="red")
