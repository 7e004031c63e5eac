"""The form of an order typed by hand, as the message it becomes."""

from datetime import UTC, datetime

import pytest

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire import er7
from gateway.workflow.by_hand import FIELD_OF, Form, check, in_form, message_of

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
FORM = Form(patient_id="P1", issuer="HOSPA", family_name="Ermakova", given_name="Vera", procedure="MRHEAD",
            start="202607050930", accession="H1")  # fmt: skip


def test_the_message_reads_as_it_was_typed():
    form = Form(patient_id="P1", issuer="HOSPA", family_name="Иванова", given_name="Anna^X", name_prefix="Dr",
                name_suffix="Jr", birth_date="19800102", sex="F", procedure="A|B", description="head & neck",
                modality="MR", station="MR1", start="202607050930", accession="H1", physician="Ref^Paul",
                comment="two\nlines")  # fmt: skip
    message = er7.parse(message_of(form, AT, "C1"))
    pid, obr, ipc = (message.first(name) for name in ("PID", "OBR", "IPC"))
    assert [pid.text(5, 1, place) for place in range(1, 6)] == ["Иванова", "Anna^X", "", "Jr", "Dr"]
    assert (pid.text(3), pid.text(3, 1, 4), pid.text(7), pid.text(8)) == ("P1", "HOSPA", "19800102", "F")
    assert (obr.text(4), obr.text(4, 1, 2), obr.text(16, 1, 2), obr.text(18)) == ("A|B", "head & neck", "Ref", "H1")
    assert (ipc.text(1), ipc.text(5), ipc.text(9)) == ("H1", "MR", "MR1")
    assert message.first("NTE").text(3) == "two\nlines"
    assert er7.check_header(message) == []


def test_a_cancel_says_whose_and_which_order_and_nothing_else():
    message = er7.parse(message_of(Form(patient_id="P1", accession="H1"), AT, "C2", "CA"))
    assert message.first("ORC").text(1) == "CA"
    assert message.first("TQ1") is None
    assert message.first("OBR").text(18) == "H1"


def test_everything_lacking_is_told_at_once():
    with pytest.raises(Refused) as refused:
        check(Form())
    assert [each.where for each in refused.value.refusals] == ["patient_id", "family_name", "start", "procedure"]
    check(FORM)


@pytest.mark.parametrize(
    ("place", "field"),
    [("PID-7.1", "birth_date"), ("IPC-9(2).1", "station"), ("OBR-4.1", "procedure"), ("OBR", "OBR")],
)
def test_a_refusal_names_the_field_that_was_typed(place, field):
    assert in_form(Refusal(RefusalKind.BAD_VALUE, place, "is wrong")).where == field


def test_every_place_belongs_to_a_field_of_the_form():
    assert set(FIELD_OF.values()) <= set(Form.__dataclass_fields__)
