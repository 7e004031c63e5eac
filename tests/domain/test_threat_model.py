"""The threat model names the tests that show what it says; here is seen to it that there are such tests."""

import re
from pathlib import Path

from gateway.domain.access import Denial

TESTS = Path(__file__).parent.parent
PAGE = (TESTS.parent / "docs" / "explanation" / "threat-model.md").read_text(encoding="utf-8")


def test_every_test_it_names_is_there():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named
    assert named <= {path.stem for path in TESTS.glob("*/test_*.py")}


def test_it_says_of_every_denial_what_to_do():
    reasons = PAGE.split("| Reason (log, metric, `knocks`)")[1].split("## ")[0]
    assert set(re.findall(r"`(\w+)`", reasons)) >= {denial.name.lower() for denial in Denial}
