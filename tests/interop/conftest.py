"""A gateway with known orders for real peers to ask about, and the peers."""

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import pytest
from dcmtk import Findscu, find
from known_orders import CYRILLIC, KANJI, LATIN, MANY, ORDERS
from pydicom.dataset import Dataset

from gateway.testing import ServiceProcess, SimulatedModality, SimulatedRIS, omi, site


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """The gateway, which was sent every known order."""
    with ServiceProcess(site(tmp_path_factory.mktemp("site"))) as running:
        with SimulatedRIS(running.host, running.hl7_port) as ris:
            for order in (*ORDERS.values(), *MANY, LATIN, CYRILLIC, KANJI):
                answer = ris.send(omi(order))
                assert answer.code == "AA", answer
        yield running


@pytest.fixture
def modality(service: ServiceProcess) -> SimulatedModality:
    """A pynetdicom modality of that gateway."""
    return SimulatedModality(service.host, service.dicom_port, "CT1")


@pytest.fixture
def findscu(tmp_path: Path) -> Findscu:
    """`findscu(port, {path: value}, *options)` gives the answers of `dcmtk.find`."""
    number = count(1)

    def ask(port: int, keys: Mapping[str, str | bytes], *options: str, query_file: Path | None = None) -> list[Dataset]:
        return find(tmp_path / f"answers{next(number)}", port, keys, *options, query_file=query_file)

    return ask
