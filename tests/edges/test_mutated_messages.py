"""Messages of the corpus, changed at random: whatever comes is answered, is no defect, and is kept once acknowledged.

GATEWAY_MUTATIONS sets how many are sent (default 500), GATEWAY_MUTATION_SEED which.
"""

import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.edges.store import read_only
from gateway.testing import ServiceProcess, free_port, site
from gateway.wire.ack_modes import wanted
from gateway.wire.er7 import parse_header
from gateway.wire.mllp import Frame, Framer, wrap
from gateway.workflow.ports import MessageSearch
from tests.cases.hl7_corpus.model import cases, listeners

MUTATIONS = int(os.environ.get("GATEWAY_MUTATIONS", "500"))
SEED = int(os.environ.get("GATEWAY_MUTATION_SEED", "4"))
MEMORY_KB_MAX = 300_000  # a service that has just started takes a third of it
ANSWER_S = 30.0
FRAME_BYTES_MAX = 16 * 1024 * 1024
ORDERS = 50
"""Numbers given to the cases: few, so that messages meet orders and patients that others have made."""

STRANGE = (
    b"", b'""', b"|", b"^", b"~", b"&", b"\\", b"\\X00\\", b"\\XFF\\", b"\\X0D\\", b"\\.br\\", b"\0", b"\r", b"\n",
    b"\x1b$B", b"\xe9", b"\xff\xfe", "\N{GRINNING FACE}\N{RIGHT-TO-LEFT OVERRIDE}²".encode(), b"A" * 300, b"1" * 5_000,
    b"99991231235959+1400", b"00000000", b"20260230", b"2026", b"19000101000000.9999999-1200", b"-1", b"1e999", b"NaN",
    b"NW", b"CA", b"XO", b"DC", b"ADT^A40", b"ADT^A47", b"ORM^O01", b"OMI^O23", b"SIU^S12", b"ORU^R01", b"T", b"2.8",
    b"2.\xc2\xb2", b"AL", b"NE", b"ER", b"SU", b"UNICODE UTF-8", b"8859/5", b"ASCII~ISO IR87", b"UNICODE UTF-16",
    b"GB 18030-2000", b"1.2.3..4", b"2.25." + b"9" * 80, b'""^""', b'""&""', b"~" * 150, b"^" * 400, b"&&^^~~", b"*?%'",
)  # fmt: skip

Change = Callable[[random.Random, bytes], bytes]


def bits(chance: random.Random, raw: bytes) -> bytes:
    changed = bytearray(raw)
    for _ in range(chance.randint(1, 6)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def anywhere(chance: random.Random, raw: bytes) -> bytes:
    at = chance.randrange(len(raw))
    return raw[:at] + chance.choice(STRANGE) + raw[at + chance.choice((0, 1, 20)) :]


def end(chance: random.Random, raw: bytes) -> bytes:
    return raw[: chance.randrange(len(raw))]


def segments(chance: random.Random, raw: bytes) -> bytes:
    """One is left out, doubled or elsewhere."""
    lines = raw.split(b"\r")
    line = lines.pop(chance.randrange(len(lines)))
    for _ in range(chance.randrange(3)):
        lines.insert(chance.randrange(len(lines) + 1), line)
    return b"\r".join(lines)


def in_field(chance: random.Random, raw: bytes, change: Callable[[bytes], bytes]) -> bytes:
    lines = raw.split(b"\r")
    at = chance.randrange(len(lines))
    fields = lines[at].split(b"|")
    place = chance.randrange(len(fields))
    fields[place] = change(fields[place])
    lines[at] = b"|".join(fields)
    return b"\r".join(lines)


def field(chance: random.Random, raw: bytes) -> bytes:
    return in_field(chance, raw, lambda _: chance.choice(STRANGE))


def component(chance: random.Random, raw: bytes) -> bytes:
    def change(said: bytes) -> bytes:
        parts = said.split(b"^")
        parts[chance.randrange(len(parts))] = chance.choice(STRANGE)
        return b"^".join(parts)

    return in_field(chance, raw, change)


def another_field(chance: random.Random, raw: bytes) -> bytes:
    """One field's value in another's place."""
    other = chance.choice(chance.choice(raw.split(b"\r")).split(b"|"))
    return in_field(chance, raw, lambda _: other)


def repetitions(chance: random.Random, raw: bytes) -> bytes:
    return in_field(chance, raw, lambda said: b"~".join([said] * chance.choice((2, 3, 50, 250))))


def nulls(chance: random.Random, raw: bytes) -> bytes:
    header, *lines = raw.split(b"\r")
    emptied = [
        b"|".join(b'""' if place and said and chance.random() < 0.3 else said for place, said in enumerate(line))
        for line in (line.split(b"|") for line in lines)
    ]
    return b"\r".join([header, *emptied])


def header(chance: random.Random, raw: bytes) -> bytes:
    said, *rest = raw.split(b"\r")
    fields = (said.split(b"|") + [b""] * 20)[:22]
    fields[chance.choice((1, 3, 6, 8, 9, 10, 11, 14, 15, 17))] = chance.choice(STRANGE)
    return b"\r".join([b"|".join(fields), *rest])


CHANGES: tuple[Change, ...] = (
    bits, anywhere, end, segments, segments, field, field, component, component, another_field, repetitions, nulls,
    header, header,
)  # fmt: skip


def mutated(chance: random.Random, raw: bytes) -> bytes:
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        raw = chance.choice(CHANGES)(chance, raw) or b"MSH"
    return raw.translate(None, b"\x0b\x1c")


class Sender:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
        self.framer = Framer(FRAME_BYTES_MAX)
        self.sent = 0

    def answers(self, raw: bytes) -> list[bytes]:
        """What comes before the answer to a message that is always answered."""
        self.sent += 1
        mark = b"AFTER%d" % self.sent
        self.socket.sendall(wrap(raw) + wrap(b"MSH|^~\\&|R|R|G|G|2026||ZZZ^Z99|%s|P|2.5\r" % mark))
        found: list[bytes] = []
        while not (found and mark in found[-1]):
            received = self.socket.recv(65536)
            assert received, "closed without an answer"
            found += [event.data for event in self.framer.feed(received) if isinstance(event, Frame)]
        return found[:-1]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[ServiceProcess, dict[str, int]]]:
    """One gateway with every listener of the corpus, and their ports."""
    ports = {listener["name"]: free_port() for listener in listeners()}
    hl7 = [{**listener, "host": "127.0.0.1", "port": ports[listener["name"]]} for listener in listeners()]
    with ServiceProcess(site(tmp_path, hl7=hl7)) as running:
        yield running, ports


def may_want_none(raw: bytes) -> bool:
    """Whether its sender says in MSH-15 or MSH-16 when it wants an answer."""
    return wanted(parse_header(raw)) is not None


def memory_kb(process: int) -> int:
    status = Path(f"/proc/{process}/status")
    if not status.exists():  # only Linux tells it so
        return 0
    return int(status.read_text().split("VmHWM:")[1].split()[0])


def test_whatever_comes_is_answered_is_no_defect_and_is_kept_once_acknowledged(
    service: tuple[ServiceProcess, dict[str, int]],
) -> None:
    running, ports = service
    chance = random.Random(SEED)
    originals = [(case, said) for case in cases() for said in case.sends if not said.raw]
    acknowledged: set[bytes] = set()
    with ExitStack() as stack:
        senders = {name: Sender(port) for name, port in ports.items()}
        for sender in senders.values():
            stack.callback(sender.socket.close)
        for number in range(MUTATIONS):
            case, said = chance.choice(originals)
            raw = mutated(chance, case.bytes_of(said, str(chance.randrange(20_000, 20_000 + ORDERS))))
            answers = senders[case.listener].answers(raw)
            told = f"message {number} of seed {SEED}, to {case.listener}: {raw[:5_000]!r}"
            assert answers or may_want_none(raw), told
            assert not any(b"tell the gateway's operator" in answer for answer in answers), told
            if len(answers) == 1 and answers[0].startswith(b"MSH") and b"MSA|AA" in answers[0]:
                acknowledged.add(raw)
        assert memory_kb(running.pid) < MEMORY_KB_MAX
        running.kill()
    events = [json.loads(line) for line in running.output.read_text().splitlines() if line.startswith("{")]
    assert [event for event in events if event["level"] != "info" or "failure" in event] == []
    reader = read_only(f"sqlite:///{running.config.with_name('gateway.db')}")
    kept = {stored.record.raw for stored in reader.messages_in_order(MessageSearch(), 3 * MUTATIONS)}
    assert acknowledged
    assert acknowledged <= kept
