"""The releases of FHIR that are spoken, and how each is named: version number, base path, media type parameter."""

from collections.abc import Mapping
from enum import StrEnum


class Release(StrEnum):
    """A release of FHIR."""

    R4 = "R4"
    R4B = "R4B"
    R5 = "R5"

    @property
    def version(self) -> str:
        """As CapabilityStatement.fhirVersion has it."""
        return _VERSIONS[self]

    @property
    def parameter(self) -> str:
        """As the `fhirVersion` parameter of a media type has it."""
        return self.version.rpartition(".")[0]

    @property
    def base(self) -> str:
        """The name of its base path below /fhir, and of the resources that are held there."""
        return self.value.lower()


_VERSIONS: Mapping[Release, str] = {Release.R4: "4.0.1", Release.R4B: "4.3.0", Release.R5: "5.0.0"}
