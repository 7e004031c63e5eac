"""Who knocked and was not let in, so that a person can approve a new device and see a stolen AE title.

What may live here: the record, how two of them become one, and how many are kept. No I/O.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

KNOCKS_MAX = 1_000
"""Of all peers together; those that knocked longest ago go. More than a hospital has devices."""

KNOCKS_PER_ADDRESS_MAX = 100
"""From one address, so that a peer with ever new AE titles drives only its own knocks out."""

_NAME_CHARACTERS_MAX = 256
"""Of a certificate's common name, and of whatever else a peer chooses."""


@dataclass(frozen=True, slots=True)
class Knock:
    """An AE title that was not let in from an address with a certificate, `times` times between `first_at` and
    `last_at`.

    `reason` is the name of the `Denial`, in lower case, of the last time; so is everything else of the last time.
    `fingerprint` is SHA-256 of the certificate it showed, '' for none: whoever shows another one is kept apart.
    """

    ae_title: str
    address: str
    called_ae_title: str
    reason: str
    first_at: datetime
    last_at: datetime
    implementation_version: str = ""
    tls: bool = False
    fingerprint: str = ""
    common_name: str = ""
    times: int = 1

    @property
    def who(self) -> tuple[str, str, str]:
        """What tells it from others."""
        return self.ae_title, self.address, self.fingerprint


def within_bounds(knock: Knock) -> Knock:
    """The knock as it is kept: what a peer chooses is cut."""
    return replace(
        knock,
        implementation_version=knock.implementation_version[:_NAME_CHARACTERS_MAX],
        common_name=knock.common_name[:_NAME_CHARACTERS_MAX],
    )


class Knocks:
    """Knocks that wait to be kept, one for each AE title, address and certificate; bounded, and the oldest goes."""

    def __init__(self, most: int = KNOCKS_MAX) -> None:
        self._most = most
        self._waiting: dict[tuple[str, str, str], Knock] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, knock: Knock) -> None:
        """One more, or one more time."""
        before = self._waiting.pop(knock.who, None)
        self._waiting[knock.who] = merged(before, within_bounds(knock))
        if len(self._waiting) > self._most:
            del self._waiting[next(iter(self._waiting))]

    def extend(self, knocks: Iterable[Knock]) -> None:
        """All of these."""
        for knock in knocks:
            self.add(knock)

    def take(self) -> tuple[Knock, ...]:
        """All that wait, and none waits any more."""
        taken = tuple(self._waiting.values())
        self._waiting.clear()
        return taken


def merged(before: Knock | None, knock: Knock) -> Knock:
    """Both as one: what is said last counts, and the times are added."""
    if before is None:
        return knock
    newest = knock if knock.last_at >= before.last_at else before
    return replace(newest, first_at=min(before.first_at, knock.first_at), times=before.times + knock.times)
