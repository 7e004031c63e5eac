"""Reading an archived message again, with today's rules or others: what it meant, or why it means nothing."""

from gateway.domain.facts import Stamp
from gateway.domain.mapping import MappingResult
from gateway.domain.order import NEW, OrderEvent, removes
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.worklist import missing_for_listing
from gateway.wire import hl7_source
from gateway.workflow.intake import Feed
from gateway.workflow.ports import MessageRecord


def meaning(raw: bytes, feed: Feed) -> MappingResult:
    """What the feed's mapping makes of the message; also what cannot be read gives a result, of refusals."""
    try:
        document = hl7_source.document(feed.read(raw))
    except Refused as refused:
        return MappingResult(refusals=refused.refusals)
    return _covered(feed.understand(document))


def meanings(raw: bytes, feed: Feed, other: Feed) -> tuple[MappingResult, MappingResult]:
    """The same by the mappings of two feeds that read alike: the message is taken apart once."""
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


def stamp_of(record: MessageRecord, feed: Feed) -> Stamp:
    """When an archived message was made and by whom, as intake noted it."""
    return Stamp(record.made_at, f"{feed.name} {record.sender}")
