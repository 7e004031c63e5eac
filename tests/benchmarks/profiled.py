"""Where the time of one query goes: the gateway in a process that looks at its own stack a thousand times a second.

`python -m tests.benchmarks.profiled CONFIG OUT` is `gateway run` with a sampler (see `observed`). The timer counts
processor time, and the handler runs between two steps of the interpreter, so time spent in C counts for the line that
called it. Nothing of the product knows about this.
"""

import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvloop

from gateway.testing import ServiceProcess
from gateway.testing.load import LoadAssociation
from tests.benchmarks import peers
from tests.benchmarks.measure import CPUSeconds, Rate, rates
from tests.benchmarks.observed import ObservedService, on_signals, run_gateway
from tests.benchmarks.population import GROUP
from tests.benchmarks.questions import ASSOCIATE, HOST, asking_once, group_request, query_rates, question
from tests.benchmarks.report import Row, Section

INTERVAL_S = 0.001
CLIENTS = 4
HOTTEST = 15

LOOP = "kernel and event loop: sockets, epoll, waking tasks"

RELEASE = "release: the answer to A-RELEASE, forgetting the association"
RECORD = "query record"
TELLING = "logging and metrics"
WRITING = "sending: socket writes"
FRAMING = "framing: PDUs around the answers"
ASSOCIATION = "upper layer: association, PDUs in"
MESSAGES = "DIMSE: messages in, requests in their order"
PREPARE = "prepare: the identifier read and compiled, or found"
ENCODE = "encode: answers looked up or written"
CANDIDATES = "candidates: ids and revisions by SQL"
MATCH = "match: what the caller may see, and the keys"
CALLER = "who calls: the device registry"
LISTENER = "listener: connections and timers"

# Whatever these do belongs to them, libraries and other layers included. Modules are named from the package on.
WHOLE: Mapping[tuple[str, str], str] = {
    ("edges.dimse_server", "_respond_release"): RELEASE,
    ("edges.dimse_server", "connection_lost"): RELEASE,
    ("answering", "found"): RECORD,
    ("listening", "_observe"): TELLING,
    ("wire.worklist_dataset", "prepare_query"): PREPARE,
    ("workflow.query", "_encode"): ENCODE,
    ("edges.store_reader", "items"): ENCODE,
    ("edges.store_reader", "candidates"): CANDIDATES,
    ("domain.visibility", "narrow"): CANDIDATES,
}

# Otherwise the innermost frame of ours decides, by its function or else by its module.
BY_FUNCTION: Mapping[tuple[str, str], str] = {
    ("edges.dimse_server", "_write"): WRITING,
    ("edges.dimse_requests", "next_slice"): FRAMING,
    ("edges.dimse_requests", "_collect"): FRAMING,
    ("wire.upper_layer", "data_pdus"): FRAMING,
    ("wire.upper_layer", "pdv_header"): FRAMING,
    ("wire.upper_layer", "fragment_bytes"): FRAMING,
    ("wire.upper_layer", "send_data"): FRAMING,
    ("wire.dimse", "pending"): FRAMING,
    ("wire.dimse", "_plain_response"): FRAMING,
    ("wire.dimse", "final"): FRAMING,
    ("wire.dimse", "_response"): FRAMING,
    ("wire.dimse", "_element"): FRAMING,
    ("domain.matching", "narrowing"): CANDIDATES,
}
BY_MODULE: Sequence[tuple[str, str]] = (
    ("wire.upper_layer", ASSOCIATION),
    ("wire.dimse", MESSAGES),
    ("wire", ENCODE),
    ("edges.dimse_server", LISTENER),
    ("edges.dimse_requests", MESSAGES),
    ("edges.query_log", RECORD),
    ("edges.metrics", TELLING),
    ("edges.logs", TELLING),
    ("edges", CANDIDATES),
    ("domain", MATCH),
    ("workflow", MATCH),
    ("answering", CALLER),
    ("listening", CALLER),
    ("config", CALLER),
    ("processing", CALLER),
)
ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class Profile:
    """Samples by place, of all and of the functions that were seen most."""

    samples: int
    places: dict[str, int]
    functions: dict[str, int]


def place_of(frames: Sequence[tuple[str, str]]) -> str:
    """Where a stack belongs: (module, function) of our own frames, innermost first; none: the event loop."""
    if not frames:
        return LOOP
    for frame in reversed(frames):
        if frame in WHOLE:
            return WHOLE[frame]
    innermost = frames[0]
    if innermost in BY_FUNCTION:
        return BY_FUNCTION[innermost]
    module = f"{innermost[0]}."
    return next((place for name, place in BY_MODULE if module.startswith(f"{name}.")), ELSEWHERE)


def where_the_time_goes(
    folder: Path, config: Path, size: int, seconds: float, progress: Callable[[str], None]
) -> list[Row | Section]:
    """The profile of the common query, and our rate beside canned replies by the same event loop."""
    progress("profile")
    once, cpu, seen = _profiled(config, folder / "profile.json", size, seconds)
    progress("canned replies")
    with ServiceProcess(config) as service:
        accept, answer = uvloop.run(_recorded(service.dicom_port))
        with peers.canned(accept, answer, folder) as port:
            ports = (service.dicom_port, port)
            rows: list[Row | Section] = [
                _beside_canned(uvloop.run(query_rates(ports, size, GROUP, CLIENTS, seconds, many=many)), size, many)
                for many in (False, True)
            ]
    return [*rows, *_sections(once, cpu, seen, size)]


def _beside_canned(measured: Sequence[Rate], size: int, many: bool) -> Row:
    what = f"{'ask again' if many else 'associate, ask, release'}: {GROUP} of {size:,} items"
    ours, ceiling = measured
    return Row(what, ours.per_s, "/s", "canned replies, bare asyncio", ceiling.per_s, times=ours.times)


async def _recorded(port: int) -> tuple[bytes, bytes]:
    async with LoadAssociation(HOST, port, ASSOCIATE) as association:
        return association.accepted, await association.exchange(group_request(0))


def _sections(once: Rate, cpu: CPUSeconds, seen: Profile, size: int) -> list[Section]:
    """The tables; `cpu` is what one query took."""
    spent_us = (cpu.user + cpu.system) * 1e6

    def shares(counted: dict[str, int]) -> list[tuple[str, ...]]:
        return [
            (name, f"{spent_us * count / seen.samples:.0f}", f"{count / seen.samples:.0%}")
            for name, count in sorted(counted.items(), key=lambda each: -each[1])
        ]

    text = (
        f"One association with one query, {GROUP} of {size:,} items, takes the gateway {spent_us:.0f} microseconds of "
        f"processor time: {cpu.user * 1e6:.0f} in its own code and {cpu.system * 1e6:.0f} in the kernel for it "
        f"({CLIENTS} clients, {once.per_s:,.0f} a second while the stack was sampled every {INTERVAL_S * 1e3:g} ms of "
        f"processor time, {seen.samples:,} samples). A sample in C, or in the kernel, counts for what called it."
    )
    functions = "The functions of ours that were seen most as the innermost one, with the libraries that they called."
    return [
        Section("Where each microsecond goes", text, ("Where", "Microseconds", "Share"), shares(seen.places)),
        Section("The hottest functions", functions, ("Function", "Microseconds", "Share"), shares(seen.functions)),
    ]


def _profiled(config: Path, out: Path, size: int, seconds: float) -> tuple[Rate, CPUSeconds, Profile]:
    """The rate, the processor time of one query, and the samples."""
    with ObservedService(config, "tests.benchmarks.profiled", out) as service:
        uvloop.run(query_rates([service.dicom_port], size, GROUP, CLIENTS, min(seconds, 1.0)))
        service.begin()
        rate, queries = uvloop.run(_count(service.dicom_port, size, seconds))
        seen, spent = service.end()
    return rate, CPUSeconds(spent.user / queries, spent.system / queries), Profile(**seen)


async def _count(port: int, size: int, seconds: float) -> tuple[Rate, int]:
    """The rate, and how many queries there were in all, warm-up included."""
    queries = 0
    ask = asking_once(port, question(size, GROUP), GROUP)

    async def counted() -> None:
        nonlocal queries
        await ask()
        queries += 1

    (rate,) = await rates([[counted] * CLIENTS], seconds)
    return rate, queries


# --- inside the profiled process


class Sampler:
    """Counts where the main thread is."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._samples = 0
        self._places: Counter[str] = Counter()
        self._functions: Counter[str] = Counter()

    def install(self) -> None:
        """Wait for SIGUSR1."""
        signal.signal(signal.SIGPROF, self._sample)
        on_signals(self._out, self._start, self._stop)

    def _start(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def _stop(self) -> dict[str, object]:
        signal.setitimer(signal.ITIMER_PROF, 0)
        return {
            "samples": self._samples,
            "places": dict(self._places),
            "functions": dict(self._functions.most_common(HOTTEST)),
        }

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        # At its first step a function has done nothing yet: the time was that of whoever called it.
        while frame is not None and frame.f_lasti <= FIRST_STEPS:
            frame = frame.f_back
        ours = list(_ours(frame))
        self._samples += 1
        self._places[place_of(ours)] += 1
        self._functions[":".join(ours[0]) if ours else LOOP] += 1


RUNS_THE_LOOP = "asyncio.runners"
"""What is outside of this is on every stack."""

FIRST_STEPS = 4
"""Bytes of a function's code up to and including RESUME, where the interpreter looks for signals."""


def _ours(frame: FrameType | None) -> Iterator[tuple[str, str]]:
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == RUNS_THE_LOOP:
            return
        if module.startswith("gateway."):
            yield module.removeprefix("gateway."), frame.f_code.co_name
        frame = frame.f_back


if __name__ == "__main__":
    Sampler(Path(sys.argv[2])).install()
    run_gateway(sys.argv[1])
