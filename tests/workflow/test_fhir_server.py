"""What requests of FHIR do to the resources that are held: interactions, conditions, transactions, repeats, copies."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.refusal import RefusalKind, Refused
from gateway.domain.resources import ResourceKey
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Verb
from gateway.wire.fhir_outcome import http_status
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_search import parse
from gateway.workflow import fhir_reading
from gateway.workflow.fhir_server import keep, read, search, transact
from tests.workflow.people import tried

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
BASE = "https://gateway.example/fhir/r4"


def key(type_, id_, source="r4"):
    return ResourceKey(source, type_, id_)


def patient(**said):
    return {"resourceType": "Patient", **said}


def order(number="1", **said):
    code = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}]}
    return {
        "resourceType": "ServiceRequest", "status": "active", "intent": "order",
        "identifier": [{"type": code, "system": "http://ehr", "value": number}],
        "subject": {"reference": "Patient/p1"}, **said,
    }  # fmt: skip


def numbered(*numbers, **said):
    """An order of these (type, value)."""
    made = order(**said)
    made["identifier"] = [{"type": {"coding": [{"code": t}]}, "system": "http://ehr", "value": v} for t, v in numbers]
    return made


def create(resource, **said):
    return Interaction(Verb.CREATE, resource["resourceType"], resource=resource, **said)


def put(resource, **said):
    said.setdefault("id", "" if "query" in said else resource.get("id", ""))
    return Interaction(Verb.UPDATE, resource["resourceType"], resource=resource, **said)


def request(*interactions, kind=None, source="r4"):
    kind = kind or (Kind.SINGLE if len(interactions) == 1 else Kind.TRANSACTION)
    if kind is Kind.TRANSACTION:
        interactions = [
            each if each.where else replace(each, where=f"Bundle.entry[{n}]") for n, each in enumerate(interactions)
        ]
    return FHIRRequest(kind, source, Release.R4, tuple(interactions), b"")


def do(unit, *interactions, at=0, **said):
    return transact(unit, request(*interactions, **said), AT + timedelta(seconds=at), [BASE])


def refusals(unit, *interactions, **said):
    """(kind, place) of everything that is refused; the transaction is undone."""
    with pytest.raises(Refused) as refused:
        unit.attempt(lambda: do(unit, *interactions, **said))
    assert all(each.text and each.hint for each in refused.value.refusals)
    return [(each.kind, each.where) for each in refused.value.refusals]


def statuses(done):
    return [each.status for each in done.results]


@pytest.fixture
def job(store):
    """Run a test inside of a transaction that is undone."""
    return lambda use_case: tried(store, use_case)


@pytest.mark.parametrize("kind", [Kind.SINGLE, Kind.TRANSACTION, Kind.MESSAGE])
def test_a_resource_is_created_changed_deleted_and_made_again(job, kind):
    def story(unit):
        done = do(unit, create(patient(id="theirs", gender="female")), kind=kind)
        (made,) = done.results
        assert (made.status, made.version, made.updated_at) == (201, 1, AT)
        assert made.key.id != "theirs"
        assert (done.changed, done.before) == ((made.key,), {made.key: None})
        assert made.resource == {
            "resourceType": "Patient", "id": made.key.id, "gender": "female",
            "meta": {"versionId": "1", "lastUpdated": "2026-07-05T08:00:00.000+00:00"},
        }  # fmt: skip
        changed = patient(id=made.key.id, gender="male", meta={"versionId": "77", "tag": [{"code": "x"}]})
        again = do(unit, put(changed), at=5, kind=kind)
        assert statuses(again) == [200]
        assert again.before[made.key].content == made.resource
        assert read(unit, made.key).resource["meta"] == {
            "versionId": "2", "lastUpdated": "2026-07-05T08:00:05.000+00:00", "tag": [{"code": "x"}],
        }  # fmt: skip
        same = do(unit, put(changed), at=6, kind=kind)
        assert (statuses(same), same.changed, same.results[0].version) == ([200], (), 2)
        gone = do(unit, Interaction(Verb.DELETE, "Patient", made.key.id), kind=kind)
        assert (statuses(gone), gone.changed) == ([204], (made.key,))
        assert [read(unit, made.key).status, read(unit, key("Patient", "never")).status] == [410, 404]
        assert statuses(do(unit, Interaction(Verb.DELETE, "Patient", made.key.id), kind=kind)) == [204]
        back = do(unit, put(patient(id=made.key.id)), kind=kind)
        assert (statuses(back), back.results[0].version, back.before) == ([201], 4, {made.key: None})

    job(story)


def test_an_update_creates_under_the_clients_id(job):
    def story(unit):
        done = do(unit, put(patient(id="p-1.x")))
        assert (statuses(done), done.results[0].key) == ([201], key("Patient", "p-1.x"))
        assert refusals(unit, put(patient(id="other"), id="p2")) == [(RefusalKind.MALFORMED, "Patient.id")]
        assert refusals(unit, put(patient(), id="p2")) == [(RefusalKind.MALFORMED, "Patient.id")]
        assert refusals(unit, put(patient(id="a b"))) == [(RefusalKind.MALFORMED, "Patient")]
        assert refusals(unit, Interaction(Verb.UPDATE, "Task", "p2", patient(id="p2"))) == [
            (RefusalKind.BAD_VALUE, "Task.resourceType")
        ]

    job(story)


def test_if_match_must_name_the_version_that_is_held(job):
    def story(unit):
        do(unit, put(patient(id="p1")))
        for verb in (Verb.UPDATE, Verb.DELETE, Verb.PATCH):
            changed = Interaction(verb, "Patient", "p1", patient(id="p1", gender="male"), [], if_match="7")
            assert refusals(unit, changed) == [(RefusalKind.PRECONDITION, "Patient")]
        assert refusals(unit, put(patient(id="new"), if_match="1")) == [(RefusalKind.PRECONDITION, "Patient")]
        assert do(unit, put(patient(id="p1", gender="male"), if_match="1")).results[0].version == 2

    job(story)


def test_a_conditional_create_is_done_once(job):
    def story(unit):
        person = patient(identifier=[{"system": "http://a", "value": "1"}])
        asked = create(person, if_none_exist="identifier=http://a|1")
        first, second = do(unit, asked), do(unit, asked)
        assert (statuses(first), statuses(second)) == ([201], [200])
        assert second.results[0].key == first.results[0].key
        assert second.changed == ()
        do(unit, create(person))
        assert refusals(unit, asked) == [(RefusalKind.PRECONDITION, "Patient")]
        assert refusals(unit, create(person, if_none_exist="colour=red")) == [(RefusalKind.UNUSABLE_QUERY, "colour")]
        assert refusals(unit, create(person, if_none_exist="_count=1")) == [(RefusalKind.UNUSABLE_QUERY, "")]
        twice = create(person, if_none_exist="identifier=http://a|2")
        assert refusals(unit, twice, twice) == [(RefusalKind.CONFLICT, "Bundle.entry[1].request")]

    job(story)


def test_a_conditional_update_changes_the_one_that_is_found_or_creates(job):
    def story(unit):
        person = patient(identifier=[{"system": "http://a", "value": "1"}])
        asked = put(person, query="identifier=http://a|1")
        assert statuses(do(unit, asked)) == [201]
        changed = do(unit, put({**person, "gender": "male"}, query="identifier=http://a|1"))
        assert (statuses(changed), changed.results[0].version) == ([200], 2)
        wrong = put({**person, "id": "other"}, query="identifier=http://a|1")
        assert refusals(unit, wrong) == [(RefusalKind.MALFORMED, "Patient.id")]
        named = do(unit, put(patient(id="mine"), query="identifier=http://a|2"))
        assert (statuses(named), named.results[0].key.id) == ([201], "mine")
        taken = put(patient(id="mine"), query="identifier=http://a|3")
        assert refusals(unit, taken) == [(RefusalKind.CONFLICT, "Patient.id")]
        do(unit, create(person))
        assert refusals(unit, asked) == [(RefusalKind.PRECONDITION, "Patient")]
        gone = Interaction(Verb.DELETE, "Patient", query="identifier=http://a|1")
        assert refusals(unit, gone) == [(RefusalKind.PRECONDITION, "Patient")]
        absent = do(unit, Interaction(Verb.DELETE, "Patient", query="identifier=http://a|9"))
        assert (statuses(absent), absent.changed) == ([204], ())

    job(story)


def test_patches_are_judged_as_what_they_make_and_at_their_operations(job):
    def story(unit):
        do(unit, put(patient(id="p1")), put(order(id="s1")))

        def patch(*operations, **said):
            said.setdefault("id", "" if "query" in said else "s1")
            return Interaction(Verb.PATCH, "ServiceRequest", patch=list(operations), **said)

        revoke = {"op": "replace", "path": "/status", "value": "revoked"}
        done = do(unit, patch(revoke))
        assert (statuses(done), done.results[0].resource["status"], done.results[0].version) == ([200], "revoked", 2)
        assert do(unit, patch(revoke)).changed == ()
        assert statuses(do(unit, patch({**revoke, "value": "active"}, query="identifier=http://ehr|1"))) == [200]
        assert refusals(unit, patch(revoke, query="identifier=http://ehr|9")) == [
            (RefusalKind.NO_SUCH_INSTANCE, "ServiceRequest")
        ]
        assert refusals(unit, patch(revoke, id="never")) == [(RefusalKind.NO_SUCH_INSTANCE, "ServiceRequest")]
        broken = patch(revoke, {**revoke, "value": "nonsense"}, {"op": "add", "path": "/priority", "value": "stat"})
        assert refusals(unit, broken) == [(RefusalKind.UNKNOWN_CODE, "patch[1]")]
        assert refusals(unit, patch({"op": "remove", "path": "/subject"}))[0][1] == "patch[0]"
        do(unit, Interaction(Verb.DELETE, "ServiceRequest", "s1"))
        assert refusals(unit, patch(revoke)) == [(RefusalKind.GONE, "ServiceRequest")]

    job(story)


def test_entries_of_a_transaction_refer_to_each_other(job):
    def story(unit):
        uuid, other = "urn:uuid:0b1e1c70-0000-4000-8000-000000000001", "http://ehr.example/fhir/Encounter/7"
        done = do(
            unit,
            create(order(subject={"reference": uuid}, encounter={"reference": "Encounter/7"},
                         requester={"reference": f"{BASE}/Practitioner/d1"}),
                   full_url="http://ehr.example/fhir/ServiceRequest/3"),
            create(patient(), full_url=uuid),
            put({"resourceType": "Encounter", "id": "e1", "subject": {"reference": uuid}}, full_url=other),
            Interaction(Verb.READ, "Encounter", "e1"),
            Interaction(Verb.SEARCH, "ServiceRequest", query="status=active"),
        )  # fmt: skip
        assert statuses(done) == [201, 201, 201, 200, 200]
        made, person, _, encounter, bundle = done.results
        assert made.resource["subject"] == {"reference": f"Patient/{person.key.id}"}
        assert made.resource["encounter"] == {"reference": "Encounter/e1"}
        assert made.resource["requester"] == {"reference": "Practitioner/d1"}
        assert made.notes == ("waits for Practitioner/d1, which is not held",)
        assert encounter.resource["subject"] == {"reference": f"Patient/{person.key.id}"}
        assert [each["resource"]["id"] for each in bundle.resource["entry"]] == [made.key.id]

    job(story)


def test_a_reference_to_a_version_of_an_entry_means_that_entry(job):
    """Not who has the same id here (bundle.html#references: the fullUrl is looked for without the version)."""

    def story(unit):
        do(unit, put(patient(id="9")))
        theirs = "http://ehr.example/fhir/Patient/9"
        for number, said in enumerate(("Patient/9/_history/1", f"{theirs}/_history/1")):
            done = do(
                unit,
                create(order(str(number), subject={"reference": said}), full_url="http://ehr.example/fhir/ServiceRequest/3"),
                create(patient(), full_url=theirs),
            )  # fmt: skip
            made, person = done.results
            assert made.resource["subject"] == {"reference": person.key.reference}
            assert person.key.id != "9"
        alone = do(unit, create(order("3", subject={"reference": "Patient/9/_history/1"})))
        assert alone.results[0].resource["subject"] == {"reference": "Patient/9/_history/1"}

    job(story)


@pytest.mark.parametrize("places", list(permutations(range(4))))
def test_conditional_references_find_each_other_in_whatever_order_they_come(job, places):
    def story(unit):
        person = create(patient(identifier=[{"system": "http://a", "value": "1"}]))
        subject = {"reference": "Patient?identifier=http://a|1"}
        above = create(order("1", subject=subject))
        below = create(order("2", subject=subject, basedOn=[{"reference": "ServiceRequest?identifier=http://ehr|1"}]))
        based = [{"reference": "ServiceRequest?identifier=http://ehr|2"}]
        task = create({"resourceType": "Task", "status": "requested", "intent": "order", "basedOn": based})
        said = person, above, below, task
        done = do(unit, *(said[place] for place in places))
        _, parent, child, step = (done.results[places.index(place)] for place in range(4))
        assert child.resource["basedOn"] == [{"reference": parent.key.reference}]
        assert step.resource["basedOn"] == [{"reference": child.key.reference}]

    job(story)


def test_conditional_references_in_a_circle_are_refused(job):
    def story(unit):
        task = create({
            "resourceType": "Task", "status": "requested", "intent": "order",
            "encounter": {"reference": "Encounter?identifier=http://e|1"},
        })  # fmt: skip
        visit = create({
            "resourceType": "Encounter", "identifier": [{"system": "http://e", "value": "1"}],
            "basedOn": [{"reference": "Task?status=requested"}],
        })  # fmt: skip
        assert set(refusals(unit, task, visit)) == {
            (RefusalKind.BAD_VALUE, "Bundle.entry[0].resource.encounter"),
            (RefusalKind.BAD_VALUE, "Bundle.entry[1].resource.basedOn[0]"),
        }

    job(story)


def test_conditional_references_find_what_is_held_or_just_made(job):
    def story(unit):
        person = create(patient(identifier=[{"system": "http://a", "value": "1"}]))
        asked = create(order(subject={"reference": "Patient?identifier=http://a|1"}))
        assert refusals(unit, asked) == [(RefusalKind.BAD_VALUE, "ServiceRequest.subject")]
        done = do(unit, asked, person)
        assert done.results[0].resource["subject"]["reference"] == done.results[1].key.reference
        do(unit, person)
        again = create(order("2", subject={"reference": "Patient?identifier=http://a|1"}))
        assert refusals(unit, again) == [(RefusalKind.PRECONDITION, "ServiceRequest.subject")]

    job(story)


def test_everything_wrong_with_a_transaction_is_told_at_once_and_nothing_of_it_is_done(job):
    def story(unit):
        do(unit, put(patient(id="p1")), put(patient(id="p2")))
        told = refusals(
            unit,
            Interaction(Verb.DELETE, "Patient", "p2", if_match="9"),
            create(order(subject={"reference": "urn:uuid:nobody"}, basedOn=[{"reference": "what is this"}])),
            put(patient(id="x"), id="y"),
            put(patient(id="p1", gender="male")),
            Interaction(Verb.DELETE, "Patient", "p1"),
            Interaction(Verb.READ, "Task", "never"),
            Interaction(Verb.SEARCH, "Task", query="colour=red"),
        )
        assert set(told) == {
            (RefusalKind.PRECONDITION, "Bundle.entry[0].request.ifMatch"),
            (RefusalKind.BAD_VALUE, "Bundle.entry[1].resource.subject"),
            (RefusalKind.BAD_VALUE, "Bundle.entry[1].resource.basedOn[0]"),
            (RefusalKind.MALFORMED, "Bundle.entry[2].resource.id"),
            (RefusalKind.CONFLICT, "Bundle.entry[4].request"),
            (RefusalKind.NO_SUCH_INSTANCE, "Bundle.entry[5].request"),
            (RefusalKind.UNUSABLE_QUERY, "Bundle.entry[6].request.url"),
        }
        assert [read(unit, key("Patient", each)).version for each in ("p1", "p2")] == [1, 1]

    job(story)


def test_two_entries_of_a_transaction_are_never_about_the_same(job):
    def story(unit):
        twice = put(patient(id="p1")), Interaction(Verb.DELETE, "Patient", "p1")
        assert refusals(unit, *twice) == [(RefusalKind.CONFLICT, "Bundle.entry[1].request")]
        named = [create(patient(), full_url="urn:uuid:1") for _ in range(2)]
        assert refusals(unit, *named) == [(RefusalKind.CONFLICT, "Bundle.entry[1].fullUrl")]

    job(story)


def test_a_change_may_be_only_for_what_is_held_or_only_for_what_is_not(job):
    def story(unit):
        new = put(patient(id="p1"), if_none_match="*")
        assert refusals(unit, put(patient(id="p1"), if_match="*")) == [(RefusalKind.PRECONDITION, "Patient")]
        assert statuses(do(unit, new)) == [201]
        assert refusals(unit, new) == [(RefusalKind.PRECONDITION, "Patient")]
        assert statuses(do(unit, put(patient(id="p1", gender="male"), if_match="*"))) == [200]
        other = put(patient(id="p1", gender="other"), if_match='"abc"')
        assert refusals(unit, other) == [(RefusalKind.PRECONDITION, "Patient")]

    job(story)


@pytest.mark.parametrize(
    "asked",
    [
        create(patient(), if_none_exist="identifier=1"),
        put(patient(), query="identifier=1"),
        Interaction(Verb.DELETE, "Patient", query="identifier=1"),
        create(order(subject={"reference": "Patient?birthdate=1970-01-01"})),
        create(order(), if_none_exist="subject:Patient.name=sample"),
        Interaction(Verb.SEARCH, "ServiceRequest", query="subject:Patient.name=sample"),
        Interaction(Verb.SEARCH, "ServiceRequest", query="_revinclude=Task:based-on"),
    ],
)
def test_a_condition_needs_the_scope_of_a_search_for_every_type_it_asks_of(job, asked):
    def story(unit):
        limited = replace(request(asked), may_search=frozenset({"ServiceRequest"}))
        with pytest.raises(Refused) as refused:
            unit.attempt(lambda: transact(unit, limited, AT))
        (refusal,) = refused.value.refusals
        assert refusal.kind is RefusalKind.NOT_AUTHORISED

    job(story)


def test_searches_of_one_request_bring_so_many_resources_in_all(job, monkeypatch):
    monkeypatch.setattr(fhir_reading, "READ_MAX", 5)

    def story(unit):
        do(unit, *[put(patient(id=f"p{n}")) for n in range(4)])
        searches = [Interaction(Verb.SEARCH, "Patient", where=f"Bundle.entry[{n}]") for n in range(3)]
        asked = replace(request(*searches, kind=Kind.TRANSACTION), page_max=3)
        first, second, third = fhir_reading.Reading(unit, asked, [BASE]).each()
        assert [len(each.resource["entry"]) for each in (first, second)] == [3, 1]
        assert [each.where for each in third.refusals] == ["Bundle.entry[2].request"]

    job(story)


def test_an_entry_that_reads_may_say_what_its_sender_has(job):
    def story(unit):
        do(unit, put(patient(id="p1")))
        for has in ({"if_none_match": 'W/"1"'}, {"if_modified_since": "2026-07-05T08:00:00Z"}):
            (result,) = do(unit, Interaction(Verb.READ, "Patient", "p1", **has)).results
            assert (result.status, result.resource) == (304, None)
        assert statuses(do(unit, Interaction(Verb.READ, "Patient", "p1", if_none_match='W/"2"'))) == [200]

    job(story)


def test_an_order_that_is_posted_again_is_no_second_one(job):
    def story(unit):
        first = do(unit, create(order()))
        again = do(unit, create(order()))
        assert (statuses(again), again.changed) == ([200], ())
        assert again.results[0].key == first.results[0].key
        assert refusals(unit, create(order(priority="stat"))) == [
            (RefusalKind.DUPLICATE_KEY, "ServiceRequest.identifier")
        ]
        assert refusals(unit, create(order("2")), create(order("2", priority="stat"))) == [
            (RefusalKind.DUPLICATE_KEY, "Bundle.entry[1].resource.identifier")
        ]
        assert statuses(do(unit, create(order()), source="r5")) == [201]
        do(unit, Interaction(Verb.DELETE, "ServiceRequest", first.results[0].key.id))
        assert statuses(do(unit, create(order(priority="stat")))) == [201]

    job(story)


def test_a_shared_accession_number_makes_no_repeat_of_other_orders_and_procedures(job):
    def story(unit):
        assert statuses(do(unit, create(numbered(("PLAC", "1"), ("ACSN", "A"))))) == [201]
        assert statuses(do(unit, create(numbered(("PLAC", "2"), ("ACSN", "A"))))) == [201]
        parent = [{"reference": "ServiceRequest/x"}]
        child = numbered(("ACSN", "A"), basedOn=parent)
        assert statuses(do(unit, create(child))) == [201]
        assert statuses(do(unit, create({**child, "priority": "stat"}))) == [201]
        assert statuses(do(unit, create(child))) == [200]
        assert refusals(unit, create(numbered(("ACSN", "A"), ("FILL", "9")))) == [
            (RefusalKind.DUPLICATE_KEY, "ServiceRequest.identifier")
        ]

    job(story)


def test_resources_of_another_server_are_kept_as_they_are_if_they_are_newer(job):
    def story(unit):
        def fetched(version, updated, **said):
            meta = {"versionId": version, "lastUpdated": updated}
            return do(unit, put(patient(id="p1", meta=meta, **said)), kind=Kind.FETCHED, source="ehr")

        assert fetched("a", "2026-07-05T08:00:00Z", gender="male").changed == (key("Patient", "p1", "ehr"),)
        assert fetched("a", "2026-07-05T09:00:00Z", gender="female").changed == ()
        assert fetched("b", "2026-07-05T07:59:59+00:00", gender="female").changed == ()
        assert fetched("c", "2026-07-05T09:00:01+02:00", gender="female").changed == ()
        newer = fetched("d", "2026-07-05T08:00:00.001Z", link=[{"other": {"reference": "Patient/2"}}])
        assert newer.results[0].notes == ("waits for Patient/2, which is not held",)
        held = unit.resource(key("Patient", "p1", "ehr"))
        assert (held.version, held.content["meta"]["versionId"]) == (2, "d")
        odd = put(order(id="s1", subject={"reference": "urn:uuid:1"}))
        assert statuses(do(unit, odd, odd, kind=Kind.FETCHED, source="ehr")) == [201, 200]
        gone = do(unit, Interaction(Verb.DELETE, "Patient", "p1"), kind=Kind.FETCHED, source="ehr")
        assert gone.changed == (key("Patient", "p1", "ehr"),)

    job(story)


def test_pages_have_what_was_asked_to_come_along(job):
    def story(unit):
        role = {"resourceType": "PractitionerRole", "id": "r1", "practitioner": {"reference": "Practitioner/d1"}}
        do(unit, put(patient(id="p1")), put(role), put({"resourceType": "Practitioner", "id": "d1"}))
        for number in range(5):
            do(
                unit,
                put(order(str(number), id=f"s{number}", requester={"reference": "PractitionerRole/r1"})),
                at=number,
            )
            task = {"resourceType": "Task", "id": f"t{number}", "basedOn": [{"reference": f"ServiceRequest/s{number}"}]}
            do(unit, put(task), at=number)

        def page(query):
            return search(unit, "r4", parse("ServiceRequest", query, Release.R4))

        first = page("_count=2&_total=accurate&_include=ServiceRequest:subject&_revinclude=Task:based-on")
        assert [each.key.id for each in first.matches] == ["s0", "s1"]
        assert sorted(each.key.id for each in first.included) == ["p1", "t0", "t1"]
        assert first.total == 5
        seen, cursor = [], ""
        while True:
            one = page(f"_count=2&_cursor={cursor}" if cursor else "_count=2")
            seen += [each.key.id for each in one.matches]
            cursor = one.cursor
            if not cursor:
                break
        assert seen == [f"s{number}" for number in range(5)]
        assert (page("_summary=count").total, page("_summary=count").matches) == (5, ())
        far = page("_id=s1&_include=ServiceRequest:requester&_include:iterate=PractitionerRole:practitioner")
        assert [each.key.id for each in far.included] == ["r1", "d1"]
        near = page("_id=s1&_include=ServiceRequest:requester:Practitioner")
        assert near.included == ()

    job(story)


class ChangedBetween:
    """A reader under which `change` happens between its first statement and the next one, or else after it."""

    def __init__(self, reader, change):
        self._reader, self._change, self._asked = reader, change, 0

    def __getattr__(self, name):
        def asked(*values):
            self._asked += 1
            if self._asked == 2:
                self.happen()
            return getattr(self._reader, name)(*values)

        return asked

    def happen(self):
        change, self._change = self._change, lambda: None
        change()


def test_pages_lead_on_although_the_last_resource_of_one_changes_while_it_is_read(job):
    def story(unit):
        for number in range(6):
            do(unit, put(order(str(number), id=f"s{number}")), at=number)
        reader = ChangedBetween(unit, lambda: do(unit, put(order("1", id="s1", priority="urgent")), at=99))
        seen, cursor = [], ""
        while True:
            query = f"_count=2&_sort=_lastUpdated{cursor and f'&_cursor={cursor}'}"
            page = search(reader, "r4", parse("ServiceRequest", query, Release.R4))
            reader.happen()
            seen += [each.key.id for each in page.matches]
            if not (cursor := page.cursor):
                break
        assert seen == ["s0", "s1", "s2", "s3", "s4", "s5", "s1"]

    job(story)


def test_what_the_gateway_itself_writes_is_a_version_like_any_other(job):
    def story(unit):
        where = key("ServiceRequest", "s1")
        assert keep(unit, where, order(), Release.R4, AT).version == 1
        assert keep(unit, where, order(), Release.R4, AT).version == 1
        assert keep(unit, where, order(status="completed"), Release.R4, AT).version == 2
        assert read(unit, where).resource["id"] == "s1"

    job(story)


# -- any sequence of interactions, against a model that is a dictionary

_IDS = st.sampled_from(["a", "b", "c"])
_GENDERS = st.sampled_from(["male", "female"])
_IF_MATCH = st.sampled_from(["", "", "", "1", "2", "3"])
_STEPS = st.one_of(
    st.tuples(st.just("put"), _IDS, _GENDERS, _IF_MATCH),
    st.tuples(st.just("delete"), _IDS, _GENDERS, _IF_MATCH),
    st.tuples(st.just("patch"), _IDS, _GENDERS, _IF_MATCH),
    st.tuples(st.just("find and put"), st.just(""), _GENDERS, st.just("")),
)


class Model:
    """What a server of such requests holds: id -> (version, gender, or None once deleted)."""

    def __init__(self):
        self.held = {}

    def do(self, verb, id_, gender, if_match):
        """The status that it is answered with."""
        if verb == "find and put":
            found = [each for each, (_, said) in self.held.items() if said == gender]
            if len(found) != 1:
                return 412 if found else None  # it would be created under an id that nobody can foresee
            id_ = found[0]
        version, said = self.held.get(id_, (0, None))
        if if_match and (said is None or if_match != str(version)):
            return 412
        if verb == "delete":
            if said is not None:
                self.held[id_] = (version + 1, None)
            return 204
        if verb == "patch" and said is None:
            return 410 if version else 404
        if said != gender:
            self.held[id_] = (version + 1, gender)
        return 200 if said is not None else 201


def _asked(verb, id_, gender, if_match):
    if verb == "delete":
        return Interaction(Verb.DELETE, "Patient", id_, if_match=if_match)
    if verb == "patch":
        operation = {"op": "replace", "path": "/gender", "value": gender}
        return Interaction(Verb.PATCH, "Patient", id_, patch=[operation], if_match=if_match)
    if verb == "find and put":
        return put(patient(gender=gender), query=f"gender={gender}")
    return put(patient(id=id_, gender=gender), if_match=if_match)


@given(st.lists(_STEPS, max_size=14))
def test_any_sequence_of_interactions_leaves_what_the_model_has(store, steps):
    def story(unit):
        model = Model()
        for number, step in enumerate(steps):
            expected = model.do(*step)
            if expected is None:
                continue
            before = {id_: unit.resource(key("Patient", id_)) for id_ in "abc"}
            try:
                done = unit.attempt(lambda step=step, number=number: do(unit, _asked(*step), at=number))
            except Refused as refused:
                became, changed = [http_status(refused.refusals)], ()
            else:
                became, changed = statuses(done), done.changed
            assert became == [expected]
            for id_ in "abc":
                version, gender = model.held.get(id_, (0, None))
                held = unit.resource(key("Patient", id_))
                assert (held.version if held else 0) == version
                assert (held.content.get("gender") if held and not held.deleted else None) == gender
                was = before[id_]
                assert (key("Patient", id_) in changed) == (version != (was.version if was else 0))
            for gender in ("male", "female"):
                found = search(unit, "r4", parse("Patient", f"gender={gender}", Release.R4)).matches
                assert sorted(each.key.id for each in found) == sorted(
                    id_ for id_, (_, said) in model.held.items() if said == gender
                )

    tried(store, story)
