"""FHIR resources are read and searched, in a transaction or outside of one."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resource_search import Comparison, Criterion, How
from gateway.domain.resources import HeldResource, ResourceKey
from gateway.wire import fhir_references
from gateway.wire.fhir_bundle import searchset
from gateway.wire.fhir_capability import is_served
from gateway.wire.fhir_index import key_of, values_at
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Result, Verb
from gateway.wire.fhir_negotiation import unchanged
from gateway.wire.fhir_outcome import http_status
from gateway.wire.fhir_references import Way
from gateway.wire.fhir_search import Include, Search, cursor_of, parse, types_asked
from gateway.wire.fhir_search_parameters import parameters_of
from gateway.workflow.ports import ResourceReader

INCLUDED_MAX = 1000
"""Resources that a page has beside those that were found; a patient of many years may have more."""

READ_MAX = 2_000
"""Resources that one request reads, whatever its entries ask for: an answer of some ten megabytes."""

ROUNDS_MAX = 4
"""How far `:iterate` goes: from a Task to its order, whose requester, their practitioner and organization."""

_ASKED_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Page:
    """A page of what a search found. `total` is None where it was not counted, `cursor` '' on the last page."""

    matches: tuple[HeldResource, ...] = field(default=(), repr=False)
    included: tuple[HeldResource, ...] = field(default=(), repr=False)
    total: int | None = None
    cursor: str = ""


def read(reader: ResourceReader, key: ResourceKey, where: str = "") -> Result:
    """A resource as it is now: status 200, or 404 or 410 with its refusal (at `where`)."""
    held = reader.resource(key)
    if held is None or held.deleted:
        refusal = absent(held, where or key.type)
        return Result(410 if refusal.kind is RefusalKind.GONE else 404, key, refusals=(refusal,))
    return Result(200, key, held.version, held.updated_at, held.content)


def absent(held: HeldResource | None, where: str) -> Refusal:
    """Why there is nothing to be read or changed."""
    if held is not None and held.deleted:
        hint = "create it anew, or look for the one in its place"
        return Refusal(RefusalKind.GONE, where, "the resource was deleted", hint)
    return Refusal(RefusalKind.NO_SUCH_INSTANCE, where, "there is no such resource", "search for it, or create it")


def search(reader: ResourceReader, source: str, wanted: Search) -> Page:
    """A page of what is asked for, of this name space."""
    total = None
    if wanted.total or wanted.only_count:
        total = reader.count_resources(source, wanted.type, wanted.criteria)
    if wanted.only_count:
        return Page(total=total)
    matches, end = reader.page_of_resources(
        source, wanted.type, wanted.criteria, wanted.count, wanted.sorting, wanted.after
    )  # fmt: skip
    beside = _Including(reader, source, wanted).beside(matches)
    return Page(tuple(matches), tuple(beside), total, cursor_of(end) if end is not None else "")


def check_search(request: FHIRRequest, types: Iterable[str], where: str) -> None:
    """Raises Refused where the sender may not search for some of these types: what a search finds tells of them."""
    may = request.may_search
    denied = [
        each for each in sorted(types) if may is not None and each not in may and is_served(each, request.release)
    ]
    if denied:
        raise Refused(*(
            Refusal(
                RefusalKind.NOT_AUTHORISED, where, f"that asks for {each}, and needs the scope system/{each}.s",
                "ask for a token with it, or name the resource by its id",
            )
            for each in denied
        ))  # fmt: skip


class Reading:
    """What one request reads: each of its reads and searches by itself, as much as one answer holds."""

    def __init__(self, reader: ResourceReader, request: FHIRRequest, bases: Sequence[str]) -> None:
        self._reader, self._request, self._bases = reader, request, bases
        self._left = READ_MAX

    def each(self) -> tuple[Result, ...]:
        """What comes of every interaction, refusals as results. There are only reads and searches."""
        results = []
        for said in self._request.interactions:
            try:
                results.append(self.result(said))
            except Refused as refused:
                results.append(Result(http_status(refused.refusals), refusals=refused.refusals))
        return tuple(results)

    def result(self, said: Interaction) -> Result:
        """What comes of a read, or of a search its first page as a Bundle. Raises Refused at the entry's place."""
        where = f"{said.where}.request" if said.where else said.type
        if self._left <= 0:
            raise Refused(Refusal(
                RefusalKind.TOO_LONG, where, f"the entries before have brought {READ_MAX} resources",
                "search in requests of their own: those have pages",
            ))  # fmt: skip
        if said.verb is Verb.SEARCH:
            return self._searched(said)
        self._left -= 1
        found = read(self._reader, ResourceKey(self._request.source, said.type, said.id), where)
        if found.refusals:
            raise Refused(*found.refusals)
        has = said.if_none_match, said.if_modified_since
        if found.updated_at is not None and unchanged(*has, found.version, found.updated_at):
            return replace(found, status=304, resource=None)
        return found

    def _searched(self, said: Interaction) -> Result:
        where, request = f"{said.where}.request.url" if said.where else "", self._request
        try:
            wanted = parse(said.type, said.query, request.release, self._bases)
        except Refused as refused:
            raise Refused(*(
                replace(each, where=where or each.where, text=f"{each.where}: {each.text}")
                for each in refused.refusals
            )) from None  # fmt: skip
        check_search(request, types_asked(wanted), where)
        page = search(
            self._reader, request.source, replace(wanted, count=min(wanted.count, request.page_max, self._left))
        )
        self._left -= 1 + len(page.matches) + len(page.included)
        base = next((f"{each.rstrip('/')}/" for each in (request.base, *self._bases) if each), "")
        may_read = request.may_read
        included = [each for each in page.included if may_read is None or each.key.type in may_read]
        modes = [(each, "match") for each in page.matches] + [(each, "include") for each in included]
        entries = [(f"{base}{each.key.reference}", each.content, mode) for each, mode in modes]
        links = {"self": f"{base}{said.type}?{wanted.query}"}
        if page.cursor:
            links["next"] = f"{links['self']}&_cursor={page.cursor}"
        return Result(200, resource=searchset(entries, links, page.total, wanted.notes))


class _Including:
    """What a page has beside its matches, each resource once."""

    def __init__(self, reader: ResourceReader, source: str, wanted: Search) -> None:
        self._reader, self._source, self._wanted = reader, source, wanted

    def beside(self, matches: Sequence[HeldResource]) -> list[HeldResource]:
        """As far as `INCLUDED_MAX`, nearest first."""
        known = {each.key for each in matches}
        made: list[HeldResource] = []
        around: Sequence[HeldResource] = matches
        for number in range(ROUNDS_MAX):
            new: list[HeldResource] = []
            for each in self._next_to(around, further=number > 0):
                if each.key not in known and len(made) + len(new) < INCLUDED_MAX:
                    known.add(each.key)
                    new.append(each)
            if not new:
                break
            made += new
            around = new
        return made

    def _next_to(self, around: Sequence[HeldResource], further: bool) -> Iterator[HeldResource]:
        for include in self._wanted.includes:
            if include.iterate or not further:
                yield from self._referred(around, include)
        for include in self._wanted.revincludes:
            if include.iterate or not further:
                yield from self._referring([each.key.reference for each in around], include)

    def _referred(self, around: Sequence[HeldResource], include: Include) -> Iterator[HeldResource]:
        parameter = parameters_of(include.type, self._wanted.release)[include.parameter]
        keys: dict[ResourceKey, None] = {}
        for each in around:
            if each.key.type == include.type:
                targets = (include.target,) if include.target else parameter.targets
                for value in values_at(each.content, parameter):
                    keys |= dict.fromkeys(self._keys(value, targets))
        for key in keys:
            held = self._reader.resource(key)
            if held is not None and not held.deleted:
                yield held

    def _keys(self, value: Any, targets: Collection[str]) -> Iterator[ResourceKey]:
        if isinstance(value, Mapping):
            text = value.get("reference")
            if isinstance(text, Mapping):  # R5 CodeableReference
                yield from self._keys(text, targets)
            elif isinstance(text, str):
                reference = fhir_references.read(text)
                if reference.way is Way.LOCAL and (not targets or reference.type in targets):
                    yield ResourceKey(self._source, reference.type, reference.id)

    def _referring(self, addresses: Sequence[str], include: Include) -> Iterator[HeldResource]:
        for at in range(0, len(addresses), _ASKED_AT_ONCE):
            tests = tuple(
                Comparison(How.VALUE, key_of(address))
                for address in addresses[at : at + _ASKED_AT_ONCE]
                if not include.target or address.startswith(f"{include.target}/")
            )
            if tests:
                criterion = Criterion(include.parameter, tests)
                yield from self._reader.find_resources(self._source, include.type, (criterion,), INCLUDED_MAX)
