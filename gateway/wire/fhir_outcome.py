"""Refusals and notes as OperationOutcome, and the one table from refusals to issue types and HTTP statuses.

The same OperationOutcome is valid in R4, R4B and R5: only issue types that all of them have are used.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.domain.refusal import Refusal, RefusalKind
from gateway.domain.resources import Resource
from gateway.wire.fhir_primitives import NOT_TEXT

_K = RefusalKind


class Issue(NamedTuple):
    """How a kind of refusal is told: OperationOutcome.issue.code and the HTTP status (http.html 3.1.0.1.6)."""

    code: str
    status: int


ISSUES: Mapping[RefusalKind, Issue] = {
    _K.UNREADABLE: Issue("structure", 400),
    # 400 where the specification itself is broken, 422 where a rule of ours is (http.html 3.1.0.8).
    _K.MALFORMED: Issue("structure", 400),
    _K.SEGMENT_SEQUENCE: Issue("structure", 400),
    _K.UNUSABLE_QUERY: Issue("invalid", 400),
    _K.MISSING_FIELD: Issue("required", 422),
    _K.MISSING_VALUE: Issue("required", 422),
    _K.BAD_VALUE: Issue("value", 422),
    _K.INVALID_UID: Issue("value", 422),
    _K.TOO_LONG: Issue("too-long", 422),
    _K.UNKNOWN_CODE: Issue("code-invalid", 422),
    _K.NOT_UNDERSTOOD: Issue("extension", 422),
    _K.UNCOVERED: Issue("business-rule", 422),
    _K.UNSUPPORTED_EVENT: Issue("not-supported", 422),
    _K.UNSUPPORTED_PROCESSING_ID: Issue("not-supported", 422),
    _K.UNSUPPORTED_TYPE: Issue("not-supported", 404),
    _K.UNSUPPORTED_VERSION: Issue("not-supported", 415),
    _K.UNKNOWN_KEY: Issue("not-found", 404),
    _K.UNKNOWN_ORDER: Issue("not-found", 404),
    _K.NO_SUCH_INSTANCE: Issue("not-found", 404),
    _K.GONE: Issue("deleted", 410),
    _K.PRECONDITION: Issue("conflict", 412),
    _K.LOCKED: Issue("lock-error", 409),
    _K.DUPLICATE_KEY: Issue("duplicate", 409),
    _K.DUPLICATE_INSTANCE: Issue("duplicate", 409),
    _K.CONFLICT: Issue("conflict", 409),
    _K.STEP_CLOSED: Issue("conflict", 409),
    _K.UNKNOWN_SENDER: Issue("login", 401),
    _K.NOT_PROVEN: Issue("login", 401),
    _K.NOT_AUTHORISED: Issue("forbidden", 403),
    _K.TRANSIENT: Issue("transient", 503),
    _K.INTERNAL: Issue("exception", 500),
}
"""Refusal -> how FHIR says it. Total."""

ISSUES_MAX = 50
"""More problems than a person mends at one time."""

_FATAL = frozenset({_K.UNREADABLE, _K.INTERNAL})
"""After these nothing more could be looked at."""

_FIRST = (401, 403, 503, 500, 415, 413, 404, 410, 412, 409, 400, 422)
"""Of several statuses the one that goes before: who may ask, then whether we can, then what it is about, then what is
wrong with it."""


def outcome(refusals: Sequence[Refusal], notes: Sequence[str] = ()) -> Resource:
    """An OperationOutcome of `refusals` and, as information, `notes`; without either it says that all is well.

    `details` says what is wrong, `diagnostics` what to do, `expression` where. At most `ISSUES_MAX` refusals and as
    many notes are told, and how many more there are.
    """
    issues = [_issue(refusal) for refusal in refusals[:ISSUES_MAX]]
    issues += _more(len(refusals) - ISSUES_MAX, "problems")
    issues += [_remark(note) for note in notes[:ISSUES_MAX]]
    issues += _more(len(notes) - ISSUES_MAX, "notes")
    return {"resourceType": "OperationOutcome", "issue": issues or [_remark("All is well.")]}


def error_codes(body: Resource | None) -> tuple[str, ...]:
    """What an answer refuses, by the codes of its issues, each once: of a Bundle those in its entries."""
    said = body or {}
    found = [said]
    for entry in said.get("entry", ()) if said.get("resourceType") == "Bundle" else ():
        found += [entry.get("resource", {}), entry.get("response", {}).get("outcome", {})]
    issues = (issue for each in found if each.get("resourceType") == "OperationOutcome" for issue in each["issue"])
    return tuple(dict.fromkeys(issue["code"] for issue in issues if issue["severity"] in ("error", "fatal")))


def http_status(refusals: Sequence[Refusal]) -> int:
    """The HTTP status that fits `refusals` best: one stands for all. 200 without any."""
    found = {_status(refusal) for refusal in refusals}
    return next((status for status in _FIRST if status in found), 200)


def _status(refusal: Refusal) -> int:
    """As the table has it; 413 where the request as a whole is too long."""
    return 413 if refusal.kind is _K.TOO_LONG and not refusal.where else ISSUES[refusal.kind].status


def _issue(refusal: Refusal) -> dict[str, Any]:
    return {
        "severity": "fatal" if refusal.kind in _FATAL else "error",
        "code": ISSUES[refusal.kind].code,
        "details": {"text": _text(refusal.text) or refusal.kind.value},
        **({"diagnostics": hint} if (hint := _text(refusal.hint)) else {}),
        **({"expression": [where]} if (where := _text(refusal.where)) else {}),
    }


def _remark(note: str) -> dict[str, Any]:
    return {"severity": "information", "code": "informational", "details": {"text": _text(note) or "noted"}}


def _more(number: int, what: str) -> list[dict[str, Any]]:
    return [_remark(f"{number} more {what} are not listed.")] if number > 0 else []


def _text(said: str) -> str:
    """As a FHIR string may be: without what XML cannot write, which a refusal may quote."""
    return NOT_TEXT.sub("\ufffd", said).strip()
