"""What support needs first: the query as the console sent it, and a way to ask it again."""

import subprocess
import sys
import time
from collections.abc import Callable

from consoles import ACCESSION, DAY, Ask, key, of_station
from field_department import MANY

from gateway.edges.store import read_only
from gateway.testing import ServiceProcess
from gateway.workflow.ports import StoredQuery

KEPT_S_MAX = 20


def kept(service: ServiceProcess, calling: str, is_it: Callable[[StoredQuery], bool]) -> StoredQuery:
    """The newest such query; queries are kept within about a second, and another process cannot be awaited."""
    reader = read_only(f"sqlite:///{service.config.with_name('gateway.db')}")
    deadline = time.monotonic() + KEPT_S_MAX
    while not (found := [each for each in reader.queries(calling) if is_it(each)]):
        assert time.monotonic() < deadline, service.output.read_text(encoding="utf-8")[-2_000:]
        time.sleep(0.05)
    return found[0]


def gateway(service: ServiceProcess, *words: str) -> str:
    command = [sys.executable, "-m", "gateway", "worklist", *words, "--config", str(service.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_query_is_kept_byte_by_byte_with_its_outcome(service: ServiceProcess, ask: Ask) -> None:
    odd = key(0x00080000, b"\x4e\0\0\0") + key(0x00080005) + of_station("MANY".ljust(16), key(DAY))
    assert len(ask(odd, "RECORDED").items) == len(MANY)
    record = kept(service, "RECORDED", lambda each: each.record.identifier == odd).record
    assert (record.status, record.matches, record.transfer_syntax) == (0, len(MANY), "1.2.840.10008.1.2")


def test_a_query_that_was_refused_is_kept_too(service: ServiceProcess, ask: Ask) -> None:
    odd = key(ACCESSION) + key(0x00400100, b"GET / HTTP/1.1\r\n")
    assert ask(odd, "RECORDED").status == "A900"
    record = kept(service, "RECORDED", lambda each: each.record.identifier == odd).record
    assert (record.status, record.matches) == (0xA900, 0)
    assert record.notes


def test_a_kept_query_is_asked_again_by_the_rules_of_another_profile(service: ServiceProcess, ask: Ask) -> None:
    elsewhere = of_station("NOWHERE ", key(DAY, "20260706"))
    assert ask(elsewhere, "RECORDED").items == ()
    number = kept(service, "RECORDED", lambda each: each.record.identifier == elsewhere).id
    said = gateway(service, "replay", str(number), "--profile", "any-station")
    assert all(order.accession in said for order in MANY)
    assert "20260706" in gateway(service, "queries", "--as", "RECORDED")
