"""The department of these tests: its devices, the profiles that bend rules for some of them, and what is scheduled.

The profiles are those that `gateway init` writes, where one of them answers the complaint, and a few more.
"""

from datetime import date, datetime
from typing import Any

from gateway.testing import ImagingOrder, Person, invented_person

PROFILES: list[dict[str, Any]] = [
    {"name": "three-at-most", "reason": "hangs beyond three", "answers_max": 3, "when_more": "failure"},
    {"name": "three-and-no-more", "reason": "drops a list that was cut", "answers_max": 3, "when_more": "success"},
    {"name": "own-by-force", "reason": "asks without station", "force": {"ScheduledStationAETitle": "{ae_title}"}},
    {"name": "old-greek", "reason": "reads one set", "character_sets": {"declared": ["ISO_IR 126"]}},
]
DEVICES: list[dict[str, Any]] = [
    {"ae_title": "CT7", "profile": "any-station"},
    {"ae_title": "USOWN", "sees": "own"},
    {"ae_title": "USFORCED", "profile": "own-by-force"},
    {"ae_title": "SMALL", "profile": "three-at-most"},
    {"ae_title": "SMALLER", "profile": "three-and-no-more"},
    {"ae_title": "GONE", "profile": "gone-when-started"},
    {"ae_title": "FILLED", "profile": "hides-incomplete-items"},
    {"ae_title": "LATIN", "profile": "latin-1-only"},
    {"ae_title": "JAPAN", "profile": "japanese-console"},
    {"ae_title": "RUSSIA", "profile": "undeclared-cyrillic"},
    {"ae_title": "GREECE", "profile": "old-greek"},
]


def _person(number: int, name: str) -> Person:
    return Person(f"FIELD{number}", name, date(1970, 1, 2), "F")


def _order(number: int, start: str, station: str, person: Person | None = None, modality: str = "CT") -> ImagingOrder:
    at = datetime.strptime(start, "%Y%m%d %H%M")
    return ImagingOrder(number, person or invented_person(number), at, station, modality)


NIGHT = {
    "before dawn": _order(20, "20260710 0400", "NIGHT1"),
    "just before": _order(21, "20260710 1959", "NIGHT1"),
    "the evening": _order(22, "20260710 2230", "NIGHT1"),
    "past midnight": _order(23, "20260711 0115", "NIGHT1"),
    "just after": _order(24, "20260711 0601", "NIGHT1"),
    "the next evening": _order(25, "20260711 2230", "NIGHT1"),
}
CLOCKS = {  # the two nights of 2026 in which Berlin changes its clocks
    "the last of the day before": _order(30, "20261024 2350", "CLOCKS"),
    "the first of the long day": _order(31, "20261025 0010", "CLOCKS"),
    "in the hour that comes twice": _order(32, "20261025 0230", "CLOCKS"),
    "the last of the long day": _order(33, "20261025 2350", "CLOCKS"),
    "the first of the short day": _order(34, "20260329 0010", "CLOCKS"),
    "the last of the short day": _order(35, "20260329 2350", "CLOCKS"),
}
ROOM = _order(40, "20260705 0930", "ROOM7", modality="US")
OWN = _order(41, "20260705 1000", "USOWN", modality="US")
FORCED = _order(45, "20260705 1100", "USFORCED", modality="US")
MANY = [_order(50 + number, "20260706 0800", "MANY") for number in range(7)]
STARTED = _order(60, "20260707 0800", "PAIR")

SPANISH = _order(70, "20260708 0800", "SCRIPTS", _person(70, "Núñez^Íñigo"))
RUSSIAN = _order(71, "20260708 0810", "SCRIPTS", _person(71, "Громов^Олег"))
GREEK = _order(72, "20260708 0820", "SCRIPTS", _person(72, "Καλογερόπουλος^Στέλιος"))
CHINESE = _order(73, "20260708 0830", "SCRIPTS", _person(73, "Wang^Rong^^^^^L^A~王^镕^^^^^L^I"))
JAPANESE = _order(
    74, "20260708 0840", "SCRIPTS", _person(74, "Takeda^Jirou^^^^^L^A~武田^二郎^^^^^L^I~たけだ^じろう^^^^^L^P")
)
KOREAN = _order(75, "20260708 0850", "SCRIPTS", _person(75, "Park^Minsu^^^^^L^A~박^민수^^^^^L^P"))
CZECH = _order(76, "20260708 0900", "SCRIPTS", _person(76, "Dvořák^Jiří"))
LONG = _order(77, "20260708 0910", "SCRIPTS", _person(77, "Ш" * 40 + "^" + "Ю" * 23))
SHOWN = {
    SPANISH.accession: "Núñez^Íñigo",
    RUSSIAN.accession: "Громов^Олег",
    GREEK.accession: "Καλογερόπουλος^Στέλιος",
    CHINESE.accession: "Wang^Rong=王^镕",
    JAPANESE.accession: "Takeda^Jirou=武田^二郎=たけだ^じろう",
    KOREAN.accession: "Park^Minsu==박^민수",
    CZECH.accession: "Dvořák^Jiří",
    LONG.accession: "Ш" * 40 + "^" + "Ю" * 23,
}
"""The names at station SCRIPTS, all their groups, as DICOM has them."""

BARE = ImagingOrder(80, invented_person(80), datetime(2026, 7, 9, 9, 30), code="MRHEAD", text="MR head")
"""Sent with an order number, a procedure code and a start, and nothing else."""

ORDERS = [
    *NIGHT.values(), *CLOCKS.values(), ROOM, OWN, FORCED, *MANY, STARTED, SPANISH, RUSSIAN, GREEK, CHINESE,
    JAPANESE, KOREAN, CZECH, LONG,
]  # fmt: skip

IMPORTED = "IMPORTED1"
IMPORTED_ITEM = {
    "00080050": {"vr": "SH", "Value": [IMPORTED]},
    "00090010": {"vr": "LO", "Value": ["INVENTED MAKER"]},
    "00091001": {"vr": "LO", "Value": ["Coil 8"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Taken^Over"}]},
    "00100020": {"vr": "LO", "Value": ["FIELD90"]},
    "0020000D": {"vr": "UI", "Value": ["2.25.790"]},
    "00380008": {"vr": "CS", "Value": ["ПРИБЫЛ"]},
    "00400100": {
        "vr": "SQ",
        "Value": [
            {
                "00080060": {"vr": "CS", "Value": ["MR"]},
                "00400001": {"vr": "AE", "Value": ["TAKEN"]},
                "00400002": {"vr": "DA", "Value": ["20260709"]},
                "00400003": {"vr": "TM", "Value": ["1000"]},
                "00400009": {"vr": "SH", "Value": ["S90"]},
            }
        ],
    },
    "00401001": {"vr": "SH", "Value": ["R90"]},
}
"""An item of another server: a private attribute, and Cyrillic letters where no character set counts."""
