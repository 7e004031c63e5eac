"""The orders that the gateway of the interop tests was sent, by accession number; a busy station's many; names in
scripts.

Nobody here has the name of an `invented_person`: tests add orders of theirs to the same worklist, in any order.
"""

from datetime import date, datetime

from gateway.testing import ImagingOrder, Person

ORDERS = {
    order.accession: order
    for order in (
        ImagingOrder(
            1, Person("PAT100", "Brandt^Jens", date(1980, 1, 2), "M"), datetime(2026, 7, 5, 9, 30), "CT1", "CT"
        ),
        ImagingOrder(
            2, Person("PAT101", "Grünewald^Max", date(1975, 6, 15), "M"), datetime(2026, 7, 5, 18, 30), "CT1", "CT"
        ),
        ImagingOrder(
            3,
            Person(
                "PAT102",
                "Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P",
                date(1990, 12, 31),
                "M",
            ),
            datetime(2026, 7, 6, 7, 0),
            "MR2",
            "MR",
            "MRHEAD",
            "MR head plain",
        ),
        ImagingOrder(
            4,
            Person("PAT103", "Brandstetter^Jana", date(2001, 3, 9), "F"),
            datetime(2026, 7, 8, 8, 0),
            "US1",
            "US",
            "USABD",
            "Ultrasound abdomen",
        ),
    )
}

MANY_STATION = "MANY"
MANY = tuple(
    ImagingOrder(
        1000 + number,
        Person(f"PATM{number:03}", f"Many^{number}", date(1970, 1, 1), "O"),
        datetime(2026, 9, 1, 8, 0),
        MANY_STATION,
    )
    for number in range(120)
)

NAMES_STATION = "NAMES"
LATIN, CYRILLIC, KANJI = (
    ImagingOrder(501, Person("PATN01", "Döring^Käthe", date(1960, 2, 3), "F"), datetime(2026, 9, 2, 8, 0), "NAMES"),
    ImagingOrder(502, Person("PATN02", "Соколова^Вера", date(1961, 2, 3), "F"), datetime(2026, 9, 2, 9, 0), "NAMES"),
    ImagingOrder(
        503,
        Person(
            "PATN03",
            "Suzuki^Hanako^^^^^L^A~鈴木^花子^^^^^L^I~すずき^はなこ^^^^^L^P",
            date(1962, 2, 3),
            "F",
        ),
        datetime(2026, 9, 2, 10, 0),
        "NAMES",
    ),
)
SHOWN = {
    LATIN.accession: "Döring^Käthe",
    CYRILLIC.accession: "Соколова^Вера",
    KANJI.accession: "Suzuki^Hanako=鈴木^花子=すずき^はなこ",
}
"""The name of each as DICOM has it, all its groups."""
