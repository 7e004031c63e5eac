"""The process beside the gateway that checks messages of strict listeners."""

import asyncio
import os
import signal

from gateway.edges.strict_checks import StrictChecks

ORDER = (
    b"MSH|^~\\&|RIS|RAD|GW|RAD|20260705080000||ORM^O01|M1|P|2.3.1\rPID|||P1^^^HOSP||Invented^Ida\r"
    b"ORC|NW|1^OE\rOBR|1|1^OE||CT1^Head^L\r"
)


def test_a_message_is_checked_elsewhere_and_what_cannot_be_read_is_left_to_others():
    checks = StrictChecks()

    async def run():
        good = await checks.problems(ORDER, "ascii", "")
        bad = await checks.problems(ORDER.replace(b"ORC|NW", b"ORC|"), "ascii", "")
        unreadable = await checks.problems(b"nothing", "ascii", "")
        return good, [refusal.where for refusal in bad], unreadable

    try:
        assert asyncio.run(run()) == ((), ["ORC-1"], ())
    finally:
        checks.close()


def test_a_checker_that_was_killed_is_replaced():
    checks = StrictChecks()

    async def run():
        await checks.problems(ORDER, "ascii", "")
        assert checks._pool is not None
        for process in list(checks._pool._processes.values()):
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        return await checks.problems(ORDER, "ascii", "")

    try:
        assert asyncio.run(run()) == ()
    finally:
        checks.close()


def test_without_anything_to_check_there_is_no_process():
    checks = StrictChecks()
    checks.close()
    assert checks._pool is None
