"""An EHR that speaks FHIR R4: it sends orders to our server, reads what became of them, and is told by subscription.

What may live here: a client and a receiver of notifications, over real HTTP on loopback. Nobody proves who he is.
"""

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from gateway.testing.ris import ImagingOrder

Resource = dict[str, Any]

PATIENTS, ORDERS = "https://hospital.example/patients", "https://hospital.example/orders"
"""The systems of its numbers."""

_BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"
_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
_JSON = "application/fhir+json"
_ANSWER_S = 30.0


class EHRRefused(Exception):  # noqa: N818  (reads as what happened)
    """The server said no. `status` is the HTTP status, `outcome` what it said."""

    def __init__(self, status: int, outcome: Resource) -> None:
        texts = [each.get("details", {}).get("text", "") for each in outcome.get("issue", [])]
        super().__init__(f"HTTP {status}: {'; '.join(texts)}")
        self.status, self.outcome = status, outcome


def order_bundle(order: ImagingOrder) -> Resource:
    """A transaction: the patient, unless there is one with that number, and the request. The catalogue has the rest."""
    family, _, given = order.person.name.partition("^")
    patient = {
        "resourceType": "Patient",
        "identifier": [{"type": _typed("MR"), "system": PATIENTS, "value": order.person.patient_id}],
        "name": [{"family": family, "given": [given]}],
        "birthDate": order.person.birth_date.isoformat(),
        "gender": {"F": "female", "M": "male"}.get(order.person.sex, "unknown"),
    }
    own = "urn:uuid:5b0f2f8e-8a1c-4d53-9d3e-2f6f0f1c7a10"  # what the patient is called within the Bundle
    request = {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "identifier": [{"type": _typed("PLAC"), "system": ORDERS, "value": order.placer}],
        "category": [{"coding": [{"system": "http://snomed.info/sct", "code": "363679005"}]}],
        "code": {"coding": [{"code": order.code, "display": order.text}]},
        "subject": {"reference": own},
        "occurrenceDateTime": order.start.astimezone().isoformat(timespec="seconds"),
    }
    unless = f"identifier={PATIENTS}|{order.person.patient_id}"
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": own,
                "resource": patient,
                "request": {"method": "POST", "url": "Patient", "ifNoneExist": unless},
            },
            {"resource": request, "request": {"method": "POST", "url": "ServiceRequest"}},
        ],
    }


def _typed(code: str) -> Resource:
    return {"coding": [{"system": _TYPES, "code": code}]}


class SimulatedEHR:
    """A client of the FHIR server at `base`; as a context manager it also listens for notifications, on `endpoint`."""

    def __init__(self, base: str) -> None:
        self._base = base.rstrip("/")
        self.notified: list[Resource] = []
        self._came = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/notified"

    def send(self, resource: Resource) -> Resource:
        """POST a Bundle to the base, or a resource to its type; the answer. Raises EHRRefused."""
        kind = resource["resourceType"]
        return self._call("POST", "" if kind == "Bundle" else f"/{kind}", resource)

    def find(self, kind: str, **query: str) -> list[Resource]:
        """The resources that a search finds: `find("ServiceRequest", identifier="P1")`. Raises EHRRefused."""
        named = {name.replace("_", "-"): value for name, value in query.items()}
        found = self._call("GET", f"/{kind}?{urllib.parse.urlencode(named)}")
        return [each["resource"] for each in found.get("entry", [])]

    def subscribe(self, topic: str) -> Resource:
        """Ask to be told of a topic of the server, such as `order-status`. Raises EHRRefused."""
        return self.send({
            "resourceType": "Subscription",
            "meta": {"profile": [f"{_BACKPORT}backport-subscription"]},
            "status": "requested",
            "reason": "what becomes of our orders",
            "criteria": f"{self._base}/SubscriptionTopic/{topic}",
            "channel": {
                "type": "rest-hook",
                "endpoint": self.endpoint,
                "payload": _JSON,
                "_payload": {"extension": [{"url": f"{_BACKPORT}backport-payload-content", "valueCode": "id-only"}]},
            },
        })  # fmt: skip

    def told_of(self, reference: str) -> int:
        """How many notifications so far were about this resource, such as `ServiceRequest/1`."""
        return sum(
            any(str(entry.get("fullUrl", "")).endswith(reference) for entry in each.get("entry", []))
            for each in list(self.notified)
        )

    def wait_for(self, happened: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `happened` is true after some notification. Raises TimeoutError."""
        with self._came:
            if not self._came.wait_for(happened, timeout_s):
                raise TimeoutError

    def _call(self, method: str, path: str, resource: Resource | None = None) -> Resource:
        body = json.dumps(resource).encode() if resource is not None else None
        asked = urllib.request.Request(  # noqa: S310  (http, as whoever runs it said)
            self._base + path, body, {"Content-Type": _JSON, "Accept": _JSON}, method=method
        )
        try:
            with urllib.request.urlopen(asked, timeout=_ANSWER_S) as answer:  # noqa: S310  (as above)
                said: Resource = json.load(answer)
        except urllib.error.HTTPError as refused:
            raise EHRRefused(refused.code, json.load(refused)) from None
        return said

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        ehr = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                with ehr._came:
                    ehr.notified.append(said)
                    ehr._came.notify_all()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing is said."""

        return Handler

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
