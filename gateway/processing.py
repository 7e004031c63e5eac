"""Use cases run through the store's writer: what is answered when they are done, refuse, fail or cannot be stored.

The listeners and the command line share it, so a replayed message takes the same road as a received one.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from zoneinfo import ZoneInfo

import structlog

from gateway.config import HL7Settings, Site
from gateway.domain.devices import Device, MPPSAnswers
from gateway.domain.identifiers import Mint
from gateway.domain.order import OrderControl
from gateway.domain.performed import Operation
from gateway.domain.performed_rules import LENIENT, STRICT
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.edges.database import StoreError, StoreUnavailable
from gateway.edges.store import Store
from gateway.edges.store_unit import StoreUnit
from gateway.edges.strict_checks import STRICT_CHECKS, ChecksUnavailable
from gateway.wire import er7, hl7_source
from gateway.wire.dimse import NAnswer
from gateway.wire.mpps_dataset import STATUSES
from gateway.workflow import by_hand, intake
from gateway.workflow.audience import NOBODY, Audience
from gateway.workflow.availability import Announcement, note_availability, read_notification
from gateway.workflow.intake import Feed, Receipt, RunsAgain, Understood
from gateway.workflow.linking import PatientIssuers
from gateway.workflow.perform import PerformAnswer, attribute_list, create_step, set_step
from gateway.workflow.performed_request import PerformRequest, ReadRequest, read_request
from gateway.workflow.ports import Unit

_log = structlog.get_logger()


def now() -> datetime:
    """The clock of the service."""
    return datetime.now(UTC)


def feeds_of(
    site: Site, mint: Mint, audience: Audience = NOBODY, others: dict[str, RunsAgain] | None = None
) -> dict[str, Feed]:
    """How the messages of each listener are read, by its name; who is told what comes of them.

    `others` is where they look each other up; they are put there, beside feeds of other formats.
    """
    known = others if others is not None else {}
    feeds = {
        settings.name: replace(_feed(site, settings, mint), others=known, audience=audience)
        for settings in site.settings.hl7
    }
    known |= feeds
    return feeds


def archive_feeds(site: Site, mint: Mint) -> dict[str, Feed]:
    """How archived messages are read, by the listener they came by, also those typed by hand."""
    feeds = feeds_of(site, mint)
    typed = by_hand_feed(site, mint)
    return feeds if typed is None else {**feeds, typed.name: typed}


def by_hand_feed(site: Site, mint: Mint, mapping: str = "") -> Feed | None:
    """How orders typed by hand are read: as the first listener's, but by a mapping that reads every standard field.

    None where the site has no such mapping.
    """
    first = next(iter(site.settings.hl7), None)
    standard = "ihe-swf"
    name = mapping or (standard if standard in site.mappings or first is None else site.mapping(first).name)
    if name not in site.mappings:
        return None
    return Feed(
        by_hand.PEER, site.mappings[name], mint, site.issuers, by_hand.CHARSET, first.issuer if first else "",
        site=first.site if first else "", zone=site.zone,
    )  # fmt: skip


def _feed(site: Site, settings: HL7Settings, mint: Mint) -> Feed:
    return Feed(
        name=settings.name,
        mapping=site.mapping(settings),
        mint=mint,
        issuers=site.issuers,
        charset=settings.charset or "ascii",
        issuer=settings.issuer,
        site=settings.site,
        hold_uncovered=settings.uncovered == "hold",
        refuse_repeated_ids=settings.repeat == "refuse",
        redirect_merged=settings.merged_patient == "redirect",
        processing_ids=frozenset("PDT" if settings.accept_test else "PD"),
        ignore=frozenset(settings.ignore),
        senders=frozenset(settings.senders),
        charset_override=settings.charset_override,
        header_required=settings.header_required,
        zone=ZoneInfo(settings.timezone) if settings.timezone else site.zone,
        department=site.zone,
        sort_late=settings.out_of_order == "sort",
        discontinue_started=settings.cancel_started == "discontinue",
        cancel_unsaid=settings.unsaid_steps == "cancel",
        merge_linked=settings.linked_patients == "merge",
        strict=settings.validate_messages == "strict",
        answer=settings.answer,
        acknowledge_to=settings.acknowledge_to,
    )


async def remember_mappings(store: Store, site: Site) -> None:
    """Keep what the mappings are made of, so that traces can be made again after they change.

    A store that cannot be written now is no reason not to serve.
    """
    versions = {mapping.version_id: partial(site.mapping_content, name) for name, mapping in site.mappings.items()}
    versions |= {writer.name: partial(site.outbound_content, name) for name, writer in site.outbound.items()}
    at = now()

    def save(unit: StoreUnit) -> None:
        for version, content in versions.items():
            if unit.mapping_version(version) is None:  # nearly always it is there since the first start
                unit.save_mapping_version(version, content(), at)

    try:
        await store.written(save)
    except StoreError as error:
        _log.warning("mappings_not_remembered", exc_info=error)


async def process_message(
    store: Store, raw: bytes, feed: Feed, peer: str, replay_of: int | None = None, barred: Sequence[str] = ()
) -> Receipt:
    """Run one message down the whole road; the receipt's answer is truthful whatever happened.

    `barred` are senders that this one must not say to be.

    A refusal undoes the message's changes and is archived by a transaction of its own. What cannot be stored now is
    answered as transient and changes nothing.
    """
    try:
        malformed = await _malformed(raw, feed)
    except ChecksUnavailable:
        return await archive_message(store, raw, [_CANNOT_CHECK], feed, peer, replay_of)
    # Read by the writer: what it does meanwhile keeps no query waiting, as the event loop would.
    return await _receive(store, raw, lambda: intake.read_message(raw, feed, malformed, barred), feed, peer, replay_of)


async def understand_message(
    raw: bytes, feed: Feed, barred: Sequence[str] = ()
) -> Understood | tuple[Refusal, ...]:  # fmt: skip
    """The part of the road that needs no store: what the message says, or why nothing can be done with it."""
    try:
        return intake.read_message(raw, feed, await _malformed(raw, feed), barred)
    except Refused as refused:
        return refused.refusals
    except ChecksUnavailable:
        return (_CANNOT_CHECK,)
    except Exception as error:
        _log.error("message_failed", listener=feed.name, exc_info=error)
        return (_FAILED,)


async def process_understood(store: Store, raw: bytes, understood: Understood, feed: Feed, peer: str) -> Receipt:
    """The rest of the road, for a message that another process has read as this feed would."""
    return await _receive(store, raw, lambda: understood, feed, peer, None)


async def _malformed(raw: bytes, feed: Feed) -> Sequence[Refusal]:
    """Raises ChecksUnavailable."""
    return await STRICT_CHECKS.problems(raw, feed.charset, feed.charset_override) if feed.strict else ()


async def _receive(
    store: Store, raw: bytes, read: Callable[[], Understood], feed: Feed, peer: str, replay_of: int | None
) -> Receipt:
    at = now()
    try:
        return await store.written(lambda unit: intake.receive(unit, raw, feed, peer, at, replay_of, read()))
    except Refused as refused:
        refusals: Sequence[Refusal] = refused.refusals
    except StoreUnavailable:
        refusals = [_CANNOT_STORE]
    except Exception as error:
        _log.error("message_failed", listener=feed.name, exc_info=error)
        refusals = [_FAILED]
    return await archive_message(store, raw, refusals, feed, peer, replay_of)


async def archive_message(
    store: Store, raw: bytes, refusals: Sequence[Refusal], feed: Feed, peer: str, replay_of: int | None = None
) -> Receipt:
    """Keep a refused message with its reasons where that can be written, and answer it either way."""
    at = now()
    if _CANNOT_STORE not in refusals:
        try:
            return await store.written(
                lambda unit: intake.archive_refused(unit, raw, refusals, feed, peer, at, replay_of)
            )
        except StoreUnavailable:
            refusals = [_CANNOT_STORE]
        except Exception as error:  # nothing of the message is kept, so its sender must keep it
            _log.error("archive_failed", listener=feed.name, exc_info=error)
            refusals = [_CANNOT_STORE]
    return intake.refuse_unarchived(raw, refusals, feed, at)


def hear_answer(unit: Unit, feeds: Iterable[Feed], destination: str, answer: bytes, at: datetime) -> None:
    """Take from the answer of a destination what it says of orders, in the transaction that settles what it answers.

    It is a response (ORR, ORG, ORI) that gives an order a number (ORC-1 NA) or says that it cannot (UA), and goes down
    the road that it would go from a listener: that whose acknowledgements go to this destination, else the first that
    takes its sender. It is not answered, nor passed on: two systems that answer answers would never end. Nothing but
    StoreError is raised, since what it answers was accepted.
    """
    try:
        message = er7.parse(answer, _ANY_BYTE)
        if message.message_code not in hl7_source.RESPONSES or not any(map(_assigns, message.all("ORC"))):
            return
        places = sorted(feeds, key=lambda each: each.acknowledge_to != destination)  # stable: else in their order
        found = next((each for each in places if each.takes(message)), None)
        if found is None:
            return
        told = replace(found.audience, passed_on=())
        feed = replace(found, answers_nobody=True, acknowledge_to="", audience=told)
        _take_answer(unit, answer, feed, destination, at)
    except Refused:  # it cannot be read; the archive has it beside what it answers
        return
    except StoreError:
        raise
    except Exception as error:
        _log.error("answer_failed", destination=destination, exc_info=error)


def _take_answer(unit: Unit, answer: bytes, feed: Feed, destination: str, at: datetime) -> None:
    try:
        unit.attempt(lambda: intake.receive(unit, answer, feed, destination, at))
    except Refused as refused:
        refusals = refused.refusals
        unit.attempt(lambda: intake.archive_refused(unit, answer, refusals, feed, destination, at))


def _assigns(orc: er7.Segment) -> bool:
    """Whether it says what became of a request for a number."""
    return orc.text(1).strip().upper() in (OrderControl.NA, OrderControl.UA) and bool(orc.text(2) or orc.text(3))


_ANY_BYTE = "iso8859-1"  # what is looked at here is ASCII; its feed reads it with its own set


def put_off(raw: bytes, feed: Feed) -> Receipt:
    """Answer what comes while nothing can be stored, without trying it."""
    return intake.refuse_unarchived(raw, [_CANNOT_STORE], feed, now())


_CANNOT_STORE = Refusal(RefusalKind.TRANSIENT, "", "the message cannot be stored now", "send it again later")
_CANNOT_CHECK = Refusal(RefusalKind.TRANSIENT, "", "the message cannot be checked now", "send it again later")
_FAILED = Refusal(
    RefusalKind.INTERNAL,
    "",
    "the gateway could not process this message",
    "the message is archived; tell the gateway's operator",
)


READ_AT_ONCE_BYTES = 16_384
"""A dataset that is read in less time than a thread takes; a usual MPPS has 4 KB."""


async def report_performed(
    store: Store, site: Site, operation: Operation, request: PerformRequest, device: Device, audience: Audience = NOBODY
) -> NAnswer:
    """Run an N-CREATE or N-SET; the answer is positive only when it is on disk, with what is to be told of it."""
    rules = STRICT if device.mpps_strict else LENIENT
    at = now()
    large: ReadRequest | None = None
    if len(request.raw) > READ_AT_ONCE_BYTES:
        large = await asyncio.to_thread(read_request, operation, request)

    def use_case(unit: Unit) -> tuple[ReadRequest, PerformAnswer]:
        # Read by the writer: what it does meanwhile keeps no query waiting, as the event loop would. The two threads
        # also want the interpreter from each other less often, and more requests wait to be committed together.
        read = large or read_request(operation, request)
        if operation is Operation.CREATE:
            issuers = PatientIssuers(site.issuers, site.default_issuer)
            return read, create_step(unit, read, at, rules, issuers, audience, site.zone)
        return read, set_step(unit, read, at, rules, audience, site.zone)

    try:
        read, done = await store.written(use_case)
    except StoreUnavailable:
        return NAnswer(STATUSES[RefusalKind.TRANSIENT], "cannot be stored now, send it again later")
    except Exception as error:
        _log.error("performed_step_failed", operation=operation.value, exc_info=error)
        return await _keep_failed(store, operation, request, at)
    uid = done.performed.sop_instance_uid if done.performed is not None else ""
    named = uid if uid != request.sop_instance_uid else ""
    dataset = done.dataset
    if device.mpps_answers is MPPSAnswers.DATASET:
        dataset = attribute_list(operation, read, done)
    return NAnswer(done.status, done.comment, done.error_id, done.attribute_tags, dataset, named)


async def report_availability(
    store: Store, site: Site, request: PerformRequest, device: Device, audience: Audience = NOBODY
) -> NAnswer:
    """Run the N-CREATE of an Instance Availability Notification; the answer is positive only when it is on disk."""
    at, strict = now(), device.mpps_strict
    if len(request.raw) > READ_AT_ONCE_BYTES:
        read = await asyncio.to_thread(read_notification, request, whole_table=strict)
    else:
        read = read_notification(request, whole_table=strict)
    completes = site.settings.performed.availability == "completes"
    try:
        done = await store.written(
            lambda unit: note_availability(unit, read, at, completes=completes, audience=audience, zone=site.zone)
        )
    except StoreUnavailable:
        return NAnswer(STATUSES[RefusalKind.TRANSIENT], "cannot be stored now, send it again later")
    except Exception as error:
        _log.error("availability_failed", exc_info=error)
        return await _keep_failed(store, Announcement.AVAILABILITY, request, at)
    return NAnswer(done.answer.status, done.answer.comment, None, done.answer.attribute_tags)


async def _keep_failed(
    store: Store, operation: Operation | Announcement, request: PerformRequest, at: datetime
) -> NAnswer:
    """A defect of ours undid the transaction with its archive line: keep the request in one of its own."""
    status, comment = STATUSES[RefusalKind.INTERNAL], "the gateway could not process this request"
    uid, caller = request.sop_instance_uid, request.calling_ae_title
    with contextlib.suppress(StoreError):
        await store.written(
            lambda unit: unit.archive_performed(
                uid, operation.value, caller, request.raw, status, comment, at, request.transfer_syntax
            )
        )
    return NAnswer(status, comment)
