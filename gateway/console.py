"""What every command shares: the site and its store, options, and printing for people or as JSON.

What is shown here is for people with the right to see it, so it may name patients; logs never do.
"""

import atexit
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gateway.config import Site
    from gateway.edges.store import Store

_WIDE = 200
"""Columns where nobody's terminal says otherwise: what is piped is searched, not looked at."""

out = Console() if sys.stdout.isatty() else Console(width=_WIDE)
err = Console(stderr=True)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
JSONOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
CONFIG = Path("gateway.yaml")


def fail(text: str) -> NoReturn:
    err.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def site_of(config: Path) -> "Site":
    from gateway.config import ConfigError, load_site

    try:
        return load_site(config)
    except ConfigError as error:
        for problem in error.problems:
            err.print(str(problem), markup=False, highlight=False, soft_wrap=True)
        fail(f"{len(error.problems)} problem(s); nothing was started or changed.")


def store_of(config: Path, make: bool = False) -> "Store":
    """The site's store. One that is not there is made only for commands that bring something to it."""
    from gateway.edges import logs
    from gateway.edges.database import StoreError, database_path
    from gateway.edges.store import Store

    site = site_of(config)
    atexit.register(logs.configure(sys.stderr))  # what fails below must not print a message's values
    try:
        if not make and not database_path(site.store_url).exists():
            fail(f"{config}: there is no store yet; `gateway run` or `gateway worklist import` makes it.")
        return Store(site.store_url, zone=site.settings.timezone)
    except StoreError as error:
        fail(str(error))


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # an identifier cut short is no identifier
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    out.print(table)


def moment(at: datetime, zone: tzinfo) -> str:
    """By the department's clock, as `gateway worklist why` tells times."""
    return at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
