"""Blocks with several messages: each message as if it had come alone, the answer as the sender framed it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.refusal import RefusalKind, Refused
from gateway.wire.hl7_batch import MESSAGES_MAX, answer, split

NOW = datetime(2026, 7, 5, 8, 0, 1, tzinfo=UTC)
BHS = b"BHS|^~\\&|RIS|RADX|GATEWAY|RADY|20260705||night|all of it|B77"
FHS = b"FHS|^~\\&|RIS|RADX|GATEWAY|RADY|20260705||file||F88"


def order(number: int) -> bytes:
    return b"MSH|^~\\&|RIS|||||ORM^O01|M%d|P|2.3.1\rPID|||100\rNTE|1||about MSH and BTS|" % number


def lines(*parts: bytes, end: bytes = b"\r") -> bytes:
    return b"".join(part.replace(b"\r", end) + end for part in parts)


@pytest.mark.parametrize("raw", [order(1), b"\x0d" + order(1), b"", b"junk", b"MSH", lines(order(1), b"BTS|1")])
def test_one_message_is_no_batch(raw: bytes) -> None:
    assert split(raw) is None


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b"\r\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\r\n\0 "])
def test_a_batch_is_cut_into_its_messages_whatever_ends_the_lines(end: bytes, mark: bytes) -> None:
    batch = split(mark + lines(BHS, order(1), order(2), b"BTS|2", end=end))
    assert batch is not None
    kept = mark if mark == b"\xef\xbb\xbf" else b""
    assert list(batch.messages) == [kept + lines(order(number), end=end) for number in (1, 2)]
    assert batch.notes == []


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        ([FHS, BHS, order(1), b"BTS|1", b"FTS|1"], [1]),
        ([FHS, order(1), order(2)], [2]),
        ([BHS, order(1), order(2)], [2]),
        ([FHS, BHS, order(1), BHS, order(2), order(3), b"FTS|2"], [1, 2]),
        ([BHS, order(1), b"BTS", order(2)], [1, 1]),
        ([BHS, b"BTS|0"], [0]),
        ([FHS, b"FTS|0"], []),
        ([order(1), order(2), order(3)], [3]),
    ],
)
def test_headers_and_trailers_may_be_left_out(parts: list[bytes], sizes: list[int]) -> None:
    batch = split(lines(*parts))
    assert batch is not None
    assert [len(part.messages) for part in batch.parts] == sizes
    assert batch.notes == []


def test_counts_that_are_wrong_are_told_and_the_messages_kept() -> None:
    batch = split(lines(FHS, BHS, order(1), order(2), b"BTS|3|comment", b"FTS|2"))
    assert batch is not None
    assert batch.notes == ["BTS-1 counts 3 messages, 2 came", "FTS-1 counts 2 batches, 1 came"]
    (told,) = answer(batch, [b"MSH|1\r", b"MSH|2\r"], NOW)
    assert told.endswith(b"FTS|1|BTS-1 counts 3 messages, 2 came; FTS-1 counts 2 batches, 1 came\r")


def test_the_answer_to_a_batch_is_a_batch_that_refers_to_it() -> None:
    batch = split(lines(FHS, BHS, order(1), order(2), b"BTS|2", b"FTS|1"))
    assert batch is not None
    (told,) = answer(batch, [b"MSH|one\rMSA|AA|M1\r", b"MSH|two\rMSA|AE|M2\r"], NOW)
    segments = told.split(b"\r")
    assert [line[:3] for line in segments] == [b"FHS", b"BHS", b"MSH", b"MSA", b"MSH", b"MSA", b"BTS", b"FTS", b""]
    for header, reference in ((segments[0], b"F88"), (segments[1], b"B77")):
        fields = header.split(b"|")
        assert fields[1:7] == [b"^~\\&", b"GATEWAY", b"RADY", b"RIS", b"RADX", b"20260705080001+0000"]
        assert fields[11] == reference
        assert fields[10] != reference
    assert segments[-3:-1] == [b"BTS|2", b"FTS|1"]


def test_the_answer_to_a_batch_is_one_that_can_be_split_again() -> None:
    batch = split(lines(BHS, order(1), BHS, order(2), order(3)))
    assert batch is not None
    (told,) = answer(batch, [lines(order(number)) for number in (1, 2, 3)], NOW)
    again = split(told)
    assert again is not None
    assert [len(part.messages) for part in again.parts] == [1, 2]
    assert again.notes == []


def test_messages_in_a_row_are_answered_one_by_one() -> None:
    batch = split(lines(order(1), order(2), order(3)))
    assert batch is not None
    assert not batch.headed
    assert answer(batch, [b"one", b"", b"three"], NOW) == [b"one", b"three"]


def test_a_batch_of_which_nothing_is_to_be_told_is_not_answered() -> None:
    batch = split(lines(BHS, order(1)))
    assert batch is not None
    assert answer(batch, [b""], NOW) == []


def test_an_empty_batch_is_answered_by_an_empty_batch() -> None:
    batch = split(lines(BHS, b"BTS|0"))
    assert batch is not None
    (told,) = answer(batch, [], NOW)
    assert [line[:5] for line in told.split(b"\r")] == [b"BHS|^", b"BTS|0", b""]


def test_other_delimiters_are_kept() -> None:
    batch = split(b"BHS#@*!%#RIS#RADX\rMSH#@*!%#RIS\rBTS#1\r")
    assert batch is not None
    (told,) = answer(batch, [b"MSH#\r"], NOW)
    assert told.startswith(b"BHS#@*!%###RIS#RADX#")
    assert told.endswith(b"BTS#1\r")


@pytest.mark.parametrize("header", [b"FHS\r", b"BHS\r", b"FHS\xff", b"BHS\0^~"])
def test_a_header_without_a_separator_is_answered_with_the_usual_one(header: bytes) -> None:
    batch = split(header + b"\r" + order(1))
    assert batch is not None
    (told,) = answer(batch, [b"MSH|one\r"], NOW)
    assert told.startswith(header[:3] + b"|")
    assert {line[3:4] for line in told.split(b"\r") if line} == {b"|"}


def test_the_number_of_messages_is_bounded() -> None:
    with pytest.raises(Refused) as raised:
        split(b"MSH|^~\\&|\r" * (MESSAGES_MAX + 1))
    assert raised.value.refusals[0].kind is RefusalKind.TOO_LONG


@given(
    st.lists(
        st.sampled_from([b"FHS", b"BHS|", b"MSH|^~\\&|", b"BTS|2", b"FTS|\xff", b"\r", b"\n", b"PID|x", b"\0", b"|"]),
        max_size=12,
    ).map(b"".join)
)
def test_anything_can_be_cut_and_answered(raw: bytes) -> None:
    batch = split(raw)
    if batch is not None:
        told = answer(batch, [b"MSH|\r" for _ in batch.messages], NOW)
        assert all(isinstance(block, bytes) for block in told)
        assert sum(map(len, batch.messages)) <= len(raw) + 3 * len(list(batch.messages))
