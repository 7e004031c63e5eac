"""Senders that speak of the same orders at the same time: each is answered, and one order stays one order."""

import threading
from datetime import datetime, timedelta

import pytest

from gateway.testing import (
    ImagingOrder,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    cancel,
    invented_person,
    omi,
    rad4_orm,
    site,
    update_patient,
)

START = datetime(2026, 7, 6, 9, 30)
ORDERS = [ImagingOrder(number, invented_person(number % 2), START + timedelta(hours=number)) for number in range(4)]
SENDERS = 8


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with ServiceProcess(site(tmp_path_factory.mktemp("parallel"))) as started:
        yield started


def said(sender):
    """All of them say all of the orders, each in another order, and now in one dialect, now in the other."""
    dialects = (rad4_orm, omi)  # both with the Study Instance UID: one that the gateway had to make would stay
    turned = [*ORDERS[sender % 4 :], *ORDERS[: sender % 4]]
    for number, order in enumerate(turned):
        yield dialects[(sender + number) % 2](order)
        yield update_patient(order.person)
        yield dialects[(sender + number + 1) % 2](order, "XO")


def test_senders_at_once_make_one_item_of_each_order(service):
    codes = [[] for _ in range(SENDERS)]

    def speak(sender):
        with SimulatedRIS(service.host, service.hl7_port, f"S{sender}-", timeout_s=60) as ris:
            codes[sender] += [ris.send(draft).code for draft in said(sender)]

    threads = [threading.Thread(target=speak, args=(sender,)) for sender in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert codes == [["AA"] * 12] * SENDERS
    with SimulatedRIS(service.host, service.hl7_port, "LAST") as ris:
        assert ris.send(cancel(ORDERS[0])).code == "AA"
    items = SimulatedModality(service.host, service.dicom_port, "CT1").worklist()
    shown = sorted((item.AccessionNumber, item.StudyInstanceUID, item.PatientID) for item in items)
    assert shown == [(order.accession, order.study_instance_uid, order.person.patient_id) for order in ORDERS[1:]]
