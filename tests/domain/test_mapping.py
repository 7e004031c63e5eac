"""The mapping engine and its compiler, over a small document of its own: no HL7 here."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from mapping_documents import PlainEntry

from gateway.domain.attributes import TAG, Attributes, text, values
from gateway.domain.catalogue import Catalogue
from gateway.domain.converters import CONVERTERS, Converter
from gateway.domain.identifiers import Identifier, Issuer, Issuers
from gateway.domain.mapping import Mapping, MappingError, MappingResult, compile_mapping
from gateway.domain.order import OrderControl, OrderEvent
from gateway.domain.patient import PatientMerge, PatientUpdate, VisitChange
from gateway.domain.refusal import RefusalKind
from gateway.domain.source import Kind, Path, Repetition
from gateway.domain.tables import compile_table


class SaidEntry(PlainEntry):
    """An entry given as {path of a field: ER7-like text}."""

    def __init__(self, control: OrderControl | None = None, status: str = "", **fields: str) -> None:
        self.control, self.order_status = control, status
        self.fields = {key.replace("_", "-"): value for key, value in fields.items()}
        self.where = self.procedure_where = "entry"

    def place(self, path: Path) -> str:
        return str(path) if any(key.startswith(path.segment) for key in self.fields) else ""

    def joined(self, others: "Sequence[SaidEntry]") -> "SaidEntry":
        joined = SaidEntry(self.control, self.order_status, **self.fields)
        for other in others:
            for key, value in other.fields.items():
                held = joined.fields.get(key, "")
                joined.fields[key] = held if value in held.split("~") else f"{held}~{value}".strip("~")
        return joined


class SaidDocument:
    visit_change = VisitChange.UPDATE
    notes: tuple[str, ...] = ()

    def __init__(self, kind: Kind, *entries: SaidEntry) -> None:
        self.kind, self.entries = kind, entries


IDENTITY: dict[str, Any] = {
    "PatientID": "PID-3",
    "PriorPatientID": "MRG-1",
    "AdmissionID": "PV1-19",
    "PlacerOrderNumberImagingServiceRequest": "ORC-2",
    "FillerOrderNumberImagingServiceRequest": "ORC-3",
    "AccessionNumber": "OBR-18",
    "StudyInstanceUID": "ZDS-1",
    "RequestedProcedureID": "OBR-19",
    "ScheduledProcedureStepID": "OBR-20",
    "ProcedureCode": "OBR-4",
}
STEP = "ScheduledProcedureStepSequence."


def mapping(rules: dict[str, Any] | None = None, *, identity: dict[str, Any] | None = None, **how: Any) -> Mapping:
    source = {"name": "site", "version": "2", "identity": IDENTITY | (identity or {}), "rules": rules or {}}
    return compile_mapping({"site": source}, "site", **how)


def order(**fields: str) -> SaidEntry:
    control = OrderControl(fields.pop("control", "NW"))
    return SaidEntry(control, fields.pop("status", ""), **{"PID_3": "100", "ORC_2": "P1"} | fields)


def mapped(
    rules: dict[str, Any], *entries: SaidEntry, identity: dict[str, Any] | None = None, **how: Any
) -> MappingResult:
    document = SaidDocument(Kind.ORDER, *(entries or (order(),)))
    return mapping(rules, identity=identity, **how).apply(document)


def event(result: MappingResult) -> OrderEvent:
    assert not result.refusals
    (found,) = result.events
    assert isinstance(found, OrderEvent)
    return found


def patient(rules: dict[str, Any], **fields: str) -> Attributes:
    return event(mapped(rules, order(**fields))).patient.attributes


def problems(rules: dict[str, Any] | None = None, **how: Any) -> list[tuple[str, str]]:
    with pytest.raises(MappingError) as raised:
        mapping(rules, **how)
    return [(problem.path, problem.hint) for problem in raised.value.problems]


# ---- rules ----


def test_first_path_that_has_a_value_wins() -> None:
    rule = {"PatientComments": {"from": ["PID-1", "PID-2", "PID-4"]}}
    assert text(patient(rule, PID_2="second", PID_4="third"), "PatientComments") == "second"


def test_silence_gives_no_element_and_null_a_zero_length_one() -> None:
    rule = {"PatientComments": "PID-2"}
    assert TAG["PatientComments"] not in patient(rule)
    assert patient(rule, PID_2='""')[TAG["PatientComments"]] == {"vr": "LT"}


def test_null_of_a_type_1_attribute_is_refused() -> None:
    (refusal,) = mapped({"PatientName": {"from": "PID-5", "convert": "xpn"}}, order(PID_5='""')).refusals
    assert (refusal.kind, refusal.where) == (RefusalKind.MISSING_VALUE, "PID-5")


def test_repetitions_first_all_and_join() -> None:
    entry = {"PID_2": "a~b~a"}
    assert values(patient({"Allergies": {"from": "PID-2"}}, **entry), "Allergies") == ["a"]
    assert values(patient({"Allergies": {"from": "PID-2", "repeat": "all"}}, **entry), "Allergies") == ["a", "b"]
    assert values(patient({"Allergies": {"from": "PID-2", "repeat": "join"}}, **entry), "Allergies") == ["a; b"]
    assert values(patient({"PatientComments": {"from": "PID-2", "repeat": "join"}}, **entry), "PatientComments") == [
        "a\r\nb"
    ]


def test_alternatives_conditions_and_constants() -> None:
    rule = {
        STEP + "Modality": [
            {"from": "OBR-24"},
            {"value": "MR", "when": {"MSH-3": ["MRRIS", "OTHER"]}},
            {"value": "CT", "when": {"MSH-3": "*"}},
            {"value": "OT", "when": {"MSH-3": ""}},
        ]
    }

    def modality(**fields: str) -> str:
        return text(event(mapped(rule, order(**fields))).procedures[0].steps[0].attributes, "Modality")

    assert modality(OBR_24="us", MSH_3="MRRIS") == "US"
    assert modality(MSH_3="mrris") == "MR"
    assert modality(MSH_3="X") == "CT"
    assert modality() == "OT"


def test_missing_policies_default_and_refuse() -> None:
    rules: dict[str, Any] = {
        "Occupation": {"from": "PID-2", "missing": {"default": "unknown"}},
        "PatientName": {"from": "PID-5", "convert": "xpn", "missing": "refuse"},
    }
    result = mapped(rules)
    assert [(refusal.kind, refusal.where) for refusal in result.refusals] == [(RefusalKind.MISSING_FIELD, "PID-5")]
    assert text(patient(rules, PID_5="Doe^Jane"), "Occupation") == "unknown"


def test_cut_is_noted_and_refusals_are_told_together() -> None:
    rules: dict[str, Any] = {
        "PatientAddress": {"from": "PID-11", "length": "cut"},
        "Occupation": {"from": "PID-2"},
        "PatientBirthDate": {"from": "PID-7"},
    }
    cut = mapped(rules, order(PID_11="x" * 70))
    assert cut.notes == ("PID-11: PatientAddress: cut to 64 characters",)
    refused = mapped(rules, order(PID_2="x" * 17, PID_7="20269999"))
    assert not refused.events
    assert [(refusal.kind, refusal.where) for refusal in refused.refusals] == [
        (RefusalKind.TOO_LONG, "PID-2"),
        (RefusalKind.BAD_VALUE, "PID-7.1"),
    ]


def test_what_is_wrong_with_one_field_is_told_once() -> None:
    rules = {STEP + "ScheduledProcedureStepStartDate": "TQ1-7", STEP + "ScheduledProcedureStepStartTime": "TQ1-7"}
    assert len(mapped(rules, order(TQ1_7="tomorrow")).refusals) == 1


def test_unit_and_selection_of_an_observation() -> None:
    rule = {"PatientWeight": {"from": "OBX-5", "select": {"OBX-3": ["29463-7"]}, "with": "OBX-6", "convert": "weight"}}
    assert values(patient(rule, OBX_3="29463-7", OBX_5="70", OBX_6="kg"), "PatientWeight") == [70.0]
    assert TAG["PatientWeight"] not in patient(rule, OBX_3="other", OBX_5="70", OBX_6="kg")


def test_tables_are_looked_up_by_name() -> None:
    tables = {"sex": compile_table("sex", [{"code": "w", "value": "F"}])}
    rule = {"PatientSex": {"from": "PID-8", "convert": {"table": "sex"}}}
    assert text(event(mapped(rule, order(PID_8="W"), tables=tables)).patient.attributes, "PatientSex") == "F"
    (refusal,) = mapped(rule, order(PID_8="Q"), tables=tables).refusals
    assert (refusal.kind, refusal.where) == (RefusalKind.UNKNOWN_CODE, "PID-8.1")


def test_site_converter_is_used_by_name() -> None:
    def reversed_text(repetition: Repetition, setting: object) -> str:
        """The text backwards."""
        return repetition[0][0][::-1]

    own = {"backwards": Converter("backwards", reversed_text, frozenset({"LO"}))}
    rule = {"Allergies": {"from": "PID-2", "convert": "backwards"}}
    assert text(event(mapped(rule, order(PID_2="abc"), converters=own)).patient.attributes, "Allergies") == "cba"


# ---- keys ----


def test_issuers_are_resolved_with_the_listeners_default() -> None:
    issuers = Issuers([Issuer("hospital", frozenset({"HOSPA"}), frozenset({"1.2.3"}))])
    document = SaidDocument(Kind.ORDER, order(PID_3="100^^^&1.2.3&ISO~7^^^OTHER", ORC_2="P1", OBR_18="A1^HOSPA"))
    found = event(mapping(issuers=issuers).apply(document, default_issuer="HOSPA"))
    assert found.patient.identifiers == (Identifier("100", "hospital"), Identifier("7", "OTHER"))
    assert found.placer == Identifier("P1", "hospital")
    assert found.procedures[0].accession == Identifier("A1", "hospital")


def test_preferred_authority_makes_the_primary_identifier() -> None:
    result = mapped({}, order(PID_3="1^^^A~2^^^B"), identity={"PatientID": {"from": "PID-3", "prefer": "B"}})
    attributes = event(result).patient.attributes
    assert text(attributes, "PatientID") == "2"
    assert text(attributes, "IssuerOfPatientID") == "B"
    assert [text(item, "PatientID") for item in values(attributes, "OtherPatientIDsSequence")] == ["1"]


def test_identifier_without_authority_makes_no_issuer_sequence() -> None:
    found = event(mapped({}, order(OBR_18="A1")))
    assert TAG["OrderPlacerIdentifierSequence"] not in found.attributes
    assert TAG["IssuerOfAccessionNumberSequence"] not in found.procedures[0].attributes


@pytest.mark.parametrize(
    ("fields", "kind", "where"),
    [
        ({"OBR_18": "A" * 17}, RefusalKind.TOO_LONG, "OBR-18.1"),
        ({"ZDS_1": "1.02"}, RefusalKind.BAD_VALUE, "ZDS-1.1"),
        ({"PID_3": ""}, RefusalKind.MISSING_FIELD, "PID-3"),
        ({"PID_3": '""'}, RefusalKind.MISSING_VALUE, "PID-3"),
        ({"ORC_2": ""}, RefusalKind.MISSING_FIELD, "ORC-2"),
    ],
)
def test_unusable_keys_are_refused_in_place(fields: dict[str, str], kind: RefusalKind, where: str) -> None:
    (refusal,) = mapped({}, order(**fields)).refusals
    assert (refusal.kind, refusal.where) == (kind, where)


def test_policies_travel_with_the_event() -> None:
    identity = {
        "StudyInstanceUID": {"from": "ZDS-1", "missing": "refuse"},
        "AccessionNumber": {"from": "OBR-18", "missing": {"derive": "PlacerOrderNumberImagingServiceRequest"}},
    }
    policies = event(mapped({}, order(ZDS_1=""), identity=identity)).policies
    assert (policies["StudyInstanceUID"].action, policies["StudyInstanceUID"].where) == ("refuse", "ZDS-1")
    assert policies["AccessionNumber"].source == "PlacerOrderNumberImagingServiceRequest"
    assert policies["RequestedProcedureID"].action == "generate"


def test_derived_accession_number_has_to_fit() -> None:
    identity = {"AccessionNumber": {"from": "OBR-18", "missing": {"derive": "PlacerOrderNumberImagingServiceRequest"}}}
    (refusal,) = mapped({}, order(ORC_2="P" * 20), identity=identity).refusals
    assert (refusal.kind, refusal.where) == (RefusalKind.TOO_LONG, "ORC-2.1")
    assert not mapped({}, order(ORC_2="P" * 20, OBR_18="A1"), identity=identity).refusals


# ---- grouping ----


def shape(result: MappingResult) -> list[tuple[str, list[list[str]]]]:
    """Order number -> procedures -> step IDs."""
    assert not result.refusals
    return [
        (
            found.placer.value if found.placer else "",
            [[step.sps_id for step in said.steps] for said in found.procedures],
        )
        for found in result.events
        if isinstance(found, OrderEvent)
    ]


def test_entries_of_one_study_and_step_are_one_step_with_several_codes() -> None:
    rule = {STEP + "ScheduledProtocolCodeSequence": {"from": "OBR-4", "convert": "code", "repeat": "all"}}
    result = mapped(
        rule, order(ZDS_1="1.2.3", OBR_20="S1", OBR_4="A^a^99X"), order(ZDS_1="1.2.3", OBR_20="S1", OBR_4="B^b^99X")
    )
    assert shape(result) == [("P1", [["S1"]])]
    codes = values(event(result).procedures[0].steps[0].attributes, "ScheduledProtocolCodeSequence")
    assert [text(item, "CodeValue") for item in codes] == ["A", "B"]


def test_order_numbers_make_orders_and_studies_make_procedures() -> None:
    result = mapped(
        {},
        order(ORC_2="P1", ZDS_1="1.2.1", OBR_20="S1"),
        order(ORC_2="P1", ZDS_1="1.2.2", OBR_20="S2"),
        order(ORC_2="P2", ZDS_1="1.2.3", OBR_20="S3"),
    )
    assert shape(result) == [("P1", [["S1"], ["S2"]]), ("P2", [["S3"]])]


def test_without_a_study_accession_and_procedure_id_make_procedures() -> None:
    result = mapped(
        {},
        order(OBR_18="A1", OBR_19="R1", OBR_20="S1"),
        order(OBR_18="A1", OBR_19="R1", OBR_20="S2"),
        order(OBR_18="A1", OBR_19="R2", OBR_20="S3"),
    )
    assert shape(result) == [("P1", [["S1", "S2"], ["S3"]])]


def test_without_any_key_procedure_codes_make_procedures() -> None:
    result = mapped({}, order(OBR_4="A"), order(OBR_4="B"), order(OBR_4="A"))
    assert shape(result) == [("P1", [["", ""], [""]])]


def test_one_study_in_two_orders_or_with_two_accessions_is_refused() -> None:
    two_orders = mapped({}, order(ORC_2="P1", ZDS_1="1.2.3"), order(ORC_2="P2", ZDS_1="1.2.3"))
    two_accessions = mapped({}, order(ZDS_1="1.2.3", OBR_18="A1"), order(ZDS_1="1.2.3", OBR_18="A2"))
    assert [refusal.kind for refusal in two_orders.refusals] == [RefusalKind.DUPLICATE_KEY]
    assert [(refusal.kind, refusal.where) for refusal in two_accessions.refusals] == [
        (RefusalKind.DUPLICATE_KEY, "OBR-18")
    ]


def test_different_controls_of_one_order_are_events_in_turn() -> None:
    result = mapped({}, order(control="CA"), order(control="NW", ZDS_1="1.2.3"))
    assert [found.control for found in result.events if isinstance(found, OrderEvent)] == ["CA", "NW"]


def test_cancel_takes_keys_only_and_no_bad_value_stops_it() -> None:
    rules = {"PatientBirthDate": {"from": "PID-7", "missing": "refuse"}, STEP + "Modality": "OBR-24"}
    found = event(mapped(rules, order(control="CA", PID_7="never", OBR_24="?", ZDS_1="1.2.3")))
    assert found.procedures[0].study_instance_uid == "1.2.3"
    assert found.procedures[0].steps == ()
    assert found.visit is None


def test_status_of_the_order_names_no_step() -> None:
    assert (
        event(mapped({STEP + "Modality": "OBR-24"}, order(control="SC", status="CM", OBR_24="CT"))).procedures[0].steps
        == ()
    )


# ---- the catalogue ----

ROWS = [
    {
        "code": "CT1",
        "scheme": "99P",
        "description": "CT",
        "modality": "CT",
        "station_ae_titles": "CT1 CT2",
        "duration_min": "90",
    },
    {"code": "TWO", "scheme": "99P", "description": "Two", "modality": "MG", "step": "1", "station_ae_titles": "MG1"},
    {"code": "TWO", "scheme": "99P", "modality": "US", "step": "2", "station_ae_titles": "US1"},
]
CATALOGUED: dict[str, Any] = {
    "RequestedProcedureDescription": {"from": "OBR-4.2", "missing": "catalogue"},
    STEP + "Modality": {"from": "OBR-24", "missing": "catalogue"},
    STEP + "ScheduledStationAETitle": {"from": "ORC-18", "repeat": "all", "missing": "catalogue"},
    STEP + "ScheduledProcedureStepStartDate": "TQ1-7",
    STEP + "ScheduledProcedureStepStartTime": {"from": "TQ1-7", "convert": "start-time"},
    STEP + "ScheduledProcedureStepEndDate": {"missing": "catalogue"},
    STEP + "ScheduledProcedureStepEndTime": {"missing": "catalogue"},
}


def catalogued(*entries: SaidEntry) -> OrderEvent:
    """The order with what the catalogue gave among its attributes, as on an empty store."""
    made = event(mapped(CATALOGUED, *entries, catalogue=Catalogue.compile(ROWS)))
    return replace(made, procedures=tuple(replace(_completed(each), steps=tuple(map(_completed, each.steps)))
                                          for each in made.procedures))  # fmt: skip


def _completed(said):
    return replace(said, attributes={**said.defaults, **said.attributes}, defaults={})


def test_bare_code_is_completed_with_every_station() -> None:
    (procedure,) = catalogued(order(OBR_4="CT1", TQ1_7="20261231233000")).procedures
    (step,) = procedure.steps
    assert text(procedure.attributes, "RequestedProcedureDescription") == "CT"
    assert values(step.attributes, "ScheduledStationAETitle") == ["CT1", "CT2"]
    assert text(step.attributes, "ScheduledProcedureStepEndDate") == "20270101"
    assert text(step.attributes, "ScheduledProcedureStepEndTime") == "010000"


def test_a_step_on_the_last_day_there_is_has_no_end_beyond_it() -> None:
    (procedure,) = catalogued(order(OBR_4="CT1", TQ1_7="99991231233000")).procedures
    (step,) = procedure.steps
    assert text(step.attributes, "ScheduledProcedureStepStartDate") == "99991231"
    assert TAG["ScheduledProcedureStepEndDate"] not in step.attributes
    assert TAG["ScheduledProcedureStepEndTime"] not in step.attributes


def test_what_the_order_says_is_never_overridden() -> None:
    (procedure,) = catalogued(order(OBR_4="CT1^Own words", ORC_18="CT9", OBR_24="CT")).procedures
    assert text(procedure.attributes, "RequestedProcedureDescription") == "Own words"
    assert values(procedure.steps[0].attributes, "ScheduledStationAETitle") == ["CT9"]


def test_other_modality_than_the_catalogues_is_not_filled() -> None:
    (procedure,) = catalogued(order(OBR_4="CT1", OBR_24="MR")).procedures
    assert TAG["ScheduledStationAETitle"] not in procedure.steps[0].attributes


def test_unnumbered_order_gets_the_catalogues_steps() -> None:
    (procedure,) = catalogued(order(OBR_4="TWO")).procedures
    assert [text(step.attributes, "Modality") for step in procedure.steps] == ["MG", "US"]
    assert [step.sps_id for step in procedure.steps] == ["", ""]


def test_order_that_names_a_modality_gets_the_fitting_step() -> None:
    (procedure,) = catalogued(order(OBR_4="TWO", OBR_24="US")).procedures
    assert [values(step.attributes, "ScheduledStationAETitle") for step in procedure.steps] == [["US1"]]


def test_numbered_steps_meet_the_catalogues_by_position() -> None:
    (procedure,) = catalogued(
        order(OBR_4="TWO", ZDS_1="1.2", OBR_20="S1"), order(OBR_4="TWO", ZDS_1="1.2", OBR_20="S2")
    ).procedures
    assert [(step.sps_id, text(step.attributes, "Modality")) for step in procedure.steps] == [
        ("S1", "MG"),
        ("S2", "US"),
    ]


def test_order_that_says_all_itself_needs_no_catalogue() -> None:
    (procedure,) = catalogued(order(OBR_4="UNHEARD", OBR_24="CT", ORC_18="CT9", TQ1_7="202607050800")).procedures
    assert text(procedure.steps[0].attributes, "Modality") == "CT"


# ---- patients ----


def test_update_notes_the_visit_only_if_there_is_one() -> None:
    rules = {"CurrentPatientLocation": {"from": "PV1-3", "convert": "location"}}
    engine = mapping(rules)

    def update(**fields: str) -> PatientUpdate:
        (found,) = engine.apply(SaidDocument(Kind.PATIENT_UPDATE, SaidEntry(None, "", PID_3="100", **fields))).events
        assert isinstance(found, PatientUpdate)
        return found

    assert update().visit is None
    unnumbered = update(PV1_3="W1").visit
    assert unnumbered is not None
    assert unnumbered.number is None
    numbered = update(PV1_19="V1").visit
    assert numbered is not None
    assert numbered.number == Identifier("V1")


def merged(**fields: str) -> MappingResult:
    return mapping({"PatientName": {"from": "PID-5", "convert": "xpn", "missing": "refuse"}}).apply(
        SaidDocument(Kind.PATIENT_MERGE, SaidEntry(None, "", **fields))
    )


def test_merge_takes_away_what_the_survivor_does_not_bear() -> None:
    (found,) = merged(PID_3="200~4711", MRG_1="100~4711").events
    assert isinstance(found, PatientMerge)
    assert found.prior == (Identifier("100"),)


def test_merge_of_an_identifier_with_itself_is_a_duplicate_key() -> None:
    (refusal,) = merged(PID_3="200", MRG_1="200").refusals
    assert (refusal.kind, refusal.where) == (RefusalKind.DUPLICATE_KEY, "MRG-1")


# ---- trace ----


def test_trace_tells_source_rule_converter_and_value_and_costs_nothing_unasked() -> None:
    engine = mapping(
        {"PatientName": {"from": "PID-5", "convert": "xpn"}, **CATALOGUED}, catalogue=Catalogue.compile(ROWS)
    )
    document = SaidDocument(Kind.ORDER, order(PID_5="Doe^Jane", OBR_4="CT1"))
    assert engine.apply(document).trace == ()
    trace = {entry.target: entry for entry in engine.apply(document, trace=True).trace}
    name = trace["PatientName"]
    assert (name.where, name.raw, name.rule, name.converter) == ("PID-5", "Doe^Jane", "site: rules.PatientName", "xpn")
    assert trace[STEP + "Modality"].rule == "procedure catalogue: CT1, line 2"
    assert trace[STEP + "Modality"].subject == "order 1, procedure 1, step 1"
    assert trace["StudyInstanceUID"].converter == "missing: generate"
    assert engine.apply(document, trace=True).events == engine.apply(document).events


# ---- compiling ----


def test_every_mistake_of_a_rule_set_is_told_with_a_hint() -> None:
    found = problems({
        "PatientNam": "PID-5",
        "PatientName": {"from": "PID-5", "convert": "xpm"},
        "PatientSex": {"from": "PDI-8"},
        "Modality": "OBR-24",
        STEP + "RequestedProcedureID": "OBR-19",
        "PatientBirthDate": {"from": "PID-7", "convert": "xpn"},
        "Allergies": {"from": "AL1-3", "repeat": "every"},
        "PatientAddress": {"from": "PID-11", "convert": {"table": "nowhere"}},
        "PatientComments": {"form": "PID-1"},
        "Occupation": {"from": "PID-1", "missing": "generate"},
        "PatientWeight": {"from": "OBX-5", "convert": "weight"},
        "AdmittingDate": {"from": "PV1-44", "length": "cut"},
    })  # fmt: skip
    told = dict(found)
    assert told["rules.PatientNam"] == "did you mean PatientName?"
    assert told["rules.PatientName.convert"].startswith("did you mean xpn")
    assert told["rules.Modality"] == f"write {STEP}Modality"
    assert told["rules.PatientComments.form"] == "did you mean from?"
    assert {path for path, _ in found} >= {
        "rules.PatientSex.from", f"rules.{STEP}RequestedProcedureID", "rules.PatientBirthDate.convert",
        "rules.Allergies.repeat", "rules.PatientAddress.convert.table", "rules.Occupation.missing",
        "rules.PatientWeight.with", "rules.AdmittingDate.length",
    }  # fmt: skip


def test_mistakes_of_identity_are_told() -> None:
    told = dict(problems(identity={
        "PatientId": "PID-3",
        "StudyInstanceUID": {"from": "ZDS-1", "missing": "omit"},
        "AccessionNumber": {"from": "OBR-18", "missing": {"derive": "StudyUID"}},
        "AdmissionID": {"from": "PV1-19", "missing": "generate"},
    }))  # fmt: skip
    assert told["identity.PatientId"] == "did you mean PatientID?"
    assert set(told) == {
        "identity.PatientId", "identity.StudyInstanceUID.missing", "identity.AccessionNumber.missing.derive",
        "identity.AdmissionID.missing",
    }  # fmt: skip


def test_overlay_replaces_and_removes_rule_by_rule() -> None:
    base = {"identity": IDENTITY, "rules": {"PatientComments": "PID-1", "Occupation": "PID-2", "EthnicGroup": "PID-4"}}
    overlay = {"extends": "base", "rules": {"PatientComments": "PID-6", "Occupation": None}}
    engine = compile_mapping({"base": base, "site": overlay}, "site")
    document = SaidDocument(Kind.ORDER, order(PID_1="a", PID_2="b", PID_4="c", PID_6="d"))
    attributes = event(engine.apply(document)).patient.attributes
    assert text(attributes, "PatientComments") == "d"
    assert TAG["Occupation"] not in attributes
    assert text(attributes, "EthnicGroup") == "c"


def test_unknown_or_circular_base_is_told() -> None:
    with pytest.raises(MappingError, match="did you mean base"):
        compile_mapping({"site": {"extends": "bases"}, "base": {}}, "site")
    with pytest.raises(MappingError, match="circle"):
        compile_mapping({"a": {"extends": "b"}, "b": {"extends": "a"}}, "a")


def test_problems_carry_the_line_of_the_file() -> None:
    with pytest.raises(MappingError) as raised:
        mapping({"PatientNam": "PID-5"}, line_of=lambda name, path: 7 if path == ("rules", "PatientNam") else None)
    assert raised.value.problems[0].where == "site:7 rules.PatientNam"


def test_version_id_follows_rules_tables_and_catalogue() -> None:
    plain = mapping({"PatientComments": "PID-1"})
    assert plain.version_id.startswith("site@2+")
    others = [
        mapping({"PatientComments": "PID-2"}),
        mapping({"PatientComments": "PID-1"}, tables={"x": {"A": "B"}}),
        mapping({"PatientComments": "PID-1"}, catalogue=Catalogue.compile(ROWS)),
    ]
    assert mapping({"PatientComments": "PID-1"}).version_id == plain.version_id
    assert len({plain.version_id, *(other.version_id for other in others)}) == 4


def test_code_tables_tell_double_and_empty_codes() -> None:
    with pytest.raises(MappingError) as raised:
        compile_table("sex", [{"code": "F", "value": "F"}, {"code": "f", "value": "M"}, {"code": "", "value": "M"}])
    assert [problem.line for problem in raised.value.problems] == [3, 4]


def test_closed_table_of_converters_is_what_rules_may_name() -> None:
    assert {"xpn", "xcn", "code", "birth-date", "ae-title", "uid"} <= set(CONVERTERS)
