"""Names of HL7 fields, for people."""

import pytest

from gateway.config import load_site
from gateway.testing import site
from gateway.wire.hl7_names import FIELDS, field_name
from gateway.workflow.coverage import read_fields


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("PID-5", "Patient Name"), ("PID-3(2).4", "Patient Identifier List"), ("OBR[2]-44.1", "Procedure Code"),
        ("OBR/NTE-3", "Comment"), ("PV1-44", "Admit Date/Time"), ("ZDS-1", "Study Instance UID"),
        ("ZRI-1", ""), ("PID-99", ""), ("PID", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_place_in_a_message_has_the_name_of_its_field(place, name):
    assert field_name(place) == name


def test_every_field_that_our_mappings_read_has_a_name(tmp_path):
    mappings = load_site(site(tmp_path)).mappings
    read = {key for mapping in mappings.values() for key in read_fields(mapping)}
    assert sorted(key for key in read if not field_name(key) and not key.startswith("Z")) == []


@pytest.mark.parametrize(("segment", "fields"), [("PID", 39), ("PV1", 52), ("ORC", 30), ("OBR", 47), ("IPC", 9)])
def test_a_segment_has_as_many_fields_as_in_the_standard(segment, fields):
    assert len(FIELDS[segment]) == fields
