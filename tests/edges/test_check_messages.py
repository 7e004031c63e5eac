"""What `gateway check` says of the mistakes that people make in a site's files: file, line, text, what was meant."""

import pytest

from tests.edges.command_site import CommandSite

OVERLAY = """name: hospital-a
extends: ihe-swf
identity:
  AccessionNumber: {from: ORC-3, missing: refuse}
rules:
  PatientComments: {from: ZPI-4}
"""
OVERLAY_FILE = "mappings/hl7v2/hospital-a.yaml"


@pytest.fixture
def gateway(tmp_path):
    return CommandSite(tmp_path / "site")


def told(gateway, **files):
    """The lines of `check` after these files were written, without the last one, which counts."""
    for name, text in files.items():
        path = gateway.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = gateway("check")
    assert result.exit_code == 1, result.output
    return result.stderr.splitlines()[:-1]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("from: ZPI-4", "form: ZPI-4", "6 rules.PatientComments.form: unknown key 'form' (did you mean from?)"),
        ("ORC-3", "ORC3", "did you mean ORC-3?"),
        ("ORC-3", "OCR-3.1", "did you mean ORC-3.1?"),
        ("AccessionNumber", "AcessionNumber", "did you mean AccessionNumber?"),
        ("ihe-swf", "ihe-swv", "did you mean ihe-swf?"),
        ("ihe-swf", "hospital-a", "hospital-a -> hospital-a goes in a circle"),
        ("from: ZPI-4", "from: ZPI-4, convert: {table: zzz}", "there is no table zzz (have: ambulatory-status, "),
        ("{from: ZPI-4}", "{from: ZPI-4", "hospital-a.yaml:6: is not YAML: "),
        ("  PatientComments", "\tPatientComments", "(indent with blanks; YAML takes no tabs)"),
        (
            "PatientComments: {from: ZPI-4}",
            "PatientComments:ZPI-4\n  PatientSex: PID-8",
            "in: PatientComments:ZPI-4 (a key, a colon, ",
        ),
        ("rules:\n", "rules:\n  PatientComments: PID-1\n", "7: PatientComments is there twice (line 6 says it first"),
        ("{from: ZPI-4}", "{from: ZPI-4, when: {MSH-4: *}}", '(put a text that begins with * or & into quotes: "*")'),
    ],
)
def test_a_mistake_in_an_overlay_is_told_once_with_what_was_meant(gateway, old, new, said):
    (line,) = told(gateway, **{OVERLAY_FILE: OVERLAY.replace(old, new)})
    assert line.startswith("hospital-a.yaml:")
    assert said in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cod,valeu\nA,B\n", ["local.csv:1 cod: ", "local.csv:1 valeu: "]),
        ("code;value\nA;B\n", ["local.csv:1: cells are not separated by commas"]),
        (b"code,value\nA,\xe4\n", ["local.csv:2: is not UTF-8 text: byte 0xE4"]),
    ],
)
def test_a_table_that_is_no_table_is_told_by_its_header_and_not_by_every_row(gateway, text, said):
    lines = told(gateway, **{"mappings/codes/local.csv": text})
    assert [line[: len(one)] for line, one in zip(lines, said, strict=True)] == said


def test_mistakes_in_configuration_and_mappings_are_told_together(gateway):
    config = (gateway.folder / "gateway.yaml").read_text().replace("    charset: ", "    charsett: ")
    overlay = OVERLAY.replace("PatientComments", "PatientComment")
    one, other = told(gateway, **{"gateway.yaml": config, OVERLAY_FILE: overlay})
    assert one.endswith("hl7.0.charsett: unknown key (did you mean charset?)")
    assert other.endswith("PatientComment is no worklist attribute (did you mean PatientComments?)")


def test_a_mapping_that_is_not_there_is_told_where_the_configuration_names_it(gateway):
    config = (gateway.folder / "gateway.yaml").read_text().replace("mapping: ihe-swf ", "mapping: ihe-swv ")
    (line,) = told(gateway, **{"gateway.yaml": config})
    assert line.startswith("gateway.yaml:")
    assert "hl7.0.mapping: there is no mapping 'ihe-swv' (did you mean ihe-swf?)" in line


def test_a_converter_that_fails_is_told_by_the_line_that_does(gateway):
    overlay = OVERLAY + "converters:\n  clean: {function: ids.clean, example: x}\n"
    (line,) = told(gateway, **{
        OVERLAY_FILE: overlay, "mappings/converters/ids.py": "def clean(text):\n    return text.foo\n"
    })  # fmt: skip
    assert "AttributeError: 'str' object has no attribute 'foo' (mend converters/ids.py:2)" in line
