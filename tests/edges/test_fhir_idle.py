"""What FHIR costs: its libraries stay away from a site without it, and most of them from one that uses it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.examples import folder
from gateway.testing import site

_FHIRS_OWN = ["fhirpathpy", "antlr4", "fhir", "fhir_core", "httpx", "gateway.fhir_serving"]

_SERVED = """
import asyncio, json, sys, urllib.request
from pathlib import Path
import gateway.cli
from gateway.config import load_site
from gateway.service import Service

def sent(url, body):
    request = urllib.request.Request(url, body, {"Content-Type": "application/fhir+json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [each["response"]["status"][:3] for each in json.load(answer)["entry"]]

async def day(config, requests):
    site = load_site(Path(config))
    service = Service(site)
    await service.start(lambda line: None)
    for release, file in requests:
        url = f"http://127.0.0.1:{site.settings.http.port}/fhir/{release}"
        answers = await asyncio.to_thread(sent, url, Path(file).read_bytes())
        assert set(answers) == {"201"}, answers
    await service.stop()

asyncio.run(day(sys.argv[1], json.loads(sys.argv[2])))
print(json.dumps([name for name in sys.argv[3:] if name in sys.modules]))
"""


def _imported(config: Path, *requests: tuple[str, Path]) -> set[str]:
    """Which of FHIR's libraries a process has that ran this site and was sent these (release, transaction)."""
    sent = json.dumps([(release, str(file)) for release, file in requests])
    done = subprocess.run(
        [sys.executable, "-c", _SERVED, str(config), sent, *_FHIRS_OWN], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_service_without_fhir_imports_nothing_of_it(tmp_path: Path) -> None:
    assert _imported(site(tmp_path)) == set()


@pytest.mark.parametrize(
    ("release", "case"), [("r4", "fhir-r4-procedure-and-task.json"), ("r5", "fhir-r5-two-tasks.json")]
)
def test_orders_are_served_without_the_models_and_the_grammar(tmp_path: Path, release: str, case: str) -> None:
    order = folder("mappings") / "cases" / case
    imported = _imported(site(tmp_path, fhir={}, workers=0), (release, order))
    assert "gateway.fhir_serving" in imported
    assert not imported & {"fhir", "fhir_core", "fhirpathpy", "antlr4"}
