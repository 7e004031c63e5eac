"""Whether a directory that was read can be what somebody meant, or is one of which most has vanished.

An empty answer is what an account sees that may no longer read, and what a replica says before it was filled. Taken
for the truth it would turn every scanner away, so a great loss counts only once a person has said so.
"""

from dataclasses import dataclass

from gateway.domain.directory import Directory

LOSS_MIN = 3
"""So many may go at once without a question, however few there are: a room is closed, a pilot is over."""
_NAMED_MAX = 3


@dataclass(frozen=True, slots=True)
class Roll:
    """Who is known: names of devices, as LDAP compares them, and AE titles."""

    devices: frozenset[str] = frozenset()
    ae_titles: frozenset[str] = frozenset()


def roll_of(directory: Directory) -> Roll:
    """Who is known by this directory."""
    return Roll(
        frozenset(device.name.casefold() for device in directory.devices),
        frozenset(ae.ae_title for device in directory.devices for ae in device.aes),
    )


def great_loss(known: Roll, found: Directory) -> str:
    """What is lost, in words, where nothing is left of what was known, or less than half of it; '' elsewhere."""
    there = roll_of(found)
    return _lost("devices", known.devices, there.devices) or _lost("AE titles", known.ae_titles, there.ae_titles)


def _lost(what: str, known: frozenset[str], there: frozenset[str]) -> str:
    if known and not there:
        return f"it has none of the {len(known)} {what} that were there before, and no others"
    lost = sorted(known - there)
    if len(lost) <= LOSS_MIN or 2 * len(lost) <= len(known):
        return ""
    return (
        f"{len(lost)} of the {len(known)} {what} that were there before are gone ({', '.join(lost[:_NAMED_MAX])}, ...)"
    )
