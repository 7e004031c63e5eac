"""What applies to all events of one input: who said it, when, and how its listener wants such things treated."""

from dataclasses import dataclass, field
from datetime import UTC, tzinfo

from gateway.domain.facts import UNSTAMPED, Stamp
from gateway.domain.identifiers import Issuers, Mint
from gateway.workflow.audience import NO_MESSAGE, NOBODY, Audience, MessageSource


@dataclass(frozen=True, slots=True)
class Circumstances:
    """`cause` goes into histories, `site` to new orders, `stamp` says when the input was made and by whom.

    `discontinue_started`: a cancel after the start discontinues the step instead of being refused.
    `cancel_unsaid`: a change that leaves out a step which was ordered before cancels it.
    `merge_linked`: a link of two patients (A24) merges them.
    `audience` is told what a performed step does to an order that comes after it, by the wall clock of `zone`, and
    what the input changes, but for whose input it is (`said_by`).
    """

    cause: str
    mint: Mint = field(repr=False)
    issuers: Issuers = field(default_factory=Issuers, repr=False)
    default_issuer: str = ""
    redirect_merged: bool = True
    site: str = ""
    stamp: Stamp = UNSTAMPED
    discontinue_started: bool = False
    cancel_unsaid: bool = False
    merge_linked: bool = False
    audience: Audience = NOBODY
    zone: tzinfo = UTC
    said_by: MessageSource = NO_MESSAGE
