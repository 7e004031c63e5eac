"""FHIR requests run through the store's writer: what is answered when they are done, refused, fail or cannot be stored.

The HTTP edge, the feeds and the command line share it, as `processing` is shared for HL7 v2.
"""

import asyncio
from collections import abc
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus

import structlog

from gateway.config import Site
from gateway.domain.identifiers import Mint
from gateway.domain.mapping import Mapping
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.edges.database import StoreUnavailable
from gateway.edges.store import Store
from gateway.edges.store_unit import StoreUnit
from gateway.fhir_settings import FHIRFeedSettings, FHIRSettings
from gateway.processing import archive_feeds, now
from gateway.wire import fhir_bundle, fhir_json
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Result, Verb
from gateway.wire.fhir_outcome import http_status
from gateway.wire.fhir_release import Release
from gateway.workflow import fhir_answers, fhir_intake
from gateway.workflow.audience import NOBODY, Audience
from gateway.workflow.fhir_feed import OUR_SERVER, FHIRFeed
from gateway.workflow.fhir_intake import Receipt
from gateway.workflow.fhir_rehearsal import Rehearsal, rehearse
from gateway.workflow.intake import RunsAgain
from gateway.workflow.ports import StoredMessage
from gateway.workflow.rehearsal import REPLAY_PEER
from gateway.workflow.rereading import AnyFeed

_log = structlog.get_logger()

_CANNOT_STORE = Refusal(RefusalKind.TRANSIENT, "", "the request cannot be stored now", "send it again later")
_FAILED = Refusal(
    RefusalKind.INTERNAL, "", "the gateway could not process this request",
    "the request is archived; tell the gateway's operator",
)  # fmt: skip

_NOT_REHEARSED = Refusal(
    RefusalKind.INTERNAL, "", "the gateway could not say what would come of it", "tell the gateway's operator"
)

_METHODS = {Verb.CREATE: "POST", Verb.UPDATE: "PUT", Verb.PATCH: "PATCH", Verb.DELETE: "DELETE"}


async def process_request(store: Store, request: FHIRRequest, feed: FHIRFeed) -> Answer:
    """Run one request down the whole road; the answer is truthful whatever happened. Raises nothing.

    The entries of a batch are requests of their own; so are resources that were fetched, where one of them is refused.
    """
    if request.kind is Kind.BATCH:
        return fhir_bundle.answer(request, await _one_by_one(store, request, Kind.SINGLE, feed))
    done = await _tried(store, _receiving(request, feed), feed)
    if isinstance(done, Receipt):
        return done.answer
    if request.kind is Kind.FETCHED and len(request.interactions) > 1 and _CANNOT_STORE not in done:
        alone = replace(request, interactions=tuple(sorted(request.interactions, key=rank)))
        results = await _one_by_one(store, alone, Kind.FETCHED, feed)
        return fhir_bundle.answer(replace(alone, kind=Kind.BATCH), results)
    return (await _archived(store, request, done, feed)).answer


async def refuse_request(store: Store, request: FHIRRequest, refusals: Sequence[Refusal], feed: FHIRFeed) -> Answer:
    """Archive and answer a request that is refused before it is run. One that could not be read has no interactions."""
    return (await _archived(store, request, refusals, feed)).answer


async def rehearse_request(store: Store, request: FHIRRequest, feed: FHIRFeed) -> Rehearsal:
    """What would come of a request that was sent now; nothing of it stays. Raises nothing."""
    at = now()
    try:
        return await asyncio.wrap_future(store.rehearse(lambda unit: rehearse(unit, request, feed, at)))
    except StoreUnavailable:
        return Rehearsal((_CANNOT_STORE,))
    except Exception as error:
        _log.error("fhir_rehearsal_failed", feed=feed.name, exc_info=error)
        return Rehearsal((_NOT_REHEARSED,))


async def replay_request(store: Store, stored: StoredMessage, feed: FHIRFeed) -> Receipt:
    """Run an archived request again. Raises nothing; what is refused is archived, too."""
    at = now()
    done = await _tried(store, lambda unit: fhir_intake.run_again(unit, stored, feed, at), feed)
    if isinstance(done, Receipt):
        return done
    receipt = Receipt(Answer(503), "refused", stored.record.control_id, stored.record.message_type)
    with suppress(StoreUnavailable):
        receipt = await store.written(
            lambda unit: fhir_intake.archive_refused_again(unit, stored, done, REPLAY_PEER, at)
        )  # fmt: skip
    return receipt


def unstored(done: Answer) -> int:
    """How many things could not be stored: the request itself, or entries of a batch."""
    entries = (done.body or {}).get("entry", ())
    statuses = [str(done.status), *(str(each.get("response", {}).get("status", "")) for each in entries)]
    return sum(each.startswith(str(HTTPStatus.SERVICE_UNAVAILABLE.value)) for each in statuses)


def _receiving(request: FHIRRequest, feed: FHIRFeed) -> Callable[[StoreUnit], Receipt]:
    at = now()
    return lambda unit: fhir_intake.receive(unit, request, feed, at)


async def _one_by_one(store: Store, request: FHIRRequest, kind: Kind, feed: FHIRFeed) -> list[Result]:
    results: list[Result] = []
    for place, each in enumerate(request.interactions):
        event = f"{_METHODS.get(each.verb, 'GET')} {each.type}"
        alone = replace(
            request, kind=kind, interactions=(each,), raw=_raw(each), event=event, message_id="",
            notes=request.notes if place == 0 else (),
        )  # fmt: skip
        done = await _tried(store, _receiving(alone, feed), feed)
        if isinstance(done, Receipt):
            results += done.results
        else:
            await _archived(store, alone, done, feed)
            if kind is Kind.FETCHED:
                await _reject_tasks(store, request, each, done, feed)
            results.append(Result(http_status(done), refusals=tuple(done)))
    return results


async def _reject_tasks(
    store: Store, request: FHIRRequest, refused: Interaction, refusals: Sequence[Refusal], feed: FHIRFeed
) -> None:  # fmt: skip
    """The server that Tasks were fetched from is told that what they ask for was refused, and why."""
    reference = f"{refused.type}/{refused.id or (refused.resource or {}).get('id', '')}"
    tasks = (each.resource for each in request.interactions if each.type == "Task" and each.resource is not None)
    asking = fhir_answers.asking_for(tasks, reference)
    at = now().astimezone(feed.department)
    if not asking or not feed.audience.fhir:
        return
    with suppress(StoreUnavailable):  # it is fetched again, and refused again
        await store.written(
            lambda unit: fhir_answers.rejected(
                unit, feed.audience, request.source, request.release, asking, refusals, at
            )
        )  # fmt: skip


def rank(interaction: Interaction) -> int:
    """The order in which fetched resources are done one by one, where they cannot be done together: what is referred to
    comes before what refers to it, so that there is less to wait for."""
    return _RANKS.get(interaction.type, 0)


_RANKS = {"Patient": 1, "Encounter": 2, "ServiceRequest": 3, "Task": 4, "Appointment": 4, "ImagingStudy": 4}


def _raw(interaction: Interaction) -> bytes:
    content = interaction.resource if interaction.resource is not None else interaction.patch
    return fhir_json.write(content) if content is not None else b""


async def _tried(
    store: Store, use_case: Callable[[StoreUnit], Receipt], feed: FHIRFeed
) -> Receipt | tuple[Refusal, ...]:  # fmt: skip
    """What came of it, or why nothing did."""
    try:
        return await store.written(use_case)
    except Refused as refused:
        return refused.refusals
    except StoreUnavailable:
        return (_CANNOT_STORE,)
    except Exception as error:
        _log.error("fhir_request_failed", feed=feed.name, exc_info=error)
        return (_FAILED,)


async def _archived(
    store: Store, request: FHIRRequest, refusals: Sequence[Refusal], feed: FHIRFeed, replay_of: int | None = None
) -> Receipt:
    """Keep a refused request with its reasons where that can be written, and answer it either way."""
    at = now()
    if _CANNOT_STORE not in refusals:
        try:
            return await store.written(
                lambda unit: fhir_intake.archive_refused(unit, request, refusals, feed, at, replay_of)
            )
        except StoreUnavailable:
            refusals = [_CANNOT_STORE]
        except Exception as error:  # nothing of the request is kept, so its sender must keep it
            _log.error("fhir_archive_failed", feed=feed.name, exc_info=error)
            refusals = [_CANNOT_STORE]
    return fhir_intake.refuse_unarchived(request, refusals, feed, at)


# --- the feeds of a site ----------------------------------------------------------------------------------------------


def fhir_feeds_of(
    site: Site, mint: Mint, audience: Audience = NOBODY, others: abc.Mapping[str, RunsAgain] | None = None
) -> dict[str, FHIRFeed]:
    """How FHIR is read by its source: our own server (`fhir`) and the feeds of the settings, by their names.

    `others` are the feeds of HL7 v2: what came early by one of them acts when its order comes here.
    """
    settings = site.settings.fhir
    if settings is None:
        return {}
    own = FHIRFeed(
        name=OUR_SERVER,
        mappings=_mappings(site, settings),
        mint=mint,
        issuers=site.issuers,
        issuer=settings.issuer,
        site=settings.site,
        department=site.zone,
        server=settings.url,
        categories=settings.categories,
        hold_uncovered=settings.uncovered == "hold",
        discontinue_started=settings.cancel_started == "discontinue",
        audience=audience,
        others=others or {},
    )
    return {own.name: own} | {each.name: _feed(site, own, each) for each in settings.feeds}


def feed_for_explaining(site: Site, source: str, mint: Mint) -> FHIRFeed | None:
    """The named feed of FHIR, or our own server's, also where none is configured; None where there is no such feed."""
    settings = site.settings.fhir or FHIRSettings()
    asked = replace(site, settings=site.settings.model_copy(update={"fhir": settings}))
    return fhir_feeds_of(asked, mint).get(source or OUR_SERVER)


def all_archive_feeds(site: Site, mint: Mint) -> dict[str, AnyFeed]:
    """How archived messages are read, HL7 v2 and FHIR, by the listener or server they came by."""
    hl7 = archive_feeds(site, mint)
    return {**fhir_feeds_of(site, mint, others=hl7), **hl7}


def _mappings(site: Site, settings: FHIRSettings) -> dict[Release, Mapping]:
    named = {Release.R4: settings.mapping, Release.R4B: settings.mapping, Release.R5: settings.mapping_r5}
    return {release: site.mappings[name] for release, name in named.items()}


def _feed(site: Site, own: FHIRFeed, settings: FHIRFeedSettings) -> FHIRFeed:
    own_mapping = {settings.release: site.mappings[settings.mapping]} if settings.mapping else {}
    return replace(
        own,
        name=settings.name,
        mappings={**own.mappings, **own_mapping},
        issuer=settings.issuer or own.issuer,
        site=settings.site or own.site,
        server=settings.url,
    )
