"""The DICOM conformance statement, made of the tables that the code runs on (PS3.2, PS3.4 K.6.1.3.2, F.7.4.2.1).

What no table says is a sentence here; a sentence that a table could say does not belong here.
"""

from collections.abc import Iterable, Iterator

from pydicom.uid import UID

from gateway.config import Site
from gateway.conformance_security import security_statement
from gateway.domain import worklist
from gateway.domain.attributes import ATTRIBUTES, Level, matching_kinds
from gateway.domain.devices import Device, Profile
from gateway.domain.performed import MPPSState
from gateway.domain.performed import Operation as PerformedOperation
from gateway.domain.worklist import LISTED, SPSStatus, StepEvent
from gateway.edges.dimse_server import Limits
from gateway.edges.performed_channel import IDLE_S
from gateway.markdown import code, table, tag
from gateway.wire import upper_layer
from gateway.wire.availability import InstanceAvailability
from gateway.wire.charsets import DEFINED_TERMS
from gateway.wire.dimse import OPERATIONS, Operation, Status
from gateway.wire.mpps_dataset import MAY_NO_LONGER_BE_UPDATED
from gateway.workflow.forwarding import EVENT_TYPES
from gateway.workflow.outbox import COURSES, Attempt, dimse_attempt_of

SERVICES = {
    uid: ", ".join(sorted(operation.name.replace("_", "-") for operation in OPERATIONS.get(uid, (Operation.C_ECHO,))))
    for uid in upper_layer.SOP_CLASSES
}
"""What is done with each SOP class, as SCP."""

REJECTIONS = (
    (upper_layer.CALLING_AE_TITLE_NOT_RECOGNISED, "the registry has no such calling AE title and takes no strangers"),
    (upper_layer.CALLED_AE_TITLE_NOT_RECOGNISED, "worklists are configured, and none has the called AE title"),
    (upper_layer.APPLICATION_CONTEXT_NOT_SUPPORTED, "the application context is not that of DICOM"),
    (upper_layer.PROTOCOL_VERSION_NOT_SUPPORTED, "the protocol version is not 1"),
    (upper_layer.LOCAL_LIMIT_EXCEEDED, "as many associations are open as are served at once"),
    (upper_layer.TEMPORARY_CONGESTION, "the gateway is stopping"),
)  # fmt: skip
"""A-ASSOCIATE-RJ and when it is sent."""

FIND_STATUSES = (
    (Status.PENDING, "a match, every key supported"),
    (Status.PENDING_WITH_WARNING, "a match; a key asked for is neither in the table below nor held by this item"),
    (Status.SUCCESS, "matching is complete; no identifier"),
    (Status.CANCEL, "ended by C-CANCEL"),
    (Status.OUT_OF_RESOURCES, "the worklist cannot be read now, or more items match than this device is answered"),
    (Status.IDENTIFIER_DOES_NOT_MATCH, "no data set, or a key that cannot be one; Offending Element names it"),
    (Status.UNABLE_TO_PROCESS, "a defect of the gateway; Error Comment names the association for its log"),
    (Status.SOP_CLASS_NOT_SUPPORTED, "the request's SOP class is not that of its presentation context"),
)  # fmt: skip
"""Statuses of C-FIND (PS3.4 Table K.4-1) and when each is given."""

N_STATUSES = (
    (0x0000, "N-CREATE, N-SET, N-GET", "done; what was reported is on disk before the answer leaves"),
    (0x0001, "N-GET", "optional attributes that were asked for are not held; the others are returned"),
    (0x0106, "N-CREATE, N-SET", "a value cannot be what its attribute asks for; the data set shows those"),
    (0x0107, "N-SET", "attributes that only N-CREATE may say were kept as they are; the rest is stored"),
    (0x0107, "N-GET", "some are no attributes of a performed step, or only inside sequences; the others are returned"),
    (0x0110, "N-SET", "Error ID A710: the performed step is COMPLETED or DISCONTINUED and may no longer be updated"),
    (0x0110, "N-CREATE, N-SET, N-GET", "the data set cannot be read, or a defect of the gateway"),
    (0x0111, "N-CREATE", "a performed step of this SOP Instance UID is held, also after a repeat of the same bytes"),
    (0x0112, "N-SET, N-GET", "no such performed step is held, or this device may not see it"),
    (0x0116, "N-CREATE, N-SET", "values that nobody could read were left out; the rest is stored"),
    (0x0117, "N-CREATE, N-SET, N-GET", "neither command nor data set has a valid SOP Instance UID"),
    (0x0118, "N-CREATE, N-SET, N-GET", "the request's SOP class is unknown; of N-CREATE, not that of its context"),
    (0x0119, "N-SET, N-GET", "the request's SOP class is offered, but not that of its presentation context"),
    (0x0120, "N-CREATE", "an attribute that is demanded is missing; Attribute Identifier List names it"),
    (0x0121, "N-CREATE, N-SET", "an attribute that is demanded has no value; of N-SET, also where it is missing"),
    (0x0124, "N-SET", "a device that is held to the whole table set a performed step of another AE title"),
    (0x0124, "N-GET", "the registry no longer has the calling AE title"),
    (0x0210, "N-CREATE, N-SET, N-GET", "the Message ID is that of a request without an answer yet"),
    (0x0211, "every other", "the operation is not offered for this SOP class"),
    (0x0212, "N-GET", "the Attribute Identifier List holds no whole tags"),
    (0x0213, "N-CREATE, N-SET, N-GET", "cannot be stored or read now; nothing was changed, and a repeat may succeed"),
)  # fmt: skip
"""Statuses of the normalized services (PS3.7 10.1), for which of them, and when each is given."""

_EVENT_NAMES = {
    1: "Performed Procedure Step In Progress",
    2: "Performed Procedure Step Completed",
    3: "Performed Procedure Step Discontinued",
    4: "Performed Procedure Step Updated",
    5: "Performed Procedure Step Deleted",
}
"""PS3.4 table F.9.2-1."""

_ANSWERS = (
    ("0000", 0x0000, None),
    ("0001, 0107, 0116, Bxxx", 0x0107, None),
    ("0110 with Error ID A710", 0x0110, MAY_NO_LONGER_BE_UPDATED),
    ("0111", 0x0111, None),
    ("0112", 0x0112, None),
    ("0113", 0x0113, None),
    ("0118, 0122", 0x0118, None),
    ("0124", 0x0124, None),
    ("every other", 0x0110, None),
)
"""Answers that a destination of performed steps may give, one of each kind."""

_PERFORMED_EVENTS = (
    StepEvent.PERFORMANCE_STARTED,
    StepEvent.PERFORMANCE_COMPLETED,
    StepEvent.PERFORMANCE_RETURNED,
    StepEvent.PERFORMANCE_GIVEN_UP,
    StepEvent.PERFORMANCE_WITHDRAWN,
)


def statement() -> Iterator[str]:
    """The lines of the statement for every site."""
    yield "The gateway is an SCP. It opens associations itself only to the destinations of performed steps that are"
    yield "configured, as SCU of MPPS or as the SCP of MPPS Notification, which is the one that sends."
    yield ""
    yield "## SOP classes and transfer syntaxes as SCP"
    yield ""
    yield from table(
        ("SOP class", "UID", "Services"),
        ((UID(uid).name, code(uid), SERVICES[uid]) for uid in upper_layer.SOP_CLASSES),
    )
    yield "C-CANCEL is taken for C-FIND, and C-ECHO on every context. Role selection is answered for each class that"
    yield "was accepted: the requester is SCU. MPPS Notification is not accepted from requesters: whoever wants events"
    yield "is made a destination, so that they reach it whether it has an association open or not."
    yield ""
    yield "Of the transfer syntaxes a requester lists for a context, the first of these is accepted:"
    yield ""
    yield from table(("Transfer syntax", "UID"), ((UID(uid).name, code(uid)) for uid in upper_layer.TRANSFER_SYNTAXES))
    yield "## Associations"
    yield ""
    limits = Limits()
    yield from table(
        ("What", "Value"),
        (
            ("Implementation class UID", code(upper_layer.IMPLEMENTATION_CLASS_UID)),
            ("Implementation version name", code(upper_layer.IMPLEMENTATION_VERSION_NAME)),
            ("Longest PDU received", f"{limits.pdu_bytes_max} bytes"),
            ("Operations at once in one association", "1; further requests wait"),
            ("Associations at once", f"{limits.associations_max} unless configured otherwise"),
            ("Priority of C-FIND", "not honoured"),
        ),
    )
    yield from table(
        ("Rejected with result, source, reason", "When"),
        ((f"{each.result}, {each.source}, {each.reason}", when) for each, when in REJECTIONS),
    )
    yield from _worklist()
    yield from _performed_steps()
    yield from _effect_of_mpps()
    yield from _availability()
    yield from _as_scu()
    yield from security_statement()


def _worklist() -> Iterable[str]:
    yield "## Modality worklist: statuses"
    yield ""
    yield from table(("Status", "When"), ((f"{status:04X}", when) for status, when in FIND_STATUSES))
    yield "## Modality worklist: extended negotiation"
    yield ""
    yield "Asked for, it is given (PS3.4 K.5.1): fuzzy semantic matching of person names and time zone query"
    yield "adjustment. Start date and start time are always combined where both are ranges of the same form."
    yield ""
    yield "## Modality worklist: matching"
    yield ""
    yield "Person names are compared without regard to case and accents, each component group for itself. Every"
    yield "other text is case-sensitive. Wild cards work in every text key, also where the standard asks for single"
    yield "values only. Dates and times are compared by what they mean. The choices in full, and the algorithm of"
    yield "fuzzy matching: docs/explanation/worklist-matching.md."
    yield ""
    yield "Private attributes and attributes outside the table are matched and returned where an item holds them."
    yield "Protocol context items are returned as they were scheduled; no template is demanded."
    yield ""
    yield "## Modality worklist: keys"
    yield ""
    yield "*Return type* is that of PS3.4 Table K.6-1. Attributes inside sequences match and return item by item."
    yield ""
    for level in Level:
        yield f"### {level.value.capitalize()}"
        yield ""
        yield from table(
            ("Tag", "Keyword", "VR", "Matching", "Return type"),
            (
                (tag(row.tag), row.keyword, row.vr, ", ".join(matching_kinds(row)), row.return_type)
                for row in ATTRIBUTES
                if row.level is level
            ),
        )
    yield "## Character sets"
    yield ""
    yield "Queries are read in, and answers written in, any of these. An answer is in the default repertoire if"
    yield "that is enough, else in a set the device declares, else in that of the request, else in the smallest"
    yield "single set that holds every letter, else in ISO_IR 192. A device's profile may fix the set."
    yield ""
    yield ", ".join(map(code, DEFINED_TERMS)) + "."
    yield ""


def _performed_steps() -> Iterable[str]:
    yield "## MPPS, MPPS Retrieve and Instance Availability Notification: statuses"
    yield ""
    yield from table(("Status", "Answer to", "When"), ((f"{status:04X}", to, when) for status, to, when in N_STATUSES))
    yield "## MPPS as SCP"
    yield ""
    yield "Attributes that may be created and set, their types, and what each status of a performed step allows:"
    yield "docs/reference/performed-step.md. By default an N-CREATE needs only the type 1 attributes of the step itself"
    yield "and the Study Instance UID of each scheduled step it names, and what else table F.7.2-1 asks for is noted;"
    yield "a device may be held to the whole table. Attributes outside the table, also private ones, are kept."
    yield ""
    yield "The SOP Instance UID is taken from the command, else from SOP Instance UID (0008,0018) of the data set, and"
    yield "is never assigned. Text is held in Unicode: an N-SET in another character set than its N-CREATE stays"
    yield "consistent with it. A sequence that is set is replaced whole."
    yield ""
    yield "A performed step is created IN PROGRESS only. COMPLETED and DISCONTINUED are final; the end and the list of"
    yield "series are demanded then of devices that are held to the whole table, and their absence is noted of others."
    yield "A person may close a performed step whose modality never will; its later N-SET is answered A710."
    yield ""
    yield "Attributes of a performed step are not coerced. What it is linked to is changed by later orders and by"
    yield "people, beside the attributes. Performed steps are kept without limit of time, every request that was"
    yield "received as long as the site says. A positive answer has no data set unless the device is registered with"
    yield "`mpps_answers: dataset`."
    yield ""
    yield "## MPPS Retrieve as SCP"
    yield ""
    yield "N-GET returns the attributes that Attribute Identifier List names, or all where it is absent or empty, in"
    yield "the transfer syntax of the context. Attributes inside sequences cannot be asked for one by one. Those of"
    yield "types 1 and 2 that a performed step lacks are returned without a value. Specific Character Set is returned"
    yield "wherever text needs it: the set of the N-CREATE if that holds every letter, else ISO_IR 192."
    yield ""
    yield "A device that is limited to sites, itself or by the worklist it called, gets performed steps whose every"
    yield "scheduled step is of these sites, and those of its own AE title; every other one is for it not there (0112)."
    yield ""


def _availability() -> Iterable[str]:
    yield "## Instance Availability Notification as SCP"
    yield ""
    yield "Demanded are Study Instance UID, and a Referenced Series Sequence with at least one instance in each series,"
    yield f"each with its Instance Availability: {', '.join(InstanceAvailability)}. What else table R.3.2-1 asks for is"
    yield "noted, and demanded of devices that are held to the whole table. The SOP Instance UID has to be in the"
    yield "command. No instance is kept but the request in the archive: a repeat is answered as the first was."
    yield ""
    yield "Unless configured otherwise, the scheduled steps of the study are COMPLETED if at least one instance is not"
    yield "UNAVAILABLE, except for those that a performed step is held for: there the modality's word counts."
    yield ""


def _as_scu() -> Iterable[str]:
    yield "## MPPS as SCU, and MPPS Notification"
    yield ""
    yield "Every accepted N-CREATE and N-SET that changed something is sent to every destination of performed steps"
    yield "(RAD-6, RAD-7), in the order in which it came for each performed step: as received, byte for byte, or with"
    yield "patient and order as the worklist has them, or as an event only. The SOP Instance UID is the modality's."
    yield "An N-SET in another character set than its N-CREATE is written in that one (PS3.4 F.7.2.2.1) where that"
    yield "holds its letters."
    yield ""
    yield "A destination is offered a context for Explicit and one for Implicit VR Little Endian. A data set goes out"
    yield "in the transfer syntax it came in where that is accepted, else its values are written in the other one. For"
    yield "MPPS Notification the gateway asks for the SCP role (role selection), and it is an association of its own."
    yield f"An association is kept for {IDLE_S:g} s after the last answer. One operation at a time is outstanding."
    yield ""
    yield from table(
        ("Event Type ID", "Name", "Sent"),
        ((number, name, _sent_when(number)) for number, name in _EVENT_NAMES.items()),
    )
    yield "An N-EVENT-REPORT has no data set. A receiver that answers an N-SET with 0112 is sent an N-CREATE of all"
    yield "that is held, then the N-SET again. What follows an answer:"
    yield ""
    operations = ("N-CREATE", "N-SET", "N-EVENT-REPORT")
    yield from table(
        ("Answer", *operations),
        (
            (told, *(COURSES[dimse_attempt_of(operation, status, error_id)] for operation in operations))
            for told, status, error_id in _ANSWERS
        ),
    )
    yield f"Without an answer, or a connection: {COURSES[Attempt.UNANSWERED]}. What follows in a lane waits meanwhile."
    yield ""


def _sent_when(event_type: int) -> str:
    """Which accepted operation an event type tells of."""
    for (operation, state), number in EVENT_TYPES.items():
        if number == event_type:
            if operation is PerformedOperation.CREATE:
                return "after N-CREATE"
            return "after N-SET that changes no status" if state is MPPSState.IN_PROGRESS else f"after N-SET {state}"
    return "never: performed steps are not deleted"


def _effect_of_mpps() -> Iterable[str]:
    yield "## What a performed procedure step does to the worklist"
    yield ""
    listed = ", ".join(status.value for status in SPSStatus if status in LISTED)
    yield f"Listed are steps that are {listed}; a device's profile may leave out STARTED. No attribute of a worklist"
    yield "item is changed by an MPPS but its status:"
    yield ""
    yield from table(
        ("Status before", *(event.value for event in _PERFORMED_EVENTS)),
        (
            (status.value, *(worklist.TRANSITIONS[status, event] or "refused" for event in _PERFORMED_EVENTS))
            for status in SPSStatus
        ),
    )


def site_statement(site: Site) -> Iterator[str]:
    """The lines that hold for one site: its worklists, devices and what their profiles bend."""
    settings = site.settings
    yield "## This site"
    yield ""
    yield from table(
        ("What", "Value"),
        (
            ("AE title", settings.ae_title),
            ("DICOM port", settings.dicom.port),
            ("Time zone of scheduled times", settings.timezone or "the machine's"),
            ("Unknown calling AE titles", "accepted" if site.devices.accept_unknown else "rejected"),
            ("Instance Availability Notification", _AVAILABILITY[settings.performed.availability]),
        ),
    )
    if site.devices.worklists:
        yield from table(
            ("Called AE title", "Sites", "Device groups", "Modalities"),
            (
                (
                    each.ae_title,
                    *(", ".join(sorted(bound)) or "all" for bound in (each.sites, each.groups, each.modalities)),
                )
                for each in site.devices.worklists.values()
            ),
        )
    else:
        yield "Any called AE title means the whole worklist."
        yield ""
    yield from table(("Device", "Sites", "Sees", "Profile", "Its rules"), map(_device_row, site.devices.known.values()))
    yield from _destinations(site)


_AVAILABILITY = {"completes": "completes what no MPPS is held for", "ignored": "is kept and changes nothing"}


def _destinations(site: Site) -> Iterator[str]:
    """Whom performed steps are sent to."""
    told = [(place, place.performed) for place in site.settings.destinations if place.performed is not None]
    if not told:
        yield "Performed steps are sent to nobody."
        yield ""
        return
    yield from table(
        ("Destination of performed steps", "Called AE title", "Calling AE title", "TLS", "Gets"),
        (
            (
                place.name,
                performed.ae_title,
                performed.calling_ae_title or site.settings.ae_title,
                "yes" if place.tls else "no",
                _GETS[performed.sends],
            )
            for place, performed in told
        ),
    )


_GETS = {
    "received": "N-CREATE and N-SET as received",
    "coerced": "N-CREATE and N-SET with patient and order of the worklist",
    "events": "N-EVENT-REPORT",
}
"""What the choices of `destinations.performed.sends` mean."""


def _device_row(device: Device) -> tuple[str, ...]:
    profile = device.profile
    sites = ", ".join(sorted(device.sites)) or "all"
    return (
        device.ae_title,
        sites,
        profile.sees.value,
        profile.name or "none",
        "; ".join(profile_rules(profile)) or "none",
    )


def profile_rules(profile: Profile) -> Iterator[str]:
    """What a profile bends, a phrase for each rule that is not the usual one."""
    sets = profile.character_sets
    if profile.ignore:
        yield f"ignores {', '.join(profile.ignore)}"
    for keyword, value in profile.force:
        yield f"asks for {keyword} {value}"
    for keyword, value in profile.fill:
        yield f"fills {keyword} with {value}"
    if profile.answers_max:
        yield f"at most {profile.answers_max} answers, then {profile.when_more.value}"
    if profile.leaves.value != "COMPLETED":
        yield f"items leave at {profile.leaves.value}"
    if sets.fixed:
        yield f"answered in {' and '.join(sets.fixed)}, else {sets.cannot_show.value}"
    elif sets.declared:
        yield f"declares {', '.join(sets.declared)}"
    if sets.assumed:
        yield f"undeclared text is read as {' and '.join(sets.assumed)}"
    if profile.date_window:
        window = profile.date_window
        yield f"without a date shows {window.days_before} days back to {window.days_after} ahead"
    if profile.empty_values:
        yield "empty value matching"
    if profile.whole_names:
        yield "whole names only"
