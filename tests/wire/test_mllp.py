"""Frames come out of a byte stream the same way however it was cut; what is no frame is told, never fatal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.refusal import RefusalKind
from gateway.wire.mllp import REMEMBERED_BYTES_MAX, Broken, Event, Fault, Frame, Framer, Junk, wrap

ORDER = b"MSH|^~\\&|RIS\rPID|||100\r"


def told(stream: bytes, chunk_bytes: int = 0, frame_bytes_max: int = 10_000) -> list[Event]:
    """Every event of a stream that ends after `stream`."""
    framer = Framer(frame_bytes_max)
    size = chunk_bytes or len(stream) or 1
    events = [event for at in range(0, len(stream), size) for event in framer.feed(stream[at : at + size])]
    return events + framer.close()


content = (
    st.binary(max_size=200)
    .map(lambda data: data.translate(None, b"\x0b\x1c"))
    .filter(lambda data: data not in (b"\x06", b"\x15"))  # alone in a block these are commit blocks (release 2)
)
pieces = st.lists(
    st.sampled_from([b"\x0b", b"\x1c", b"\x1c\r", b"\r", b"\n", b"\x00", b"MSH|", b"x" * 30]), max_size=30
)


@given(st.lists(content, max_size=6), st.sampled_from([0, 1, 2, 3, 7]))
def test_frames_come_out_whole_however_the_stream_is_cut(messages: list[bytes], chunk_bytes: int) -> None:
    stream = b"".join(wrap(message) for message in messages)
    assert told(stream, chunk_bytes) == [Frame(message) for message in messages]


@given(pieces, st.integers(1, 9), st.sampled_from([20, 100]))
def test_events_do_not_depend_on_the_chunks(parts: list[bytes], chunk_bytes: int, frame_bytes_max: int) -> None:
    stream = b"".join(parts)
    assert told(stream, chunk_bytes, frame_bytes_max) == told(stream, 0, frame_bytes_max)


@given(st.binary(max_size=500), st.integers(1, 50))
def test_random_bytes_are_all_accounted_for(stream: bytes, chunk_bytes: int) -> None:
    events = told(stream, chunk_bytes)
    counted = sum(len(event.data) if isinstance(event, Frame) else event.size for event in events)
    assert counted <= len(stream)
    assert not [
        event for event in events if isinstance(event, Frame) and (b"\x0b" in event.data or b"\x1c" in event.data)
    ]


def test_two_frames_in_one_chunk_are_two_frames() -> None:
    assert Framer().feed(wrap(b"first") + wrap(b"second")) == [Frame(b"first"), Frame(b"second")]


def test_a_frame_is_told_at_its_end_block_without_waiting_for_the_carriage_return() -> None:
    framer = Framer()
    assert framer.feed(b"\x0b" + ORDER + b"\x1c") == [Frame(ORDER)]
    assert framer.feed(b"\r\x0bnext\x1c\r") == [Frame(b"next")]
    assert not framer.unfinished


def test_line_ends_and_nuls_between_frames_are_silent() -> None:
    assert told(b"\r\n" + wrap(ORDER) + b"\x00\x00\n\r" + wrap(ORDER) + b"\n") == [Frame(ORDER), Frame(ORDER)]


def test_junk_before_a_start_block_is_told_and_the_frame_still_comes() -> None:
    assert told(b"GET / HTTP/1.1\r\n" + wrap(ORDER)) == [
        Junk(b"GET / HTTP/1.1\r\n", Fault.OUTSIDE, 16),
        Frame(ORDER),
    ]


def test_wrong_second_end_byte_is_junk_after_a_good_frame() -> None:
    assert told(b"\x0b" + ORDER + b"\x1c\xff" + wrap(b"next")) == [
        Frame(ORDER),
        Junk(b"\xff", Fault.OUTSIDE, 1),
        Frame(b"next"),
    ]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_message_without_start_block_is_broken_so_that_it_gets_an_answer(mark: bytes) -> None:
    (event,) = Framer().feed(mark + ORDER + b"\x1c\r")
    assert event == Broken(mark + ORDER + b"\x1c", Fault.UNFRAMED, len(mark + ORDER) + 1)


def test_a_new_start_block_gives_up_the_frame_before_it() -> None:
    assert told(b"\x0bMSH|trunc" + wrap(ORDER)) == [Broken(b"MSH|trunc", Fault.INTERRUPTED, 9), Frame(ORDER)]


def test_a_start_block_sent_twice_begins_one_message() -> None:
    assert told(b"\x0b\x0b" + wrap(ORDER) + b"\x0b") == [Frame(ORDER)]


def test_end_of_stream_inside_a_frame_is_broken() -> None:
    assert told(b"\x0bMSH|trunc") == [Broken(b"MSH|trunc", Fault.CUT_OFF, 9)]
    assert told(b"") == []


def test_a_frame_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert told(wrap(b"x" * 100), frame_bytes_max=100) == [Frame(b"x" * 100)]
    assert told(wrap(b"x" * 101), frame_bytes_max=100) == [Broken(b"x" * 101, Fault.OVERSIZED, 101)]


@pytest.mark.parametrize("chunk_bytes", [0, 1000, 4096])
def test_an_oversized_frame_is_drained_and_the_next_one_comes(chunk_bytes: int) -> None:
    long = b"MSH|" + b"y" * 100_000
    broken, good = told(wrap(long) + wrap(ORDER), chunk_bytes, frame_bytes_max=20_000)
    assert broken == Broken(long[:REMEMBERED_BYTES_MAX], Fault.OVERSIZED, len(long))
    assert good == Frame(ORDER)


def test_memory_is_bounded_inside_and_outside_frames() -> None:
    inside, outside = Framer(frame_bytes_max=20_000), Framer(frame_bytes_max=20_000)
    inside.feed(b"\x0b")
    for _ in range(100):
        inside.feed(b"z" * 10_000)
        outside.feed(b"z" * 10_000)
    assert len(inside._kept) <= 20_000
    assert len(outside._kept) <= REMEMBERED_BYTES_MAX
    assert outside.close() == [Junk(b"z" * REMEMBERED_BYTES_MAX, Fault.OUTSIDE, 1_000_000)]


def test_unfinished_means_bytes_that_no_event_told_of() -> None:
    framer = Framer()
    assert not framer.unfinished
    framer.feed(b"\r\n")
    assert not framer.unfinished
    framer.feed(b"\x0b")
    assert framer.unfinished
    framer.feed(b"\x1c\r")
    assert not framer.unfinished


def test_refusals_of_broken_frames_say_too_long_only_where_it_is_length() -> None:
    kinds = {fault: Broken(b"", fault, 1).refusal.kind for fault in Fault}
    assert kinds.pop(Fault.OVERSIZED) is RefusalKind.TOO_LONG
    assert set(kinds.values()) == {RefusalKind.UNREADABLE}


def test_wrapping_drops_the_framing_bytes_from_the_data() -> None:
    assert Framer().feed(wrap(b"a\x0bb\x1cc")) == [Frame(b"abc")]
