"""Sends a case over real MLLP in one of three ways, and takes answers and items apart for comparison."""

import socket
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from gateway.domain.attributes import BY_KEYWORD, Level
from gateway.testing import SimulatedModality
from gateway.wire.er7 import Message, parse
from gateway.wire.mllp import Frame, Framer, wrap

ANSWER_S = 20.0
SILENT_S = 0.5
"""How long nothing has to come where no answer may come."""


_EMPTY = {"US": None, "DS": None, "IS": None, "FD": None}


class Way(StrEnum):
    """How the bytes of a case are handed to the network."""

    WHOLE = "whole"
    BYTE_BY_BYTE = "byte by byte"
    CONCATENATED = "concatenated"


def sent(host: str, port: int, pieces: Sequence[bytes], answers: Sequence[bool], way: Way) -> list[bytes]:
    """The answers to these framed messages; `answers` says which of them are answered."""
    framer = Framer(64 * 1024 * 1024)
    found: list[bytes] = []
    with socket.create_connection((host, port), timeout=ANSWER_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if way is Way.CONCATENATED:
            connection.sendall(b"".join(pieces))
            _take(connection, framer, found, sum(answers))
            return found
        for piece, answered in zip(pieces, answers, strict=True):
            if way is Way.WHOLE:
                connection.sendall(piece)
            else:
                for byte in piece:
                    connection.sendall(bytes([byte]))
            if answered:
                _take(connection, framer, found, len(found) + 1)
            else:
                _take_nothing(connection)
    return found


def framed(data: bytes, raw: bool) -> bytes:
    """As it goes on the line."""
    return data if raw else wrap(data)


def _take(connection: socket.socket, framer: Framer, found: list[bytes], number: int) -> None:
    while len(found) < number:
        received = connection.recv(65536)
        if not received:
            raise ConnectionError(f"closed after {len(found)} of {number} answers")
        found += [event.data for event in framer.feed(received) if isinstance(event, Frame)]


def _take_nothing(connection: socket.socket) -> None:
    connection.settimeout(SILENT_S)
    try:
        received = connection.recv(1)
        if received:
            raise AssertionError("an answer came where none may come")
    except TimeoutError:
        pass
    finally:
        connection.settimeout(ANSWER_S)


def answer_of(data: bytes) -> Message:
    """An answer as a message."""
    return parse(data, "utf-8")


def errors_of(answer: Message) -> list[str]:
    """Place and code of every error, as the README writes them, whichever way the version says them."""
    found = []
    for err in answer.all("ERR"):
        for place in err.field(1):
            *location, code = [component[0] for component in place[:4]]
            found.append(f"{'^'.join(filter(None, location))} {code}".strip())
        if err.raw(3):
            location = [component[0] for repetition in err.field(2) for component in repetition]
            found.append(" ".join(filter(None, ["^".join(location), err.text(3)])))
    return found


def told_by(answer: Message) -> str:
    """Everything that an answer tells people."""
    texts = [segment.text(3) for segment in answer.all("MSA")]
    texts += [segment.text(number) for segment in answer.all("ERR") for number in (7, 8)]
    return "\n".join(texts)


def items_of(modality: SimulatedModality, number: str, keywords: Iterable[str]) -> list[Dataset]:
    """Every item whose patient's ID contains the run's number, with these attributes."""
    identifier, step = Dataset(), Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.PatientID = f"*{number}*"
    for keyword in keywords:
        attribute = BY_KEYWORD[keyword]
        inside = step if attribute.level is Level.STEP else identifier
        if keyword != "PatientID":
            inside.add(
                DataElement(
                    int(attribute.tag, 16), attribute.vr, [] if attribute.vr == "SQ" else _EMPTY.get(attribute.vr, "")
                )
            )
    identifier.ScheduledProcedureStepSequence = [step]
    return modality.find(identifier)


def shown(item: Dataset, expected: Mapping[str, str]) -> dict[str, str]:
    """The attributes of an item that a case names, as the README writes them."""
    step = item.ScheduledProcedureStepSequence[0]
    return {
        keyword: _text((step if BY_KEYWORD[keyword].level is Level.STEP else item).get(keyword, ""))
        for keyword in expected
    }


def _text(value: object) -> str:
    if isinstance(value, Dataset):
        if "CodeMeaning" in value:
            code = next((value.get(key) for key in ("CodeValue", "LongCodeValue", "URNCodeValue") if key in value), "")
            return f"{code}^{value.CodeMeaning}^{value.get('CodingSchemeDesignator', '')}"
        return "{" + ", ".join(f"{element.keyword}: {_text(element.value)}" for element in value) + "}"
    if isinstance(value, MultiValue | list) or type(value).__name__ == "Sequence":
        return "\\".join(_text(each) for each in value)  # type: ignore[attr-defined]  # all of them are iterable
    return "" if value is None else str(value)
