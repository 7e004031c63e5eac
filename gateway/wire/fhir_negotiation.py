"""What the headers of a FHIR request ask for: media types, releases, versions, what to return. Text in, values out.

Clauses are those of http.html of the specification (R4: 3.1.0). Nothing here knows what is inside a resource.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from enum import StrEnum

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire.fhir_release import Release


class Format(StrEnum):
    """How resources are written."""

    JSON = "json"
    XML = "xml"


class Sent(StrEnum):
    """What a body is, by its media type."""

    JSON = "json"
    XML = "xml"
    JSON_PATCH = "json patch"
    FORM = "form"


class Returned(StrEnum):
    """What a change is answered with (Prefer: return=)."""

    MINIMAL = "minimal"
    REPRESENTATION = "representation"
    OUTCOME = "OperationOutcome"


MEDIA_TYPES: Mapping[Format, str] = {Format.JSON: "application/fhir+json", Format.XML: "application/fhir+xml"}
"""What we write."""

READ: Mapping[str, Sent] = {
    "application/fhir+json": Sent.JSON,
    "application/json": Sent.JSON,
    "text/json": Sent.JSON,
    "application/json+fhir": Sent.JSON,  # DSTU2, still sent
    "application/fhir+xml": Sent.XML,
    "application/xml": Sent.XML,
    "text/xml": Sent.XML,
    "application/xml+fhir": Sent.XML,
    "application/json-patch+json": Sent.JSON_PATCH,
    "application/x-www-form-urlencoded": Sent.FORM,
}
"""Media types that are taken, and what they are."""

_FORMATS: Mapping[str, Format] = {
    **{name: Format(sent) for name, sent in READ.items() if sent in (Sent.JSON, Sent.XML)},
    "json": Format.JSON,
    "xml": Format.XML,
}
_ANY: Mapping[str, tuple[Format, ...]] = {
    "*/*": (Format.JSON, Format.XML),
    "application/*": (Format.JSON, Format.XML),
    "text/*": (Format.XML, Format.JSON),
    "text/html": (Format.JSON,),  # a browser that looks is answered rather than turned away
    "application/xhtml+xml": (Format.JSON,),
}

ACCEPTED_MAX = 32
"""Media types of one Accept header that are looked at; browsers send eight."""

REQUEST_ID_MAX = 128
"""Characters of X-Request-Id that are given back: twice what a UUID with a prefix needs."""

_REQUEST_ID = re.compile(rf"[\x21-\x7e]{{1,{REQUEST_ID_MAX}}}")
_ETAG = re.compile(r'(?:W/)?"([0-9]{1,18})"')
_OTHER_ETAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e]{0,200}")')
_PARAMETER = re.compile(r';\s*([A-Za-z-]+)\s*=\s*(?:"([^"]*)"|([^\s;,"]*))')
_RELEASES: Mapping[str, Release] = {
    **{release.parameter: release for release in Release},
    **{release.version: release for release in Release},
}


@dataclass(frozen=True, slots=True)
class Preference:
    """What `Prefer` asks for; None where it says nothing. `strict` is handling=strict: what is not understood is
    refused."""

    returned: Returned | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the answer is to look."""

    format: Format = Format.JSON
    pretty: bool = False

    def media_type(self, release: Release) -> str:
        """The Content-Type of an answer in this format."""
        return f"{MEDIA_TYPES[self.format]}; fhirVersion={release.parameter}; charset=utf-8"


def wanted(accept: str, said_format: str, said_pretty: str, release: Release) -> Wanted:
    """How an answer of `release` is to look: `_format` goes before Accept. Raises Refused: 406."""
    pretty = said_pretty.lower() == "true"
    if said_format:  # `+` is a blank where a form is decoded (3.1.0.1.11)
        name, _, rest = said_format.replace(" ", "+").partition(";")
        found = _FORMATS.get(name.lower())
        if found is None:
            raise Refused(_unacceptable("_format", "is no format that is written here"))
        _same_release(";" + rest, release, "_format")
        return Wanted(found, pretty)
    return Wanted(_accepted(accept, release), pretty)


def _accepted(accept: str, release: Release) -> Format:
    if not accept.strip():
        return Format.JSON
    ranges = [each.strip() for each in accept.split(",")[:ACCEPTED_MAX]]
    best = sorted((each for each in ranges if _quality(each) > 0), key=_quality, reverse=True)  # stable: else in order
    refusal: Refusal | None = None
    for each in best:
        name = each.partition(";")[0].strip().lower()
        formats = (_FORMATS[name],) if name in _FORMATS and "/" in name else _ANY.get(name, ())
        if not formats:
            continue
        try:
            _same_release(each, release, "Accept")
        except Refused as refused:  # another of the list may be of this release
            refusal = refused.refusals[0]
            continue
        return formats[0]
    raise Refused(refusal or _unacceptable("Accept", "names no format that is written here"))


def _quality(media_range: str) -> float:
    said = _parameters(media_range).get("q", "1")
    try:
        quality = float(said)
    except ValueError:
        return 0
    return quality if 0 <= quality <= 1 else 0


def sent(content_type: str, release: Release) -> Sent:
    """What a body with this Content-Type is. Raises Refused: 415, also where none is said."""
    name = content_type.partition(";")[0].strip().lower()
    if not name:
        raise Refused(_untaken("Content-Type", "is not said"))
    if name not in READ:
        raise Refused(_untaken("Content-Type", "is no format that is read here"))
    charset = _parameters(content_type).get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise Refused(Refusal(
            RefusalKind.UNSUPPORTED_TYPE, "Content-Type", "FHIR is written in UTF-8", "send it with charset=utf-8"
        ))  # fmt: skip
    _same_release(content_type, release, "Content-Type")
    return READ[name]


def _parameters(text: str) -> dict[str, str]:
    return {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(text)}


def _same_release(text: str, release: Release, where: str) -> None:
    said = _parameters(text).get("fhirversion")
    if said is None or said in (release.parameter, release.version):
        return
    other = _RELEASES.get(said)
    hint = f"that release is spoken at /fhir/{other.base}" if other else "4.0, 4.3 and 5.0 are spoken, each at its base"
    raise Refused(Refusal(
        RefusalKind.UNSUPPORTED_VERSION, where, f"this base speaks FHIR {release.parameter} ({release.value})", hint
    ))  # fmt: skip


def _unacceptable(where: str, text: str) -> Refusal:
    return Refusal(RefusalKind.UNSUPPORTED_TYPE, where, text, f"ask for {' or '.join(MEDIA_TYPES.values())}")


def _untaken(where: str, text: str) -> Refusal:
    return Refusal(RefusalKind.UNSUPPORTED_TYPE, where, text, f"send {' or '.join(MEDIA_TYPES.values())}")


def preference(prefer: str) -> Preference:
    """What `Prefer` asks for (RFC 7240). What it does not know is passed over, as the RFC says."""
    returned, strict = None, None
    for each in re.split(r"[,;]", prefer):
        name, _, value = (part.strip().strip('"') for part in each.partition("="))
        if name.lower() == "return":
            known = {each.value.lower(): each for each in Returned}
            returned = known.get(value.lower(), returned)
        elif name.lower() == "handling" and value.lower() in ("strict", "lenient"):
            strict = value.lower() == "strict"
    return Preference(returned, strict)


def etag(version: int) -> str:
    """The entity tag of a version (3.1.0.1.3)."""
    return f'W/"{version}"'


def version_of(said: str, where: str) -> str:
    """The version number that `If-Match` names; '' where it says nothing, `*` for whichever is held (RFC 9110 13.1.1).

    An entity tag that is none of ours is given back as it is: no version has it. Raises Refused for what is none.
    """
    said = said.strip()
    if said in ("", "*"):
        return said
    if not (found := _ETAG.fullmatch(said)):
        if other := _OTHER_ETAG.fullmatch(said):
            return other[1]
        raise Refused(Refusal(
            RefusalKind.BAD_VALUE, where, "is no version of a resource here", 'send the ETag as it was given: W/"3"'
        ))  # fmt: skip
    return str(int(found[1]))


def absent_only(said: str, where: str) -> str:
    """`If-None-Match` of a change: `*` where it is to be done only if nothing is held, else ''. Raises Refused."""
    said = said.strip()
    if said in ("", "*"):
        return said
    raise Refused(Refusal(
        RefusalKind.MALFORMED, where, "of a change this is * and nothing else", "send If-Match with the version"
    ))  # fmt: skip


def unchanged(none_match: str, modified_since: str, version: int, updated_at: datetime) -> bool:
    """Whether whoever reads has this version already: 304. If-None-Match goes before If-Modified-Since (RFC 9110)."""
    if none_match.strip():
        tags = [each.strip() for each in none_match.split(",")]
        return "*" in tags or any((found := _ETAG.fullmatch(tag)) and int(found[1]) == version for tag in tags)
    if not modified_since.strip():
        return False
    try:
        since = _time_of(modified_since)
    except (ValueError, TypeError, OverflowError):  # RFC 9110 13.1.3: one that cannot be read is passed over
        return False
    since = since if since.tzinfo else since.replace(tzinfo=UTC)
    return updated_at.replace(microsecond=0) <= since


def _time_of(said: str) -> datetime:
    """An HTTP date, or an instant as entries of Bundles have it. Raises ValueError, TypeError, OverflowError."""
    return datetime.fromisoformat(said) if said[:1].isdigit() else parsedate_to_datetime(said)


def http_date(at: datetime) -> str:
    """For Last-Modified."""
    return format_datetime(at.astimezone(UTC).replace(microsecond=0), usegmt=True)


def request_id(said: str) -> str:
    """What is given back as X-Request-Id: what was sent, where it is short and plain, else ''."""
    return said if _REQUEST_ID.fullmatch(said) else ""
