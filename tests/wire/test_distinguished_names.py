"""Distinguished names: what people write into a name never becomes structure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.distinguished_names import DN, DNError, parse_dn

_VALUES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
_NASTY = st.text(' ,+"\\#<>;=\x00a', min_size=1, max_size=12)


@given(st.lists(st.one_of(_VALUES, _NASTY), min_size=1, max_size=4))
def test_any_value_comes_back_and_stays_one_value(values):
    dn = DN(tuple((("cn", value),) for value in values))
    assert parse_dn(str(dn)) == dn


@given(_NASTY, _NASTY)
def test_a_name_of_two_parts_comes_back(one, other):
    dn = DN((((("dicomSOPClass"), one), ("dicomTransferRole", other)), (("dc", "example"),)))
    assert parse_dn(str(dn)) == dn


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_is_refused(text):
    try:
        dn = parse_dn(text)
    except DNError:
        return
    assert parse_dn(str(dn)) == dn


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("CT1,dc=evil", r"CT1\,dc\=evil"),
        (" CT ", r"\ CT\ "),
        ("  ", r"\ \ "),
        (" ", r"\ "),
        ("#1", r"\#1"),
        ("1#", "1#"),
        ('a"b', r"a\"b"),
        ("a\\", r"a\\"),
        ("a+b;c<d>", r"a\+b\;c\<d\>"),
        ("a\x00b", r"a\00b"),
        ("Röntgen", "Röntgen"),
    ],
)
def test_values_are_written_as_rfc_4514_has_it(value, written):
    assert str(DN(((("cn", value),),))) == f"cn={written}"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("cn=a , dc=b", ["a", "b"]),
        ("CN=Lu\\C4\\8Di\\C4\\87", ["Lučić"]),
        ('cn="Doe, Jane",dc=x', ["Doe, Jane", "x"]),
        ("1.3.6.1.4.1.1466.0=#04024869", ["Hi"]),
        ("cn=a\\ ,dc=b", ["a ", "b"]),
        ("cn=a\\\\,dc=b", ["a\\", "b"]),
        ("cn=a\\,b;dc=c", ["a,b", "c"]),
    ],
)
def test_names_of_others_are_read(text, values):
    assert [rdn[0][1] for rdn in parse_dn(text).rdns] == values


@pytest.mark.parametrize(
    "text", ["cn", "=a", "cn=a,", "cn=a\\", 'cn="a', "cn=#0", "cn=#04", "cn=a,b=\\ff", "c n=a", "cn=#0402486"]
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(DNError):
        parse_dn(text)


def test_names_are_compared_without_case_but_for_ae_titles():
    assert parse_dn("CN=Devices, DC=Example").key == parse_dn("cn=devices,dc=example").key
    assert parse_dn("cn=a  b").key == parse_dn("cn=A b").key
    assert parse_dn("dicomAETitle=CT1,dc=x").key != parse_dn("dicomAETitle=ct1,dc=x").key
    assert parse_dn("cn=a+dc=b").key == parse_dn("dc=b+cn=a").key


def test_below_means_below_and_not_merely_alike():
    assert parse_dn("cn=a,dc=x").is_below(parse_dn("dc=x"))
    assert parse_dn("cn=a,dc=x").is_below(DN())
    assert not parse_dn("dc=x").is_below(parse_dn("dc=x"))
    assert not parse_dn("cn=a\\,dc\\=x").is_below(parse_dn("dc=x"))
