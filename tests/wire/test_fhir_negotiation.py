"""Headers of FHIR requests: formats and releases, versions, preferences."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.refusal import Refused
from gateway.wire.fhir_negotiation import (
    REQUEST_ID_MAX,
    Format,
    Preference,
    Returned,
    Sent,
    Wanted,
    absent_only,
    etag,
    http_date,
    preference,
    request_id,
    sent,
    unchanged,
    version_of,
    wanted,
)
from gateway.wire.fhir_outcome import http_status
from gateway.wire.fhir_release import Release

CHANGED = datetime(2026, 7, 5, 9, 30, 15, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Format.JSON),
        ("*/*", Format.JSON),
        ("application/fhir+xml", Format.XML),
        ("text/xml", Format.XML),
        ("application/xml;q=0.5, application/fhir+json;q=0.9", Format.JSON),
        ("application/fhir+json;q=0, application/xml", Format.XML),
        ("text/plain, application/json", Format.JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format.JSON),
        ("application/fhir+xml; fhirVersion=4.0", Format.XML),
        ('application/fhir+json; fhirVersion="5.0", application/fhir+xml; fhirVersion=4.0', Format.XML),
    ],
)
def test_accept_chooses_the_format(accept: str, expected: Format) -> None:
    assert wanted(accept, "", "", Release.R4).format is expected


@pytest.mark.parametrize("accept", ["text/plain", "application/fhir+json;q=0", "json", "image/png, text/turtle"])
def test_formats_that_are_not_written_are_refused(accept: str) -> None:
    with pytest.raises(Refused) as refused:
        wanted(accept, "", "", Release.R4)
    assert refused.value.refusals[0].where == "Accept"
    assert "application/fhir+json" in refused.value.refusals[0].hint


@pytest.mark.parametrize(
    ("said", "expected"),
    [("json", Format.JSON), ("xml", Format.XML), ("application/fhir xml", Format.XML), ("text/xml", Format.XML)],
)
def test_format_parameter_goes_before_accept(said: str, expected: Format) -> None:
    assert wanted("text/plain", said, "true", Release.R4) == Wanted(expected, pretty=True)


def test_format_parameter_that_is_unknown_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        wanted("application/fhir+json", "ttl", "", Release.R4)
    assert refused.value.refusals[0].where == "_format"


@pytest.mark.parametrize("release", list(Release))
@pytest.mark.parametrize("other", list(Release))
def test_release_of_a_media_type_must_be_that_of_the_base(release: Release, other: Release) -> None:
    said = f"application/fhir+json; fhirVersion={other.parameter}"
    if release is other:
        assert sent(said, release) is Sent.JSON
        assert wanted(said, "", "", release).format is Format.JSON
        return
    for read in (lambda: sent(said, release), lambda: wanted(said, "", "", release)):
        with pytest.raises(Refused) as refused:
            read()
        assert f"/fhir/{other.base}" in refused.value.refusals[0].hint


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("application/fhir+json", Sent.JSON),
        ("Application/JSON; charset=UTF-8", Sent.JSON),
        ("text/xml", Sent.XML),
        ("application/json-patch+json", Sent.JSON_PATCH),
        ("application/x-www-form-urlencoded", Sent.FORM),
    ],
)
def test_content_type_says_what_a_body_is(said: str, expected: Sent) -> None:
    assert sent(said, Release.R4) is expected


@pytest.mark.parametrize("said", ["", "text/plain", "application/fhir+json; charset=iso-8859-1", "multipart/form-data"])
def test_bodies_of_other_kinds_are_refused(said: str) -> None:
    with pytest.raises(Refused):
        sent(said, Release.R4)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", Preference()),
        ("return=minimal", Preference(Returned.MINIMAL)),
        ("return=OperationOutcome; handling=strict", Preference(Returned.OUTCOME, strict=True)),
        ("handling=lenient, return=representation", Preference(Returned.REPRESENTATION, strict=False)),
        ("respond-async, return=nothing", Preference()),
    ],
)
def test_prefer_is_read_and_passed_over_where_unknown(said: str, expected: Preference) -> None:
    assert preference(said) == expected


@given(st.integers(min_value=1, max_value=10**17))
def test_an_entity_tag_comes_back_as_the_version_it_was_made_of(version: int) -> None:
    assert version_of(etag(version), "If-Match") == str(version)


@pytest.mark.parametrize("said", ["3", '"1", "2"', "W/3", '"'])
def test_what_is_no_entity_tag_is_refused(said: str) -> None:
    with pytest.raises(Refused):
        version_of(said, "If-Match")


@pytest.mark.parametrize("said", ['W/"abc"', 'W/"-1"', '""'])
def test_an_entity_tag_that_is_none_of_ours_is_that_of_no_version(said: str) -> None:
    assert not version_of(said, "If-Match").isdigit()


def test_a_change_may_be_for_what_is_held_or_for_what_is_not() -> None:
    assert version_of("*", "If-Match") == "*"
    assert absent_only(" * ", "If-None-Match") == "*"
    with pytest.raises(Refused) as refused:
        absent_only('W/"1"', "If-None-Match")
    assert http_status(refused.value.refusals) == 400


@pytest.mark.parametrize(
    ("none_match", "since", "expected"),
    [
        ('W/"3"', "", True),
        ('"3"', "", True),
        ('W/"2", W/"3"', "", True),
        ("*", "", True),
        ('W/"2"', http_date(CHANGED), False),  # If-None-Match goes before
        ("", http_date(CHANGED), True),
        ("", "Sun, 05 Jul 2026 09:30:14 GMT", False),
        ("", "yesterday", False),
        ("", "Sun, 05 Jul 99999999999999999999 09:30:14 GMT", False),  # no number that a date can have
        ("", "Sun, 05 Jul 2026 09:30:14 +99999999999999", False),
        ("", "", False),
    ],
)
def test_what_the_reader_has_already_is_not_sent_again(none_match: str, since: str, expected: bool) -> None:
    assert unchanged(none_match, since, 3, CHANGED) is expected


def test_request_ids_come_back_if_they_are_short_and_plain() -> None:
    assert request_id("a" * REQUEST_ID_MAX) == "a" * REQUEST_ID_MAX
    assert request_id("a" * (REQUEST_ID_MAX + 1)) == ""
    assert request_id("two words") == ""


@given(st.text(max_size=60))
def test_whatever_headers_say_is_understood_or_refused(said: str) -> None:
    for read in (lambda: sent(said, Release.R5), lambda: wanted(said, "", "", Release.R5),
                 lambda: wanted("", said, said, Release.R5), lambda: version_of(said, "If-Match")):  # fmt: skip
        try:
            read()
        except Refused as refused:
            assert refused.refusals[0].hint  # noqa: PT017  (what matters is that nothing else is raised)
    preference(said)
    unchanged(said, said, 1, CHANGED)
