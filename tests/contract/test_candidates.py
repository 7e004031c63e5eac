"""The store narrows: it never hides what the matcher would show, keeps the order of starts, and uses its indexes."""

import itertools
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_department import NOW, attributes, order, patient, procedure, step

from gateway.domain.attributes import SPS_SEQUENCE, text
from gateway.domain.matching import MatchingRules, Narrowing, compile_query
from gateway.domain.visibility import View
from gateway.domain.worklist import LISTED, SPSStatus, WorklistItem, start_of
from gateway.edges import statements
from gateway.edges.schema import metadata
from gateway.edges.store import Store
from gateway.edges.store_reader import ITEMS_CHUNK, shape_of

NAMES = ("Müller^Anna", "MULLER^Bert", "Mu^Li=木^李", "Doe^Jane", "Do^Chi", "Östman^Åke", "Sample^Paula")
STATIONS = ("CT1", "CT2", "MR1")
DAYS = ("20261122", "20261123", "20261124")
TIMES = ("000000", "083000", "235959")
STATUSES = tuple(SPSStatus)
SITES = ("", "NORTH", "SOUTH", "EAST")


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Sixty items in every mixture of person, station, start, modality, status, site; some have two stations."""

    def populate(unit):
        people = [unit.save_patient(patient(number, name), NOW) for number, name in enumerate(NAMES)]
        slots = itertools.cycle(itertools.product(DAYS, TIMES))
        for number in range(60):
            stations = ("CT1", "MR1") if number % 7 == 0 else (STATIONS[number % 3],)
            day, time = next(slots)
            part = step(
                number,
                1,
                stations,
                day + time,
                "MR" if "MR1" in stations else "CT",
                STATUSES[number * 5 % len(STATUSES)],
            )
            procedures = (procedure(number, (part,)),)
            person, site = people[number % len(people)], SITES[number // 7 % len(SITES)]
            unit.save_order(order(person, number, procedures=procedures, site=site), "NW", NOW)

    with Store(f"sqlite:///{tmp_path_factory.mktemp('department') / 'gateway.db'}") as store:
        store.write(populate).result(timeout=30)
        yield store


@pytest.fixture(scope="module")
def everything(department: Store) -> dict[int, WorklistItem]:
    """All of its items by step id."""
    refs = department.reader.candidates(Narrowing(statuses=frozenset(SPSStatus)))
    return {item.step_id: item for item in department.reader.items(step_id for step_id, _ in refs)}


_keys = st.fixed_dictionaries(
    {},
    optional={
        "PatientName": st.sampled_from(
            [
                "Mul*",
                "müller",
                "m*",
                "DOE^J*",
                "木*",
                "*",
                "?oe*",
                "Do",
                "nobody",
                "O*",
                "Mueller",
                "Jayne^Doe",
                "Ostmen",
                '""',
            ]
        ),
        "PatientID": st.sampled_from(["P1", "P2 ", "P*", "p1", "P99", '""']),
        "AccessionNumber": st.sampled_from(["A3", " A10", "A1*", "B1"]),
        "RequestedProcedureID": st.sampled_from(["R3", "R10", "R?"]),
        "StudyInstanceUID": st.sampled_from([["2.25.3"], ["2.25.3", "2.25.10", "2.25.11"], ["1.2"]]),
        "TimezoneOffsetFromUTC": st.sampled_from(["+0000", "+1400", "-1200"]),
    },
)
_step_keys = st.fixed_dictionaries(
    {},
    optional={
        "ScheduledStationAETitle": st.sampled_from(["CT1", "MR1", " CT2 ", "CT*", "XX", '""']),
        "ScheduledProcedureStepStartDate": st.sampled_from(
            ["20261123", "20261122-20261123", "20261123-", "-20261123", "20270101"]
        ),
        "ScheduledProcedureStepStartTime": st.sampled_from(["0830", "000000-083000", "-0831", "08-"]),
        "Modality": st.sampled_from(["CT", "MR", "U*"]),
        "ScheduledProcedureStepID": st.sampled_from(["S3.1", "S10.1", "S1*"]),
        "ScheduledProcedureStepStatus": st.sampled_from(["SCHEDULED", "STARTED", "S*", "COMPLETED"]),
    },
)
_rules = st.builds(
    MatchingRules,
    fuzzy_names=st.booleans(),
    zone=st.just(ZoneInfo("Europe/Berlin")),
    empty_values=st.booleans(),
    whole_names=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(keys=_keys, step_keys=_step_keys, rules=_rules)
def test_narrowing_never_hides_a_match(department, everything, keys, step_keys, rules):
    asked = {keyword: {"Alphabetic": value} if keyword == "PatientName" else value for keyword, value in keys.items()}
    identifier = attributes(**asked) | {SPS_SEQUENCE: {"vr": "SQ", "Value": [attributes(**step_keys)]}}
    query = compile_query(identifier, rules)
    narrowing = query.narrowing()
    shown = set(dict(department.reader.candidates(narrowing)))
    for item in everything.values():
        if item.status in LISTED and query.matches(item.attributes, item.status):
            assert item.step_id in shown


_views = st.builds(
    View,
    statuses=st.sampled_from([LISTED, LISTED - {SPSStatus.STARTED}]),
    sites=st.none() | st.sets(st.sampled_from(SITES)).map(frozenset),
    stations=st.none() | st.sets(st.sampled_from(STATIONS)).map(frozenset),
    modalities=st.none() | st.sets(st.sampled_from(["CT", "MR"])).map(frozenset),
    days=st.sampled_from([("", ""), ("20261123", "20261123"), ("20261122", "20261123")]),
)


@settings(max_examples=300, deadline=None)
@given(step_keys=_step_keys, view=_views)
def test_narrowing_within_a_view_never_hides_what_the_caller_may_see(department, everything, step_keys, view):
    asked = compile_query({SPS_SEQUENCE: {"vr": "SQ", "Value": [attributes(**step_keys)]}}).narrowing()
    shown = set(dict(department.reader.candidates(view.narrow(asked))))
    whole = set(dict(department.reader.candidates(asked)))
    assert shown <= whole
    for step_id in whole - shown:
        assert not view.admits(everything[step_id], asked)


_narrowings = st.builds(
    Narrowing,
    station_ae_titles=st.sets(st.sampled_from([*STATIONS, "XX"])).map(frozenset),
    start_from=st.sampled_from(["", "20261123000000", "20261123083000"]),
    start_to=st.sampled_from(["", "20261123235959", "20261122000000"]),
    modality=st.sampled_from(["", "CT", "MR"]),
    patient_id=st.sampled_from(["", "P1", "P99"]),
    patient_name_prefix=st.sampled_from(["", "m", "mul", "muller^anna", "木", "doe"]),
    accession_number=st.sampled_from(["", "A8", "A99"]),
    requested_procedure_id=st.sampled_from(["", "R8"]),
    study_instance_uids=st.sets(st.sampled_from(["2.25.8", "2.25.9", "2.25.10"])).map(frozenset),
    sps_id=st.sampled_from(["", "S8.1"]),
    sites=st.sets(st.sampled_from([*SITES, "WEST"])).map(frozenset),
    statuses=st.sets(st.sampled_from(STATUSES)).map(frozenset) | st.just(LISTED) | st.just(frozenset(SPSStatus)),
)


def _within(narrowing, item):
    """What the bounds say, in plain words."""
    start = start_of(item.step)
    name = item.attributes["00100010"]["Value"][0]
    folded = [group.lower().replace("ü", "u").replace("ö", "o") for group in name.values()]
    stations = set(item.step["00400001"]["Value"])
    return all([
        not narrowing.station_ae_titles or stations & narrowing.station_ae_titles,
        start >= narrowing.start_from,
        not narrowing.start_to or start <= narrowing.start_to,
        narrowing.modality in ("", text(item.step, "Modality")),
        narrowing.patient_id in ("", text(item.attributes, "PatientID")),
        any(group.startswith(narrowing.patient_name_prefix) for group in folded),
        narrowing.accession_number in ("", text(item.attributes, "AccessionNumber")),
        narrowing.requested_procedure_id in ("", text(item.attributes, "RequestedProcedureID")),
        not narrowing.study_instance_uids
        or text(item.attributes, "StudyInstanceUID") in narrowing.study_instance_uids,
        narrowing.sps_id in ("", text(item.step, "ScheduledProcedureStepID")),
        not narrowing.sites or item.site in narrowing.sites,
        item.status in narrowing.statuses,
    ])  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(narrowing=_narrowings)
def test_candidates_are_exactly_what_the_bounds_say_by_start_then_step(department, everything, narrowing):
    found = [step_id for step_id, _ in department.reader.candidates(narrowing)]
    expected = [step_id for step_id, item in everything.items() if _within(narrowing, item)]
    assert found == sorted(expected, key=lambda step_id: (start_of(everything[step_id].step), step_id))


def test_stations_beyond_the_longest_list_do_not_narrow(department):
    many = frozenset(f"AE{number}" for number in range(statements.LIST_LENGTHS[-1] + 1))
    unbounded = department.reader.candidates(Narrowing())
    assert department.reader.candidates(Narrowing(station_ae_titles=many)) == unbounded
    assert department.reader.candidates(Narrowing(station_ae_titles=frozenset(list(many)[:-1]))) == []


def test_no_status_wanted_is_nothing_found(department):
    assert department.reader.candidates(Narrowing(statuses=frozenset())) == ()


def test_items_are_fetched_in_chunks_and_come_whole(department):
    one = department.reader.candidates(Narrowing())[0][0]
    assert len(department.reader.items([one] * (2 * ITEMS_CHUNK + 1))) == 2 * ITEMS_CHUNK + 1


# --- plans

_DAY = {"start_from": "20261123000000", "start_to": "20261123235959"}
_PLANS = [
    (Narrowing(station_ae_titles=frozenset({"CT1"}), **_DAY),
     "step_stations USING COVERING INDEX step_stations_by_station "
     "(ae_title=? AND listed=? AND start_local>? AND start_local<?)"),
    (Narrowing(station_ae_titles=frozenset({"CT1"}), modality="CT", patient_name_prefix="mul", sps_id="S1", **_DAY),
     "step_stations USING COVERING INDEX step_stations_by_station (ae_title=? AND listed=? AND start_local>?"),
    (Narrowing(station_ae_titles=frozenset({"CT1", "CT2", "MR1"}), **_DAY),
     "step_stations USING COVERING INDEX step_stations_by_station (ae_title=? AND listed=? AND start_local>?"),
    (Narrowing(sites=frozenset({"NORTH", "SOUTH"}), **_DAY),
     "steps USING INDEX steps_by_start (listed=? AND start_local>? AND start_local<?)"),
    (Narrowing(sites=frozenset({"NORTH"}), station_ae_titles=frozenset({"CT1"}), **_DAY),
     "step_stations USING COVERING INDEX step_stations_by_station (ae_title=? AND listed=? AND start_local>?"),
    (Narrowing(patient_id="P1", **_DAY), "patients USING COVERING INDEX patients_by_patient_id (patient_id=?)"),
    (Narrowing(accession_number="A1", **_DAY), "USING COVERING INDEX requested_procedures_by_accession (accession=?)"),
    (Narrowing(requested_procedure_id="R1", **_DAY),
     "USING COVERING INDEX requested_procedures_by_rp_id (requested_procedure_id=?)"),
    (Narrowing(study_instance_uids=frozenset({"2.25.1"}), **_DAY),
     "requested_procedures_by_study (study_instance_uid=?)"),
    (Narrowing(sps_id="S1"), "steps USING INDEX steps_by_sps_id (sps_id=?)"),
    (Narrowing(patient_name_prefix="mul", **_DAY),
     "patient_names USING COVERING INDEX patient_names_by_folded (folded>? AND folded<?)"),
    (Narrowing(patient_name_prefix="m"),
     "patient_names USING COVERING INDEX patient_names_by_folded (folded>? AND folded<?)"),
    (Narrowing(**_DAY), "steps USING INDEX steps_by_start (listed=? AND start_local>? AND start_local<?)"),
    (Narrowing(modality="CT", patient_name_prefix="m", **_DAY),
     "steps USING INDEX steps_by_start (listed=? AND start_local>? AND start_local<?)"),
    (Narrowing(statuses=frozenset(SPSStatus), **_DAY),
     "steps USING INDEX steps_by_start (listed=? AND start_local>? AND start_local<?)"),
]  # fmt: skip


def _plan(store: Store, prepared, values) -> str:
    connection = store._engine.raw_connection()
    try:
        sql, bind = prepared.on(store._engine.dialect)
        rows = connection.driver_connection.execute(f"EXPLAIN QUERY PLAN {sql}", bind(values)).fetchall()
    finally:
        connection.close()
    return "\n".join(row[3] for row in rows)


@pytest.mark.parametrize(("narrowing", "expected"), _PLANS)
def test_query_is_answered_from_its_index(department, narrowing, expected):
    shape, values = shape_of(narrowing)
    plan = _plan(department, statements.candidates(shape), values)
    assert expected in plan.splitlines()[0]
    assert "SCAN" not in plan


@pytest.mark.parametrize("narrowing", [_PLANS[0][0], Narrowing(**_DAY), Narrowing()])
def test_commonest_queries_need_no_sorting(department, narrowing):
    shape, values = shape_of(narrowing)
    assert "TEMP B-TREE" not in _plan(department, statements.candidates(shape), values)


_LOOKED_UP = {
    "EARLIER_MESSAGES": "messages_by_control_id (control_id=? AND listener=? AND sender=?)",
    "PATIENT_BY_IDENTIFIER": "USING PRIMARY KEY (value=? AND issuer=?)",
    "ORDER_BY_PLACER": "orders_by_placer (placer=? AND placer_issuer=?)",
    "ORDER_BY_FILLER": "orders_by_filler (filler=? AND filler_issuer=?)",
    "ORDERS_OF_OTHER_ISSUERS": "orders_by_placer (placer=?)",
    "ORDER_ID_OF_STUDY": "requested_procedures_by_study (study_instance_uid=?)",
    "KEYS_HELD": "requested_procedures_by_rp_id (requested_procedure_id=?)",
    "ORDER_IDS_BY_ACCESSION": "requested_procedures_by_accession (accession=? AND accession_issuer=?)",
    "ORDERS_BY_HAND": "orders_by_hand (patient_id=?)",
    "ORDER_IDS_OF_PATIENT": "steps_by_patient (patient_id=?)",
    "STEPS_OF_ORDER": "(procedure_id=?)",
    "STEPS_REVISE_OF_PATIENT": "steps_by_patient (patient_id=?)",
    "STEPS_REVISE_OF_VISIT": "orders_by_visit (visit_id=?)",
    "EXPIRING": "steps_by_start (listed=? AND start_local>? AND start_local<?)",
    "HELD_MESSAGES": "messages_held",
    "STEP_IDS_BY_SPS_ID": "steps_by_sps_id (sps_id=?)",
    "STEP_IDS_BY_ACCESSION": "requested_procedures_by_accession (accession=?)",
    "STEP_IDS_BY_PATIENT_ID": "steps_by_patient (patient_id=?)",
    "STEP_IDS_BY_ORDER_NUMBER": "(procedure_id=?)",
    "QUERY": "INTEGER PRIMARY KEY (rowid=?)",
    "QUERIES_OF_CALLER": "queries_by_caller (calling_ae_title=?)",
    "QUERIES_PRUNE": "queries_by_caller (calling_ae_title=? AND id<?)",
    "QUERIES_DELETE_OF_CALLER": "queries_by_caller (calling_ae_title=?)",
    "NEWEST_QUERY_OF_CALLER": "COVERING INDEX queries_by_caller (calling_ae_title=?)",
    "QUERY_CALLERS": "COVERING INDEX queries_by_caller (calling_ae_title>?)",
    "QUERIES_DELETE_BEFORE": "INTEGER PRIMARY KEY (rowid=?)",
}

_NEVER_READ_WHOLE = (
    "STEP_IDS_BY_PATIENT_ID",
    "STEP_IDS_BY_ORDER_NUMBER",
    "KEYS_HELD",
    "QUERIES_OF_CALLER",
    "QUERIES_PRUNE",
)


@pytest.mark.parametrize("name", _LOOKED_UP)
def test_lookup_uses_its_index(department, name):
    class Anything(dict):
        def __missing__(self, key):
            return 1

    plan = _plan(department, getattr(statements, name), Anything())
    assert _LOOKED_UP[name] in plan
    if name in _NEVER_READ_WHOLE:
        assert not {line.split()[1] for line in plan.splitlines() if line.startswith("SCAN")} & set(metadata.tables)


def test_number_of_statement_shapes_is_bounded():
    assert statements.padded(list(range(3))) == [0, 1, 2, 2]
    assert len({len(statements.padded(list(range(1, count + 1)))) for count in range(1, ITEMS_CHUNK + 1)}) <= 10
