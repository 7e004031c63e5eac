"""Whose messages are a destination's own, as `status: {from: ...}` says it: what they change is not told back."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway.config import ConfigError, Site, load_site
from gateway.outgoing import audience_of
from gateway.testing import site
from gateway.workflow.audience import MessageSource

RIS = MessageSource("ris", "RISAPP")


def read(folder: Path, listeners: list[str], *status: dict[str, Any]) -> Site:
    """A site with these listeners, whose first destination is `ris` and whose second one is `ehr`."""
    file = site(folder)
    settings = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    (listener,) = settings["hl7"]
    settings["hl7"] = [{**listener, "name": name, "port": 2600 + at} for at, name in enumerate(listeners)]
    settings["destinations"] = [
        {"name": name, "host": "127.0.0.1", "port": 2575, **said}
        for name, said in zip(("ris", "ehr"), status, strict=False)
    ]
    with file.open("w", encoding="utf-8") as out:
        YAML().dump(settings, out)
    return load_site(file)


def told_by(source: MessageSource, at: Site) -> list[str]:
    """Who is told what a message of this source changes."""
    return [each.destination for each in audience_of(at).status if not each.said_itself(source)]


@pytest.mark.parametrize(
    ("listeners", "status", "of_ris", "of_ehr"),
    [
        (["ris"], [{}], [], []),
        (["ris", "ehr"], [{}], [], []),
        (["ris"], [{}, {}], [], []),
        (["ris", "ehr"], [{"from": ["ris"]}, {"from": ["ehr"]}], ["ehr"], ["ris"]),
        (["ris", "ehr"], [{"from": ["ris", "ehr"]}, {"from": []}], ["ehr"], ["ehr"]),
        (["ris", "ehr"], [{}, {}], ["ris", "ehr"], ["ris", "ehr"]),
        (["ris"], [{"from": []}], ["ris"], ["ris"]),
    ],
)
def test_own_messages_are_told_from_those_of_others_by_listener(
    tmp_path: Path, listeners: list[str], status: list[dict[str, Any]], of_ris: list[str], of_ehr: list[str]
) -> None:
    loaded = read(tmp_path, listeners, *({"status": each} for each in status))
    ehr = MessageSource(listeners[-1], "EHRAPP")
    assert (told_by(RIS, loaded), told_by(ehr, loaded)) == (of_ris, of_ehr)


def test_two_that_share_a_listener_are_told_apart_by_the_application(tmp_path: Path) -> None:
    loaded = read(
        tmp_path, ["both"], {"status": {"from": []}, "application": "RISAPP"},
        {"status": {"from": []}, "application": "EHRAPP"},
    )  # fmt: skip
    assert told_by(MessageSource("both", "RISAPP"), loaded) == ["ehr"]
    assert told_by(MessageSource("both", "EHRAPP"), loaded) == ["ris"]
    assert loaded.doubts == ()


@pytest.mark.parametrize(
    ("status", "doubted"),
    [([{}], False), ([{}, {}], True), ([{"from": []}, {}], False)],
)
def test_check_doubts_several_that_share_a_listener_without_a_word(
    tmp_path: Path, status: list[dict[str, Any]], doubted: bool
) -> None:
    loaded = read(tmp_path, ["ris"], *({"status": each} for each in status))
    assert ["destinations" in str(doubt) for doubt in loaded.doubts] == [True] * doubted


def test_a_listener_that_there_is_not_is_a_mistake_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, ["ris"], {"status": {"from": ["rsi"]}})
    (problem,) = refused.value.problems
    assert (problem.path, problem.text) == ("destinations.0.status.from", "there is no listener 'rsi'")
    assert problem.line
    assert "ris" in problem.hint
