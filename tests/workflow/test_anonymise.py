"""Recorded messages hold nobody's data, and a mapping reads them as before."""

import re

import pytest

from gateway import examples
from gateway.domain.identifiers import Issuers
from gateway.mapping_files import load_mappings
from gateway.wire.er7 import parse
from gateway.wire.hl7_names import FIELDS
from gateway.workflow.anonymise import TABLE, anonymise
from gateway.workflow.golden_cases import case_outcome

SALT = b"of this test"


def segment(name, **said):
    """A segment with these fields: `f5="..."`."""
    numbers = {int(key[1:]): value for key, value in said.items()}
    return "|".join([name, *(numbers.get(number, "") for number in range(1, max(numbers) + 1))])


MESSAGE = "".join(
    line + "\r"
    for line in (
        "MSH|^~\\&|RIS|RADX|GATEWAY|RADX|20260705080000||ORM^O01|CTRL77|P|2.5.1||||||UNICODE UTF-8",
        segment(
            "PID", f1="1", f3="PAT4711^^^HOSPA&1.2.3.4&ISO^MR~NHS9988^^^NHS",
            f5="Ivanova^Svetlana^^^^^L^A~山田^花子^^^^^L^I", f7="19800102", f8="F", f10="W",
            f11="Lindenweg 5^^Berlin^^10115^DE", f13="+49 30 5557788", f18="ACCT5566", f19="123-45-6789",
        ),
        segment("NK1", f1="1", f2="Ivanov^Boris^^^^^L", f3="SPO", f4="Lindenweg 5", f5="+49 5557799", f16="19780304"),
        segment("IN1", f1="1", f3="AOK1122", f4="AOK Nordost", f16="Ivanova^Svetlana", f18="19800102"),
        segment("PV1", f2="I", f3="W3^12^B", f8="77^Refmann^Paul^^^Dr", f15="B6", f19="V5544^^^HOSPA"),
        segment(
            "ORC", f1="NW", f2="P900^OE", f3="F900^RIS", f5="SC", f7="1^^^20260706093000^^S", f9="20260705075500",
            f10="9^Clerkson^Cleo", f12="12^Ordman^Anna", f13="W3", f14="+49 30 555111",
        ),
        segment(
            "OBR", f1="1", f2="P900^OE", f3="F900^RIS", f4="CTHEAD^CT head^99PROC", f13="fell, says Svetlana",
            f16="12^Ordman^Anna", f18="ACC900", f19="RP900", f20="SPS900", f24="CT", f31="R51^Headache^I10",
        ),
        "NTE|1||Mrs Ivanova is hard of hearing\\.br\\call Boris 5557799",
        "OBX|1|NM|29463-7^Body weight^LN||76|kg",
        "OBX|2|TX|X^Remark^L||allergic since childhood",
        "ZPI|1|godparent Olga Petrowa|19991231|Б7",
        "ZDS|1.2.276.0.99.900^RIS^Application^DICOM",
    )
)  # fmt: skip
WHO = [
    "PAT4711",
    "NHS9988",
    "Ivanova",
    "Svetlana",
    "山田",
    "花子",
    "19800102",
    "Lindenweg",
    "Berlin",
    "10115",
    "5557788",
    "ACCT5566",
    "6789",
    "Ivanov",
    "Boris",
    "5557799",
    "19780304",
    "AOK1122",
    "Nordost",
    "Refmann",
    "Paul",
    "V5544",
    "Clerkson",
    "Cleo",
    "Ordman",
    "Anna",
    "555111",
    "P900",
    "F900",
    "ACC900",
    "RP900",
    "SPS900",
    "fell",
    "hearing",
    "childhood",
    "Olga",
    "Petrowa",
    "19991231",
    "CTRL77",
]


def anonymous(text, charset="utf-8"):
    return anonymise(parse(text.encode(charset), charset), SALT).raw.decode(charset)


def fields(text, segment, number=1):
    lines = [line for line in text.split("\r") if line.startswith(segment)]
    return lines[number - 1].split("|")


def test_no_word_of_anybody_remains():
    made = anonymous(MESSAGE)
    assert [word for word in WHO if word in MESSAGE] == WHO
    assert [word for word in WHO if word in made] == []


def test_what_a_mapping_goes_by_stays():
    made = anonymous(MESSAGE)
    assert fields(made, "OBR")[4] == "CTHEAD^CT head^99PROC"
    assert fields(made, "OBR")[31] == "R51^Headache^I10"
    assert fields(made, "ORC")[7] == "1^^^20260706093000^^S"
    assert fields(made, "OBX")[5] == "76"
    authorities = [each.split("^", 1)[1] for each in fields(made, "PID")[3].split("~")]
    assert authorities == ["^^HOSPA&1.2.3.4&ISO^MR", "^^NHS"]
    assert fields(made, "PV1")[3] == "W3^12^B"


def test_the_shape_of_every_field_stays():
    made = anonymous(MESSAGE)
    for before, after in zip(MESSAGE.split("\r"), made.split("\r"), strict=True):
        assert len(before) == len(after)
        assert re.sub(r"\w", "", before) == re.sub(r"\w", "", after)


def test_what_was_equal_stays_equal():
    made = anonymous(MESSAGE)
    assert fields(made, "ORC")[2] == fields(made, "OBR")[2]
    assert fields(made, "ORC")[12] == fields(made, "OBR")[16]
    family = fields(made, "PID")[5].split("^")[0]
    assert family in fields(made, "NTE")[3]
    assert fields(made, "IN1")[16].split("^")[0] == family


def test_a_name_stays_in_its_script():
    text = "MSH|^~\\&|||||||ADT^A08|1|P|2.5\rPID|||1||Петрова^Анна||1975\rPV1||O\r"
    made = anonymous(text)
    family, given = fields(made, "PID")[5].split("^")
    assert re.fullmatch("[А-Я][а-я]{6}", family)
    assert re.fullmatch("[А-Я][а-я]{3}", given)
    kanji = fields(anonymous(MESSAGE), "PID")[5].split("~")[1].split("^")
    assert all("\u4e00" <= sign <= "\u9fff" for sign in kanji[0] + kanji[1])


def test_a_birth_date_is_moved_as_exactly_as_it_was_said():
    text = "MSH|^~\\&|||||||ADT^A08|1|P|2.5\rPID|||1||A^B||{}\r"
    for said in ("19800102", "198001", "1980", "19800102083000"):
        made = fields(anonymous(text.format(said)), "PID")[7]
        assert made != said
        assert len(made) == len(said)
        assert 1975 <= int(made[:4]) <= 1980
        assert made[8:] == said[8:]


def test_the_message_stays_in_its_character_set():
    text = "MSH|^~\\&|||||||ADT^A08|1|P|2.5||||||8859/1\rPID|||1||Müller^Käthe||1975\r"
    made = anonymise(parse(text.encode("latin-1")), SALT).raw
    assert fields(made.decode("latin-1"), "PID")[5].isascii() is False
    assert parse(made).charset == "iso8859-1"


def test_hidden_characters_are_replaced_and_shaping_stays():
    text = "MSH|^~\\&|||||||ADT^A08|1|P|2.5\rPID|||1||A^B\rNTE|1||line\\.br\\\\X4D6172696E61\\ \\H\\bold\\N\\\r"
    note = fields(anonymous(text), "NTE")[3]
    assert "4D6172696E61" not in note
    assert "\\.br\\" in note
    assert note.endswith("\\N\\")


def test_a_null_and_an_empty_field_stay():
    text = 'MSH|^~\\&|||||||ADT^A08|1|P|2.5\rPID|||1||A^B||""||||""\r'
    made = fields(anonymous(text), "PID")
    assert (made[7], made[11]) == ('""', '""')


def test_a_word_left_in_a_field_that_stays_is_named():
    text = "MSH|^~\\&|||||||ORM^O01|1|P|2.5\rPID|||1||Bergmann^Ada\rORC|NW|2\rOBR|1|2||X^Bergmann^L\r"
    made = anonymise(parse(text.encode()), SALT)
    assert made.left == ("OBR-4",)


def test_people_named_in_a_field_that_stays_are_replaced_there_too():
    text = (
        "MSH|^~\\&|||||||ORM^O01|1|P|2.5\rPID|||4711042||Bergmann^Ada||19610305\r"
        "ORC|NW|2||||||||||Ward Bergmann\rOBR|1|2||ADA^CT of BERGMANN, ada^L\r"
        "OBX|1|NM|MRN^^L||4711042\rOBX|2|DT|DAY^^L||19610305\rOBX|3|NM|W^^L||62\r"
    )
    made = anonymise(parse(text.encode()), SALT)
    said = made.raw.decode()
    assert not [word for word in ("Bergmann", "BERGMANN", "ada", "4711042", "19610305") if word in said]
    assert "ADA^CT of " in said  # a word alone in a component is a code
    assert "|62\r" in said
    assert made.left == ("OBR-4",)


def test_two_recordings_invent_differently():
    message = parse(MESSAGE.encode(), "utf-8")
    assert anonymise(message, b"one").raw != anonymise(message, b"two").raw


@pytest.mark.parametrize("segment", sorted(TABLE))
def test_the_table_names_only_fields_that_there_are(segment):
    assert max(TABLE[segment]) <= len(FIELDS[segment])


CASES = sorted((examples.folder("mappings") / "cases").glob("*.hl7"))


@pytest.fixture(scope="module")
def mapping():
    return load_mappings(examples.folder("mappings"), Issuers(), []).mappings["ihe-swf"]


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_a_mapping_reads_an_invented_message_as_it_read_the_real_one(case, mapping):
    raw = case.read_bytes()
    made = anonymise(parse(raw, "utf-8"), SALT).raw
    real, invented = (case_outcome(mapping, each, default_charset="utf-8") for each in (raw, made))
    assert [sorted(event) for event in real.get("events", [])] == [
        sorted(event) for event in invented.get("events", [])
    ]
    assert real.get("refusals") == invented.get("refusals")
