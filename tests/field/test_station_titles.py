"""Consoles that name no station see everyone's work, those that insist on their own see nobody's: rules by device."""

import pytest
from consoles import ACCESSION, Ask, key, of_station, step
from field_department import FORCED, MANY, OWN, ROOM
from ruamel.yaml import YAML

from gateway.testing import (
    ImagingOrder,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    bare_orm,
    free_port,
    invented_person,
    site,
)

NAMES_NO_STATION = key(ACCESSION) + step(key(0x00080060, "US"))


def test_a_console_that_names_no_station_sees_everyones_work_by_default(ask: Ask) -> None:
    found = ask(NAMES_NO_STATION, "US1").accessions
    assert found >= {ROOM.accession, FORCED.accession, OWN.accession}


@pytest.mark.parametrize(
    ("calling", "order"), [("USOWN", OWN), ("USFORCED", FORCED)], ids=["sees own", "own title forced"]
)
def test_a_console_that_names_no_station_can_be_held_to_its_own(ask: Ask, calling: str, order: ImagingOrder) -> None:
    assert ask(NAMES_NO_STATION, calling).accessions == {order.accession}


def test_a_console_that_insists_on_its_own_title_can_be_shown_other_stations(ask: Ask) -> None:
    insists = of_station("CT7 ", key(0x00400002, "20260705-20260706 "))
    assert ask(insists, "CT1").items == ()
    # The station does not count, the modality that the profile asks for in its place does: no ultrasound of that day.
    assert ask(insists, "CT7").accessions == {order.accession for order in MANY}


def test_a_console_that_insists_still_cannot_see_what_it_may_not(ask: Ask) -> None:
    assert ask(of_station("ROOM7 "), "USOWN").items == ()


@pytest.fixture(scope="module")
def two_sites(tmp_path_factory: pytest.TempPathFactory) -> ServiceProcess:
    """Two hospitals with a CT each, on one gateway; one console that works for both."""
    directory = tmp_path_factory.mktemp("sites")
    devices = [
        {"ae_title": "CTN", "sites": ["NORTH"]},
        {"ae_title": "CTS", "sites": ["SOUTH"]},
        {"ae_title": "MOBILE", "sites": ["NORTH", "SOUTH"]},
    ]
    with (directory / "devices.yaml").open("w") as file:
        YAML().dump({"devices": devices}, file)
    listeners = [
        {"name": name.lower(), "host": "127.0.0.1", "port": free_port(), "mapping": "ihe-swf", "site": name}
        for name in ("NORTH", "SOUTH")
    ]
    config = site(directory, devices={"file": "devices.yaml", "unknown": "reject"}, hl7=listeners)
    with ServiceProcess(config) as running:
        for number, listener in enumerate(listeners, 1):
            with SimulatedRIS(running.host, listener["port"], listener["name"]) as ris:
                order = ImagingOrder(number, invented_person(number), ROOM.start, "CT1")
                assert ris.send(bare_orm(order)).code == "AA"
        yield running


@pytest.mark.parametrize(("calling", "seen"), [("CTN", {1}), ("CTS", {2}), ("MOBILE", {1, 2})])
def test_the_same_modality_at_two_sites_is_told_apart_and_a_console_of_both_has_one_list(
    two_sites: ServiceProcess, calling: str, seen: set[int]
) -> None:
    found = SimulatedModality(two_sites.host, two_sites.dicom_port, calling).worklist(Modality="CT")
    assert {each.PatientID for each in found} == {invented_person(number).patient_id for number in seen}
