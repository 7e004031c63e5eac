"""A worker's road for HL7 messages: read and mapped here, handed on to the main process, which applies and stores them.

The mappings are compiled from what the main process sent, and no file is read. Until that is done, and while a reload
is on its way, the main process reads messages itself; so what a message comes to does not depend on who read it.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from gateway.domain.identifiers import Mint
from gateway.domain.refusal import Refusal
from gateway.processing import feeds_of, put_off, understand_message
from gateway.workers.asking import ANSWER_S, Asking, Unanswered
from gateway.workers.messages import Processed, Received, Rejected, Serve
from gateway.workflow.intake import Feed, Receipt

READ_HERE_BYTES_MAX = 1_048_576
"""What is longer is read by the main process: read, it takes several times its length on the channel."""

_NO_MINT = Mint(uuid.UUID(int=0))  # reading mints nothing

_log = structlog.get_logger()


class HandingOn:
    """The road to the main process. A positive receipt is its, so it is on disk."""

    def __init__(self, say: Callable[[Received | Rejected], bool], answer_s: float = ANSWER_S) -> None:
        """`say` tells the main process, or says False; `answer_s` is how long that may take to answer."""
        self._say = say
        self._asking = Asking[Processed](answer_s)
        self._feeds: dict[str, Feed] = {}
        self._read_by = 0  # which `Serve` the feeds are made of
        self._newest: Serve | None = None
        self._compiling: asyncio.Task[None] | None = None
        self.failing = False

    def serve(self, serve: Serve) -> None:
        """Read as this says, as soon as its mappings are compiled."""
        self._newest = serve
        if self._compiling is None:
            self._compiling = asyncio.create_task(self._compile())

    def processed(self, processed: Processed) -> None:
        """The main process did it."""
        self.failing = processed.failing
        self._asking.answered(processed.number, processed)

    async def process(self, listener: str, raw: bytes, peer: str, barred: tuple[str, ...] = ()) -> Receipt:
        """One message down the whole road."""
        feed, read_by = self._feeds.get(listener), self._read_by
        here = feed is not None and len(raw) <= READ_HERE_BYTES_MAX
        understood = await understand_message(raw, feed, barred) if feed is not None and here else None
        return await self._handed_on(
            listener, raw, lambda number: self._say(Received(number, listener, peer, raw, read_by, understood, barred))
        )

    async def refuse(self, listener: str, raw: bytes, refusals: Sequence[Refusal], peer: str) -> Receipt:
        """Archive what is not worked on, and answer it."""
        return await self._handed_on(
            listener, raw, lambda number: self._say(Rejected(number, listener, peer, raw, tuple(refusals)))
        )

    def put_off(self, listener: str, raw: bytes) -> Receipt:
        """Answer what comes while nothing can be stored, without trying it."""
        feed = self._feeds.get(listener)
        if feed is None:
            raise Unanswered  # the listener itself answers then
        return put_off(raw, feed)

    async def _handed_on(self, listener: str, raw: bytes, say: Callable[[int], bool]) -> Receipt:
        try:
            processed = await self._asking.ask(say)
        except Unanswered:
            _log.error("message_not_answered", listener=listener)
        else:
            if processed.receipt is not None:
                return processed.receipt
        return self.put_off(listener, raw)

    async def _compile(self) -> None:
        """Make the feeds of the newest site, until none newer came meanwhile."""
        made: Serve | None = None
        while self._newest is not made and self._newest is not None:
            made = self._newest
            try:
                feeds = await asyncio.to_thread(_feeds, made)
            except Exception as error:  # the main process compiled the same; it reads in our place
                _log.error("mappings_not_compiled", exc_info=error)
                continue
            self._feeds |= feeds
            self._read_by = made.number
        self._compiling = None


def _feeds(serve: Serve) -> dict[str, Feed]:
    site = serve.site
    names = {site.mapping_name(listener) for listener in site.settings.hl7}
    return feeds_of(replace(site, mappings=site.recipe.mappings(names)), _NO_MINT)
