"""The Subscription that we ask other servers for, in each release, and that it is one for the models of the release."""

import pytest

from gateway.testing.fhir_validity import check
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_subscribing import Wanted, digest, subscription

TOPIC = "https://emr.example/SubscriptionTopic/orders"
SEARCH = "ServiceRequest?status=active&category=1"
PLAIN = Wanted(SEARCH, "https://gateway.example/fhir/notifications/emr", "s3cret")
BY_TOPIC = PLAIN._replace(topic=TOPIC, heartbeat_s=300)
BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"


@pytest.mark.parametrize(
    ("release", "wanted"),
    [
        (Release.R4, PLAIN),
        (Release.R4B, PLAIN),
        (Release.R4, BY_TOPIC),
        (Release.R4B, BY_TOPIC),
        (Release.R5, BY_TOPIC),
    ],
)
@pytest.mark.parametrize("content", ["empty", "id-only", "full-resource"])
def test_it_is_taken_by_the_models_of_its_release(release: Release, wanted: Wanted, content: str) -> None:
    made = subscription(wanted._replace(content=content), release)  # type: ignore[arg-type]  # (one of three words)
    check(made, release)


def test_a_search_of_r4_is_its_criteria_and_an_empty_hook_has_no_payload() -> None:
    made = subscription(PLAIN, Release.R4)
    assert made["criteria"] == SEARCH
    assert made["channel"]["header"] == ["Authorization: Bearer s3cret"]
    assert made["channel"]["payload"] == "application/fhir+json"
    assert "payload" not in subscription(PLAIN._replace(content="empty"), Release.R4)["channel"]


def test_the_backport_has_the_topic_as_criteria_and_the_search_as_filter() -> None:
    made = subscription(BY_TOPIC, Release.R4)
    assert made["criteria"] == TOPIC
    (filtered,) = made["_criteria"]["extension"]
    assert filtered == {"url": f"{BACKPORT}/backport-filter-criteria", "valueString": SEARCH}
    assert made["channel"]["_payload"]["extension"][0]["valueCode"] == "id-only"
    assert made["channel"]["extension"][0]["valueUnsignedInt"] == 300
    assert "_criteria" not in subscription(BY_TOPIC._replace(criteria=""), Release.R4)


def test_r5_has_elements_for_all_of_it() -> None:
    made = subscription(BY_TOPIC, Release.R5)
    assert (made["topic"], made["content"], made["heartbeatPeriod"]) == (TOPIC, "id-only", 300)
    assert made["filterBy"] == [
        {"resourceType": "ServiceRequest", "filterParameter": "status", "value": "active"},
        {"resourceType": "ServiceRequest", "filterParameter": "category", "value": "1"},
    ]
    assert made["parameter"] == [{"name": "Authorization", "value": "Bearer s3cret"}]
    assert "heartbeatPeriod" not in subscription(BY_TOPIC._replace(heartbeat_s=0), Release.R5)


def test_another_secret_is_something_else_to_ask_for_and_the_digest_does_not_show_it() -> None:
    one, other = (digest(subscription(PLAIN._replace(secret=each), Release.R4)) for each in ("s3cret", "0ther"))
    assert one != other
    assert one == digest(subscription(PLAIN, Release.R4))
    assert "s3cret" not in one
