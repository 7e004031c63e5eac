"""How often one peer may do something: a bucket of tokens each, refilled by time, in bounded memory.

Pure: the caller says what time it is, in seconds of any clock that only goes forward.
"""

from collections import OrderedDict

PEERS_MAX = 4_096
"""Peers whose buckets are kept, some 300 KB. The one that was quiet for longest is forgotten first, and its bucket is
then full again: only a peer with ever new names gains by that, and each of its names is let in only once known."""

BURST_MIN = 5
"""At once, also where less than one a second is allowed: a device that starts asks several times in a row."""

BURST_S = 2.0
"""Seconds' worth of what is allowed that may come at once."""


class Rates:
    """The buckets of all peers for one kind of thing. `per_s` 0 lets everything through."""

    def __init__(self, per_s: float, peers_max: int = PEERS_MAX) -> None:
        self.per_s = per_s
        self.burst = max(BURST_MIN, per_s * BURST_S)
        self._peers_max = peers_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when that was so

    def __len__(self) -> int:
        return len(self._buckets)

    def allows(self, peer: str, now: float) -> bool:
        """Take a token for this peer if there is one. A peer that keeps asking in vain does not fall behind by it."""
        if not self.per_s:
            return True
        tokens = self._tokens(peer, now)
        allowed = tokens >= 1
        self._keep(peer, tokens - allowed, now)
        return allowed

    def wait_s(self, peer: str, now: float) -> float:
        """Take a token in any case; for how many seconds this peer has to wait until it may use it."""
        if not self.per_s:
            return 0.0
        tokens = self._tokens(peer, now) - 1
        self._keep(peer, tokens, now)
        return max(0.0, -tokens / self.per_s)

    def _tokens(self, peer: str, now: float) -> float:
        held, at = self._buckets.get(peer, (self.burst, now))
        return min(self.burst, held + max(0.0, now - at) * self.per_s)

    def _keep(self, peer: str, tokens: float, now: float) -> None:
        self._buckets[peer] = (tokens, now)
        self._buckets.move_to_end(peer)
        if len(self._buckets) > self._peers_max:
            self._buckets.popitem(last=False)
