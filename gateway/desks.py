"""From the settings to the reconciliation desk, and the timed rule for devices that never report."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from gateway.config import Site
from gateway.domain.identifiers import Mint
from gateway.domain.worklist import LISTED, start_of
from gateway.edges.desk import Desk, Place
from gateway.edges.store import Store, StoreUnit
from gateway.edges.store_reader import StoreReader
from gateway.outgoing import audience_of, described
from gateway.workflow.audience import Audience
from gateway.workflow.linking import PatientIssuers
from gateway.workflow.ports import OverdueStep
from gateway.workflow.second_source import assume_completed

ASSUMED_BATCH = 100
"""Steps completed by one job: others are written between two of them."""

OVERDUE_PAGE = 1_000
"""Overdue steps looked at together."""


def desk_of(site: Site, mint: Mint, audience: Audience | None = None) -> Desk:
    """The desk of a site; `audience` where it is known already."""
    return Desk(
        mint,
        audience_of(site) if audience is None else audience,
        site.zone,
        PatientIssuers(site.issuers, site.default_issuer),
        timedelta(hours=site.settings.performed.overdue_after_h),
        timedelta(hours=site.settings.performed.unfinished_after_h),
        places_of(site),
    )


def places_of(site: Site) -> tuple[Place, ...]:
    """The destinations of a site, for people."""
    return tuple(Place(each.name, described(each), each.whereabouts) for each in site.settings.destinations)


def assume_overdue_completed(site: Site, store: Store, reader: StoreReader, audience: Audience, at: datetime) -> int:
    """The timed rule: what the stations named for it should have begun so long ago is done. Returns how many steps.

    Blocks until it is on disk. `reader` is the caller's own. Raises StoreError.
    """
    rule = site.settings.performed.assume_completed
    if not rule.after_min:
        return 0
    before = f"{site.wall_clock(at) - timedelta(minutes=rule.after_min):%Y%m%d%H%M%S}"
    due = _due(reader, before, frozenset(rule.stations))
    done = 0
    for first in range(0, len(due), ASSUMED_BATCH):
        steps = due[first : first + ASSUMED_BATCH]
        complete = partial(_complete, steps, before, at, audience, site)
        done += store.write(complete).result()
    return done


def _due(reader: StoreReader, before: str, stations: frozenset[str]) -> list[int]:
    """Steps that nobody performs and that are planned at these stations only: at others somebody may report yet."""
    due: list[int] = []
    page: Sequence[OverdueStep] = ()
    while page := reader.overdue_steps(before, OVERDUE_PAGE, page[-1].step.step_id if page else 0):
        due += [each.step.step_id for each in page if each.stations and stations.issuperset(each.stations)]
    return due


def _complete(
    step_ids: Sequence[int], before: str, at: datetime, audience: Audience, site: Site, unit: StoreUnit
) -> int:
    # An order may have moved or cancelled some since they were found.
    due = [item.step_id for item in unit.items(step_ids) if item.status in LISTED and start_of(item.step) < before]
    after_min = site.settings.performed.assume_completed.after_min
    cause = f"taken as completed {after_min} minutes after its start: its station never reports"
    return len(assume_completed(unit, unit.steps(due), at, cause, audience, site.zone).changes)
