"""What is remembered of user identities: wrong passcodes by address, assertions that were used, and files as read last.

All of it is bounded, asked from several threads at once, and gone with the process.
"""

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

TRIES_MAX = 5
TRY_AGAIN_AFTER_S = 30.0
"""Wrong passcodes of one address before it has to wait, and after how long it has one more try: 2,880 guesses a day."""

NETWORK_TRIES_MAX = 50
NETWORK_TRY_AGAIN_AFTER_S = 3.0
"""The same of all addresses in one IPv6 network of 64 bits. One machine there has as many addresses as it likes, and a
whole hospital's machines may be there too: so it is bounded, and far above what one address may."""

ADDRESSES_MAX = 4_096
"""Addresses, and networks, whose wrong passcodes are remembered; then the one that failed longest ago is forgotten."""

ASSERTIONS_MAX = 20_000
"""Assertions that are remembered until they expire. Beyond it no other is taken: forgetting would let one in twice."""


class FailedTries:
    """Lets each address try passcodes as often as it is right, and seldom once it was wrong."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that only grow."""
        self._lock = threading.Lock()
        self._addresses = _Tries(TRIES_MAX, TRY_AGAIN_AFTER_S, clock)
        self._networks = _Tries(NETWORK_TRIES_MAX, NETWORK_TRY_AGAIN_AFTER_S, clock)

    def __len__(self) -> int:
        return len(self._addresses) + len(self._networks)

    def begin(self, address: str) -> bool:
        """Whether this address may try now; the try counts as wrong until `was_right`."""
        with self._lock:
            counts = self._counts(address)
            if any(tries.are_used_up(key) for tries, key in counts):
                return False
            for tries, key in counts:
                tries.add(key)
        return True

    def was_right(self, address: str) -> None:
        """The try that began last was right, and counts no more."""
        with self._lock:
            for tries, key in self._counts(address):
                tries.take_back(key)

    def _counts(self, address: str) -> "list[tuple[_Tries, str]]":
        """Where a try of this address counts: for itself, and with IPv6 for its network of 64 bits too."""
        try:
            given = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return [(self._addresses, address)]
        if isinstance(given, ipaddress.IPv4Address):
            return [(self._addresses, str(given))]
        if given.ipv4_mapped is not None:
            return [(self._addresses, str(given.ipv4_mapped))]
        network = ipaddress.ip_network((given, 64), strict=False)
        return [(self._addresses, str(given)), (self._networks, str(network))]


class _Tries:
    """Tries that failed, by who made them. For one thread at a time."""

    def __init__(self, most: int, again_after_s: float, clock: Callable[[], float]) -> None:
        self._most, self._again_after_s, self._clock = most, again_after_s, clock
        self._failed: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tries used, and when

    def __len__(self) -> int:
        return len(self._failed)

    def are_used_up(self, key: str) -> bool:
        return self._used(key) > self._most - 1

    def add(self, key: str) -> None:
        self._failed[key] = (self._used(key) + 1, self._clock())
        self._failed.move_to_end(key)
        if len(self._failed) > ADDRESSES_MAX:
            self._failed.popitem(last=False)

    def take_back(self, key: str) -> None:
        used = self._used(key) - 1
        if used > 0:
            self._failed[key] = (used, self._clock())
        else:
            self._failed.pop(key, None)

    def _used(self, key: str) -> float:
        used, since = self._failed.get(key, (0.0, 0.0))
        return max(0.0, used - (self._clock() - since) / self._again_after_s)


class UsedOnce:
    """Assertions that have been used, each until it expires by itself."""

    def __init__(self, maximum: int = ASSERTIONS_MAX) -> None:
        self._max = maximum
        self._lock = threading.Lock()
        self._until: dict[tuple[str, str], float] = {}

    def use(self, issuer: str, number: str, until: float, now: float) -> str:
        """Use it now: "", or why it may not be used. Times in seconds of the epoch."""
        with self._lock:
            if self._until.get((issuer, number), 0.0) > now:
                return "the assertion has been used before: ask its issuer for a new one"
            if len(self._until) >= self._max:
                self._until = {used: ends for used, ends in self._until.items() if ends > now}
            if len(self._until) >= self._max:
                return (
                    "too many assertions that were used have not expired yet: their issuer should let them live shorter"
                )
            self._until[issuer, number] = until
        return ""


@dataclass(frozen=True, slots=True)
class IdentityMemory:
    """What outlives a change of settings: a reload gives nobody new tries, and lets no assertion be used again."""

    tries: FailedTries = field(default_factory=FailedTries)
    used: UsedOnce = field(default_factory=UsedOnce)


_Content = TypeVar("_Content")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that cannot be used now; `words` say why, and never what stands in it."""

    path: Path
    words: str


class WatchedFile(Generic[_Content]):
    """What a file says, read again when the file changes. While it cannot be read, what it said last holds."""

    def __init__(
        self, path: Path, read: Callable[[Path], _Content], nothing: _Content, tell: Callable[[Unreadable], None]
    ) -> None:
        """`read` raises OSError or ValueError with words; `nothing` holds before anything could be read; `tell` is told
        of each change that cannot be read."""
        self.path = path
        self._read, self._tell = read, tell
        self._lock = threading.Lock()
        self._content = nothing
        self._seen: object = None

    def content(self) -> _Content:
        """What it says now."""
        with self._lock:
            try:
                state = self.path.stat()
                seen: object = (state.st_mtime_ns, state.st_size, state.st_ino)
            except OSError as error:
                seen = error.errno
            if seen != self._seen:
                self._seen = seen
                self._load()
            return self._content

    def _load(self) -> None:
        try:
            self._content = self._read(self.path)
        except OSError as error:
            self._tell(Unreadable(self.path, error.strerror or type(error).__name__))
        except ValueError as error:
            self._tell(Unreadable(self.path, str(error)))
