"""The service as a process tells others: status to python-hl7, messages passed on, performed steps to pynetdicom."""

import json
import os
import shutil
import signal
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from python_hl7_ris import PythonHL7RIS, field, kind
from ruamel.yaml import YAML
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.config import ConfigError, load_site
from gateway.edges.store import read_only
from gateway.examples import folder
from gateway.testing import (
    Draft,
    ImagingOrder,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    SimulatedRISReceiver,
    invented_person,
    merge_patients,
    rad4_orm,
    register,
    site,
)
from gateway.testing.performed_receiver import PerformedReceiver
from gateway.workflow.ports import MessageSearch

HERE = "127.0.0.1"
START = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)


def order(number: int) -> ImagingOrder:
    return ImagingOrder(number, invented_person(number), START)


def told(name: str, port: int, **settings: Any) -> dict[str, Any]:
    """A destination of HL7 messages, asked every second whether it is back."""
    return {"name": name, "host": HERE, "port": port, "retry_most_s": 1, **settings}


def until(happened: Callable[[], bool]) -> None:
    """Another process cannot be awaited, only asked."""
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def department(place: Path, *destinations: Mapping[str, Any], **settings: Any) -> Iterator["Department"]:
    config = site(place, destinations=list(destinations), **settings)
    with ServiceProcess(config) as service, Department(service) as running:
        yield running


class Department:
    """A running gateway with a RIS that orders, and a CT."""

    def __init__(self, service: ServiceProcess) -> None:
        self.service = service
        self.ris = SimulatedRIS(service.host, service.hl7_port)
        self.ct = SimulatedModality(service.host, service.dicom_port, "CT1")

    def __enter__(self) -> "Department":
        return self

    def __exit__(self, *_: object) -> None:
        self.ris.close()

    def restart(self) -> None:
        self.service.restart()
        self.ris.close()

    def order(self, number: int) -> ImagingOrder:
        made = order(number)
        assert self.ris.send(rad4_orm(made)).code == "AA"
        return made

    def start(self, ordered: ImagingOrder) -> str:
        (item,) = self.ct.worklist(AccessionNumber=ordered.accession)
        return self.ct.start(item)

    def command(self, *words: str) -> Any:
        """What a command says as JSON."""
        done = CliRunner().invoke(cli, [*words, "--config", str(self.service.config), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def queue(self, name: str) -> dict[str, Any]:
        return next(each for each in self.command("queues") if each["destination"] == name)


# ---- status (RAD-3) --------------------------------------------------------------------------------------------------

DIALECTS = {
    "status-orm": "ORM^O01",
    "status-omg": "OMG^O19",
    "status-omi": "OMI^O23",
    "status-oru": "ORU^R01",
}


def test_another_librarys_ris_is_told_in_every_dialect_also_after_a_restart(tmp_path: Path) -> None:
    with PythonHL7RIS() as ris:
        places = [told(name, ris.port, status={"mapping": name}, application="RIS") for name in DIALECTS]
        with department(tmp_path, *places) as running:
            head = running.order(1)
            scan = running.start(head)
            for type_ in DIALECTS.values():
                (message,) = ris.got(1, lambda each, type_=type_: kind(each) == type_)
                assert field(message, "MSH", 5) == "RIS"
                assert (field(message, "ORC", 2, 1), field(message, "ORC", 3, 1)) == (head.placer, head.filler)
                assert field(message, "ORC", 1) == ("RE" if type_ == "ORU^R01" else "SC")
                assert (field(message, "ORC", 5), field(message, "OBR", 25)) == ("IP", "I")
                assert field(message, "PID", 3, 1) == head.person.patient_id
            (omi,) = ris.got(1, lambda each: kind(each) == "OMI^O23")
            assert field(omi, "IPC", 3, 1) == head.study_instance_uid
            ris.stop()
            running.ct.complete(scan)
            until(lambda: all(running.queue(name)["waiting"] for name in DIALECTS))
            running.restart()
            ris.start()
            for type_ in DIALECTS.values():
                *_, message = ris.got(2, lambda each, type_=type_: kind(each) == type_)
                assert (field(message, "ORC", 5), field(message, "OBR", 25)) == ("CM", "R")
                assert field(message, "OBR", 8)[:8] == f"{datetime.now():%Y%m%d}"
            until(lambda: not any(running.queue(name)["waiting"] for name in DIALECTS))
            archived = running.command("messages", "list", "--direction", "out", "--accession", head.accession)
            assert [each["outcome"] for each in archived] == ["sent"] * 2 * len(DIALECTS)


def test_a_scan_that_was_broken_off_is_told_with_its_reason(tmp_path: Path) -> None:
    with PythonHL7RIS() as ris, department(tmp_path, told("ris", ris.port, status={})) as running:
        running.ct.discontinue(running.start(running.order(1)), "110501")
        _, message = ris.got(2)
        assert (field(message, "ORC", 1), field(message, "ORC", 5)) == ("SC", "SC")
        assert field(message, "ORC", 16) == "110501^Equipment failure^DCM"


# ---- received messages, passed on ------------------------------------------------------------------------------------


def test_messages_are_passed_on_as_they_came_and_written_anew(tmp_path: Path) -> None:
    with (
        SimulatedRISReceiver() as ris,
        PythonHL7RIS() as other,
        department(
            tmp_path,
            told("his", ris.port, pass_on={"types": ["ORM"]}),
            told("images", other.port, pass_on={"mapping": "order-omi", "types": ["ORM^O01"]}),
            told("patients", other.port, pass_on={"mapping": "adt", "types": ["ADT"]}),
        ) as running,
    ):
        head = order(1)
        raw = rad4_orm(head).message("MSG1", datetime.now())
        assert running.ris.send_raw(raw).code == "AA"
        (came,) = ris.got(1)
        assert came.raw == raw
        (omi,) = other.got(1)
        assert (kind(omi), field(omi, "ORC", 1), field(omi, "IPC", 1, 1)) == ("OMI^O23", "NW", head.accession)
        prior, surviving = invented_person(21), invented_person(22)
        running.ris.send(register(prior))
        running.ris.send(merge_patients(surviving, prior))
        registered, merged = other.got(2, lambda each: kind(each).startswith("ADT"))
        assert (kind(registered), field(registered, "PID", 3, 1)) == ("ADT^A08", prior.patient_id)
        assert (kind(merged), field(merged, "MRG", 1, 1)) == ("ADT^A40", prior.patient_id)
        assert field(merged, "PID", 3, 1) == surviving.patient_id
        assert [each.message_type for each in ris.received] == ["ORM^O01"]


# ---- performed steps (RAD-6, RAD-7) ----------------------------------------------------------------------------------


def test_a_second_gateway_gets_orders_and_performed_steps_of_the_first(tmp_path: Path) -> None:
    with PerformedReceiver() as pacs, department(tmp_path / "second") as second:
        places = (
            told("second-hl7", second.service.hl7_port, pass_on={}),
            told("second-dicom", second.service.dicom_port, performed={"ae_title": "GATEWAY"}),
            told("pacs", pacs.port, performed={"ae_title": "PACS", "calling_ae_title": "FIRST"}),
        )
        with department(tmp_path / "first", *places) as first:
            head = first.order(1)
            until(lambda: len(second.ct.worklist(AccessionNumber=head.accession)) == 1)
            scan = first.start(head)
            pacs.wait_for(lambda: pacs.steps == {scan: "IN PROGRESS"})
            pacs.stop()
            first.ct.complete(scan)
            until(lambda: first.queue("pacs")["waiting"] == 1)
            first.restart()
            pacs.start()
            pacs.wait_for(lambda: pacs.steps == {scan: "COMPLETED"})
            assert {each.calling_ae_title for each in pacs.reported} == {"FIRST"}
            until(lambda: not second.ct.worklist(AccessionNumber=head.accession))
            (performed,) = second.command("performed", "list")
            assert (performed["uid"], performed["state"], performed["attention"]) == (scan, "COMPLETED", "")
            until(lambda: not first.queue("pacs")["waiting"])


class NumberingRIS(SimulatedRISReceiver):
    """Gives every order that has no number of its own one, in its answer; then it answers with what nobody can read."""

    def _acknowledgement(self, code: str, control_id: str, number: int) -> bytes:
        plain = super()._acknowledgement(code, control_id, number)
        if number > 1:
            return plain + b"ORC|NA|\x0b\xff\r"
        filler = self.received[-1].text("ORC-3")
        return plain.replace(b"||ACK|", b"||ORR^O02|") + f"ORC|NA|PL88^OE|{filler}^RIS\r".encode()


def test_a_number_that_the_ris_gives_in_its_answer_is_kept_and_told_from_then_on(tmp_path: Path) -> None:
    unnumbered = Draft("ORM^O01", "2.5.1", (
        "PID|||77^^^HOSPA||Weide^Wanda||19550505|F", "ORC|SN||F88^RIS||||1^^^20260705093000",
        "OBR|1||F88^RIS|CTHEAD^CT head^99PROC",
    ))  # fmt: skip
    with NumberingRIS() as ris, department(tmp_path, told("ris", ris.port, status={})) as running:
        assert running.ris.send(unnumbered).code == "AA"
        (item,) = running.ct.worklist(PatientID="77")
        scan = running.ct.start(item)
        (message,) = ris.got(1)
        assert (message.text("ORC-2"), message.text("ORC-3")) == ("", "F88")
        until(lambda: running.queue("ris")["last_sent_at"] is not None)
        (order,) = running.command("orders", "show", "PL88")
        assert order["filler"] == "F88"
        running.ct.complete(scan)
        _, message = ris.got(2)
        assert (message.text("ORC-2"), message.text("ORC-5")) == ("PL88", "CM")
        until(lambda: not running.queue("ris")["waiting"])
        assert running.queue("ris")["parked"] == 0


# ---- a reload --------------------------------------------------------------------------------------------------------


def test_a_reload_changes_what_is_told_and_not_where_to(tmp_path: Path) -> None:
    with SimulatedRISReceiver() as ris, SimulatedRISReceiver() as nobody:
        place = told("ris", ris.port, status={"tell": {"started": "nothing"}})
        gone = told("gone", ris.port, status={"mapping": "status-oru"})
        with department(tmp_path, place, gone) as running:
            scan = running.start(running.order(1))
            (message,) = ris.got(1)
            assert message.message_type == "ORU^R01"
            changed = place | {
                "port": nobody.port,
                "application": "NEW",
                "status": {"mapping": "status-omg", "tell": {"completed": "SC A"}},
            }
            settings = YAML(typ="safe").load(running.service.config.read_text())
            new = told("new", nobody.port, status={})
            with running.service.config.open("w") as file:
                YAML().dump(settings | {"destinations": [changed, new]}, file)
            os.kill(running.service.pid, signal.SIGHUP)
            until(lambda: '"reloaded"' in running.service.output.read_text())
            lines = running.service.output.read_text().splitlines()
            (warning,) = [json.loads(line) for line in lines if "reload_needs_restart" in line]
            assert warning["settings"] == ["destinations"]
            assert not [line for line in lines if "destination_not_configured" in line]  # nothing waits for it
            running.ct.complete(scan)
            _, message = ris.got(2)
            assert (message.message_type, message.text("MSH-5"), message.text("ORC-5")) == ("OMG^O19", "NEW", "A")
            running.start(running.order(2))
            _, _, message = ris.got(3)  # `tell` has only what differs, so this one is told again
            assert (message.message_type, message.text("ORC-5")) == ("OMG^O19", "IP")
            assert nobody.received == []
            running.restart()
            running.start(running.order(3))
            assert {each.message_type for each in nobody.got(2)} == {"OMG^O19", "ORM^O01"}
            assert len(ris.received) == 3


def test_what_waits_for_a_destination_that_is_not_in_the_file_any_more_is_said(tmp_path: Path) -> None:
    def said(running: Department) -> list[dict[str, Any]]:
        lines = running.service.output.read_text().splitlines()
        return [json.loads(line) for line in lines if "destination_not_configured" in line]

    with SimulatedRISReceiver() as ris:
        ris.stop()
        with department(tmp_path, told("ris", ris.port, status={})) as running:
            running.start(running.order(1))
            until(lambda: running.queue("ris")["waiting"] == 1)
            settings = YAML(typ="safe").load(running.service.config.read_text())
            renamed = [told("ris2", ris.port, status={})]
            with running.service.config.open("w") as file:
                YAML().dump(settings | {"destinations": renamed}, file)
            assert said(running) == []
            os.kill(running.service.pid, signal.SIGHUP)
            until(lambda: '"reloaded"' in running.service.output.read_text())
            (warning,) = said(running)
            assert (warning["level"], warning["destination"], warning["waiting"]) == ("warning", "ris", 1)
            checked = CliRunner().invoke(cli, ["check", "--config", str(running.service.config)])
            assert checked.exit_code == 1
            assert "1 message(s) wait and 0 are parked for ris, which is no destination" in checked.output
            running.restart()
            assert [each["destination"] for each in said(running)][-1] == "ris"


# ---- what `gateway check` finds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "where", "problem"),
    [
        ({"status": {"mapping": "status-orn"}}, "status.mapping", "there is no outbound mapping 'status-orn'"),
        ({"pass_on": {"mapping": "ihe-swf"}}, "pass_on.mapping", "there is no outbound mapping 'ihe-swf'"),
        ({"pass_on": {"listeners": ["rix"]}}, "pass_on.listeners", "there is no listener 'rix'"),
        ({"tls": {"ca": "ca.pem"}}, "tls.ca", "there is no file ca.pem"),
        ({"status": {}, "performed": {"ae_title": "PACS"}}, "", "make them two destinations"),
        ({"status": {"tell": {"completed": "CM"}}}, "status.tell", "no order control with an order status"),
        ({"status": {"tell": {"done": "SC CM"}}}, "status.tell.done", "Input should be"),
        ({"status": {"sites": ["NORTH"]}}, "status.sites", "no orders of site 'NORTH' come here"),
        ({"charset": "KLINGON"}, "charset", "no value of MSH-18"),
    ],
    ids=lambda value: value if isinstance(value, str) and "'" not in value and " " not in value else "",
)
def test_check_finds_a_mistake_in_a_destination_with_its_line(
    tmp_path: Path, destination: dict[str, Any], where: str, problem: str
) -> None:
    config = site(tmp_path, destinations=[told("ris", 2576, **destination)])
    with pytest.raises(ConfigError) as raised:
        load_site(config)
    (found,) = raised.value.problems
    assert problem in found.text
    assert found.path.startswith(".".join(filter(None, ("destinations.0", where))))
    line = config.read_text().splitlines()[(found.line or 0) - 1]
    assert (where.rsplit(".", maxsplit=1)[-1] or "name") in line


# ---- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEM files: `ca` has signed `server` and `client`; `stranger` is signed by somebody else."""
    place = tmp_path_factory.mktemp("certificates")
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(place / "ca.pem")
    for name, issued in (
        ("server", ours.issue_cert("ris.hospital.example")),
        ("client", ours.issue_cert("gateway.hospital.example")),
        ("stranger", theirs.issue_cert("ris.hospital.example")),
    ):
        issued.private_key_pem.write_to_path(place / f"{name}.key")
        for blob in issued.cert_chain_pems:
            blob.write_to_path(place / f"{name}.pem", append=True)
    return place


def server_context(place: Path, name: str = "server") -> ssl.SSLContext:
    """Of a peer that asks for a certificate of the hospital's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / f"{name}.pem", place / f"{name}.key")
    context.load_verify_locations(place / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def by_tls(place: Path, host_name: str = "ris.hospital.example") -> dict[str, str]:
    return {
        "ca": str(place / "ca.pem"),
        "certificate": str(place / "client.pem"),
        "key": str(place / "client.key"),
        "host_name": host_name,
    }


def test_status_and_performed_steps_go_by_tls_to_whom_the_certificate_says(tmp_path: Path, certificates: Path) -> None:
    context, tls = server_context(certificates), by_tls(certificates)
    with PythonHL7RIS(tls=context) as ris, PerformedReceiver(tls=context) as pacs:
        places = (
            told("ris", ris.port, status={}, tls=tls),
            told("pacs", pacs.port, performed={"ae_title": "PACS"}, tls=tls),
        )
        with department(tmp_path, *places) as running:
            scan = running.start(running.order(1))
            (message,) = ris.got(1)
            assert field(message, "ORC", 5) == "IP"
            pacs.wait_for(lambda: pacs.steps == {scan: "IN PROGRESS"})


@pytest.mark.parametrize(
    ("certificate", "host_name", "reason"),
    [
        ("stranger", "ris.hospital.example", "unable to get local issuer certificate"),
        ("server", "pacs.hospital.example", "Hostname mismatch"),
    ],
)
def test_nothing_goes_to_a_peer_with_the_wrong_certificate_and_the_queue_says_why(
    tmp_path: Path, certificates: Path, certificate: str, host_name: str, reason: str
) -> None:
    context, tls = server_context(certificates, certificate), by_tls(certificates, host_name)
    with SimulatedRISReceiver(tls=context) as ris, PerformedReceiver(tls=context) as pacs:
        places = (
            told("ris", ris.port, status={}, tls=tls),
            told("pacs", pacs.port, performed={"ae_title": "PACS"}, tls=tls),
        )
        with department(tmp_path, *places) as running:
            running.start(running.order(1))
            for name in ("ris", "pacs"):
                until(lambda name=name: reason in running.queue(name)["last_error"])
                assert running.queue(name)["waiting"] == 1
            assert (ris.received, pacs.reported) == ([], [])


# ---- the archive -----------------------------------------------------------------------------------------------------


def sent(running: Department) -> dict[str, Any]:
    """The newest message in the archive that was sent, waited for."""
    reader = read_only(f"sqlite:///{running.service.config.with_name('gateway.db')}")
    search = MessageSearch(direction="out", dispositions=frozenset({"sent"}))
    until(lambda: bool(reader.find_messages(search, 1)))
    (listed,) = running.command("messages", "list", "--direction", "out", "--limit", "1")
    shown: dict[str, Any] = running.command("messages", "show", str(listed["number"]), "--trace")
    return shown


def test_the_archive_has_what_was_told_with_its_answer_and_how_it_was_written(tmp_path: Path) -> None:
    shutil.copytree(folder("mappings"), tmp_path / "mappings")
    mapping = tmp_path / "mappings" / "outbound" / "status-orm.yaml"
    with SimulatedRISReceiver() as ris, department(
        tmp_path, told("ris", ris.port, status={}), mappings="mappings"
    ) as running:  # fmt: skip
        head = running.order(1)
        scan = running.start(head)
        (message,) = ris.got(1)
        shown = sent(running)
        assert (shown["sent_to"], shown["outcome"], shown["control_id"]) == ("ris", "sent", message.control_id)
        assert f"MSA|AA|{message.control_id}" in shown["answer"]
        assert shown["mapping"].startswith("status-orm 1 ")
        assert f"accession {head.accession}" in shown["keys"]
        assert shown["orders"] == [f"#1, placer {head.placer}, filler {head.filler}"]
        # The order and the mapping change; how the message came about does not.
        running.ct.complete(scan)
        ris.got(2)
        assert running.ris.send(rad4_orm(head.moved(head.start + timedelta(hours=1)), "XO")).code == "AA"
        mapping.write_text(mapping.read_text().replace("OBR-24: [performed.Modality, ", "OBR-24: ["))
        again = running.command("messages", "show", str(shown["number"]), "--trace")
        assert again["trace"] == shown["trace"]
        traced = {entry["target"]: entry for entry in again["trace"]["trace"]}
        assert traced["OBR-24"]["where"] == "performed.Modality"
        assert (traced["ORC-5"]["where"], traced["ORC-5"]["value"], traced["ORC-5"]["name"]) == (
            "event.OrderStatus", "IP", "Order Status"
        )  # fmt: skip
        assert traced["ORC-7.4"]["value"].startswith(f"{head.start:%Y%m%d%H%M%S}")
        assert (again["trace"]["notes"], again["trace"]["refusals"]) == ([], [])


def test_what_a_mapping_refused_to_write_says_why_in_the_archive(tmp_path: Path) -> None:
    shutil.copytree(folder("mappings"), tmp_path / "mappings")
    (tmp_path / "mappings" / "outbound" / "ours.yaml").write_text(
        "name: ours\nextends: status-orm\nrules: {OBR-13: {from: CurrentPatientLocation, missing: refuse},"
        " OBR-15.1: {from: PatientState, missing: refuse}}\n"
    )
    with SimulatedRISReceiver() as ris, department(
        tmp_path, told("ris", ris.port, status={"mapping": "ours"}), mappings="mappings"
    ) as running:  # fmt: skip
        running.start(running.order(1))
        (listed,) = running.command("messages", "list", "--outcome", "parked")
        assert "OBR-15.1: nothing to write: PatientState says nothing" in listed["why"][0]
        shown = running.command("messages", "show", str(listed["number"]), "--trace")
        assert shown["trace"]["refusals"] == listed["why"]
        assert ris.received == []
