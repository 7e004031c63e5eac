"""`gateway fhir`: who may call our FHIR server, whether its key would let it in, a key pair of our own, and a look at
one resource or number: what is held, how it came, what it became.

What may live here: what people ask of FHIR. No private key and no token is ever shown. A look shows patient data: it is
for people with the right to see it.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.console import (
    CONFIG,
    ConfigOption,
    JSONOption,
    fail,
    moment,
    out,
    print_json,
    print_table,
    site_of,
    store_at,
)

if TYPE_CHECKING:
    from datetime import tzinfo

    from gateway.config import Site
    from gateway.domain.resources import ResourceKey
    from gateway.edges.smart_tokens import TokenAnswer
    from gateway.fhir_settings import FHIRClientSettings, FHIRSettings
    from gateway.smart_keys import SigningKey
    from gateway.workflow.fhir_look import Look

fhir = typer.Typer(
    no_args_is_help=True, help="FHIR: clients of our server, our own keys for others, and a look at one resource."
)

KEY_FILE, PUBLIC_FILE = "fhir-client.pem", "fhir-client.jwks.json"


@fhir.command("clients")
def fhir_clients(config: ConfigOption = CONFIG, json_output: JSONOption = False) -> None:
    """Who may call our FHIR server, by what proof, from where, and what it may do."""
    site = site_of(config)
    said = site.settings.fhir
    found = [
        {
            "name": each.name, "client_id": each.client_id, "proof": _proof(each), "keys": each.jwks,
            "addresses": list(each.addresses), "scopes": list(each.scopes),
        }
        for each in (said.clients if said else ())
    ]  # fmt: skip
    if json_output:
        print_json(found)
        return
    rows = ((each["name"], each["client_id"], each["proof"], each["keys"], ", ".join(each["addresses"]) or "any",
             " ".join(each["scopes"])) for each in found)  # fmt: skip
    print_table(("Name", "Client ID", "Proof", "Keys", "From", "Scopes"), rows)
    if said is None:
        out.print("FHIR is not served: gateway.yaml has no `fhir`.", highlight=False)
    elif not found:
        served = "programs on this machine are let in without proof, nobody else"
        out.print(f"No clients: {'nobody is let in' if said.asks_for_proof else served}.", highlight=False)


def _proof(client: "FHIRClientSettings") -> str:
    proofs = ("token" if client.client_id else "", "certificate" if client.certificates else "")
    return " and ".join(filter(None, proofs))


@fhir.command("feeds")
def fhir_feeds(config: ConfigOption = CONFIG, json_output: JSONOption = False) -> None:
    """The servers that orders are fetched from: when the last look went well, what waits, how the subscription is."""
    from gateway.workflow.fhir_marks import Mark

    site = site_of(config)
    store = store_at(site)
    found = []
    for each in site.settings.fhir.feeds if site.settings.fhir else ():
        mark = Mark.of(store.reader.feed_mark(each.name))
        ways = ("poll" if each.poll else "", "subscription" if each.subscription else "")
        found.append({
            "name": each.name, "url": each.url, "release": each.release.value, "by": " and ".join(filter(None, ways)),
            "last_look": mark.looked, "pending": len(mark.pending), "behind": mark.is_behind,
            "subscription": mark.subscription, "status": mark.status,
        })  # fmt: skip
    if json_output:
        print_json(found)
        return
    rows = (
        (each["name"], each["url"], each["release"], each["by"], each["last_look"] or "never",
         f"{each['pending']}{' and a search' if each['behind'] and not each['pending'] else ''}",
         f"{each['subscription']} {each['status']}".strip())
        for each in found
    )  # fmt: skip
    print_table(("Name", "URL", "Release", "By", "Last look", "Waits", "Subscription"), rows)


@fhir.command("check")
def fhir_check(
    client: Annotated[str, typer.Argument(help="Its name in fhir.clients, or its client_id.")],
    key: Annotated[Path, typer.Option("--key", help="File of its private key (PEM or JWK).")],
    key_id: Annotated[str, typer.Option("--kid", help="Name of the key; default: as in the file.")] = "",
    scope: Annotated[str, typer.Option(help="What is asked for.")] = "system/*.cruds",
    config: ConfigOption = CONFIG,
) -> None:
    """Say whether this key would get the client a token, as the gateway would find. Nothing is asked of a running one.

    Addresses and TLS certificates are not looked at; keys that the client publishes are fetched.
    """
    from gateway.fhir_settings import FHIRSettings
    from gateway.smart_keys import read_signing_key

    try:
        signing = read_signing_key(key, key_id)
    except OSError as error:
        fail(f"{key}: {error.strerror}")
    except ValueError as error:
        fail(f"{key} {error}")
    site = site_of(config)
    said = site.settings.fhir or FHIRSettings()
    known = said.clients
    found = next((each for each in known if each.client_id and client in (each.name, each.client_id)), None)
    if found is None:
        fail(f"No client {client} of fhir.clients comes with tokens; see `gateway fhir clients`.")
    alone = found.model_copy(update={"addresses": (), "certificates": ()})
    settings = said.model_copy(update={"clients": (alone,)})
    answer = asyncio.run(_asked(site, settings, signing, scope))
    told = json.loads(answer.body)
    if answer.status != 200:
        fail(f"No token ({told['error']}): {told['error_description']}.")
    out.print(f"It would get a token for {told['expires_in']} s: {told['scope']}", highlight=False, markup=False)


async def _asked(site: "Site", settings: "FHIRSettings", key: "SigningKey", scope: str) -> "TokenAnswer":
    """What a door with one client answers it."""
    import time
    from urllib.parse import urlencode

    from gateway.edges.fhir_door import Door, DoorSettings, Knock
    from gateway.edges.metrics import Tally
    from gateway.edges.smart_tokens import ASSERTION_TYPE

    door = Door(DoorSettings(settings, site.file.parent, loopback=True, ca=site.settings.tls.ca), Tally())
    headers = [("content-type", "application/x-www-form-urlencoded"), ("host", "localhost")]
    knock = Knock("POST", "/fhir/token", headers=headers, peer="127.0.0.1")
    body = urlencode({
        "grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE, "scope": scope,
        "client_assertion": key.assertion(settings.clients[0].client_id, f"{door.base_of(knock)}/token", time.time()),
    })  # fmt: skip
    try:
        return await door.token(knock, body.encode())
    finally:
        await door.close()


@fhir.command("keys")
def fhir_keys(
    directory: Annotated[Path, typer.Argument(help="Where the two files go; it is made where it is not there.")],
    key_id: Annotated[str, typer.Option("--kid", help="Name of the key; default: its thumbprint (RFC 7638).")] = "",
) -> None:
    """Make a key pair (EC P-384, ES384) with which the gateway proves itself to other FHIR servers."""
    from gateway.smart_keys import jwks_of, new_key, pem_of
    from gateway.whole_files import write_whole

    private, public = directory / KEY_FILE, directory / PUBLIC_FILE
    for each in (private, public):
        if each.exists():
            fail(f"{each} exists already; nothing was written.")
    made = new_key(key_id)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(private, pem_of(made), secret=True)
        write_whole(public, jwks_of([made]))
    except OSError as error:
        fail(f"{directory}: {error.strerror}")
    for line in (
        f"{private}  the private key: name it in `credentials: {{key: ...}}`, show it to nobody",
        f"{public}  the public key {made.key_id}: register it with the other server",
    ):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


# --- a look -----------------------------------------------------------------------------------------------------------


_REFERENCE = re.compile(r"(?:\S*/)?([A-Z][A-Za-z]+)/([A-Za-z0-9.-]{1,64})(?:/_history/\S+)?")


@fhir.command("look")
def fhir_look(
    reference: Annotated[
        str,
        typer.Argument(
            help="A resource, such as ServiceRequest/o1, or its address; or an order, accession or patient number.",
            metavar="[REFERENCE]",
            show_default=False,
        ),
    ] = "",
    config: ConfigOption = CONFIG,
    base: Annotated[str, typer.Option(help="Of our server: r4, r4b or r5; default: wherever it is held.")] = "",
    feed: Annotated[str, typer.Option(help="Of the server of this feed.")] = "",
    number: Annotated[str, typer.Option(help="Instead: a number that looks like a reference.")] = "",
    json_output: JSONOption = False,
) -> None:
    """Why is it not on the list? One resource or number: what is held, how it came, what it became, what was sent."""
    from gateway.fhir_processing import fhir_feeds_of
    from gateway.site_tools import EXAMPLE_MINT
    from gateway.workflow.fhir_look import look, look_by_number

    reference, number = reference.strip(), number.strip()
    if bool(reference) == bool(number):
        raise typer.BadParameter("give one of them", param_hint="REFERENCE or --number")
    if base and feed:
        raise typer.BadParameter("give one of them", param_hint="--base or --feed")
    said = _REFERENCE.fullmatch(reference)
    number = number or reference
    site = site_of(config, fhir=True)
    sources = _sources(site, base, feed)
    feeds = fhir_feeds_of(site, EXAMPLE_MINT)
    reader = store_at(site).reader
    if said is None:
        found = look_by_number(reader, feeds, sources, number)
    else:
        keys = _keys(sources, said[1], said[2])
        first = next((key for key in keys if reader.resource(key) is not None), None)
        looks = (look(reader, feeds, key) for key in ([first] if first is not None else keys))
        found = next((each for each in looks if each is not None), None)
    if found is None:
        fail(_unknown(sources, said, number))
    if json_output:
        print_json(_look_as_json(found))
        return
    _print_look(found, site.zone)


def _keys(sources: Sequence[str], type_: str, id_: str) -> "Sequence[ResourceKey]":
    from gateway.domain.resources import ResourceKey

    return [ResourceKey(source, type_, id_) for source in sources]


def _sources(site: "Site", base: str, feed: str) -> Sequence[str]:
    """The name spaces that are looked into, the likeliest first."""
    from gateway.domain.problem import one_of
    from gateway.wire.fhir_release import Release

    settings = site.settings.fhir
    if settings is None:
        fail("FHIR is not served: gateway.yaml has no `fhir`.")
    bases, feeds = [each.base for each in Release], [each.name for each in settings.feeds]
    if base and base.lower() not in bases:
        raise typer.BadParameter(one_of(base, bases), param_hint="--base")
    if feed and feed not in feeds:
        fail(f"there is no feed {feed} ({one_of(feed, feeds)}); see `gateway fhir feeds`.")
    if base or feed:
        return [base.lower() or feed]
    return list(dict.fromkeys((settings.release.base, *bases, *feeds)))


def _unknown(sources: Sequence[str], said: "re.Match[str] | None", number: str) -> str:
    where = ", ".join(sources)
    if said is None:
        return (
            f"nothing with the number {number} is held ({where}), and no archived message names it. It is asked for "
            "whole; `gateway messages list` shows what came."
        )
    return (
        f"no {said[1]}/{said[2]} is held ({where}), and no archived request brought it. Is it the id that the gateway "
        "gave it? Look for its order by `gateway fhir look NUMBER`; `gateway messages list` shows what came."
    )


def _look_as_json(found: "Look") -> dict[str, Any]:
    from dataclasses import asdict

    key, held = found.key, found.held
    return {
        "sentence": found.sentence, "advice": found.advice,
        "resource": None if key is None else {
            "reference": key.reference, "source": key.source, "held": held is not None,
            **({"version": held.version, "updated": held.updated_at.isoformat(), "deleted": held.deleted,
                "release": held.release, "content": held.content} if held is not None else {}),
            "told": [asdict(each) for each in found.told],
        },
        "requests": [asdict(each) | {"at": each.at.isoformat()} for each in found.requests],
        "patients": list(found.patients),
        "steps": [asdict(each) for each in found.steps],
        "waits_for": list(found.waits_for), "notes": list(found.notes),
        "sent": [asdict(each) | {"at": each.at.isoformat()} for each in found.sent],
        "others": [{"reference": each.reference, "source": each.source} for each in found.others],
    }  # fmt: skip


def _print_look(found: "Look", zone: "tzinfo") -> None:
    """One screen: the sentence first, then what it rests on."""
    _line(found.sentence, style="bold")
    _line(f"To do: {found.advice}")
    key = found.key
    if key is not None:
        _head("Resource")
        _line(f"  {key.reference} of {key.source}, {_state(found, zone)}")
        for each in found.told:
            theirs = "nothing" if each.theirs is None else _shortly(each.theirs)
            _line(f"  the gateway tells {each.element} {_shortly(each.ours)}; its sender says {theirs}")
    _lines("Patient", found.patients)
    if found.steps:
        _head("Steps")
        print_table(
            ("Order", "Accession", "Step", "Status", "Station", "Start", "What"),
            ((each.placer or each.filler, each.accession, each.step, each.status, ", ".join(each.stations), each.start,
              each.description) for each in found.steps),
        )  # fmt: skip
    _lines("Waits for", found.waits_for)
    _lines("Notes", found.notes)
    if found.requests:
        _head("Came by")
        print_table(
            ("No.", "Received", "By", "From", "What", "Outcome", "Why"),
            ((each.number, moment(each.at, zone), each.listener, " ".join(filter(None, (each.sender, each.peer))),
              each.kind if each.brought else f"{each.kind} (same order)", each.outcome, next(iter(each.reasons), ""))
             for each in found.requests),
        )  # fmt: skip
    if found.sent:
        _head("Sent")
        print_table(
            ("No.", "When", "To", "What", "State", "Why"),
            ((each.number, moment(each.at, zone), each.destination, each.kind, each.state, each.reason)
             for each in found.sent),
        )  # fmt: skip
    _lines("Also", (f"{each.reference} of {each.source}" for each in found.others))


def _state(found: "Look", zone: "tzinfo") -> str:
    held = found.held
    if held is None:
        return "not held"
    done = (each for each in found.requests if each.brought and each.outcome not in ("refused", "unreadable"))
    last = next(done, None) if not held.deleted else None
    who = f", by {last.sender or last.peer} in request {last.number}" if last is not None else ""
    what = "deleted" if held.deleted else held.release
    return f"version {held.version}, {what}, of {moment(held.updated_at, zone)}{who}"


def _shortly(value: Any) -> str:
    """A value on one line; what is long is cut."""
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return said if len(said) <= _SHORT else f"{said[:_SHORT]}..."


_SHORT = 80


def _head(title: str) -> None:
    out.print()
    _line(title, style="bold")


def _lines(title: str, lines: Iterable[str]) -> None:
    said = list(lines)
    if said:
        _head(title)
    for line in said:
        _line(f"  {line}")


def _line(said: str, style: str = "") -> None:
    out.print(said, style=style or None, highlight=False, markup=False, soft_wrap=True)
