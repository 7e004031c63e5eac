"""The site that is measured: every rule for devices switched on, and room for a whole department at one address."""

import json
from collections.abc import Mapping
from pathlib import Path

from gateway.config import load_site
from gateway.testing import free_port, site
from tests.benchmarks.questions import HOST

DEVICES = 500
NO_LIMIT = 4_096
"""Associations from one address: here it stands for a whole department."""

PROFILE = {
    "name": "benchmark",
    "reason": "Every rule at once that leaves the lists as they are.",
    "ignore": ["PatientName"],
    "force": {"Modality": "CT"},
    "fill": {"ReferringPhysicianName": "UNKNOWN", "PatientSex": "O"},
    "answers_max": 1_000,
    "date_window": {"days_before": 1, "days_after": 2},
    "character_sets": {"declared": ["ISO_IR 100", "ISO_IR 192"]},
    "whole_names": True,
}

LISTENER = "ris"


def department(folder: Path, listeners: Mapping[str, Mapping[str, object]] | None = None, **overrides: object) -> Path:
    """The configuration of a site whose first listener takes orders as most sites do.

    `listeners` are further ones: what is special about each, by its name.
    """
    folder.mkdir(parents=True)
    titles = ["BENCHMARK", *(f"DEVICE{number}" for number in range(DEVICES))]
    devices = [{"ae_title": title, "group": "CT", "sites": ["NORTH"], "profile": PROFILE["name"]} for title in titles]
    for name, content in (("devices", devices), ("profiles", [PROFILE])):
        (folder / f"{name}.yaml").write_text(json.dumps({name: content}), encoding="utf-8")  # JSON is YAML
    hl7 = [
        {"name": name, "host": HOST, "port": free_port(), "mapping": "ihe-swf", "site": "NORTH", **special}
        for name, special in {LISTENER: {}, **(listeners or {})}.items()
    ]
    return site(
        folder,
        dicom={"associations_max": NO_LIMIT, "associations_per_address_max": NO_LIMIT},
        hl7=hl7,
        devices={"file": "devices.yaml", "profiles": "profiles.yaml", "unknown": "reject"},
        worklists=[{"ae_title": "GATEWAY", "sites": ["NORTH"], "modalities": ["CT", "MR"]}],
        **overrides,
    )


def hl7_ports(config: Path) -> dict[str, int]:
    """The port of each listener."""
    return {listener.name: listener.port for listener in load_site(config).settings.hl7}
