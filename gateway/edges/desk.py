"""The reconciliation desk, for the command line and the HTTP API: what it goes by, and how people name things.

What is decided there is `workflow.reconcile`'s; here is who decides it, and the way from what a person typed to the
one performed or scheduled step that is meant. Where it could be two, both are named and nothing is done.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

from gateway.domain.attributes import text
from gateway.domain.facts import Stamp
from gateway.domain.identifiers import Mint
from gateway.domain.performed import Attention
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.worklist import WorklistItem
from gateway.edges.store_reader import StoreReader
from gateway.edges.stored_values import utc_text
from gateway.workflow.audience import Audience
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.linking import PatientIssuers
from gateway.workflow.outbox import Backlog
from gateway.workflow.ports import ItemKey
from gateway.workflow.reconcile import By

ACTOR_CHARACTERS_MAX = 64
"""Longest name of who decides: an account's or an address. It goes into histories."""

NAMED_MAX = 5
"""Candidates named where what was typed fits several."""

TO_BE_LOOKED_AT = frozenset(Attention) - {Attention.NONE, Attention.SET_ASIDE}
"""What nobody has decided yet."""

UNLINKED = TO_BE_LOOKED_AT - {Attention.ANOTHER_PATIENT}
"""What is not linked to all that it was done for."""


@dataclass(frozen=True, slots=True)
class Place:
    """A configured destination: its name, what it gets and by which protocol, and its address."""

    name: str
    gets: str
    address: str


@dataclass(frozen=True, slots=True)
class Desk:
    """What a site's desk goes by: who is told, whose clock and issuers, how keys are made, when something is late."""

    mint: Mint = field(repr=False)
    audience: Audience = field(repr=False)
    zone: tzinfo
    issuers: PatientIssuers = field(repr=False)
    overdue_after: timedelta
    unfinished_after: timedelta
    places: tuple[Place, ...] = ()

    def by(self, actor: str, at: datetime, note: str = "") -> By:
        """Somebody who decides now."""
        return By(actor_named(actor), at, self.audience, self.zone, self.issuers, note)

    def circumstances(self, by: By) -> Circumstances:
        """Those of an order that is made at the desk."""
        return Circumstances(
            f"made by {by.actor}", self.mint, self.issuers.registry, self.issuers.default,
            stamp=Stamp(utc_text(by.at), by.actor), audience=self.audience, zone=self.zone,
        )  # fmt: skip

    def overdue_before(self, now: datetime) -> str:
        """The start (14 digits) before which a step that nobody performs is overdue."""
        return f"{(now - self.overdue_after).astimezone(self.zone):%Y%m%d%H%M%S}"

    def backlogs(self, queues: Iterable[Backlog]) -> Sequence[Backlog]:
        """What waits, by destination: also of those that were never told anything, or are not configured any more."""
        return all_backlogs(queues, self.places)


def actor_named(said: str) -> str:
    """Who decides, as logs and histories have it."""
    named = "".join(sign for sign in said if sign.isprintable()).strip()[:ACTOR_CHARACTERS_MAX]
    return named or "nobody named"


def all_backlogs(queues: Iterable[Backlog], places: Iterable[Place]) -> Sequence[Backlog]:
    """What waits, by destination, with a row for those configured ones that were never told anything."""
    held = {backlog.destination: backlog for backlog in queues}
    never = (Backlog(place.name, 0, 0, None) for place in places if place.name not in held)
    return sorted((*held.values(), *never), key=lambda backlog: backlog.destination)


def performed_named(reader: StoreReader, said: str) -> str:
    """The SOP Instance UID of the one performed step that is meant: the whole UID or its end. Raises Refused."""
    if reader.performed_step(said) is not None:
        return said
    found = reader.performed_uids_ending(said.lstrip("…").removeprefix("..."), NAMED_MAX)
    if not found:
        raise Refused(Refusal(
            RefusalKind.NO_SUCH_INSTANCE, "", f"no performed step's SOP Instance UID is or ends with {said}",
            "see `gateway performed list`",
        ))  # fmt: skip
    if len(found) > 1:
        named = ", ".join(found)
        raise _ambiguous(f"several performed steps end with {said}: {named}", "write more of the UID")
    return found[0]


def scheduled_named(reader: StoreReader, steps: Iterable[str | int] = (), accession: str = "") -> tuple[int, ...]:
    """The numbers of the scheduled steps that are meant. Raises Refused.

    `steps` are SPS IDs, or numbers of the store's own as 12 or `#12`; an accession number means its only step.
    """
    numbers = [each if isinstance(each, int) else _numbered(reader, each.strip()) for each in steps]
    if accession:
        numbers.append(_only(reader.items_by(ItemKey.ACCESSION, accession), f"accession number {accession}"))
    return tuple(dict.fromkeys(numbers))


def _numbered(reader: StoreReader, said: str) -> int:
    if said.startswith("#") and said[1:].isdecimal():
        return int(said[1:])
    return _only(reader.items_by(ItemKey.STEP, said), f"scheduled procedure step ID {said}")


def _only(found: Sequence[WorklistItem], key: str) -> int:
    if not found:
        raise Refused(Refusal(
            RefusalKind.UNKNOWN_KEY, "", f"no scheduled step has the {key}", "see `gateway worklist list --all`"
        ))  # fmt: skip
    if len(found) > 1:
        named = "; ".join(
            f"#{item.step_id} {text(item.step, 'ScheduledProcedureStepID')} "
            f"{text(item.step, 'ScheduledProcedureStepDescription')}, {item.status}"
            for item in found[:NAMED_MAX]
        )
        raise _ambiguous(f"several scheduled steps have the {key}: {named}", "name one by its number, as #12")
    return found[0].step_id


def _ambiguous(said: str, hint: str) -> Refused:
    return Refused(Refusal(RefusalKind.CONFLICT, "", said, hint))
