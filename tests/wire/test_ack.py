"""Every refusal becomes a truthful answer in the words and layout of the sender's version."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.refusal import Refusal, RefusalKind
from gateway.wire.ack import ACKNOWLEDGMENT, ERRORS_MAX, MEANING, MSA_3_CHARACTERS_MAX, acknowledge, code_for
from gateway.wire.er7 import Message, check_header, parse

NOW = datetime(2026, 7, 5, 8, 0, 1, tzinfo=timezone(timedelta(hours=2)))
NO_PATIENT = Refusal(RefusalKind.MISSING_FIELD, "PID-3", "no patient identifier", "send PID-3")
TOO_LONG = Refusal(RefusalKind.TOO_LONG, "OBR[2]-18(2).1", "the accession number has 20 characters, 16 are allowed")


def order(version: str = "2.5.1", charset: str = "", control_id: str = "M0001") -> Message:
    head = f"MSH|^~\\&|RIS^1.2.3^ISO|RADX|GATEWAY|RADY|20260705||ORM^O01|{control_id}|P|{version}||||||{charset}"
    return parse(head.encode("utf-8"))


def answer(message: Message | None, *refusals: Refusal, notes: tuple[str, ...] = (), raw: bytes = b"") -> Message:
    return parse(acknowledge(message, refusals, now=NOW, notes=notes, raw=raw))


def test_every_kind_of_refusal_has_a_code_that_table_0357_knows() -> None:
    assert set(ACKNOWLEDGMENT) == set(RefusalKind)
    assert {code for code, _ in ACKNOWLEDGMENT.values()} <= set(MEANING)
    assert {outcome for _, outcome in ACKNOWLEDGMENT.values()} == {"AE", "AR"}


def test_only_what_may_heal_by_itself_asks_the_sender_to_try_again() -> None:
    assert [kind for kind, row in ACKNOWLEDGMENT.items() if row == (207, "AR")] == [RefusalKind.TRANSIENT]


@pytest.mark.parametrize("kind", RefusalKind)
@pytest.mark.parametrize("version", ["2.1", "2.3.1", "2.5.1", "2.9"])
def test_every_kind_is_answered_in_every_layout(kind: RefusalKind, version: str) -> None:
    told = answer(order(version), Refusal(kind, "ORC-2.1", "it is wrong", "mend it"))
    code, outcome = ACKNOWLEDGMENT[kind]
    if kind is RefusalKind.TOO_LONG and version != "2.9":
        code = 102
    error = told.first("ERR")
    assert error is not None
    assert told.segments[1].text(1) == outcome
    assert (error.text(3) if version >= "2.5" else error.text(1, 1, 4)) == str(code)


def test_header_is_swapped_and_echoes_what_the_sender_must_recognise() -> None:
    told = answer(order(charset="8859/1"))
    assert [told.msh.raw(n) for n in (3, 4, 5, 6)] == ["GATEWAY", "RADY", "RIS^1.2.3^ISO", "RADX"]
    assert told.msh.text(7) == "20260705080001+0200"
    assert [told.msh.raw(n) for n in (9, 11, 12, 18)] == ["ACK^O01^ACK", "P", "2.5.1", "8859/1"]
    assert [segment.name for segment in told.segments] == ["MSH", "MSA"]
    assert [told.segments[1].raw(n) for n in (1, 2, 3)] == ["AA", "M0001", ""]
    assert check_header(told) == []


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("2.1", "ACK"),
        ("2.2", "ACK^O01"),
        ("2.3.1", "ACK^O01"),
        ("2.4", "ACK^O01^ACK"),
        ("2.10", "ACK^O01^ACK"),
        ("x", "ACK^O01^ACK"),
    ],
)
def test_message_type_as_the_version_has_it(version: str, kind: str) -> None:
    assert answer(order(version)).msh.raw(9) == kind


def test_own_control_id_is_short_and_differs_by_message_and_time() -> None:
    same = {acknowledge(order(), now=NOW), acknowledge(order(), now=NOW)}
    assert len(same) == 1
    ids = {
        answer(order()).control_id,
        answer(order(control_id="M0002")).control_id,
        parse(acknowledge(order(), now=NOW + timedelta(microseconds=1))).control_id,
        answer(None, raw=b"a").control_id,
        answer(None, raw=b"b").control_id,
    }
    assert len(ids) == 5
    assert {len(each) for each in ids} == {20}


def test_every_refusal_gets_its_err_with_place_code_reason_and_hint() -> None:
    told = answer(order(), NO_PATIENT, TOO_LONG)
    first, second = told.all("ERR")
    assert [first.raw(n) for n in (1, 2, 3, 4)] == ["", "PID^1^3", "101^Required field missing^HL70357", "E"]
    assert first.text(5) == "MISSING_FIELD"
    assert first.text(7) == "PID-3: no patient identifier (send PID-3)"
    assert first.text(8) == "no patient identifier"
    assert second.raw(2) == "OBR^2^18^2^1"
    assert second.text(3) == "102"
    assert told.segments[1].text(1) == "AE"


def test_before_2_5_there_is_one_err_with_repeated_err_1() -> None:
    (error,) = answer(order("2.3.1"), NO_PATIENT, TOO_LONG).all("ERR")
    assert error.field(1) == (
        (("PID",), ("1",), ("3",), ("101", "Required field missing", "HL70357")),
        (("OBR",), ("2",), ("18",), ("102", "Data type error", "HL70357")),
    )


@pytest.mark.parametrize(
    ("where", "location"),
    [
        ("PID", "PID^1"), ("OBR[3]", "OBR^3"), ("PID-3", "PID^1^3"), ("PID-3.1", "PID^1^3^1^1"),
        ("PID-3(2)", "PID^1^3^2"), ("PID-3(2).4.1", "PID^1^3^2^4^1"), ("IPC[2]-9(2).1.3", "IPC^2^9^2^1^3"),
        ("ZDS-1", "ZDS^1^1"), ("", ""), ("(0040,0100)[0]", ""), ("ServiceRequest.code", ""),
    ],
)  # fmt: skip
def test_places_become_err_2(where: str, location: str) -> None:
    error = answer(order(), Refusal(RefusalKind.BAD_VALUE, where, "wrong")).first("ERR")
    assert error is not None
    assert error.raw(2) == location


def test_one_rejection_makes_the_whole_answer_a_rejection() -> None:
    told = answer(order(), NO_PATIENT, Refusal(RefusalKind.UNSUPPORTED_VERSION, "MSH-12", "version 9"))
    assert told.segments[1].text(1) == "AR"


def test_too_long_is_104_only_for_versions_that_have_it() -> None:
    codes = [code_for(RefusalKind.TOO_LONG, version) for version in ((2, 3, 1), (2, 5, 1), (2, 6, 0))]
    assert codes == [102, 102, 104]


def test_msa_3_shows_notes_and_reasons_in_whole_words() -> None:
    assert answer(order(), notes=("held: no procedure rule",)).segments[1].text(3) == "held: no procedure rule"
    shown = answer(order("2.3.1"), NO_PATIENT, TOO_LONG).segments[1].text(3)
    assert shown == "PID-3: no patient identifier (send PID-3); OBR[2]-18(2).1: the accession ..."
    assert len(answer(order(), notes=("x" * 200,)).segments[1].text(3)) == MSA_3_CHARACTERS_MAX


def test_number_of_errors_is_bounded() -> None:
    wrong = [Refusal(RefusalKind.BAD_VALUE, f"OBR[{number}]-7", "no time") for number in range(1, ERRORS_MAX + 10)]
    assert len(answer(order(), *wrong).all("ERR")) == ERRORS_MAX


def test_one_place_is_told_once_and_different_problems_of_it_all() -> None:
    start = Refusal(RefusalKind.MISSING_FIELD, "TQ1-7", "no start")
    again = Refusal(RefusalKind.MISSING_FIELD, "TQ1-7", "no start time either")
    wrong = Refusal(RefusalKind.BAD_VALUE, "TQ1-7", "no time")
    nowhere = [Refusal(RefusalKind.INTERNAL, "", text) for text in ("one", "two", "one")]
    told = answer(order(), start, again, wrong, *nowhere)
    assert [error.text(8) for error in told.all("ERR")] == ["no start", "no time", "one", "two"]


def test_quoted_values_cannot_break_the_answer() -> None:
    text = "value A|B^C~D\\E&F\r\nMSA|AA|\x0b\x1c is unknown"
    told = answer(order(), Refusal(RefusalKind.UNKNOWN_CODE, "OBR-4.1", text))
    assert [segment.name for segment in told.segments] == ["MSH", "MSA", "ERR"]
    assert told.segments[2].text(8) == " ".join(text.split())


def test_characters_that_the_senders_set_lacks_become_question_marks() -> None:
    raw = acknowledge(order(charset="8859/1"), [Refusal(RefusalKind.UNKNOWN_CODE, "", "Größe 山田")], now=NOW)
    assert "Größe ??".encode("iso8859-1") in raw


def test_answers_use_the_senders_delimiters() -> None:
    message = parse(b"MSH#@*!%#RIS#######ORM@O01#M#1#P#2.5")
    raw = acknowledge(message, [NO_PATIENT], now=NOW)
    assert raw.startswith(b"MSH#@*!%###RIS#")
    assert b"ERR##PID@1@3#101@Required field missing@HL70357#E" in raw


@pytest.mark.parametrize("signs", ["^", "^~", "^~\\"])
@pytest.mark.parametrize("version", ["2.3", "2.5"])
def test_short_delimiters_still_give_a_readable_answer(signs: str, version: str) -> None:
    message = parse(f"MSH|{signs}|RIS||||||ORM^O01|M1|P|{version}".encode())
    told = answer(message, NO_PATIENT, TOO_LONG)
    assert told.segments[1].text(2) == "M1"
    assert told.all("ERR")


# --- what could not be read ---------------------------------------------------------------------------------------


def test_control_id_is_fished_out_of_what_cannot_be_decoded() -> None:
    raw = b"MSH|^~\\&|RIS|RADX|GW|X|2026||ORM^O01|M\xe47|P|2.3.1||||||UNICODE UTF-8\rPID|||\xff"
    told = acknowledge(None, [Refusal(RefusalKind.UNREADABLE, "PID-3", "not UTF-8")], now=NOW, raw=raw)
    assert told.startswith(b"MSH|^~\\&|GW|X|RIS|RADX|")
    assert b"\rMSA|AR|M\xe47|PID-3: not UTF-8\r" in told


def test_a_message_after_junk_or_in_utf_16_is_recognised() -> None:
    text = "MSH|^~\\&|RIS|RADX|GW|X|2026||ORM^O01|M7|P|2.3.1"
    for raw in (b"junk " + text.encode(), text.encode("utf-16"), text.encode("utf-16-be"), text.encode("utf-16-le")):
        assert answer(None, NO_PATIENT, raw=raw).segments[1].text(2) == "M7"


@pytest.mark.parametrize("raw", [b"", b"garbage", b"MSH", b"MSH|||||", b"\xff\xfe", b"PID|||1"])
def test_without_a_header_the_answer_has_no_control_id_but_is_there(raw: bytes) -> None:
    told = answer(None, Refusal(RefusalKind.UNREADABLE, "MSH", "no MSH segment"), raw=raw)
    assert [told.segments[1].raw(n) for n in (1, 2)] == ["AR", ""]
    assert check_header(told) == []


@given(
    st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: b"MSH|^~\\&|" + tail),
    st.lists(st.builds(Refusal, st.sampled_from(RefusalKind), st.text(max_size=10), st.text(max_size=100)), max_size=3),
    st.lists(st.text(max_size=50), max_size=2),
)
def test_an_answer_to_anything_can_be_built(raw: bytes, refusals: list[Refusal], notes: list[str]) -> None:
    told = acknowledge(None, refusals, now=datetime(2026, 7, 5, tzinfo=UTC), notes=notes, raw=raw)
    assert told.startswith(b"MSH")
    assert told.count(b"\r") >= 2
    assert not [line for line in told.split(b"\r") if line and line[:3] not in (b"MSH", b"MSA", b"ERR")]
