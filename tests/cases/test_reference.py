"""What the documentation claims is what the code has: generated pages, limits, commands, links."""

import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from gateway.cli import cli
from gateway.domain.refusal import RefusalKind
from gateway.reference import render, write

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WRITTEN = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BY_HAND = [page for page in WRITTEN if page.parent.name != "reference"]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return render()


def test_reference_pages_are_what_the_tables_say(pages: dict[str, str]) -> None:
    held = {page.name: page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md")}
    assert held == pages, "run `make docs`"


def test_every_page_is_in_the_index(pages: dict[str, str]) -> None:
    assert all(f"({name})" in pages["index.md"] for name in pages if name != "index.md")


def test_an_argument_that_may_be_left_out_is_not_called_required(pages: dict[str, str]) -> None:
    look, show = (
        pages["command-line.md"].partition(f"## gateway {name}\n")[2].partition("\n## ")[0]
        for name in ("fhir look", "messages show")
    )
    assert "| `REFERENCE` |  |" in look
    assert "| `NUMBER` | required |" in show


def test_every_kind_of_refusal_has_its_row(pages: dict[str, str]) -> None:
    assert all(f"| {kind.value} |" in pages["refusals.md"] for kind in RefusalKind)


def test_a_diagram_shows_each_change_of_status_once(pages: dict[str, str]) -> None:
    arrows = re.findall(r"^    (\w+) --> (\w+):", pages["scheduled-step.md"], re.MULTILINE)
    assert len(arrows) == len(set(arrows))
    assert ("STARTED", "COMPLETED") in arrows or ("ANY", "COMPLETED") in arrows


def test_writing_replaces_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "stale.md").write_text("no such table any more", encoding="utf-8")
    write(tmp_path)
    assert {page.name for page in tmp_path.iterdir()} == set(render())


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def _commands(command: Any, path: str = "") -> Iterator[str]:
    for name, inner in command.commands.items():
        yield f"{path}{name}"
        if isinstance(inner, TyperGroup):
            yield from _commands(inner, f"{path}{name} ")


@pytest.mark.parametrize("page", BY_HAND, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_told_exist(page: Path) -> None:
    known = set(_commands(get_command(cli)))
    groups = {name.split()[0] for name in known if " " in name}
    told = re.findall(r"(?:^|[`/ ])gateway (?!gateway )([a-z]+)(?: ([a-z]+(?:-[a-z]+)*))?", _code(page), re.MULTILINE)
    for first, second in told:
        assert (f"{first} {second}" if first in groups and second else first) in known


def _code(page: Path) -> str:
    """The shell blocks of a page and what stands between backquotes."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    outside = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", outside)])


def _limits() -> list[tuple[str, str]]:
    rows = re.findall(r"^\|(.+)\|$", (DOCS / "explanation" / "limits.md").read_text(encoding="utf-8"), re.MULTILINE)
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    return [(row[-1].strip("`"), row[1]) for row in cells if row[-1].startswith("`gateway.")]


def _value(dotted: str) -> Any:
    """A constant of a module, or the default of a field of a dataclass or of settings."""
    place, _, name = dotted.rpartition(".")
    module, _, owner = place.rpartition(".")
    if not owner[0].isupper():
        return getattr(importlib.import_module(place), name)
    holder = getattr(importlib.import_module(module), owner)
    if dataclasses.is_dataclass(holder):
        return next(field.default for field in dataclasses.fields(holder) if field.name == name)
    return holder.model_fields[name].default


@pytest.mark.parametrize(("dotted", "told"), _limits())
def test_limits_are_those_of_the_code(dotted: str, told: str) -> None:
    number = re.match(r"[\d,.]+", told)
    assert number is not None
    assert float(number[0].replace(",", "")) == _value(dotted)
