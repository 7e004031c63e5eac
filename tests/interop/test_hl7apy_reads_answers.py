"""Our answers are what another HL7 library takes for valid messages of their structure.

Not ORR: hl7apy wants every one of the segments that its structure gives to choose from.
"""

from datetime import UTC, datetime

import pytest

from gateway.domain.identifiers import Identifier
from gateway.domain.order import OrderControl, OrderResponse
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.wire.ack import AnswerStyle, acknowledge
from gateway.wire.er7 import parse

parser = pytest.importorskip("hl7apy.parser")
consts = pytest.importorskip("hl7apy.consts")

NOW = datetime(2026, 7, 5, 8, tzinfo=UTC)
BAD = Refusal(RefusalKind.MISSING_FIELD, "TQ1-7", "no start", "send it")
DONE = OrderResponse(OrderControl.OK, Identifier("P1", "OE"), Identifier("F1", "RIS"), "SC")


@pytest.mark.parametrize("refusals", [(), (BAD,)], ids=["done", "refused"])
@pytest.mark.parametrize(
    ("kind", "version", "name"),
    [
        ("OMI^O23^OMI_O23", "2.5.1", "ORI_O24"), ("OMG^O19^OMG_O19", "2.5.1", "ORG_O20"),
        ("ADT^A08^ADT_A01", "2.5.1", "ACK"), ("OMI^O23^OMI_O23", "2.6", "ORI_O24"),
    ],
)  # fmt: skip
def test_answers_are_valid_in_their_structure(
    kind: str, version: str, name: str, refusals: tuple[Refusal, ...]
) -> None:
    lines = [
        f"MSH|^~\\&|RIS|RADX|GW|RADX|20260705||{kind}|M1|P|{version}",
        "PID|||100",
        "ORC|NW|P1^OE|F1^RIS||SC",
        "TQ1|1",
        "OBR|1|P1^OE|F1^RIS|MRHEAD^MR head^99PROC",
        "IPC|A1|R1|1.2.3|S1|MR",
    ]
    asked = parse("\r".join(lines).encode())
    told = acknowledge(asked, refusals, now=NOW, responses=(DONE,), style=AnswerStyle("order")).decode()
    level = consts.VALIDATION_LEVEL.STRICT
    message = parser.parse_message(told, validation_level=level, find_groups=True)
    assert message.name == name
    assert message.validate()
