"""What the service counts, for Prometheus. Counts and times; never a value of a patient."""

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages = Counter(
            "gateway_hl7_messages",
            "HL7 messages by listener and outcome",
            ["listener", "disposition"],
            registry=self.registry,
        )
        self.requests = Counter(
            "gateway_dimse_requests",
            "DIMSE requests by operation and status",
            ["operation", "status"],
            registry=self.registry,
        )
        self.matches = Counter("gateway_worklist_matches", "Worklist answers sent", registry=self.registry)
        self.left_out = Counter(
            "gateway_worklist_items_left_out", "Items that could not be written into an answer", registry=self.registry
        )
        self.associations = Gauge("gateway_associations", "Open DICOM associations", registry=self.registry)
        self.rejected = Counter("gateway_associations_rejected", "Callers not let in", registry=self.registry)
        self.aborted = Counter("gateway_associations_aborted", "Connections ended by an abort", registry=self.registry)
        self.transient = Counter(
            "gateway_transient_failures", "Inputs that could not be stored when they came", registry=self.registry
        )
        self.seconds = Histogram(
            "gateway_seconds",
            "Time to answer, by operation",
            ["operation"],
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
        )
        self.held = Gauge("gateway_store_rows", "Rows held, by what they are", ["what"], registry=self.registry)

    def message_done(self, listener: str, disposition: str, seconds: float) -> None:
        """An HL7 message was answered."""
        _child(self.messages, listener, disposition).inc()
        _timer(self.seconds, "HL7").observe(seconds)

    def request_done(self, operation: str, status: int, matches: int, seconds: float) -> None:
        """A DIMSE request was answered."""
        _child(self.requests, operation, f"{status:04X}").inc()
        _timer(self.seconds, operation).observe(seconds)
        if matches:
            self.matches.inc(matches)


@lru_cache(maxsize=1_024)  # finding a labelled child costs more than counting in it; listeners and statuses are few
def _child(counter: Counter, one: str, other: str) -> Counter:
    return counter.labels(one, other)


@lru_cache(maxsize=64)
def _timer(histogram: Histogram, operation: str) -> Histogram:
    return histogram.labels(operation)
