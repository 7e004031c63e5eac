"""What `gateway check` finds of the door of FHIR: keys and files that cannot be used, and what would travel in clear.

What may live here: checks of `fhir:` against the files beside it and against where the gateway listens. Nothing is
fetched. Paths of problems are below `fhir`.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gateway.domain.access import is_this_machine
from gateway.domain.problem import one_of
from gateway.fhir_settings import FHIRTLS, FHIRClientSettings, FHIRCredentials, FHIRFeedSettings, FHIRSettings
from gateway.wire.fhir_release import Release

Found = tuple[list[str], str, str]
"""Where in `fhir`, what is wrong, and what to do."""

_RELATIVE = "paths are relative to this file"


@dataclass(frozen=True, slots=True)
class Listening:
    """Where HTTP is served: on loopback alone or not, without TLS, with TLS, and whether TLS asks for certificates."""

    loopback: bool
    plain: bool
    tls: bool
    certificates: bool


def is_published(jwks: str) -> bool:
    """Whether keys are fetched from an address; else it is a file."""
    return jwks.startswith(("https://", "http://"))


def is_safe(url: str) -> bool:
    """Whether what is sent there stays between us and that server: by TLS, or on this machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_this_machine(parts.hostname or ""))


def fhir_problems(
    base: Path, fhir: FHIRSettings, listening: Listening, written_to: Collection[str] = ()
) -> Iterator[Found]:  # fmt: skip
    """Everything that is wrong; `base` is the folder of the configuration, `written_to` are the feeds to whose servers
    destinations write."""
    for number, client in enumerate(fhir.clients):
        for where, text, hint in _client_problems(base, client, listening):
            yield ["clients", str(number), *where], text, hint
    if any(client.client_id for client in fhir.clients) and not listening.loopback:
        yield from _way_problems(fhir, listening)
    if fhir.asks_for_proof and not fhir.clients and not any(feed.subscription for feed in fhir.feeds):
        yield (
            ["clients"], "others see the server (fhir.url), and nobody could use it: everybody has to prove who it is "
            "then, since what a proxy on this machine passes on is not told from this machine's own",
            "name the clients, or leave `url` empty",
        )  # fmt: skip
    for number, feed in enumerate(fhir.feeds):
        for where, text, hint in server_problems(base, feed.url, feed.credentials, feed.tls):
            yield ["feeds", str(number), *where], text, hint
        for where, text, hint in _feed_problems(fhir, feed, feed.name in written_to):
            yield ["feeds", str(number), *where], text, hint


def mapping_problems(fhir: FHIRSettings, known: Collection[str], languages: Mapping[str, str]) -> Iterator[Found]:
    """Rule sets that are not there, or read something else; `known` are all names, `languages` say what those without a
    problem read."""
    named = [(["mapping"], fhir.mapping, Release.R4), (["mapping_r5"], fhir.mapping_r5, Release.R5)]
    named += [
        (["feeds", str(number), "mapping"], feed.mapping, feed.release)
        for number, feed in enumerate(fhir.feeds) if feed.mapping
    ]  # fmt: skip
    for where, name, release in named:
        fitting = [each for each, language in languages.items() if language in _READ_BY[release]]
        if name not in known:
            yield where, f"there is no mapping {name!r}", one_of(name, fitting)
        elif name in languages and name not in fitting:
            yield where, f"{name!r} does not read FHIR {release}", one_of(name, fitting)


_READ_BY: Mapping[Release, frozenset[str]] = {
    Release.R4: frozenset({"R4"}), Release.R4B: frozenset({"R4", "R4B"}), Release.R5: frozenset({"R5"}),
}  # fmt: skip


def _feed_problems(fhir: FHIRSettings, feed: FHIRFeedSettings, written_to: bool) -> Iterator[Found]:
    """What keeps orders from being fetched."""
    poll, told = feed.poll, feed.subscription
    if poll is None and told is None and not written_to:
        yield ["poll"], f"nothing is fetched from {feed.name}", "say `poll: {}`, or `subscription: {}`"
    for number, search in enumerate(poll.search if poll is not None else ()):
        why = _search_fault(search)
        if why:
            yield (
                ["poll", "search", str(number)],
                why,
                "write TYPE?parameter=value, such as ServiceRequest?status=active",
            )
    if told is None:
        return
    why = _search_fault(told.criteria) if told.criteria or not told.topic else ""
    if why:
        yield ["subscription", "criteria"], why, "write TYPE?parameter=value, such as ServiceRequest?status=active"
    if not told.topic and feed.release is Release.R5:
        yield ["subscription", "topic"], "subscriptions of R5 have a topic", "name one that the server offers, or poll"
    if told.client and told.client not in {each.name for each in fhir.clients}:
        names = [each.name for each in fhir.clients]
        yield ["subscription", "client"], f"`fhir.clients` has no {told.client!r}", one_of(told.client, names)
    if told.register_there and not fhir.url:
        yield (
            ["subscription"],
            "the server cannot be told where to notify us",
            "say by which address it sees us: fhir.url",
        )
    if not told.register_there and not told.secret and not told.client:
        yield (
            ["subscription", "secret"], "nobody could know that a notification is from this server",
            "write the secret that was given to whoever made the subscription, or name a `client`",
        )  # fmt: skip
    if fhir.url and not is_safe(fhir.url):
        yield ["subscription"], "the secret of notifications would travel in clear", "let fhir.url be https://"


def _search_fault(search: str) -> str:
    """What is wrong with a search, '' for nothing."""
    if not _SEARCH.fullmatch(search):
        return f"{search!r} is no search of one type of resources"
    names = {each.partition("=")[0] for each in search.partition("?")[2].split("&")}
    put = sorted(names & {"_lastUpdated", "_sort", "_count"})
    return f"{put[0]} is put to the search by the gateway" if put else ""


_SEARCH = re.compile(r"[A-Z][A-Za-z]{1,63}(\?[!-~]+)?")


def server_problems(base: Path, url: str, credentials: FHIRCredentials | None, tls: FHIRTLS) -> Iterator[Found]:
    """What is wrong with how we call another server; `url` is '' where another block says it."""
    if url and not is_safe(url):
        hint = "write https://, or let a tunnel on this machine lead there"
        yield ["url"], "orders, and tokens for them, would travel in clear", hint
    for what in ("ca", "crl", "certificate", "key"):
        name = getattr(tls, what)
        if name and not (base / name).is_file():
            yield ["tls", what], f"there is no file {name}", _RELATIVE
    if credentials is None:
        return
    from gateway.smart_keys import read_signing_key  # late: it brings libraries that few sites need

    yield from _unreadable(["credentials", "key"], base, credentials.key, read_signing_key,
                           "`gateway fhir keys` makes a pair")  # fmt: skip
    if credentials.token_url and not is_safe(credentials.token_url):
        yield ["credentials", "token_url"], "tokens would travel in clear", "write https://"


def _client_problems(base: Path, client: FHIRClientSettings, listening: Listening) -> Iterator[Found]:
    if client.jwks_ca and not (base / client.jwks_ca).is_file():
        yield ["jwks_ca"], f"there is no file {client.jwks_ca}", _RELATIVE
    if is_published(client.jwks):
        if not is_safe(client.jwks):
            yield ["jwks"], "its keys could be changed on the way", "write https://, or keep them in a file"
    elif client.jwks:
        from gateway.identity_keys import read_keys  # late, as above

        yield from _unreadable(["jwks"], base, client.jwks, read_keys, "ask the client's maker for its public keys")
    if client.certificates and not (listening.tls and listening.certificates):
        why = "no port of http speaks TLS" if not listening.tls else "http.tls asks nobody for a certificate"
        hint = (
            "add `http: {tls: {port: ...}}` with `clients: required` or `requested`, or give it `client_id` and `jwks`"
        )
        yield ["certificates"], f"{client.name} can never show its certificate: {why}", hint


def _way_problems(fhir: FHIRSettings, listening: Listening) -> Iterator[Found]:
    if listening.plain and not fhir.url.startswith("https://"):
        yield (
            ["clients"], "tokens would travel in clear: http listens without TLS for other machines",
            "say `http: {plain: false, tls: {port: ...}}`, or let it listen on 127.0.0.1 behind a proxy that speaks "
            "TLS, and say `fhir: {url: https://...}`",
        )  # fmt: skip
    if not fhir.url:
        yield (
            ["url"], "a client could be led to sign for another server's token address and be used here",
            "say the address by which others see /fhir: its /token is what assertions have to be for (aud)",
        )  # fmt: skip


def _unreadable(where: list[str], base: Path, name: str, read: Callable[[Path], object], hint: str) -> Iterator[Found]:
    try:
        read(base / name)
    except OSError as error:
        yield where, f"{name}: {(error.strerror or type(error).__name__).lower()}", _RELATIVE
    except ValueError as error:
        yield where, f"{name} {error}", hint
