"""HL7 senders bound to where they come from: whoever else says to be them is refused, and others are not harmed."""

import asyncio
import contextlib
import json

import pytest
from access_peers import ELSEWHERE, OWN, logged, metric, reload, secured, until
from hl7_service import orm
from ruamel.yaml import YAML
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.testing import free_port
from gateway.wire.er7 import parse
from gateway.wire.hl7_batch import split
from gateway.wire.mllp import Frame, Framer, wrap

BOUND = [{"sender": "RIS|RADX", "addresses": [OWN]}]


def listeners(**access):
    return [{"name": "ris", "host": OWN, "port": free_port(), "mapping": "ihe-swf", **access}]


async def exchanged(port, frames, source=OWN):
    """The answers to these, one after the other; fewer where the connection was closed."""
    reader, writer = await asyncio.open_connection(OWN, port, local_addr=(source, 0))
    framer, answers = Framer(), []
    try:
        for frame in frames:
            writer.write(wrap(frame))
            while len(answers) < frames.index(frame) + 1:
                data = await asyncio.wait_for(reader.read(65536), 20)
                if not data:
                    return answers
                answers += [event.data for event in framer.feed(data) if isinstance(event, Frame)]
    except ConnectionError:
        return answers
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return answers


def sent(service, *messages, source=OWN):
    return [parse(answer) for answer in asyncio.run(exchanged(service.hl7_port, messages, source))]


def codes(answers):
    return [answer.first("MSA").text(1) for answer in answers]


def other(control_id, order):
    return orm(control_id, order).replace(b"|RIS|RADX|GATEWAY|", b"|PAS|RADX|GATEWAY|", 1)


@pytest.fixture(scope="module", params=[0, 1], ids=["alone", "with a worker"])
def service(request, tmp_path_factory):
    hl7 = listeners(bound_senders=BOUND)
    with secured(tmp_path_factory.mktemp("bound"), [], hl7=hl7, workers=request.param) as running:
        yield running


def archived(service, control_id):
    done = CliRunner().invoke(
        cli, ["messages", "list", "--control-id", control_id, "--json", "--config", str(service.config)]
    )
    assert done.exit_code == 0, done.output
    return [(each["outcome"], each["peer"].partition(":")[0]) for each in json.loads(done.output)]


def test_a_bound_sender_is_taken_from_its_place_and_refused_from_elsewhere(service):
    assert codes(sent(service, orm("B1", "101"))) == ["AA"]
    before = metric(service, 'gateway_callers_denied_total{reason="sender"}')
    (refused,) = sent(service, orm("B2", "102"), source=ELSEWHERE)
    assert refused.first("MSA").text(1) == "AR"
    assert "103&Table value not found" in refused.first("ERR").raw(1)  # as 2.3.1 has it
    assert archived(service, "B2") == [("refused", ELSEWHERE)]
    # A worker tells what it counted some seconds later, so more may come than what was refused just now.
    until(lambda: metric(service, 'gateway_callers_denied_total{reason="sender"}') > before, service)
    until(lambda: logged(service, "sender_denied"), service)
    assert logged(service, "sender_denied")[-1]["peer"].startswith(ELSEWHERE)


def test_other_senders_are_taken_from_anywhere_on_the_same_connection(service):
    answers = sent(service, other("O1", "103"), orm("O2", "104"), other("O3", "105"), source=ELSEWHERE)
    assert codes(answers) == ["AA", "AR", "AA"]


@pytest.mark.parametrize(
    "said", [b"|ris|radx|", b"| RIS|RADX |", b"|RIS^1.2^ISO|RADX^9|", b"|\\X524953\\|RADX|"],
    ids=["case", "blanks", "components", "escaped"],
)  # fmt: skip
def test_the_name_is_recognised_however_it_is_written(service, said):
    forged = orm("F1", "106").replace(b"|RIS|RADX|", said, 1)
    assert codes(sent(service, forged, source=ELSEWHERE)) == ["AR"]


def test_the_answer_given_to_the_real_sender_is_not_given_to_another(service):
    message = orm("R1", "107")
    assert codes(sent(service, message)) == ["AA"]
    assert codes(sent(service, message, source=ELSEWHERE)) == ["AR"]
    assert codes(sent(service, message)) == ["AA"]


def test_in_a_batch_each_message_is_looked_at(service):
    messages = (other("M1", "108"), orm("M2", "109"), other("M3", "110"))
    batch = b"BHS|^~\\&|PAS|RADX\r" + b"".join(messages) + b"BTS|3\r"
    (answer,) = asyncio.run(exchanged(service.hl7_port, [batch], ELSEWHERE))
    assert codes(map(parse, split(answer).messages)) == ["AA", "AR", "AA"]


def test_what_was_refused_so_is_not_among_those_that_are_run_again_together(service):
    assert codes(sent(service, orm("P1", "111"), source=ELSEWHERE)) == ["AR"]
    words = ["messages", "replay", "--refused", "--control-id", "P1", "--json", "--config", str(service.config)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    replayed = json.loads(done.output)
    assert (replayed["passed_over"], replayed["messages"]) == (1, [])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_listener_of_certain_addresses_hangs_up_on_others_and_a_reload_says_which(tmp_path, workers):
    hl7 = listeners(addresses=["127.0.0.1", "10.0.0.0/8"], validate="strict")
    with secured(tmp_path, [], hl7=hl7, workers=workers) as service:
        assert codes(sent(service, orm("A1", "112"))) == ["AA"]
        assert sent(service, orm("A2", "113"), source=ELSEWHERE) == []
        until(lambda: logged(service, "mllp_caller_denied"), service)
        line = logged(service, "mllp_caller_denied")[-1]
        assert (line["reason"], line["listener"], line["peer"].partition(":")[0]) == ("address", "ris", ELSEWHERE)
        assert archived(service, "A2") == []
        until(lambda: metric(service, 'gateway_callers_denied_total{reason="address"}') == 1, service)
        settings = YAML(typ="safe").load(service.config.read_text())
        settings["hl7"][0] |= {"addresses": [], "bound_senders": [{"sender": "RIS", "addresses": [ELSEWHERE]}]}
        with service.config.open("w") as file:
            YAML().dump(settings, file)
        reload(service, workers)
        assert codes(sent(service, orm("A3", "114"), source=ELSEWHERE)) == ["AA"]
        assert codes(sent(service, orm("A4", "115"))) == ["AR"]


def test_a_listener_of_certain_certificates_takes_nothing_without_tls(tmp_path):
    with secured(tmp_path, [], hl7=listeners(certificates=["subject:RIS"])) as service:
        assert sent(service, orm("A1", "116")) == []
        until(lambda: logged(service, "mllp_caller_denied"), service)
        assert logged(service, "mllp_caller_denied")[-1]["reason"] == "plain"


@pytest.mark.parametrize(
    ("workers", "bounds"),
    [
        (0, {"addresses": ["10.0.0.0/8"]}),
        (0, {"certificates": ["subject:RIS"]}),
        (1, {"addresses": ["10.0.0.0/8"]}),
    ],
)
def test_a_reload_ends_open_connections_that_new_bounds_do_not_let_in(tmp_path, workers, bounds):
    """The same code decides in a worker: one case shows that it follows."""
    with secured(tmp_path, [], hl7=listeners(), workers=workers) as service:

        async def scene():
            reader, writer = await asyncio.open_connection(OWN, service.hl7_port)
            try:
                writer.write(wrap(orm("A1", "112")))
                first = await asyncio.wait_for(reader.read(65536), 20)
                settings = YAML(typ="safe").load(service.config.read_text())
                settings["hl7"][0] |= bounds
                with service.config.open("w") as file:
                    YAML().dump(settings, file)
                await asyncio.to_thread(reload, service, workers)
                with contextlib.suppress(ConnectionError):
                    writer.write(wrap(orm("A2", "113")))
                    assert await asyncio.wait_for(reader.read(65536), 20) == b""
                return first
            finally:
                writer.close()

        assert b"MSA|AA|A1" in asyncio.run(scene())
        assert archived(service, "A2") == []
        until(lambda: logged(service, "mllp_caller_denied"), service)
