"""How each process of the service runs: the interpreter's settings, its event loop, and its logs."""

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from gateway.edges import logs

LOG_WRITE_S = 0.5
"""How often kept log lines are written when nothing new comes; a killed process loses no more of them."""

STOP_GRACE_S = 5.0
"""For requests in progress when the service stops; a supervisor usually waits ten seconds before it kills."""

SWITCH_INTERVAL_S = 0.0005
"""How long a busy writer thread may keep the event loop waiting (design D3b, measured)."""

GC_THRESHOLD = 20_000
"""New objects between two looks of the cycle collector: a message makes some 3,000 and nearly all die by themselves."""


def run(main: Coroutine[None, None, None], **fields: Any) -> None:
    """Run `main` until it returns, and write what was logged, with these fields. Raises what it raises."""
    let_go = logs.configure(**fields)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    try:
        uvloop.run(_telling(main, let_go))
    finally:
        let_go()


def settled() -> None:
    """What was loaded by now stays: the cycle collector need not walk it again."""
    gc.freeze()


async def _telling(main: Coroutine[None, None, None], let_go: Callable[[], None]) -> None:
    writing = asyncio.create_task(_write_logs(let_go))
    try:
        await main
    finally:
        writing.cancel()


async def _write_logs(let_go: Callable[[], None]) -> None:
    while True:
        let_go()
        await asyncio.sleep(LOG_WRITE_S)
