"""What one caller may see of the worklist, whatever it asks: a view, which narrows, decides, and can say why.

Sites and worklists keep departments apart; groups, own station, status and the date window keep lists short. The
matcher knows nothing of this: an item is answered if the view admits it and the query matches it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta

from gateway.domain.attributes import text, values
from gateway.domain.devices import CalledWorklist, Device, Devices, Leaves, Sees
from gateway.domain.matching import Narrowing
from gateway.domain.worklist import LISTED, SPSStatus, WorklistItem, start_of

_EVER = ("", "")


@dataclass(frozen=True, slots=True)
class View:
    """The bounds of one caller on one called worklist on one day. None is no bound; an empty set admits nothing."""

    statuses: frozenset[SPSStatus] = LISTED
    sites: frozenset[str] | None = None
    stations: frozenset[str] | None = None
    modalities: frozenset[str] | None = None
    days: tuple[str, str] = _EVER
    """First and last day (YYYYMMDD) shown to a query that names neither a start date nor a patient or order."""

    def narrow(self, narrowing: Narrowing) -> Narrowing:
        """The narrowing within this view, for the store: a superset of what `admits` lets through."""
        stations = narrowing.station_ae_titles
        if self.stations is not None and not stations:
            # Where the key names stations already, a step may be scheduled to one of those and to one of ours.
            stations = self.stations
        narrowed = replace(
            narrowing,
            statuses=narrowing.statuses & self.statuses,
            station_ae_titles=stations,
            sites=self.sites if self.sites is not None else narrowing.sites,
        )
        if self.modalities is not None and len(self.modalities) == 1 and not narrowing.modality:
            narrowed = replace(narrowed, modality=next(iter(self.modalities)))
        if self._windowed(narrowing):
            narrowed = replace(narrowed, start_from=f"{self.days[0]}000000", start_to=f"{self.days[1]}999999")
        return narrowed

    def admits(self, item: WorklistItem, asked: Narrowing) -> bool:
        """Whether the item may be shown to a query with these bounds."""
        if item.status not in self.statuses:
            return False
        if self.sites is not None and item.site not in self.sites:
            return False
        if self.stations is not None and self.stations.isdisjoint(values(item.step, "ScheduledStationAETitle")):
            return False
        if self.modalities is not None and text(item.step, "Modality") not in self.modalities:
            return False
        return not self._windowed(asked) or self.days[0] <= start_of(item.step)[:8] <= self.days[1]

    def reasons(self, item: WorklistItem, asked: Narrowing) -> tuple[str, ...]:
        """Why the item is not shown, one sentence each; empty where it is."""
        found = []
        if item.status not in self.statuses:
            shown = _listed(status.value for status in self.statuses)
            found.append(f"its status is {item.status}, and this device is shown {shown}")
        if self.sites is not None and item.site not in self.sites:
            of = f"of site {item.site}" if item.site else "of no site"
            found.append(f"it is an order {of}, and this caller sees {_listed(self.sites)}")
        stations = values(item.step, "ScheduledStationAETitle")
        if self.stations is not None and self.stations.isdisjoint(stations):
            scheduled = f"to {_listed(stations)}" if stations else "to no station"
            found.append(f"it is scheduled {scheduled}, and this caller sees the steps of {_listed(self.stations)}")
        modality = text(item.step, "Modality")
        if self.modalities is not None and modality not in self.modalities:
            found.append(f"its modality is {modality or 'not known'}, and this worklist has {_listed(self.modalities)}")
        day = start_of(item.step)[:8]
        if self._windowed(asked) and not self.days[0] <= day <= self.days[1]:
            shown = f"{self.days[0]} to {self.days[1]}"
            found.append(f"it is scheduled for {day or 'no day'}; without a date the device is shown {shown}")
        return tuple(found)

    def _windowed(self, asked: Narrowing) -> bool:
        return self.days != _EVER and not asked.specific


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def view_of(devices: Devices, device: Device, worklist: CalledWorklist, today: date) -> View:
    """What this device may see today of the worklist it called."""
    profile = device.profile
    sites = [frozenset(bound) for bound in (device.sites, worklist.sites) if bound]
    stations: list[frozenset[str]] = []
    if profile.sees is Sees.OWN:
        stations.append(frozenset({device.ae_title}))
    elif profile.sees is Sees.GROUP:
        stations.append(devices.stations_by_group.get(device.group, frozenset()) | {device.ae_title})
    if worklist.groups:
        stations.append(frozenset().union(*(devices.stations_by_group.get(group, ()) for group in worklist.groups)))
    window = profile.date_window
    return View(
        statuses=LISTED - {SPSStatus.STARTED} if profile.leaves is Leaves.IN_PROGRESS else LISTED,
        sites=frozenset.intersection(*sites) if sites else None,
        stations=frozenset.intersection(*stations) if stations else None,
        modalities=worklist.modalities or None,
        days=(_day(today, -window.days_before), _day(today, window.days_after)) if window else _EVER,
    )


def _day(today: date, days: int) -> str:
    return (today + timedelta(days=days)).strftime("%Y%m%d")
