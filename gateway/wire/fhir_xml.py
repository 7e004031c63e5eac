"""FHIR as XML, to and from the values that JSON gives (xml.html and json.html of the specification).

The shapes of the types say what is a list and in which order elements stand; so the two forms hold the same, and
whatever reads JSON reads XML. Whether a resource is right is judged by `fhir_models` afterwards, for both alike:
here only what has no form in JSON is refused. Documents with a DTD are refused unread, so there are no entities.
"""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NoReturn

from lxml import etree

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import Resource
from gateway.wire.fhir_bounds import PLAIN_BOUNDS, Bounds
from gateway.wire.fhir_json import EXPONENT_MOST, NUMBER_CHARACTERS_MAX, check_entries, check_size, written_decimal
from gateway.wire.fhir_primitives import NOT_TEXT, PRIMITIVES
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_shapes import Element, Shape, resource_shape, shape

FHIR = "http://hl7.org/fhir"
XHTML = "http://www.w3.org/1999/xhtml"

PROBLEMS_MAX = 50
"""More than a person mends at one time."""

ATTRIBUTES_MAX = 16
"""Of one element: FHIR has two, and schemas some more. Looking at many costs the square of their number."""

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")


def parse(data: bytes, release: Release, bounds: Bounds = PLAIN_BOUNDS) -> Resource:
    """The resource that `data` is, as `fhir_json.parse` would give it. Raises Refused."""
    root = _root(data, bounds)
    reading = _Reading(release, bounds.depth_max)
    resource = reading.resource(root, "", 1)
    if reading.refusals:
        raise Refused(*reading.refusals)
    check_entries(resource, bounds)
    return resource


def write(resource: Resource, release: Release) -> bytes:
    """`resource` as UTF-8 XML, elements in the order of the specification.

    What is no element of its type is left out: it was refused when the resource came. Raises ValueError where the
    release has no such type.
    """
    root = _Writing(release).resource(resource)
    made: bytes = etree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return made


# ---- reading ----


def _root(data: bytes, bounds: Bounds) -> Any:
    check_size(data, bounds)
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused(Refusal(
            RefusalKind.UNREADABLE, "", "is no UTF-8", "send the body in UTF-8, the only encoding that FHIR has"
        )) from None  # fmt: skip
    if data.count(b"<") > bounds.values_max:
        hint = "send it in several requests"
        raise Refused(Refusal(RefusalKind.TOO_LONG, "", f"the body has more than {bounds.values_max} elements", hint))
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        text = "has a document type declaration, which FHIR does not allow (xml.html)"
        raise Refused(Refusal(RefusalKind.UNREADABLE, "", text, "send it without <!DOCTYPE>"))
    try:
        return etree.fromstring(data, _parser())
    except etree.XMLSyntaxError as broken:
        line, column = broken.position
        text = f"is no well-formed XML (line {line}, column {column})"
        raise Refused(Refusal(RefusalKind.UNREADABLE, "", text, "mend the XML at this place")) from None


def _parser() -> Any:
    """One for each document: parsers are not shared between threads."""
    return etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False,
        remove_comments=True, remove_pis=True,
    )  # fmt: skip


class _Reading:
    def __init__(self, release: Release, depth_max: int) -> None:
        self._release = release
        self._depth_max = depth_max
        self.refusals: list[Refusal] = []

    def resource(self, node: Any, where: str, depth: int) -> dict[str, Any]:
        """The resource that `node` is; at the top its type is the beginning of all places."""
        namespace, name = _named(node)
        found = resource_shape(self._release, name) if namespace == FHIR else None
        if found is None:
            if namespace != FHIR:
                text, hint = "is not in the namespace of FHIR", f'begin with <ServiceRequest xmlns="{FHIR}">'
            else:
                text, hint = f"is no type of resource in {self._release}", "mend the name of the element"
            self._refuse(RefusalKind.UNSUPPORTED_TYPE if depth == 1 else RefusalKind.BAD_VALUE, where, text, hint)
            return {}
        return {"resourceType": found.type, **self._members(node, found, where or found.type, depth)}

    def _members(self, node: Any, found: Shape, where: str, depth: int) -> dict[str, Any]:
        if depth > self._depth_max:
            self._stop(where)
        made: dict[str, Any] = dict(self._attributes(node, found, where))
        if _has_text(node):
            self._refuse(RefusalKind.MALFORMED, where, "has text of its own", 'write values as value="..."')
        read: dict[str, list[tuple[Any, Any]]] = {}
        for child in node:
            element = self._element(child, found, where)
            if element is None:
                continue
            before = read.setdefault(element.name, [])
            place = f"{where}.{element.path}" + (f"[{len(before)}]" if element.many else "")
            if before and not element.many:
                self._refuse(RefusalKind.MALFORMED, place, "is given twice", "give it once")
            before.append(self._value(child, element, place, depth + 1))
        for name, pairs in read.items():
            made.update(_in_json(found.elements[name], pairs))
        return made

    def _attributes(self, node: Any, found: Shape, where: str) -> Iterator[tuple[str, str]]:
        if len(node.attrib) > ATTRIBUTES_MAX:
            text = f"an element has more than {ATTRIBUTES_MAX} attributes"
            raise Refused(*self.refusals, Refusal(RefusalKind.MALFORMED, where, text, "write them as elements"))
        for name, said in node.attrib.items():
            if (name == "id" and not found.is_resource) or (name == "url" and found.type == "Extension"):
                yield name, said
            elif not name.startswith("{"):  # xsi:schemaLocation and the like say nothing
                at = f"{where}.{name}" if _NAME.fullmatch(name) else where
                self._refuse(RefusalKind.MALFORMED, at, "is no attribute of it", "write it as an element")

    def _element(self, child: Any, found: Shape, where: str) -> Element | None:
        namespace, name = _named(child)
        wanted = XHTML if found.type == "Narrative" and name == "div" else FHIR
        element = found.elements.get(name) if namespace == wanted else None
        if element is None:
            named = namespace == FHIR and _NAME.fullmatch(name)
            at = f"{where}.{name}" if named else where
            text = f"is no element of {found.type} in {self._release}" if named else "has an element of another kind"
            self._refuse(RefusalKind.MALFORMED, at, text, "leave it out, or send it as an extension")
        return element

    def _value(self, child: Any, element: Element, place: str, depth: int) -> tuple[Any, Any]:
        """The value, and of a primitive the other half: its id and extensions."""
        if element.type == "xhtml":
            return _narrative(child), None
        if element.primitive:
            return self._primitive(child, element, place, depth)
        if element.type == "Resource":
            if len(child) != 1:
                self._refuse(RefusalKind.MALFORMED, place, "holds one resource", "put one resource into each")
                return {}, None
            return self.resource(child[0], place, depth + 1), None
        inner = shape(self._release, element.type)
        return (self._members(child, inner, place, depth), None) if inner is not None else ({}, None)

    def _primitive(self, child: Any, element: Element, place: str, depth: int) -> tuple[Any, Any]:
        said = child.attrib.pop("value", None)
        inner = shape(self._release, "Element")
        if said is None and _has_text(child):
            text, hint = "has its value as text", f'write <{element.name} value="..."/>'
            self._refuse(RefusalKind.MALFORMED, place, text, hint)
            return None, None
        half = self._members(child, inner, place, depth) if inner is not None and (len(child) or child.attrib) else None
        return None if said is None else _typed(said, element.type), half or None

    def _stop(self, where: str) -> NoReturn:
        raise Refused(Refusal(RefusalKind.MALFORMED, where, "elements are too deep inside each other", "nest less"))

    def _refuse(self, kind: RefusalKind, where: str, text: str, hint: str) -> None:
        self.refusals.append(Refusal(kind, where, text, hint))
        if len(self.refusals) >= PROBLEMS_MAX:
            raise Refused(*self.refusals)


def _named(node: Any) -> tuple[str, str]:
    """Namespace and name of an element; comments and instructions are gone by then."""
    namespace, closed, name = node.tag.rpartition("}")
    return (namespace[1:], name) if closed else ("", name)


def _has_text(node: Any) -> bool:
    return bool((node.text or "").strip()) or any((child.tail or "").strip() for child in node)


def _narrative(node: Any) -> str:
    alone = copy.deepcopy(node)
    alone.tail = None
    etree.cleanup_namespaces(alone)
    text: str = etree.tostring(alone, encoding="unicode")
    return text


def _typed(said: str, of_type: str) -> Any:
    """As JSON has it; text that is no such value stays text, and is refused as what it is."""
    kind = PRIMITIVES[of_type].kind
    if kind is bool:
        return {"true": True, "false": False}.get(said, said)
    if kind is str or len(said) > NUMBER_CHARACTERS_MAX:
        return said
    if _WHOLE.fullmatch(said) and said != "-0":
        return int(said)
    if kind is Decimal and _NUMBER.fullmatch(said):
        number = Decimal(said)
        exponent = number.as_tuple().exponent
        return number if isinstance(exponent, int) and abs(exponent) <= EXPONENT_MOST else said
    return said


def _in_json(element: Element, pairs: Sequence[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    """An element as JSON has it: primitives beside their other halves, with null where one has only one of the two."""
    values = [value for value, _ in pairs]
    halves = [half for _, half in pairs]
    if not element.many:
        values, halves = values[:1], halves[:1]
    if not element.primitive or any(value is not None for value in values) or all(half is None for half in halves):
        yield element.name, values if element.many else values[0]
    if any(half is not None for half in halves):
        yield f"_{element.name}", halves if element.many else halves[0]


# ---- writing ----


class _Writing:
    def __init__(self, release: Release) -> None:
        self._release = release

    def resource(self, value: Mapping[str, Any], parent: Any = None) -> Any:
        found = resource_shape(self._release, value.get("resourceType"))
        if found is None:
            raise ValueError(f"{self._release} has no such type of resource")
        tag = f"{{{FHIR}}}{found.type}"
        node = etree.Element(tag, nsmap={None: FHIR}) if parent is None else etree.SubElement(parent, tag)
        self._members(node, found, value)
        return node

    def _members(self, node: Any, found: Shape, value: Mapping[str, Any]) -> None:
        for name, element in found.elements.items():
            item, half = value.get(name), value.get(f"_{name}")
            if (name == "id" and not found.is_resource) or (name == "url" and found.type == "Extension"):
                if item is not None:
                    node.set(name, _attribute(item))
                continue
            items, halves = (item or (), half or ()) if element.many else ([item], [half])
            for index in range(max(len(items), len(halves))):
                one = items[index] if index < len(items) else None
                other = halves[index] if index < len(halves) else None
                if one is not None or other is not None:
                    self._one(node, element, one, other)

    def _one(self, parent: Any, element: Element, value: Any, half: Any) -> None:
        if element.type == "xhtml":
            parent.append(_division(str(value or "")))
            return
        node = etree.SubElement(parent, f"{{{FHIR}}}{element.name}")
        if element.type == "Resource":
            self.resource(value, node)
            return
        if element.primitive:
            if value is not None:
                node.set("value", _attribute(value))
            value = half
        inner = shape(self._release, "Element" if element.primitive else element.type)
        if inner is not None and isinstance(value, Mapping):
            self._members(node, inner, value)


def _attribute(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return written_decimal(value) if isinstance(value, Decimal) else NOT_TEXT.sub("\ufffd", str(value))


def _division(text: str) -> Any:
    """The narrative as it came; one that is no XHTML is shown as the text it is."""
    try:
        if "<!DOCTYPE" not in text and "<!ENTITY" not in text:
            node = etree.fromstring(text.encode(), _parser())
            if node.tag == f"{{{XHTML}}}div":
                return node
    except etree.XMLSyntaxError:
        pass
    node = etree.Element(f"{{{XHTML}}}div", nsmap={None: XHTML})
    node.text = NOT_TEXT.sub("\ufffd", text)
    return node
