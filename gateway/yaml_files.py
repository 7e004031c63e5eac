"""YAML files read into strict models: every problem with its file, place, line and hint, all at once.

Unknown keys are errors, and `${NAME}` takes a value from the environment. Nothing here knows what is configured.
"""

import os
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from gateway.domain.problem import Problem, did_you_mean
from gateway.markdown import code

AEText = Annotated[str, StringConstraints(min_length=1, max_length=16, strip_whitespace=True, pattern=r"^[ -\[\]-~]+$")]


class Strict(BaseModel):
    """A part of a file: unknown keys are refused, and what was read does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


Model = TypeVar("Model", bound=BaseModel)


def read_strict(path: Path, model: type[Model], problems: list[Problem]) -> Model | None:
    """The file as this model, or None with its problems noted."""
    tree = load_yaml(path, problems)
    if tree is None:
        return None
    try:
        return model.model_validate(_expanded(plain(tree), path, problems))
    except ValidationError as error:
        for detail in error.errors(include_input=False, include_url=False, include_context=False):
            where = tuple(str(part) for part in detail["loc"])
            problems.append(
                Problem(
                    path.name,
                    ".".join(where),
                    _plain_words(detail["msg"]),
                    _hint(model, where, detail["type"]),
                    line_of(tree, where),
                )
            )
        return None


_IN_OUR_WORDS = {
    "Extra inputs are not permitted": "unknown key",
    "Input should be a valid string": "should be text; put it into quotes",
    "String should match pattern '^[A-Za-z0-9][A-Za-z0-9_.-]*$'": (
        "a name has letters, digits and - _ . only, no blanks, and begins with a letter or digit"
    ),
}


def _plain_words(message: str) -> str:
    return _IN_OUR_WORDS.get(message, message.removeprefix("Value error, "))


def _hint(model: type[BaseModel], where: tuple[str, ...], kind: str) -> str:
    """For an unknown key: the one that was meant, or the keys there are at this place."""
    if kind != "extra_forbidden":
        return ""
    place: Any = model
    for part in where[:-1]:
        if part.isdigit():
            continue
        annotation = place.model_fields[part].annotation
        place = annotation if isinstance(annotation, type) else annotation.__args__[0]
    known = [item.alias or name for name, item in place.model_fields.items()]
    return did_you_mean(where[-1], known) or f"known keys: {', '.join(known)}"


def load_yaml(path: Path, problems: list[Problem]) -> Any:
    text = ""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return YAML(typ="rt").load(text) or CommentedMap()
    except FileNotFoundError:
        problems.append(Problem(path.name, "", "the file does not exist", "run `gateway init DIR` for an example"))
    except OSError as error:
        problems.append(Problem(path.name, "", f"cannot be read: {error.strerror or type(error).__name__}"))
    except UnicodeDecodeError as error:
        problems.append(not_utf_8(path, error))
    except MarkedYAMLError as error:
        problems.append(_syntax(path, text, error))
    except YAMLError as error:
        problems.append(Problem(path.name, "", f"is not YAML: {str(error).splitlines()[0]}"))
    return None


def not_utf_8(path: Path, error: UnicodeDecodeError) -> Problem:
    """Where a file stops to be text."""
    line = error.object.count(b"\n", 0, error.start) + 1
    text = f"is not UTF-8 text: byte 0x{error.object[error.start]:02X}"
    return Problem(path.name, "", text, "save it as UTF-8", line)


_MEANT = (
    (r"character '\\t'", "indent with blanks; YAML takes no tabs"),
    (r"could not find expected ':'", "a key, a colon, a blank and a value: `KEY: VALUE`"),
    (r"expected <block end>", "keys of one map begin in the same column: compare with the lines above"),
    (r"expected ',' or '[}\]]'", "a bracket is not closed, or a comma lacks"),
    (r"expected alphabetic or numeric character", 'put a text that begins with * or & into quotes: "*"'),
    (
        r"mapping values are not allowed",
        "compare the indentation with the line above; put texts with a colon into quotes",
    ),
    (r"unexpected end of stream", "a quote is not closed"),
    (r"cannot start any token", "put the text into quotes"),
)
"""What of YAML's grammar is broken, and what people mostly did."""


def _syntax(path: Path, text: str, error: MarkedYAMLError) -> Problem:
    """A mistake of YAML's grammar: the line itself, and what to do about it."""
    if isinstance(error, DuplicateKeyError):
        key = str(error.problem).split('"')[1]
        line = error.problem_mark.line + 1
        above = (number for number, said in enumerate(text.splitlines(), 1) if said.strip().startswith(f"{key}:"))
        first = next((number for number in above if number < line), None)
        hint = f"line {first} says it first; keep one" if first else "keep one"
        return Problem(path.name, "", f"{key} is there twice", hint, line)
    told = str(error.problem)
    mark = error.problem_mark
    if "expected ':'" in told or "expected ','" in told or "end of stream" in told:
        mark = error.context_mark or mark  # where it began; where it was noticed may be anywhere below
    if mark is None:
        return Problem(path.name, "", f"is not YAML: {told}")
    lines = [*text.splitlines(), ""]
    number = min(mark.line, len(lines) - 1)
    if "mapping values" in told and number and _NO_BLANK.match(lines[number - 1]):
        number, told = number - 1, "could not find expected ':'"  # where it was taken for a text over two lines
    said = lines[number].strip()[:_LINE_SHOWN_MAX]
    hint = next((hint for pattern, hint in _MEANT if re.search(pattern, told)), "")
    return Problem(path.name, "", f"is not YAML: {told}" + (f", in: {said}" if said else ""), hint, number + 1)


_NO_BLANK = re.compile(r"\s*[\w.]+:[^\s/]")


_LINE_SHOWN_MAX = 60


def plain(tree: Any) -> Any:
    """The YAML tree as plain dicts and lists."""
    if isinstance(tree, CommentedMap):
        return {str(key): plain(value) for key, value in tree.items()}
    if isinstance(tree, CommentedSeq):
        return [plain(value) for value in tree]
    return tree


def line_of(tree: Any, where: Sequence[str]) -> int | None:
    """The 1-based line of the deepest part of this path that the file has."""
    line = None
    for part in where:
        if isinstance(tree, CommentedMap) and part in tree:
            line, tree = tree.lc.key(part)[0] + 1, tree[part]
        elif isinstance(tree, CommentedSeq) and part.isdigit() and int(part) < len(tree):
            line, tree = tree.lc.item(int(part))[0] + 1, tree[int(part)]
        else:
            break
    return line


_VARIABLE = re.compile(r"\$\{(\w+)\}")


def _expanded(tree: Any, path: Path, problems: list[Problem]) -> Any:
    """`${NAME}` in any text replaced from the environment; a variable that is not set is a problem."""

    def replace(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if value is None:
            problems.append(Problem(path.name, f"${{{match[1]}}}", "the environment variable is not set"))
        return value or ""

    if isinstance(tree, dict):
        return {key: _expanded(value, path, problems) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_expanded(value, path, problems) for value in tree]
    return _VARIABLE.sub(replace, tree) if isinstance(tree, str) else tree


def described(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """(key, kind of value, default, meaning) of every setting of a model, for the reference pages."""
    for attribute, item in model.model_fields.items():
        name = item.alias or attribute
        annotation: Any = item.annotation
        parts = [part for part in getattr(annotation, "__args__", ()) if isinstance(part, type)]
        inner = next((part for part in parts if issubclass(part, BaseModel)), annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            several = getattr(annotation, "__origin__", None) is tuple
            yield from described(inner, f"{prefix}{name}{'[]' if several else ''}.")
            continue
        default = "" if item.is_required() else item.default
        default = default.value if isinstance(default, StrEnum) else default
        yield prefix + name, _kind_of(annotation), str(default), item.description or ""


_KINDS: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _kind_of(annotation: Any) -> str:
    """What can be written for a setting of this type, as a person says it."""
    if annotation in _KINDS:
        return _KINDS[annotation]
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " or ".join(code(choice.value) for choice in annotation)
    of, parts = get_origin(annotation), get_args(annotation)
    if of is Annotated:
        return _kind_of(parts[0])
    if of is Literal:
        return " or ".join(code(choice) for choice in parts if choice not in ("", 0))
    if of is tuple:
        one = _kind_of(parts[0])
        return f"list of {one}" if one.endswith("`") else f"list of {one}s"
    if of is dict:
        key, value = map(_kind_of, parts)
        return f"{'keys' if key == 'text' else key} with {value}"
    kinds = (_kind_of(part) for part in parts if part is not type(None))
    return " or ".join(dict.fromkeys(kind for kind in kinds if kind))
