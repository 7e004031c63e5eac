"""The configuration: frozen settings, and the site built from them (mappings, catalogue, devices, issuers).

Unknown keys are errors, and every problem is reported at once with file, line and hint, so that `gateway check`
and a refused start say the same. Reading files is all that happens here; nothing listens and nothing is opened.
"""

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from gateway.domain.catalogue import Catalogue
from gateway.domain.devices import Device, Devices, Sees
from gateway.domain.identifiers import Issuer, Issuers
from gateway.domain.mapping import Mapping as FieldMapping
from gateway.domain.mapping import compile_mapping
from gateway.domain.problem import MappingError, Problem
from gateway.domain.rules import compile_table
from gateway.wire.hl7_charsets import UnknownCharacterSet, default_character_set

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

AEText = Annotated[str, StringConstraints(min_length=1, max_length=16, strip_whitespace=True, pattern=r"^[ -\[\]-~]+$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
Port = Annotated[int, Field(ge=1, le=65535)]


class ConfigError(Exception):
    """Everything wrong with a site's files at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class DICOMSettings(_Strict):
    """The DICOM listener."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every one")
    port: Port = Field(11112, description="TCP port of worklist and MPPS")
    associations_max: int = Field(256, ge=1, le=10_000, description="served at once; more are told to come back")
    associations_per_address_max: int = Field(64, ge=1, le=10_000, description="from one network address")
    idle_s: float = Field(600, gt=0, le=86_400, description="an association that says nothing for so long is aborted")


class HL7Settings(_Strict):
    """One MLLP listener and how its messages are read."""

    name: Name = Field(description="names the listener in the archive, the history of steps and the logs")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every one")
    port: Port = Field(2575, description="TCP port, MLLP")
    mapping: Name = Field("ihe-swf", description="rule set in mappings/hl7v2 that reads this sender")
    charset: str = Field("", description="MSH-18 value assumed when a message declares none; ASCII if empty")
    issuer: str = Field("", description="authority of identifiers that name none")
    uncovered: Literal["refuse", "hold"] = Field("refuse", description="an order that no procedure rule completes")
    repeat: Literal["answer", "refuse"] = Field("answer", description="a control ID used before for another message")
    ignore: tuple[str, ...] = Field((), description="message types archived and acknowledged, e.g. ADT^A02, SIU")
    accept_test: bool = Field(False, description="whether messages with processing ID T are processed")
    merged_patient: Literal["redirect", "refuse"] = Field("redirect", description="a later message uses a merged ID")
    frame_bytes_max: int = Field(1_048_576, ge=1024, le=64 * 1_048_576, description="longest message taken")


class HTTPSettings(_Strict):
    """Health and metrics."""

    host: str = Field("127.0.0.1", description="address to listen on; whoever reaches it reads health and metrics")
    port: Port = Field(8080, description="TCP port of /health/live, /health/ready and /metrics")


class DevicesSettings(_Strict):
    """The device registry, and what to do with a caller that is not in it."""

    file: str = Field("", description="the registry, such as devices.yaml; empty: there is none")
    unknown: Literal["accept", "reject"] | None = Field(None, description="default: accept on loopback, else reject")


class IssuerSettings(_Strict):
    """One assigning authority under all its names."""

    name: str = Field(description="what the gateway calls this authority")
    hl7: tuple[str, ...] = Field((), description="namespaces it has in HL7 messages")
    oid: tuple[str, ...] = Field((), description="its universal IDs")
    dicom: tuple[str, ...] = Field((), description="how DICOM attributes name it as issuer")


class ExpirySettings(_Strict):
    """The nightly expiry of steps that nobody performed."""

    after_days: int = Field(7, ge=1, le=3650, description="days after the scheduled day")
    at: Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = Field(
        "02:30", description="time of the department's night"
    )


class Settings(_Strict):
    """`gateway.yaml`."""

    ae_title: AEText = Field("GATEWAY", description="our own AE title; any called AE title is answered")
    store: str = Field("sqlite:///gateway.db", description="the database")
    dicom: DICOMSettings = DICOMSettings()
    hl7: tuple[HL7Settings, ...] = ()
    http: HTTPSettings = HTTPSettings()
    devices: DevicesSettings = DevicesSettings()
    mappings: str = Field("mappings", description="folder of rule sets, code tables and the procedure catalogue")
    timezone: str = Field("", description="the department's wall clock, e.g. Europe/Berlin; default: the machine's")
    issuers: tuple[IssuerSettings, ...] = ()
    expiry: ExpirySettings = ExpirySettings()

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        if name:
            try:
                ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError) as error:
                raise ValueError("is no time zone name such as Europe/Berlin") from error
        return name

    @field_validator("hl7")
    @classmethod
    def _known_charsets(cls, listeners: tuple[HL7Settings, ...]) -> tuple[HL7Settings, ...]:
        for listener in listeners:
            try:
                default_character_set(listener.charset or "ascii")
            except UnknownCharacterSet as error:
                raise ValueError(f"{listener.charset} is no value of MSH-18 known here") from error
        return listeners

    @field_validator("hl7")
    @classmethod
    def _distinct(cls, listeners: tuple[HL7Settings, ...]) -> tuple[HL7Settings, ...]:
        for what in ("name", "port"):
            seen = [getattr(listener, what) for listener in listeners]
            if len(set(seen)) < len(seen):
                raise ValueError(f"two listeners share a {what}")
        return listeners


class DeviceSettings(_Strict):
    """One entry of `devices.yaml`."""

    ae_title: AEText
    description: str = ""
    sees: Sees = Sees.ALL
    mpps_strict: bool = False


class DevicesFile(_Strict):
    """`devices.yaml`."""

    devices: tuple[DeviceSettings, ...] = ()


@dataclass(frozen=True)
class Site:
    """A complete, checked configuration: what the service runs on, replaced whole on reload."""

    file: Path
    settings: Settings
    store_url: str
    mappings: Mapping[str, FieldMapping] = field(repr=False)
    devices: Devices = field(repr=False)
    issuers: Issuers = field(repr=False)

    @property
    def default_issuer(self) -> str:
        """Whose patient IDs are meant where nobody says: the feeds' authority if they agree on one."""
        issuers = {listener.issuer for listener in self.settings.hl7}
        return issuers.pop() if len(issuers) == 1 else ""

    @property
    def zone(self) -> ZoneInfo | None:
        """The department's zone; None means the machine's."""
        return ZoneInfo(self.settings.timezone) if self.settings.timezone else None

    def wall_clock(self, now: datetime) -> datetime:
        """The department's wall clock at this moment."""
        return now.astimezone(self.zone)


def load_site(file: Path) -> Site:
    """Read and check everything `gateway.yaml` points to. Raises ConfigError with every problem."""
    problems: list[Problem] = []
    settings = _read(file, Settings, problems)
    if settings is None:
        raise ConfigError(problems)
    base = file.parent
    issuers = Issuers(
        Issuer(issuer.name, frozenset({*issuer.hl7, *issuer.dicom}), frozenset(issuer.oid))
        for issuer in settings.issuers
    )
    mappings = _mappings(base / settings.mappings, settings, issuers, problems)
    devices = _devices(base, settings, problems)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))  # a base's mistake is found by each mapping that extends it
    return Site(file, settings, _store_url(base, settings.store), mappings, devices, issuers)


def _store_url(base: Path, url: str) -> str:
    """SQLite paths are relative to the configuration file."""
    prefix = "sqlite:///"
    return f"{prefix}{(base / url.removeprefix(prefix)).resolve()}" if url.startswith(prefix) else url


def _devices(base: Path, settings: Settings, problems: list[Problem]) -> Devices:
    entries: tuple[DeviceSettings, ...] = ()
    if settings.devices.file:
        read = _read(base / settings.devices.file, DevicesFile, problems)
        entries = read.devices if read else ()
        titles = [entry.ae_title for entry in entries]
        for title in sorted({title for title in titles if titles.count(title) > 1}):
            problems.append(Problem(settings.devices.file, "devices", f"AE title {title} is listed twice"))
    unknown = settings.devices.unknown or ("accept" if settings.dicom.host in LOOPBACK else "reject")
    return Devices.of(
        (Device(entry.ae_title, entry.description, entry.sees, entry.mpps_strict) for entry in entries),
        accept_unknown=unknown == "accept",
    )


def _mappings(folder: Path, settings: Settings, issuers: Issuers, problems: list[Problem]) -> dict[str, FieldMapping]:
    if not folder.is_dir():
        problems.append(
            Problem(settings.mappings, "mappings", "is no folder", "run `gateway init DIR` for a complete example")
        )
        return {}
    sources: dict[str, dict[str, Any]] = {}
    lines: dict[str, CommentedMap] = {}
    for path in sorted((folder / "hl7v2").glob("*.yaml")):
        tree = _load_yaml(path, problems)
        if tree is None:
            continue
        if not isinstance(tree, CommentedMap):
            problems.append(Problem(path.name, "", "is no mapping: key-value pairs expected", line=1))
            continue
        name = str(tree.get("name", path.stem))
        sources[name] = _plain(tree)
        lines[name] = tree
    tables: dict[str, dict[str, str]] = {}
    for path in sorted((folder / "codes").glob("*.csv")):
        try:
            tables[path.stem] = compile_table(path.stem, _rows(path, problems))
        except MappingError as error:
            problems += error.problems
    catalogue = _catalogue(folder / "procedures.csv", problems)
    compiled: dict[str, FieldMapping] = {}
    for name in sorted({listener.mapping for listener in settings.hl7} | sources.keys()):
        if name not in sources:
            problems.append(
                Problem(
                    settings.mappings,
                    f"hl7.mapping {name}",
                    "there is no such mapping",
                    f"have: {', '.join(sorted(sources)) or 'none'}",
                )
            )
            continue
        try:
            compiled[name] = compile_mapping(sources, name, catalogue=catalogue, tables=tables, issuers=issuers)
        except MappingError as error:
            problems += [
                replace(problem, line=problem.line or _line_of(lines.get(problem.source), problem.path.split(".")))
                for problem in error.problems
            ]
    return compiled


def _catalogue(path: Path, problems: list[Problem]) -> Catalogue:
    if not path.is_file():
        return Catalogue()
    try:
        return Catalogue.compile(_rows(path, problems), path.name)
    except MappingError as error:
        problems += error.problems
        return Catalogue()


def _rows(path: Path, problems: list[Problem]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header; empty lines and lines that begin with # are skipped."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        hint = "save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        problems.append(Problem(path.name, "", "cannot be read as text", hint))
        return []
    lines = [line for line in content.splitlines() if line.strip()]
    body = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(io.StringIO(body))]


Model = TypeVar("Model", bound=BaseModel)


def _read(path: Path, model: type[Model], problems: list[Problem]) -> Model | None:
    """The file as this model, or None with its problems noted."""
    tree = _load_yaml(path, problems)
    if tree is None:
        return None
    try:
        return model.model_validate(_expanded(_plain(tree), path, problems))
    except ValidationError as error:
        for detail in error.errors(include_input=False, include_url=False, include_context=False):
            where = tuple(str(part) for part in detail["loc"])
            problems.append(
                Problem(
                    path.name,
                    ".".join(where),
                    _plain_words(detail["msg"]),
                    _hint(model, where, detail["type"]),
                    _line_of(tree, where),
                )
            )
        return None


def _plain_words(message: str) -> str:
    return "unknown key" if message == "Extra inputs are not permitted" else message.removeprefix("Value error, ")


def _hint(model: type[BaseModel], where: tuple[str, ...], kind: str) -> str:
    """For an unknown key: the keys there are at this place."""
    if kind != "extra_forbidden":
        return ""
    place: Any = model
    for part in where[:-1]:
        if part.isdigit():
            continue
        annotation = place.model_fields[part].annotation
        place = annotation if isinstance(annotation, type) else annotation.__args__[0]
    return "known keys: " + ", ".join(place.model_fields)


def _load_yaml(path: Path, problems: list[Problem]) -> Any:
    try:
        return YAML(typ="rt").load(path.read_text(encoding="utf-8")) or CommentedMap()
    except FileNotFoundError:
        problems.append(Problem(path.name, "", "the file does not exist", "run `gateway init DIR` for an example"))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(path.name, "", f"cannot be read: {type(error).__name__}"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problems.append(Problem(path.name, "", f"is not YAML: {error.problem}", line=line))
    except YAMLError:
        problems.append(Problem(path.name, "", "is not YAML"))
    return None


def _plain(tree: Any) -> Any:
    """The YAML tree as plain dicts and lists."""
    if isinstance(tree, CommentedMap):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, CommentedSeq):
        return [_plain(value) for value in tree]
    return tree


def _line_of(tree: Any, where: Sequence[str]) -> int | None:
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


def settings_reference() -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every setting, for the reference page."""
    yield from _described(Settings, "")


def _described(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, item in model.model_fields.items():
        annotation: Any = item.annotation
        inner = next((part for part in getattr(annotation, "__args__", ()) if isinstance(part, type)), annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _described(inner, f"{prefix}{name}{'[]' if inner is not annotation else ''}.")
            continue
        default = "" if item.is_required() else repr(item.default)
        kind = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
        yield prefix + name, kind, default, item.description or ""
