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

GC_THRESHOLD = 50_000
"""New objects before the collector looks by itself; `TIDY_S` is to be sooner."""

TIDY_S = 0.1
"""How often new objects are looked at for cycles, and those that live are then left alone (`gc.freeze`). Kept items are
half a million objects without a cycle among them. The collector counts births less deaths, so while a full cache
renews itself it waits for long and then looks at everything since: 150 ms in which nobody is answered (measured). Ten
times a second there is a millisecond's worth."""

LOOK_AT_ALL_S = 86_400.0
"""How often all objects are looked at, which takes 250 ms: how long a cycle among older ones may be kept."""


def run(main: Coroutine[None, None, None], **fields: Any) -> None:
    """Run `main` until it returns, and write what was logged, with these fields. Raises what it raises."""
    let_go = logs.configure(**fields)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(GC_THRESHOLD, 5, 1_000_000)
    try:
        uvloop.run(_telling(main, let_go))
    finally:
        let_go()


async def _telling(main: Coroutine[None, None, None], let_go: Callable[[], None]) -> None:
    housekeeping = asyncio.create_task(_keep_house(let_go))
    try:
        await main
    finally:
        housekeeping.cancel()


async def _keep_house(let_go: Callable[[], None]) -> None:
    began = time.monotonic()
    write_at, look_at = began, began + LOOK_AT_ALL_S
    while True:
        now = time.monotonic()
        if now >= write_at:
            let_go()
            write_at = now + LOG_WRITE_S
        if now >= look_at:
            gc.unfreeze()
            gc.collect()
            look_at = now + LOOK_AT_ALL_S
        gc.collect(1)
        gc.freeze()
        await asyncio.sleep(TIDY_S)
