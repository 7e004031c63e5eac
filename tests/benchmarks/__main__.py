"""`python -m tests.benchmarks`: the budgets of the gateway beside its peers, in one run of about ten minutes.

Prints the table and writes docs/benchmarks.md; `--quick` only shows within seconds that everything still runs, and
writes nothing. None of this is a timed test: machines differ, ratios on one machine do much less.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from tests.benchmarks import peers
from tests.benchmarks.measure import fsyncs_per_second, machine, round_trips_per_second
from tests.benchmarks.report import Row, Section, page, print_table
from tests.benchmarks.scenarios import FULL, QUICK, SCENARIOS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def main() -> None:
    """Run every scenario."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs, not how fast")
    quick = parser.parse_args().quick
    began = time.monotonic()

    def progress(text: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        syncs = fsyncs_per_second(folder)
        with peers.echo() as port:
            trips = asyncio.run(round_trips_per_second(port))
        found = [each for scenario in SCENARIOS for each in scenario(folder, QUICK if quick else FULL, progress)]
    rows = [each for each in found if isinstance(each, Row)]
    sections = [each for each in found if isinstance(each, Section)]
    facts = [
        *machine(),
        ("Disk", f"{syncs:,.0f} durable writes of 4 KiB a second (fsync)"),
        ("Loopback", f"{trips:,.0f} round trips a second of one byte between two processes, one after the other"),
    ]
    print_table(rows, sections, facts)
    if quick:
        print("Everything runs. This was too short to judge a budget by.")
    else:
        PAGE.write_text(page(rows, sections, facts), encoding="utf-8")
        print(f"Written to {PAGE.relative_to(PAGE.parents[1])}")


if __name__ == "__main__":
    main()
