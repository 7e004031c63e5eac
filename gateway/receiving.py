"""The HL7 side of one process: its listeners, the batches in their frames, and what it counts and logs of messages.

The process that does everything has one; where workers serve, each of them has one. What becomes of a message is
decided on a `Road`, which ends at the store, in this process or through another.
"""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, Protocol

import structlog

from gateway.config import HL7Settings, Settings
from gateway.domain.access import CertificateRule, Network, certificate_rule
from gateway.domain.rates import Rates
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.senders import SenderRule, barred, strange
from gateway.edges.flood import Flood
from gateway.edges.metrics import Tally
from gateway.edges.mllp import MLLPLimits, MLLPListener, Peer, Reply
from gateway.edges.store import Store
from gateway.processing import archive_message, now, process_message, process_understood, put_off
from gateway.securing import ListenersTLS
from gateway.security_settings import LimitsSettings
from gateway.wire import hl7_batch
from gateway.workflow.intake import Feed, Receipt, Understood

PER_PEER_MIN = 4
"""Connections that each of several processes allows one address: the system spreads connections by chance."""

_MESSAGE_TYPE = re.compile(r"[A-Z][A-Z0-9]{2}\^[A-Z0-9]{0,3}")
_CONTROL_ID_CHARACTERS_MAX = 199  # as in HL7 v2.8

_log = structlog.get_logger()


class Road(Protocol):
    """Where a listener's messages go. Every receipt is truthful; a positive one is on disk."""

    @property
    def failing(self) -> bool:
        """Whether nothing could be written lately."""

    async def process(self, listener: str, raw: bytes, peer: str, barred: tuple[str, ...] = ()) -> Receipt:
        """One message down the whole road; `barred` are senders that whoever sent it must not say to be."""

    async def refuse(self, listener: str, raw: bytes, refusals: Sequence[Refusal], peer: str) -> Receipt:
        """Archive what is not worked on, and answer it."""

    def put_off(self, listener: str, raw: bytes) -> Receipt:
        """Answer what comes while nothing can be stored, without trying it."""


class RoadToStore:
    """The road of the process that has the store. `feeds` may be changed at any time."""

    def __init__(self, store: Store, feeds: Mapping[str, Feed], wake: Callable[[], None]) -> None:
        """`wake` is called when something may have been put into the outbox."""
        self._store = store
        self._feeds = feeds
        self._wake = wake

    @property
    def failing(self) -> bool:
        """Whether nothing could be written lately."""
        return self._store.counts.failing

    async def process(self, listener: str, raw: bytes, peer: str, barred: tuple[str, ...] = ()) -> Receipt:
        """One message down the whole road; `barred` are senders that whoever sent it must not say to be."""
        receipt = await process_message(self._store, raw, self._feeds[listener], peer, barred=barred)
        self._wake()
        return receipt

    async def process_understood(self, listener: str, raw: bytes, understood: Understood, peer: str) -> Receipt:
        """The rest of the road, for a message that another process has read as this listener would."""
        receipt = await process_understood(self._store, raw, understood, self._feeds[listener], peer)
        self._wake()
        return receipt

    async def refuse(self, listener: str, raw: bytes, refusals: Sequence[Refusal], peer: str) -> Receipt:
        """Archive what is not worked on, and answer it."""
        return await archive_message(self._store, raw, refusals, self._feeds[listener], peer)

    def put_off(self, listener: str, raw: bytes) -> Receipt:
        """Answer what comes while nothing can be stored, without trying it."""
        return put_off(raw, self._feeds[listener])


class Receiving:
    """The HL7 listeners of one process. `tally` is what it counts; it may be exchanged for an empty one at any time."""

    def __init__(
        self,
        listeners: Sequence[HL7Settings],
        road: Road,
        tally: Tally,
        processes: int = 1,
        tls: ListenersTLS | None = None,
    ) -> None:
        """`processes` share the limits of connections, this one among them."""
        self.tally = tally
        self._road = road
        self._flood = Flood()
        self._access = {settings.name: _Access.of(settings) for settings in listeners}
        self._limits = LimitsSettings()
        self._rates = Rates(0)
        self._stopping = asyncio.Event()
        self._started: list[MLLPListener] = []
        self._listeners = [
            MLLPListener(
                settings.name,
                settings.host,
                settings.port if settings.plain else None,
                self._receiver(settings.name),
                self._rejecter(settings.name),
                limits_of(settings, processes),
                observe=self._observe,
                release=settings.mllp_release,
                tls=tls.port(f"hl7 {settings.name}") if tls is not None else None,
            )
            for settings in listeners
        ]
        for each in self._listeners:
            each.deny = self._deny

    def serve(self, settings: Settings) -> None:
        """Go by these settings from now on in who may send what and how often. Connections that are open, which may be
        for months, are ended where they may not be any more."""
        access = self._access | {listener.name: _Access.of(listener) for listener in settings.hl7}
        if access != self._access:
            self._access = access
            for each in self._listeners:
                each.reconsider()
        if settings.limits != self._limits:
            self._limits = settings.limits
            self._rates = Rates(settings.limits.messages_per_s)  # a sender has one connection, so one process

    async def start(
        self, sockets: Sequence[Sequence[socket.socket]] = (), tls_sockets: Sequence[Sequence[socket.socket]] = ()
    ) -> None:
        """Listen on each listener's sockets, or on its addresses. Raises OSError where one is taken."""
        for place, listener in enumerate(self._listeners):
            await listener.start(sockets[place] if sockets else (), tls_sockets[place] if tls_sockets else ())
            self._started.append(listener)

    async def stop(self) -> None:
        """Accept nothing more, finish and answer what is worked on, then close."""
        self._stopping.set()
        await asyncio.gather(*(listener.stop() for listener in self._started))
        self._flood.flush()

    def _observe(self, event: str, /, **fields: Any) -> None:
        self.tally.handshake_failed(event, fields)
        if event not in _OF_STRANGERS or self._flood.lets(event, str(fields.get(_OF_STRANGERS[event], ""))):
            _log.info(event, **fields)

    def _receiver(self, name: str) -> Callable[[bytes, Peer], Awaitable[Reply]]:
        async def receive(frame: bytes, peer: Peer) -> Reply:
            try:
                batch = hl7_batch.split(frame)
            except Refused as refused:
                return _reply(await self._refuse(name, frame, refused.refusals, peer))
            if batch is None:
                return _reply(await self._process(name, frame, peer))
            receipts: list[Receipt] = []
            for message in batch.messages:
                away = bool(receipts) and not _stored(receipts[-1]) and self._road.failing
                receipts.append(self._put_off(name, message) if away else await self._process(name, message, peer))
            _log.info("batch", listener=name, messages=len(receipts), notes=batch.notes)
            answers = hl7_batch.answer(batch, [receipt.answer for receipt in receipts], now())
            return Reply(answers, all(map(_stored, receipts)))

        return receive

    def _rejecter(self, name: str) -> Callable[[bytes, Refusal, Peer], Awaitable[bytes]]:
        async def reject(raw: bytes, refusal: Refusal, peer: Peer) -> bytes:
            return (await self._refuse(name, raw, [refusal], peer)).answer

        return reject

    async def _process(self, listener: str, message: bytes, peer: Peer) -> Receipt:
        if self._rates.per_s:
            await self._hold_back(self._rates.wait_s(peer.host, time.monotonic()))
        bound = self._access[listener].bound  # as it is after the wait
        not_to_be = barred(bound, peer.host, peer.certificate) if bound else ()
        began = time.perf_counter()
        receipt = await self._road.process(listener, message, str(peer), not_to_be)
        if _IMPOSTOR in receipt.kinds:
            self.tally.caller_denied("sender")
            if self._flood.lets("sender_denied", listener):
                _log.warning("sender_denied", listener=listener, peer=str(peer), tls=peer.tls)
        return self._told(receipt, listener, began)

    async def _hold_back(self, seconds: float) -> None:
        """Let a sender that sends too fast wait: meanwhile nothing more is read from it. Not when the listeners stop:
        what came is worked on."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()

    def _deny(self, peer: Peer) -> str:
        """In a word why this peer may not send to its listener."""
        access = self._access[peer.listener]
        if not (access.networks or access.certificates):
            return ""
        denial = strange(access.networks, access.certificates, peer.host, peer.certificate)
        if denial is None:
            return ""
        reason = denial.name.lower()
        self.tally.caller_denied(reason)
        return reason

    async def _refuse(self, listener: str, raw: bytes, refusals: Sequence[Refusal], peer: Peer) -> Receipt:
        began = time.perf_counter()
        return self._told(await self._road.refuse(listener, raw, refusals, str(peer)), listener, began)

    def _put_off(self, listener: str, message: bytes) -> Receipt:
        """What follows, in its batch, a message that could not be stored: trying each would keep its sender waiting."""
        began = time.perf_counter()
        return self._told(self._road.put_off(listener, message), listener, began)

    def _told(self, receipt: Receipt, listener: str, began: float) -> Receipt:
        """The receipt, counted and logged."""
        seconds = time.perf_counter() - began
        self.tally.message_done(listener, receipt.disposition, seconds)
        if not _stored(receipt):
            self.tally.transient += 1
        headed = _MESSAGE_TYPE.fullmatch(receipt.message_type)  # else other segments may have slipped into MSH
        _log.info(
            "message",
            listener=listener,
            type=receipt.message_type if headed else "",
            control_id=receipt.control_id[:_CONTROL_ID_CHARACTERS_MAX] if headed else "",
            outcome=receipt.disposition,
            refusals=list(receipt.kinds),
            ms=round(seconds * 1000, 2),
        )
        return receipt


@dataclass(frozen=True, slots=True)
class _Access:
    """Who may send to one listener, and which senders are bound to where they come from."""

    networks: tuple[Network, ...]
    certificates: tuple[CertificateRule, ...]
    bound: tuple[SenderRule, ...]

    @classmethod
    def of(cls, listener: HL7Settings) -> "_Access":
        """As its settings say."""
        return cls(
            _networks(listener.addresses),
            _rules(listener.certificates),
            tuple(
                SenderRule(each.sender, _networks(each.addresses), _rules(each.certificates))
                for each in listener.bound_senders
            ),
        )


def _networks(said: Sequence[str]) -> tuple[Network, ...]:
    return tuple(map(ip_network, said))


def _rules(said: Sequence[str]) -> tuple[CertificateRule, ...]:
    return tuple(map(certificate_rule, said))


_OF_STRANGERS = {"mllp_caller_denied": "reason", "mllp_connection_refused": "limit", "tls_on_plain_port": "listener"}
"""Events that anybody who reaches the port can bring about, as often as he likes, and the field that tells them apart.
"""

_IMPOSTOR = RefusalKind.NOT_AUTHORISED.value


def limits_of(listener: HL7Settings, processes: int) -> MLLPLimits:
    """The limits of a listener in one of so many processes: they are meant for all of them together."""
    of_all = MLLPLimits()
    return MLLPLimits(
        frame_bytes_max=listener.frame_bytes_max,
        connections_max=-(-of_all.connections_max // processes),
        connections_per_peer_max=max(-(-of_all.connections_per_peer_max // processes), PER_PEER_MIN),
    )


def _reply(receipt: Receipt) -> Reply:
    return Reply([receipt.answer] if receipt.answer else [], _stored(receipt))


def _stored(receipt: Receipt) -> bool:
    """Whether the message is on disk, accepted or refused."""
    return RefusalKind.TRANSIENT.value not in receipt.kinds
