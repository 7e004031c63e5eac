"""An archive of any size, straight into a store's file: python -m tests.benchmarks.archive_population FILE COUNT

The messages are what the invented RIS of `gateway.testing` sends, with the keys that the gateway gives them; each order
has the messages of its life, and each patient some orders. They come over five years, most of them accepted. The rows
go past the store's writer: through it a million would take half an hour.
"""

import hashlib
import json
import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from gateway.edges.store import Store
from gateway.testing import ImagingOrder, Person, bare_orm, omi, rad4_orm, register, update_patient

FIRST = datetime(2021, 11, 23, tzinfo=UTC)
LAST = datetime(2026, 11, 23, tzinfo=UTC)
MESSAGES_PER_ORDER, ORDERS_PER_PATIENT = 4, 5
MAPPING = "ihe-swf@000000000000"
MAPPING_CONTENT = "{}"
CHUNK = 10_000
_MOMENT = "%Y%m%d%H%M%S"
_AHEAD = timedelta(days=1)  # an exam is scheduled for the next day

_PERSON = Person("PAT9999999", "Template^Tina", date(1899, 1, 30), "O")
_ORDER = ImagingOrder(999_999_999, _PERSON, datetime(1999, 12, 31, 23, 59, 58), "TEMPLATE")
LISTENERS = ("ris", "ris", "ris", "his", "teleradiology")
_MESSAGE_INSERT = (
    "INSERT INTO messages (id, received_at, listener, peer, sender, control_id, message_type, digest, raw, disposition,"
    " reasons, answer, mapping, search_keys, replay_of, direction, made_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)


def _templates() -> list[tuple[str, list[bytes | int]]]:
    """Each kind of message as its constant parts, and between them the place of what is put in."""
    drafts = {
        "OMI^O23": omi(_ORDER),
        "ORM^O01": rad4_orm(_ORDER),
        "ORM^O01 bare": bare_orm(_ORDER),
        "ADT^A04": register(_PERSON),
        "ADT^A08": update_patient(_PERSON),
    }
    texts = [
        "CONTROLID", _PERSON.patient_id, _PERSON.name, _ORDER.placer, _ORDER.filler, _ORDER.accession,
        _ORDER.study_instance_uid, _ORDER.sps_id, _ORDER.requested_procedure_id, f"{FIRST:{_MOMENT}}",
        f"{_ORDER.start:{_MOMENT}}",
    ]  # fmt: skip
    made = []
    for name, draft in drafts.items():
        parts: list[bytes | int] = [draft.message("CONTROLID", FIRST)]
        for place, text in enumerate(texts):
            split: list[bytes | int] = []
            for part in parts:
                if isinstance(part, int):
                    split.append(part)
                    continue
                first, *rest = part.split(text.encode())
                split.append(first)
                for piece in rest:
                    split += [place, piece]
            parts = split
        made.append((name.split()[0], parts))
    return made


_ANSWER = (
    b"MSH|^~\\&|GATEWAY|HOSPITAL|RIS|HOSPITAL|20261123073000+0000||ACK^O23^ACK|G%s|P|2.5.1\rMSA|AA|%s\r"
    b"NTE|1|L|ordered: 1 step\r"
)


def _rows(count: int, seed: int) -> Iterator[tuple[tuple[object, ...], list[tuple[str, int, str]]]]:
    """The rows of the messages, each with those of its keys."""
    chance = random.Random(seed)
    templates = _templates()
    interval = (LAST - FIRST) / max(count, 1)
    for number in range(1, count + 1):
        order = number // MESSAGES_PER_ORDER + 1
        patient = order * 7919 % (count // (MESSAGES_PER_ORDER * ORDERS_PER_PATIENT) + 1) + 1
        message_type, parts = templates[chance.choices(range(5), (40, 30, 10, 10, 10))[0]]
        about_order = message_type[0] == "O"
        control = f"MSG{number:09}"
        received = FIRST + number * interval
        said = (
            control, f"PAT{patient:07}", f"Sample{patient}^Person", f"P{order:09}", f"F{order:09}", f"A{order:09}",
            f"2.25.{order}", f"S{order:09}", f"R{order:09}", f"{received:{_MOMENT}}", f"{received + _AHEAD:{_MOMENT}}",
        )  # fmt: skip
        encoded = [text.encode() for text in said]
        raw = b"".join(encoded[part] if isinstance(part, int) else part for part in parts)
        raw += b"NTE|1|L|" + b"clinical information as it was typed " * 8 + b"\r"
        roll = chance.random()
        outgoing = roll > 0.95
        disposition, reasons = "accepted", ""
        if outgoing:
            disposition = "sent"
        elif roll < 0.01:
            disposition, reasons = "refused", "OBR-4.1: no procedure has the code NOSUCH; add it to procedures.csv"
        elif roll < 0.011:
            disposition, reasons = "unreadable", "MSH-2: the encoding characters are missing"
        elif roll < 0.02:
            disposition, reasons = "ignored", f"{message_type} is ignored here"
        keys = [("patient", said[1]), ("#patient", str(patient))]
        if about_order:
            keys += [("placer", said[3]), ("filler", said[4]), ("accession", said[5]), ("study", f"2.25.{order}"),
                     ("#order", str(order))]  # fmt: skip
        at = received.isoformat(timespec="microseconds")
        row = (
            number, at, "pacs" if outgoing else LISTENERS[order % 5], "192.0.2.7:40000", "RIS|HOSPITAL", control,
            message_type, hashlib.sha256(raw).digest(), raw, disposition, reasons,
            _ANSWER % (encoded[0], encoded[0]), MAPPING, json.dumps(keys), None, "out" if outgoing else "in", at,
        )  # fmt: skip
        yield row, [(value, number, kind) for kind, value in keys]


def fill(path: Path, count: int, seed: int = 1) -> None:
    """Make a store at `path`, which is not there yet, with so many archived messages."""
    Store(f"sqlite:///{path}").close()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous=OFF")  # a file that is made again, if need be
        database.execute("PRAGMA journal_mode=OFF")
        database.execute("PRAGMA temp_store=FILE")
        database.execute("PRAGMA cache_size=-262144")
        indexes = database.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'messages'"
        ).fetchall()
        for name, _ in indexes:
            database.execute(f"DROP INDEX {name}")
        database.execute("CREATE TEMP TABLE keys (value, message_id, kind)")
        database.execute("BEGIN")
        database.execute(
            "INSERT OR IGNORE INTO mapping_versions VALUES (?, ?, ?)", (MAPPING, MAPPING_CONTENT, FIRST.isoformat())
        )
        rows: list[tuple[object, ...]] = []
        keys: list[tuple[str, int, str]] = []
        for row, its_keys in _rows(count, seed):
            rows.append(row)
            keys += its_keys
            if len(rows) == CHUNK:
                database.executemany(_MESSAGE_INSERT, rows)
                database.executemany("INSERT INTO temp.keys VALUES (?,?,?)", keys)
                rows, keys = [], []
        database.executemany(_MESSAGE_INSERT, rows)
        database.executemany("INSERT INTO temp.keys VALUES (?,?,?)", keys)
        database.execute(
            "INSERT INTO message_keys SELECT value, message_id, kind FROM temp.keys ORDER BY value, message_id, kind"
        )
        for _, sql in indexes:
            database.execute(sql)
        database.execute("COMMIT")
        database.execute("PRAGMA journal_mode=WAL")


if __name__ == "__main__":
    began = time.perf_counter()
    fill(Path(sys.argv[1]), int(sys.argv[2]))
    print(f"{sys.argv[2]} messages, {Path(sys.argv[1]).stat().st_size >> 20} MiB, {time.perf_counter() - began:.0f} s")
