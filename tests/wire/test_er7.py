"""ER7 text is read by position: tolerant of how it is written, strict about what it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire.er7 import (
    HEADER_FIELDS,
    NULL,
    Bounds,
    Delimiters,
    Message,
    check_header,
    escape,
    parse,
    parse_header,
    unescape,
)
from gateway.wire.hl7_charsets import KNOWN, UnknownCharacterSet, character_set, default_character_set

HEADER = "MSH|^~\\&|RIS|RADX|GATEWAY|RADX|20260705080000||ORM^O01|M0001|P|2.3.1||||||"


def message(*segments: str, charset: str = "UNICODE UTF-8", end: str = "\r") -> bytes:
    return "".join(f"{line}{end}" for line in (HEADER + charset, *segments)).encode()


def refusal_of(data: bytes, **options: object) -> Refusal:
    with pytest.raises(Refused) as caught:
        parse(data, **options)  # type: ignore[arg-type]
    (refusal,) = caught.value.refusals
    return refusal


# --- positions ---------------------------------------------------------------------------------------------------


def test_fields_count_as_hl7_counts_them_also_in_msh() -> None:
    read = parse(message("PID|1||100^^^HOSPA&1.2.3&ISO~200^^^HOSPB"))
    assert [read.msh.text(n) for n in (1, 2, 3, 10, 12)] == ["|", "^~\\&", "RIS", "M0001", "2.3.1"]
    assert read.msh.field(2) == ((("^~\\&",),),)
    patient = read.first("PID")
    assert patient is not None
    assert patient.field(3) == (
        (("100",), ("",), ("",), ("HOSPA", "1.2.3", "ISO")),
        (("200",), ("",), ("",), ("HOSPB",)),
    )
    assert patient.text(3, 1, 4, 2) == "1.2.3"
    assert patient.text(3, 2, 4) == "HOSPB"
    assert patient.text(1) == "1"


def test_header_properties() -> None:
    read = parse(message())
    assert (read.message_code, read.trigger_event, read.control_id) == ("ORM", "O01", "M0001")
    assert (read.version, read.processing_id, read.sender) == ("2.3.1", "P", "RIS|RADX")
    assert read.charset == "utf-8"


@pytest.mark.parametrize("place", [(0,), (2,), (99,), (3, 9), (3, 1, 9), (3, 1, 4, 9), (1, 2), (1, 1, 2), (1, 1, 1, 2)])
def test_what_is_absent_is_empty(place: tuple[int, ...]) -> None:
    patient = parse(message("PID|1||100^^^A&B")).first("PID")
    assert patient is not None
    assert patient.text(*place) == ""


def test_an_empty_field_is_nothing_and_the_null_is_a_value() -> None:
    patient = parse(message('PID|||""|')).first("PID")
    assert patient is not None
    assert patient.field(1) == patient.field(4) == patient.field(40) == ()
    assert patient.field(3) == (((NULL,),),)
    assert patient.text(3) == NULL


def test_segments_are_numbered_by_name_and_unknown_ones_are_kept() -> None:
    read = parse(message("EVN|A04", "ZZ1|x", "ORC|1", "OBR|a", "ORC|2", "OBR|b", "ZDS"))
    assert [(each.name, each.number) for each in read.segments][1:] == [
        ("EVN", 1), ("ZZ1", 1), ("ORC", 1), ("OBR", 1), ("ORC", 2), ("OBR", 2), ("ZDS", 1),
    ]  # fmt: skip
    assert [each.text(1) for each in read.all("ORC")] == ["1", "2"]
    assert read.all("IPC") == ()
    assert read.first("IPC") is None


def test_representations_show_no_content() -> None:
    read = parse(message("PID|||100||Sample^Ann"))
    assert "Sample" not in f"{read!r}{read.segments!r}"


# --- how it is written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("\r", ()),
        ("\r\r", ()),
        ("\n", ("segments end with LF instead of CR",)),
        ("\r\n", ("segments end with CR LF instead of CR",)),
        ("\n\r", ("segments end with CR LF instead of CR",)),
        ("\r\n\r\n", ("segments end with CR LF instead of CR",)),
    ],
)
def test_any_segment_terminator(end: str, told: tuple[str, ...]) -> None:
    read = parse(message("PID|||100", "PV1||O", end=end))
    assert [each.name for each in read.segments] == ["MSH", "PID", "PV1"]
    assert read.notes == told
    assert read.msh.text(18) == "UNICODE UTF-8"


def test_a_null_declares_no_character_set() -> None:
    assert parse(message("PID|||||Größe", charset='""'), "utf-8").segments[1].text(5) == "Größe"


def test_byte_order_mark_means_utf_8_where_nothing_else_is_declared() -> None:
    read = parse(b"\xef\xbb\xbf" + message("PID|||||Größe^Ann", charset=""))
    assert read.charset == "utf-8"
    assert read.segments[1].text(5) == "Größe"
    assert read.notes == ("a byte order mark before MSH",)


def test_leading_and_trailing_padding_is_no_part_of_the_message() -> None:
    assert len(parse(b"\r\n\x00" + message("PID|1") + b"\x00\x00").segments) == 2


def test_a_line_break_inside_a_field_is_text_and_is_noted() -> None:
    read = parse(message("PID|||100||Sample^Ann\rMaria||19800101"))
    patient = read.segments[1]
    assert patient.text(5, 1, 2) == "Ann\nMaria"
    assert patient.text(7) == "19800101"
    assert read.notes == ("line break inside PID-5",)


def test_a_line_break_where_all_lines_end_with_lf_is_text_too() -> None:
    read = parse(message("PID|||100||Sample^Ann\nMaria||19800101", end="\n"))
    assert read.segments[1].text(5, 1, 2) == "Ann\nMaria"
    assert read.notes == ("segments end with LF instead of CR", "line break inside PID-5")


def test_of_very_many_line_breaks_the_first_are_told() -> None:
    read = parse(message("OBX|" + "|".join(f"a\rb{number}" for number in range(40))))
    assert read.segments[1].text(40) == "a\nb39"
    assert len(read.notes) == 10


def test_text_in_braces_is_text() -> None:
    read = parse(message('OBR|1|P1||{"code": "CT", "text": "head"}|x'))
    assert read.segments[1].text(4) == '{"code": "CT", "text": "head"}'
    assert read.segments[1].text(5) == "x"


def test_other_delimiters_are_honoured() -> None:
    read = parse(b"MSH#@*!%#RIS#X#####ORM@O01#M1#P#2.3\rPID###1@2%3*4!S!5")
    assert read.trigger_event == "O01"
    assert read.segments[1].field(3) == ((("1",), ("2", "3")), (("4@5",),))


def test_a_fifth_encoding_character_is_no_delimiter() -> None:
    read = parse(b"MSH|^~\\&#|RIS||||||OMI^O23|M1|P|2.7\rPID|||a#b^c\\P\\d")
    assert read.delimiters == Delimiters()
    assert read.segments[1].field(3) == ((("a#b",), ("cd",)),)


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        (b"", ((("a",), ("b", "c")), (("d",),))),
        (b"^", ((("a",), ("b&c~d",)),)),
        (b"^~", ((("a",), ("b&c",)), (("d",),))),
        (b"^~\\", ((("a",), ("b&c",)), (("d",),))),
    ],
)
def test_delimiters_that_a_short_msh_2_leaves_out_are_not_used(signs: bytes, expected: object) -> None:
    read = parse(b"MSH|" + signs + b"|RIS\rPID|||a^b&c~d")
    assert read.segments[1].field(3) == expected


def test_a_short_header_is_read_as_far_as_it_goes() -> None:
    read = parse(b"MSH|^~\\&|RIS")
    assert (read.control_id, read.version, read.message_code) == ("", "", "")
    assert read.notes == ("MSH-11 is empty; taken as P", "MSH-12 is empty; taken as 2.3.1")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("ORM", ("ORM", "")),
        ("ORM^O01", ("ORM", "O01")),
        ("ORM^O01^ORM_O01", ("ORM", "O01")),
        ("ORM_O01", ("ORM", "O01")),
        ("orm^o01", ("ORM", "O01")),
        ("ADT ^A08 ", ("ADT", "A08")),
    ],
)
def test_message_type_as_senders_write_it(written: str, meant: tuple[str, str]) -> None:
    read = header(MSH9=written)
    assert (read.message_code, read.trigger_event) == meant


@pytest.mark.parametrize(
    ("data", "where", "kind"),
    [
        (b"", "MSH", RefusalKind.UNREADABLE),
        (b"hello", "MSH", RefusalKind.UNREADABLE),
        (b"PID|1\rMSH|^~\\&|", "MSH", RefusalKind.UNREADABLE),
        (b"MSH", "MSH-1", RefusalKind.UNREADABLE),
        (b"MSH\r", "MSH-1", RefusalKind.UNREADABLE),
        (b"MSHX^~\\&X", "MSH-1", RefusalKind.UNREADABLE),
        (b"MSH|^^\\&|", "MSH-2", RefusalKind.UNREADABLE),
        (b"MSH|ABCD|", "MSH-2", RefusalKind.UNREADABLE),
        (b"MSH|\xa7~\\&|", "MSH-2", RefusalKind.UNREADABLE),
        (b"BHS|^~\\&|RIS", "BHS", RefusalKind.UNSUPPORTED_TYPE),
        (b"FHS|^~\\&|RIS", "FHS", RefusalKind.UNSUPPORTED_TYPE),
        (HEADER.encode("utf-16-le"), "MSH-18", RefusalKind.UNREADABLE),
    ],
)
def test_what_is_no_message_is_refused_with_its_place(data: bytes, where: str, kind: RefusalKind) -> None:
    refusal = refusal_of(data)
    assert (refusal.where, refusal.kind) == (where, kind)
    assert refusal.hint


# --- escapes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"O\T\Neil", "O&Neil"),
        (r"\F\\S\\R\\E\\T\ ", "|^~\\& "),
        (r"one\.br\two", "one\ntwo"),
        (r"one\.sp 2\two\.ce\three", "one\ntwo\nthree"),
        (r"\.in+2\a\.ti-3\b\.fi\c\.nf\d\.sk 4\e", "abcd e"),
        (r"\H\bold\N\ plain\P\ ", "bold plain "),
        (r"a\Z123\b", "ab"),
        (r"\X41\\X0D0A\b", "A\r\nb"),
        (r"\XC3\\XBC\ber", "über"),  # one character cut into two sequences
        (r"C:\temp\new", r"C:\temp\new"),
        (r"50\ and \Q\ stay", r"50\ and \Q\ stay"),
        (r"lone \ then \T\ ", r"lone \ then & "),
        (r"\XZZ\ \X4\ \XFF\ ", r"\XZZ\ \X4\ \XFF\ "),  # no bytes, half a byte, not UTF-8: kept as written
        (r"a\X00\b", r"a\X00\b"),
        (r"\E\T\ ", r"\T\ "),
    ],
)
def test_escape_sequences(written: str, meant: str) -> None:
    assert parse(message(f"NTE|1||{written}|")).segments[1].text(3) == meant


def test_escaped_delimiters_do_not_cut() -> None:
    assert parse(message(r"PID|||||O\S\Neil^Pat\R\Jo")).segments[1].field(5) == ((("O^Neil",), ("Pat~Jo",)),)


UTF_8 = character_set(("UNICODE UTF-8",))
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"))


@given(texts, st.sampled_from([Delimiters(), Delimiters("#", "@", "*", "!", "%"), Delimiters("|", "^", "~", "]", "-")]))
def test_what_is_escaped_comes_back_and_never_cuts(text: str, delimiters: Delimiters) -> None:
    written = escape(text, delimiters)
    assert unescape(written, delimiters, UTF_8) == text
    signs = {delimiters.field, delimiters.component, delimiters.repetition, delimiters.subcomponent}
    assert not signs & set(written)
    assert not [sign for sign in written if sign < " "]


@given(st.text(max_size=30))
def test_without_an_escape_character_text_still_cannot_cut(text: str) -> None:
    written = escape(text, Delimiters("|", "^", "~", "", ""))
    assert not set("|^~") & set(written)
    assert not [sign for sign in written if sign < " "]


@given(st.lists(st.lists(texts, min_size=1, max_size=4), min_size=1, max_size=3))
def test_components_and_repetitions_round_trip_through_a_message(repetitions: list[list[str]]) -> None:
    delimiters = Delimiters()
    field = "~".join("^".join(escape(part, delimiters) for part in parts) for parts in repetitions)
    segment = parse(message(f"PID|||{field}|x")).segments[1]
    assert segment.text(4) == "x"
    if field:
        assert segment.field(3) == tuple(tuple((part,) for part in parts) for parts in repetitions)
    for number, parts in enumerate(repetitions, 1):
        assert [segment.text(3, number, place) for place in range(1, len(parts) + 1)] == parts


# --- character sets ----------------------------------------------------------------------------------------------

SAMPLES = {
    "8859/1": "Müller",
    "8859/2": "Łukasz",
    "8859/3": "Ħal",
    "8859/4": "Ģirts",
    "8859/5": "Люкceмбypг",
    "8859/6": "قباني",
    "8859/7": "Διονυσιος",
    "8859/8": "שרון",
    "8859/9": "Çavuşoğlu",
    "8859/15": "Œuvre€",
    "ISO IR87": "山田",
    "ISO IR159": "丂",
    "JIS X 0202": "山田丂",
    "JAS2020": "山田",
    "KS X 1001": "김희중",
    "GB 18030-2000": "王小东𠀀",
    "BIG-5": "王小東功",  # the last one has a trail byte 5CH, the escape character
    "UNICODE UTF-8": "Größe 山田 김",
    "UNICODE": "Größe",
    "ASCII": "plain",
    "ISO IR6": "plain",
}


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_known_set_reads_its_letters(name: str) -> None:
    codec = character_set((name,)).codec
    head = f"{HEADER}{name}\rPID|||||".encode()
    read = parse(head + SAMPLES[name].encode(codec) + b"^Ann&B\r")
    assert read.segments[1].field(5) == (((SAMPLES[name],), ("Ann", "B")),)
    assert read.character_set.encode(SAMPLES[name]).decode(codec) == SAMPLES[name]


def test_the_samples_cover_the_table() -> None:
    assert set(SAMPLES) | {"ISO IR14"} == set(KNOWN)


def test_half_width_katakana() -> None:
    read = parse(f"{HEADER}ISO IR14\rPID|||||".encode() + b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3")
    assert read.segments[1].field(5) == ((("ﾔﾏﾀﾞ",), ("ﾀﾛｳ",)),)


@pytest.mark.parametrize(
    ("declared", "written", "meant"),
    [
        ("ASCII~ISO IR87", b"Yamada^Tarou~\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "山田"),
        ("ISO IR14~ISO IR87", b"\xd4\xcf\xc0\xde~\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J", "山田"),
        ("ISO IR87", rb"Yamada~\M2442\;3ED\C2842\^\M2442\B@O:\C2842" + b"\\", "山田"),
        ("ASCII~ISO IR159", b"x~\x1b$(D0!\x1b(B^y", "丂"),
        ("ASCII~8859/7", b"x~\x1b-F\xc4\xe9\xef^y", "Διο"),
        ("8859/1~8859/5", b"M\xfcller~\x1b-L\xbb\xee\xda^y", "Люк"),
        ("ASCII~KS X 1001", b"Hong~\x1b$)C\xb1\xe8\xc8\xf1^y", "김희"),
        ("ASCII~KS X 1001", b"Hong~\xb1\xe8\xc8\xf1^y", "김희"),  # designated by nobody, and there is only one
    ],
)
def test_iso_2022_shifts(declared: str, written: bytes, meant: str) -> None:
    read = parse(f"{HEADER}{declared}\rPID|||||".encode() + written + b"\rPV1||O")
    assert read.segments[1].text(5, 2) == meant
    assert read.segments[2].text(2) == "O"


def test_a_shift_ends_with_its_line() -> None:
    read = parse(f"{HEADER}ISO IR87\rNTE|||".encode() + b"\x1b$B;3ED\rNTE|||plain")
    assert [each.text(3) for each in read.all("NTE")] == ["山田", "plain"]


def test_ascii_with_unicode_is_unicode() -> None:
    assert parse(message("PID|||||Größe", charset="ASCII~UNICODE UTF-8")).segments[1].text(5) == "Größe"


@pytest.mark.parametrize("spelling", ["utf-8", "UTF8", "Unicode UTF-8", "UNICODE UTF-8 ", "ISO_IR 192"])
def test_spelling_of_a_set_may_vary(spelling: str) -> None:
    assert parse(message("PID|||||Größe", charset=spelling)).segments[1].text(5) == "Größe"


@pytest.mark.parametrize(
    "declared",
    [
        "UNICODE UTF-16",
        "UNICODE UTF-32",
        "KLINGON",
        "CNS 11643-1992",
        "8859/1~UNICODE UTF-8",
        "rot13",
        "idna",
        "ISO_IR 166",
        "~" * 9 + "X",
    ],
)
def test_unknown_sets_are_refused_by_name_with_the_known_ones(declared: str) -> None:
    refusal = refusal_of(message(charset=declared))
    assert (refusal.kind, refusal.where) == (RefusalKind.UNREADABLE, "MSH-18")
    assert "8859/1" in refusal.hint


def test_a_very_long_msh_18_is_not_remembered() -> None:
    assert refusal_of(message(charset="X" * 100_000)).where == "MSH-18"
    assert len(str(refusal_of(message(charset="X" * 100_000)))) < 1000


@pytest.mark.parametrize("default", ["8859/1", "iso8859-1", "latin-1", "cp1252"])
def test_the_listeners_default_reads_undeclared_bytes(default: str) -> None:
    data = message("PID|||||M", charset="").replace(b"|M\r", b"|M\xe9\r")
    assert parse(data, default).segments[1].text(5) == "Mé"


@pytest.mark.parametrize("declared", ["UNICODE UTF-8", "KLINGON", "ASCII", "8859/1~ISO IR87"])
def test_a_listener_may_override_what_is_declared(declared: str) -> None:
    data = message("PID|||||M", charset=declared).replace(b"|M\r", b"|M\xe9\r")
    read = parse(data, charset_override="8859/1")
    assert read.segments[1].text(5) == "Mé"
    assert read.notes == ("MSH-18 is not believed: read as 8859/1",)


def test_an_override_of_nothing_declared_needs_no_note() -> None:
    assert parse(message("PID|1", charset=""), charset_override="8859/1").notes == ()


@pytest.mark.parametrize(
    ("term", "name"),
    [
        ("ISO_IR 100", "8859/1"), ("ISO_IR 101", "8859/2"), ("ISO_IR 109", "8859/3"), ("ISO_IR 110", "8859/4"),
        ("ISO_IR 144", "8859/5"), ("ISO_IR 127", "8859/6"), ("ISO_IR 126", "8859/7"), ("ISO_IR 138", "8859/8"),
        ("ISO_IR 148", "8859/9"), ("ISO_IR 203", "8859/15"), ("ISO_IR 192", "UNICODE UTF-8"), ("ISO_IR 13", "ISO IR14"),
    ],
)  # fmt: skip
def test_the_terms_of_dicom_are_understood_in_msh_18(term: str, name: str) -> None:
    assert character_set((term,)) == character_set((name,))


@pytest.mark.parametrize("name", ["utf-16", "utf-7", "unicode_escape", "hex", "rot13", "idna", "nonsense", "undefined"])
def test_no_default_can_be_a_codec_that_changes_the_delimiters(name: str) -> None:
    with pytest.raises(UnknownCharacterSet):
        default_character_set(name)


@pytest.mark.parametrize("declared", ["", "ASCII", "UNICODE UTF-8"])
def test_bytes_outside_the_set_are_refused_with_place_and_offset_not_content(declared: str) -> None:
    data = message("PID|1", "OBR|1", "OBR|2||Sample", charset=declared).replace(b"Sample", b"Sampl\xe9")
    refusal = refusal_of(data)
    assert (refusal.kind, refusal.where) == (RefusalKind.UNREADABLE, "OBR[2]-3")
    assert f"byte {data.index(0xE9)} " in refusal.text
    assert "Sampl" not in str(refusal)


def test_unknown_shift_and_half_a_character_are_refused() -> None:
    assert refusal_of(f"{HEADER}ISO IR87\rNTE|||".encode() + b"\x1b$X;3").where == "NTE-3"
    assert refusal_of(f"{HEADER}ISO IR87\rNTE|||".encode() + b"\x1b$B;3E").where == "NTE-3"


def test_nul_inside_a_message_is_refused() -> None:
    assert refusal_of(message("PID|||1\x002")).where == "PID-3"


# --- bounds ------------------------------------------------------------------------------------------------------


def test_bounds_hold_at_the_limit_and_refuse_one_more() -> None:
    bounds = Bounds(message_bytes_max=1000, segments_max=5, repetitions_max=3)
    fits = message("PID|||1~2~3", "NTE|1", "NTE|2", "NTE|3~3")
    assert len(parse(fits, bounds=bounds).segments) == 5
    assert refusal_of(fits + b"NTE|4\r", bounds=bounds).kind is RefusalKind.TOO_LONG
    repeated = refusal_of(message("NTE|1", "NTE|2|1~2~3~4"), bounds=bounds)
    assert (repeated.kind, repeated.where) == (RefusalKind.TOO_LONG, "NTE[2]-2")
    assert refusal_of(message("NTE|" + "x" * 1000), bounds=bounds).kind is RefusalKind.TOO_LONG


def test_many_repetitions_in_many_fields_are_no_reason_to_refuse() -> None:
    assert parse(message(*["NTE|1~2~3"] * 10), bounds=Bounds(repetitions_max=3)).all("NTE")


# --- header ------------------------------------------------------------------------------------------------------


def header(**fields: str) -> Message:
    said = {"MSH9": "ORM^O01", "MSH10": "1", "MSH11": "P", "MSH12": "2.3.1"} | fields
    return parse(f"MSH|^~\\&|||||odd text||{said['MSH9']}|{said['MSH10']}|{said['MSH11']}|{said['MSH12']}".encode())


@pytest.mark.parametrize("version", ["2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5.1", "2.8.2", "2.9", "2.5.1^DEU"])
@pytest.mark.parametrize("processing_id", ["P", "D", "P^T"])
def test_usual_headers_pass_whatever_their_date_says(version: str, processing_id: str) -> None:
    assert check_header(header(MSH12=version, MSH11=processing_id)) == []


@pytest.mark.parametrize(
    ("field", "value", "kind", "where"),
    [
        ("MSH9", "", RefusalKind.MISSING_FIELD, "MSH-9"),
        ("MSH10", "", RefusalKind.MISSING_FIELD, "MSH-10"),
        ("MSH9", '""', RefusalKind.MISSING_FIELD, "MSH-9"),
        ("MSH11", "T", RefusalKind.UNSUPPORTED_PROCESSING_ID, "MSH-11"),
        ("MSH12", "3.0", RefusalKind.UNSUPPORTED_VERSION, "MSH-12"),
        ("MSH12", "2.10", RefusalKind.UNSUPPORTED_VERSION, "MSH-12"),
    ],
)
def test_header_problems_are_named(field: str, value: str, kind: RefusalKind, where: str) -> None:
    (refusal,) = check_header(header(**{field: value}))
    assert (refusal.kind, refusal.where) == (kind, where)


def test_all_header_problems_are_reported_at_once_and_tests_can_be_allowed() -> None:
    assert len(check_header(header(MSH9="", MSH10="", MSH11="T", MSH12="9"))) == 4
    assert check_header(header(MSH11="", MSH12="")) == []
    assert check_header(header(MSH11="T"), frozenset("PDT")) == []


@pytest.mark.parametrize("place", HEADER_FIELDS)
def test_a_listener_may_insist_on_a_field(place: int) -> None:
    empty = parse(b"MSH|^~\\&|")
    (refusal,) = check_header(empty, required=(place,))
    assert (refusal.kind, refusal.where) == (RefusalKind.MISSING_FIELD, f"MSH-{place}")
    assert refusal.text == f"{HEADER_FIELDS[place]} is empty"


# --- anything at all ---------------------------------------------------------------------------------------------

near_messages = st.lists(
    st.sampled_from(
        [b"MSH|^~\\&|", b"MSH", b"PID|", b"\r", b"\n", b"|", b"^", b"~", b"&", b"\\", b"\\X", b"\\M2442\\", b"\x1b$B",
         b"\x1b", b"ISO IR87", b"||||||||||||||||", b"8859/1", b"\xef\xbb\xbf", b"\x00", b"\xff\xfe", b"A", b".br"]
    ),
    max_size=25,
).map(b"".join)  # fmt: skip


@given(st.binary(max_size=200) | near_messages | st.binary(max_size=60).map(lambda tail: b"MSH|^~\\&|" + tail))
def test_any_bytes_are_a_message_or_are_refused(data: bytes) -> None:
    for read in (parse, parse_header):
        try:
            found = read(data)
        except Refused:
            continue
        for segment in found.segments:
            for n in range(len(segment.fields) + 1):
                field = segment.field(n)
                assert segment.text(n) == (field[0][0][0] if field else "")
        check_header(found)
