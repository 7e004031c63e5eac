"""Listeners for the tests of this folder."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest
import uvloop
from dimse_peers import CannedService, Running, Serve

from gateway.edges.dimse_server import Limits


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that are stopped at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(
            service: CannedService | None = None,
            limits: Limits | None = None,
            new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
        ) -> Running:
            running = Running(service or CannedService(), limits or Limits(), new_loop)
            stack.callback(running.end)
            return running

        yield start
