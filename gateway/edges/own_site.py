"""Whether an HTTP request comes from this machine and means this site, and is not another site's page in a browser.

What may live here: the checks that stand in for authentication on loopback. A browser on this machine must not be led
to a server by another site's page (cross-site request forgery, DNS rebinding).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.domain.access import is_this_machine


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request is not answered, and what to do."""

    text: str
    hint: str


def loopback_fault(peer: str | None, headers: Mapping[str, str]) -> Fault | None:
    """Why this is no request of a program on this machine to this machine; names of headers in lower case."""
    here = "call it on loopback, such as http://127.0.0.1"
    if peer is None or not is_this_machine(peer):
        return Fault("only callers on this machine are answered", here)
    if not is_this_machine(_name_of(f"//{headers.get('host', '')}")):
        return Fault("the Host header names another machine", here)
    return page_fault(headers)


def page_fault(headers: Mapping[str, str]) -> Fault | None:
    """Why this is a request that another site's page makes, with whatever the browser adds of its own accord."""
    origin = headers.get("origin")
    is_strange = origin is not None and _place_of(origin) != headers.get("host", "").lower()
    if is_strange or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return Fault("another site's page asks for it", "call it from a program")
    return None


def _name_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _place_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
