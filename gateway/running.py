"""How each process of the service runs: the interpreter's settings, its event loop, and its logs."""

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from gateway.edges import logs

LOG_WRITE_S = 0.5
"""How often kept log lines are written when nothing new comes; a killed process loses no more of them."""

STOP_GRACE_S = 5.0
"""For requests in progress when the service stops; a supervisor usually waits ten seconds before it kills."""

SWITCH_INTERVAL_S = 0.0001
"""How long a busy writer thread may keep the event loop waiting each time it needs the interpreter, which a query does
several times. Measured with 500 devices and 20 orders a second, in turns on a machine of changing speed: 99% of the
queries within 11 to 18 ms, against 11 to 58 ms with five times as long; orders as fast or faster."""

GC_THRESHOLDS = (20_000, 5, 1_000_000)
"""When the cycle collector looks at new objects, at those that outlived one look, and at all. A message makes some
3,000 and nearly all die by themselves. Kept items are half a million objects without a cycle among them: a look at all
of them stops the event loop for 100 ms and more, so that is done once in `LOOK_AT_ALL_S`."""

LOOK_AT_ALL_S = 86_400.0
"""How long a cycle of objects that nobody uses may be kept at most."""


def run(main: Coroutine[None, None, None], **fields: Any) -> None:
    """Run `main` until it returns, and write what was logged, with these fields. Raises what it raises."""
    let_go = logs.configure(**fields)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        uvloop.run(_telling(main, let_go))
    finally:
        let_go()


def settled() -> None:
    """What was loaded by now stays: the cycle collector need not walk it again."""
    gc.freeze()


async def _telling(main: Coroutine[None, None, None], let_go: Callable[[], None]) -> None:
    housekeeping = asyncio.create_task(_keep_house(let_go))
    try:
        await main
    finally:
        housekeeping.cancel()


async def _keep_house(let_go: Callable[[], None]) -> None:
    look_at = time.monotonic() + LOOK_AT_ALL_S
    while True:
        let_go()
        if time.monotonic() >= look_at:
            gc.collect()
            look_at += LOOK_AT_ALL_S
        await asyncio.sleep(LOG_WRITE_S)
