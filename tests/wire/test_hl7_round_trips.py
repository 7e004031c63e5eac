"""What is written comes back as it was meant: text in every character set, answers, batches, anonymised messages."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.refusal import Refusal, RefusalKind
from gateway.wire.ack import acknowledge
from gateway.wire.er7 import Delimiters, Message, escape, parse
from gateway.wire.hl7_batch import answer, split
from gateway.wire.hl7_charsets import KNOWN, character_set
from gateway.workflow.anonymise import anonymise

NOW = datetime(2026, 7, 5, 8, 0, 1, tzinfo=UTC)

# Some letters of every script, those whose second byte is a delimiter in another set, and the delimiters themselves.
LETTERS = "aZ09 .'-äÖßéñøłčőřςλΩЖяіأبתבกไあゆカン漢字表能ソ山田한국김中文國|^~\\&#\n\t\x07"


def fits(letter: str, charset: str) -> bool:
    """Whether the set has the letter: what it lacks is written as `?`."""
    known = character_set((charset,))
    return known.decode(known.encode(letter)) == letter


texts_by_charset = {
    charset: st.text([letter for letter in LETTERS if fits(letter, charset)], max_size=20) for charset in KNOWN
}
delimiters = st.sampled_from([Delimiters(), Delimiters("#", "@", "*", "!", "%"), Delimiters("|", "^", "~", "]", "-")])


def written(charset: str, signs: Delimiters, *texts: str, control_id: str = "M1") -> bytes:
    """A message with these texts as the fields of an NTE, from NTE-3 on."""
    header = signs.component + signs.repetition + signs.escape + signs.subcomponent
    msh = ["MSH", header, "RIS", "RADX", "", "", "20260705", "", signs.component.join(("ORM", "O01")),
           escape(control_id, signs), "P", "2.5.1", *[""] * 5, charset]  # fmt: skip
    nte = ["NTE", "1", "", *(escape(text, signs) for text in texts)]
    return character_set((charset,)).encode("".join(f"{signs.field.join(line)}\r" for line in (msh, nte)))


@given(st.data(), st.sampled_from(KNOWN), delimiters)
def test_text_in_any_character_set_comes_back_and_never_cuts(
    data: st.DataObject, charset: str, signs: Delimiters
) -> None:
    texts = data.draw(st.lists(texts_by_charset[charset], min_size=1, max_size=4))
    segments = parse(written(charset, signs, *texts, "end")).segments
    assert [segment.name for segment in segments] == ["MSH", "NTE"]
    assert [segments[1].text(number) for number in range(3, 4 + len(texts))] == [*texts, "end"]


refusals = st.lists(
    st.builds(Refusal, st.sampled_from(RefusalKind), st.just("PID-3"), st.text(LETTERS, max_size=30)), max_size=3
)


@given(st.data(), st.sampled_from(KNOWN), delimiters, refusals)
def test_any_answer_names_the_message_that_it_answers(
    data: st.DataObject, charset: str, signs: Delimiters, reasons: list[Refusal]
) -> None:
    control_id = data.draw(texts_by_charset[charset].map(str.strip))
    message = parse(written(charset, signs, "x", control_id=control_id))
    told = parse(acknowledge(message, reasons, now=NOW))
    assert [segment.name for segment in told.segments][:2] == ["MSH", "MSA"]
    assert (told.delimiters, told.segments[1].text(2)) == (signs, message.control_id)
    assert (told.segments[1].text(1) == "AA") is not bool(reasons)


sizes = st.lists(st.integers(0, 3), min_size=1, max_size=4)


@given(sizes, st.booleans(), st.data())
def test_every_message_of_a_batch_has_its_answer_in_its_place(
    parts: list[int], filed: bool, data: st.DataObject
) -> None:
    sent = [[written("8859/1", Delimiters(), f"{part}.{n}") for n in range(size)] for part, size in enumerate(parts)]
    blocks = [b"BHS|^~\\&|RIS\r" + b"".join(part) + b"BTS|%d\r" % len(part) for part in sent]
    raw = (b"FHS|^~\\&|RIS\r" if filed else b"") + b"".join(blocks) + (b"FTS|%d\r" % len(blocks) if filed else b"")
    batch = split(raw)
    assert batch is not None
    assert [list(part.messages) for part in batch.parts] == sent
    assert batch.notes == []
    answers = [acknowledge(parse(message), now=NOW) for message in batch.messages]
    wanted = [data.draw(st.booleans()) for _ in answers]
    due = [each if want else b"" for each, want in zip(answers, wanted, strict=True)]
    told = answer(batch, due, NOW)
    if not any(due):
        assert answers == [] or told == []
        return
    again = split(b"".join(told))
    assert again is not None
    assert list(again.messages) == [each for each in due if each]
    assert again.notes == []


# Fields in which somebody may be named; other tests say what happens to each field.
PERSONAL = {"PID": (5, 9, 11, 13), "NK1": (2, 4, 5), "NTE": (3,), "ZPI": (1, 2, 3)}
NAMES = {("PID", 5), ("PID", 9), ("NK1", 2)}  # prefixes, suffixes and types stay as they are
WORDS = ("Ivanova", "Lindenweg", "Подберёзкин", "Σωκράτης", "5557788", "山田花子", "Güntherson")
words = st.sampled_from(WORDS)


@st.composite
def personal_messages(draw: st.DrawFn) -> bytes:
    lines = ["MSH|^~\\&|RIS|RADX|||20260705||ADT^A08|M1|P|2.5.1||||||UNICODE UTF-8"]
    for name in draw(st.lists(st.sampled_from(sorted(PERSONAL)), min_size=1, max_size=4)):
        fields = [""] * 14
        for number in PERSONAL[name]:
            parts = draw(st.lists(words | st.just(""), max_size=3 if (name, number) in NAMES else 6))
            signs = draw(st.lists(st.sampled_from("^~& "), min_size=6, max_size=6))
            fields[number] = "".join(part + sign for part, sign in zip(parts, signs, strict=False))
        lines.append("|".join([name, *fields[1:]]))
    return "".join(f"{line}\r" for line in lines).encode()


def shape(message: Message) -> list[tuple[str, str]]:
    """Every segment's name and its delimiters, in their places."""
    return [
        (segment.name, "".join(sign for sign in "|".join(segment.fields) if sign in "|^~&"))
        for segment in message.segments
    ]


@given(personal_messages())
def test_an_anonymised_message_keeps_its_shape_and_none_of_the_words(raw: bytes) -> None:
    message = parse(raw)
    made = parse(anonymise(message, b"of this test").raw)
    assert shape(made) == shape(message)
    said = {word for segment in message.segments[1:] for field in segment.fields[1:] for word in WORDS if word in field}
    kept = "|".join(field for segment in made.segments[1:] for field in segment.fields[1:])
    assert [word for word in said if word in kept] == []
    again = parse(anonymise(message, b"of this test").raw)
    assert [segment.fields for segment in again.segments] == [segment.fields for segment in made.segments]
