"""A site of its own for tests of commands: laid out, spoken to by HL7, and commanded."""

import asyncio
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.config import load_site
from gateway.domain.identifiers import Mint
from gateway.edges.store import Store
from gateway.processing import feeds_of, process_message


class CommandSite:
    """Runs commands on a site laid out by `gateway init` in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "gateway.yaml"
        assert CliRunner().invoke(cli, ["init", str(folder)]).exit_code == 0

    def __call__(self, *words: object) -> Result:
        return CliRunner().invoke(cli, [*map(str, words), "--config", str(self.config)])

    def receive(self, *messages: bytes, listener: str = "ris") -> list[str]:
        """What became of these messages, as they came by the listener."""
        site = load_site(self.config)
        with Store(site.store_url, zone=site.settings.timezone) as store:
            feed = feeds_of(site, Mint(store.site_namespace()))[listener]
            return [asyncio.run(process_message(store, each, feed, "test")).disposition for each in messages]
