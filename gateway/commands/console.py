"""What every command shares: the site and its store, options, and printing for people or as JSON.

What is shown here is for people with the right to see it, so it may name patients; logs never do.
"""

import atexit
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, time, timedelta, tzinfo
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
"""Columns where neither a terminal nor COLUMNS says otherwise: what is piped is searched, not looked at."""

out = Console() if sys.stdout.isatty() or os.environ.get("COLUMNS") else Console(width=_WIDE)
err = Console(stderr=True)
at_end = ExitStack()
"""What is closed when the command ends, however it ends."""

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
JSONOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ActorOption = Annotated[str, typer.Option(help="Who decides; default: the account that this runs under.")]
NoteOption = Annotated[str, typer.Option(help="Why, for the log.")]
CONFIG = Path("gateway.yaml")


def account() -> str:
    """The account of the operating system that this runs under; its number where it has no name, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def fail(text: str) -> NoReturn:
    err.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def site_of(config: Path, *, devices: bool = True, fhir: bool | None = False) -> "Site":
    """The configured site; without `devices` also where what describes them is what has to be mended, with `fhir` with
    the rule sets of FHIR also where FHIR is not spoken, or with None where it is."""
    from gateway.config import ConfigError, load_site

    try:
        return load_site(config, devices=devices, fhir=fhir)
    except ConfigError as error:
        for problem in error.problems:
            err.print(str(problem), markup=False, highlight=False, soft_wrap=True)
        fail(f"{len(error.problems)} problem(s); nothing was started or changed.")


def store_of(config: Path, make: bool = False) -> "Store":
    """The store of the configured site; as `store_at`."""
    return store_at(site_of(config), make)


def store_at(site: "Site", make: bool = False) -> "Store":
    """The site's store, which closes when the command ends. One that is not there is made only for commands that bring
    something to it."""
    from gateway.edges import logs
    from gateway.edges.database import StoreError, database_path
    from gateway.edges.store import Store

    atexit.register(logs.configure(sys.stderr))  # what fails below must not print a message's values
    try:
        if not make and not database_path(site.store_url).exists():
            fail(f"{site.file}: there is no store yet; `gateway run` or `gateway worklist import` makes it.")
        store = Store(site.store_url, zone=site.settings.timezone)
    except StoreError as error:
        fail(str(error))
    at_end.callback(store.close)
    return store


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # an identifier cut short is no identifier
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    out.print(table)


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; gives the function that is told how many more are done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


_AGO = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def when(said: str, zone: tzinfo, option: str = "--since") -> datetime | None:
    """The time that was typed: `2h`, `7d`, `today`, `yesterday`, a date or a date with a time, by the department's
    clock; None for nothing."""
    if not said:
        return None
    at = datetime.now(zone)
    try:
        if said in ("today", "yesterday"):
            day = at.date() - timedelta(days=said == "yesterday")
            return datetime.combine(day, time.min, zone)
        if said[-1] in _AGO and said[:-1].isdecimal():
            return at - timedelta(**{_AGO[said[-1]]: int(said[:-1])})
        typed = datetime.fromisoformat(said)
        return typed if typed.tzinfo else typed.replace(tzinfo=zone)
    except (ValueError, OverflowError) as error:
        text = f"{said!r} is no time: write 2h, 7d, today, yesterday, 2026-11-23 or 2026-11-23T14:00"
        raise typer.BadParameter(text, param_hint=option) from error


def moment(at: datetime, zone: tzinfo) -> str:
    """By the department's clock, as `gateway worklist why` tells times."""
    return at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
