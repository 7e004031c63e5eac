"""Which answers a message asks for, where each goes, and answers order by order."""

import itertools
from datetime import UTC, datetime

import pytest

from gateway.domain.identifiers import Identifier
from gateway.domain.order import OrderControl, OrderResponse
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.wire.ack import AnswerStyle, acknowledge
from gateway.wire.ack_modes import Answers, Place, Plan, Wanted, When, answers, plan, wanted
from gateway.wire.er7 import Message, parse

NOW = datetime(2026, 7, 5, 8, tzinfo=UTC)
BAD = Refusal(RefusalKind.MISSING_FIELD, "PID-3", "no patient identifier", "send PID-3")
UNKNOWN_EVENT = Refusal(RefusalKind.UNSUPPORTED_EVENT, "MSH-9", "not taken")
UNREADABLE = Refusal(RefusalKind.UNREADABLE, "PID-5", "not UTF-8")
REFUSALS = {"AA": (), "AE": (BAD,), "AR": (UNKNOWN_EVENT,)}


def message(kind: str = "ORM^O01", version: str = "2.5.1", accept: str = "", application: str = "") -> Message:
    lines = [
        f"MSH|^~\\&|RIS|RADX|GATEWAY|RADX|20260705||{kind}|M1|P|{version}|||{accept}|{application}",
        "PID|||100",
        "ORC|NW|P1^OE|F1^RIS",
        "OBR|1|P1^OE|F1^RIS|CTHEAD^CT head^99PROC",
        "ORC|NW|P2^OE|F2^RIS",
        "OBR|2|P2^OE|F2^RIS|CTABD",
    ]
    return parse("\r".join(lines).encode())


# --- what is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "application", "asked"),
    [
        ("", "", None), ('""', '""', None),
        ("AL", "", Wanted(When.ALWAYS, When.NEVER)), ("", "AL", Wanted(When.NEVER, When.ALWAYS)),
        ("er", "su", Wanted(When.ON_ERROR, When.ON_SUCCESS)), ("NE", "NE", Wanted(When.NEVER, When.NEVER)),
        ("YES", "NE", Wanted(When.ALWAYS, When.NEVER)),
    ],
)  # fmt: skip
def test_msh_15_and_16_say_what_is_wanted(accept: str, application: str, asked: Wanted | None) -> None:
    assert wanted(message(accept=accept, application=application)) == asked


@pytest.mark.parametrize("outcome", ["AA", "AE", "AR"])
@pytest.mark.parametrize("destination", [True, False])
def test_original_mode_has_one_answer_on_the_connection(outcome: str, destination: bool) -> None:
    assert plan(None, outcome, destination) == Plan(None, Place.CONNECTION)


# MSH-15, MSH-16 -> for AA, AE and AR: what is said. A letter pair in the first place is the commit answer on the
# connection (a: as for AA, e: as for AE, r: as for AR, -: none), in the second the application's: c connection,
# d destination, - nowhere.
WITHOUT_DESTINATION = {
    "AL AL": "-c -c -c", "AL NE": "a- e- r-", "AL ER": "a- -c -c", "AL SU": "-c e- r-",
    "NE AL": "-c -c -c", "NE NE": "-- -- --", "NE ER": "-- -c -c", "NE SU": "-c -- --",
    "ER AL": "-c -c -c", "ER NE": "-- e- r-", "ER ER": "-- -c -c", "ER SU": "-c e- r-",
    "SU AL": "-c -c -c", "SU NE": "a- -- --", "SU ER": "a- -c -c", "SU SU": "-c -- --",
}  # fmt: skip
WITH_DESTINATION = {
    "AL AL": "ad ad r-", "AL NE": "a- e- r-", "AL ER": "a- ad r-", "AL SU": "ad e- r-",
    "NE AL": "-d -d -d", "NE NE": "-- -- --", "NE ER": "-- -d -d", "NE SU": "-d -- --",
    "ER AL": "-d -d r-", "ER NE": "-- e- r-", "ER ER": "-- -d r-", "ER SU": "-d e- r-",
    "SU AL": "ad ad -d", "SU NE": "a- -- --", "SU ER": "a- ad -d", "SU SU": "ad -- --",
}  # fmt: skip
_COMMIT = {"a": "AA", "e": "AE", "r": "AR", "-": None}
_PLACE = {"c": Place.CONNECTION, "d": Place.DESTINATION, "-": Place.NOWHERE}


@pytest.mark.parametrize("destination", [True, False])
@pytest.mark.parametrize(("accept", "application"), list(itertools.product(When, When)))
def test_every_combination_of_msh_15_msh_16_and_outcome(accept: When, application: When, destination: bool) -> None:
    table = WITH_DESTINATION if destination else WITHOUT_DESTINATION
    expected = [Plan(_COMMIT[first], _PLACE[second]) for first, second in table[f"{accept} {application}"].split()]
    assert [plan(Wanted(accept, application), each, destination) for each in ("AA", "AE", "AR")] == expected


@pytest.mark.parametrize("destination", [True, False])
@pytest.mark.parametrize("outcome", ["AA", "AE", "AR"])
@pytest.mark.parametrize(("accept", "application"), list(itertools.product(When, When)))
def test_what_is_written_is_what_is_planned(accept: When, application: When, outcome: str, destination: bool) -> None:
    told = answers(message(accept=accept, application=application), REFUSALS[outcome], now=NOW, destination=destination)
    due = plan(Wanted(accept, application), outcome, destination)
    codes = [msa_1(each) for each in (told.here, told.apart)]
    here = outcome if due.application is Place.CONNECTION else f"C{due.commit[1]}" if due.commit else ""
    assert codes == [here, outcome if due.application is Place.DESTINATION else ""]


def msa_1(answer: bytes) -> str:
    return parse(answer).segments[1].text(1) if answer else ""


def test_a_refusal_is_told_by_one_answer_or_the_other() -> None:
    for accept, application in itertools.product((When.ALWAYS, When.ON_ERROR), When):
        for destination in (True, False):
            told = answers(message(accept=accept, application=application), [BAD], now=NOW, destination=destination)
            assert b"PID^1^3" in told.here + told.apart


def test_the_application_acknowledgement_is_a_message_of_its_own() -> None:
    told = answers(message(accept="AL", application="AL"), now=NOW, destination=True)
    commit, application = parse(told.here), parse(told.apart)
    assert commit.control_id != application.control_id
    assert [each.segments[1].text(2) for each in (commit, application)] == ["M1", "M1"]
    assert [application.msh.text(n) for n in (15, 16)] == ["AL", "NE"]
    assert [commit.msh.text(n) for n in (9, 15, 16)] == ["ACK", "", ""]


@pytest.mark.parametrize(("refusal", "code"), [(BAD, "CE"), (UNREADABLE, "CE"), (UNKNOWN_EVENT, "CR")])
def test_commit_reject_is_for_what_msh_cannot_be_taken_for(refusal: Refusal, code: str) -> None:
    assert msa_1(answers(message(accept="AL", application="NE"), [refusal], now=NOW).here) == code


def test_what_cannot_be_read_is_answered_in_original_mode() -> None:
    raw = b"MSH|^~\\&|RIS|||||ORM^O01|M1|P|2.5|||NE|NE\rPID|||\xff"
    assert msa_1(answers(None, [UNREADABLE], now=NOW, raw=raw, destination=True).here) == "AR"


# --- order by order --------------------------------------------------------------------------------------------------

OK_1 = OrderResponse(OrderControl.OK, Identifier("P1", "OE"), Identifier("F1", "RIS"), "SC")


def by_order(asked: Message, *refusals: Refusal, responses: tuple[OrderResponse, ...] = ()) -> Message:
    style = AnswerStyle("order")
    return parse(acknowledge(asked, refusals, now=NOW, responses=responses, style=style))


@pytest.mark.parametrize(
    ("kind", "version", "answer_kind"),
    [
        ("ORM^O01", "2.1", "ORR"), ("ORM^O01", "2.3.1", "ORR^O02"), ("ORM^O01", "2.5.1", "ORR^O02^ORR_O02"),
        ("OMG^O19^OMG_O19", "2.5.1", "ORG^O20^ORG_O20"), ("OMI^O23^OMI_O23", "2.5.1", "ORI^O24^ORI_O24"),
        ("ADT^A08", "2.5.1", "ACK^A08^ACK"), ("ADT^A08", "2.3.1", "ACK^A08"), ("SIU^S12", "2.5", "ACK^S12^ACK"),
        ("ORM^O99", "2.5", "ACK^O99^ACK"),
    ],
)  # fmt: skip
def test_orders_are_answered_in_the_structure_of_their_version(kind: str, version: str, answer_kind: str) -> None:
    for refusals in ((), (BAD,)):
        told = by_order(message(kind, version), *refusals)
        assert told.msh.raw(9) == answer_kind


def test_each_order_has_an_orc_with_its_control_numbers_and_status() -> None:
    new_number = OrderResponse(OrderControl.NA, Identifier("P9", "OE"), Identifier("F2", "RIS"))
    told = by_order(message(), responses=(OK_1, new_number))
    assert [segment.name for segment in told.segments] == ["MSH", "MSA", "ORC", "OBR", "ORC"]
    first, second = told.all("ORC")
    assert [first.raw(n) for n in (1, 2, 3, 4, 5)] == ["OK", "P1^OE", "F1^RIS", "", "SC"]
    assert [second.raw(n) for n in (1, 2, 3)] == ["NA", "P9^OE", "F2^RIS"]


def test_a_refused_message_says_unable_for_each_of_its_orders_once() -> None:
    orders = ["ORC|NW|P1", "OBR|1|P1", "ORC|NW|P1", "OBR|2|P1", "ORC|CA||F7", "ORC|??|P3", "ORC|OK|P4"]
    text = "\r".join(["MSH|^~\\&|RIS||||||ORM^O01|M1|P|2.5.1", *orders])
    told = by_order(parse(text.encode()), BAD)
    assert [(order.text(1), order.text(2), order.text(3)) for order in told.all("ORC")] == [
        ("UA", "P1", ""), ("UC", "", "F7"), ("UA", "P3", ""),
    ]  # fmt: skip
    assert [segment.name for segment in told.segments[:4]] == ["MSH", "MSA", "ERR", "ORC"]


def test_ori_carries_the_procedure_it_answers() -> None:
    text = (
        "MSH|^~\\&|RIS||||||OMI^O23^OMI_O23|M1|P|2.5.1\rORC|NW|P1^OE|F1\rTQ1|1\rOBR|1|P1|F1|CT\rIPC|A1|RP1|1.2.3|S1|CT"
    )
    told = by_order(parse(text.encode()), responses=(OK_1,))
    assert [segment.name for segment in told.segments] == ["MSH", "MSA", "ORC", "OBR", "IPC"]
    assert told.segments[-1].raw(3) == "1.2.3"


def test_commit_answers_are_never_order_by_order() -> None:
    told = answers(message(accept="AL", application="NE"), now=NOW, structure="order", responses=(OK_1,))
    assert parse(told.here).msh.text(9) == "ACK"
    assert told == Answers(told.here)


def test_what_cannot_be_read_is_answered_by_an_ack() -> None:
    told = parse(
        acknowledge(None, [UNREADABLE], now=NOW, raw=b"MSH|^~\\&|R||||||ORM^O01|M1", style=AnswerStyle("order"))
    )
    assert told.message_code == "ACK"
