"""What template and pages show of destinations is right as it stands: taken literally, `gateway check` has no fault."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gateway import examples
from gateway.config import Settings, Site, load_site
from gateway.outbound_cases import HEADER, report

DOCS = Path(__file__).parents[2] / "docs"
TEMPLATE = (examples.folder("config") / "gateway.yaml").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    examples.lay_out(tmp_path / "site")
    return tmp_path / "site"


def shown() -> list[str]:
    """The lines about destinations in the template, without the comment sign before all of them."""
    _, _, rest = TEMPLATE.partition("\n# destinations:")
    block, _, _ = rest.partition("\n\n")
    return ["destinations:", *(line.removeprefix("# ") for line in block.splitlines()[1:])]


def alternatives() -> Iterator[list[str]]:
    """The same with one of the lines that are comments within it, in place of the line that says the same key."""
    lines = shown()
    for at, line in enumerate(lines):
        if (found := re.match(r"( +)# (\w+):", line)) is None:
            continue
        indent, key = found.groups()
        first = max(number for number in range(at) if lines[number].startswith("  - "))
        said = [number for number in range(first, at) if lines[number].startswith(f"{indent}{key}:")]
        yield [
            each.replace("# ", "", 1) if number == at else each
            for number, each in enumerate(lines)
            if number not in said
        ]


def settings(lines: list[str]) -> Settings:
    return Settings.model_validate(YAML(typ="safe").load("\n".join(lines)))


def site(folder: Path, lines: list[str]) -> Site:
    """Raises ConfigError where anything is wrong."""
    with (folder / "gateway.yaml").open("a", encoding="utf-8") as file:
        file.write("\n" + "\n".join(lines) + "\n")
    return load_site(folder / "gateway.yaml")


def test_the_template_shows_everything_that_can_be_told_and_how(folder: Path) -> None:
    destinations = settings(shown()).destinations
    for kind in ("status", "pass_on", "performed", "tls"):
        assert any(getattr(each, kind) for each in destinations), kind
    of_files = ("tls:", "credentials:")
    without_files = [line for line in shown() if not line.lstrip().startswith(of_files)]
    assert len(site(folder, without_files).settings.destinations) == len(destinations)


def test_every_alternative_of_the_template_is_a_setting() -> None:
    variants = [lines for lines in alternatives() if settings(lines).destinations]
    assert len(variants) > 8


def fenced(page: str, language: str) -> list[str]:
    text = (DOCS / "how-to" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_a_field_is_changed_as_the_page_says(folder: Path) -> None:
    page = "tell-the-ris-what-happened.md"
    (rules,) = (block for block in fenced(page, "yaml") if block.startswith("name: our-ris"))
    (table,) = fenced(page, "csv")
    (folder / "mappings" / "outbound" / "our-ris.yaml").write_text(rules, encoding="utf-8")
    (folder / "mappings" / "codes" / "our-modalities.csv").write_text(table, encoding="utf-8")
    destination = fenced(page, "yaml")[0].replace("mapping: status-orm", "mapping: our-ris")
    writer = site(folder, destination.splitlines()).outbound["our-ris"]
    case = folder / "mappings" / "cases" / "outbound" / "orm-completed-two-procedures.json"
    told = json.loads(case.read_text(encoding="utf-8"))["report"]
    modality = writer.message(report(told), HEADER).decode().partition("\rOBR|")[2].split("|")[23]
    assert (told["performed"]["Modality"], modality) == ("XA", "ANGIO")
