"""Our FHIR server over HTTP: interactions, formats, versions, limits, Bundles, and every refusal in words."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.domain.refusal import Refusal, RefusalKind
from gateway.domain.scopes import scopes
from gateway.edges import fhir_http
from gateway.edges.fhir_door import Authorised, Door
from gateway.wire import fhir_xml
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_interactions import Kind
from gateway.wire.fhir_outcome import outcome
from gateway.wire.fhir_release import Release
from tests.edges.fhir_site import JSON, ran, served

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "identifier": [{"system": "urn:oid:1.2.3", "value": "S4711"}],
    "name": [{"family": "Sample", "given": ["Ann"]}],
}
ORDER: dict[str, Any] = {
    "resourceType": "ServiceRequest",
    "status": "active",
    "intent": "order",
    "subject": {"reference": "Patient/1"},
}


def said(response: httpx.Response) -> dict[str, Any]:
    """The one issue of an OperationOutcome."""
    body = response.json()
    assert body["resourceType"] == "OperationOutcome", body
    issue: dict[str, Any] = body["issue"][0]
    return issue


async def posted(
    client: httpx.AsyncClient, resource: Any = None, base: str = "/fhir/r4", **headers: str
) -> httpx.Response:
    resource = PATIENT if resource is None else resource
    return await client.post(
        f"{base}/{resource['resourceType']}", content=json.dumps(resource), headers={**JSON, **headers}
    )  # fmt: skip


# --- interactions -----------------------------------------------------------------------------------------------------


def test_a_resource_is_created_read_changed_and_deleted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, kept):
            made = await posted(client)
            assert made.status_code == 201
            assert made.headers["etag"] == 'W/"1"'
            place, _, version = made.headers["location"].rpartition("/_history/")
            assert version == "1"
            assert place == f"{client.base_url}/fhir/r4/Patient/{made.json()['id']}"

            read = await client.get(place)
            assert read.json() == made.json()
            assert read.headers["content-type"] == "application/fhir+json; fhirVersion=4.0; charset=utf-8"
            assert read.headers["last-modified"] == made.headers["last-modified"]

            changed = {**made.json(), "gender": "female"}
            stale = await client.put(place, json=changed, headers={**JSON, "If-Match": 'W/"7"'})
            assert stale.status_code == 412
            put = await client.put(place, json=changed, headers={**JSON, "If-Match": 'W/"1"'})
            assert (put.status_code, put.headers["etag"]) == (200, 'W/"2"')

            patch = [{"op": "replace", "path": "/gender", "value": "male"}]
            patched = await client.patch(
                place, content=json.dumps(patch), headers={"Content-Type": "application/json-patch+json"}
            )
            assert patched.json()["gender"] == "male"

            assert (await client.delete(place)).status_code == 204
            assert (await client.get(place)).status_code == 410
            assert [each.event for each in kept.requests] == [
                "POST Patient", "PUT Patient", "PUT Patient", "PATCH Patient", "DELETE Patient"
            ]  # fmt: skip

    ran(scenario())


def test_each_base_is_a_name_space_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, release="R5") as (client, _):
            made = await posted(client, base="/fhir")
            assert "fhirVersion=5.0" in made.headers["content-type"]
            place = f"Patient/{made.json()['id']}"
            assert (await client.get(f"/fhir/r5/{place}")).status_code == 200
            assert (await client.get(f"/fhir/r4/{place}")).status_code == 404
            assert (await client.get(f"/fhir/r4b/{place}")).status_code == 404

    ran(scenario())


def test_only_the_current_version_is_there_to_be_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            place = f"/fhir/r4/Patient/{(await posted(client)).json()['id']}"
            assert (await client.get(f"{place}/_history/1")).status_code == 200
            old = await client.get(f"{place}/_history/2")
            assert old.status_code == 404
            assert "only the current version" in said(old)["details"]["text"]
            assert (await client.get(f"{place}/_history")).status_code == 404

    ran(scenario())


def test_conditions_are_searches(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            search = "identifier=urn:oid:1.2.3|S4711"
            first = await posted(client, **{"If-None-Exist": search})
            again = await posted(client, **{"If-None-Exist": search})
            assert (first.status_code, again.status_code) == (201, 200)
            assert again.json()["id"] == first.json()["id"]
            minimal = await posted(client, **{"If-None-Exist": search, "Prefer": "return=minimal"})
            assert (minimal.status_code, minimal.content) == (200, b"")
            assert minimal.headers["location"] == first.headers["location"] == again.headers["location"]
            put = await client.put(f"/fhir/r4/Patient?{search}", json={**PATIENT, "gender": "other"}, headers=JSON)
            assert (put.status_code, put.headers["etag"]) == (200, 'W/"2"')
            assert "location" not in put.headers
            assert (await client.delete(f"/fhir/r4/Patient?{search}")).status_code == 204
            no_target = await client.delete("/fhir/r4/Patient")
            assert no_target.status_code == 405
            both = await client.delete(f"/fhir/r4/Patient/1?{search}")
            assert both.status_code == 400

    ran(scenario())


def test_a_reader_who_has_it_already_gets_no_body(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            made = await posted(client)
            place = f"/fhir/r4/Patient/{made.json()['id']}"
            for headers in ({"If-None-Match": 'W/"1"'}, {"If-Modified-Since": made.headers["last-modified"]}):
                read = await client.get(place, headers=headers)
                assert (read.status_code, read.content) == (304, b"")
                assert read.headers["etag"] == 'W/"1"'
            assert (await client.get(place, headers={"If-None-Match": 'W/"2"'})).status_code == 200

    ran(scenario())


def test_the_answer_to_a_change_is_as_preferred(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            minimal = await posted(client, Prefer="return=minimal")
            assert (minimal.status_code, minimal.content) == (201, b"")
            assert minimal.headers["location"]
            told = await posted(client, Prefer="return=OperationOutcome")
            assert (told.status_code, said(told)["severity"]) == (201, "information")
            whole = await posted(client, Prefer="return=representation")
            assert whole.json()["resourceType"] == "Patient"
            place = f"/fhir/r4/Patient/{whole.json()['id']}"
            deleted = await client.delete(place, headers={"Prefer": "return=OperationOutcome"})
            assert (deleted.status_code, said(deleted)["severity"]) == (200, "information")

    ran(scenario())


def test_head_answers_as_get_without_a_body(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            place = f"/fhir/r4/Patient/{(await posted(client)).json()['id']}"
            head = await client.head(place)
            assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", 'W/"1"')
            assert (await client.head("/fhir/r4/metadata")).status_code == 200

    ran(scenario())


def test_options_say_what_is_taken(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            asked = await client.options("/fhir/r4/Patient/1")
            assert asked.headers["allow"] == "DELETE, GET, HEAD, PATCH, PUT, OPTIONS"
            wrong = await client.post("/fhir/r4/Patient/1", json=PATIENT, headers=JSON)
            assert wrong.status_code == 405
            assert wrong.headers["allow"] == "DELETE, GET, HEAD, PATCH, PUT"
            assert "PUT" in said(wrong)["diagnostics"]

    ran(scenario())


# --- searching --------------------------------------------------------------------------------------------------------


def test_a_search_gives_pages_that_follow_each_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            ids = [(await posted(client)).json()["id"] for _ in range(5)]
            page = (await client.get("/fhir/r4/Patient?_count=2&_total=accurate&family=Sample")).json()
            assert page["total"] == 5
            found = []
            while True:
                found += [each["resource"]["id"] for each in page["entry"]]
                links = {each["relation"]: each["url"] for each in page["link"]}
                assert links["self"].startswith(f"{client.base_url}/fhir/r4/Patient?")
                if "next" not in links:
                    break
                page = (await client.get(links["next"])).json()
            assert found == ids
            assert page["entry"][0]["fullUrl"] == f"{client.base_url}/fhir/r4/Patient/{ids[-1]}"

    ran(scenario())


@pytest.mark.parametrize("by_post", [False, True])
def test_the_next_page_comes_in_the_same_format(tmp_path: Path, by_post: bool) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            for _ in range(2):
                await posted(client)
            asked = {"_count": "1", "_format": "xml"}
            page = (
                await client.post("/fhir/r4/Patient/_search", data=asked) if by_post
                else await client.get("/fhir/r4/Patient", params=asked)
            )  # fmt: skip
            links = {each["relation"]: each["url"] for each in fhir_xml.parse(page.content, Release.R4)["link"]}
            following = await client.get(links["next"])
            assert following.headers["content-type"].startswith("application/fhir+xml")

    ran(scenario())


def test_a_page_is_never_longer_than_the_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, limits={"page_max": 2}) as (client, _):
            for _ in range(3):
                await posted(client)
            page = (await client.get("/fhir/r4/Patient?_count=100")).json()
            assert len(page["entry"]) == 2

    ran(scenario())


def test_a_search_goes_by_post_as_well(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            await posted(client)
            found = await client.post("/fhir/r4/Patient/_search", data={"identifier": "urn:oid:1.2.3|S4711"})
            assert [each["search"]["mode"] for each in found.json()["entry"]] == ["match"]
            no_form = await client.post("/fhir/r4/Patient/_search", json={}, headers=JSON)
            assert no_form.status_code == 415
            no_type = await client.post("/fhir/r4/Patient/_search", content=b"identifier=S4711")
            assert (no_type.status_code, "x-www-form-urlencoded" in said(no_type)["diagnostics"]) == (415, True)
            in_address = await client.post("/fhir/r4/Patient/_search?identifier=urn:oid:1.2.3|S4711")
            assert [each["search"]["mode"] for each in in_address.json()["entry"]] == ["match"]

    ran(scenario())


def test_what_is_referred_to_comes_with_the_page(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            patient = (await posted(client)).json()["id"]
            await posted(client, {**ORDER, "subject": {"reference": f"Patient/{patient}"}})
            page = (await client.get("/fhir/r4/ServiceRequest?_include=ServiceRequest:subject")).json()
            assert [each["search"]["mode"] for each in page["entry"]] == ["match", "include"]

    ran(scenario())


def test_a_part_of_a_resource_is_marked_as_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            await posted(client)
            (entry,) = (await client.get("/fhir/r4/Patient?_elements=identifier")).json()["entry"]
            assert "name" not in entry["resource"]
            assert entry["resource"]["identifier"] == PATIENT["identifier"]
            assert entry["resource"]["meta"]["tag"][0]["code"] == "SUBSETTED"

    ran(scenario())


def test_a_parameter_that_is_not_known_is_refused_unless_the_caller_is_lenient(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            await posted(client)
            refused = await client.get("/fhir/r4/Patient?famly=Sample")
            assert refused.status_code == 400
            assert said(refused)["expression"] == ["famly"]
            lenient = await client.get("/fhir/r4/Patient?famly=Sample", headers={"Prefer": "handling=lenient"})
            modes = [each["search"]["mode"] for each in lenient.json()["entry"]]
            assert modes == ["match", "outcome"]

    ran(scenario())


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", list(Release))
def test_xml_comes_and_goes(tmp_path: Path, release: Release) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            body = fhir_xml.write(PATIENT, release)
            made = await client.post(
                f"/fhir/{release.base}/Patient", content=body,
                headers={"Content-Type": "application/fhir+xml", "Accept": "application/fhir+xml"},
            )  # fmt: skip
            assert made.status_code == 201
            assert fhir_xml.parse(made.content, release)["name"] == PATIENT["name"]
            broken = await client.post(
                f"/fhir/{release.base}/Patient?_format=xml", content=b"<Patient", headers={"Content-Type": "text/xml"}
            )
            assert broken.status_code == 400
            assert fhir_xml.parse(broken.content, release)["resourceType"] == "OperationOutcome"

    ran(scenario())


def test_pretty_json_says_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            odd = {**PATIENT, "name": [{"text": 'a "quoted" {brace}, [list]: \\ and é'}]}
            place = f"/fhir/r4/Patient/{(await posted(client, odd)).json()['id']}"
            plain, pretty = await client.get(place), await client.get(f"{place}?_pretty=true")
            assert pretty.json() == plain.json()
            assert pretty.text == json.dumps(plain.json(), indent=2, ensure_ascii=False) + "\n"

    ran(scenario())


def test_another_release_than_that_of_the_base_is_not_taken(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            five = "application/fhir+json; fhirVersion=5.0"
            sent = await client.post("/fhir/r4/Patient", content=json.dumps(PATIENT), headers={"Content-Type": five})
            assert (sent.status_code, "/fhir/r5" in said(sent)["diagnostics"]) == (415, True)
            asked = await client.get("/fhir/r4/Patient", headers={"Accept": five})
            assert (asked.status_code, "/fhir/r5" in said(asked)["diagnostics"]) == (406, True)

    ran(scenario())


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_is_wrong_in_a_resource_is_told_with_its_place_and_archived(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, kept):
            wrong = await posted(client, {**ORDER, "status": "busy"})
            assert wrong.status_code == 422
            assert said(wrong)["expression"] == ["ServiceRequest.status"]
            assert len(kept.refused) == 1
            assert kept.requests[0].raw == json.dumps({**ORDER, "status": "busy"}).encode()
            other = await client.post("/fhir/r4/Patient", json=ORDER, headers=JSON)
            assert (other.status_code, said(other)["expression"]) == (422, ["resourceType"])

    ran(scenario())


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [
        ("GET", "/fhir/r4/Basic/1", 404),
        ("GET", "/fhir/r4/Patient/1/2/3", 404),
        ("GET", "/fhir/r4/Patient/a_b", 404),
        ("GET", "/fhir/r6/Patient", 404),
        ("PUT", "/fhir/r4/Patient/a_b", 400),
        ("POST", "/fhir/r4/$everything", 404),
        ("GET", "/fhir/r4", 400),
        ("GET", f"/fhir/r4/Patient?family={'x' * 9_000}", 414),
        ("GET", "/fhir/r4/Patient?_format=ttl", 406),
    ],
)
def test_addresses_that_mean_nothing_are_refused_in_words(
    tmp_path: Path, method: str, address: str, status: int
) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            answer = await client.request(method, address)
            assert answer.status_code == status
            assert said(answer)["details"]["text"]
            assert said(answer)["diagnostics"]

    ran(scenario())


def test_bodies_beyond_the_limit_are_refused_and_read_to_their_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, limits={"body_bytes_max": 4096}) as (client, kept):
            long = await client.post("/fhir/r4/Patient", content=b" " * 16_000, headers=JSON)
            assert (long.status_code, said(long)["code"]) == (413, "too-long")

            async def chunks() -> Any:
                for _ in range(16):
                    yield b" " * 1000

            assert (await client.post("/fhir/r4/Patient", content=chunks(), headers=JSON)).status_code == 413
            assert kept.requests == []
            assert (await posted(client)).status_code == 201  # the room is given back

    ran(scenario())


def test_compressed_bodies_are_refused_in_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            packed = gzip.compress(json.dumps(PATIENT).encode())
            refused = await client.post(
                "/fhir/r4/Patient", content=packed, headers={**JSON, "Content-Encoding": "gzip"}
            )
            assert refused.status_code == 415
            assert said(refused)["expression"] == ["Content-Encoding"]

    ran(scenario())


def test_a_body_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_http, "BODY_S", 0.05)

    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
            head = "POST /fhir/r4/Patient HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/fhir+json\r\n"
            writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 408")
            writer.close()

    ran(scenario())


def test_what_cannot_be_stored_now_says_when_to_come_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, kept):
            kept.answers = Answer(503, {}, outcome([Refusal(RefusalKind.TRANSIENT, "", "not now", "later")]))
            away = await posted(client)
            assert away.status_code == 503
            assert int(away.headers["retry-after"]) > 0
            assert said(away)["code"] == "transient"

    ran(scenario())


def test_who_asks_too_often_is_told_to_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, limits={"requests_per_s": 0.001}) as (client, _):
            answers = [await client.get("/fhir/r4/Patient/1") for _ in range(40)]
            last = answers[-1]
            assert last.status_code == 429
            assert int(last.headers["retry-after"]) > 0

    ran(scenario())


def test_nothing_is_open_where_clients_are_configured_but_what_says_how_to_come_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        clients = [{"name": "ehr", "certificates": ["subject:EHR"]}]
        async with served(tmp_path, clients=clients) as (client, kept):
            for asked in (
                "GET /fhir/r4/Patient/1",
                "POST /fhir",
                "GET /fhir/r4/Patient",
                "POST /fhir/r4/$process-message",
                "POST /fhir/r4/Patient/$validate",
            ):
                method, _, address = asked.partition(" ")
                closed = await client.request(method, address)
                assert closed.status_code == 401
                assert closed.headers["www-authenticate"].startswith("Bearer")
                assert said(closed)["details"]["text"]
            assert kept.requests == []
            assert (await client.get("/fhir/r4/metadata")).status_code == 200
            assert (await client.get("/fhir/r4/.well-known/smart-configuration")).status_code == 200
            assert (await client.post("/fhir/token", data={"grant_type": "password"})).status_code == 400

    ran(scenario())


def test_a_defect_of_ours_is_an_outcome_without_what_was_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, kept):
            kept.fails = RuntimeError("Sample^Ann")
            failed = await posted(client)
            assert (failed.status_code, said(failed)["code"]) == (500, "exception")
            assert "Sample" not in failed.text

    ran(scenario())


def test_request_ids_come_back_bounded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            named = await client.get("/fhir/r4/Patient/1", headers={"X-Request-Id": "abc-1"})
            assert named.headers["x-request-id"] == "abc-1"
            long = await client.get("/fhir/r4/Patient/1", headers={"X-Request-Id": "a" * 500})
            assert "x-request-id" not in long.headers

    ran(scenario())


# --- Bundles ----------------------------------------------------------------------------------------------------------


def entry(method: str, url: str, resource: Any = None, full_url: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"request": {"method": method, "url": url}}
    return {**made, **({"resource": resource} if resource else {}), **({"fullUrl": full_url} if full_url else {})}


def bundle(kind: str, *entries: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, kept):
            name = "urn:uuid:3f2f6a0e-0f6b-4b8e-9d64-000000000001"
            order = {**ORDER, "subject": {"reference": name}}
            good = bundle(
                "transaction", entry("POST", "Patient", PATIENT, name), entry("POST", "ServiceRequest", order)
            )
            done = await client.post("/fhir/r4", json=good, headers=JSON)
            assert done.status_code == 200
            assert [each["response"]["status"] for each in done.json()["entry"]] == ["201 Created", "201 Created"]

            order = {**order, "status": "busy"}
            bad = bundle("transaction", entry("POST", "Patient", PATIENT, name), entry("POST", "ServiceRequest", order))
            refused = await client.post("/fhir/r4/", json=bad, headers=JSON)
            assert refused.status_code == 422
            assert said(refused)["expression"] == ["Bundle.entry[1].resource.status"]
            assert (await client.get("/fhir/r4/Patient?_summary=count")).json()["total"] == 1
            assert len(kept.refused) == 1

    ran(scenario())


def test_a_batch_does_what_it_can(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            mixed = bundle(
                "batch",
                entry("POST", "ServiceRequest", {**ORDER, "status": "busy"}),
                entry("POST", "Patient", PATIENT),
                entry("HEAD", "Patient/1"),
                entry("GET", "Patient/unknown"),
            )
            done = await client.post("/fhir/r4", json=mixed, headers=JSON)
            assert done.status_code == 200
            statuses = [each["response"]["status"][:3] for each in done.json()["entry"]]
            assert (statuses[0], statuses[1]) == ("422", "201")
            assert all(status >= "400" for status in statuses[2:])
            assert (await client.get("/fhir/r4/Patient?_summary=count")).json()["total"] == 1

    ran(scenario())


def test_a_message_is_processed_and_answered_by_a_message(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, kept):
            header = {
                "resourceType": "MessageHeader", "id": "m1", "eventCoding": {"system": "urn:sample", "code": "order"},
                "source": {"endpoint": "https://ehr.example"}, "focus": [{"reference": "ServiceRequest/o1"}],
            }  # fmt: skip
            message = bundle(
                "message",
                {"fullUrl": "https://ehr.example/MessageHeader/m1", "resource": header},
                {"fullUrl": "https://ehr.example/ServiceRequest/o1", "resource": {**ORDER, "id": "o1"}},
                {"fullUrl": "https://ehr.example/Patient/1", "resource": {**PATIENT, "id": "1"}},
            )
            done = await client.post("/fhir/r4/$process-message", json=message, headers=JSON)
            assert done.status_code == 200
            assert done.json()["entry"][0]["resource"]["response"] == {
                "identifier": "m1", "code": "ok", "details": {"reference": done.json()["entry"][1]["fullUrl"]}
            }  # fmt: skip
            request = kept.requests[0]
            assert (request.kind, request.message_id) == (Kind.MESSAGE, "m1")
            (order,) = (await client.get("/fhir/r4/ServiceRequest")).json()["entry"]
            (patient,) = (await client.get("/fhir/r4/Patient")).json()["entry"]
            assert order["resource"]["subject"]["reference"] == f"Patient/{patient['resource']['id']}"

            astray = await client.post("/fhir/r4", json=message, headers=JSON)
            assert (astray.status_code, said(astray)["expression"]) == (422, ["Bundle.type"])
            assert "$process-message" in said(astray)["diagnostics"]

    ran(scenario())


def test_a_document_brings_what_it_holds(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            composition = {
                "resourceType": "Composition", "status": "final", "type": {"text": "order form"}, "title": "Order",
                "date": "2026-07-05", "author": [{"display": "Sample ward"}],
            }  # fmt: skip
            document = {
                **bundle("document", {"fullUrl": "urn:uuid:3f2f6a0e-0f6b-4b8e-9d64-000000000001",
                                      "resource": composition},
                         {"fullUrl": "urn:uuid:3f2f6a0e-0f6b-4b8e-9d64-000000000002", "resource": PATIENT}),
                "identifier": {"system": "urn:ietf:rfc3986", "value": "urn:uuid:3f2f6a0e-0f6b-4b8e-9d64-000000000003"},
                "timestamp": "2026-07-05T09:30:00Z",
            }  # fmt: skip
            done = await client.post("/fhir/r4", json=document, headers=JSON)
            assert done.status_code == 200, done.text
            assert done.json()["type"] == "transaction-response"
            assert (await client.get("/fhir/r4/Patient?identifier=S4711&_summary=count")).json()["total"] == 1

    ran(scenario())


@pytest.mark.parametrize("kind", ["collection", "searchset"])
def test_bundles_without_a_meaning_are_refused_with_a_hint(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            refused = await client.post("/fhir/r4", json=bundle(kind, {"resource": PATIENT}), headers=JSON)
            assert refused.status_code == 422
            assert "transaction" in said(refused)["diagnostics"]

    ran(scenario())


def test_large_bundles_are_read_by_a_process_of_their_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, kept):
            many = bundle("transaction", *(entry("POST", "Patient", PATIENT) for _ in range(900)))
            done = await client.post("/fhir/r4", json=many, headers=JSON)
            assert len(done.json()["entry"]) == 900
            assert kept.requests[0].interactions[899].resource == PATIENT
            many["entry"][700]["resource"] = {**PATIENT, "gender": 1}
            refused = await client.post("/fhir/r4", json=many, headers=JSON)
            assert said(refused)["expression"] == ["Bundle.entry[700].resource.gender"]

    ran(scenario())


# --- $validate --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "body", "severity", "place"),
    [
        ("Patient/$validate", PATIENT, "information", None),
        ("$validate", PATIENT, "information", None),
        ("Patient/$validate", ORDER, "error", "resourceType"),
        ("ServiceRequest/$validate", {**ORDER, "status": "busy"}, "error", "ServiceRequest.status"),
        ("Patient/1/$validate", {**PATIENT, "id": "1"}, "information", None),
        ("Patient/1/$validate", {**PATIENT, "id": "2"}, "error", "Patient.id"),
        ("Patient/1/$validate?mode=delete", {"resourceType": "Parameters"}, "information", None),
        ("Patient/$validate?mode=guess", PATIENT, "error", "mode"),
        ("Patient/$validate?profile=http://sample/p", PATIENT, "information", None),
        ("Patient/$validate", {"resourceType": "Parameters"}, "error", "Parameters.parameter"),
        (
            "ServiceRequest/$validate",
            {
                "resourceType": "Parameters",
                "parameter": [
                    {"name": "mode", "valueCode": "create"},
                    {"name": "resource", "resource": {**ORDER, "status": "busy"}},
                ],
            },
            "error",
            "ServiceRequest.status",
        ),
    ],
)
def test_validate_says_what_would_be_said(
    tmp_path: Path, address: str, body: Any, severity: str, place: str | None
) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, kept):
            answer = await client.post(f"/fhir/r4/{address}", json=body, headers=JSON)
            assert answer.status_code == 200
            assert said(answer)["severity"] == severity
            assert said(answer).get("expression", [None]) == [place]
            assert kept.requests == []

    ran(scenario())


# --- what is served ---------------------------------------------------------------------------------------------------


def test_each_base_says_what_it_serves(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            for release in Release:
                said = (await client.get(f"/fhir/{release.base}/metadata")).json()
                assert said["fhirVersion"] == release.version
                assert said["implementation"]["url"] == f"{client.base_url}/fhir/{release.base}"

    ran(scenario())


# --- what a client may not do, also by a way around -------------------------------------------------------------------


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whoever calls has these scopes from now on."""
    return lambda said: monkeypatch.setattr(Door, "admit", lambda *_: Authorised("ehr", scopes(said)))


def test_conditions_and_chains_need_the_scope_of_a_search(tmp_path: Path, allowed: Any) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            await posted(client)
            allowed("system/Patient.cu system/ServiceRequest.crs")
            for asked in (
                posted(client, **{"If-None-Exist": "identifier=S4711"}),
                posted(client, {**ORDER, "subject": {"reference": "Patient?identifier=S4711"}}),
                client.get("/fhir/r4/ServiceRequest?subject:Patient.family=Sample"),
                client.get("/fhir/r4/ServiceRequest?_revinclude=Task:based-on"),
            ):
                assert (await asked).status_code == 403

    ran(scenario())


def test_what_is_held_is_shown_to_nobody_who_may_not_read_it(tmp_path: Path, allowed: Any) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            place = f"/fhir/r4/Patient/{(await posted(client)).json()['id']}"
            allowed("system/Patient.cus")
            found = await posted(client, {"resourceType": "Patient"}, **{"If-None-Exist": "identifier=S4711"})
            assert (found.status_code, found.content) == (200, b"")
            patch = [{"op": "add", "path": "/gender", "value": "female"}]
            headers = {"Content-Type": "application/json-patch+json", "Prefer": "return=representation"}
            patched = await client.patch(place, content=json.dumps(patch), headers=headers)
            assert (patched.status_code, patched.content) == (200, b"")
            allowed("system/Patient.r")
            assert (await client.get(place)).json()["gender"] == "female"

    ran(scenario())


def test_validating_at_the_base_needs_the_scope_of_what_is_sent(tmp_path: Path, allowed: Any) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            allowed("system/Patient.c")
            good = await client.post("/fhir/r4/$validate", json=PATIENT, headers=JSON)
            assert good.status_code == 200
            other = await client.post("/fhir/r4/$validate", json=ORDER, headers=JSON)
            assert other.status_code == 403

    ran(scenario())


# --- conditions of HTTP, and reading in Bundles -----------------------------------------------------------------------


def test_a_put_may_be_for_what_is_not_held_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            place, patient = "/fhir/r4/Patient/1", {**PATIENT, "id": "1"}
            missing = await client.put(place, json=patient, headers={**JSON, "If-Match": "*"})
            assert missing.status_code == 412
            new = {**JSON, "If-None-Match": "*"}
            assert [(await client.put(place, json=patient, headers=new)).status_code for _ in range(2)] == [201, 412]
            entry = {"resource": patient, "request": {"method": "PUT", "url": "Patient/1", "ifNoneMatch": "*"}}
            bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
            assert (await client.post("/fhir/r4", json=bundle, headers=JSON)).status_code == 412
            for headers, status in (({"If-None-Match": 'W/"1"'}, 400), ({"If-Match": 'W/"abc"'}, 412)):
                assert (await client.put(place, json=patient, headers={**JSON, **headers})).status_code == status
            for wrong in ({**PATIENT, "id": "2"}, PATIENT):
                assert (await client.put(place, json=wrong, headers=JSON)).status_code == 400

    ran(scenario())


@pytest.mark.parametrize("kind", ["transaction", "batch"])
def test_what_only_reads_goes_past_those_who_write_page_by_page(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with served(tmp_path, limits={"page_max": 2}) as (client, kept):
            for _ in range(3):
                await posted(client)
            kept.requests.clear()
            read = {"method": "GET", "url": "Patient?_count=100"}
            bundle = {"resourceType": "Bundle", "type": kind, "entry": [{"request": read}] * 2}
            answer = (await client.post("/fhir/r4", json=bundle, headers=JSON)).json()
            assert answer["type"] == f"{kind}-response"
            for each in answer["entry"]:
                assert len(each["resource"]["entry"]) == 2
                assert each["resource"]["link"][0]["url"].startswith(f"{client.base_url}/fhir/r4/Patient")
            assert kept.requests == []

    ran(scenario())


def test_an_entry_of_a_batch_that_reads_stands_among_those_that_write(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            asked = [
                {"request": {"method": "GET", "url": "Patient/none"}},
                {"resource": PATIENT, "request": {"method": "POST", "url": "Patient"}},
                {"request": {"method": "HEAD", "url": "Patient"}},
                {"request": {"method": "GET", "url": "Patient"}},
            ]
            bundle = {"resourceType": "Bundle", "type": "batch", "entry": asked}
            answer = (await client.post("/fhir/r4", json=bundle, headers=JSON)).json()
            assert [each["response"]["status"][:3] for each in answer["entry"]] == ["404", "201", "422", "200"]

    ran(scenario())


def test_a_refusal_in_xml_quotes_nothing_that_xml_cannot_write(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            refused = await client.get("/fhir/r4/Patient?%EF%BF%BF=1&_format=xml")
            assert refused.status_code == 400
            assert b"OperationOutcome" in refused.content

    ran(scenario())


def test_an_answer_that_cannot_be_written_is_told_in_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, kept):
            kept.answers = Answer(200, {}, {"resourceType": "NoType"})
            failed = await client.post("/fhir/r4/Patient?_format=xml", json=PATIENT, headers=JSON)
            assert (failed.status_code, said(failed)["code"]) == (500, "exception")

    ran(scenario())


def test_a_body_that_only_trickles_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_http, "SLOW_AFTER_S", 0)
    monkeypatch.setattr(fhir_http, "LEAST_BYTES_PER_S", 10**12)

    async def scenario() -> None:
        async with served(tmp_path) as (client, _):
            assert (await posted(client)).status_code == 408

    ran(scenario())


def test_what_has_not_arrived_takes_no_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        gate = asyncio.Event()

        async def never() -> Any:
            yield b"{"
            await gate.wait()

        async with served(tmp_path, limits={"body_bytes_max": 128 * 1_048_576}) as (client, _):
            waiting = [
                asyncio.ensure_future(client.post("/fhir/r4/Patient", content=never(), headers=JSON)) for _ in range(3)
            ]
            try:
                assert (await posted(client)).status_code == 201
            finally:
                for each in waiting:
                    each.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    ran(scenario())
