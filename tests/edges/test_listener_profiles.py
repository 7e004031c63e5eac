"""Listeners in `gateway.yaml`: every mistake is told with its line, and a service reads each as it says."""

import threading
from datetime import datetime, timedelta

import pytest
from ruamel.yaml import YAML

from gateway.config import ConfigError, load_site
from gateway.domain.identifiers import Issuer, Issuers, clashes
from gateway.edges.store import read_only
from gateway.testing import (
    ImagingOrder,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    cancel,
    free_port,
    invented_person,
    rad4_orm,
    site,
)
from gateway.workflow.ports import MessageSearch

START = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)


def listener(**changes):
    return {"name": "ris", "host": "127.0.0.1", "port": 2575, "mapping": "ihe-swf", **changes}


def problems(folder, **settings):
    with pytest.raises(ConfigError) as refused:
        load_site(site(folder, **settings))
    return refused.value.problems


# ---- the configuration ----


@pytest.mark.parametrize(
    ("said", "path", "text"),
    [
        ({"charset_override": "KLINGON"}, "hl7.0.charset_override", "'KLINGON' is no value of MSH-18"),
        ({"charset": "UTF-16"}, "hl7.0.charset", "'UTF-16' is no value of MSH-18"),
        ({"timezone": "Berlin"}, "hl7.0.timezone", "'Berlin' is no time zone name"),
        ({"header_required": [9, 26]}, "hl7.0.header_required", "26 cannot be insisted on"),
        ({"senders": ["A|B|C"]}, "hl7.0.senders", "'A|B|C' is no sender"),
        ({"ignore": ["ADT-A02"]}, "hl7.0.ignore", "'ADT-A02' is no message type"),
        ({"validate": "harsh"}, "hl7.0.validate", "tolerant"),
        ({"acknowledge_to": "acks"}, "hl7.0.acknowledge_to", "there is no destination 'acks'"),
        ({"keys": {"AccessionNumbr": "reject"}}, "hl7.0.keys.AccessionNumbr", "unknown identity 'AccessionNumbr'"),
        ({"keys": {"PatientID": "generate"}}, "hl7.0.keys.PatientID", "no missing policy 'generate'"),
        ({"keys": {"StudyInstanceUID": {"derive": "AccessionNumber"}}}, "hl7.0.keys.StudyInstanceUID", "cannot be"),
    ],
)
def test_a_mistake_in_a_listener_is_told_with_its_place(tmp_path, said, path, text):
    (problem,) = problems(tmp_path, hl7=[listener(**said)])
    assert problem.source == "gateway.yaml"
    assert problem.path.startswith(path)
    assert text in problem.text
    assert problem.line
    assert problem.hint or "known" in problem.text or "such as" in problem.text or "write" in problem.text or said


def test_an_unknown_setting_of_a_listener_is_answered_with_the_one_that_was_meant(tmp_path):
    (problem,) = problems(tmp_path, hl7=[listener(validat="strict")])
    assert "validate" in problem.hint
    assert "validate_messages" not in problem.hint


def test_a_setting_like_no_other_is_answered_with_those_there_are(tmp_path):
    (problem,) = problems(tmp_path, hl7=[listener(xyzzy="strict")])
    assert "validate, answer" in problem.hint
    assert "validate_messages" not in problem.hint


def test_two_destinations_of_one_name_are_a_mistake(tmp_path):
    place = {"name": "acks", "host": "127.0.0.1", "port": 2576}
    (problem,) = problems(tmp_path, destinations=[place, place])
    assert "two destinations share a name" in problem.text


def test_two_authorities_that_claim_one_name_are_a_mistake(tmp_path):
    said = [{"name": "NORTH", "hl7": ["N"], "oid": ["1.2"]}, {"name": "SOUTH", "hl7": ["N"], "oid": ["1.2"]}]
    told = problems(tmp_path, issuers=said)
    assert [problem.text for problem in told] == [
        "name 'N' is NORTH's already",
        "universal ID '1.2' is NORTH's already",
    ]
    assert {problem.path for problem in told} == {"issuers.1"}
    assert all(problem.line for problem in told)


def test_a_listeners_authority_that_is_nearly_a_known_one_is_a_mistake(tmp_path):
    (problem,) = problems(tmp_path, hl7=[listener(issuer="NORHT")], issuers=[{"name": "NORTH"}])
    assert "did you mean NORTH?" in problem.hint


def test_a_listener_has_key_policies_of_its_own(tmp_path):
    settings = {"keys": {"AccessionNumber": "reject", "RequestedProcedureID": {"derive": "AccessionNumber"}}}
    other = listener(name="kis", port=2576)
    loaded = load_site(site(tmp_path, hl7=[listener(**settings), other]))
    strictly, plainly = (loaded.mapping(each) for each in loaded.settings.hl7)
    assert strictly.policies["AccessionNumber"].action == "refuse"
    assert plainly.policies["AccessionNumber"].action == "generate"
    assert strictly.rules.identity["AccessionNumber"].paths == plainly.rules.identity["AccessionNumber"].paths
    assert strictly.version_id != plainly.version_id
    assert loaded.mapping_content(loaded.mapping_name(loaded.settings.hl7[0]))


# ---- authorities ----

NORTH = Issuer("NORTH", frozenset({"N"}), frozenset({"1.2.3"}), frozenset({"https://north.example/ids"}))
SOUTH = Issuer("SOUTH", frozenset({"S"}))


def test_distinct_authorities_do_not_clash():
    assert not list(clashes([NORTH, SOUTH]))
    assert list(clashes([SOUTH, SOUTH]))


@pytest.mark.parametrize(
    ("namespace", "universal_id", "default", "words"),
    [
        ("N", "", "", "NORTH: it has the namespace 'N'"),
        ("S", "1.2.3", "", "'S' is SOUTH, but '1.2.3' is NORTH: refused"),
        ("X", "1.2.3", "", "NORTH: it has the universal ID '1.2.3'"),
        ("X", "", "", "X: as it was sent; `issuers` does not name it, so it is no other authority's"),
        ("", "", "N", "NORTH: the listener's `issuer`, because none was sent"),
        ("", "", "", "none: neither was one sent nor does the listener have an `issuer`"),
    ],
)
def test_an_authority_is_explained(namespace, universal_id, default, words):
    assert Issuers([NORTH, SOUTH]).explain(namespace, universal_id, default) == words


@pytest.mark.parametrize("system", ["https://north.example/ids", "urn:oid:1.2.3"])
def test_a_fhir_system_is_the_same_authority(system):
    assert Issuers([NORTH, SOUTH]).resolve_system(system) == "NORTH"


# ---- the service ----


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiles")
    hl7 = [
        listener(port=free_port(), senders=["RIS"], keys={"AccessionNumber": "reject"}),
        listener(name="strict", port=free_port(), validate="strict", ignore=["SIU"]),
    ]
    with ServiceProcess(site(folder, hl7=hl7)) as running:
        yield running


def port(service, name):
    settings = YAML(typ="safe").load(service.config.read_text())
    return next(each["port"] for each in settings["hl7"] if each["name"] == name)


def order(number, **changes):
    return ImagingOrder(number, invented_person(number % 7), START, **changes)


def test_a_key_that_the_listener_insists_on_is_asked_for(service):
    with SimulatedRIS(service.host, service.hl7_port, "K1") as ris:
        draft = rad4_orm(order(900))
        lacking = [segment.replace(order(900).accession, "") for segment in draft.segments]
        answer = ris.send(type(draft)(draft.message_type, draft.version, tuple(lacking)))
        assert answer.code == "AE"
        assert "AccessionNumber" in answer.text
        assert ris.send(draft).code == "AA"


def test_the_orders_of_parallel_senders_end_as_they_should(service):
    """Each of many connections says the same things about the same orders, in its own time."""
    numbers, connections = range(1, 6), 8
    codes: list[list[str]] = [[] for _ in range(connections)]

    def say(connection):
        with SimulatedRIS(service.host, service.hl7_port, f"C{connection}") as ris:
            for number in numbers:
                codes[connection].append(ris.send(rad4_orm(order(number))).code)
            for number in numbers:
                moved = order(number).moved(START + timedelta(hours=connection))
                codes[connection].append(ris.send(rad4_orm(moved, "XO")).code)

    threads = [threading.Thread(target=say, args=(connection,)) for connection in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {code for said in codes for code in said} == {"AA"}
    items = SimulatedModality(service.host, service.dicom_port, "CT1").worklist()
    accessions = [item.AccessionNumber for item in items]
    assert {order(number).accession for number in numbers} <= set(accessions)
    assert len(accessions) == len(set(accessions))
    with SimulatedRIS(service.host, service.hl7_port, "C9") as ris:
        assert {ris.send(cancel(order(number))).code for number in numbers} == {"AA"}
    left = {item.AccessionNumber for item in SimulatedModality(service.host, service.dicom_port, "CT1").worklist()}
    assert not left & {order(number).accession for number in numbers}


def test_a_strict_listener_refuses_what_is_not_built_as_the_standard_says(service):
    with SimulatedRIS(service.host, port(service, "strict"), "S1") as ris:
        draft = rad4_orm(order(800))
        assert ris.send(draft).code == "AA"
        again = rad4_orm(order(801))
        broken = [segment.replace("OBR|1|", "OBR|one|") for segment in again.segments]
        answer = ris.send(type(again)(again.message_type, again.version, ("EVN|O01|20260705", *broken)))
        assert answer.code == "AE"
        assert "EVN" in answer.text
    found = read_only(load_site(service.config).store_url).find_messages(
        MessageSearch(listener="strict", dispositions=frozenset({"refused"})), 10
    )
    assert "OBR-1: 'one' is no sequence number" in found[0].record.reasons
    assert "EVN: ORM_O01 of HL7 2.3.1 has no EVN here" in found[0].record.reasons


def test_a_strict_listener_still_ignores_what_it_need_not_know(service):
    with SimulatedRIS(service.host, port(service, "strict"), "S2") as ris:
        draft = rad4_orm(order(802))
        assert ris.send(type(draft)("SIU^S12", "2.3.1", ("XXX|1",))).code == "AA"
