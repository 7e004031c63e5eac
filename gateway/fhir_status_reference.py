"""The reference page of status out by FHIR, from the tables that write it."""

from collections.abc import Iterable

from gateway.markdown import code, table
from gateway.wire.fhir_performed_table import CARRIED, OURS, Carried
from gateway.wire.fhir_status import ARRIVED, FINAL, INSTEAD, OVER, TAKEN_BACK, TOLD

_STANDS = {
    "SC": "waits (SCHEDULED, ARRIVED, READY)",
    ARRIVED: "waits, and the patient is here (ARRIVED, READY)",
    "IP": "runs, or is done in part",
    "HD": "on hold",
    "CM": "done",
    "DC": "broken off for good",
    "CA": "cancelled",
    OVER: "its day passed",
}
"""What `fhir_status.standing` says, in words."""


def status() -> Iterable[str]:
    """Which status is said when, and where each attribute of a performed step goes."""
    yield "What is told of an order is read from its scheduled and performed steps. It is offered by our own FHIR"
    yield "server (`fhir`), and written to other servers by `destinations` with `fhir`."
    yield ""
    yield "## Status of what ordered it"
    yield ""
    yield from table(
        ("The steps", *TOLD),
        (
            (words, *(_said(kind, stands) for kind in TOLD))
            for stands, words in _STANDS.items()
        ),
    )  # fmt: skip
    yield "A resource that has a status in brackets is left with it: it says as much. ServiceRequest looks at all steps"
    yield "of its procedure, one that has parts at all steps of the order, so it is completed when all of them ended."
    yield ""
    for kind, final in FINAL.items():
        yield f"- {kind}: {', '.join(map(code, sorted(final)))} {'is' if len(final) == 1 else 'are'} never left"
    yield "- ServiceRequest: from `revoked` only to `completed`, where it was done all the same"
    yield f"- All: {', '.join(map(code, sorted(TAKEN_BACK)))} that the gateway itself wrote gives way when the order is"
    yield "  back: the resource is told again as it is now, from the status that its owner says"
    for (kind, told), instead in INSTEAD.items():
        yield f"- {kind}: in place of {code(told)} {'; '.join(f'from {code(a)} {code(b)}' for a, b in instead.items())}"
    yield "- Task that asks for something and is not scheduled: `received` where it is kept and waits for what is"
    yield "  missing, `rejected` where it cannot be done so; `statusReason` says why"
    yield ""
    yield "## What was performed"
    yield ""
    yield "Elements are FHIRPath over the names that JSON has. What has no element is not carried, for the reason"
    yield "beside it. Each row is tested in each release: a value comes in by MPPS, and is read at each of its paths."
    yield ""
    yield from table(
        ("MPPS attribute", "FHIR element (R4, R4B)", "R5, where it differs", "Why"),
        ((code(each.attribute), *_elements(each), each.why) for each in CARRIED),
    )
    yield "Beside these, where it is said:"
    yield ""
    yield from table(
        ("Said", "FHIR element (R4, R4B)", "R5, where it differs"),
        ((each.attribute, *_elements(each)) for each in OURS),
    )


def _said(kind: str, stands: str) -> str:
    said = TOLD[kind][stands]
    if not said.status:
        return "not changed"
    fits = ", ".join(sorted(said.fits - {said.status}))
    return f"{code(said.status)}{f' ({fits})' if fits else ''}"


def _elements(row: Carried) -> tuple[str, str]:
    """R4's, and what R5 has instead."""
    older = (f"{code(each.path)}{f' {each.when}' if each.when else ''}" for each in row.places)
    return "; ".join(older), "; ".join(code(each.r5) for each in row.places if each.r5)
