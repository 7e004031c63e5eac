"""Every refusal has an issue type and a status; what is made of them is an OperationOutcome in every release."""

import importlib
from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.refusal import Refusal, RefusalKind
from gateway.wire import fhir_json, fhir_xml
from gateway.wire.fhir_models import problems
from gateway.wire.fhir_outcome import ISSUES, ISSUES_MAX, http_status, outcome
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_shapes import shape

_K = RefusalKind


def test_the_table_is_total() -> None:
    assert set(ISSUES) == set(RefusalKind)


@pytest.mark.parametrize("kind", RefusalKind)
def test_every_kind_has_a_code_of_every_release_and_an_error_status(kind: RefusalKind) -> None:
    issue = ISSUES[kind]
    for release in Release:
        found = shape(release, "OperationOutcomeIssue")
        assert found is not None
        assert issue.code in found.elements["code"].codes
    assert 400 <= http_status([Refusal(kind, "Task.code", "x")]) < 600


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        ((), 200),
        ((_K.MISSING_FIELD,), 422),
        ((_K.UNKNOWN_CODE, _K.MALFORMED), 400),
        ((_K.MISSING_FIELD, _K.CONFLICT), 409),
        ((_K.UNKNOWN_CODE, _K.TRANSIENT, _K.INTERNAL), 503),
        ((_K.TRANSIENT, _K.NOT_AUTHORISED), 403),
        ((_K.UNSUPPORTED_TYPE, _K.BAD_VALUE), 404),
        ((_K.GONE,), 410),
        ((_K.PRECONDITION,), 412),
        ((_K.UNSUPPORTED_VERSION, _K.UNREADABLE), 415),
    ],
)
def test_one_status_stands_for_all_whatever_their_order(kinds: Sequence[RefusalKind], status: int) -> None:
    for order in permutations(kinds):
        assert http_status([Refusal(kind, "Task", "x") for kind in order]) == status


def test_a_body_that_is_too_long_has_a_status_of_its_own() -> None:
    assert http_status([Refusal(_K.TOO_LONG, "", "x")]) == 413
    assert http_status([Refusal(_K.TOO_LONG, "Bundle.entry", "x")]) == 422


def test_an_issue_says_what_where_and_what_to_do() -> None:
    refusal = Refusal(_K.UNKNOWN_CODE, "ServiceRequest.status", "is a code outside", "use one of active")
    assert outcome([refusal], ["held"]) == {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": "error",
                "code": "code-invalid",
                "details": {"text": "is a code outside"},
                "diagnostics": "use one of active",
                "expression": ["ServiceRequest.status"],
            },
            {"severity": "information", "code": "informational", "details": {"text": "held"}},
        ],
    }


def test_what_could_not_be_read_is_fatal() -> None:
    assert outcome([Refusal(_K.UNREADABLE, "", "is no JSON")])["issue"][0]["severity"] == "fatal"


def test_of_too_many_the_first_are_told_and_how_many_more_there_are() -> None:
    issues = outcome([Refusal(_K.BAD_VALUE, "Task.id", "x")] * 70, ["n"] * 60)["issue"]
    assert len(issues) == 2 * ISSUES_MAX + 2
    assert issues[ISSUES_MAX]["details"]["text"] == "20 more problems are not listed."


REFUSALS = st.builds(
    Refusal, st.sampled_from(RefusalKind), st.text(max_size=20), st.text(max_size=20), st.text(max_size=9)
)


@given(st.lists(REFUSALS, max_size=4), st.lists(st.text(max_size=20), max_size=3))
def test_an_outcome_is_valid_in_every_release_and_form(refusals: list[Refusal], notes: list[str]) -> None:
    made = outcome(refusals, notes)
    for release in Release:
        assert problems(made, release) == ([], [])
        assert fhir_xml.parse(fhir_xml.write(made, release), release) == made
    for package in ("fhir.resources", "fhir.resources.R4B"):
        importlib.import_module(f"{package}.operationoutcome").OperationOutcome.model_validate(made)
    assert fhir_json.parse(fhir_json.write(made)) == made


def test_words_that_quote_what_xml_cannot_write_are_told_without_it() -> None:
    made = outcome([Refusal(_K.UNUSABLE_QUERY, "a\uffff", "x\ud800", "h\x00")])
    assert made["issue"][0]["expression"] == ["a\ufffd"]
    assert b"a\xef\xbf\xbd" in fhir_xml.write(made, Release.R4)
