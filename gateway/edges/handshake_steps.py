"""What a connection by TLS comes to, step by step, and whether files of certificates will do; both for people.

What may live here: the steps in their order with words. A step that failed says what to do, and ends the walk where
nothing can come after it.
"""

import ssl
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from gateway.edges import handshake_probe as probe
from gateway.edges.certificates import (
    CertificateFileError,
    Facts,
    allows,
    blocks_of,
    certificates_in,
    content_of,
    facts_of,
    fits_key,
    holds_key,
    is_odd,
    issued_by,
    key_in,
    lists_in,
    others_may_read,
    path_to,
    signed_by,
    weaknesses,
)
from gateway.edges.channel import why
from gateway.edges.handshake_words import Explained, Phase, Reason, Side, explained
from gateway.edges.tls import TLSFileError, client_context, looking_context

NEARLY_DAYS = 60
"""So long before its end a certificate is told of."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step, and what it came to. `fine` is None for what is only told."""

    what: str
    fine: bool | None
    text: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Files:
    """Files of ours that a connection is tried with; '' for none."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    crl: str = ""


# --- a connection -----------------------------------------------------------------------------------------------------


def connection_steps(host: str, port: int, name: str, files: Files, at: datetime, timeout_s: float) -> Iterator[Step]:
    """What a connection to this peer comes to, as a client that calls it `name`."""
    try:
        addresses = probe.addresses_of(host, port)
    except OSError as error:
        yield Step("name", False, f"{host}: {why(error)}", "compare it with the DNS, or write its address")
        return
    yield Step("name", True, f"{host} is {', '.join(addresses)}")
    try:
        looking = looking_context(files.certificate, files.key)
        checking = client_context(files.ca, files.certificate, files.key, files.crl) if files.ca else None
    except TLSFileError as error:
        yield Step("our files", False, error.text, error.hint)
        return
    try:
        connection, address = probe.connected(addresses, port, timeout_s)
    except OSError as error:
        yield Step(
            "TCP", False, f"port {port}: {why(error)}", "is it running there, and does a firewall let us through?"
        )
        return
    yield Step("TCP", True, f"{address} took a connection on port {port}")
    seen = probe.shake_hands(connection, name, looking)
    yield from _looked_at(seen, name, bool(files.certificate), at)
    if not seen.chain:
        return
    peer = _facts(seen.chain[0])
    if checking is None:
        yield Step("trust", None, "nobody here says whom to trust", "name the authority's certificate with --ca")
    else:
        yield from _checked(addresses, port, name, checking, peer, timeout_s)
    yield from _ours(seen, bool(files.certificate))


def _looked_at(seen: probe.Seen, name: str, shown: bool, at: datetime) -> Iterator[Step]:
    if seen.error is not None and not seen.late and not (seen.chain and _about_ours(seen, shown)):
        failed = explained(seen.error, Side.CLIENT)
        yield Step(str(failed.phase), False, failed.what, failed.todo)
    elif seen.version:
        old = seen.version not in ("TLSv1.2", "TLSv1.3")
        yield Step(
            "version", not old, f"{seen.version}, {seen.suite}",
            "the service does not speak such an old version; ask the vendor for an update" if old else "",
        )  # fmt: skip
    for place, der in enumerate(seen.chain):
        facts = _facts(der)
        if facts is None:
            yield Step("certificate", False, "it shows a certificate that is damaged", "its owner has to replace it")
        elif place == 0:
            yield _stands("certificate", facts, at, Side.CLIENT)
            yield Step("names", None, f"it is for {', '.join(facts.names) or 'no host name'}; it is called {name}")
        else:
            yield _stands(f"authority {place}", facts, at, Side.CLIENT)


def _checked(
    addresses: Sequence[str], port: int, name: str, context: ssl.SSLContext, peer: Facts | None, timeout_s: float
) -> Iterator[Step]:
    """Once more, now as the service does it: version, chain and host name checked."""
    try:
        connection, _ = probe.connected(addresses, port, timeout_s)
    except OSError as error:
        yield Step("trust", False, f"a second connection failed: {why(error)}")
        return
    seen = probe.shake_hands(connection, name, context)
    failed = explained(seen.error, Side.CLIENT, peer) if seen.error is not None else None
    if failed is not None and failed.phase is Phase.PEER_CERTIFICATE:
        yield Step("trust", False, failed.what, failed.todo)
    elif failed is not None and failed.phase is Phase.HELLO and not seen.chain:
        yield Step("version", False, failed.what, failed.todo)
    else:
        yield Step("trust", True, f"the file of `ca` leads to its certificate, and that is for {name}")


def _ours(seen: probe.Seen, shown: bool) -> Iterator[Step]:
    asked = "it asks for a certificate of ours" if seen.asked else "it asks for no certificate of ours"
    if seen.error is not None and (seen.late or _about_ours(seen, shown)):
        failed = explained(seen.error, Side.CLIENT)
        late = (
            " after the handshake, as servers do in TLS 1.3" if seen.late and failed.reason is not Reason.CLOSED else ""
        )
        if not shown and seen.asked:
            yield Step("our certificate", False, f"{asked}, and without one it hangs up{late}",
                       "name one: --certificate and --key, or `tls` of the configuration")  # fmt: skip
            return
        yield Step("our certificate", False, f"{asked}; {failed.what}{late}", failed.todo)
    elif seen.error is None:
        taken = "and took it" if shown else "and goes on without one"
        yield Step("our certificate", True, f"{asked} {taken}" if seen.asked else asked)


def _about_ours(seen: probe.Seen, shown: bool) -> bool:
    """Whether a handshake failed because of our certificate, or the lack of it, for which TLS 1.2 has no alert."""
    if seen.error is None:
        return False
    failed = explained(seen.error, Side.CLIENT)
    without = seen.asked and not shown and failed.reason in (Reason.NO_SHARED_SUITE, Reason.CLOSED)
    return without or failed.reason is Reason.OURS_REFUSED


def _facts(der: bytes) -> Facts | None:
    try:
        return facts_of(der)
    except ValueError:
        return None


def _stands(what: str, facts: Facts, at: datetime, side: Side) -> Step:
    """How one certificate stands, by itself."""
    text = f"{facts.subject or 'without a subject'}, {facts.key}, signed by {facts.issuer}, {_period(facts)}"
    if facts.not_after <= at:
        return Step(what, False, f"{text}: it has expired", "it needs to be replaced")
    if facts.not_before > at:
        return Step(what, False, f"{text}: it is not valid yet", "compare the clocks")
    weak = [] if facts.authority else weaknesses(facts, side is Side.CLIENT)
    if weak:
        return Step(what, False, f"{text}: {'; '.join(weak)}", "it needs to be replaced")
    days = (facts.not_after - at).days
    return Step(what, True, text + (f": {days} days left" if days < NEARLY_DAYS else ""))


def _period(facts: Facts) -> str:
    return f"valid {facts.not_before:%Y-%m-%d} to {facts.not_after:%Y-%m-%d}"


# --- files ------------------------------------------------------------------------------------------------------------


def file_steps(files: Iterable[Path], at: datetime) -> Iterator[Step]:
    """Whether these files are good, and go together: keys with certificates, chains, revocation lists."""
    every = list(dict.fromkeys(files))
    certificates: list[tuple[Path, tuple[x509.Certificate, ...]]] = []
    keys, lists = [], []
    for file in every:
        try:
            data = content_of(file)
            if blocks_of(data, "CERTIFICATE") or data[:1] == b"\x30":
                held = certificates_in(file)
                odd = [place for place, each in enumerate(held, 1) if is_odd(each)]
                yield from (_odd(file, place, len(held)) for place in odd)
                good = tuple(each for place, each in enumerate(held, 1) if place not in odd)
                if good:
                    certificates.append((file, good))
            if holds_key(data):
                keys.append((file, key_in(file)))
                yield _private(file)
            if blocks_of(data, "X509 CRL"):
                lists.append((file, lists_in(file)))
            if not (blocks_of(data, "CERTIFICATE") or holds_key(data) or blocks_of(data, "X509 CRL")):
                certificates_in(file)  # says what it holds instead
        except CertificateFileError as error:
            yield Step(str(file), False, str(error).removeprefix(f"{file}: "))
    known = [each for _, held in certificates for each in held]
    roots = [each for each in known if facts_of(each).authority and issued_by(each, each)]
    for file, held in certificates:
        yield from _certificate_steps(file, held, known, roots, at)
    leaves = [held[0] for _, held in certificates if not facts_of(held[0]).authority]
    authorities = [each for each in known if facts_of(each).authority]
    for file, key in keys:
        yield _key_step(file, key, leaves or authorities)
    for file, revoking in lists:
        for listed in revoking:
            yield from _list_steps(file, listed, authorities, leaves, at)


def _odd(file: Path, place: int, of: int) -> Step:
    which = f"certificate {place} of {of}" if of > 1 else "its certificate"
    return Step(
        str(file), None, f"{which} has extensions that are damaged, or of a form that is not understood here; OpenSSL "
        "may take it, but nothing can be said of it", f"look at it: openssl x509 -text -noout -in {file}",
    )  # fmt: skip


def _private(file: Path) -> Step:
    mode = stat.S_IMODE(file.stat().st_mode)
    if others_may_read(file):
        return Step(str(file), False, "others than its owner can read or change this key", f"chmod 600 {file}")
    return Step(str(file), True, "a key, readable for its owner" + (" and group" if mode & stat.S_IRGRP else ""))


def _certificate_steps(
    file: Path, held: Sequence[x509.Certificate], known: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate], at: datetime,
) -> Iterator[Step]:  # fmt: skip
    for certificate in held:
        facts = facts_of(certificate)
        yield _stands(str(file), facts, at, Side.CLIENT if allows(facts, "server") else Side.SERVER)
    first = facts_of(held[0])
    if not roots or first.authority:
        return
    path = path_to(held[0], known, roots)
    if path is None:
        yield Step(
            f"{file}: chain", False, f"nothing here leads from {first.subject} to an authority: it was signed by "
            f"{first.issuer}", "put those between behind it into its file, and the authority's into that of `ca`",
        )  # fmt: skip
        return
    missing = [each for each in path[1:-1] if each not in held]
    between = f"; {facts_of(missing[0]).subject} is not in {file.name}, where callers need it" if missing else ""
    names = " <- ".join(facts_of(each).subject for each in path)
    yield Step(f"{file}: chain", not missing, names + between, "append it to the file" if missing else "")


def _key_step(file: Path, key: object, certificates: Sequence[x509.Certificate]) -> Step:
    own = [each for each in certificates if fits_key(each, key)]  # type: ignore[arg-type]  # what key_in gave
    if own:
        return Step(f"{file}: key", True, f"it is the key of {facts_of(own[0]).subject}")
    if not certificates:
        return Step(f"{file}: key", None, "there is no certificate among these files to compare it with")
    said = ", ".join(facts_of(each).subject for each in certificates)
    return Step(
        f"{file}: key", False, f"it is not the key of {said}", "name the key that the certificate was made with"
    )


def _list_steps(
    file: Path, listed: x509.CertificateRevocationList, authorities: Sequence[x509.Certificate],
    leaves: Sequence[x509.Certificate], at: datetime,
) -> Iterator[Step]:  # fmt: skip
    issuer, ends = listed.issuer.rfc4514_string(), listed.next_update_utc
    text = f"revocation list of {issuer} with {len(listed)} revoked, " + (
        f"good until {ends:%Y-%m-%d}" if ends else "without an end"
    )
    if ends is not None and ends <= at:
        yield Step(str(file), False, f"{text}: too old, so everybody is refused", "renew it: `gateway certs crl`")
    elif not any(signed_by(listed, each) for each in authorities) and authorities:
        yield Step(str(file), False, f"{text}: of none of these authorities", "fetch the list of the authority in `ca`")
    else:
        yield Step(str(file), True, text)
    for each in leaves:
        if each.issuer == listed.issuer and listed.get_revoked_certificate_by_serial_number(each.serial_number):
            yield Step(str(file), False, f"{facts_of(each).subject} is revoked by it", "it needs to be replaced")


# --- who trusts it ----------------------------------------------------------------------------------------------------


def trusting(der: bytes, between: Sequence[bytes], files: Iterable[Path]) -> list[str]:
    """Names of those files of authorities that lead to this certificate."""
    certificate = x509.load_der_x509_certificate(der)
    others = [x509.load_der_x509_certificate(each) for each in between]
    found = []
    for file in files:
        try:
            trusted = certificates_in(file)
        except CertificateFileError:
            continue
        if path_to(certificate, others, trusted) is not None:
            found.append(str(file))
    return found


def shown_by(host: str, port: int, name: str, timeout_s: float) -> tuple[list[bytes], Explained | None]:
    """The certificates that a peer shows, and why there are none. Raises OSError where it cannot be reached."""
    connection, _ = probe.connected(probe.addresses_of(host, port), port, timeout_s)
    seen = probe.shake_hands(connection, name, looking_context())
    if seen.chain:
        return seen.chain, None
    return [], explained(seen.error or ssl.SSLEOFError(), Side.CLIENT)
