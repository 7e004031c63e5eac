"""Reading an archived message again, with today's rules or others: what it meant, or why it means nothing.

A message of HL7 v2 is in its bytes. A FHIR request means something only beside resources that came before it: what it
said is `kept` beside it (`fhir_kept`).
"""

from typing import TypeAlias

from gateway.domain.facts import Stamp
from gateway.domain.mapping import MappingResult
from gateway.domain.order import NEW, OrderEvent, removes
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.worklist import missing_for_listing
from gateway.wire import hl7_source
from gateway.workflow.fhir_feed import FHIRFeed
from gateway.workflow.fhir_kept import restored
from gateway.workflow.fhir_meaning import Speech
from gateway.workflow.fhir_meaning import meanings as fhir_meanings
from gateway.workflow.intake import Feed
from gateway.workflow.ports import MessageRecord

AnyFeed: TypeAlias = Feed | FHIRFeed
"""How messages of one listener or FHIR server are read."""


def meaning(raw: bytes, feed: AnyFeed, kept: bytes | None = None) -> MappingResult:
    """What the feed's mapping makes of the message; also what cannot be read gives a result, of refusals.

    `kept` is what the archive keeps beside a FHIR request.
    """
    if isinstance(feed, FHIRFeed):
        return _fhir_meaning(speech_kept(kept), feed)
    try:
        document = hl7_source.document(feed.read(raw))
    except Refused as refused:
        return MappingResult(refusals=refused.refusals)
    return _covered(feed.understand(document))


def meanings(
    raw: bytes, feed: AnyFeed, other: AnyFeed, kept: bytes | None = None
) -> tuple[MappingResult, MappingResult]:
    """The same by the mappings of two feeds that read alike: the message is taken apart once."""
    if isinstance(feed, FHIRFeed) or isinstance(other, FHIRFeed):
        return meaning(raw, feed, kept), meaning(raw, other, kept)
    try:
        document = hl7_source.document(feed.read(raw))
    except Refused as refused:
        nothing = MappingResult(refusals=refused.refusals)
        return nothing, nothing
    one, two = (_covered(each.understand(document)) for each in (feed, other))
    return one, two


_MADE = "ScheduledProcedureStepID"  # a key: said apart from the attributes, or made


def _covered(result: MappingResult) -> MappingResult:
    """The result, refused where a new order is completed neither by itself nor by a procedure rule (design D12)."""
    refusals = tuple(
        Refusal(RefusalKind.UNCOVERED, procedure.where, f"{keyword} is not given")
        for event in result.events
        if isinstance(event, OrderEvent) and event.control in NEW and not removes(event.control, event.order_status)
        for procedure in event.procedures
        for step in procedure.steps
        for keyword in missing_for_listing({**step.defaults, **step.attributes})
        if keyword != _MADE
    )
    return MappingResult(refusals=refusals) if refusals else result


def speech_kept(kept: bytes | None) -> Speech | None:
    """What a FHIR request said; None where that is not kept, as of one that was refused."""
    return restored(kept).speech if kept is not None else None


def _fhir_meaning(speech: Speech | None, feed: FHIRFeed) -> MappingResult:
    if speech is None:
        return MappingResult(refusals=(NOT_KEPT,))
    told = fhir_meanings(speech, feed)
    refusals = tuple(refusal for each in told for refusal in each.result.refusals)
    if refusals:
        return MappingResult(refusals=refusals)
    return _covered(MappingResult(tuple(event for each in told for event in each.news)))


NOT_KEPT = Refusal(RefusalKind.UNREADABLE, "", "what this request said is not kept: it was refused, or too large")


def stamp_of(record: MessageRecord, feed: AnyFeed) -> Stamp:
    """When an archived message was made and by whom, as intake noted it."""
    return Stamp(record.made_at, f"{feed.name} {record.sender}")
