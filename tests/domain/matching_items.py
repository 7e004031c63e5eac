"""Keys and items for the tests of matching, said by keyword; the four items of the worklist digest."""

from typing import Any

from gateway.domain.attributes import BY_KEYWORD, SPS_SEQUENCE, TAG, Attributes, element, person_name_value


def attributes(**said: Any) -> Attributes:
    """Attributes by keyword: a value, a list of values, or None for a zero-length element; names as text."""
    made: Attributes = {}
    for keyword, value in said.items():
        several = value if isinstance(value, list) else [] if value is None else [value]
        if BY_KEYWORD[keyword].vr == "PN":
            several = [person_name_value(name) for name in several]
        made[TAG[keyword]] = element(keyword, *several)
    return made


def within_step(step: Attributes, **top: Any) -> Attributes:
    return {**attributes(**top), SPS_SEQUENCE: element("ScheduledProcedureStepSequence", step)}


def start(date: str | None, time: str | None, **more: Any) -> Attributes:
    return attributes(ScheduledProcedureStepStartDate=date, ScheduledProcedureStepStartTime=time, **more)


def item(ae: Any, modality: str, date: str, time: str, name: str, patient_id: str, accession: str | None) -> Attributes:
    step = start(date, time, ScheduledStationAETitle=ae, Modality=modality, ScheduledPerformingPhysicianName=None)
    return within_step(step, PatientName=name, PatientID=patient_id, AccessionNumber=accession)


ITEMS = {
    "S1": item("CT1", "CT", "20260705", "0930", "Doe^Jane", "100", "A1"),
    "S2": item("CT1", "CT", "20260705", "1830", "Döring^Max", "101", "A2"),
    "S3": item(["MR1", "MR2"], "MR", "20260706", "0700", "Yamada^Tarou=山田^太郎=やまだ^たろう", "102", "A3"),
    "S4": item("US1", "US", "20260708", "0800", "Doe^John", "103", None),
}
