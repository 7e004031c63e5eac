"""MPPS datasets read, and refusals told in DIMSE's own words."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, write_attributes
from gateway.wire.mpps_dataset import (
    COMMENT_LENGTH_MAX,
    DATASET_BYTES_MAX,
    STATUSES,
    TAGS_MAX,
    VALUE_BYTES_MAX,
    accepted_answer,
    comment,
    excerpt,
    read_step,
    readable_uid,
    refusal_answer,
    retrieved_answer,
    said_instance_uid,
    write_step,
)

SYNTAXES = [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN]
STEP = {
    "00400252": {"vr": "CS", "Value": ["IN PROGRESS"]},
    "00400270": {"vr": "SQ", "Value": [{"0020000D": {"vr": "UI", "Value": ["2.25.100"]}}]},
}


def explicit(tag: str, vr: str, value: bytes) -> bytes:
    head = struct.pack("<HH", int(tag[:4], 16), int(tag[4:], 16)) + vr.encode()
    if vr in ("UN", "SQ", "ZZ"):
        return head + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + struct.pack("<H", len(value)) + value


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
def test_a_step_is_read_in_either_transfer_syntax(transfer_syntax):
    assert read_step(write_attributes(STEP, transfer_syntax, ()), transfer_syntax) == (STEP, ())


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
def test_an_empty_dataset_has_no_attributes(transfer_syntax):
    assert read_step(b"", transfer_syntax) == ({}, ())


def test_group_lengths_private_unknown_empty_and_padded_elements_are_taken_as_they_come():
    data = b"".join((
        explicit("00080000", "UL", b"\x10\0\0\0"),
        explicit("00080005", "CS", b""),
        explicit("00090010", "LO", b"ACME"),
        explicit("00091001", "UN", b"\1\2"),
        explicit("00091002", "ZZ", b"\3\4"),
        explicit("00400241", "AE", b" CT1  "),
        explicit("00400252", "UN", b"IN PROGRESS "),
        explicit("00400270", "SQ", b""),
    ))  # fmt: skip
    attributes, _ = read_step(data, EXPLICIT_VR_LITTLE_ENDIAN)
    assert attributes == {
        "00090010": {"vr": "LO", "Value": ["ACME"]},
        "00091001": {"vr": "UN", "InlineBinary": "AQI="},
        "00091002": {"vr": "UN", "InlineBinary": "AwQ="},
        "00400241": {"vr": "AE", "Value": ["CT1"]},
        "00400252": {"vr": "CS", "Value": ["IN PROGRESS"]},
        "00400270": {"vr": "SQ"},
    }


@pytest.mark.parametrize(
    ("charset", "name", "read"),
    [
        (b"", b"Doe^Jane", "Doe^Jane"),
        (b"ISO_IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
        (b"ISO_IR 192", "山田^太郎".encode(), "山田^太郎"),
        (b" ISO_IR 192  ", "山田^太郎".encode(), "山田^太郎"),
    ],
)
def test_text_is_unicode_whatever_the_character_set(charset, name, read):
    data = explicit("00080005", "CS", charset) + explicit("00100010", "PN", name)
    attributes, _ = read_step(data, EXPLICIT_VR_LITTLE_ENDIAN)
    named = {"00080005": {"vr": "CS", "Value": [charset.decode().strip()]}} if charset else {}
    assert attributes == {"00100010": {"vr": "PN", "Value": [{"Alphabetic": read}]}, **named}


NAME = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jörg"}]}}
KANJI = {"0008103E": {"vr": "LO", "Value": ["頭部"]}}


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("attributes", "like", "term"),
    [
        ({"00080060": {"vr": "CS", "Value": ["CT"]}}, "", ""),
        ({"00080060": {"vr": "CS", "Value": ["CT"]}}, "ISO_IR 100", ""),  # nothing needs it
        (NAME, "ISO_IR 100", "ISO_IR 100"),
        (NAME, "", "ISO_IR 192"),
        (KANJI, "ISO_IR 100", "ISO_IR 192"),
        (NAME | {"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}}, "ISO_IR 192", "ISO_IR 100"),
        (NAME | {"00080005": {"vr": "CS", "Value": ["no such set"]}}, "", "ISO_IR 192"),
    ],
)
def test_what_is_written_can_be_read_again_in_the_least_character_set(attributes, like, term, transfer_syntax):
    wanted = {"00080005": {"vr": "CS", "Value": [like]}} if like else {}
    read, notes = read_step(write_step(attributes, transfer_syntax, wanted), transfer_syntax)
    named = read.pop("00080005", {"Value": [""]})
    assert named["Value"] == [term]
    assert read == {tag: held for tag, held in attributes.items() if tag != "00080005"}
    assert notes == ()


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
def test_a_truncated_dataset_is_refused_wherever_it_is_cut(transfer_syntax):
    whole = write_attributes({"00400270": STEP["00400270"]}, transfer_syntax, ())
    for length in range(1, len(whole)):
        with pytest.raises(Refused) as refused:
            read_step(whole[:length], transfer_syntax)
        assert refusal_answer(refused.value.refusals).status == 0x0110


def test_a_dataset_beyond_the_bound_is_refused_before_it_is_read():
    with pytest.raises(Refused) as refused:
        read_step(b"\0" * (DATASET_BYTES_MAX + 1), IMPLICIT_VR_LITTLE_ENDIAN)
    assert refused.value.refusals[0].kind is RefusalKind.UNREADABLE


@given(st.binary(max_size=200), st.sampled_from(SYNTAXES))
def test_no_bytes_do_worse_than_a_refusal(data, transfer_syntax):
    with contextlib.suppress(Refused):
        read_step(data, transfer_syntax)


@pytest.mark.parametrize("uid", ["1.2.840.1", "2.25.123\0", " 2.25.123 ", "1.02.3", "1." + "2" * 62])
def test_uids_are_read_without_padding(uid):
    assert readable_uid(uid) == uid.strip(" \0")


@pytest.mark.parametrize("uid", ["", "1", "1..2", "1.2.", ".1.2", "1.2.x", "1.2\n", "١.٢", "1." + "2" * 63])
def test_what_is_no_uid_is_none(uid):
    assert readable_uid(uid) == ""


def test_the_uid_is_found_in_the_dataset_too():
    assert said_instance_uid({"00080018": {"vr": "UI", "Value": ["2.25.1"]}}) == "2.25.1"
    assert said_instance_uid({"00080018": {"vr": "UI"}}) == ""
    assert said_instance_uid({}) == ""


def test_every_kind_of_refusal_has_a_failure_status():
    assert set(STATUSES) == set(RefusalKind)
    for kind in RefusalKind:
        answer = refusal_answer([Refusal(kind, "(0040,0253)", "says no " * 20)])
        assert 0x0105 <= answer.status <= 0x0213
        assert answer.status != 0x0107
        assert len(answer.comment) <= COMMENT_LENGTH_MAX


@pytest.mark.parametrize(
    ("kind", "status", "tags"),
    [
        (RefusalKind.MISSING_FIELD, 0x0120, (0x00400253,)),
        (RefusalKind.MISSING_VALUE, 0x0121, (0x00400253,)),
        (RefusalKind.BAD_VALUE, 0x0106, (0x00400253,)),
        (RefusalKind.DUPLICATE_INSTANCE, 0x0111, (0x00400253,)),
        (RefusalKind.NO_SUCH_INSTANCE, 0x0112, (0x00400253,)),
        (RefusalKind.NOT_AUTHORISED, 0x0124, (0x00400253,)),
        (RefusalKind.INVALID_UID, 0x0117, (0x00400253,)),
        (RefusalKind.TRANSIENT, 0x0213, (0x00400253,)),
        (RefusalKind.UNREADABLE, 0x0110, ()),
        (RefusalKind.INTERNAL, 0x0110, ()),
    ],
)
def test_refusals_go_by_the_table_of_statuses(kind, status, tags):
    answer = refusal_answer([Refusal(kind, "(0040,0253)", "says no")])
    assert (answer.status, answer.error_id, answer.attribute_tags) == (status, None, tags)
    assert answer.comment == "(0040,0253) says no"


def test_a_closed_step_is_told_in_the_words_of_the_standard():
    answer = refusal_answer([Refusal(RefusalKind.STEP_CLOSED, "(0040,0252)", "the step is COMPLETED")])
    assert answer.status == 0x0110
    assert answer.error_id == 0xA710
    assert answer.comment == "Performed Procedure Step Object may no longer be updated"
    assert len(answer.comment) <= COMMENT_LENGTH_MAX


def test_of_several_faults_the_most_telling_is_answered_with_all_its_places():
    answer = refusal_answer([
        Refusal(RefusalKind.BAD_VALUE, "(0040,0252)", "is wrong"),
        Refusal(RefusalKind.MISSING_VALUE, "(0040,0241)", "has no value"),
        Refusal(RefusalKind.MISSING_FIELD, "(0040,0253)", "is missing"),
        Refusal(RefusalKind.MISSING_FIELD, "(0040,0270)[1]/(0020,000D)", "is missing"),
    ])  # fmt: skip
    assert answer.status == 0x0120
    assert answer.attribute_tags == (0x00400253, 0x0020000D)
    assert answer.comment == "(0040,0253) is missing (and 1 more)"


def test_the_list_of_tags_is_bounded():
    refusals = [Refusal(RefusalKind.MISSING_FIELD, f"(0040,{number:04X})", "is missing") for number in range(500)]
    assert len(refusal_answer(refusals).attribute_tags) == TAGS_MAX
    assert len(accepted_answer([f"0040{number:04X}" for number in range(500)]).attribute_tags) == TAGS_MAX


def test_acceptance_is_a_warning_where_something_was_left_as_it_was():
    assert accepted_answer(()).status == 0x0000
    warned = accepted_answer(("00100010",))
    assert (warned.status, warned.attribute_tags) == (0x0107, (0x00100010,))
    assert len(warned.comment) <= COMMENT_LENGTH_MAX


@given(st.text(max_size=100))
def test_comments_are_ascii_and_fit(text):
    told = comment(text, " (and 3 more)")
    assert told.isascii()
    assert told.isprintable()
    assert "\\" not in told
    assert len(told) <= COMMENT_LENGTH_MAX


SERIES = {"0020000E": {"vr": "UI", "Value": ["no uid"]}, "0008103E": {"vr": "LO", "Value": ["Head"]}}
SAID = {
    "00400252": {"vr": "CS", "Value": ["DONE"]},
    "00400241": {"vr": "AE"},
    "00400340": {"vr": "SQ", "Value": [{}, SERIES, SERIES]},
}


@pytest.mark.parametrize("kind", RefusalKind)
def test_only_bad_and_empty_values_are_shown_back_to_their_sender(kind):
    answer = refusal_answer([Refusal(kind, "(0040,0252)", "is wrong")], SAID)
    expected = {"00400252": SAID["00400252"]} if answer.status in (0x0106, 0x0121) else None
    assert answer.dataset == expected


def test_an_excerpt_has_what_is_named_on_its_way_and_nothing_else():
    shown = excerpt(SAID, ["(0040,0241)", "(0040,0340)[2]/(0020,000E)", "(0040,0340)[0]/(0020,000E)", "(0040,0253)"])
    assert shown == {
        "00400241": {"vr": "AE"},
        "00400340": {"vr": "SQ", "Value": [{"0020000E": SERIES["0020000E"]}, {"0020000E": {"vr": "UI"}}]},
        "00400253": {"vr": "SH"},
    }
    assert "Head" not in str(shown)
    assert read_step(write_step(shown, IMPLICIT_VR_LITTLE_ENDIAN), IMPLICIT_VR_LITTLE_ENDIAN)[0] == shown


def test_an_excerpt_is_bounded_whatever_was_sent():
    long = {"00400280": {"vr": "ST", "Value": ["x" * (VALUE_BYTES_MAX + 1)]}}
    assert excerpt(long, ["(0040,0280)"]) == {"00400280": {"vr": "ST"}}
    assert excerpt(SAID, ["(0040,0340)"]) == {"00400340": {"vr": "SQ"}}
    many = [f"(0040,{number:04X})" for number in range(500)]
    assert len(excerpt({}, many)) == TAGS_MAX


@given(st.lists(st.text(max_size=30)), st.text(max_size=10))
def test_no_place_breaks_an_excerpt(places, more):
    excerpt(SAID, [*places, f"(0040,0340)[9]/(0020,000E){more}"])


def test_a_value_that_was_left_out_is_a_warning_that_shows_it():
    answer = accepted_answer(("00100010",), ("00400252",), SAID)
    assert (answer.status, answer.attribute_tags) == (0x0116, (0x00400252, 0x00100010))
    assert answer.dataset == {"00400252": SAID["00400252"]}
    assert "DONE" not in answer.comment
    assert len(answer.comment) <= COMMENT_LENGTH_MAX


def test_what_n_get_could_not_return_is_a_warning():
    assert retrieved_answer((), ()).status == 0x0000
    assert retrieved_answer(("00400280",), ()).status == 0x0001
    assert retrieved_answer(("00400280",), ("0020000E",)).status == 0x0107
    assert retrieved_answer((), ("0020000E",)).attribute_tags == (0x0020000E,)
