"""Addresses of hosts that are named: looked up when they are used, so that DHCP may move a device (PS3.15 Annex F).

The system is asked, by its own rules (hosts file, DNS, IPv6 and IPv4), and does not say how long an answer holds: one
is gone by for `FRESH_S`, and doubted as soon as it leads nowhere. While no name server answers, the last good answer
serves, as RFC 8767 has it. A look-up may hang for half a minute, so each has a thread of its own, and nobody waits for
it longer than is said here.
"""

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

FRESH_S = 60.0
"""How long an answer is gone by without asking again: the system keeps the TTL to itself, and leases are longer."""

STALE_S = 86_400.0
"""How long the last good answer serves while there is no new one; RFC 8767 (section 4) names one to three days."""

AGAIN_S = 10.0
"""After a look-up that failed nobody asks for so long, where a good answer is held: it may take as long to fail."""

WAIT_S = 10.0
"""For an answer where there is none yet. The look-up goes on, and its answer is held."""

WAIT_STALE_S = 2.0
"""For a new answer where an older one will do; RFC 8767 (section 5) has 1.8 s."""

ADDRESSES_MAX = 8
"""Of one host: each of them may take its time to fail."""

LookUp = Callable[[str], Sequence[str]]
"""The addresses of a host, best first. Raises OSError (socket.gaierror is one), or UnicodeError for what is no name."""


def look_up(host: str) -> Sequence[str]:
    """What the system knows, IPv6 and IPv4 in the order of RFC 6724. Raises OSError, UnicodeError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def is_address(host: str) -> bool:
    """Whether it is an address already, with a zone (`fe80::1%eth0`) or without."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Answer:
    """Addresses, the moment they were told, and the one from which on they are asked for again."""

    addresses: tuple[str, ...]
    told_at: float
    ask_from: float


class Hosts:
    """What is known of hosts. Every method may be called in every thread; only `addresses` blocks."""

    def __init__(self, look_up: LookUp = look_up, clock: Callable[[], float] = time.monotonic) -> None:
        self._look_up = look_up
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: dict[str, _Answer] = {}
        self._asking: dict[str, Future[tuple[str, ...]]] = {}

    def addresses(self, host: str) -> tuple[str, ...]:
        """Its addresses, the one that worked last first. Raises OSError where there are none; waits for `WAIT_S` at
        most."""
        known = self._known(host)
        if known:
            return known
        asking, held = self._asked(host)
        try:
            return asking.result(_patience_s(held))
        except OSError as error:  # TimeoutError is one
            return _instead(held, error)

    async def addresses_soon(self, host: str) -> tuple[str, ...]:
        """As `addresses`, off the event loop."""
        known = self._known(host)
        if known:
            return known
        asking, held = self._asked(host)
        waiting = asyncio.wrap_future(asking)
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may come when nobody waits
        await asyncio.wait({waiting}, timeout=_patience_s(held))  # which lets it go on for others
        try:
            if not waiting.done():
                raise TimeoutError
            return waiting.result()
        except OSError as error:
            return _instead(held, error)

    def worked(self, host: str, address: str) -> None:
        """A connection to this address came about: the next one begins with it."""
        with self._lock:
            answer = self._answers.get(host)
            if answer is not None and address in answer.addresses[1:]:
                others = tuple(each for each in answer.addresses if each != address)
                self._answers[host] = replace(answer, addresses=(address, *others))

    def doubt(self, host: str) -> None:
        """Nothing was to be had there, or a connection ended: whoever is next asks again."""
        with self._lock:
            answer = self._answers.get(host)
            if answer is not None:
                self._answers[host] = replace(answer, ask_from=self._clock())

    def doubt_all(self) -> None:
        """Devices may have moved: whoever is next asks again, and goes by what was known while nobody answers."""
        with self._lock:
            now = self._clock()
            self._answers = {host: replace(answer, ask_from=now) for host, answer in self._answers.items()}

    def purge(self) -> None:
        """Forget everything (PS3.15 Annex F: a cache of names can be purged)."""
        with self._lock:
            self._answers.clear()
            self._asking.clear()  # what was asked before is no answer to what is asked from now on

    def _known(self, host: str) -> tuple[str, ...]:
        """What needs no asking; () where somebody must be asked."""
        if is_address(host):
            return (host,)
        with self._lock:
            answer = self._answers.get(host)
        return answer.addresses if answer is not None and self._clock() < answer.ask_from else ()

    def _asked(self, host: str) -> "tuple[Future[tuple[str, ...]], _Answer | None]":
        """The answer that is under way, and the one that serves until then."""
        with self._lock:
            held = self._answers.get(host)
            if held is not None and self._clock() > held.told_at + STALE_S:
                held = None
                del self._answers[host]
            asking = self._asking.get(host)
            if asking is None:
                asking = self._asking[host] = Future()
                asking.set_running_or_notify_cancel()  # whoever gives up waiting must not end it for the others
                threading.Thread(target=self._ask, args=(host, asking), daemon=True, name="look-up").start()
        return asking, held

    def _ask(self, host: str, asking: "Future[tuple[str, ...]]") -> None:
        """In a thread of its own, for however long it takes."""
        failure: OSError | None = None
        found: tuple[str, ...] = ()
        try:
            found = tuple(dict.fromkeys(self._look_up(host)))[:ADDRESSES_MAX]
        except OSError as error:
            failure = error
        except UnicodeError:  # a label that is empty or too long
            failure = socket.gaierror(socket.EAI_NONAME, "no name of a host")
        if not found and failure is None:
            failure = socket.gaierror(socket.EAI_NONAME, "no address")
        at = self._clock()
        with self._lock:
            held = self._answers.get(host)
            if found:
                found = _as_before(found, held)
            if self._asking.get(host) is asking:  # not purged meanwhile
                del self._asking[host]
                if found:
                    self._answers[host] = _Answer(found, at, at + FRESH_S)
                elif held is not None:
                    self._answers[host] = replace(held, ask_from=at + AGAIN_S)
        if failure is None:
            asking.set_result(found)
        else:
            asking.set_exception(failure)


def _patience_s(held: _Answer | None) -> float:
    return WAIT_S if held is None else WAIT_STALE_S


def _instead(held: _Answer | None, error: OSError) -> tuple[str, ...]:
    """What serves where nobody answers. Raises OSError where nothing does."""
    if held is not None:
        return held.addresses
    if isinstance(error, TimeoutError):
        raise socket.gaierror(socket.EAI_AGAIN, "no name server answers") from None
    raise error


def _as_before(found: tuple[str, ...], held: _Answer | None) -> tuple[str, ...]:
    """What was found, the address that was tried first before in front, if it is still one of them."""
    first = held.addresses[0] if held is not None else found[0]
    return (first, *(each for each in found if each != first)) if first in found else found
