"""HL7 libraries of others as senders over plain MLLP: hl7apy, python-hl7 and simple-hl7 from npm."""

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import hl7
import pytest
from hl7.client import MLLPClient as PythonHL7Client
from hl7apy.core import Message
from hl7apy.parser import parse_message

from gateway.testing import ServiceProcess, SimulatedModality

NODE = Path(__file__).parent / "node"
NODE_S = 60  # to start Node.js on a loaded machine

Send = Callable[[ServiceProcess, Sequence[str]], list[str]]


def _order(number: str, control: str = "NW", start: str = "20260705093000") -> str:
    return "\r".join((
        rf"MSH|^~\&|RIS|RADX|GATEWAY|RADX|20260705080000||ORM^O01|{control}{number}|P|2.3.1||||||UNICODE UTF-8",
        f"PID|||{number}^^^HOSPITAL||Sørbø^Käthe||19800102|F",
        f"ORC|{control}|P{number}^OE|||SC||1^^^{start}^^R",
        f"OBR|1|P{number}^OE||CTHEAD^CT head^99PROC||||||||||||||A{number}||||||CT",
        "",
    ))  # fmt: skip


def _by_python_hl7(service: ServiceProcess, messages: Sequence[str]) -> list[str]:
    """Its client, which frames and waits; its parser builds the message anew."""
    with PythonHL7Client(service.host, service.hl7_port, encoding="utf-8") as client:
        return [
            hl7.parse(client.send_message(hl7.parse(text)).strip(b"\x0b\x1c\r").decode()).__str__() for text in messages
        ]


def _by_hl7apy(service: ServiceProcess, messages: Sequence[str]) -> list[str]:
    """hl7apy has no client; it parses the message and writes it for MLLP, and a plain socket carries it."""

    answers = []
    with socket.create_connection((service.host, service.hl7_port), timeout=30) as connection:
        for text in messages:
            built: Message = parse_message(text, find_groups=False)
            connection.sendall(built.to_mllp().encode())
            received = b""
            while not received.endswith(b"\x1c\r"):
                received += connection.recv(65536)
            answers.append(parse_message(received.strip(b"\x0b\x1c\r").decode() + "\r").to_er7())
    return answers


def _by_simple_hl7(service: ServiceProcess, messages: Sequence[str]) -> list[str]:
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed (Debian packages nodejs and npm)")
    if not (NODE / "node_modules" / "simple-hl7").is_dir():
        pytest.skip("simple-hl7 is not installed (npm ci in tests/interop/node; `make peers` does it)")
    done = subprocess.run(
        ["node", "send.js", service.host, str(service.hl7_port)],
        cwd=NODE, input=json.dumps(list(messages)), capture_output=True, text=True, timeout=NODE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers: list[str] = json.loads(done.stdout)
    return answers


SENDERS = {"python-hl7": (_by_python_hl7, "71"), "hl7apy": (_by_hl7apy, "72"), "simple-hl7": (_by_simple_hl7, "73")}


@pytest.fixture(params=SENDERS)
def sender(request: pytest.FixtureRequest) -> tuple[Send, str]:
    """A way to send, and the prefix of its order numbers."""
    return SENDERS[request.param]


def _codes(answers: Sequence[str]) -> list[tuple[str, str]]:
    """MSA-1 and MSA-2 of each."""
    found = []
    for answer in answers:
        msa = next(line for line in answer.replace("\n", "\r").split("\r") if line.startswith("MSA")).split("|")
        found.append((msa[1], msa[2]))
    return found


@pytest.mark.interop
def test_orders_sent_by_another_library_are_listed(
    sender: tuple[Send, str], service: ServiceProcess, modality: SimulatedModality
) -> None:
    send, prefix = sender
    number = f"{prefix}0001"
    answers = send(service, [_order(number), _order(number, "XO", "20260705110000")])
    assert _codes(answers) == [("AA", f"NW{number}"), ("AA", f"XO{number}")]
    (item,) = modality.worklist(AccessionNumber=f"A{number}")
    assert str(item.PatientName) == "Sørbø^Käthe"
    assert item.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartTime == "110000"


@pytest.mark.interop
def test_a_refusal_is_read_by_another_library(sender: tuple[Send, str], service: ServiceProcess) -> None:
    send, prefix = sender
    number = f"{prefix}0002"
    broken = _order(number).replace(f"{number}^^^HOSPITAL", "")
    answers = send(service, [broken, _order(number)])
    assert _codes(answers) == [("AE", f"NW{number}"), ("AA", f"NW{number}")]
    assert "PID" in answers[0]
