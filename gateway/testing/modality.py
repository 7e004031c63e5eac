"""A modality: it asks for its worklist and reports what it performs, on pynetdicom as SCU.

Each operation opens an association of its own, as most devices do.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from ssl import SSLContext

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import from a table
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    Verification,
)

from gateway.domain.attributes import BY_KEYWORD, Level
from gateway.domain.discontinuation import REASONS

# By default pynetdicom writes every identifier it sends and receives to the log, patients and all.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False

SUCCESS, WARNINGS = 0x0000, frozenset({0x0001, 0x0107, 0x0116})
PENDING = frozenset({0xFF00, 0xFF01})
CANCELLED = 0xFE00

SHOWN_KEYS = (
    "ScheduledStationAETitle", "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime", "Modality",
    "ScheduledPerformingPhysicianName", "ScheduledProcedureStepDescription", "ScheduledProcedureStepID",
    "ScheduledProcedureStepStatus", "RequestedProcedureID", "RequestedProcedureDescription", "StudyInstanceUID",
    "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
)  # fmt: skip
"""What a modality shows its user or copies into its images; asked for in every query."""


class StatusError(Exception):
    """A DIMSE answer that is neither success nor a warning. `comment` is its Error Comment (0000,0902)."""

    def __init__(self, operation: str, status: int, comment: str = "") -> None:
        self.status = status
        self.comment = comment
        super().__init__(f"{operation} was answered {status:04X}" + (f": {comment}" if comment else ""))


def worklist_identifier(keys: Mapping[str, str], return_keys: tuple[str, ...] = SHOWN_KEYS) -> Dataset:
    """The C-FIND identifier for these matching keys, by DICOM keyword; keys of the step go into its sequence.

    `return_keys` are asked for as well, with zero length.
    """
    step, identifier = Dataset(), Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    for keyword in (*return_keys, *keys):
        level = BY_KEYWORD[keyword].level if keyword in BY_KEYWORD else Level.PROCEDURE
        setattr(step if level is Level.STEP else identifier, keyword, keys.get(keyword, ""))
    identifier.ScheduledProcedureStepSequence = Sequence([step])
    return identifier


class SimulatedModality:
    """One modality, known by its AE title. `called_ae_title` is the gateway's.

    `fuzzy_names` and `time_zones` offer the worklist's extended negotiation for them (PS3.4 K.5.1); what was promised
    is in `promised` after each query: b"" where nothing was offered or answered. With `tls` it calls over TLS.
    """

    def __init__(
        self,
        host: str,
        port: int,
        ae_title: str = "CT1",
        called_ae_title: str = "GATEWAY",
        timeout_s: float = 30,
        *,
        fuzzy_names: bool = False,
        time_zones: bool = False,
        tls: SSLContext | None = None,
    ) -> None:
        self.ae_title = ae_title
        self.promised = b""
        self._extension: SOPClassExtendedNegotiation | None = None
        if fuzzy_names or time_zones:
            self._extension = SOPClassExtendedNegotiation()
            self._extension.sop_class_uid = ModalityWorklistInformationFind
            self._extension.service_class_application_information = bytes((1, 1, fuzzy_names, time_zones))
        self._host, self._port, self._called_ae_title = host, port, called_ae_title
        self._tls = tls
        self._ae = AE(ae_title)
        self._ae.connection_timeout = self._ae.acse_timeout = timeout_s
        self._ae.dimse_timeout = self._ae.network_timeout = timeout_s

    def echo(self) -> None:
        """C-ECHO. Raises StatusError or ConnectionError."""
        with self._associate(Verification) as association:
            _check("C-ECHO", association.send_c_echo())

    def worklist(self, **keys: str) -> list[Dataset]:
        """The worklist for these keys, in the order of the answers; with none, everything this device may see.

        `modality.worklist(ScheduledStationAETitle="CT1", PatientName="MÜLLER*")`.
        Raises StatusError or ConnectionError.
        """
        return self.find(worklist_identifier(keys))

    def find(self, identifier: Dataset, cancel_after: int = 0) -> list[Dataset]:
        """The answers to this identifier. Raises StatusError or ConnectionError.

        `cancel_after` sends a C-CANCEL when so many have come: those that were under way still come.
        """
        items: list[Dataset] = []
        with self._associate(ModalityWorklistInformationFind) as association:
            promised = association.acceptor.sop_class_extended
            self.promised = promised.get(UID(ModalityWorklistInformationFind)) or b""
            for status, answer in association.send_c_find(identifier, ModalityWorklistInformationFind, msg_id=1):
                if status and status.Status in PENDING and answer is not None:
                    items.append(answer)
                    if len(items) == cancel_after:
                        association.send_c_cancel(1, None, ModalityWorklistInformationFind)
                elif not (cancel_after and "Status" in status and status.Status == CANCELLED):
                    _check("C-FIND", status)
        return items

    def start(self, item: Dataset, at: datetime | None = None) -> str:
        """Report that the work on a worklist item has begun; the SOP Instance UID of the performed step.

        Raises StatusError or ConnectionError.
        """
        uid = str(generate_uid())
        self.create(uid, performed_step(item, self.ae_title, at or datetime.now()))  # the device's own wall clock
        return uid

    def complete(self, uid: str, at: datetime | None = None) -> None:
        """Report that all is done, with one series and no image. Raises StatusError or ConnectionError."""
        self.set(uid, final_state("COMPLETED", at or datetime.now()))

    def discontinue(self, uid: str, reason: str = "110513", at: datetime | None = None) -> None:
        """Report that it was broken off; `reason` is a code of CID 9300. Raises StatusError or ConnectionError."""
        self.set(uid, final_state("DISCONTINUED", at or datetime.now(), reason))

    def create(self, uid: str, dataset: Dataset) -> int:
        """N-CREATE this performed step; the status. Raises StatusError or ConnectionError."""
        with self._associate(ModalityPerformedProcedureStep) as association:
            status, _ = association.send_n_create(dataset, ModalityPerformedProcedureStep, uid)
            return _check("N-CREATE", status)

    def set(self, uid: str, dataset: Dataset) -> int:
        """N-SET this performed step; the status. Raises StatusError or ConnectionError."""
        with self._associate(ModalityPerformedProcedureStep) as association:
            status, _ = association.send_n_set(dataset, ModalityPerformedProcedureStep, uid)
            return _check("N-SET", status)

    @contextmanager
    def _associate(self, sop_class: str) -> Iterator[Association]:
        self._ae.requested_contexts = []
        self._ae.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        extensions = [self._extension] if self._extension and sop_class == ModalityWorklistInformationFind else None
        association = self._ae.associate(
            self._host,
            self._port,
            ae_title=self._called_ae_title,
            ext_neg=extensions,  # type: ignore[arg-type]  # its list of a union is invariant
            tls_args=(self._tls, self._host) if self._tls is not None else None,
        )
        if not association.is_established:
            raise ConnectionError("the gateway rejected the association" if association.is_rejected else "no answer")
        try:
            yield association
        finally:
            association.release()


def performed_step(item: Dataset, station: str, at: datetime) -> Dataset:
    """The N-CREATE dataset for a worklist item: what PS3.17 annex J has a modality copy, and every type 2 key empty."""
    step = item.ScheduledProcedureStepSequence[0]
    scheduled = Dataset()
    scheduled.StudyInstanceUID = item.StudyInstanceUID
    scheduled.ReferencedStudySequence = []
    scheduled.AccessionNumber = item.get("AccessionNumber", "")
    scheduled.RequestedProcedureID = item.get("RequestedProcedureID", "")
    scheduled.RequestedProcedureDescription = item.get("RequestedProcedureDescription", "")
    scheduled.ScheduledProcedureStepID = step.get("ScheduledProcedureStepID", "")
    scheduled.ScheduledProcedureStepDescription = step.get("ScheduledProcedureStepDescription", "")
    scheduled.ScheduledProtocolCodeSequence = []

    performed = Dataset()
    performed.SpecificCharacterSet = "ISO_IR 192"
    performed.ScheduledStepAttributesSequence = [scheduled]
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
        setattr(performed, keyword, item.get(keyword, ""))
    performed.ReferencedPatientSequence = []
    performed.PerformedProcedureStepID = f"PPS{at:%H%M%S}"
    performed.PerformedStationAETitle = station
    performed.PerformedStationName = ""
    performed.PerformedLocation = ""
    performed.PerformedProcedureStepStartDate = f"{at:%Y%m%d}"
    performed.PerformedProcedureStepStartTime = f"{at:%H%M%S}"
    performed.PerformedProcedureStepStatus = "IN PROGRESS"
    performed.PerformedProcedureStepDescription = step.get("ScheduledProcedureStepDescription", "")
    performed.PerformedProcedureTypeDescription = ""
    performed.ProcedureCodeSequence = []
    performed.PerformedProcedureStepEndDate = ""
    performed.PerformedProcedureStepEndTime = ""
    performed.PerformedProcedureStepDiscontinuationReasonCodeSequence = []
    performed.Modality = step.get("Modality", "OT")
    performed.StudyID = item.get("RequestedProcedureID", "")
    performed.PerformedProtocolCodeSequence = []
    performed.PerformedSeriesSequence = []
    return performed


def final_state(status: str, at: datetime, reason: str = "") -> Dataset:
    """The N-SET dataset that ends a performed step: COMPLETED, or DISCONTINUED for a `reason` of CID 9300."""
    series = Dataset()
    series.PerformingPhysicianName = ""
    series.ProtocolName = "Routine"
    series.OperatorsName = ""
    series.SeriesInstanceUID = generate_uid()
    series.SeriesDescription = ""
    series.RetrieveAETitle = ""
    series.ReferencedImageSequence = []
    series.ReferencedNonImageCompositeSOPInstanceSequence = []

    final = Dataset()
    final.PerformedProcedureStepStatus = status
    final.PerformedProcedureStepEndDate = f"{at:%Y%m%d}"
    final.PerformedProcedureStepEndTime = f"{at:%H%M%S}"
    final.PerformedSeriesSequence = [series]
    if reason:
        code = Dataset()
        code.CodeValue = reason
        code.CodingSchemeDesignator = "DCM"
        code.CodeMeaning = _MEANING.get(reason, "Discontinued")
        final.PerformedProcedureStepDiscontinuationReasonCodeSequence = [code]
    return final


_MEANING = {reason.code: reason.meaning for reason in REASONS}


def _check(operation: str, status: Dataset) -> int:
    """The status if it is a success or a warning. Raises StatusError or ConnectionError (no answer at all)."""
    if "Status" not in status:
        raise ConnectionError(f"{operation} was not answered")
    code = int(status.Status)
    if code != SUCCESS and code not in WARNINGS:
        raise StatusError(operation, code, str(status.get("ErrorComment", "")))
    return code
