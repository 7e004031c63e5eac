"""The performed procedure step: its state table, what each attribute may do, and its effect on scheduled steps.

Every MPPS transition is in `TRANSITIONS`, every attribute rule of PS3.4 table F.7.2-1 in `REQUIREMENTS`, every
discontinuation reason in `REASONS`. Nothing here knows about datasets or associations.

A modality is believed as far as it can be (design D14): by default only what makes a performed step usable at all is
demanded, and everything else that table F.7.2-1 asks for is noted. `Rules` holds one calling AE to more.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import Any

from gateway.domain.attributes import Attributes, Element
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.domain.worklist import StepEvent


class MPPSState(StrEnum):
    """Performed Procedure Step Status (0040,0252), as on the wire (PS3.4 table F.1-3)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


@dataclass(frozen=True, slots=True)
class PerformedStep:
    """A performed procedure step as held. `steps` are the ids of the scheduled steps it is linked to.

    `quarantined` says that it names another patient than the worklist does (design D14): it is kept and answered,
    and touches no item until a person decides.
    """

    sop_instance_uid: str
    state: MPPSState
    attributes: Attributes = field(repr=False)
    calling_ae_title: str = ""
    patient_id: int | None = None
    steps: tuple[int, ...] = ()
    quarantined: bool = False

    @property
    def waits(self) -> bool:
        """Whether an order may still come for it: it names more scheduled steps than it is linked to."""
        return not self.quarantined and len(self.steps) < len(references(self.attributes))


# --- states -----------------------------------------------------------------------------------------------------


class Operation(StrEnum):
    """The DIMSE services that change a performed step (PS3.4 F.7.2)."""

    CREATE = "N-CREATE"
    SET = "N-SET"


class RequestedStatus(StrEnum):
    """What a request says of the status: nothing, one of the three states, or something else."""

    NOTHING = ""
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"
    OTHER = "another value"


def _table() -> dict[tuple[Operation, MPPSState | None, RequestedStatus], MPPSState | RefusalKind]:
    table: dict[tuple[Operation, MPPSState | None, RequestedStatus], MPPSState | RefusalKind] = {}
    for requested in RequestedStatus:
        # Creation: IN PROGRESS only (F.7.2.1.3), and never twice (PS3.7 10.1.5.1.6), also not for the same bytes.
        table[Operation.CREATE, None, requested] = RefusalKind.BAD_VALUE
        for state in MPPSState:
            table[Operation.CREATE, state, requested] = RefusalKind.DUPLICATE_INSTANCE
            # A final state is final (F.7.2.2.3); the state is checked before the content.
            table[Operation.SET, state, requested] = RefusalKind.STEP_CLOSED
        table[Operation.SET, None, requested] = RefusalKind.NO_SUCH_INSTANCE
    table |= {
        (Operation.CREATE, None, RequestedStatus.NOTHING): RefusalKind.MISSING_VALUE,
        (Operation.CREATE, None, RequestedStatus.IN_PROGRESS): MPPSState.IN_PROGRESS,
        (Operation.SET, MPPSState.IN_PROGRESS, RequestedStatus.NOTHING): MPPSState.IN_PROGRESS,
        (Operation.SET, MPPSState.IN_PROGRESS, RequestedStatus.IN_PROGRESS): MPPSState.IN_PROGRESS,
        (Operation.SET, MPPSState.IN_PROGRESS, RequestedStatus.COMPLETED): MPPSState.COMPLETED,
        (Operation.SET, MPPSState.IN_PROGRESS, RequestedStatus.DISCONTINUED): MPPSState.DISCONTINUED,
        (Operation.SET, MPPSState.IN_PROGRESS, RequestedStatus.OTHER): RefusalKind.BAD_VALUE,
    }
    return table


TRANSITIONS: Mapping[tuple[Operation, MPPSState | None, RequestedStatus], MPPSState | RefusalKind] = _table()
"""(operation, state held or None, status requested) -> the state afterwards, or why not. Total."""


# --- attributes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Requirement:
    """One row of table F.7.2-1.

    `on_create` and `on_set` are SCU/SCP requirement types; `on_set` is 'not allowed' for what only N-CREATE may
    say; `in_final` is the type that holds once the step is COMPLETED or DISCONTINUED, '' where the creation's does.
    """

    tag: str
    keyword: str
    vr: str
    on_create: str
    on_set: str
    in_final: str
    items: tuple["Requirement", ...] = ()

    @property
    def settable(self) -> bool:
        return self.on_set != NOT_ALLOWED


NOT_ALLOWED = "not allowed"

# Rows of items that recur: coded entry, hierarchic designator (issuer), reference to an instance.
_MACROS = {
    "code": """
00080100 CodeValue SH 1C/1C
00080102 CodingSchemeDesignator SH 1C/1C
00080103 CodingSchemeVersion SH 1C/1C
00080104 CodeMeaning LO {meaning}
""",
    "hd": """
00400031 LocalNamespaceEntityID UT 1C/1C
00400032 UniversalEntityID UT 1C/1C
00400033 UniversalEntityIDType CS 1C/1C
""",
    "sop": """
00081150 ReferencedSOPClassUID UI 1/1
00081155 ReferencedSOPInstanceUID UI 1/1
""",
}

# Depth-marked tag, keyword, VR, N-CREATE, N-SET ('-' not allowed), final state ('.' as created), [macro of its items].
# `coded` is a coded entry whose meaning is mandatory; in `code` it is optional (tables F.7.2-1a to f).
_ROWS = """
00080005 SpecificCharacterSet CS 1C/1C 1C/1C .
00400270 ScheduledStepAttributesSequence SQ 1/1 - .
>0020000D StudyInstanceUID UI 1/1 - .
>00081110 ReferencedStudySequence SQ 2/2 - . sop
>00080050 AccessionNumber SH 2/2 - .
>00080051 IssuerOfAccessionNumberSequence SQ 3/3 - . hd
>00402016 PlacerOrderNumberImagingServiceRequest LO 3/3 - .
>00400026 OrderPlacerIdentifierSequence SQ 3/3 - . hd
>00402017 FillerOrderNumberImagingServiceRequest LO 3/3 - .
>00400027 OrderFillerIdentifierSequence SQ 3/3 - . hd
>00401001 RequestedProcedureID SH 2/2 - .
>00321064 RequestedProcedureCodeSequence SQ 3/3 - . coded
>00321060 RequestedProcedureDescription LO 2/2 - .
>00400009 ScheduledProcedureStepID SH 2/2 - .
>00400007 ScheduledProcedureStepDescription LO 2/2 - .
>00400008 ScheduledProtocolCodeSequence SQ 2/2 - . coded
00100010 PatientName PN 2/2 - .
00100020 PatientID LO 2/2 - .
00100021 IssuerOfPatientID LO 3/3 - .
00100024 IssuerOfPatientIDQualifiersSequence SQ 3/3 - .
>00400032 UniversalEntityID UT 3/3 - .
>00400033 UniversalEntityIDType CS 1C/1C - .
00101002 OtherPatientIDsSequence SQ 3/3 - .
>00100020 PatientID LO 3/3 - .
>00100021 IssuerOfPatientID LO 3/3 - .
>00100024 IssuerOfPatientIDQualifiersSequence SQ 3/3 - .
>00100022 TypeOfPatientID CS 3/3 - .
00100030 PatientBirthDate DA 2/2 - .
00100040 PatientSex CS 2/2 - .
00081120 ReferencedPatientSequence SQ 2/2 - . sop
00380010 AdmissionID LO 3/3 - .
00380014 IssuerOfAdmissionIDSequence SQ 3/3 - . hd
00380060 ServiceEpisodeID LO 3/3 - .
00380064 IssuerOfServiceEpisodeIDSequence SQ 3/3 - . hd
00380062 ServiceEpisodeDescription LO 3/3 - .
00400253 PerformedProcedureStepID SH 1/1 - .
00400241 PerformedStationAETitle AE 1/1 - .
00400242 PerformedStationName SH 2/2 - .
00400243 PerformedLocation SH 2/2 - .
00400244 PerformedProcedureStepStartDate DA 1/1 - .
00400245 PerformedProcedureStepStartTime TM 1/1 - .
00400252 PerformedProcedureStepStatus CS 1/1 3/1 .
00400254 PerformedProcedureStepDescription LO 2/2 3/2 .
00400255 PerformedProcedureTypeDescription LO 2/2 3/2 .
00081032 ProcedureCodeSequence SQ 2/2 3/2 . code
00401012 ReasonForPerformedProcedureCodeSequence SQ 3/3 3/3 . coded
00400250 PerformedProcedureStepEndDate DA 2/2 3/1 1
00400251 PerformedProcedureStepEndTime TM 2/2 3/1 1
00400280 CommentsOnThePerformedProcedureStep ST 3/3 3/3 .
00400281 PerformedProcedureStepDiscontinuationReasonCodeSequence SQ 3/3 3/3 . coded
00080060 Modality CS 1/1 - .
00200010 StudyID SH 2/2 - .
00400260 PerformedProtocolCodeSequence SQ 2/2 3/2 . code
00400340 PerformedSeriesSequence SQ 2/2 3/1 1
>00081050 PerformingPhysicianName PN 2/2 2/2 2
>00181030 ProtocolName LO 1/1 1/1 1
>00081070 OperatorsName PN 2/2 2/2 2
>0020000E SeriesInstanceUID UI 1/1 1/1 1
>0008103E SeriesDescription LO 2/2 2/2 2
>00080054 RetrieveAETitle AE 2/2 2/2 2
>0040A494 ArchiveRequested CS 3/3 3/3 .
>00081140 ReferencedImageSequence SQ 2/2 2/2 2
>>00081150 ReferencedSOPClassUID UI 1/1 1/1 .
>>00081155 ReferencedSOPInstanceUID UI 1/1 1/1 .
>>00400512 ContainerIdentifier LO 3/3 3/3 .
>>00400560 SpecimenDescriptionSequence SQ 3/3 3/3 .
>>>00400551 SpecimenIdentifier LO 1/1 1/1 .
>>>00400554 SpecimenUID UI 1/1 1/1 .
>00400220 ReferencedNonImageCompositeSOPInstanceSequence SQ 2/2 2/2 2 sop
00400300 TotalTimeOfFluoroscopy US 3/3 3/3 .
00400301 TotalNumberOfExposures US 3/3 3/3 .
00400302 EntranceDose US 3/3 3/3 .
0018115E ImageAndFluoroscopyAreaDoseProduct DS 3/3 3/3 .
0040030E ExposureDoseSequence SQ 3/3 3/3 .
00400320 BillingProcedureStepSequence SQ 3/3 3/3 . code
00400321 FilmConsumptionSequence SQ 3/3 3/3 .
00400324 BillingSuppliesAndDevicesSequence SQ 3/3 3/3 .
"""


def _macro(name: str, on_set: str) -> tuple[Requirement, ...]:
    """The item rows of a macro; they may be set where the sequence around them may."""
    rows = _MACROS["code" if name == "coded" else name].format(meaning="1/1" if name == "coded" else "3/3")
    parts = [row.split() for row in rows.strip().splitlines()]
    return tuple(
        Requirement(tag, keyword, vr, types, NOT_ALLOWED if on_set == "-" else types, "")
        for tag, keyword, vr, types in parts
    )


def _requirements(rows: Sequence[str], depth: int = 0) -> tuple[Requirement, ...]:
    """The rows of this depth, each with the deeper rows that follow it as its items."""
    found: list[Requirement] = []
    for number, row in enumerate(rows):
        marked, keyword, vr, on_create, on_set, in_final, *macro = row.split()
        if len(marked) - 8 != depth:
            continue
        inner: list[str] = []
        for following in rows[number + 1 :]:
            if len(following.split()[0]) - 8 <= depth:
                break
            inner.append(following)
        items = _macro(macro[0], on_set) if macro else _requirements(inner, depth + 1)
        found.append(
            Requirement(
                marked.lstrip(">"), keyword, vr, on_create, NOT_ALLOWED if on_set == "-" else on_set,
                in_final.strip("."), items,
            )
        )  # fmt: skip
    return tuple(found)


REQUIREMENTS: tuple[Requirement, ...] = _requirements(_ROWS.strip().splitlines())
BY_TAG: Mapping[str, Requirement] = {requirement.tag: requirement for requirement in REQUIREMENTS}

SCHEDULED_STEP_ATTRIBUTES = "00400270"
STATUS = "00400252"
DISCONTINUATION_REASON = "00400281"
_STUDY_INSTANCE_UID, _ACCESSION_NUMBER = "0020000D", "00080050"
_REQUESTED_PROCEDURE_ID, _SPS_ID = "00401001", "00400009"
_CODE_VALUE, _CODING_SCHEME = "00080100", "00080102"


@dataclass(frozen=True, slots=True)
class Rules:
    """How closely a calling AE is held to table F.7.2-1. All off is what deployed modalities need.

    `whole_table`: everything of type 1 and 2 must be there, also inside items; else only type 1 attributes of the
    step itself and the Study Instance UID of each scheduled step it names.
    `no_changes`: an N-SET that changes what only N-CREATE may say, or sets what was never created, is refused; else
    the former is answered with a warning and the latter accepted.
    `complete_final`: COMPLETED and DISCONTINUED need the end and the list of series; else their absence is noted.
    """

    whole_table: bool = False
    no_changes: bool = False
    complete_final: bool = False


LENIENT = Rules()
STRICT = Rules(whole_table=True, no_changes=True, complete_final=True)


@dataclass(frozen=True, slots=True)
class Change:
    """What a request comes to: the step afterwards, or every reason why not (`performed` is then None).

    `kept` are the tags that the request wanted changed and that stay as created: a warning, 0107. `notes` say what
    was accepted although the table asks for more.
    """

    performed: PerformedStep | None
    refusals: tuple[Refusal, ...] = ()
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def create(
    held: PerformedStep | None, sop_instance_uid: str, said: Attributes, calling_ae_title: str, rules: Rules
) -> Change:
    """N-CREATE (PS3.4 F.7.2.1): the new step, not yet linked to anything. Pure."""
    next_state = TRANSITIONS[Operation.CREATE, held.state if held else None, requested_status(said)]
    if next_state is RefusalKind.DUPLICATE_INSTANCE:
        return Change(None, (Refusal(
            next_state, "", "a performed step with this SOP Instance UID is held already",
            "create each performed step under a new UID; if this was a repeat, go on with N-SET",
        ),))  # fmt: skip
    refusals: list[Refusal] = []
    notes: list[str] = []
    for lack in _lacking(_ON_CREATE, said):
        if rules.whole_table or lack.essential:
            refusals.append(lack.refusal())
        else:
            notes.append(str(lack))
    if next_state is RefusalKind.BAD_VALUE:
        refusals.append(_bad_status("a performed step is created IN PROGRESS"))
    if refusals or not isinstance(next_state, MPPSState):
        return Change(None, tuple(refusals), (), tuple(notes))
    attributes = {**said, STATUS: {"vr": "CS", "Value": [next_state.value]}}
    performed = PerformedStep(sop_instance_uid, next_state, attributes, calling_ae_title)
    return Change(performed, (), (), tuple(notes))


def amend(held: PerformedStep | None, said: Attributes, rules: Rules) -> Change:
    """N-SET (PS3.4 F.7.2.2): the step with what was said. A sequence is replaced whole. Pure."""
    next_state = TRANSITIONS[Operation.SET, held.state if held else None, requested_status(said)]
    if held is None or next_state is RefusalKind.NO_SUCH_INSTANCE:
        return Change(None, (Refusal(
            RefusalKind.NO_SUCH_INSTANCE, "", "no performed step with this SOP Instance UID is held",
            "send the N-CREATE first",
        ),))  # fmt: skip
    if next_state is RefusalKind.STEP_CLOSED:
        return Change(None, (Refusal(
            RefusalKind.STEP_CLOSED, place(STATUS), f"the performed step is {held.state} and may no longer be updated",
            "continue in a new performed step",
        ),))  # fmt: skip
    refusals: list[Refusal] = []
    notes: list[str] = []
    kept: list[str] = []
    attributes = dict(held.attributes)
    for tag, spoken in said.items():
        row = BY_TAG.get(tag)
        if tag == STATUS:
            continue
        if row is not None and not row.settable:
            if not _same(held.attributes.get(tag), spoken):
                kept.append(tag)
            continue
        if row is not None and row.on_set.endswith("/1") and not _valued(spoken):
            lack = Lack((tag,), row, absent=False)
            if rules.whole_table:
                refusals.append(lack.refusal())
            else:
                notes.append(str(lack))  # nothing usable was said, so what is held stays
            continue
        if row is not None and tag not in held.attributes:
            if rules.no_changes:
                refusals.append(Refusal(
                    RefusalKind.BAD_VALUE, place(tag), "was not created, so it cannot be set",
                    "send it in the N-CREATE, at zero length if nothing is known yet (PS3.4 F.7.2.2.2)",
                ))  # fmt: skip
            else:
                notes.append(f"{place(tag)} was set without having been created")
        attributes[tag] = spoken
    for lack in _lacking(_ON_SET, said):
        if rules.whole_table:
            refusals.append(lack.refusal(RefusalKind.MISSING_VALUE))
        else:
            notes.append(str(lack))
    if kept and rules.no_changes:
        refusals += [
            Refusal(RefusalKind.BAD_VALUE, place(tag), "may not be changed by N-SET", "leave it out (PS3.4 F.7.2.2.2)")
            for tag in kept
        ]
    if next_state is RefusalKind.BAD_VALUE:
        refusals.append(_bad_status("is none of IN PROGRESS, COMPLETED, DISCONTINUED"))
    elif next_state is not MPPSState.IN_PROGRESS:
        for lack in _lacking(_IN_FINAL, attributes):
            if rules.complete_final:  # 0120 is no status of N-SET (PS3.7 10.1.3.1.9), so absent is answered as empty
                refusals.append(lack.refusal(RefusalKind.MISSING_VALUE))
            else:
                notes.append(f"{lack} in a final state")
    if refusals or not isinstance(next_state, MPPSState):
        return Change(None, tuple(dict.fromkeys(refusals)), tuple(kept), tuple(notes))
    attributes[STATUS] = {"vr": "CS", "Value": [next_state.value]}
    performed = replace(held, state=next_state, attributes=attributes)
    return Change(performed, (), tuple(kept), tuple(dict.fromkeys(notes)))


def requested_status(said: Mapping[str, Element]) -> RequestedStatus:
    """What the request says of the status; padding and case are forgiven, since only one thing can be meant."""
    status = _text(said, STATUS).strip().upper()
    try:
        return RequestedStatus(status)
    except ValueError:
        return RequestedStatus.OTHER


def place(*path: str | int) -> str:
    """Tags and item indexes as a refusal names them: `(0040,0270)[0]/(0020,000D)`."""
    parts = [f"[{part}]" if isinstance(part, int) else f"/({part[:4]},{part[4:]})" for part in path]
    return "".join(parts).removeprefix("/")


@dataclass(frozen=True, slots=True)
class Lack:
    """An attribute that a requirement asks for and that is absent or has no value."""

    path: tuple[str | int, ...]
    requirement: Requirement
    absent: bool

    @property
    def essential(self) -> bool:
        """Without these a performed step cannot be told from others or linked to anything."""
        own = len(self.path) == 1 or (len(self.path) == 3 and self.path[0] == SCHEDULED_STEP_ATTRIBUTES)
        return own and self.requirement.on_create == "1/1"

    def refusal(self, kind: RefusalKind | None = None) -> Refusal:
        natural = RefusalKind.MISSING_FIELD if self.absent else RefusalKind.MISSING_VALUE
        text = "is missing" if self.absent else "has no value"
        hint = f"send {self.requirement.keyword} (PS3.4 table F.7.2-1)"
        return Refusal(kind or natural, place(*self.path), text, hint)

    def __str__(self) -> str:
        return f"{place(*self.path)} {'is missing' if self.absent else 'has no value'}"


@dataclass(frozen=True, slots=True)
class _Demand:
    """A requirement that asks for something at one occasion, itself or inside its items."""

    requirement: Requirement
    type_: str
    items: tuple["_Demand", ...]


def _demands(
    rows: Iterable[Requirement], needed: Callable[[Requirement, int], str], depth: int = 0
) -> tuple[_Demand, ...]:
    """The rows that ask for something; without the others a step of thousands of images is judged quickly."""
    demands = (_Demand(row, needed(row, depth), _demands(row.items, needed, depth + 1)) for row in rows)
    return tuple(demand for demand in demands if demand.type_ in ("1", "2") or demand.items)


def _set_type(row: Requirement, depth: int) -> str:
    """The SCU's type inside items; at top level all is optional, and emptiness is judged by the SCP's type."""
    return row.on_set.split("/")[0] if depth and row.settable else "3"


_ON_CREATE = _demands(REQUIREMENTS, lambda row, depth: row.on_create.split("/")[0])
_ON_SET = _demands(REQUIREMENTS, _set_type)
_IN_FINAL = _demands(REQUIREMENTS, lambda row, depth: row.in_final)


def _lacking(
    demands: Iterable[_Demand], attributes: Mapping[str, Element], path: tuple[str | int, ...] = ()
) -> Iterator[Lack]:
    """Every attribute of type 1 without a value or of type 2 that is absent; conditional types are not judged."""
    for demand in demands:
        tag = demand.requirement.tag
        held = attributes.get(tag)
        if held is None:
            if demand.type_ in ("1", "2"):
                yield Lack((*path, tag), demand.requirement, absent=True)
            continue
        if demand.type_ == "1" and not _valued(held):
            yield Lack((*path, tag), demand.requirement, absent=False)
        if demand.items:
            for number, item in enumerate(held.get("Value") or ()):
                if isinstance(item, dict):
                    yield from _lacking(demand.items, item, (*path, tag, number))


def _bad_status(text: str) -> Refusal:
    return Refusal(RefusalKind.BAD_VALUE, place(STATUS), text, "see PS3.4 F.7.2")


def _valued(held: Element) -> bool:
    """Whether there is at least one value; an empty item of a sequence is one."""
    for value in held.get("Value") or ():
        if value is not None and value != "":
            return True
    return bool(held.get("InlineBinary"))


def _text(attributes: Mapping[str, Element], tag: str) -> str:
    """The first value as text without padding, '' where there is none; for attributes that are no person names."""
    found = (attributes.get(tag) or {}).get("Value") or ()
    return str(found[0]).strip() if found and found[0] is not None else ""


def _same(one: Element | None, other: Element | None) -> bool:
    """Whether two elements say the same: padding aside, and an absent element says as little as an empty one."""
    return bool((_plain(one) or None) == (_plain(other) or None))


_NOTHING: tuple[Any, ...] = (None, "", [], {})


def _plain(held: Any) -> Any:
    match held:
        case {"vr": str()}:
            values = [_plain(value) for value in held.get("Value") or ()]
            while values and values[-1] in _NOTHING:
                values.pop()
            return values or held.get("InlineBinary")
        case dict():  # an item, or the component groups of a person name
            parts = {key: _plain(value) for key, value in held.items()}
            return {key: value for key, value in parts.items() if value not in _NOTHING}
        case str():
            return held.strip()
        case _:
            return held


# --- scheduled steps --------------------------------------------------------------------------------------------

REFERENCES_MAX = 64
"""Scheduled steps one performed step may name: far above any real group case, and a bound for what linking costs."""


@dataclass(frozen=True, slots=True)
class StepReference:
    """The keys by which one item of the Scheduled Step Attributes Sequence names a scheduled step; '' if not given."""

    study_instance_uid: str
    sps_id: str
    accession_number: str
    requested_procedure_id: str


def references(attributes: Mapping[str, Element]) -> tuple[StepReference, ...]:
    """The distinct scheduled steps that a performed step names, at most `REFERENCES_MAX`."""
    found: dict[StepReference, None] = {}
    for item in (attributes.get(SCHEDULED_STEP_ATTRIBUTES) or {}).get("Value") or ():
        if not isinstance(item, dict):
            continue
        reference = StepReference(
            _text(item, _STUDY_INSTANCE_UID), _text(item, _SPS_ID), _text(item, _ACCESSION_NUMBER),
            _text(item, _REQUESTED_PROCEDURE_ID),
        )  # fmt: skip
        if any((reference.study_instance_uid, reference.accession_number)):
            found[reference] = None
        if len(found) == REFERENCES_MAX:
            break
    return tuple(found)


class Consequence(Enum):
    """What a discontinuation means for the scheduled step."""

    RETURN = "back on the worklist"
    GIVE_UP = "off the worklist"
    WRONG_ENTRY = "as if this performed step had never been"


@dataclass(frozen=True, slots=True)
class Reason:
    """A DCM code of CID 9300 "Procedure Discontinuation Reason" and what it does here."""

    code: str
    meaning: str
    consequence: Consequence


# Only what says that nobody wants the step any more takes it off the list: an item wrongly kept costs a question, an
# item wrongly gone costs the patient. So a refusal by the patient, who may consent later, returns it as well.
REASONS: tuple[Reason, ...] = (
    Reason("110500", "Doctor canceled procedure", Consequence.GIVE_UP),
    Reason("110501", "Equipment failure", Consequence.RETURN),
    Reason("110502", "Incorrect procedure ordered", Consequence.RETURN),
    Reason("110503", "Patient allergic to media/contrast", Consequence.RETURN),
    Reason("110504", "Patient died", Consequence.GIVE_UP),
    Reason("110505", "Patient refused to continue procedure", Consequence.RETURN),
    Reason("110506", "Patient taken for treatment or surgery", Consequence.RETURN),
    Reason("110507", "Patient did not arrive", Consequence.RETURN),
    Reason("110508", "Patient pregnant", Consequence.RETURN),
    Reason("110509", "Change of procedure for correct charging", Consequence.RETURN),
    Reason("110510", "Duplicate order", Consequence.GIVE_UP),
    Reason("110511", "Nursing unit cancel", Consequence.GIVE_UP),
    Reason("110512", "Incorrect side ordered", Consequence.RETURN),
    Reason("110513", "Discontinued for unspecified reason", Consequence.RETURN),
    Reason("110514", "Incorrect worklist entry selected", Consequence.WRONG_ENTRY),
    Reason("110515", "Patient condition prevented continuing", Consequence.RETURN),
    Reason("110516", "Equipment change", Consequence.RETURN),
    Reason("110521", "Objects incorrectly formatted", Consequence.RETURN),
    Reason("110522", "Object Types not supported", Consequence.RETURN),
    Reason("110523", "Object Set incomplete", Consequence.RETURN),
    Reason("110524", "Media Failure", Consequence.RETURN),
    Reason("110526", "Resource pre-empted", Consequence.RETURN),
    Reason("110527", "Resource inadequate", Consequence.RETURN),
    Reason("110528", "Discontinued Procedure Step rescheduled", Consequence.RETURN),
    Reason("110529", "Discontinued Procedure Step rescheduling recommended", Consequence.RETURN),
    Reason("110530", "Workitem assignment rejected by assigned resource", Consequence.RETURN),
    Reason("110533", "Workitem expired", Consequence.RETURN),
    Reason("113568", "Extravasation visible in image", Consequence.RETURN),
)
_CONSEQUENCES: Mapping[str, Consequence] = {reason.code: reason.consequence for reason in REASONS}


def consequence(performed: PerformedStep) -> Consequence:
    """What the reasons of a discontinued step come to. Any code is accepted; one that is not in `REASONS` returns."""
    sequence = performed.attributes.get(DISCONTINUATION_REASON) or {}
    found = {
        _CONSEQUENCES.get(_text(item, _CODE_VALUE), Consequence.RETURN)
        for item in sequence.get("Value") or ()
        if isinstance(item, dict) and _text(item, _CODING_SCHEME) in ("DCM", "")
    }
    for decisive in (Consequence.WRONG_ENTRY, Consequence.GIVE_UP):
        if decisive in found:
            return decisive
    return Consequence.RETURN


def step_event(changed: PerformedStep, performed: Iterable[PerformedStep]) -> StepEvent | None:
    """What it means for a scheduled step that `changed` has just reached its state; None if nothing.

    `performed` are all performed steps of that scheduled step, with `changed` as it is now or without it. The step runs
    while any of them runs, is complete when the last one ends and any was COMPLETED, and else goes by the reasons of
    the one that ended last. Quarantined ones and those that took the wrong worklist entry count for nothing.
    """
    if changed.quarantined:
        return None
    if changed.state is MPPSState.IN_PROGRESS:
        return StepEvent.PERFORMANCE_STARTED
    others = [other for other in performed if _counts(other) and other.sop_instance_uid != changed.sop_instance_uid]
    if any(other.state is MPPSState.IN_PROGRESS for other in others):
        return None
    if any(one.state is MPPSState.COMPLETED for one in (changed, *others)):
        return StepEvent.PERFORMANCE_COMPLETED
    decisive = [changed] if _counts(changed) else others
    if any(consequence(one) is Consequence.GIVE_UP for one in decisive):
        return StepEvent.PERFORMANCE_GIVEN_UP
    return StepEvent.PERFORMANCE_RETURNED


def _counts(performed: PerformedStep) -> bool:
    wrong = performed.state is MPPSState.DISCONTINUED and consequence(performed) is Consequence.WRONG_ENTRY
    return not performed.quarantined and not wrong
