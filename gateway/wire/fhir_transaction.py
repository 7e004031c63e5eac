"""Transaction Bundles that tell another FHIR server how an order gets on: as they wait, and as they are sent.

What waits says what is to be told, in words and resources of ours (`draft`). Which of it is news, and what the resource
is called there, is known when the server was asked: `asked` says what to look up, `settled` makes what is sent. Pure.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from gateway.domain.resources import Resource
from gateway.wire.fhir_elements import said_only
from gateway.wire.fhir_performance import OURS
from gateway.wire.fhir_status import TOLD, merged, renewed


class Overruled(NamedTuple):
    """That a status on the other server is our own word: the one that stands there, and the one that its owner said."""

    ours: str
    sent: str


def draft(
    control_id: str, parts: Sequence[tuple[str, Resource]], made: Sequence[Resource],
    overruled: Mapping[str, Overruled] | None = None, former_subject: str = "",
) -> Resource:  # fmt: skip
    """A Bundle of words for resources that are there (each with `Task/7` or `ServiceRequest?identifier=...`), and of
    resources of ours, whose references to each other become those of the Bundle.

    A word's own `id` is what our resources call it, where they refer to it. `overruled` are the statuses there, by
    those addresses, that we said ourselves. `former_subject` is who was merged into the subject of our resources: where
    the order there still names that patient, ours go before.
    """
    names = {f"{each['resourceType']}/{each['id']}": f"urn:uuid:{each['id']}" for each in made}
    entries: list[dict[str, Any]] = [
        {
            "fullUrl": f"urn:uuid:{word['id']}",
            "resource": {key: value for key, value in word.items() if key != "id"},
            "request": {"method": "PUT", "url": url, **_known((overruled or {}).get(url))},
        }
        for url, word in parts
    ]
    for each in made:
        resource = {key: value for key, value in each.items() if key != "id"}
        url = _by_identifier(each)
        request = {"method": "PUT", "url": url} if url else {"method": "POST", "url": each["resourceType"]}
        if former_subject and "subject" in resource:
            request |= {"extension": [{"url": _FORMER, "valueUri": former_subject}]}
        entries.append(
            {"fullUrl": f"urn:uuid:{each['id']}", "resource": renamed(resource, names), "request": request}
        )  # fmt: skip
    return {"resourceType": "Bundle", "id": control_id, "type": "transaction", "entry": entries}


_OVERRULED = f"{OURS}#overruled"
"""Extension of what waits, not of what is sent: an `Overruled`."""


_FORMER = f"{OURS}#former-subject"
"""Likewise, of what has a subject: the patient who was merged into that one."""


def _known(overruled: Overruled | None) -> dict[str, Any]:
    if overruled is None:
        return {}
    said = [{"url": name, "valueCode": code} for name, code in overruled._asdict().items()]
    return {"extension": [{"url": _OVERRULED, "extension": said}]}


def _sent(entry: Resource, there: Resource) -> str:
    """The status that its owner says where the one that is there is our word; '' where that is its owner's own."""
    for each in entry["request"].get("extension") or ():
        if each.get("url") == _OVERRULED:
            overruled = Overruled(**{part["url"]: part["valueCode"] for part in each["extension"]})
            return overruled.sent if there.get("status") == overruled.ours else ""
    return ""


def query_of(kind: str, identifier: Mapping[str, Any]) -> str:
    """The search that finds a resource by an identifier: `Task?identifier=system|value`, encoded."""
    system, value = (str(identifier.get(key, "")) for key in ("system", "value"))
    said = f"{_token(system)}|{_token(value)}" if system else _token(value)
    return f"{kind}?identifier={quote(said, safe='')}"


def _token(text: str) -> str:
    for sign in "\\,$|":
        text = text.replace(sign, f"\\{sign}")
    return text


def _by_identifier(resource: Resource) -> str:
    first = next((each for each in resource.get("identifier") or () if each.get("system")), None)
    return query_of(str(resource["resourceType"]), first) if first is not None else ""


def asked(bundle: Resource) -> Sequence[str]:
    """What to look up before this is sent: `Task/7` to read, or a search that finds at most one."""
    return list(dict.fromkeys(e["request"]["url"] for e in bundle["entry"] if e["request"]["method"] == "PUT"))


def shared(bundle: Resource) -> Collection[str]:
    """Searches by which several resources of ours would be found: nobody can tell which one is meant."""
    urls = [entry["request"]["url"] for entry in bundle["entry"] if entry["request"]["method"] == "PUT"]
    return {url for url in urls if urls.count(url) > 1}


def settled(
    bundle: Resource, found: Mapping[str, Resource | None], unclear: Collection[str] = ()
) -> Resource | None:  # fmt: skip
    """What to send, after what is there was `found` (by what `asked` said); None where it is no news there.

    Words for what is not there are left out, and so are those that its status does not take any more, and all for which
    it is `unclear` what is meant there. Every change goes with the version that was read (`ifMatch`).
    """
    names: dict[str, str] = {}
    sent: list[dict[str, Any]] = []
    missing: set[str] = set()
    people = _people(bundle, found)
    for entry in bundle["entry"]:
        resource, url = entry["resource"], entry["request"]["url"]
        if entry["request"]["method"] != "PUT":
            continue
        kind, there = resource["resourceType"], found.get(url)
        if there is not None:
            names[entry["fullUrl"]] = f"{kind}/{there['id']}"
        elif kind in TOLD or url in unclear:
            missing.add(entry["fullUrl"])
    for entry in bundle["entry"]:
        resource, url = entry["resource"], entry["request"]["url"]
        if entry["request"]["method"] != "PUT":
            continue
        if url in unclear:
            continue
        kind, there = resource["resourceType"], found.get(url)
        if kind in TOLD:
            new = merged(there, resource, _sent(entry, there)) if there is not None else None
        else:
            told = renamed({**resource, **_fitting(entry, people)}, names, missing)
            new = renewed(there, told)
        if new is not None:
            sent.append(_entry(entry["fullUrl"], new, there, url))
    if not sent:
        return None
    changed = {each["fullUrl"] for each in sent}
    for entry in bundle["entry"]:
        if entry["request"]["method"] == "POST":
            resource = entry["resource"]
            targets = [each for each in resource.get("target") or () if each.get("reference") in changed]
            if targets:
                told = renamed({**resource, "target": targets}, names, missing)
                sent.append({"fullUrl": entry["fullUrl"], "resource": told, "request": dict(entry["request"])})
    for each in sent:
        if each["fullUrl"] in names:
            del each["fullUrl"]
    return {"resourceType": "Bundle", "type": "transaction", "entry": sent}


def _entry(full_url: str, new: Resource, there: Resource | None, url: str) -> dict[str, Any]:
    if there is None:
        return {"fullUrl": full_url, "resource": new, "request": {"method": "PUT", "url": url}}
    request: dict[str, Any] = {"method": "PUT", "url": f"{new['resourceType']}/{there['id']}"}
    version = (there.get("meta") or {}).get("versionId")
    if version:
        request["ifMatch"] = f'W/"{version}"'
    return {"fullUrl": full_url, "resource": {**new, "id": there["id"]}, "request": request}


def _people(bundle: Resource, found: Mapping[str, Resource | None]) -> Mapping[str, Any]:
    """Whom the order there is about, by the words of that server: subject and encounter."""
    for entry in bundle["entry"]:
        there = found.get(entry["request"]["url"])
        if there is not None and there.get("resourceType") == "ServiceRequest":
            return {name: there[name] for name in ("subject", "encounter") if there.get(name)}
    return {}


def _fitting(entry: Resource, people: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of them that a resource of ours has place for: what has a subject may have an encounter. Not a patient who
    was merged into its subject."""
    if "subject" not in entry["resource"]:
        return {}
    former = {each.get("valueUri") for each in entry["request"].get("extension") or () if each.get("url") == _FORMER}
    named = "/".join(str((people.get("subject") or {}).get("reference", "")).split("/")[-2:])
    return {name: each for name, each in people.items() if name != "subject" or named not in former}


def renamed(value: Any, names: Mapping[str, str], missing: frozenset[str] | set[str] = frozenset()) -> Any:
    """The value with references called by other names, and without those to what is `missing`."""
    if isinstance(value, list):
        return [renamed(each, names, missing) for each in value]
    if not isinstance(value, Mapping):
        return value
    made = {key: renamed(each, names, missing) for key, each in value.items()}
    reference = made.get("reference")
    if isinstance(reference, str):
        if reference in missing:
            del made["reference"]
        else:
            made["reference"] = names.get(reference, reference)
    return said_only(made) if isinstance(reference, str) else made
