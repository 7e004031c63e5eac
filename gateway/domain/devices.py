"""The devices that may call, how each wants to be treated, and the worklists they may call.

A directory is a snapshot: replaced whole, never edited. A `Profile` bends the rules for one device by name; what it
says is data, and the reason stands beside it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.domain.access import OPEN, Access


class Sees(StrEnum):
    """Which scheduled procedure steps a device is shown.

    All of them, those scheduled to its own AE title, or those scheduled to any device of its group.
    """

    ALL = "all"
    OWN = "own"
    GROUP = "group"


class Leaves(StrEnum):
    """When an item leaves a device's list: as soon as a modality begins on it, or when it is done."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"


class WhenMore(StrEnum):
    """How an answer ends that was cut at `answers_max`: as the failure it is (A700), or as if it were complete."""

    FAILURE = "failure"
    SUCCESS = "success"


class CannotShow(StrEnum):
    """What becomes of a letter that a device's fixed character set does not hold.

    It is written in the letters the set has (`Jose`), replaced by `?`, or the answer switches to another set.
    """

    TRANSLITERATE = "transliterate"
    REPLACE = "replace"
    SWITCH = "switch"


class MPPSAnswers(StrEnum):
    """What follows a positive answer to N-CREATE or N-SET: nothing, or the attributes as they are now held."""

    STATUS = "status"
    DATASET = "dataset"


@dataclass(frozen=True, slots=True)
class CharacterSets:
    """The character sets of a device, as defined terms of Specific Character Set (PS3.3 C.12.1.1.2).

    `declared` are those its conformance statement names, best first. `fixed` are the values of the one Specific
    Character Set that every answer has, whatever was asked. `assumed` is what a query is written in that declares
    none, or declares one that its bytes contradict.
    """

    declared: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    cannot_show: CannotShow = CannotShow.SWITCH
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DateWindow:
    """The days around today that a query shows which names neither date nor patient nor order; both inclusive."""

    days_before: int
    days_after: int


@dataclass(frozen=True, eq=False, slots=True)
class Profile:
    """The rules for one device. Two profiles are the same only if they are one, so that caches can go by them.

    `ignore` are keywords or tags (8 hex digits) whose values do not count for matching; they are returned all the
    same. `force` are keys (keyword, value) asked in place of, or besides, the device's own. `fill` are (keyword,
    value) returned where the key was asked for and the item has no value. Keywords of the step are meant inside the
    Scheduled Procedure Step Sequence.
    """

    name: str = ""
    reason: str = ""
    sees: Sees = Sees.ALL
    ignore: tuple[str, ...] = ()
    force: tuple[tuple[str, str], ...] = ()
    fill: tuple[tuple[str, str], ...] = ()
    answers_max: int = 0
    """0: no limit."""
    when_more: WhenMore = WhenMore.FAILURE
    leaves: Leaves = Leaves.COMPLETED
    character_sets: CharacterSets = CharacterSets()
    date_window: DateWindow | None = None
    empty_values: bool = False
    """Whether a key of two quotation marks asks for items without a value (PS3.4 C.2.2.2.7)."""
    whole_names: bool = False
    """Whether `Doe` finds only names without further components, instead of everyone called Doe."""


PLAIN = Profile()
"""The rules where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Device:
    """A modality as registered. `mpps_strict` refuses what a lenient SCP mends (PS3.4 F.7.2).

    `sites` are the sites whose orders it may see; empty: every site's. One that is not `installed` is known and not
    served.
    """

    ae_title: str
    description: str = ""
    group: str = ""
    sites: frozenset[str] = frozenset()
    mpps_strict: bool = False
    profile: Profile = PLAIN
    mpps_answers: MPPSAnswers = MPPSAnswers.STATUS
    access: Access = OPEN
    installed: bool = True


@dataclass(frozen=True, slots=True)
class CalledWorklist:
    """One worklist of several, chosen by the called AE title. An empty bound does not bound."""

    ae_title: str
    description: str = ""
    sites: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Devices:
    """The registry: known devices by AE title, and whether an unknown AE title is accepted.

    `ask` says that who is refused as unknown is remembered, for a person to approve.
    `worklists` are those that may be called, by AE title; where there are none, any called AE title means the whole
    list.
    """

    known: Mapping[str, Device] = field(default_factory=dict)
    accept_unknown: bool = False
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    worklists: Mapping[str, CalledWorklist] = field(default_factory=dict)
    stations_by_group: Mapping[str, frozenset[str]] = field(default_factory=dict)
    ask: bool = False

    @classmethod
    def of(
        cls,
        devices: Iterable[Device],
        *,
        accept_unknown: bool,
        profiles: Iterable[Profile] = (),
        worklists: Iterable[CalledWorklist] = (),
        ask: bool = False,
    ) -> "Devices":
        """A registry of these devices."""
        known = {device.ae_title: device for device in devices}
        groups: dict[str, set[str]] = {}
        for device in known.values():
            if device.group:
                groups.setdefault(device.group, set()).add(device.ae_title)
        return cls(
            known,
            accept_unknown,
            {profile.name: profile for profile in profiles},
            {worklist.ae_title: worklist for worklist in worklists},
            {group: frozenset(titles) for group, titles in groups.items()},
            ask,
        )

    def device(self, ae_title: str) -> Device | None:
        """The device that calls itself so; None means: not to be served. An accepted unknown one sees everything."""
        known = self.known.get(ae_title)
        return known or (Device(ae_title) if self.accept_unknown else None)

    def worklist(self, ae_title: str) -> CalledWorklist | None:
        """The worklist of this called AE title; None means: there is no such one."""
        if not self.worklists:
            return CalledWorklist(ae_title)
        return self.worklists.get(ae_title)
