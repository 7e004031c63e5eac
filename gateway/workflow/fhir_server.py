"""FHIR resources are created, changed, patched, deleted, read and searched: what the RESTful interactions mean.

A request is all or nothing. First everything that an interaction is about is found (deletions
happen at once, as the standard has it before all else), so that references between entries get the addresses that
there will be; then contents are written; last comes what only reads. Everything that is wrong is raised together.
Whether content is right was judged before, but for what a patch makes. What resources mean for orders is
`fhir_orders`'.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resource_search import Comparison, Criterion, How
from gateway.domain.resources import HeldResource, Resource, ResourceKey
from gateway.wire import fhir_references
from gateway.wire.fhir_capability import is_written
from gateway.wire.fhir_elements import instant
from gateway.wire.fhir_index import date_range, indexed, key_of
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Result, Verb
from gateway.wire.fhir_models import problems
from gateway.wire.fhir_patch import patched, place_of
from gateway.wire.fhir_performance import MADE, dicom_uids, is_ours, made_id, received
from gateway.wire.fhir_references import Way
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_search import parse_condition, types_of
from gateway.workflow.fhir_reading import Page, Reading, absent, check_search, read, search
from gateway.workflow.fhir_repeats import alike, may_be_repeated, same_order
from gateway.workflow.fhir_words import overruled_by, said_anew
from gateway.workflow.ports import ResourceUnit

__all__ = ["Page", "Reading", "Transacted", "keep", "read", "search", "transact"]

_K = RefusalKind
_NUMBERED_MAX = 50
"""Orders with one of the same numbers that are compared: an accession number is shared by a few."""
_MANY = 2  # matches that are looked for: whether there are more than one


@dataclass(frozen=True, slots=True)
class Transacted:
    """What a request did to resources. `results` are in the order of its interactions.

    `changed` are those that have another version now, in the order of their changes; `before` has each of them as it
    was held until then, None where it was not.
    """

    results: tuple[Result, ...]
    changed: tuple[ResourceKey, ...]
    before: Mapping[ResourceKey, HeldResource | None]


def transact(unit: ResourceUnit, request: FHIRRequest, at: datetime, bases: Sequence[str] = ()) -> Transacted:
    """Do all that is asked for, or raise Refused with everything that is wrong.

    The entries of a batch are requests of their own, each in its transaction. `bases` are the URLs that this name space
    is known by: absolute references to them are written as relative.
    """
    return _Request(unit, request, at, bases).done()


def keep(unit: ResourceUnit, key: ResourceKey, content: Resource, release: Release, at: datetime) -> HeldResource:
    """Hold this as the current version of a resource of ours, with its id and meta; unchanged where it says the same.

    For what the gateway itself writes; what others send goes through `transact`.
    """
    held = unit.resource(key)
    if held is not None and not held.deleted and alike(held.content, content):
        return held
    return _kept(unit, key, held, content, release, at)


def tell_in(
    unit: ResourceUnit, held: HeldResource, content: Resource, release: Release, at: datetime, *, ours: bool = True
) -> HeldResource:  # fmt: skip
    """Hold a resource that somebody else owns with our word in it (`fhir_words`); unchanged where it says the same.

    `ours` says that it is held on a server of ours, where it gets a new version. A copy of another server's resource
    keeps the version that it has there.
    """
    if alike(held.content, content):
        return held
    overruled = overruled_by(held, content)
    if ours:
        return _kept(unit, held.key, held, content, release, at, overruled)
    found = indexed(content, release)
    return unit.save_resource(held.key, content, at, found, release=release.value, overruled=overruled)


def _kept(
    unit: ResourceUnit, key: ResourceKey, held: HeldResource | None, content: Resource, release: Release, at: datetime,
    overruled: Mapping[str, Any] | None = None,
) -> HeldResource:  # fmt: skip
    made = _stamped(content, key.id, held.version + 1 if held is not None else 1, at)
    return unit.save_resource(key, made, at, indexed(made, release), release=release.value, overruled=overruled)


def _stamped(content: Resource, id_: str, version: int, at: datetime) -> Resource:
    said = content.get("meta")
    meta = {**(said if isinstance(said, Mapping) else {}), "versionId": str(version), "lastUpdated": instant(at)}
    rest = {name: value for name, value in content.items() if name not in ("resourceType", "id", "meta")}
    return {"resourceType": content["resourceType"], "id": id_, "meta": meta, **rest}


@dataclass(slots=True)
class _Task:
    """An interaction while it is done. `key` is what it is about, once that is known."""

    interaction: Interaction
    key: ResourceKey | None = None
    held: HeldResource | None = None
    """As it is held, None where it is not or was deleted."""
    settled: bool = False
    """Nothing is to be written: it is held already."""
    repeats: bool = False
    """It may be a repeat of what is held; if it says anything else it is refused."""
    refused: bool = False
    notes: list[str] = field(default_factory=list)
    result: Result | None = None

    @property
    def root(self) -> str:
        """The place of its resource."""
        where = self.interaction.where
        return f"{where}.resource" if where else self.interaction.type

    @property
    def place(self) -> str:
        """The place of what it asks for."""
        where = self.interaction.where
        return f"{where}.request" if where else self.interaction.type


class _Request:
    """A request in its transaction."""

    def __init__(self, unit: ResourceUnit, request: FHIRRequest, at: datetime, bases: Sequence[str]) -> None:
        self._unit, self._request, self._at = unit, request, at
        self._bases = tuple(base.rstrip("/") for base in bases)
        self._tasks = [_Task(each, notes=list(each.notes)) for each in request.interactions]
        self._reading = Reading(unit, request, self._bases)
        self._refusals: list[Refusal] = []
        self._before: dict[ResourceKey, HeldResource | None] = {}
        self._names: dict[str, str] = {}  # what entries call each other -> address
        self._there: dict[ResourceKey, bool] = {}
        self._planned: frozenset[ResourceKey] = frozenset()
        """What will be there when all is done."""
        self._created: dict[str, list[Resource]] = {}  # ServiceRequests that this request makes
        self._absent: dict[tuple[str, str], _Task] = {}  # who is to be made as a condition found nothing

    def done(self) -> Transacted:
        """Everything, in the order that the standard has: delete, create, update and patch, read."""
        if self._request.kind is Kind.FETCHED:
            asked = (task.interaction for task in self._tasks if task.interaction.verb is not Verb.DELETE)
            self._planned = frozenset(self._key(each.type, _own_id(each)) for each in asked)
            self._each(self._fetch)
        else:
            self._each(self._check_written)
            self._each(self._delete, Verb.DELETE)
            self._each(self._aim_create, Verb.CREATE)
            self._each(self._aim, Verb.UPDATE, Verb.PATCH)
            self._check_overlaps()
            self._name_entries()
            waiting = [task for task in self._tasks if _has_conditional(task.interaction.resource)]
            self._each(lambda task: None if task in waiting else self._write(task), Verb.CREATE)
            self._each(lambda task: None if task in waiting else self._write(task), Verb.UPDATE, Verb.PATCH)
            for task in _in_order(waiting):  # what they mean may have been made just now
                self._attempt(self._write, task)
            self._each(self._read, Verb.READ, Verb.SEARCH)
        if self._refusals:
            raise Refused(*self._refusals)
        results = tuple(task.result for task in self._tasks if task.result is not None)
        return Transacted(results, tuple(self._before), self._before)

    def _check_written(self, task: _Task) -> None:
        said = task.interaction
        if said.verb not in (Verb.READ, Verb.SEARCH) and not is_written(said.type):
            raise _refused(
                _K.NOT_AUTHORISED, task.place, f"{said.type} is the gateway's own and is only read", "read it or search"
            )  # fmt: skip

    def _each(self, do: Callable[[_Task], None], *verbs: Verb) -> None:
        for task in self._tasks:
            if not verbs or task.interaction.verb in verbs:
                self._attempt(do, task)

    def _attempt(self, do: Callable[[_Task], None], task: _Task) -> None:
        """What it raises is gathered; the others go on, so that all problems are told at once."""
        if task.refused:
            return
        try:
            do(task)
        except Refused as refused:
            task.refused = True
            self._refusals += refused.refusals

    def _key(self, type_: str, id_: str) -> ResourceKey:
        return ResourceKey(self._request.source, type_, id_)

    # -- what an interaction is about

    def _matches(self, type_: str, query: str, task: _Task, part: str) -> Sequence[HeldResource]:
        """What a condition finds: none, one, or two of many. Raises Refused."""
        try:
            criteria = parse_condition(type_, query, self._request.release, self._bases)
        except Refused as refused:
            where = task.interaction.where
            raise Refused(
                *(
                    replace(each, where=f"{where}.{part}", text=f"{each.where}: {each.text}".removeprefix(": "))
                    if where else each
                    for each in refused.refusals
                )
            ) from None  # fmt: skip
        if not task.interaction.by_number:
            check_search(self._request, {type_, *types_of(criteria)}, task.place)
        return self._unit.find_resources(self._request.source, type_, criteria, _MANY)

    def _held(self, key: ResourceKey, task: _Task) -> HeldResource | None:
        """As it is held, compared with If-Match. Raises Refused where that is of another version."""
        held = self._unit.resource(key)
        there = held if held is not None and not held.deleted else None
        if there is not None and is_ours(there.content):
            raise _refused(
                _K.NOT_AUTHORISED, task.place, "the gateway makes it of what modalities report; it is only read",
                "read it; what is wrong in it is corrected where it was performed, or by `gateway performed`",
            )  # fmt: skip
        if there is not None and task.interaction.if_none_match:
            raise _refused(
                _K.PRECONDITION, f"{task.place}.ifNoneMatch" if task.interaction.where else task.place,
                f"there is one already, of version {there.version}", "leave If-None-Match out, to change that one",
            )  # fmt: skip
        wanted = task.interaction.if_match
        if wanted and (there is None or wanted not in ("*", str(there.version))):
            now = f"its version is {there.version}" if there is not None else "it is not held"
            raise _refused(
                _K.PRECONDITION, f"{task.place}.ifMatch" if task.interaction.where else task.place,
                f"the resource changed meanwhile: {now}", "read it again, and make the change to what it is now",
            )  # fmt: skip
        return there

    def _aim_create(self, task: _Task) -> None:
        said, content = task.interaction, self._content(task)
        task.key = self._key(said.type, str(uuid4()))
        if said.if_none_exist:
            found = self._matches(said.type, said.if_none_exist, task, "request.ifNoneExist")
            if len(found) > 1:
                raise self._several(task)
            if found:
                task.key, task.held, task.settled = found[0].key, found[0], True
                return
            self._alone(said.if_none_exist, task)
        held = self._repeated(content, task)
        if held is not None:
            task.key, task.held, task.repeats = held.key, held, True
            return
        self._check_made(content, task)

    def _check_made(self, content: Resource, task: _Task) -> None:
        """What modalities report is told once. A study that comes with an order again is the one that is told."""
        for each in map(self._unit.resource, self._keys_of_made(content)):
            if each is None or each.deleted or not is_ours(each.content):
                continue
            if each.key.type != "ImagingStudy":
                raise _refused(
                    _K.DUPLICATE_KEY, f"{task.root}.identifier", f"the gateway tells it: {each.key.reference}",
                    "refer to that one; it is kept as the modality reports it",
                )  # fmt: skip
            task.key, task.held, task.settled = each.key, each, True

    def _keys_of_made(self, content: Resource) -> Sequence[ResourceKey]:
        kind = content["resourceType"]
        return [self._key(kind, made_id(kind, uid)) for uid in dicom_uids(content)] if kind in MADE else []

    def _alone(self, query: str, task: _Task) -> None:
        """A condition that found nothing is had by one entry only, for the other would be that one."""
        earlier = self._absent.setdefault((task.interaction.type, query), task)
        if earlier is not task:
            raise _refused(
                _K.CONFLICT, task.place, f"has the same condition as {earlier.interaction.where}",
                "put the resource in once, and refer to that entry",
            )  # fmt: skip

    def _repeated(self, content: Resource, task: _Task) -> HeldResource | None:
        """The order that is held under the same number, so that a POST that comes again makes no second one.

        One that it says it replaces is none: the number may stay.
        """
        numbers = may_be_repeated(content)
        if not numbers:
            return None
        self._check_made_here(content, task)
        self._created.setdefault(content["resourceType"], []).append(content)
        tests = tuple(Comparison(How.VALUE_OF_SYSTEM, key_of(value), system) for _, system, value in sorted(numbers))
        found = self._unit.find_resources(
            self._request.source, task.interaction.type, (Criterion("identifier", tests),), _NUMBERED_MAX
        )
        same = (held for held in found if same_order(content, held.content))
        return next((held for held in same if not self._replaces(content, held)), None)

    def _check_made_here(self, content: Resource, task: _Task) -> None:
        """Of orders that get their ids from us a request brings each once. Raises Refused."""
        if any(same_order(content, other) for other in self._created.get(content["resourceType"], ())):
            raise _refused(
                _K.DUPLICATE_KEY, f"{task.root}.identifier", "another entry is an order with the same number",
                "give each order a number of its own, or put the order in once",
            )  # fmt: skip

    def _replaces(self, content: Resource, held: HeldResource) -> bool:
        """Whether an order says that it takes the place of this one."""
        for element in content.get("replaces") or ():
            said = element.get("reference") if isinstance(element, Mapping) else None
            if isinstance(said, str) and fhir_references.read(said, self._bases).local == held.key.reference:
                return True
        return False

    def _aim(self, task: _Task) -> None:
        """What an update or patch is about."""
        said = task.interaction
        if said.id or not said.query:
            task.key = self._key(said.type, said.id)
            if said.verb is Verb.UPDATE:
                self._check_id(task, said.id)
            task.held = self._held(task.key, task)
        else:
            task.key, task.held = self._found(task)
        if said.verb is Verb.UPDATE and task.held is None and _own_id(said) and may_be_repeated(self._content(task)):
            self._check_made_here(self._content(task), task)
        if said.verb is Verb.PATCH and task.held is None:
            self._refuse_absent(task.key, task)

    def _found(self, task: _Task) -> tuple[ResourceKey, HeldResource | None]:
        """What a conditional update or patch is about; a new key where nothing is found."""
        said = task.interaction
        found = self._matches(said.type, said.query, task, "request.url")
        own = str((said.resource or {}).get("id", "")) if said.verb is Verb.UPDATE else ""
        if len(found) > 1:
            raise self._several(task)
        if found:
            if own and own != found[0].key.id:
                raise _refused(
                    _K.MALFORMED, f"{task.root}.id", "is not the id of what the condition finds",
                    "leave the id out, or update by it without a condition",
                )  # fmt: skip
            return found[0].key, self._held(found[0].key, task)
        if said.verb is Verb.PATCH:
            raise _refused(_K.NO_SUCH_INSTANCE, task.place, "the condition finds nothing", "create the resource first")
        key = self._key(said.type, own or str(uuid4()))
        if own:
            self._check_id(task, own)
        if self._held(key, task) is not None:
            raise _refused(
                _K.CONFLICT, f"{task.root}.id", "a resource with this id is held, and the condition does not find it",
                "leave the id out, or update by it without a condition",
            )  # fmt: skip
        if not own:
            self._alone(said.query, task)
            if not said.by_number:  # who leaves the id to us makes no second one, as by POST
                held = self._repeated(self._content(task), task)
                if held is not None:
                    task.repeats = True
                    return held.key, self._held(held.key, task)
        return key, None

    def _check_id(self, task: _Task, id_: str) -> None:
        content = self._content(task)
        if not fhir_references.ID.fullmatch(id_):
            raise _refused(_K.MALFORMED, task.place, "names no id", "ids have 1 to 64 letters, digits, '-' and '.'")
        own = content.get("id")
        if own != id_:
            raise _refused(_K.MALFORMED, f"{task.root}.id", "is not the id of the address", "put the same id into both")

    def _content(self, task: _Task) -> Resource:
        content = task.interaction.resource
        if content is None:
            raise _refused(_K.MISSING_FIELD, task.root, "there is no resource", "send one")
        if content.get("resourceType") != task.interaction.type:
            raise _refused(
                _K.BAD_VALUE, f"{task.root}.resourceType", f"is not {task.interaction.type}, as the address says",
                "send it to its own address",
            )  # fmt: skip
        return content

    def _several(self, task: _Task) -> Refused:
        return _refused(
            _K.PRECONDITION, task.place, "the condition finds several resources", "ask for what only one of them has"
        )

    def _refuse_absent(self, key: ResourceKey, task: _Task) -> None:
        raise Refused(absent(self._unit.resource(key), task.place))

    def _check_overlaps(self) -> None:
        """One resource, one change: which of two would count is nowhere said (http.html#trules)."""
        seen: dict[ResourceKey, _Task] = {}
        names: dict[str, _Task] = {}
        for task in self._tasks:
            if task.key is None or task.refused:
                continue
            earlier = seen.setdefault(task.key, task)
            if earlier is not task and not (earlier.settled and task.settled):
                text = f"is about the same resource as {earlier.interaction.where or 'another entry'}"
                self._refusals.append(Refusal(_K.CONFLICT, task.place, text, "say once what becomes of a resource"))
            name = task.interaction.full_url
            if name and names.setdefault(name, task) is not task:
                self._refusals.append(
                    Refusal(_K.CONFLICT, f"{task.interaction.where}.fullUrl", "another entry has it too",
                            "give each entry a urn:uuid of its own")
                )  # fmt: skip

    def _name_entries(self) -> None:
        written = (task.key for task in self._tasks if task.interaction.verb is not Verb.DELETE)
        self._planned = frozenset(key for key in written if key is not None)
        for task in self._tasks:
            if task.interaction.full_url:  # also of one that is refused: who refers to it is not at fault
                self._names[task.interaction.full_url] = task.key.reference if task.key is not None else "Basic/none"

    # -- what is written

    def _write(self, task: _Task) -> None:
        key = task.key
        assert key is not None  # noqa: S101  (who is not refused has one by now)
        if task.settled and task.held is not None:
            task.notes.append(f"{key.reference} is there already; nothing was created")
            task.result = self._result(200, task.held, task)
            return
        content = self._patched(task) if task.interaction.verb is Verb.PATCH else self._content(task)
        content, overruled = self._said(task, self._rewritten(content, task))
        if task.held is not None and alike(task.held.content, content):
            if task.repeats:
                task.notes.append(f"{key.reference} says the same already; nothing was created")
            task.result = self._result(200, task.held, task)
        elif task.repeats:
            raise _refused(
                _K.DUPLICATE_KEY, f"{task.root}.identifier", f"{key.reference} is an order with the same number",
                f"change it by PUT {key.reference}, or give the new order a number of its own",
            )  # fmt: skip
        else:
            status = 201 if task.held is None else 200
            there = self._unit.resource(key)  # a deleted one has a number too
            saved = _kept(self._unit, key, there, content, self._request.release, self._at, overruled)
            self._before.setdefault(key, task.held)
            self._there[key] = True
            task.result = self._result(status, saved, task)

    def _said(self, task: _Task, content: Resource) -> tuple[Resource, Mapping[str, Any]]:
        """What is to be held of what its sender says now, and what of it our word stands before."""
        content = received(content)
        return (content, {}) if task.held is None else said_anew(task.held, content)

    def _result(self, status: int, held: HeldResource, task: _Task) -> Result:
        return Result(status, held.key, held.version, held.updated_at, held.content, tuple(dict.fromkeys(task.notes)))

    def _patched(self, task: _Task) -> Resource:
        """What the patch makes of the resource. Raises Refused where that is none."""
        patch, held = task.interaction.patch, task.held
        if patch is None or held is None:
            raise _refused(_K.MISSING_FIELD, task.root, "there is no patch", "send one, or PUT the resource")
        where = task.root if task.interaction.where else ""
        made = patched(held.content, patch, self._request.release, where)
        refusals, notes = problems(made, self._request.release)
        if refusals:
            raise Refused(
                *(
                    replace(each, where=place_of(patch, _element(each.where), where), text=f"{each.where}: {each.text}")
                    for each in refusals
                )
            )
        task.notes += notes
        return made

    def _rewritten(self, content: Resource, task: _Task) -> Resource:
        """The resource with the addresses that there are now. Raises Refused with every reference to nothing."""
        refusals: list[Refusal] = []
        base = fhir_references.base_of(task.interaction.full_url)

        def address(text: str, where: str) -> str:
            try:
                return self._address(text, where, base, task)
            except Refused as refused:
                refusals.extend(refused.refusals)
                return text

        made = fhir_references.rewritten(content, address, task.root)
        if refusals:
            raise Refused(*refusals)
        return made

    def _address(self, text: str, where: str, base: str, task: _Task) -> str:
        plain = text.partition("/_history/")[0]  # a version of an entry is that entry (bundle.html#references)
        named = self._names.get(plain) or (self._names.get(f"{base}/{plain}") if base else None)
        if named is not None:
            return named
        reference = fhir_references.read(text, self._bases)
        match reference.way:
            case Way.LOCAL:
                return self._local(reference, task)
            case Way.URN if self._request.kind is not Kind.FETCHED:
                raise _refused(_K.BAD_VALUE, where, "no entry has this fullUrl", "put the resource into the Bundle")
            case Way.CONDITIONAL if self._request.kind is not Kind.FETCHED:
                return self._conditional(reference, where, task)
            case Way.MALFORMED:
                raise _refused(_K.BAD_VALUE, where, "is no reference", "refer as in Patient/1, #id or urn:uuid:")
            case _:
                return text

    def _local(self, reference: fhir_references.Reference, task: _Task) -> str:
        key = self._key(reference.type, reference.id)
        if key not in self._there:
            held = self._unit.resource(key)
            self._there[key] = key in self._planned or (held is not None and not held.deleted)
        if not self._there[key]:
            task.notes.append(f"waits for {reference.local}, which is not held")
        return reference.local + (f"/_history/{reference.version}" if reference.version else "")

    def _conditional(self, reference: fhir_references.Reference, where: str, task: _Task) -> str:
        try:
            criteria = parse_condition(reference.type, reference.query, self._request.release, self._bases)
        except Refused as refused:
            raise Refused(
                *(replace(each, where=where, text=f"{each.where}: {each.text}") for each in refused.refusals)
            ) from None
        check_search(self._request, {reference.type, *types_of(criteria)}, where)
        found = self._unit.find_resources(self._request.source, reference.type, criteria, _MANY)
        if len(found) != 1:
            kind, text = (_K.PRECONDITION, "finds several resources") if found else (_K.BAD_VALUE, "finds nothing")
            raise _refused(kind, where, f"the conditional reference {text}", "refer to one resource that is held")
        return found[0].key.reference

    # -- what is deleted

    def _delete(self, task: _Task) -> None:
        said = task.interaction
        if said.id or not said.query:
            task.key = self._key(said.type, said.id)
        else:
            found = self._matches(said.type, said.query, task, "request.url")
            if len(found) > 1:
                raise self._several(task)
            if not found:
                task.notes.append("the condition finds nothing; nothing was deleted")
                task.result = Result(204, notes=tuple(task.notes))
                return
            task.key = found[0].key
        task.held = self._held(task.key, task)
        self._delete_held(task, task.key)

    def _delete_held(self, task: _Task, key: ResourceKey) -> None:
        if task.held is None:  # deleting is done when it is not there (http.html#delete)
            task.result = Result(204, key)
            return
        gone = self._unit.save_resource(key, {}, self._at, (), deleted=True, release=task.held.release)
        self._before.setdefault(key, task.held)
        task.result = Result(204, key, gone.version, gone.updated_at)

    # -- what another server has

    def _fetch(self, task: _Task) -> None:
        """A resource as another server has it: kept as it is, where it is newer than what is held."""
        said, id_ = task.interaction, _own_id(task.interaction)
        task.key = key = self._key(said.type, id_)
        if not fhir_references.ID.fullmatch(id_):
            raise _refused(_K.MALFORMED, f"{task.root}.id", "is no id", "resources of a server have one")
        held = self._unit.resource(key)
        task.held = held if held is not None and not held.deleted else None
        if said.verb is Verb.DELETE:
            self._delete_held(task, key)
            return
        content = self._rewritten(self._content(task), task)
        if task.held is not None and _not_newer(content, task.held.content):
            task.result = self._result(200, task.held, task)
            return
        content, overruled = self._said(task, content)
        found, release = indexed(content, self._request.release), self._request.release.value
        saved = self._unit.save_resource(key, content, self._at, found, release=release, overruled=overruled)
        self._before.setdefault(key, task.held)
        self._there[key] = True
        task.result = self._result(200 if task.held is not None else 201, saved, task)

    # -- what is read

    def _read(self, task: _Task) -> None:
        task.result = self._reading.result(task.interaction)


def _refused(kind: RefusalKind, where: str, text: str, hint: str) -> Refused:
    return Refused(Refusal(kind, where, text, hint))


def _own_id(said: Interaction) -> str:
    """The id that a resource has on its server."""
    return said.id or str((said.resource or {}).get("id", ""))


def _element(where: str) -> str:
    """The element of a resource that a place is in: `status` of `ServiceRequest.status`."""
    return where.partition(".")[2].partition(".")[0].partition("[")[0]


def _has_conditional(content: Resource | None) -> bool:
    return bool(_searched_types(content))


def _searched_types(content: Resource | None) -> frozenset[str]:
    """The types of what its conditional references search for."""
    found = (fhir_references.read(each.element["reference"]) for each in fhir_references.references(content or {}))
    return frozenset(each.type for each in found if each.way is Way.CONDITIONAL)


def _in_order(tasks: Sequence[_Task]) -> Iterator[_Task]:
    """Before who searches for a type come those of that type, and first of them who searches for none of them; where
    types search for each other, as they come."""
    left = [(task, task.interaction.type, _searched_types(task.interaction.resource)) for task in tasks]
    while left:
        types = {type_ for _, type_, _ in left}
        free = (
            [each for each in left if not each[2] & types]
            or [each for each in left if not (each[2] - {each[1]}) & types]
            or left
        )
        yield from (task for task, *_ in free)
        done = {id(task) for task, *_ in free}
        left = [each for each in left if id(each[0]) not in done]


def _not_newer(content: Resource, held: Resource) -> bool:
    """Whether another server's resource is the version that is held, or an older one."""
    new, old = _meta(content), _meta(held)
    if new.get("versionId") and new.get("versionId") == old.get("versionId"):
        return True
    changed, known = (date_range(str(each.get("lastUpdated", ""))) for each in (new, old))
    if changed is not None and known is not None and changed.first != known.first:
        return changed.first < known.first
    return alike(content, held)


def _meta(content: Resource) -> Mapping[str, Any]:
    meta = content.get("meta")
    return meta if isinstance(meta, Mapping) else {}
