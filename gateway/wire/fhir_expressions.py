"""FHIRPath expressions compiled for one release: every element, function and type in them is known, or it is a problem.

fhirpathpy answers a misspelt path with nothing, and so does `=` where a value may be there twice: both are refused
here, with what was meant. Types are followed through the models as far as they are known before there is a resource;
behind `resolve()` they are those that the reference may lead to.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeGuard

from gateway.domain.path_readers import UnreadablePath
from gateway.domain.problem import did_you_mean, one_of
from gateway.wire import fhir_steps as steps
from gateway.wire.fhir_evaluation import Evaluation, by_fhirpathpy
from gateway.wire.fhir_functions import FUNCTIONS, NOT_HERE, OF_NOTHING, VARIABLES, Function, Gives, Takes
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_steps import NOWHERE, Found, Given, Step
from gateway.wire.fhir_syntax import BadSyntax, Node, children, literal, name_of, operator, parsed
from gateway.wire.fhir_types import ANY_RESOURCE, PRIMITIVES, Element, elements, is_resource, type_names

ROOTS: Mapping[str, bool] = {
    "Patient": False, "Encounter": False, "ServiceRequest": False, "Task": False, "Appointment": False,
    "ImagingStudy": False, "Observation": True, "AllergyIntolerance": True, "Condition": True, "Flag": True,
}  # fmt: skip
"""The resources that an entry has of its own, by which expressions begin, and whether there may be several of them."""


class State(NamedTuple):
    """What is known of the items at a place of an expression before there are any."""

    types: frozenset[str] = frozenset()
    """The types that they may have; empty: nobody knows."""
    many: bool = False
    targets: frozenset[str] = frozenset()
    """Of references the types of resources that they may lead to; empty: nobody knows."""
    sources: frozenset[str] = frozenset()
    """The types of resources that they may be of; empty: nobody knows."""

    def joined(self, other: "State", many: bool) -> "State":
        """Items of the one or the other."""
        return State(
            _either(self.types, other.types), many,
            _either(self.targets, other.targets), _either(self.sources, other.sources),
        )  # fmt: skip


class Expression(NamedTuple):
    """A compiled expression."""

    text: str
    state: State
    begins: Mapping[str, frozenset[str]]
    """The resource types that it begins with, each with the JSON names of the elements of which one has to be there
    ('' for none). Empty: it may give something whatever is there."""
    place: str
    """The element that has to be filled, below the resource: the expression up to its first function."""
    native: bool
    """Whether it is evaluated here."""
    varies: bool
    """Whether it has an environment variable in it."""
    evaluate: Evaluation


def compiled(text: str, release: Release) -> Expression:
    """The expression of a text. Raises UnreadablePath."""
    try:
        tree = parsed(text)
    except BadSyntax as error:
        hint = "FHIRPath such as Patient.birthDate or Patient.name.where(use = 'official')"
        raise UnreadablePath(f"{text!r} is no FHIRPath: it {error}", hint) from None
    return _Compiler(text, release).compile(tree)


class _Part(NamedTuple):
    """A part of an expression: what it gives, and how, if that is evaluated here."""

    state: State
    step: Step | None = None


_ROOT = State(frozenset({"%root"}))  # where an expression begins
_BOOLEAN, _STRING = State(frozenset({"boolean"})), State(frozenset({"string"}))
_TEXTS = frozenset({"string", "code", "id", "uri", "url", "canonical", "oid", "uuid", "markdown"})
_OF_TEXT = frozenset({"length", "matches"})
_COMPARED_HERE: Mapping[type, frozenset[str]] = {
    str: _TEXTS, bool: frozenset({"boolean"}), int: frozenset({"integer", "positiveInt", "unsignedInt"}),
}  # fmt: skip
_COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">="})
_SUBTYPES: Mapping[str, frozenset[str]] = {
    "Quantity": frozenset({"Quantity", "Age", "Count", "Distance", "Duration", "SimpleQuantity"}),
    "string": frozenset({"string", "code", "id", "markdown"}),
    "uri": frozenset({"uri", "url", "canonical", "oid", "uuid"}),
    "integer": frozenset({"integer", "positiveInt", "unsignedInt"}),
}
_ABSTRACT = frozenset({"Resource", "DomainResource", "Element", "BackboneElement", "BackboneType", "DataType"})


def _either(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    return one | other if one and other else frozenset()


class _Compiler:
    """One compilation. Visits fhirpathpy's tree; what is put to nothing yet has the state _ROOT."""

    def __init__(self, text: str, release: Release) -> None:
        self.text, self.release = text, release
        self.begins: dict[str, frozenset[str]] = {}
        self.varies = False
        self.of_nothing = False  # whether it may give something where none of these is there

    def compile(self, tree: Node) -> Expression:
        part = self.visit(tree, _ROOT)
        step = part.step
        if step is None:
            run = by_fhirpathpy(self.text, tree, self.release, tuple(self.begins), of_nothing=self.of_nothing)
        else:

            def run(given: Given) -> list[Found]:
                found = [one for one in step((), given) if not _is_extension_of_text(one)]
                return [_placed(one, self.begins, given) for one in found] if found else found

        begins = {} if self.of_nothing else self.begins
        return Expression(self.text, part.state, begins, _place(self.text), step is not None, self.varies, run)

    def wrong(self, text: str, hint: str = "") -> UnreadablePath:
        """A mistake in the expression."""
        return UnreadablePath(f"{self.text!r}: {text}", hint)

    # ---- expressions ----

    def visit(self, node: Node, context: State, focus: State | None = None) -> _Part:
        """What a node gives where `context` is `$this`; `focus` is what stands before its dot."""
        kind, below = node["type"], children(node)
        match kind:
            case "TermExpression" | "InvocationTerm" | "ParenthesizedTerm":
                return self.visit(below[0], context)
            case "InvocationExpression":
                return self._invocation(below[0], below[1], context)
            case "MemberInvocation":
                name = name_of(below[0])
                return self._root(name) if (focus or context) is _ROOT else self._member(name, focus or context)
            case "FunctionInvocation":
                return self._function(below[0], context, focus)
            case "ThisInvocation":
                return _Part(context, steps.this if context is not _ROOT else None)
            case "IndexInvocation" | "TotalInvocation":
                return _Part(State(frozenset({"integer"}) if kind.startswith("Index") else frozenset()))
            case "ExternalConstantTerm":
                return self._variable(node)
            case "LiteralTerm":
                return _Part(_of_literal(below[0]["type"]))
            case "IndexerExpression":
                return self._indexed(below[0], below[1], context)
            case _:
                return self._operation(node, context)

    def _invocation(self, before: Node, invoked: Node, context: State, *, extended: bool = False) -> _Part:
        """`extended`: of what it gives only extensions are asked."""
        first = _plain_name(before) if context is _ROOT else ""
        named = name_of(children(invoked)[0]) if invoked["type"] == "MemberInvocation" else ""
        if first:
            left = self._root(first, named, extended=extended)
        elif before["type"] == "InvocationExpression":
            inner, last = children(before)
            left = self._invocation(inner, last, context, extended=_is_extension(invoked))
        else:
            left = self.visit(before, context)
        right = self.visit(invoked, context, left.state)
        step = steps.after_all(left.step, right.step) if left.step and right.step else None
        return _Part(right.state, step)

    def _root(self, name: str, first: str = "", *, extended: bool = False) -> _Part:
        """The resources of a type, `first` being the element that is asked of them ('' for none or several)."""
        if name not in ROOTS:
            if is_resource(self.release, name):
                text = f"no entry has a {name} of its own"
                raise self.wrong(text, f"reach it by resolve(); expressions begin with {', '.join(ROOTS)}")
            hint = did_you_mean(name, ROOTS) or f"it begins with one of {', '.join(ROOTS)}"
            raise self.wrong(f"{name} is no resource", hint)
        element = elements(self.release, name).get(first)
        keys = frozenset({""})
        if element is not None:  # a primitive may have extensions without having a value
            halves = frozenset(f"_{key}" for key, kind in element.choices if kind in PRIMITIVES)
            keys = halves | {key for key, kind in element.choices if kind not in PRIMITIVES or not extended}
        self.begins[name] = self.begins.get(name, frozenset()) | keys
        found = frozenset({name})
        return _Part(State(found, ROOTS[name], frozenset(), found), steps.of_type_named(name))

    def _member(self, name: str, focus: State) -> _Part:
        step: Step | None = steps.member(self.release, name)
        if not focus.types:
            return _Part(State(many=True), step)
        found = [held[name] for each in focus.types if name in (held := self._elements(each))]
        if not found:
            self._unknown(name, focus)
        kinds = frozenset(kind for element in found for kind in element.types)
        many = focus.many or any(element.many for element in found)
        if ANY_RESOURCE in kinds:
            return _Part(State(many=many), step)
        if name == "extension" and focus.types & PRIMITIVES:
            step = None
        targets = frozenset(target for element in found for target in element.targets)
        return _Part(State(kinds, many, targets - {ANY_RESOURCE}, focus.sources), step)

    def _elements(self, datatype: str) -> Mapping[str, Element]:
        try:
            return elements(self.release, datatype)
        except LookupError:
            return {}

    def _unknown(self, name: str, focus: State) -> None:
        whose = " or ".join(sorted(focus.types)) if len(focus.types) < 4 else "what stands before"
        known = {each: held for kind in focus.types for each, held in self._elements(kind).items()}
        for each, element in known.items():
            for key, kind in element.choices:
                if key == name:
                    raise self.wrong(f"{name} is JSON's name", f"FHIRPath says {each}.ofType({kind}), or {each}")
        if focus.types <= PRIMITIVES:
            raise self.wrong(f"a {whose} has no element {name}", "end the path before it")
        raise self.wrong(f"{whose} has no element {name}", one_of(name, known))

    def _indexed(self, before: Node, index: Node, context: State) -> _Part:
        left, number = self.visit(before, context), literal(index)
        self.visit(index, context)
        step = None
        if left.step and type(number) is int:
            step = steps.after(left.step, steps.at(slice(number, number + 1)))
        return _Part(left.state._replace(many=False), step)

    def _variable(self, node: Node) -> _Part:
        name = name_of(children(children(node)[0])[0]).strip("'")
        if name not in VARIABLES:
            hint = did_you_mean(f"%{name}", [f"%{each}" for each in VARIABLES])
            raise self.wrong(f"there is no variable %{name}", hint or ", ".join(f"%{each}" for each in VARIABLES))
        self.varies = True
        self.of_nothing = self.of_nothing or not self.begins
        return _Part(_STRING, steps.variable(name) if name != "ucum" else None)

    # ---- functions ----

    def _function(self, node: Node, context: State, focus: State | None) -> _Part:
        name = name_of(children(node)[0])
        given = [each for each in children(node)[1:] if each["type"] == "ParamList"]
        arguments = children(given[0]) if given else []
        row = FUNCTIONS.get(name)
        if row is None:
            raise self.wrong(f"no function {name}() is known here", NOT_HERE.get(name) or one_of(name, FUNCTIONS))
        if len(arguments) not in row.arguments:
            takes = " or ".join(map(str, sorted(row.arguments)))
            raise self.wrong(f"{name}() takes {takes} arguments, not {len(arguments)}")
        before = context if focus is None else focus
        if before is _ROOT and row.gives is not Gives.BRANCH:
            raise self.wrong(f"{name}() stands at the beginning", f"it begins with one of {', '.join(ROOTS)}")
        if row.of_one and before.many:
            raise self.wrong(f"{name}() takes one value, and there may be several", f"first() before {name}()")
        if row.takes is Takes.TYPE:
            return self._typed(name, arguments[0], before)
        if context is _ROOT and name in OF_NOTHING:
            self.of_nothing = True
        item = before._replace(many=False) if row.takes is Takes.ITEM and before is not _ROOT else context
        parts = [self.visit(each, item) for each in arguments]
        if name == "resolve":
            return self._resolved(before)
        step = _step(name, parts, arguments)
        if name in _OF_TEXT and not (before.types and before.types <= _TEXTS):
            step = None  # of anything else it is a mistake, which fhirpathpy finds
        if name == "extension" and (not before.types or before.types & PRIMITIVES):
            step = None  # JSON has the extensions of a primitive beside it
        return _Part(_given(row, before, parts), step)

    def _resolved(self, before: State) -> _Part:
        if before.types and not before.types & {"Reference", "canonical", "uri", "url", "string"}:
            has = [each for kind in before.types for each, held in self._elements(kind).items()
                   if "Reference" in held.types]  # fmt: skip
            hint = f"such as {has[0]}.resolve()" if has else "write it behind a Reference"
            raise self.wrong(f"resolve() of what is no reference ({', '.join(sorted(before.types))})", hint)
        return _Part(State(before.targets, before.many, frozenset(), before.targets), steps.resolving)

    def _typed(self, name: str, node: Node, before: State) -> _Part:
        wanted = node["text"].replace("`", "").rpartition(".")[2]
        known = type_names(self.release)
        if wanted not in known and wanted[:1].lower() + wanted[1:] not in PRIMITIVES:
            raise self.wrong(f"there is no type {wanted}", did_you_mean(wanted, known))
        kinds = _SUBTYPES.get(wanted, frozenset({wanted}))
        if before.types and wanted not in _ABSTRACT and not kinds & before.types and node["text"][:7] != "System.":
            raise self.wrong(f"{wanted} is not what can be there", one_of(wanted, before.types))
        step = steps.of_types(kinds) if wanted not in _ABSTRACT and wanted in known else None
        if name in ("is", "isOp"):
            return _Part(_BOOLEAN)
        if wanted in _ABSTRACT:
            return _Part(before, step)
        resource = is_resource(self.release, wanted)
        return _Part(
            before._replace(types=kinds & before.types or kinds, sources=frozenset({wanted}) if resource else
                            before.sources), step,
        )  # fmt: skip

    # ---- operators ----

    def _operation(self, node: Node, context: State) -> _Part:
        kind, below, sign = node["type"], children(node), operator(node) if node["terminalNodeText"] else ""
        if kind == "TypeExpression":
            left = self.visit(below[0], context)
            if left.state.many:
                raise self.wrong(f"{sign} takes one value, and there may be several", "ofType(TYPE) chooses among them")
            right = self._typed("isOp" if sign == "is" else "as", below[1], left.state)
            step = steps.after(left.step, right.step) if left.step and right.step else None
            return _Part(right.state, step)
        parts = [self.visit(each, context) for each in below]
        if context is _ROOT and kind != "UnionExpression":
            self.of_nothing = True
        match kind:
            case "UnionExpression":
                one, other = parts[0].step, parts[1].step
                step = steps.union(one, other) if one and other else None
                return _Part(parts[0].state.joined(parts[1].state, many=True), step)
            case "EqualityExpression" | "InequalityExpression":
                return _Part(_BOOLEAN, self._compared(sign, below, parts))
            case "AndExpression" | "OrExpression":
                one, other = parts[0].step, parts[1].step
                if not one or not other or sign == "xor":
                    return _Part(_BOOLEAN)
                return _Part(_BOOLEAN, steps.both(one, other) if sign == "and" else steps.either(one, other))
            case "ImpliesExpression" | "MembershipExpression":
                return _Part(_BOOLEAN)
            case "AdditiveExpression":
                return _Part(_STRING if sign == "&" else parts[0].state._replace(many=False))
            case "PolarityExpression":
                return _Part(parts[0].state)
            case _:
                return _Part(State(frozenset({"decimal"})))

    def _compared(self, sign: str, below: Sequence[Node], parts: Sequence[_Part]) -> Step | None:
        for part, other, node in ((parts[0], parts[1], below[0]), (parts[1], parts[0], below[1])):
            if part.state.many and not other.state.many:
                text = f"{sign} holds of one value, and there may be several of {node.get('text', 'what it compares')}"
                raise self.wrong(text, _exists_hint(node, sign, below))
        constant, step = literal(below[1]), parts[0].step
        types = parts[0].state.types
        if sign not in _COMPARISONS or constant is None or step is None or not types:
            return None
        if not types <= _COMPARED_HERE.get(type(constant), frozenset()):
            return None
        if sign not in ("=", "!="):
            return steps.ordered(step, sign, constant) if type(constant) is int else None
        same = steps.equal(step, constant)
        return same if sign == "=" else steps.after(same, steps.negated)


def _step(name: str, parts: Sequence[_Part], arguments: Sequence[Node]) -> Step | None:
    """A function as a step of what stands before it; None for one that is left to fhirpathpy."""
    first = parts[0].step if parts else None
    match name:
        case "where" | "select" | "exists" if first:
            found = steps.select(first) if name == "select" else steps.where(first)
            return steps.after_all(found, steps.exists) if name == "exists" else found
        case "extension" if isinstance(url := literal(arguments[0]), str):
            return steps.extension(url)
        case "matches" if _is_pattern(pattern := literal(arguments[0])):
            return steps.matching(pattern)
        case _:
            return _STEPS.get(name) if not parts else None


def _is_pattern(said: object) -> TypeGuard[str]:
    """Whether it is a text that Python takes for a pattern, as fhirpathpy would; the empty one means nothing there."""
    try:
        return isinstance(said, str) and bool(said) and bool(re.compile(said, re.DOTALL))
    except re.error:
        return False


_STEPS: Mapping[str, Step] = {
    "first": steps.at(slice(0, 1)),
    "last": steps.at(slice(-1, None)),
    "tail": steps.at(slice(1, None)),
    "exists": steps.exists,
    "empty": steps.empty,
    "not": steps.negated,
    "length": steps.length,
}


def _given(row: Function, before: State, parts: Sequence[_Part]) -> State:
    """What a function gives, put to what stands before it."""
    match row.gives:
        case Gives.SAME:
            return before
        case Gives.ONE_OF:
            return before._replace(many=False)
        case Gives.ARGUMENT:
            return parts[0].state._replace(many=before.many or parts[0].state.many)
        case Gives.BOTH:
            return before.joined(parts[0].state, many=True)
        case Gives.BRANCH:
            branches = [part.state for part in (parts[1:] if row.of_one else parts)]
            joined = branches[0]
            for each in branches[1:]:
                joined = joined.joined(each, joined.many or each.many)
            return joined
        case Gives.EXTENSION:
            return State(frozenset({"Extension"}), True, frozenset(), before.sources)
        case Gives.ANYTHING | Gives.TYPED | Gives.RESOURCE:
            return State(many=True)
        case Gives.STRINGS:
            return _STRING._replace(many=True)
        case made:
            return State(frozenset({made.value}))


def _exists_hint(node: Node, sign: str, below: Sequence[Node]) -> str:
    """How to say `code.coding.code = 'X'` so that it holds of one of several: `code.coding.exists(code = 'X')`."""
    parts = children(node)
    other = below[1].get("text", "...") if node is below[0] else below[0].get("text", "...")
    if node["type"] == "InvocationExpression" and parts[1]["type"] == "MemberInvocation":
        name = name_of(children(parts[1])[0])
        return f"write {parts[0].get('text', '')}.exists({name} {sign} {other})"
    return f"write exists($this {sign} {other}) behind it, or first()"


def _of_literal(kind: str) -> State:
    named = {
        "StringLiteral": "string", "BooleanLiteral": "boolean", "NumberLiteral": "decimal",
        "DateTimeLiteral": "dateTime", "TimeLiteral": "time", "QuantityLiteral": "Quantity",
    }  # fmt: skip
    return State(frozenset({named.get(kind, "string")}))


def _is_extension(node: Node) -> bool:
    """Whether it is a call of `extension`."""
    return node["type"] == "FunctionInvocation" and name_of(children(children(node)[0])[0]) == "extension"


def _plain_name(node: Node) -> str:
    """The name that a term consists of; '' for any other."""
    while node["type"] in ("TermExpression", "InvocationTerm"):
        node = children(node)[0]
    return name_of(children(node)[0]) if node["type"] == "MemberInvocation" else ""


def _is_extension_of_text(found: Found) -> bool:
    """JSON has the extensions of a primitive beside it; a map instead of a text is no value."""
    return found.datatype in PRIMITIVES and isinstance(found.value, Mapping)


def _placed(found: Found, begins: Iterable[str], given: Given) -> Found:
    """What was made counts as of the first resource that the expression begins with, else of the entry's first."""
    if found.holder is not NOWHERE:
        return found
    names = (*begins, *given.resources)
    resource = next((each for name in names for each in given.resources.get(name, ())), NOWHERE)
    return found._replace(resource=resource, holder=resource)


def _place(text: str) -> str:
    """`name.family` of `Patient.name.family.first()`."""
    plain = _PLAIN.match(text)
    return plain.group(1).removeprefix(".") if plain else ""


_PLAIN = re.compile(r"[A-Z]\w*((?:\.\w+(?![\w(]))*)")
