"""FHIR resources in the store: versions, what they are found by, who refers to whom, orders' parts, marks of feeds."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from gateway.domain.identifiers import Identifier
from gateway.domain.order import Order
from gateway.domain.patient import Patient
from gateway.domain.resource_search import (
    ID,
    LAST_UPDATED,
    OLDEST_FIRST,
    Comparison,
    Criterion,
    How,
    Sorting,
    SortKey,
)
from gateway.domain.resources import REFERS, REFERS_BY_IDENTIFIER, HeldResource, Indexed, OrderPart, ResourceKey
from gateway.edges import database, maintenance, store_resources
from gateway.edges.database import Prepared, StoreTooSlow, connect_to
from gateway.edges.store import Store
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_search import Search, indexed, parse

THEN = datetime(2026, 7, 5, 8, tzinfo=UTC)


def key(type_="Patient", id_="1", source="r4"):
    return ResourceKey(source, type_, id_)


def save(unit, where, at=0, deleted=False, rows=None, **content):
    held = {"resourceType": where.type, "id": where.id, **content}
    found = indexed(held, Release.R4) if rows is None else rows
    return unit.save_resource(where, held, THEN + timedelta(seconds=at), found, deleted, "R4")


def found(store, query, type_="Patient", source="r4"):
    wanted = parse(type_, query, Release.R4)
    held = store.reader.find_resources(source, type_, wanted.criteria, 100, wanted.sorting)
    assert store.reader.count_resources(source, type_, wanted.criteria) == len(held)
    return [each.key.id for each in held]


def test_a_resource_comes_back_as_it_was_with_its_exact_numbers(store, write):
    content = {"valueQuantity": {"value": Decimal("72.500")}, "note": [{"text": "Grüße \u0000 \U0001f600"}], "a": True}
    made = write(lambda unit: save(unit, key("Observation"), **content))
    held = store.reader.resource(key("Observation"))
    assert held == made
    assert (held.version, held.updated_at, held.release, held.deleted) == (1, THEN, "R4", False)
    assert str(held.content["valueQuantity"]["value"]) == "72.500"
    assert list(held.content) == ["resourceType", "id", *content]
    assert store.reader.resource(key("Observation", source="r5")) is None


def test_versions_go_on_after_a_deletion_of_which_nothing_is_kept_or_found(store, write):
    write(lambda unit: save(unit, key(), gender="female"))
    write(lambda unit: save(unit, key(), 1, deleted=True, gender="female"))
    assert store.reader.resource(key()) == HeldResource(key(), 2, THEN + timedelta(seconds=1), {}, True, "R4")
    assert found(store, "") == found(store, "gender=female") == found(store, "gender:not=male") == []
    assert write(lambda unit: save(unit, key(), 2, gender="male")).version == 3
    assert found(store, "gender=male") == ["1"]
    assert found(store, "gender=female") == []


def test_each_source_is_a_name_space_of_its_own(store, write):
    for number, source in enumerate(("r4", "r5", "ehr")):
        write(lambda unit, s=source, n=number: save(unit, key(source=s), n, gender="female"))
    assert [found(store, "gender=female", source=each) for each in ("r4", "r5", "ehr", "other")] == [
        ["1"], ["1"], ["1"], [],
    ]  # fmt: skip


def a_patient(unit, number, **content):
    save(unit, key(id_=f"p{number}"), number, **content)


@pytest.fixture
def people(store, write):
    def all_of(unit):
        a_patient(unit, 1, identifier=[{"system": "http://a", "value": "1"}], gender="female", birthDate="1980-05-06",
                  name=[{"family": "Müller", "given": ["Änne", "Eva"]}])  # fmt: skip
        a_patient(unit, 2, identifier=[{"system": "http://b", "value": "1"}, {"value": "x"}], gender="male",
                  birthDate="1980-06", name=[{"family": "Muller-Lüd_enscheid"}])  # fmt: skip
        a_patient(unit, 3, birthDate="1980", name=[{"text": "Ana 100% Novak"}], active=True)
        for number, person in enumerate(
            ("Patient/p1", "Patient/p2", "Patient/p1/_history/4", "http://other/Patient/p1")
        ):
            save(unit, key("ServiceRequest", f"s{number}"), 10 + number, subject={"reference": person},
                 authoredOn=f"2026-07-0{4 - number}", status="active" if number else "draft")  # fmt: skip
        save(unit, key("ServiceRequest", "s9"), 20, subject={"identifier": {"system": "http://a", "value": "1"}})

    write(all_of)
    return store


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "p1 p2 p3"),
        ("identifier=1", "p1 p2"),
        ("identifier=http://a|1", "p1"),
        ("identifier=http://a|", "p1"),
        ("identifier=|x", "p2"),
        ("identifier=|1", ""),
        ("identifier=http://a|1,http://b|1", "p1 p2"),
        ("identifier=1&gender=male", "p2"),
        ("gender:not=male", "p1 p3"),
        ("gender:not=male,female", "p3"),
        ("gender:missing=true", "p3"),
        ("gender:missing=false", "p1 p2"),
        ("active=true", "p3"),
        ("name=mull", "p1 p2"),
        ("name=NOV", ""),
        ("name:contains=nov", "p3"),
        ("name:contains=0%25", "p3"),
        ("name:contains=%25nov", ""),
        ("name:contains=d_e", "p2"),
        ("name:contains=l_e", ""),
        ("family:exact=Müller", "p1"),
        ("family:exact=Muller", ""),
        ("given=anne", "p1"),
        ("birthdate=1980", "p1 p2 p3"),
        ("birthdate=1980-05", "p1"),
        ("birthdate=1980-05-06", "p1"),
        ("birthdate=ne1980-05", "p2 p3"),
        ("birthdate=gt1980-06-15", "p2 p3"),
        ("birthdate=sa1980-05-06", "p2"),
        ("birthdate=lt1980-05-06", "p3"),
        ("birthdate=eb1980-06", "p1"),
        ("birthdate=ge1980-05-06&birthdate=le1980-06-30", "p1 p2 p3"),
        ("birthdate=ap1980-06-10", "p2 p3"),
        ("_id=p1,p3,zz", "p1 p3"),
        ("_lastUpdated=ge2026-07-05T08:00:02Z", "p2 p3"),
        ("_lastUpdated=gt2026-07-05T08:00:02Z", "p3"),
        ("_lastUpdated=le2026-07-05T10:00:02%2B02:00", "p1 p2"),
        ("_lastUpdated=2026-07-05T08:00:02Z", "p2"),
        ("_lastUpdated=lt2026-07-05T08:00:02Z", "p1"),
        ("_sort=-_lastUpdated", "p3 p2 p1"),
        ("_sort=-_id&gender:missing=false", "p2 p1"),
    ],
)
def test_people_are_found(people, query, expected):
    assert found(people, query) == expected.split()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("patient=p1", "s0 s2"),
        ("patient=Patient/p1,Patient/p2", "s0 s1 s2"),
        ("subject=http://other/Patient/p1", "s3"),
        ("subject:Patient=p2", "s1"),
        ("patient:identifier=http://a|1", "s9"),
        ("patient.identifier=http://a|1", "s0 s2"),
        ("subject:Patient.family=mull", "s0 s1 s2"),
        ("subject.gender=male,female&status=active", "s1 s2"),
        ("patient.gender:missing=true", ""),
        ("subject.birthdate=lt1980-05-10", "s0 s2"),
        ("authored=ge2026-07-03", "s0 s1"),
        ("authored=ge2026-07-01&_sort=authored", "s3 s2 s1 s0"),
        ("_sort=-authored", "s0 s1 s2 s3 s9"),
    ],
)
def test_orders_are_found(people, query, expected):
    assert found(people, query, "ServiceRequest") == expected.split()


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("by", SortKey)
def test_pages_lead_through_everything_once_also_where_many_are_alike(store, write, by, descending):
    def all_of(unit):
        for number in range(23):
            save(
                unit,
                key("ServiceRequest", f"s{number % 7}-{number}"),
                number // 5,
                authoredOn=f"2026-07-0{1 + number % 3}",
            )

    write(all_of)
    sorting = Sorting(by, descending)
    page, after = store.reader.page_of_resources("r4", "ServiceRequest", (), 4, sorting)
    seen = [*page]
    while after is not None:
        page, after = store.reader.page_of_resources("r4", "ServiceRequest", (), 4, sorting, after)
        assert 0 < len(page) <= 4
        seen += page
    assert len({each.key for each in seen}) == len(seen) == 23
    whole = store.reader.find_resources("r4", "ServiceRequest", (), 100, sorting)
    assert [each.key for each in whole] == [each.key for each in seen]


def test_what_changes_between_pages_comes_again_and_nothing_is_missed(store, write):
    write(lambda unit: [save(unit, key(id_=f"p{n}"), n) for n in range(6)] and None)
    page, after = store.reader.page_of_resources("r4", "Patient", (), 3, OLDEST_FIRST)
    assert [each.key.id for each in page] == ["p0", "p1", "p2"]
    write(lambda unit: save(unit, key(id_="p1"), 50))
    rest, after = store.reader.page_of_resources("r4", "Patient", (), 10, OLDEST_FIRST, after)
    assert after is None
    assert [each.key.id for each in rest] == ["p3", "p4", "p5", "p1"]


def test_who_refers_to_something_is_known_whether_or_not_it_is_held(store, write):
    def all_of(unit):
        save(unit, key("ServiceRequest", "a"), subject={"reference": "Patient/9"})
        save(unit, key("Task", "b"), **{"for": {"reference": "Patient/9"}, "focus": {"reference": "ServiceRequest/a"}})
        save(unit, key("Observation", "c"), subject={"reference": "Patient/9"},
             contained=[{"resourceType": "Device", "id": "d", "owner": {"reference": "Organization/1"}}])  # fmt: skip
        save(unit, key("ServiceRequest", "e", "r5"), subject={"reference": "Patient/9"})
        save(unit, key("Flag", "f"), subject={"type": "Patient", "identifier": {"system": "http://a", "value": "7"}})

    write(all_of)

    def referring(where, types=(), limit=10):
        return [each.key.id for each in store.reader.referring(where, types, limit)]

    assert referring(key(id_="9")) == ["c", "b", "a"]
    assert referring(key(id_="9"), limit=2) == ["c", "b"]
    assert referring(key(id_="9"), ("ServiceRequest", "Observation")) == ["c", "a"]
    assert referring(key(id_="9"), ("ServiceRequest", "Observation"), 1) == ["c"]
    assert referring(key("ServiceRequest", "a")) == ["b"]
    assert referring(key("Organization")) == ["c"]
    assert [each.key.id for each in store.reader.referring_by_identifier("r4", "http://a", "7")] == ["f"]
    write(lambda unit: save(unit, key("Task", "b"), 1, deleted=True))
    assert referring(key(id_="9")) == ["c", "a"]


def test_only_rows_that_differ_are_written(store, write):
    content = {"subject": {"reference": "Patient/1"}, "code": {"coding": [{"system": "http://c", "code": "CT"}]}}
    write(lambda unit: save(unit, key("ServiceRequest"), status="active", **content))

    def change(unit):
        before = unit.changes
        save(unit, key("ServiceRequest"), 1, status="revoked", **content)
        return unit.changes - before

    assert write(change) == 3  # the resource, the old status and the new one


def test_parts_of_orders_are_found_from_both_sides(store, write):
    def order(unit):
        person = unit.save_patient(Patient(None, (Identifier("P1", "H"),), {}), THEN)
        return unit.save_order(Order(None, person, None, Identifier("PL1", "RIS"), None, {}), "test", THEN).id

    number = write(order)
    request, task = key("ServiceRequest"), key("Task")
    parts = [OrderPart(number, request), OrderPart(number, task, "RP1", "S1"), OrderPart(number, task, "RP1", "S2")]
    write(lambda unit: unit.set_order_parts(number, parts))
    assert sorted(store.reader.order_parts(number)) == sorted(parts)
    assert sorted(store.reader.parts_of(task)) == sorted(parts[1:])
    write(lambda unit: unit.set_order_parts(number, [OrderPart(0, request, "RP1"), parts[1]]))
    assert sorted(store.reader.order_parts(number)) == [OrderPart(number, request, "RP1"), parts[1]]
    write(lambda unit: unit.set_order_parts(number, []))
    assert store.reader.parts_of(request) == store.reader.order_parts(number) == []


def test_a_feed_knows_how_far_it_has_read(store, write):
    assert store.reader.feed_mark("ehr") == ""
    for said in ('{"since": "2026"}', '{"since": "2027"}'):
        write(lambda unit, text=said: unit.set_feed_mark("ehr", text))
        assert store.reader.feed_mark("ehr") == said
    assert store.reader.feed_mark("ris") == ""


# -- plans


def plan_of(store: Store, prepared: Prepared) -> list[str]:
    sql, bind = prepared.on(store._engine.dialect)

    class Anything(dict[str, object]):
        def __missing__(self, name: str) -> object:
            return 1 if name in ("limit", "after_number", "resource", "order_id") else "x"

    connection = store._engine.raw_connection()
    try:
        return [row[3] for row in connection.driver_connection.execute(f"EXPLAIN QUERY PLAN {sql}", bind(Anything()))]
    finally:
        connection.close()


def finding(query: str, type_: str = "ServiceRequest", further: bool = False) -> Prepared:
    wanted: Search = parse(type_, query, Release.R4)
    shape, _ = store_resources._shape_of(wanted.criteria)
    return store_resources._finding(shape, wanted.sorting, further)


@pytest.mark.parametrize("further", [False, True])
@pytest.mark.parametrize("query", ["", "_lastUpdated=ge2026-07-05"])
def test_polling_is_a_walk_along_one_index_in_order(store, query, further):
    plan = plan_of(store, finding(query, further=further))
    assert len(plan) == 1
    assert plan[0].startswith("SEARCH resources USING INDEX resources_by_update (source=? AND type=? AND deleted=?")


@pytest.mark.parametrize(
    "query",
    [
        "identifier=http://a|1", "patient=1", "patient=1,2&status=active", "identifier=http://a|1,http://b|2,|3", "patient.identifier=http://a|1",
        "authored=sa2026-07-05", "subject:Patient.family=mull",
    ],
)  # fmt: skip
def test_searches_look_into_the_index_by_ranges(store, query):
    plan = plan_of(store, finding(query))
    assert plan[0] == "SEARCH resources USING INTEGER PRIMARY KEY (rowid=?)"
    assert not [step for step in plan if step.startswith("SCAN")]
    looks = [step for step in plan if "resource_index" in step]
    assert looks
    assert all("PRIMARY KEY (source=? AND type=? AND name=? AND value" in step for step in looks), plan


def test_polling_for_something_looks_at_what_changed_since_and_at_nothing_else(store):
    plan = plan_of(store, finding("status=active&category=imaging&_lastUpdated=ge2026-07-05"))
    assert plan[0].startswith("SEARCH resources USING INDEX resources_by_update (source=? AND type=? AND deleted=? AND")
    looks = [step for step in plan if "resource_index" in step]
    assert len(looks) == 2
    assert all("(resource=? AND name=?" in step or "value=?" in step for step in looks), plan


def test_ids_are_looked_up(store):
    plan = plan_of(store, finding("_id=a,b"))
    assert any("(source=? AND type=? AND resource_id=?)" in step for step in plan), plan


def test_a_condition_and_the_looks_of_a_request_cost_no_walk(store):
    assert "USING INTEGER PRIMARY KEY (rowid=?)" in plan_of(store, finding("identifier=http://a|1"))[0]
    for prepared in (store_resources.REFERRING, store_resources.REFERRING_OF_SYSTEM):
        plan = plan_of(store, prepared)
        assert plan[0].startswith("SEARCH resource_index USING PRIMARY KEY (source=? AND type=? AND name=? AND value=?")
        assert plan[1] == "SEARCH resources USING INTEGER PRIMARY KEY (rowid=?)"
    assert plan_of(store, store_resources.INDEX_OF_RESOURCE) == [
        "SEARCH resource_index USING COVERING INDEX resource_index_by_resource (resource=?)"
    ]
    assert plan_of(store, store_resources.ORDER_PARTS) == ["SEARCH order_resources USING PRIMARY KEY (order_id=?)"]
    (parts,) = plan_of(store, store_resources.PARTS_OF)
    assert parts.endswith("INDEX order_resources_by_resource (source=? AND type=? AND resource_id=?)")


def test_of_criteria_any_comparison_may_be_asked(store, write):
    rows = [Indexed("code", "s", "abc"), Indexed("when", "20", "10"), Indexed(REFERS, "Patient", "X/1"),
            Indexed(REFERS_BY_IDENTIFIER, "s", "7")]  # fmt: skip
    write(lambda unit: save(unit, key(), rows=rows))
    met = {
        How.VALUE: ("abc", ""), How.VALUE_OF_SYSTEM: ("abc", "s"), How.SYSTEM: ("", "s"), How.STARTS: ("ab", ""),
        How.CONTAINS: ("b", ""), How.ENDS: ("bc", ""), How.ANY: ("", ""), How.WITHIN: ("10", "20"),
        How.OVERLAPS: ("15", "30"), How.GREATER: ("", "15"), How.LESS: ("15", ""), How.AFTER: ("", "05"),
        How.BEFORE: ("25", ""), How.FROM: ("10", ""), How.UP_TO: ("", "10"),
    }  # fmt: skip
    unmet = {
        How.VALUE: ("ab", ""), How.VALUE_OF_SYSTEM: ("abc", "t"), How.SYSTEM: ("", "t"), How.STARTS: ("bc", ""),
        How.CONTAINS: ("_", ""), How.ENDS: ("ab", ""), How.WITHIN: ("11", "20"), How.OVERLAPS: ("21", "30"),
        How.GREATER: ("", "20"), How.LESS: ("10", ""), How.AFTER: ("", "10"), How.BEFORE: ("20", ""),
        How.FROM: ("11", ""), How.UP_TO: ("", "09"),
    }  # fmt: skip
    dates = {How.WITHIN, How.OVERLAPS, How.GREATER, How.LESS, How.AFTER, How.BEFORE, How.FROM, How.UP_TO}
    assert met.keys() == set(How)
    for asked, count in ((met, 1), (unmet, 0)):
        for how, (low, high) in asked.items():
            criterion = Criterion("when" if how in dates else "code", (Comparison(how, low, high),))
            assert store.reader.count_resources("r4", "Patient", (criterion,)) == count, how
    assert store.reader.count_resources("r4", "Patient", (Criterion(ID, (Comparison(How.VALUE, "1"),)),)) == 1
    odd = Criterion(LAST_UPDATED, (Comparison(How.VALUE, "\ud800"),))
    assert store.reader.count_resources("r4", "Patient", (odd,)) == 0


def test_a_database_of_the_release_before_gets_the_tables(tmp_path):
    path = tmp_path / "gateway.db"
    path.touch(mode=0o600)
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(maintenance.__file__).parent / "migrations"))
    engine = connect_to(f"sqlite:///{path}", busy_timeout_s=5)
    with engine.begin() as connection:
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, "0006")
    engine.dispose()
    with closing(sqlite3.connect(path)) as database, pytest.raises(sqlite3.OperationalError, match="no such table"):
        database.execute("SELECT * FROM resources")
    assert maintenance.upgrade(f"sqlite:///{path}", THEN) is not None
    with Store(f"sqlite:///{path}") as store:
        store.write(lambda unit: save(unit, key(), gender="female")).result(timeout=10)
        assert found(store, "gender=female") == ["1"]


def test_a_type_in_a_chain_is_a_value_and_never_a_part_of_the_question(store, write):
    write(lambda unit: save(unit, key("Task"), status="requested"))
    anything = Criterion(ID, (Comparison(How.VALUE, "nobody"),), negated=True)
    chained = Criterion("based-on", chain=(("x' or 'a'='a", anything),))
    assert store.reader.find_resources("r4", "Task", [chained]) == []


def test_many_ids_without_their_types_are_one_comparison(store, write):
    order = key("ServiceRequest")
    write(lambda unit: save(unit, order, performer=[{"reference": "Practitioner/7"}]))
    assert found(store, "performer=" + ",".join(str(number) for number in range(200)), "ServiceRequest") == ["1"]


def test_a_question_that_takes_too_long_is_given_up_and_the_next_one_is_answered(store, write, monkeypatch):
    monkeypatch.setattr(database, "_STEPS", 10)
    write(lambda unit: [save(unit, key(id_=str(number)), name=[{"family": "Sample"}]) for number in range(200)])
    hurried = store.open_reader(limit_s=1e-9)
    with pytest.raises(StoreTooSlow):
        hurried.find_resources("r4", "Patient", parse("Patient", "name:contains=z,y,x,w,v", Release.R4).criteria, 500)
    assert store.open_reader(limit_s=60).resource(key()) is not None
