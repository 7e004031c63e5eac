"""Person names: folding, the literal rule, the fuzzy rule, and an index that hides nothing."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.attributes import person_name_value
from gateway.domain.names import SOUND_MARK, fold_name, name_index, name_prefix, name_test

YAMADA = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def matches(asked: str, held: str, *, fuzzy: bool = False, whole: bool = False) -> bool:
    return name_test(asked, fuzzy=fuzzy, whole=whole)(person_name_value(held))


NAME = "Döring^Max^Ludwig^^MD"


@pytest.mark.parametrize(
    "asked",
    [
        "Döring", "doring", "DÖRING^MAX", "d?ring", "D*", "*ring*", "^Max", "Döring^M*",
        "Dör* ", "Doring^Max^Ludwig^^MD", "*Max*", "D*^M*^*", "Döring^", "döring^^^^MD", "Do\u0308ring", "D\ufffdring",
    ],
)  # fmt: skip
def test_a_name_is_found(asked: str) -> None:
    assert matches(asked, NAME)


@pytest.mark.parametrize("asked", ["Dör", "Max", "Döring^Maxi", "D?ring?", "Döring^^^Dr", "Doe*", "=Döring"])
def test_a_name_is_not_found(asked: str) -> None:
    assert not matches(asked, NAME)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("山田", True), ("やまだ^たろう", True), ("Yamada", True), ("=山田*", True), ("yamada=山田", True),
        ("==やまだ", True), ("=やまだ", False), ("yamada=川田", False), ("=yamada", False), ("ﾔﾏﾀﾞ", False),
    ],
)  # fmt: skip
def test_component_groups_of_a_name(asked: str, expected: bool) -> None:
    assert matches(asked, YAMADA) is expected


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("ÇELİK", "celik", True), ("Søren", "SOREN", True), ("Łukasz", "lukasz", True), ("Straße", "STRASSE", True),
        ("Алёна", "АЛЕНА", True), ("Ñ", "n", True), ("ｶﾅ", "カナ", True), ("Ｄｏｅ", "doe", True), ("か", "が", False),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς", True), (" Doe ", "doe", True),
    ],
)  # fmt: skip
def test_folding(left: str, right: str, same: bool) -> None:
    assert (fold_name(left) == fold_name(right)) is same


@given(st.text(max_size=12))
def test_folding_twice_changes_nothing_more(name: str) -> None:
    assert fold_name(fold_name(name)) == fold_name(name)


@given(st.text(max_size=12))
def test_folding_takes_either_normal_form(name: str) -> None:
    assert fold_name(unicodedata.normalize("NFD", name)) == fold_name(unicodedata.normalize("NFC", name))


# --- the fuzzy rule


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        pytest.param("Mueller", "Müller^Anna", id="umlaut spelled out"),
        pytest.param("Müller", "MUELLER^Anna", id="umlaut spelled out by the item"),
        pytest.param("Goetz", "Götz^Udo", id="another one"),
        pytest.param("Jane^Doe", "Doe^Jane", id="the other way round"),
        pytest.param("Jane", "Doe^Jane", id="a given name alone"),
        pytest.param("Smith", "Smyth^Bo", id="sounds alike"),
        pytest.param("Catherine", "Doe^Kathryn", id="sounds alike with another first letter"),
        pytest.param("Emir", "Amir^Bo", id="an initial vowel stands for any"),
        pytest.param("Schmidt", "Schmitt^Bo", id="one letter exchanged"),
        pytest.param("Meyer", "Maier^Bo", id="one diphthong, four spellings"),
        pytest.param("Meyer", "Meier^Bo", id="one letter exchanged, shorter"),
        pytest.param("Brwon", "Brown^Bo", id="neighbours exchanged"),
        pytest.param("Christoferson", "Christophersen^Bo", id="two in a long name"),
        pytest.param("OBrien", "O'Brien^Pat", id="apostrophe"),
        pytest.param("Jean Luc", "Doe^Jean-Luc", id="hyphen"),
        pytest.param("Ivanov", "Иванов^Пётр", id="Cyrillic"),
        pytest.param("Иванов", "Ivanov^Petr", id="Cyrillic key"),
        pytest.param("Papadopoulos", "Παπαδόπουλος^Νίκος", id="Greek"),
        pytest.param("Yamada", "=山田^太郎=やまだ^たろう", id="kana"),
        pytest.param("ヤマダ", "Yamada^Tarou", id="katakana key"),
        pytest.param("Muel*", "Müller^Anna", id="wild card behind an umlaut spelled out"),
        pytest.param("*^Müll*", "Mueller^Anna", id="wild card in any component"),
        pytest.param("Tarou^Yamada=太郎", YAMADA, id="group by group"),
        pytest.param("d?e^jan*", "Jane^Doe", id="wild cards the other way round"),
    ],
)
def test_a_name_that_is_like_the_key_is_found_fuzzily_only(asked: str, held: str) -> None:
    assert matches(asked, held, fuzzy=True)
    assert not matches(asked, held)


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        ("Li", "Lau^Bo"), ("Doe", "Dow^Jane"), ("Doe^Max", "Doe^Jane"), ("Brown", "Crown^Bo"), ("Meier", "Maler^Bo"),
        ("Yamada", "=山田^太郎"), ("Doe", "Roe^Jane"), ("=Doe", "Doe^Jane"), ("D?e*x", "Doe^Jane"),
    ],
)  # fmt: skip
def test_a_name_that_is_not_like_the_key_is_not_found(asked: str, held: str) -> None:
    assert not matches(asked, held, fuzzy=True)


def test_whole_names_leave_out_no_component_by_the_fuzzy_rule_either() -> None:
    assert matches("Jane^Doe", "Doe^Jane", fuzzy=True, whole=True)
    assert not matches("Jane", "Doe^Jane", fuzzy=True, whole=True)
    assert not matches("Doe", "Doe^Jane", whole=True)
    assert matches("Do*", "Doe^Jane", whole=True)


_letters = st.sampled_from("aAäeéouümtdßk 'かカИ山*?^=\u0308\ufffd-~1")
_any_name = st.text(_letters, max_size=8) | st.sampled_from(
    [
        "Müller^Anna",
        "Mueller",
        "Doe^Jane",
        "jane^d*",
        "Yamada^Tarou",
        "やまだ",
        "Иванов^П*",
        "Smith^*",
        "^Smyth",
        "Schmidt",
    ]
)


@settings(max_examples=800, deadline=None)
@given(_any_name, _any_name, st.booleans())
def test_what_matches_literally_matches_fuzzily(asked: str, held: str, whole: bool) -> None:
    assert matches(asked, held, fuzzy=True, whole=whole) >= matches(asked, held, whole=whole)


@settings(max_examples=800, deadline=None)
@given(_any_name, _any_name, st.booleans(), st.booleans())
def test_the_index_hides_no_name_that_matches(asked: str, held: str, fuzzy: bool, whole: bool) -> None:
    prefix = name_prefix(asked, fuzzy)
    index = name_index(person_name_value(held))
    if prefix and person_name_value(held) and matches(asked, held, fuzzy=fuzzy, whole=whole):
        assert any(entry.startswith(prefix) for entry in index)


def test_the_index_bounds_most_fuzzy_queries_by_a_sound() -> None:
    assert name_prefix("Müller^A*", fuzzy=True) == SOUND_MARK + "M"
    assert name_prefix("A*^M?", fuzzy=True) == ""
    assert name_prefix("Müller^A*") == "muller"
    assert name_index(person_name_value("Müller^Anna")) == ("muller^anna", "~MLR", "~AN")
    assert name_index("") == ()


@given(st.text(st.characters(exclude_characters="^=*?\ufffd"), max_size=12), st.booleans(), st.booleans())
def test_a_name_without_delimiters_matches_itself(name: str, fuzzy: bool, whole: bool) -> None:
    assert matches(name, name + "=", fuzzy=fuzzy, whole=whole)
