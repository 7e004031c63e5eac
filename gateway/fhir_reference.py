"""The reference pages of FHIR: what our server takes and what it means, and how that compares with HL7's guide.

What is said of the server is read from the tables that it runs on. What is not supported, and the comparison with the
guide, are tables of their own here: nothing else knows why something is not there.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gateway.fhir_settings import FHIRLimitsSettings
from gateway.markdown import code, table
from gateway.wire.fhir_capability import OPERATIONS, SERVED, Served
from gateway.wire.fhir_negotiation import READ, Returned
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_search import CONTROL_HINTS
from gateway.wire.fhir_search_parameters import parameters_of
from gateway.wire.fhir_states import (
    APPOINTMENT_STATES,
    ENCOUNTER_STATES,
    IMAGING_CATEGORIES,
    INTENTS,
    ORDER_STATES,
    TASK_STATES,
    Word,
)
from gateway.wire.fhir_topics import CONTENTS, FILTERS, NAMES, TOPICS, canonical
from gateway.yaml_files import described

_COMMON = frozenset(parameters_of("", Release.R4)) | {"_id", "_lastUpdated"}

NOT_SUPPORTED: Mapping[str, str] = {
    "Other types of resources (404)": "the gateway keeps what orders are made of; it is no patient record",
    "`history`, reads of former versions": "only current versions are kept; the archive has every request as it came",
    "Searches over several types, `GET [base]?_type=`": "each type has its own parameters",
    "Chains of more than one step, `_has`, `_filter`, `_contained`, named queries": "order senders ask by numbers, "
    "patient, status and time",
    "`:above`, `:below`, `:in`, `:not-in`, `:text`": "they need a terminology server",
    "Profiles": "a resource that claims one is taken, with a note that nobody looked: what an order needs is judged "
    "by the rules of orders",
    "Codes outside of value sets that are not required": "the standard leaves them open; the mapping says what is read",
    "Unknown `modifierExtension` (refused)": "the standard demands it: it may turn the meaning round",
    "`ServiceRequest.doNotPerform` true (refused)": "a worklist cannot say that something is not to be done",
    "Subscriptions by search (R4 `criteria`), channels other than rest-hook": "topics say more with less; e-mail and "
    "WebSocket lose what is not fetched at once",
    "API keys, passwords, tokens in the address": "they are passed on and logged; a signed assertion is not",
    "`$create-order`, `$cancel-order` of HL7's draft guide": "their addresses are still open there; a transaction and "
    "the status `revoked` do the same",
    "UPS, DICOMweb": "images stay where they are; `Endpoint` says where that is (`fhir.images`)",
}
"""What an integrator may look for in vain -> why."""


class Compared(NamedTuple):
    """A row of the comparison with HL7's guide."""

    topic: str
    guide: str
    here: str


GUIDE: tuple[Compared, ...] = (
    Compared(
        "Imaging service request",
        "ServiceRequest, category SNOMED CT 363679005, `intent` order",
        "the same; also without a category, with the categories of `fhir.categories`, and with the intents above",
    ),
    Compared(
        "Accession number",
        "identifier of type ACSN, exactly one",
        "the same; also in `requisition`; made by the gateway where there is none",
    ),
    Compared("Placer order number", "identifier of type PLAC, at most one",
             "the same; else an identifier without a type; else the resource's id"),
    Compared("Filler order number", "identifier of type FILL, at most one", "the same"),
    Compared("Issuers of numbers", "`identifier.system`",
             "the same: an OID, or a URI that `issuers` names; the numbers of HL7 v2 and FHIR so are the same"),
    Compared("Date of the request", "`occurrenceDateTime`",
             "`authoredOn`: when it was issued (ORC-9 of HL7 v2); the occurrence is the start of the step"),
    Compared("Referring physician", "`requester`",
             "participant REF of the Encounter, else `requester`, who is the requesting physician too"),
    Compared("Entered by, transport", "no element", "the same: not read"),
    Compared(
        "Requested procedure",
        "a ServiceRequest `basedOn` the imaging service request",
        "the same; where there is none, the request is its own procedure",
    ),
    Compared("Study Instance UID", "ImagingStudy with status registered, `urn:dicom:uid`",
             "the same; also an identifier of the ServiceRequest; else made by the gateway"),
    Compared("Requested procedure ID", "identifier, no type is agreed", "the identifier without a type"),
    Compared(
        "Scheduled procedure step",
        "Task with `intent` plan, `basedOn` the requested procedure",
        "the same, whatever its intent, also by `focus`; also an Appointment; where there is neither, one step is made "
        "for each protocol of the procedure catalogue",
    ),
    Compared(
        "Scheduled station",
        "Device; its name of type registered-name is the AE title",
        "a name of the Device that could be an AE title, or its identifier with type AE; else the catalogue, else the "
        "station rules",
    ),
    Compared("Start", "`requestedPeriod` of the Task (R5)",
             "the same; R4: `restriction.period`; Appointment `start`; else `occurrence` of the request"),
    Compared("Visit", "Encounter, number of type VN", "the same; also an identifier without that type"),
    Compared("Operations", "`$create-order`, `$cancel-order`, addresses open",
             "not supported: a transaction Bundle, a message, or single requests; `revoked` cancels"),
    Compared("Worklist", "stays DICOM", "the same"),
    Compared("What was performed", "out of its scope",
             "status of ServiceRequest, Task and Appointment, Procedure, ImagingStudy, Provenance: see "
             "[Status out by FHIR](fhir-status.md)"),
    Compared("Release", "R5 and what follows", "R4, R4B and R5"),
)  # fmt: skip
"""Row by row of HL7's "FHIR Imaging ServiceRequest", draft 0.1.0."""


def supported() -> Iterable[str]:
    """What our server takes, what it means, and what it does not do."""
    yield "The server is there where `gateway.yaml` has `fhir`. Its CapabilityStatement (`GET [base]/metadata`) and"
    yield "its OpenAPI description (`GET [base]/openapi.json`) are made from the same tables as this page."
    yield "How to begin: [connect an EHR by FHIR](../connect-an-ehr-by-fhir.md)."
    yield ""
    yield "## Releases and formats"
    yield ""
    rows = ((each.value, each.version, code(f"/fhir/{each.base}"), each.parameter) for each in Release)
    yield from table(("Release", "Version", "Base", "`fhirVersion`"), rows)
    yield "`/fhir` is the base of `fhir.release`. A base has resources of its own: what is written at one is not found"
    yield "at another, the orders and patients that it means are the same. Another release in the media type is refused"
    yield "(415, 406). JSON and XML, both ways:"
    yield ""
    yield from table(("Content-Type", "Is read as"), ((code(name), kind.value) for name, kind in READ.items()))
    yield "`Accept`, `_format` and `_pretty` choose the answer's. `Prefer: return=` is one of"
    yield f"{', '.join(map(code, Returned))}: the last one shows remarks, such as that an order waits for its patient."
    yield ""
    yield "## Resources"
    yield ""
    yield "Create, update and delete are also conditional. There are transactions, batches, messages and documents. Ids"
    yield "may be given by the client (PUT). `If-Match` is looked at; `ETag`, `Location` and `Last-Modified` are sent."
    yield ""
    yield from table(("Type", "What it is here", "Interactions", "Releases"), map(_served, SERVED, SERVED.values()))
    yield from table(("Operation", "Defined by"), ((code(f"${name}"), url) for name, url in OPERATIONS.items()))
    yield "## Search"
    yield ""
    yield f"Every type: {', '.join(map(code, sorted(_COMMON)))}. References also by `:TYPE`, `:identifier` and one"
    yield "chained parameter (`patient.identifier`), tokens by `:not`, all by `:missing`."
    yield ""
    yield from table(("Type", "Parameters", "R5 otherwise"), map(_searched, SERVED))
    yield from table(("Of the result", "How"), ((code(name), hint) for name, hint in CONTROL_HINTS.items()))
    yield from _statuses()
    yield from _refusals_and_limits()
    yield "## Subscriptions"
    yield ""
    yield "R5 as it is; R4 and R4B by the Subscriptions R5 Backport guide. Channel: rest-hook, JSON, content"
    yield f"{', '.join(map(code, CONTENTS))}. Filters: {', '.join(map(code, FILTERS))}. `$status` and `$events` answer"
    yield "what was missed."
    yield ""
    yield "The canonical URLs of topics are names and no addresses, the same at every gateway. A Subscription may name"
    yield "a topic by the address of the gateway as well: `[base]/SubscriptionTopic/order-status`."
    yield ""
    rows_of_topics = ((code(canonical(NAMES, name)), title) for name, (title, _) in TOPICS.items())
    yield from table(("Topic", "Told"), rows_of_topics)
    yield "## Not supported"
    yield ""
    yield from table(("What", "Because"), NOT_SUPPORTED.items())
    yield "See also: [status out](fhir-status.md), [HL7's guide](fhir-imaging-guide.md), the"
    yield "[mapping language](mapping-language.md#rule-sets-of-fhir), [settings](configuration.md)."


def _served(kind: str, said: Served) -> tuple[str, str, str, str]:
    return code(kind), said.meaning, ", ".join(said.interactions), ", ".join(said.releases)


def _searched(kind: str) -> tuple[str, str, str]:
    older, newer = (
        {name: each.kind.value for name, each in parameters_of(kind, release).items() if name not in _COMMON}
        for release in (Release.R4, Release.R5)
    )
    differs = [f"{code(name)} ({kind})" for name, kind in newer.items() if older.get(name) != kind]
    gone = [f"no {code(name)}" for name in older if name not in newer]
    return code(kind), ", ".join(f"{code(name)} ({kind})" for name, kind in older.items()), ", ".join(differs + gone)


def _statuses() -> Iterable[str]:
    yield "## What statuses mean"
    yield ""
    yield "As HL7 v2 would say it (ORC-1 and ORC-5, see [HL7 v2 messages](hl7-messages.md)). What takes an order away,"
    yield "holds it or ends it goes before what is said of its step."
    yield ""
    for title, states in (
        ("ServiceRequest.status", ORDER_STATES),
        ("Task.status", TASK_STATES),
        ("Appointment.status", APPOINTMENT_STATES),
    ):
        yield from table(
            (title, "Is read as", "Remark"), ((code(state), *_word(word)) for state, word in states.items())
        )
    visits = ((code(state), change.value) for state, change in ENCOUNTER_STATES.items())
    yield from table(("Encounter.status", "The visit"), visits)
    ordering = [code(intent) for intent, orders in INTENTS.items() if orders]
    silent = [code(intent) for intent, orders in INTENTS.items() if not orders]
    yield f"`ServiceRequest.intent` orders something where it is {', '.join(ordering)}; with {', '.join(silent)} it is"
    yield "kept and nothing is scheduled. A Task's intent is not looked at. `Patient.link` of type replaced-by merges."
    yield ""
    yield "Categories of imaging, where `fhir.categories` says nothing else; a request without a category counts as"
    yield "imaging, one of another category is kept and not scheduled:"
    yield ""
    yield from (f"- {code(each)}" for each in IMAGING_CATEGORIES)
    yield ""


def _word(word: Word) -> tuple[str, str]:
    if word.control is None:
        return "nothing", word.note
    said = " ".join(filter(None, (word.control.value, word.order_status)))
    return said, "and the patient has arrived" if word.arrived else word.note


def _refusals_and_limits() -> Iterable[str]:
    yield "## Refusals"
    yield ""
    yield "Every refusal is an OperationOutcome with all reasons at once: `details.text` what is wrong, `expression`"
    yield "where (FHIRPath of the request), `diagnostics` what to do. Codes and HTTP statuses: [refusals](refusals.md)."
    yield "Of a transaction or a message with one bad entry nothing is done; of a batch, the others are. The request is"
    yield "archived with its reasons (`gateway messages`)."
    yield ""
    yield "A second order with a number (PLAC, FILL, ACSN) that is held already, by POST or by a conditional update"
    yield "that finds nothing, is answered 200 with what is held where it says the same, and 409 where it says"
    yield "something else. By PUT with an id it is taken, with a note. A message with an id that was answered before"
    yield "gets that answer again."
    yield ""
    yield "## Limits"
    yield ""
    limits = (
        (code(f"fhir.limits.{key}"), default, meaning) for key, _, default, meaning in described(FHIRLimitsSettings)
    )
    yield from table(("Setting", "Default", "Meaning"), limits)
    yield "Further ones: [limits](../explanation/limits.md#fhir)."
    yield ""


def guide() -> Iterable[str]:
    """Our server against HL7's guide, row by row."""
    yield 'HL7\'s guide "FHIR Imaging ServiceRequest" (draft 0.1.0) says how the entities of the DICOM worklist look in'
    yield "FHIR. It is the only one that does. Here is what it has, and what this gateway reads; the rules themselves"
    yield "are in [mapping imaging-order](mapping-imaging-order.md) and its overlay for R5."
    yield ""
    yield from table(Compared("What", "In the guide", "Here"), GUIDE)
    yield "What a resource of the guide says beyond that is kept, and not read."
