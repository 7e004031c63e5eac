"""Worklist matching."""

from dataclasses import dataclass

from gateway.domain.worklist import LISTED, SPSStatus


@dataclass(frozen=True, slots=True)
class Narrowing:
    """Index bounds for the store: each may hide only items that the matcher would refuse as well.

    Starts are 14 digits of wall clock, inclusive; '' or empty means unbounded. `patient_name_prefix` is folded by
    `fold_name` and meant for any component group.
    """

    station_ae_titles: frozenset[str] = frozenset()
    start_from: str = ""
    start_to: str = ""
    modality: str = ""
    patient_id: str = ""
    patient_name_prefix: str = ""
    accession_number: str = ""
    requested_procedure_id: str = ""
    study_instance_uids: frozenset[str] = frozenset()
    sps_id: str = ""
    statuses: frozenset[SPSStatus] = LISTED
