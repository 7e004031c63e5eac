"""The conformance statement says what the gateway does, in every part that people and machines compare."""

import re
from pathlib import Path

import pytest

from gateway.answering import REJECTIONS as REJECTIONS_OF_DENIALS
from gateway.config import load_site
from gateway.conformance import FIND_STATUSES, N_STATUSES, site_statement, statement
from gateway.conformance_security import security_statement
from gateway.domain.access import Denial
from gateway.domain.performed_table import REQUIREMENTS
from gateway.testing import site
from gateway.wire.dimse import OPERATIONS, Command, Operation, refusal_of
from gateway.wire.mpps_dataset import STATUSES, accepted_answer, retrieved_answer
from gateway.wire.tls_profiles import PROFILES
from gateway.wire.upper_layer import SOP_CLASSES, TRANSFER_SYNTAXES, VERIFICATION
from gateway.wire.user_identity import IdentityKind
from gateway.workflow.forwarding import EVENT_TYPES

TEXT = "\n".join(statement())


def section(heading: str, text: str = TEXT) -> str:
    """What stands under this heading."""
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every row of its tables."""
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


@pytest.mark.parametrize("uid", SOP_CLASSES)
def test_every_class_that_is_accepted_is_listed_with_what_is_served_for_it(uid: str) -> None:
    served = {row[1]: row[2] for row in rows(section("SOP classes and transfer syntaxes as SCP")) if len(row) == 3}
    operations = OPERATIONS.get(uid, frozenset({Operation.C_ECHO}))
    assert set(served[f"`{uid}`"].split(", ")) == {operation.name.replace("_", "-") for operation in operations}
    assert (uid in OPERATIONS) == (uid != VERIFICATION)


@pytest.mark.parametrize("uid", TRANSFER_SYNTAXES)
def test_every_transfer_syntax_is_listed(uid: str) -> None:
    assert f"`{uid}`" in section("SOP classes and transfer syntaxes as SCP")


def test_every_status_that_can_be_answered_is_listed() -> None:
    listed = {status for status, _, _ in N_STATUSES}
    answered = {*STATUSES.values(), accepted_answer(["00100010"]).status, accepted_answer([], ["00400244"]).status}
    answered |= {retrieved_answer(["00400280"], []).status, retrieved_answer([], ["0020000E"]).status, 0x0000, 0x0210}
    for operation in Operation:
        for context in SOP_CLASSES:
            for sop_class in (*SOP_CLASSES, "", "1.2.3"):
                command = Command(operation, 1, False, sop_class, attribute_list=b"\0")
                refused = refusal_of(command, context)
                if operation.name.startswith("N_") and refused is not None:
                    answered.add(int(refused))
                elif refused is not None and operation is Operation.C_FIND:
                    assert refused in [status for status, _ in FIND_STATUSES]
    assert listed == answered


def test_statuses_are_listed_in_order_and_said_in_the_statement() -> None:
    told = rows(section("MPPS, MPPS Retrieve and Instance Availability Notification: statuses"))[2:]
    assert (
        [row[0] for row in told] == [f"{status:04X}" for status, _, _ in N_STATUSES] == sorted(row[0] for row in told)
    )


def test_all_five_event_types_are_told_with_when_they_are_sent() -> None:
    told = {row[0]: row[2] for row in rows(section("MPPS as SCU, and MPPS Notification")) if len(row) == 3}
    assert {number: when for number, when in told.items() if number.isdigit()} == {
        "1": "after N-CREATE",
        "2": "after N-SET COMPLETED",
        "3": "after N-SET DISCONTINUED",
        "4": "after N-SET that changes no status",
        "5": "never: performed steps are not deleted",
    }
    assert {str(number) for number in EVENT_TYPES.values()} == {"1", "2", "3", "4"}


def test_what_follows_the_answers_of_destinations_is_told() -> None:
    told = {row[0]: row[1:] for row in rows(section("MPPS as SCU, and MPPS Notification")) if len(row) == 4}
    ask, few = "ask a person", "retry a few times, then ask a person"
    assert told["0000"] == told["0001, 0107, 0116, Bxxx"] == ["done"] * 3
    assert told["0110 with Error ID A710"] == [
        few, "done where it may have been sent before, else ask a person", few,
    ]  # fmt: skip
    assert told["0111"] == ["done", few, few]
    assert told["0118, 0122"] == told["0124"] == [ask] * 3


@pytest.mark.parametrize(
    "item",
    [
        "may be created and set",  # attributes accepted
        "created IN PROGRESS only",  # behaviour on creation
        "are final",  # behaviour on COMPLETED and DISCONTINUED
        "are not coerced",
        "kept without limit",
    ],
)
def test_the_items_that_the_standard_asks_for_are_there(item: str) -> None:
    """PS3.4 F.7.4.2.1; the attributes are a page of their own, and the effect on the worklist a table."""
    assert item in section("MPPS as SCP").replace("\n", " ")
    page = (Path(__file__).parents[2] / "docs" / "reference" / "performed-step.md").read_text(encoding="utf-8")
    assert all(f" {requirement.keyword} " in page for requirement in REQUIREMENTS)
    assert "SCHEDULED" in section("What a performed procedure step does to the worklist")


def test_a_site_tells_whom_it_sends_performed_steps_to(tmp_path: Path) -> None:
    places = [
        {"name": "pacs", "host": "127.0.0.1", "port": 104, "performed": {"ae_title": "PACS", "sends": "coerced"}},
        {"name": "watcher", "host": "127.0.0.1", "port": 105,
         "performed": {"ae_title": "WATCH", "calling_ae_title": "PPSM", "sends": "events"}},
        {"name": "ris", "host": "127.0.0.1", "port": 2576, "status": {}},
    ]  # fmt: skip
    loaded = load_site(site(tmp_path, destinations=places, performed={"availability": "ignored"}))
    text = "\n".join(site_statement(loaded))
    assert [row for row in rows(text) if row[0] in ("pacs", "watcher", "ris")] == [
        ["pacs", "PACS", "GATEWAY", "no", "N-CREATE and N-SET with patient and order of the worklist"],
        ["watcher", "WATCH", "PPSM", "no", "N-EVENT-REPORT"],
    ]
    assert ["Instance Availability Notification", "is kept and changes nothing"] in rows(text)


def test_a_site_that_sends_nothing_says_so(tmp_path: Path) -> None:
    text = "\n".join(site_statement(load_site(site(tmp_path))))
    assert "Performed steps are sent to nobody." in text
    assert ["Instance Availability Notification", "completes what no MPPS is held for"] in rows(text)
    assert not re.search(r"\bNone\b", text)


def test_every_denial_profile_and_kind_of_identity_is_in_the_security_part() -> None:
    said = "\n".join(security_statement())
    for denial in Denial:
        assert denial.value in said
    for name in PROFILES:
        assert f"`{name}`" in said
    assert {f"\n| {kind.value} |" in said for kind in IdentityKind} == {True}
    assert all(f"{each.result}, {each.source}, {each.reason}" in said for each in REJECTIONS_OF_DENIALS.values())
