"""What a FHIR request asks for, entry by entry, and what came of each: between HTTP, Bundles and the use cases.

Reading these out of requests is `fhir_bundle` and the HTTP edge; doing them is `workflow.fhir_server`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from gateway.domain.refusal import Refusal
from gateway.domain.resources import Resource, ResourceKey
from gateway.wire.fhir_negotiation import Returned
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_search import COUNT_MAX


class Verb(StrEnum):
    """The interactions that are taken (http.html of the specification)."""

    CREATE = "create"
    UPDATE = "update"
    PATCH = "patch"
    DELETE = "delete"
    READ = "read"
    SEARCH = "search"


@dataclass(frozen=True, slots=True)
class Interaction:
    """One thing asked for. `where` is where it stands in the request (`Bundle.entry[2]`), '' for the whole of it.

    `id` names the resource; `query` is the search string of a conditional update, patch or delete, or of a search;
    `if_none_exist` that of a conditional create; `if_match` is a version number, `*` for one that is held, '' for any.
    `full_url` is what other entries of the same Bundle call it. `notes` are remarks of whoever checked the resource,
    for its sender. `if_none_match` of a change is `*`: only where nothing is held; of a read it is what its sender has
    already, as is `if_modified_since` (an HTTP date, or an instant). `by_number`: the query is ours, made of the
    resource's own identifier; nobody asked for a search.
    """

    verb: Verb
    type: str
    id: str = ""
    resource: Resource | None = field(default=None, repr=False)
    patch: Sequence[Mapping[str, Any]] | Resource | None = field(default=None, repr=False)
    query: str = field(default="", repr=False)
    if_none_exist: str = field(default="", repr=False)
    if_match: str = ""
    full_url: str = ""
    where: str = ""
    notes: tuple[str, ...] = field(default=(), repr=False)
    if_none_match: str = ""
    if_modified_since: str = ""
    by_number: bool = False


class Kind(StrEnum):
    """What a request is as a whole."""

    SINGLE = "single"
    TRANSACTION = "transaction"
    BATCH = "batch"
    MESSAGE = "message"
    FETCHED = "fetched"
    """Resources as another server has them: they keep their ids."""


@dataclass(frozen=True, slots=True)
class FHIRRequest:
    """A request that may change something. `raw` is as it came, for the archive; `kind` says what is all or nothing.

    `source` is whose name space the ids are of: `release.base` for our own server, a feed's name for what was fetched.
    `message_id` names a message (MessageHeader.id or Bundle.identifier), by which a repeat is known.
    `sender` is the client that was authenticated, or the feed.
    """

    kind: Kind
    source: str
    release: Release
    interactions: tuple[Interaction, ...]
    raw: bytes = field(repr=False)
    peer: str = ""
    sender: str = ""
    message_id: str = ""
    event: str = ""
    """What the archive calls it: `POST ServiceRequest`, `transaction`, `message`."""
    header: Resource | None = field(default=None, repr=False)
    """The MessageHeader of a message: its answer goes by it."""
    base: str = ""
    """The URL of the base that was called: absolute references that begin with it are to resources of ours."""
    notes: tuple[str, ...] = field(default=(), repr=False)
    """Remarks of whoever read it, for its sender."""
    may_read: frozenset[str] | None = None
    """The types that its sender may read: what is held of others is not told. None: all of them."""
    may_search: frozenset[str] | None = None
    """The types that its sender may search, by conditions and conditional references as well. None: all of them."""
    page_max: int = COUNT_MAX
    """Most resources that a search in it finds."""
    unreadable: Mapping[int, tuple[Refusal, ...]] = field(default_factory=dict, repr=False)
    """Of a batch: the entries that are no interaction, by their numbers, and why."""
    returned: Returned | None = None
    """What the sender prefers to have of each change in a Bundle; None: it does not say."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one interaction. `status` is the HTTP status; `notes` are for an OperationOutcome."""

    status: int
    key: ResourceKey | None = None
    version: int = 0
    updated_at: datetime | None = None
    resource: Resource | None = field(default=None, repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)
    refusals: tuple[Refusal, ...] = field(default=(), repr=False)
