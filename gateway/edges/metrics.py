"""What the service counts, for Prometheus. Counts and times; never a value of a patient.

A process that serves DICOM, HL7 or FHIR counts into a `Tally` of plain numbers, which can be sent to the main process
and added there: the exposition shows the sum of all processes.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.workflow.outbox import Backlog

_Counted = TypeVar("_Counted", int, str)

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
"""Upper bounds of the buckets of times, in seconds; what took longer is in one more."""


@dataclass(slots=True)
class Times:
    """How long something took: the sum in seconds, and how often it fell into each bucket."""

    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))

    def add(self, other: "Times") -> None:
        """Add those of another process."""
        self.seconds += other.seconds
        self.buckets = [ours + theirs for ours, theirs in zip(self.buckets, other.buckets, strict=True)]


@dataclass(slots=True)
class Tally:
    """What was counted: `requests` of DIMSE by operation and status, `fhir` by interaction and HTTP status, `messages`
    by listener and disposition, `times` of all three.

    `transient` is how many messages and FHIR requests could not be stored when they came.
    """

    requests: dict[str, dict[int, int]] = field(default_factory=dict)
    fhir: dict[str, dict[int, int]] = field(default_factory=dict)
    messages: dict[str, dict[str, int]] = field(default_factory=dict)
    times: dict[str, Times] = field(default_factory=dict)
    matches: int = 0
    left_out: int = 0
    rejected: int = 0
    aborted: int = 0
    queries_dropped: int = 0
    transient: int = 0
    denied: dict[str, int] = field(default_factory=dict)
    """Callers and senders that were not let in, by a word for the reason."""
    handshakes_failed: dict[str, int] = field(default_factory=dict)
    """TLS handshakes of callers that came to nothing, by `handshake_words.Reason`."""

    def message_done(self, listener: str, disposition: str, seconds: float) -> None:
        """An HL7 message was answered."""
        dispositions = self.messages.setdefault(listener, {})
        dispositions[disposition] = dispositions.get(disposition, 0) + 1
        self.took("HL7", seconds)

    def request_done(self, operation: str, status: int, matches: int, seconds: float) -> None:
        """A DIMSE request was answered."""
        statuses = self.requests.setdefault(operation, {})
        statuses[status] = statuses.get(status, 0) + 1
        self.matches += matches
        self.took(operation, seconds)

    def fhir_done(self, interaction: str, status: int, seconds: float) -> None:
        """A FHIR request was answered; `interaction` is one of a few words, `status` that of HTTP."""
        statuses = self.fhir.setdefault(interaction, {})
        statuses[status] = statuses.get(status, 0) + 1
        self.took(f"FHIR {interaction}", seconds)

    def caller_denied(self, reason: str) -> None:
        """Somebody was not let in; `reason` is one of a few words."""
        self.denied[reason] = self.denied.get(reason, 0) + 1

    def handshake_failed(self, event: str, fields: Mapping[str, Any]) -> None:
        """Count what an event of `tls_listener` tells, if it is one of failed handshakes."""
        times = {"tls_handshake_failed": 1, "tls_handshakes_failed": fields.get("more", 0)}.get(event, 0)
        if times:
            reason = fields["reason"]
            self.handshakes_failed[reason] = self.handshakes_failed.get(reason, 0) + times

    def took(self, operation: str, seconds: float) -> None:
        """Something was answered after this time."""
        times = self.times.get(operation)
        if times is None:
            times = self.times[operation] = Times()
        times.seconds += seconds
        times.buckets[bisect_left(BOUNDS_S, seconds)] += 1

    def add(self, other: "Tally") -> None:
        """Add what another process counted."""
        for operation, statuses in other.requests.items():
            _add(self.requests.setdefault(operation, {}), statuses)
        for interaction, answered in other.fhir.items():
            _add(self.fhir.setdefault(interaction, {}), answered)
        for listener, dispositions in other.messages.items():
            _add(self.messages.setdefault(listener, {}), dispositions)
        for operation, times in other.times.items():
            self.times.setdefault(operation, Times()).add(times)
        self.matches += other.matches
        self.left_out += other.left_out
        self.rejected += other.rejected
        self.aborted += other.aborted
        self.queries_dropped += other.queries_dropped
        self.transient += other.transient
        _add(self.denied, other.denied)
        _add(self.handshakes_failed, other.handshakes_failed)


def _add(ours: dict[_Counted, int], theirs: Mapping[_Counted, int]) -> None:
    for what, count in theirs.items():
        ours[what] = ours.get(what, 0) + count


@dataclass(frozen=True, slots=True)
class DirectoryState:
    """How old the directory is that is served by (None: none was ever read), and whether the last look failed."""

    age_s: float | None
    failing: bool


@dataclass(frozen=True, slots=True)
class FeedState:
    """How it stands with one FHIR server that orders are fetched from: looks that failed, the age of the last one that
    did not (None: there was none), resources taken and refused, since the start."""

    feed: str
    looks_failed: int
    age_s: float | None
    taken: int
    refused: int


class Metrics(Collector):
    """The counters of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.tally = Tally()
        self.associations = Gauge("gateway_associations", "Open DICOM associations", registry=self.registry)
        self.worker_restarts = Counter(
            "gateway_worker_restarts", "Workers started in place of one that died", registry=self.registry
        )
        self.held = Gauge("gateway_store_rows", "Rows held, by what they are", ["what"], registry=self.registry)
        self.backlogs: Callable[[], Sequence[Backlog]] = tuple
        """What waits in the outbox."""
        self.queries_lost: Callable[[], int] = int
        """How many query records could not be written so far, besides those of the tally."""
        self.directory: Callable[[], DirectoryState | None] = lambda: None
        """How it stands with the directory of devices, where there is one."""
        self.feeds: Callable[[], Sequence[FeedState]] = tuple
        """How it stands with the FHIR servers that orders are fetched from."""
        self.clock: Callable[[], Sequence[tuple[str, float]]] = tuple
        """NTP servers that answered, and what has to be added to this machine's time by each, in seconds."""
        self.certificates: Callable[[], Sequence[tuple[str, str, datetime]]] = tuple
        """File, subject and end of each certificate and revocation list that the configuration names."""
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The tally, in Prometheus' words."""
        tally = self.tally
        requests = CounterMetricFamily(
            "gateway_dimse_requests", "DIMSE requests by operation and status", labels=["operation", "status"]
        )
        for operation, statuses in tally.requests.items():
            for status, count in statuses.items():
                requests.add_metric([operation, f"{status:04X}"], count)
        yield requests
        messages = CounterMetricFamily(
            "gateway_hl7_messages", "HL7 messages by listener and outcome", labels=["listener", "disposition"]
        )
        for listener, dispositions in tally.messages.items():
            for disposition, count in dispositions.items():
                messages.add_metric([listener, disposition], count)
        yield messages
        fhir = CounterMetricFamily(
            "gateway_fhir_requests", "FHIR requests by interaction and HTTP status", labels=["interaction", "status"]
        )
        for interaction, answered in tally.fhir.items():
            for status, count in answered.items():
                fhir.add_metric([interaction, str(status)], count)
        yield fhir
        denied = CounterMetricFamily(
            "gateway_callers_denied", "Callers and senders not let in, by reason", labels=["reason"]
        )
        for reason, count in tally.denied.items():
            denied.add_metric([reason], count)
        yield denied
        handshakes = CounterMetricFamily(
            "gateway_tls_handshakes_failed", "TLS handshakes of callers that failed, by reason", labels=["reason"]
        )
        for reason, count in tally.handshakes_failed.items():
            handshakes.add_metric([reason], count)
        yield handshakes
        dropped = tally.queries_dropped + self.queries_lost()
        for name, meaning, value in (
            ("gateway_worklist_matches", "Worklist answers sent", tally.matches),
            ("gateway_worklist_items_left_out", "Items that could not be written into an answer", tally.left_out),
            ("gateway_associations_rejected", "Callers not let in", tally.rejected),
            ("gateway_associations_aborted", "Connections ended by an abort", tally.aborted),
            ("gateway_transient_failures", "Inputs that could not be stored when they came", tally.transient),
            ("gateway_query_records_dropped", "Worklist queries answered but not kept", dropped),
        ):
            yield CounterMetricFamily(name, meaning, value=value)
        yield from self._outbox()
        offsets = GaugeMetricFamily(
            "gateway_clock_offset_seconds", "What an NTP server is ahead of this machine", labels=["server"]
        )
        for server, offset_s in self.clock():
            offsets.add_metric([server], offset_s)
        yield offsets
        yield from self._directory()
        yield from self._feeds()
        ends = GaugeMetricFamily(
            "gateway_certificate_expires_seconds", "Time until a certificate or revocation list ends, negative after",
            labels=["file", "certificate"],
        )  # fmt: skip
        first: dict[tuple[str, str], datetime] = {}  # an authority's old and new certificate may be in one file
        for file, subject, end in self.certificates():
            first[file, subject] = min(end, first.get((file, subject), end))
        for place, end in first.items():
            ends.add_metric(place, (end - datetime.now(UTC)).total_seconds())
        yield ends
        seconds = HistogramMetricFamily("gateway_seconds", "Time to answer, by operation", labels=["operation"])
        bounds = [*(str(float(bound)) for bound in BOUNDS_S), "+Inf"]
        for operation, times in tally.times.items():
            counts = accumulate(times.buckets)
            seconds.add_metric([operation], list(zip(bounds, counts, strict=True)), times.seconds)
        yield seconds

    def _directory(self) -> Iterator[Metric]:
        state = self.directory()
        if state is None:
            return
        failed = "Whether the last look at the directory of devices brought nothing to serve by"
        yield GaugeMetricFamily("gateway_directory_refresh_failed", failed, value=state.failing)
        if state.age_s is not None:
            age = "Age of the directory that is served by, since it was last found unchanged or read"
            yield GaugeMetricFamily("gateway_directory_age_seconds", age, value=state.age_s)

    def _feeds(self) -> Iterator[Metric]:
        failed = CounterMetricFamily(
            "gateway_fhir_looks_failed", "Looks at other FHIR servers that came to nothing", labels=["feed"]
        )
        age = GaugeMetricFamily(
            "gateway_fhir_look_age_seconds", "Age of the last look at a FHIR server that went well", labels=["feed"]
        )
        resources = CounterMetricFamily(
            "gateway_fhir_resources_fetched", "Resources fetched from FHIR servers", labels=["feed", "outcome"]
        )
        for state in self.feeds():
            failed.add_metric([state.feed], state.looks_failed)
            resources.add_metric([state.feed, "taken"], state.taken)
            resources.add_metric([state.feed, "refused"], state.refused)
            if state.age_s is not None:
                age.add_metric([state.feed], state.age_s)
        yield from (failed, age, resources)

    def _outbox(self) -> Iterator[Metric]:
        messages = GaugeMetricFamily(
            "gateway_outbox_messages", "Messages of ours not delivered", labels=["destination", "state"]
        )
        age = GaugeMetricFamily(
            "gateway_outbox_oldest_seconds", "Age of the oldest message that waits", labels=["destination"]
        )
        held = GaugeMetricFamily("gateway_outbox_held", "Whether a person keeps it back", labels=["destination"])
        for backlog in self.backlogs():
            held.add_metric([backlog.destination], backlog.held)
            messages.add_metric([backlog.destination, "waiting"], backlog.waiting)
            messages.add_metric([backlog.destination, "parked"], backlog.parked)
            age.add_metric([backlog.destination], backlog.age_s(datetime.now(UTC)))
        yield from (messages, age, held)
