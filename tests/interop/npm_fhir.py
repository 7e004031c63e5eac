"""The npm package `fhir` (R4, offline): what it finds wrong with resources that we make, all in one process."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

NODE = Path(__file__).parent / "node"
NODE_S = 300  # it reads the definitions of all of FHIR at its start


def is_installed(package: str) -> str:
    """Why a package of tests/interop/node cannot be used, '' where it can."""
    if shutil.which("node") is None:
        return "Node.js is not installed (Debian packages nodejs and npm)"
    if not (NODE / "node_modules" / package).is_dir():
        return f"{package} is not installed (npm ci in tests/interop/node; `make peers` does it)"
    return ""


def problems_by_npm(resources: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of those with errors, each with what is wrong. Skips the rest of the test where the package is not
    installed."""
    why_not = is_installed("fhir")
    if why_not:
        pytest.skip(why_not)
    done = subprocess.run(
        ["node", "validate.js"], cwd=NODE, input=json.dumps(resources), capture_output=True, text=True, timeout=NODE_S,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found
