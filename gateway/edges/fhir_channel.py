"""Ways of FHIR to a destination: transactions to a server, notifications to a subscriber.

What is told, and what it comes to with what is there, is `wire.fhir_transaction`'s. Here is the asking and the sending,
and what an answer means for the outbox. No word that leaves here has content of a resource.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from gateway.domain.refusal import Refused
from gateway.domain.resources import Resource
from gateway.edges.channel import Outcome
from gateway.edges.fhir_client import Answered, FHIRClient, FHIRClientError, Trouble
from gateway.wire import fhir_json
from gateway.wire.fhir_bounds import Bounds
from gateway.wire.fhir_transaction import asked, settled, shared
from gateway.workflow.outbox import Attempt, Delivery, http_attempt_of

TRIES = 3
"""Of reading and writing, where somebody else writes at the same time; then the outbox tries again later."""

_CONFLICTS = frozenset({409, 412})
_BOUNDS = Bounds(bytes_max=64 * 1_048_576, entries_max=100_000)  # our own words
_ANSWER_BYTES_MAX = 65_536
"""Of a subscriber's answer, which nobody reads."""


class FHIRChannel:
    """A FHIR server that is told how orders get on: it is asked what it holds, then gets one transaction."""

    def __init__(self, client: FHIRClient) -> None:
        self._client = client

    async def send(self, delivery: Delivery) -> Outcome:
        """Write what is news there, with the versions that were read. What it knows already is not sent."""
        bundle = await asyncio.to_thread(_read, delivery.payload)
        if bundle is None:
            return Outcome(Attempt.REJECTED, "what waits is no Bundle: drop it")
        for left in reversed(range(TRIES)):
            try:
                found, unclear = await self._found(bundle)
            except FHIRClientError as error:
                return _failed(error, Attempt.UNREACHABLE)
            news = settled(bundle, found, unclear)
            if news is None and unclear:
                return Outcome(Attempt.REJECTED, _left_out(unclear))
            if news is None:
                return Outcome(Attempt.ACCEPTED, "nothing of it is news there")
            try:
                answer = await self._client.transaction(news)
            except FHIRClientError as error:
                if error.status not in _CONFLICTS or not left:
                    return _failed(error, Attempt.UNANSWERED)
            else:
                return Outcome(Attempt.ACCEPTED, _left_out(unclear), fhir_json.write(answer))
        raise AssertionError("the last try returns")  # pragma: no cover

    async def close(self) -> None:
        """Give connections back."""
        await self._client.close()

    async def _found(self, bundle: Resource) -> tuple[Mapping[str, Resource | None], Collection[str]]:
        """What is there of all that the Bundle asks for, and the addresses of which nobody can tell what they mean.

        Raises FHIRClientError.
        """
        found: dict[str, Resource | None] = {}
        unclear = set(shared(bundle))
        for url in asked(bundle):
            if url not in unclear:
                matches = await self._look_up(url)
                if len(matches) > 1:
                    unclear.add(url)
                else:
                    found[url] = matches[0] if matches else None
        return found, unclear

    async def _look_up(self, url: str) -> Sequence[Resource]:
        """What `url` means there: a resource by id, or what a search finds, two of it at most.

        Raises FHIRClientError.
        """
        kind, _, query = url.partition("?")
        if not query:
            of_type, _, resource_id = url.partition("/")
            resource = await self._client.read(of_type, resource_id)
            return [resource] if resource is not None else []
        matches: list[Resource] = []
        async for page in self._client.search(f"{url}&_count=2", pages_max=1):
            entries = page.get("entry")
            shown = entries if isinstance(entries, list) else ()
            matches += [each["resource"] for each in shown if _is_match(each, kind)]
        return matches


def _left_out(unclear: Collection[str]) -> str:
    """Why something is not told: the types alone, because an identifier may be a patient's."""
    kinds = sorted({url.partition("?")[0] for url in unclear})
    if not kinds:
        return ""
    return f"left out: several {' and '.join(kinds)} with one identifier: see to it that one has it alone"


def _is_match(entry: Any, kind: str) -> bool:
    """Whether an entry of a page is what was searched for; a server may answer anything."""
    said = entry if isinstance(entry, Mapping) else {}
    resource, search = said.get("resource"), said.get("search")
    if not isinstance(resource, Mapping) or (search and not isinstance(search, Mapping)):
        return False
    mode = (search or {}).get("mode", "match")
    return mode == "match" and resource.get("resourceType") == kind and isinstance(resource.get("id"), str)


def _read(payload: bytes) -> Resource | None:
    try:
        return fhir_json.parse(payload, _BOUNDS)
    except Refused:
        return None


def _failed(error: FHIRClientError, without_answer: Attempt) -> Outcome:
    """What it means that a server did not do it. Its OperationOutcome goes to the archive, not into words."""
    answer = fhir_json.write(error.outcome) if error.outcome is not None else b""
    if error.trouble is Trouble.UNTRUSTED:
        return Outcome(Attempt.UNUSABLE, str(error), answer)
    if error.trouble is Trouble.NOT_LET_IN:
        return Outcome(Attempt.UNREACHABLE, str(error), answer)
    attempt = http_attempt_of(error.status) if error.status else without_answer
    return Outcome(attempt, str(error), answer, error.retry_after_s)


class NotificationChannel:
    """Somebody who subscribed: each notification is POSTed to the endpoint, and any 2xx is enough."""

    def __init__(
        self,
        client: FHIRClient,
        headers: Mapping[str, str],
        timeout_s: float = 30.0,
        why_not: Callable[[], str] = lambda: "",
    ) -> None:
        """`client` is to the endpoint itself; `headers` are those that its subscription asks for. `why_not` is asked
        before each notification whether it may be told as the settings are then; '' where it may."""
        self._client, self._why_not = client, why_not
        self._headers = dict(headers)
        self._timeout_s = timeout_s

    async def send(self, delivery: Delivery) -> Outcome:
        """Send the notification as it is."""
        if reason := self._why_not():  # it is dropped when its subscription is next looked at
            return Outcome(Attempt.UNREACHABLE, reason)
        kind = f"application/fhir+json; fhirVersion={self._client.release.parameter}"
        said = {"Content-Type": kind, "Accept": "application/fhir+json", **self._headers}
        try:
            async with asyncio.timeout(self._timeout_s):
                status, headers, _ = await self._client.exchange(
                    "POST", self._client.url, delivery.payload, said, _ANSWER_BYTES_MAX
                )  # fmt: skip
        except TimeoutError:
            return Outcome(Attempt.UNANSWERED, f"no answer within {self._timeout_s:g} s")
        except FHIRClientError as error:
            if 200 <= error.status < 300:  # it was taken; what else is said of it is too long, or compressed
                return Outcome(Attempt.ACCEPTED)
            return _failed(error, Attempt.UNREACHABLE)
        wait_s = Answered(status, headers).retry_after_s
        return Outcome(http_attempt_of(status), "" if 200 <= status < 300 else f"it answers {status}", wait_s=wait_s)

    async def close(self) -> None:
        """Give connections back."""
        await self._client.close()
