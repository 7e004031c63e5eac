"""The schema files: generated from one table, complete, and loaded by a real server in both forms."""

import subprocess
from pathlib import Path

import pytest

from gateway import examples
from gateway.edges import ldap_schema as schema
from tests.ldap.slapd import program

FOLDER = examples.folder("config") / "ldap"


def test_the_files_are_those_of_the_tables():
    assert {path.name: path.read_text(encoding="ascii") for path in FOLDER.iterdir()} == schema.render()


def test_no_oid_and_no_name_stands_twice():
    rows = [*schema.STANDARD_ATTRIBUTES, *schema.OWN_ATTRIBUTES, *schema.STANDARD_CLASSES, *schema.OWN_CLASSES]
    assert len({row.oid for row in rows}) == len(rows)
    assert len({row.name.lower() for row in rows}) == len(rows)


def test_what_classes_have_is_defined():
    general = {"cn", "description"}
    for row in (*schema.STANDARD_CLASSES, *schema.OWN_CLASSES):
        assert {name.lower() for name in row.must + row.may} <= {*schema.ATTRIBUTES, *general}, row.name


def test_every_attribute_is_of_a_class():
    used = {name for row in (*schema.STANDARD_CLASSES, *schema.OWN_CLASSES) for name in row.must + row.may}
    assert {row.name for row in schema.ATTRIBUTES.values()} <= used


def test_the_standard_is_covered_and_only_auxiliary_classes_are_added():
    assert [row.oid for row in schema.STANDARD_ATTRIBUTES] == [f"1.2.840.10008.15.0.3.{n}" for n in range(1, 32)]
    assert [row.oid for row in schema.STANDARD_CLASSES] == [f"1.2.840.10008.15.0.4.{n}" for n in range(1, 9)]
    assert all(row.auxiliary and not row.must for row in schema.OWN_CLASSES)
    assert all(row.oid.startswith(schema.OWN_ARC) for row in (*schema.OWN_ATTRIBUTES, *schema.OWN_CLASSES))


@pytest.mark.interop
def test_a_server_with_a_slapd_conf_takes_the_schema_files(tmp_path):
    core = Path("/etc/ldap/schema/core.schema")
    checker = program("slaptest")
    if not core.exists():
        pytest.skip("the schema files of slapd are not installed (make peers)")
    includes = [core, FOLDER / "dicom.schema", FOLDER / "gateway.schema"]
    (tmp_path / "slapd.conf").write_text("".join(f"include {each}\n" for each in includes), encoding="ascii")
    done = subprocess.run(
        [checker, "-u", "-f", str(tmp_path / "slapd.conf")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stderr
