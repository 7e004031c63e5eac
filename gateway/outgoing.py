"""From the settings to what goes out: who is told what, and a deliverer for each destination."""

from collections.abc import Mapping
from pathlib import Path

from gateway.config import Site
from gateway.destinations import (
    NOTHING,
    DestinationSettings,
    DestinationTLS,
    FHIRDestination,
    PassOnSettings,
    StatusSettings,
    own_listeners,
)
from gateway.domain.progress import STATUS_TOLD, Progress
from gateway.domain.report import Header
from gateway.domain.scopes import Scope, scopes
from gateway.edges.channel import Channel, Destination
from gateway.edges.delivery import Deliverer, Hear
from gateway.edges.hl7_channel import HL7Channel
from gateway.edges.mllp import Observe
from gateway.edges.performed_channel import PerformedChannel, restating
from gateway.edges.resolving import Hosts
from gateway.edges.store import Store
from gateway.edges.tls import CallingContext
from gateway.fhir_settings import WRITING
from gateway.wire.fhir_release import Release
from gateway.workflow.audience import (
    Audience,
    FHIRTarget,
    FHIRWriting,
    PassOnTarget,
    PerformedTarget,
    StatusTarget,
    Writing,
)
from gateway.workflow.outbox import Patience


def audience_of(site: Site) -> Audience:
    """Who is told what at this site."""
    places = site.settings.destinations
    return Audience(
        tuple(_status_target(site, place, place.status) for place in places if place.status and not place.fhir),
        tuple(_pass_on_target(site, place, place.pass_on) for place in places if place.pass_on),
        tuple(PerformedTarget(place.name, place.performed.sends) for place in places if place.performed),
        tuple(_fhir_target(site, place, place.fhir) for place in places if place.fhir),
        _fhir_writing(site, site.settings.fhir.release) if site.settings.fhir is not None else None,
        _readers(site),
        _notified(site),
    )


def deliverers_of(
    site: Site, store: Store, observe: Observe, hear: Hear | None = None, hosts: Hosts | None = None
) -> Mapping[str, Deliverer]:
    """One for each destination that is known where to find, by its name, not yet started.

    `hear` gets what HL7 destinations answer; `hosts` knows where they are. Raises OSError where a certificate cannot
    be read.
    """
    known = hosts or Hosts()
    places = (place for place in site.settings.destinations if place.is_addressed)
    return {place.name: deliverer_of(site, place, store, observe, hear, known) for place in places}


def described(place: DestinationSettings) -> str:
    """Who it is and what it gets, for people."""
    gets = {
        "performed steps": place.performed is not None,
        "status": place.status is not None or place.fhir is not None,
        "messages received": place.pass_on is not None,
    }
    told = ", ".join(what for what, is_so in gets.items() if is_so) or "acknowledgements"
    protocol = "FHIR" if place.fhir else "HL7 v2"
    if place.performed:
        protocol = f"DICOM as {place.performed.ae_title or place.device}"
    return f"{protocol}{', TLS' if place.tls else ''}: {told}"


def _status_target(site: Site, place: DestinationSettings, said: StatusSettings) -> StatusTarget:
    told: dict[Progress, tuple[str, str]] = dict(STATUS_TOLD)
    for progress, words in said.tell.items():
        if words == NOTHING:
            told.pop(progress, None)
        else:
            control, _, status = words.partition(" ")
            told[progress] = control, status
    count = sum(1 for each in site.settings.destinations if each.status and not each.fhir)
    listeners = own_listeners(said, [listener.name for listener in site.settings.hl7], count)
    writing = _writing(site, place, said.mapping)
    return StatusTarget(place.name, writing, told, frozenset(said.sites), listeners, place.application)


def _fhir_target(site: Site, place: DestinationSettings, said: FHIRDestination) -> FHIRTarget:
    told = place.status.tell if place.status is not None else {}
    return FHIRTarget(
        place.name,
        _fhir_writing(site, said.release),
        frozenset(said.resources),
        said.feed,
        frozenset(each for each in Progress if told.get(each) != NOTHING),
        frozenset(place.status.sites if place.status is not None else ()),
    )


def _readers(site: Site) -> Mapping[str, tuple[Scope, ...]]:
    clients = site.settings.fhir.clients if site.settings.fhir is not None else ()
    return {each.name: scopes(" ".join(each.scopes)) for each in clients}


def _notified(site: Site) -> Mapping[str, tuple[str, ...]]:
    clients = site.settings.fhir.clients if site.settings.fhir is not None else ()
    return {each.name: each.notify for each in clients}


def _fhir_writing(site: Site, release: Release) -> FHIRWriting:
    """How this site says status in FHIR: an authority goes by its first FHIR system, else by its OID."""
    systems = {
        each.name: each.fhir[0] if each.fhir else f"urn:oid:{each.oid[0]}"
        for each in site.settings.issuers
        if each.fhir or each.oid
    }
    images = site.settings.fhir.images if site.settings.fhir is not None else ""
    return FHIRWriting(release, systems, images, site.settings.ae_title, site.recipe.systems)


def _fhir_channel(site: Site, place: DestinationSettings, said: FHIRDestination) -> Channel:
    from gateway.edges.fhir_channel import FHIRChannel  # late: who speaks no FHIR needs no HTTP client
    from gateway.edges.fhir_client import FHIRClient

    folder = site.file.parent
    return FHIRChannel(
        FHIRClient(
            said.url, said.release, said.credentials, said.tls, place.answer_timeout_s, folder, scope=WRITING
        )
    )  # fmt: skip


def _pass_on_target(site: Site, place: DestinationSettings, said: PassOnSettings) -> PassOnTarget:
    writing = _writing(site, place, said.mapping) if said.mapping else None
    return PassOnTarget(place.name, writing, frozenset(said.types), frozenset(said.listeners))


def _writing(site: Site, place: DestinationSettings, mapping: str) -> Writing:
    header = Header(
        sending_application=site.settings.ae_title,
        receiving_application=place.application,
        receiving_facility=place.facility,
        charset=place.charset,
    )
    return Writing(site.outbound[mapping], header)


def deliverer_of(
    site: Site, place: DestinationSettings, store: Store, observe: Observe, hear: Hear | None, hosts: Hosts
) -> Deliverer:  # fmt: skip
    """That of one destination, not yet started. Raises OSError where a certificate cannot be read."""
    tls = tls_context(site.file.parent, place.tls) if place.tls else None
    destination = Destination(
        place.name, place.host, place.port, place.answer_timeout_s, place.pause_s, tls,
        place.tls.host_name if place.tls else "",
    )  # fmt: skip
    patience = Patience(
        most_s=place.retry_most_s, errors_max=place.errors_max, repeat_unanswered=place.unanswered == "repeat"
    )
    channel: Channel
    if place.fhir is not None:
        channel = _fhir_channel(site, place, place.fhir)
    elif place.performed is None:
        channel = HL7Channel(destination, place.mllp_release, hosts)
    else:
        calling = place.performed.calling_ae_title or site.settings.ae_title
        items = store.reader.items if place.performed.sends == "coerced" else None
        restate = restating(store.reader.performed_step, items)
        channel = PerformedChannel(destination, place.performed.ae_title, calling, restate, hosts=hosts)
    heard = hear if place.performed is None and place.fhir is None else None
    return Deliverer(destination, store, observe, patience, channel=channel, hear=heard)


def tls_context(base: Path, said: DestinationTLS) -> CallingContext:
    """How a destination is checked, and how we show who we are. Paths are relative to the configuration.

    Raises OSError (ssl.SSLError is one) where a file cannot be used.
    """

    def path(name: str) -> str:
        return str(base / name) if name else ""

    return CallingContext(path(said.ca), path(said.certificate), path(said.key), path(said.crl))
