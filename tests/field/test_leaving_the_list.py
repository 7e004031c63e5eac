"""When an item leaves: not too early for the console that scans, not too late for its neighbour."""

from field_department import STARTED

from gateway.testing import ServiceProcess, SimulatedModality


def test_an_item_leaves_each_console_when_its_profile_says_and_all_when_the_work_is_done(
    service: ServiceProcess,
) -> None:
    scanner, neighbour = (SimulatedModality(service.host, service.dicom_port, title) for title in ("PAIR", "GONE"))

    def listed(modality: SimulatedModality) -> int:
        return len(modality.worklist(AccessionNumber=STARTED.accession))

    assert (listed(scanner), listed(neighbour)) == (1, 1)
    (item,) = scanner.worklist(AccessionNumber=STARTED.accession)
    aborted = scanner.start(item)
    assert (listed(scanner), listed(neighbour)) == (1, 0)
    scanner.discontinue(aborted)
    assert (listed(scanner), listed(neighbour)) == (1, 1)
    scanner.complete(scanner.start(item))
    assert (listed(scanner), listed(neighbour)) == (0, 0)
