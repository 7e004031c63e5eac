"""`make demo`: the day goes as told, and the README shows a piece of it."""

import os
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def piece_of_the_demo() -> list[str]:
    _, _, rest = README.read_text(encoding="utf-8").partition("A piece of the demo:\n\n```\n")
    return rest.partition("```")[0].splitlines()


def test_the_day_goes_as_told() -> None:
    day = subprocess.run(
        [sys.executable, "-m", "gateway", "demo"], env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert day.returncode == 0, day.stdout[-4000:] + day.stderr[-2000:]
    said = [line.rstrip() for line in day.stdout.splitlines()]
    piece = piece_of_the_demo()
    assert len(piece) > 3
    assert [line for line in piece if line not in said] == []
    for told in (": completed", "ImagingStudy CT head plain: available, 1 series", "one crash, nothing lost"):
        assert told in day.stdout
