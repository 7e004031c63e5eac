"""The DICOM conformance statement, made of the tables that the code runs on (PS3.2, PS3.4 K.6.1.3.2, F.7.4.2.1).

What no table says is a sentence here; a sentence that a table could say does not belong here.
"""

from collections.abc import Iterable, Iterator

from pydicom.uid import UID

from gateway.config import Site
from gateway.domain import worklist
from gateway.domain.attributes import ATTRIBUTES, Level, matching_kinds
from gateway.domain.devices import Device, Profile
from gateway.domain.worklist import LISTED, SPSStatus, StepEvent
from gateway.edges.dimse_server import Limits
from gateway.markdown import code, table, tag
from gateway.wire import upper_layer
from gateway.wire.charsets import DEFINED_TERMS
from gateway.wire.dimse import Status

SERVICES = {
    upper_layer.VERIFICATION: "C-ECHO",
    upper_layer.MODALITY_WORKLIST: "C-FIND, C-CANCEL",
    upper_layer.MPPS: "N-CREATE, N-SET",
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

_PERFORMED_EVENTS = (
    StepEvent.PERFORMANCE_STARTED,
    StepEvent.PERFORMANCE_COMPLETED,
    StepEvent.PERFORMANCE_RETURNED,
    StepEvent.PERFORMANCE_GIVEN_UP,
)


def statement() -> Iterator[str]:
    """The lines of the statement for every site."""
    yield "The gateway is an SCP; it opens no association by itself."
    yield ""
    yield "## SOP classes and transfer syntaxes"
    yield ""
    yield from table(
        ("SOP class", "UID", "Services"),
        ((UID(uid).name, code(uid), SERVICES[uid]) for uid in upper_layer.SOP_CLASSES),
    )
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
    yield from _effect_of_mpps()


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
