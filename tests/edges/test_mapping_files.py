"""The mappings folder: what is read, every mistake with its file and line, the content that remakes a mapping."""

import json
import pickle
import shutil
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from gateway import examples, schemas
from gateway.domain.codes import compile_translation
from gateway.domain.identifiers import Issuers
from gateway.domain.mapping import MappingError
from gateway.domain.problem import Problem
from gateway.domain.tables import compile_table
from gateway.mapping_files import MappingFolder, load_mappings, mapping_of, read_rows

BASE = "name: base\nidentity:\n  PatientID: PID-3\nrules:\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("hl7v2", "codes", "converters"):
        (tmp_path / name).mkdir()
    (tmp_path / "hl7v2" / "base.yaml").write_text(BASE + "  PatientComments: PID-2\n")
    return tmp_path


def load(folder: Path) -> tuple[MappingFolder, list[Problem]]:
    problems: list[Problem] = []
    return load_mappings(folder, Issuers(), problems), problems


def places(folder: Path) -> list[tuple[str, int | None]]:
    """(file, line) of every problem."""
    return [(problem.source, problem.line) for problem in load(folder)[1]]


def test_every_rule_set_of_the_folder_is_compiled(folder: Path) -> None:
    (folder / "hl7v2" / "site.yaml").write_text("extends: base\n")
    found, problems = load(folder)
    assert not problems
    assert set(found.mappings) == {"base", "site"}  # without a name the file's counts


def test_no_folder_is_a_problem_that_says_how_to_get_one(tmp_path: Path) -> None:
    (problem,) = load(tmp_path / "none")[1]
    assert "gateway init" in problem.hint


def test_two_files_of_one_name_are_a_problem(folder: Path) -> None:
    (folder / "hl7v2" / "other.yaml").write_text("# a copy\n" + BASE + "  PatientComments: PID-2\n")
    (problem,) = load(folder)[1]
    assert (problem.source, problem.line) == ("other.yaml", 2)
    assert problem.text == "base.yaml is named base already"


FHIR = (
    "name: orders\nfhir: R4\nidentity:\n  PatientID: Patient.identifier\n"
    "rules:\n  PatientBirthDate: Patient.birthDate\n"
)


def test_rule_sets_of_fhir_have_a_folder_of_their_own(folder: Path) -> None:
    (folder / "fhir").mkdir()
    (folder / "fhir" / "orders.yaml").write_text(FHIR)
    found, problems = load(folder)
    assert not problems
    assert {name: mapping.language for name, mapping in found.mappings.items()} == {"base": "HL7 v2", "orders": "R4"}
    again = mapping_of(found.content("orders"), Issuers())
    assert (again.language, again.version_id) == ("R4", found.mappings["orders"].version_id)
    recipe = pickle.loads(pickle.dumps(found.recipe))  # noqa: S301  (our own, as a worker process gets it)
    elsewhere = recipe.mappings(["orders"])
    assert elsewhere["orders"].version_id == again.version_id


def test_a_misspelt_element_of_fhir_has_its_line_and_what_was_meant(folder: Path) -> None:
    (folder / "fhir").mkdir()
    (folder / "fhir" / "orders.yaml").write_text(FHIR.replace("birthDate", "birthdate"))
    (problem,) = load(folder)[1]
    assert (problem.source, problem.line, problem.hint) == ("fhir/orders.yaml", 6, "did you mean birthDate?")


@pytest.mark.parametrize(
    ("where", "text", "source", "says"),
    [
        ("fhir", FHIR.replace("orders", "base"), "fhir/x.yaml", "base.yaml is named base already"),
        ("fhir", BASE + "  PatientComments: PID-2\n", "fhir/x.yaml", "base.yaml is named base already"),
        ("fhir", BASE.replace("base", "other") + "  PatientComments: PID-2\n", "fhir/x.yaml", "names no release"),
        ("hl7v2", FHIR, "x.yaml", "this is the folder of HL7 v2"),
    ],
)
def test_a_rule_set_in_the_wrong_folder_or_of_a_taken_name_is_a_problem(
    folder: Path, where: str, text: str, source: str, says: str
) -> None:
    (folder / "fhir").mkdir()
    (folder / where / "x.yaml").write_text(text)
    (problem,) = load(folder)[1]
    assert problem.source == source
    assert says in problem.text


def test_nested_mistakes_have_their_own_lines(folder: Path) -> None:
    (folder / "hl7v2" / "base.yaml").write_text(
        BASE + "  PatientComments:\n"
        "    from: PID-2\n"
        "    when: {OBR-4.2: x,\n"
        "      PDI-3.1: y}\n"
        "  ScheduledProcedureStepSequence.Modality:\n"
        "    - {from: OBR-24,\n"
        "       convert: modalty}\n"
        "    - from: OBR-21\n"
        "      repeat: al\n"
    )
    assert places(folder) == [("base.yaml", 8), ("base.yaml", 11), ("base.yaml", 13)]


def test_a_mistake_of_the_extended_rule_set_is_told_in_its_file(folder: Path) -> None:
    (folder / "hl7v2" / "base.yaml").write_text(BASE + "  PatientComents: PID-2\n")
    (folder / "hl7v2" / "site.yaml").write_text("extends: base\n")
    assert set(places(folder)) == {("base.yaml", 5)}


# ---- CSV ----


def rows_of(
    tmp_path: Path, text: str, encoding: str = "utf-8"
) -> tuple[list[tuple[int, dict[str, str]]], list[Problem]]:
    file = tmp_path / "some.csv"
    file.write_text(text, encoding=encoding, newline="")
    problems: list[Problem] = []
    return [(row.line, dict(row)) for row in read_rows(file, problems)], problems


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_rows_have_the_lines_of_the_file(tmp_path: Path, newline: str) -> None:
    text = newline.join(["# why", "", "a,b", "# one", "1,2", "", '"3', '4",5', "6,7"])
    rows, problems = rows_of(tmp_path, text)
    assert not problems
    assert [(line, row["b"]) for line, row in rows] == [(5, "2"), (7, "5"), (9, "7")]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a,b\n1,2\n3,4,5\n", 3, "more cells than columns: '5'"),
        ("a;b\n1;2\n", 1, "cells are not separated by commas: 'a;b'"),
        ("# x\na,a\n", 2, "column 'a' is there twice"),
        ('a,b\n1,"2\n', 2, "is not CSV: unexpected end of data"),
    ],
)
def test_what_is_no_table_is_told_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    (problem,) = rows_of(tmp_path, text)[1]
    assert (problem.line, problem.text) == (line, said)


def test_a_file_from_a_spreadsheet_may_have_a_byte_order_mark_but_must_be_utf_8(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "a,b\nä,2\n", "utf-8-sig")[0] == [(2, {"a": "ä", "b": "2"})]
    (problem,) = rows_of(tmp_path, "a,b\nä,2\n", "latin-1")[1]
    assert problem.hint == "save it as UTF-8"


def test_problems_of_all_tables_are_told_at_once(folder: Path) -> None:
    (folder / "codes" / "sex.csv").write_text("# sexes\ncode,value\nM,M\n# again\nM,F\n")
    (folder / "codes" / "local.csv").write_text("source_code,target_scheme,target_code\nA,SCT,\n")
    (folder / "codes" / "map.json").write_text('{\n "resourceType": "ConceptMap",,\n}')
    (folder / "procedures.csv").write_text("# c\ncode,modality\nA,c-t\n")
    (folder / "stations.csv").write_text("modality,location\n\nCT,\n")
    assert sorted(places(folder), key=str) == [
        ("local.csv", 2),
        ("map.json", 2),
        ("procedures.csv", 3),
        ("sex.csv", 5),
        ("stations.csv", 3),
    ]


# ---- modalities and stations ----


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("CTX", "CT"), ("mri", "MR"), ("PET", "PT"), ("DXA", "BMD"),  # the table's meaning, not the likeness to XA
        ("CT", ""), ("ct", ""), ("OT", ""), ("OPTENF", ""), ("CD", ""),  # CD is retired
        ("CBCT", ""), ("NEWTERM", ""), ("XR", ""), ("SONO", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_modality_that_looks_like_a_slip_is_a_problem_and_a_new_term_is_not(
    folder: Path, word: str, meant: str
) -> None:
    shutil.copy(examples.folder("mappings") / "codes" / "modality.csv", folder / "codes")
    (folder / "procedures.csv").write_text(f"# c\ncode,modality\nA,CT\nB,{word}\n")
    (folder / "stations.csv").write_text(f"modality,location\nUS|{word},ROOM 1\n")
    problems = load(folder)[1]
    hint = f"did you mean {meant}?"
    told = [("procedures.csv", 4, "modality", hint), ("stations.csv", 2, "modality", hint)]
    assert [(each.source, each.line, each.path, each.hint) for each in problems] == (told if meant else [])
    assert all(repr(word) in each.text for each in problems)


def test_a_sites_own_modality_is_one(folder: Path) -> None:
    (folder / "codes" / "modality.csv").write_text("code,value\nSCANNER,CTX\n")
    (folder / "procedures.csv").write_text("code,modality\nA,CTX\n")
    assert not load(folder)[1]


def test_a_station_rule_for_what_cannot_be_a_modality_is_a_problem(folder: Path) -> None:
    (folder / "stations.csv").write_text("modality,location\nC/T,A\nCT*,B\n*,C\n")
    assert places(folder) == [("stations.csv", 2)]


def test_a_slip_that_the_archive_has_still_makes_its_mapping(folder: Path) -> None:
    (folder / "procedures.csv").write_text("code,modality\nA,CTX\n")
    found, problems = load(folder)
    assert len(problems) == 1
    again = mapping_of(found.content("base"), Issuers())
    assert again.version_id == found.mappings["base"].version_id


def test_stations_are_named_once_for_each_file(folder: Path) -> None:
    (folder / "procedures.csv").write_text("code,station_ae_titles\nA,CT1 CT2\nB,CT2|CT1\n")
    (folder / "stations.csv").write_text("station_ae_titles,priority\nCT1,S\nUS1,R\n")
    assert [tuple(each) for each in load(folder)[0].stations] == [
        ("CT1", "procedures.csv", 2), ("CT2", "procedures.csv", 2),
        ("CT1", "stations.csv", 2), ("US1", "stations.csv", 3),
    ]  # fmt: skip


# ---- the site's own converters ----

PYTHON = '''import re


def clean(text):
    """Letters and digits only."""
    return re.sub("[^A-Za-z0-9]", "", text)


def _hidden(text):
    return text
'''
OWN = (
    BASE + "  PatientComments: {from: PID-2, convert: clean}\nconverters:\n"
    "  clean: {function: ids.clean, example: A-1, gives: A1}\n"
)


def test_a_sites_converter_is_read_and_tried(folder: Path) -> None:
    (folder / "converters" / "ids.py").write_text(PYTHON)
    (folder / "hl7v2" / "base.yaml").write_text(OWN)
    found, problems = load(folder)
    assert not problems
    assert not list(folder.rglob("__pycache__"))
    changed = PYTHON.replace("Letters", "Only letters")
    (folder / "converters" / "ids.py").write_text(changed)
    assert load(folder)[0].mappings["base"].version_id != found.mappings["base"].version_id


def test_python_files_are_not_run_unless_a_rule_set_declares_one(folder: Path) -> None:
    (folder / "converters" / "ids.py").write_text("raise SystemExit\n")
    assert not load(folder)[1]


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("def clean(text)\n", ("ids.py", 1)),
        ("x = 1\n\ny = x / 0\n", ("ids.py", 3)),
        ("raise SystemExit(3)\n", ("ids.py", 1)),
        (PYTHON.replace("return re", "return text.nothing; re"), ("base.yaml", 7)),
        (PYTHON.replace("def clean", "def cleen"), ("base.yaml", 7)),
    ],
)
def test_a_broken_python_file_is_a_problem_with_its_line(folder: Path, python: str, said: tuple[str, int]) -> None:
    (folder / "converters" / "ids.py").write_text(python)
    (folder / "hl7v2" / "base.yaml").write_text(OWN)
    assert said in places(folder)


# ---- content ----


def test_the_content_of_a_mapping_makes_the_same_mapping_again() -> None:
    found, problems = load(examples.folder("mappings"))
    assert not problems
    for name, mapping in found.mappings.items():
        assert mapping_of(found.content(name), Issuers()).version_id == mapping.version_id
    assert "bare-orm" not in json.loads(found.content("ihe-swf"))["sources"]
    with pytest.raises(KeyError):
        found.content("none")


def test_python_is_never_run_from_content(folder: Path) -> None:
    (folder / "converters" / "ids.py").write_text(PYTHON)
    (folder / "hl7v2" / "base.yaml").write_text(OWN)
    found, _ = load(folder)
    content = found.content("base")
    assert "re.sub" not in content
    with pytest.raises(MappingError, match=r"no function 'ids\.clean'"):
        mapping_of(content, Issuers())
    assert mapping_of(content, Issuers(), folder).version_id == found.mappings["base"].version_id


# ---- schemas ----


def test_schemas_are_what_the_tables_say() -> None:
    held = {path: path.read_text(encoding="utf-8") for path in schemas.render()}
    assert held == schemas.render(), "run `make docs`"


def shipped() -> list[Path]:
    return [*examples.folder("config").glob("*.yaml"), *(examples.folder("mappings") / "hl7v2").glob("*.yaml")]


@pytest.mark.parametrize("file", shipped(), ids=lambda path: path.name)
def test_every_shipped_file_names_its_schema_and_keeps_to_it(file: Path, tmp_path: Path) -> None:
    examples.lay_out(tmp_path / "site")
    laid_out = tmp_path / "site" / (file.name if file.parent.name == "config" else f"mappings/hl7v2/{file.name}")
    for place in (file, laid_out):
        first = place.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema=")
        schema = json.loads((place.parent / first.partition("$schema=")[2]).read_text(encoding="utf-8"))
        said = json.loads(json.dumps(YAML(typ="safe").load(place), default=str))
        jsonschema.Draft7Validator.check_schema(schema)
        jsonschema.Draft7Validator(schema).validate(said)


@pytest.mark.parametrize(
    "rules",
    [
        {"PatientComents": "PID-3"},
        {"PatientComments": {"form": "PID-3"}},
        {"PatientComments": {"from": "PID3"}},
        {"PatientComments": {"from": "PID-3", "repeat": "al"}},
        {"PatientComments": {"from": "PID-3", "edit": {"first": "x"}}},
        {"Modality": "OBR-24"},
    ],
)
def test_a_mistake_does_not_keep_to_the_schema(rules: object) -> None:
    schema = json.loads((examples.folder("mappings") / "schemas" / "mapping.json").read_text(encoding="utf-8"))
    assert not jsonschema.Draft7Validator(schema).is_valid({"rules": rules})
    assert jsonschema.Draft7Validator(schema).is_valid(
        {"rules": {"PatientComments": {"from": "PID-3", "pick": {5: "MR"}}}}
    )


def test_a_site_may_have_its_folder_anywhere(tmp_path: Path) -> None:
    shutil.copytree(examples.folder("mappings"), tmp_path / "moved")
    assert not load(tmp_path / "moved")[1]


# ---- what is shipped ----


@pytest.mark.parametrize(("sent", "modality"), [("MRI", "MR"), ("pet", "PT"), ("SONO", "US"), ("OPTBSV", "OPTBSV")])
def test_words_for_modalities_are_translated(sent: str, modality: str) -> None:
    table = compile_table("modality", read_rows(examples.folder("mappings") / "codes" / "modality.csv", []))
    assert table[sent.upper()] == modality


@pytest.mark.parametrize(
    ("name", "scheme", "code", "found"),
    [
        ("legacy-snomed", "SRT", "T-04000", ("SCT", "76752008")),
        ("legacy-snomed", "SNM3", "T-D1100", ("SCT", "69536005")),
        ("legacy-snomed", "SCT", "51185008", ("SCT", "43799004")),
        ("bi-rads", "BI", "II.AC.b.4", ("SCT", "397144001")),
        ("bi-rads", "BI", "MA.II.A.5.4A", ("BI", "MA.II.A.5.4A")),
    ],
)
def test_codes_that_dicom_gave_up_lead_to_todays(name: str, scheme: str, code: str, found: tuple[str, str]) -> None:
    rows = read_rows(examples.folder("mappings") / "codes" / f"{name}.csv", [])
    assert len(rows) > 9
    translation = compile_translation(name, rows)
    today = translation.find(scheme, code)
    assert today is not None
    assert (today.scheme, today.value) == found
    assert all(len(each.meaning) <= 64 for codes in translation.codes.values() for each in codes)  # CodeMeaning, LO
