"""The corpus of messages (`hl7_corpus/`) against a running gateway: every case whole, byte by byte and in one piece."""

import itertools
from collections.abc import Iterator

import pytest

from gateway.testing import ServiceProcess, SimulatedModality, free_port, site
from tests.cases.hl7_corpus.model import Case, cases, listeners  # by its whole path: `hl7` alone is python-hl7
from tests.cases.hl7_corpus.sender import Way, answer_of, errors_of, framed, items_of, sent, shown, told_by

CASES_MIN = 120
_numbers = itertools.count(10_001)  # five digits in every run, so that no number is part of another


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    """Where each listener listens."""
    return {listener["name"]: free_port() for listener in listeners()}


@pytest.fixture(scope="module")
def service(ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """One gateway with every listener of the corpus."""
    hl7 = [{**listener, "host": "127.0.0.1", "port": ports[listener["name"]]} for listener in listeners()]
    with ServiceProcess(site(tmp_path_factory.mktemp("corpus"), hl7=hl7, timezone="Europe/Berlin")) as running:
        yield running


@pytest.fixture(scope="module")
def modality(service: ServiceProcess) -> SimulatedModality:
    """Asks for the list."""
    return SimulatedModality(service.host, service.dicom_port, "CORPUS")


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_every_message_is_answered_and_listed_as_its_case_says(
    case: Case, way: Way, service: ServiceProcess, ports: dict[str, int], modality: SimulatedModality
) -> None:
    number = str(next(_numbers))
    pieces = [framed(case.bytes_of(each, number), each.raw) for each in case.sends]
    answered = [each.answer.code is not None for each in case.sends]
    answers = sent(service.host, ports[case.listener], pieces, answered, way)
    expected = [each.answer for each in case.sends if each.answer.code is not None]
    for place, (wanted, data) in enumerate(zip(expected, answers, strict=True), 1):
        answer = answer_of(data)
        msa = answer.first("MSA")
        told = told_by(answer)
        assert msa is not None, f"message {place}: no MSA"
        assert msa.text(1) == wanted.code, f"message {place}: {told}"
        if wanted.type is not None:
            assert "^".join(part[0] for part in answer.msh.field(9)[0]) == wanted.type
        if wanted.errors is not None:
            assert sorted(errors_of(answer)) == sorted(wanted.errors), told
        assert wanted.says in told
    if case.items is not None:
        keywords = dict.fromkeys(key for item in case.items for key in item) or {"AccessionNumber": None}
        listed = items_of(modality, number, keywords)
        wanted_items = [{key: text.replace("{id}", number) for key, text in item.items()} for item in case.items]
        left = [shown(item, keywords) for item in listed]
        for item in wanted_items:
            found = [other for other in left if item.items() <= other.items()]
            assert found, f"not listed: {item}; listed are {left}"
            left.remove(found[0])
        assert not left, "listed beyond what is expected"


def test_the_corpus_is_large_enough() -> None:
    assert len(cases()) >= CASES_MIN
