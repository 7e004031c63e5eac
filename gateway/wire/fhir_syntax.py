"""FHIRPath parsed by fhirpathpy's grammar, with the checks that fhirpathpy leaves out.

fhirpathpy mends or overlooks what it cannot parse (`Patient.name.`, `Patient.name )`); here every such place is an
error. The tree is fhirpathpy's own: `type`, `text`, `terminalNodeText`, `children`.

The grammar takes some 2 ms for an expression, and 0.1 s for being imported. So the trees of the shipped rule sets lie
in a table beside this module, made by that grammar (`python -m tests.fhir_tables`); what a site writes is parsed.
"""

import gzip
import json
from collections.abc import Mapping
from decimal import Decimal
from functools import cache, lru_cache
from importlib import import_module
from importlib.resources import files
from typing import Any, TypeAlias

Node: TypeAlias = dict[str, Any]
"""A node of fhirpathpy's syntax tree."""

EXPRESSION_LENGTH_MAX = 1_000
"""Characters; the longest of ours have a hundred. The grammar is slow on long ones and nests without end."""


class BadSyntax(ValueError):  # noqa: N818  (reads as what it is)
    """What is wrong, in words, and at which character, counted from 1."""


def parsed(text: str) -> Node:
    """The syntax tree of one expression, which nobody changes. Raises BadSyntax."""
    known = _shipped().get(text)
    if known is None:
        return by_grammar(text)
    tree: Node = json.loads(known)
    return tree


@cache
def _shipped() -> Mapping[str, str]:
    """Expressions of the shipped rule sets, each with its tree as JSON: read when it is asked for."""
    packed = (files("gateway.wire") / "tables" / "fhirpath_trees.json.gz").read_bytes()
    known: Mapping[str, str] = json.loads(gzip.decompress(packed))
    return known


@lru_cache(maxsize=512)  # rule sets of two releases say most of it alike
def by_grammar(text: str) -> Node:
    """The same, whatever is in the table."""
    grammar: Any = import_module("fhirpathpy.parser")  # late: only a site with expressions of its own needs it
    if len(text) > EXPRESSION_LENGTH_MAX:
        raise BadSyntax(f"has more than {EXPRESSION_LENGTH_MAX} characters")
    told = _Raising()
    lexer = grammar.FHIRPathLexer(grammar.InputStream(text))
    tokens = grammar.CommonTokenStream(lexer)
    parser = grammar.FHIRPathParser(tokens)
    for recogniser in (lexer, parser):
        recogniser.removeErrorListeners()
        recogniser.addErrorListener(told)
    try:
        tree = parser.expression()
    except RecursionError:
        raise BadSyntax("is nested too deeply") from None
    if tokens.LT(1).type != grammar.Token.EOF:
        raise _at(tokens.LT(1).column, tokens.LT(1).text)
    walked = grammar.ASTPathListener()
    grammar.ParseTreeWalker().walk(walked, tree)
    found: Node = walked.parentStack[0]["children"][0]
    return found


class _Raising:
    """Listens to a lexer or parser, which tell every mistake and go on."""

    def syntaxError(  # noqa: N802  (antlr's name, as those below)
        self, recognizer: Any, symbol: Any, line: int, column: int, msg: str, error: Any
    ) -> None:
        raise _at(column, symbol.text if symbol is not None else "")

    def _heard(self, *about: Any) -> None:
        """How the parser came to its decisions: no mistakes."""

    reportAmbiguity = reportAttemptingFullContext = reportContextSensitivity = _heard  # noqa: N815


def _at(column: int, text: str) -> BadSyntax:
    if text in ("", "<EOF>"):
        return BadSyntax("ends too early" if text else f"cannot be read from character {column + 1}")
    return BadSyntax(f"cannot be read from {text!r}, character {column + 1}")


def children(node: Node) -> list[Node]:
    """The nodes below."""
    found: list[Node] = node.get("children", [])
    return found


def operator(node: Node) -> str:
    """The operator of an expression with one."""
    return str(node["terminalNodeText"][0])


def name_of(node: Node) -> str:
    """The name that an Identifier spells, without the quotes of a delimited one."""
    return str(node["text"]).strip('`"')


def literal(node: Node) -> Any:
    """The value of a text, number or boolean; None for other literals."""
    inner = node
    while inner["type"] in ("TermExpression", "LiteralTerm", "ParenthesizedTerm") and len(children(inner)) == 1:
        inner = children(inner)[0]
    match inner["type"]:
        case "StringLiteral" if "\\" not in inner["text"]:
            return inner["text"][1:-1]
        case "StringLiteral":  # what stands for what is fhirpathpy's to say
            evaluators: Any = import_module("fhirpathpy.engine.evaluators").evaluators
            return evaluators["StringLiteral"]({}, [], inner)[0]
        case "BooleanLiteral":
            return inner["text"] == "true"
        case "NumberLiteral":
            number = Decimal(inner["text"])
            return int(number) if number == int(number) else number
    return None
