"""The whole service with its FHIR server, running beside the tests: spoken to over HTTP, and looked at from outside."""

import asyncio
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.config import load_site
from gateway.service import Service
from gateway.testing import free_port, site
from gateway.workflow.ports import MessageSearch, StoredMessage

JSON = {"Content-Type": "application/fhir+json"}
PATIENCE_S = 60
_ARCHIVE = frozenset({"messages", "message_keys", "message_reports", "mapping_versions", "meta", "knocks"})
"""Tables that a refusal may change: it is archived."""


class WholeService:
    """A service of its own in a thread. `client` asks its FHIR server at /fhir/r4 where no other base is named."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        port = free_port()
        self.config = site(folder, http={"host": "127.0.0.1", "port": port}, hl7=[], **settings)
        self.url = f"http://127.0.0.1:{port}/fhir"
        self.client = httpx.Client(base_url=f"{self.url}/r4/", timeout=PATIENCE_S, headers=JSON)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self._service = Service(load_site(self.config))
        self._do(self._service.start(lambda _: None))
        self._service.store.write(lambda _: None).result(PATIENCE_S)  # behind what it writes by itself as it starts
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._do(self._service.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, what: Any) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE_S)

    @property
    def service(self) -> Service:
        """The running service: its store may be read."""
        return self._service

    def everything(self) -> dict[str, list[Any]]:
        """All that is stored but the archive of what came in: resources, orders, worklist, outbox."""
        with sqlite3.connect(self.config.with_name("gateway.db")) as connection:
            named = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
            return {name: connection.execute(f"select * from {name}").fetchall()
                    for name in sorted(named) if name not in _ARCHIVE}  # fmt: skip

    def archived(self) -> int:
        """How many messages the archive has."""
        with sqlite3.connect(self.config.with_name("gateway.db")) as connection:
            (count,) = connection.execute("select count(*) from messages").fetchone()
            return int(count)

    def newest(self, count: int = 1) -> list[StoredMessage]:
        """The newest messages of the archive, the newest first."""
        return list(self._service.store.reader.find_messages(MessageSearch(listener="fhir"), count))

    def command(self, *words: str, exit_code: int = 0) -> str:
        """What `gateway WORDS` prints."""
        done = CliRunner().invoke(cli, [*words, "--config", str(self.config)])
        assert done.exit_code == exit_code, done.output
        return str(done.output)


def issues(answer: httpx.Response) -> list[tuple[str, str]]:
    """(code, expression) of every error that an answer tells, at whichever depth."""
    return sorted(
        (issue["code"], issue.get("expression", [""])[0])
        for outcome in _outcomes(answer.json())
        for issue in outcome["issue"]
        if issue["severity"] in ("error", "fatal")
    )


def _outcomes(body: Any) -> list[Mapping[str, Any]]:
    if isinstance(body, Mapping):
        found = [each for inner in body.values() for each in _outcomes(inner)]
        return [body, *found] if body.get("resourceType") == "OperationOutcome" else found
    return [each for inner in body for each in _outcomes(inner)] if isinstance(body, list) else []
