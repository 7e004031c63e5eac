"""Run the suite against any SCP, write its items as worklist files, or write its page of the documentation."""

import argparse
import sys
from pathlib import Path

from .checks import run_case
from .files import write_items
from .model import cases
from .page import page
from .scu import Caller


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.cases.worklist", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, help="of the SCP; the suite is run")
    parser.add_argument("--called", default="GATEWAY", help="AE title of the SCP")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--lacks", action="append", default=[], help="a need that the SCP does not offer; repeatable")
    parser.add_argument("--failures", action="store_true", help="print the cases that fail, and no others")
    parser.add_argument("--write-items", type=Path, metavar="DIR", help="write the population as .wl files")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="write the page of the documentation")
    return parser.parse_args()


def _run(arguments: argparse.Namespace) -> bool:
    counts = dict.fromkeys(("pass", "fail", "skip"), 0)
    with Caller(arguments.host, arguments.port, arguments.called) as caller:
        for case in cases():
            if arguments.only not in case.name:
                continue
            lacking = [need for need in case.needs if need in arguments.lacks]
            wrong = [] if lacking else run_case(case, caller)
            outcome = "skip" if lacking else "fail" if wrong else "pass"
            counts[outcome] += 1
            if outcome == "fail" or not arguments.failures:
                print(f"{outcome}  {case.name} ({case.clause})" + (f": needs {lacking[0]}" if lacking else ""))
            for problem in wrong[:8]:
                print(f"      {problem}")
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return not counts["fail"]


def main() -> int:
    """0 if nothing failed."""
    arguments = _arguments()
    if arguments.write_items:
        write_items(arguments.write_items)
    if arguments.docs:
        arguments.docs.write_text(page(), encoding="utf-8")
    return 0 if arguments.port is None or _run(arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
