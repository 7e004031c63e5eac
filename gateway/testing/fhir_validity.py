"""Whether resources that we make are FHIR, by the models of fhir.resources: R4B's, which are R4's with few changes."""

import importlib
from typing import Any

from gateway.domain.resources import Resource
from gateway.wire import fhir_json, fhir_models
from gateway.wire.fhir_release import Release

_PACKAGES = {Release.R4: "fhir.resources.R4B", Release.R4B: "fhir.resources.R4B", Release.R5: "fhir.resources"}


def check(resource: Resource, release: Release) -> None:
    """Raises ValueError where it is none, or none that our own server would take."""
    kind = str(resource["resourceType"])
    model: Any = getattr(importlib.import_module(f"{_PACKAGES[release]}.{kind.lower()}"), kind)
    written = fhir_json.write(resource)
    model.model_validate_json(written)
    refusals, _ = fhir_models.problems(fhir_json.parse(written), release)
    if refusals:
        raise ValueError("\n".join(map(str, refusals)))
