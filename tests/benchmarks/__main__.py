"""`python -m tests.benchmarks`: the budgets of the gateway beside its peers, in one run of about a quarter of an hour.

Prints the table and writes its part of docs/benchmarks.md; `--archive` measures only the archive, at a million
messages, and writes that part; `--quick` only shows within a minute or two that everything still runs, and writes
nothing; nor does `--only`, which runs some scenarios alone. None of this is a timed test: machines differ, ratios on
one machine do much less.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks import archive, peers
from tests.benchmarks.measure import fsyncs_per_second, machine, round_trips_per_second
from tests.benchmarks.page import ARCHIVE, BENCH, with_part
from tests.benchmarks.report import Row, Section, part, print_table
from tests.benchmarks.scenarios import FULL, QUICK, SCENARIOS, Found, Progress

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def main() -> None:
    """Run every scenario."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs, not how fast")
    parser.add_argument("--archive", action="store_true", help="only the archive, at a million messages")
    names = [scenario.__name__ for scenario in SCENARIOS]
    parser.add_argument("--only", choices=names, nargs="+", default=names, help="these scenarios, and no page")
    asked = parser.parse_args()
    began = time.monotonic()

    def progress(text: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        syncs = fsyncs_per_second(folder)
        with peers.echo() as port:
            trips = asyncio.run(round_trips_per_second(port))
        found = _measured(folder, asked.archive, asked.quick, asked.only, progress)
    rows = [each for each in found if isinstance(each, Row)]
    sections = [each for each in found if isinstance(each, Section)]
    facts = [
        *machine(),
        ("simple-hl7", peers.simple_hl7() or "not installed (Node.js, and `make peers`)"),
        ("Disk", f"{syncs:,.0f} durable writes of 4 KiB a second (fsync)"),
        ("Loopback", f"{trips:,.0f} round trips a second of one byte between two processes, one after the other"),
    ]
    print_table(rows, sections, facts)
    if len(asked.only) < len(names):
        print("Some scenarios only: the page stays as it is.")
    elif asked.quick:
        print("Everything runs. This was too short to judge a budget by.")
    else:
        held = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        target = ARCHIVE if asked.archive else BENCH
        text = with_part(held, target, part(rows, sections, facts), datetime.now(UTC).date())
        PAGE.write_text(text, encoding="utf-8")
        print(f"Written to {PAGE.relative_to(PAGE.parents[1])}")


def _measured(folder: Path, only_archive: bool, quick: bool, names: Collection[str], progress: Progress) -> list[Found]:
    if only_archive:
        return archive.measured(folder, archive.QUICK if quick else archive.MILLION, progress)
    scale = QUICK if quick else FULL
    found: list[Found] = []
    for scenario in SCENARIOS:
        if scenario.__name__ in names:
            came = scenario(folder, scale, progress)
            for each in came:  # so that a run that is broken off was not for nothing
                if isinstance(each, Row):
                    beside = f", {each.ratio:.2f} of {each.peer}" if each.ratio is not None else ""
                    progress(f"  {each.what}: {each.ours:,.2f} {each.unit}{beside} ({each.times})")
            found += came
    return found


if __name__ == "__main__":
    main()
