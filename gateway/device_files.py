"""`devices.yaml` written anew, for people who have written it before."""

import io
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from gateway.described_devices import entries_in
from gateway.domain.directory import DeviceEntry, Directory
from gateway.domain.directory_diff import differences
from gateway.domain.problem import Problem
from gateway.registry import entries_of
from gateway.whole_files import write_whole

_NEW = "# yaml-language-server: $schema=schemas/devices.json\n# Written by `gateway devices pull`.\ndevices: []\n"


def write_devices(file: Path, directory: Directory, *, anew: bool = False) -> Path | None:
    """Make a file like `devices.yaml` say this directory; the copy of what it said before, if it was there.

    Entries that say the same already stay as they are written, and the comments between entries stay; with `anew`
    nothing of what was written does. Where the file is a link, what it leads to is written. Nothing is written that is
    not read back as it was meant. Raises OSError, and ValueError where the file cannot be read as what it is.
    """
    file = file.resolve()
    there = file.exists()
    if there and not directory.devices and _held(file).devices:
        raise ValueError("the directory has no devices, or our account may not read them; see `gateway devices titles`")
    before = file.read_bytes().decode("utf-8-sig") if there and not anew else _NEW
    text = _spliced(before, file, directory) if there and not anew else ""
    if not _means(text, file.name, directory):  # entries that are not lines of their own, or that refer to each other
        text = _rewritten(before, _held(file) if there and not anew else Directory(), directory)
        faults = _faults(text, file.name, directory)
        if faults:
            raise ValueError(f"it would not say what the directory says: {'; '.join(map(str, faults))}")
    kept = _kept(file) if there else None
    write_whole(file, text)
    return kept


def _kept(file: Path) -> Path:
    """A copy of the file beside it, under a name that nothing has yet."""
    for number in count(1):
        copy = file.with_name(f"{file.name}.bak" if number == 1 else f"{file.name}.bak.{number}")
        try:
            copy.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            continue
        shutil.copy2(file, copy)
        return copy
    raise AssertionError


# --- line by line -----------------------------------------------------------------------------------------------------


_BEGINS = re.compile(r"( *)-( |$)")
_BETWEEN = re.compile(r"\s*(#.*)?")


def _spliced(text: str, file: Path, directory: Directory) -> str:
    """The text with the lines of other entries in place of those that say something else; "" where its entries are
    not lines of their own."""
    held = _held(file)
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    found = _spans(lines)
    if found is None or len(found[1]) != len(held.devices):
        return ""
    indent, spans = found
    entries = _by_name(directory)
    changed = {each.device.casefold() for each in differences(held, directory)}
    made = lines[: spans[0][0]]
    for device, (begin, end, following) in zip(held.devices, spans, strict=True):
        entry = entries.pop(_key(device), None)
        if entry is None:  # what stands between it and the next is not its own
            made += [line for line in lines[end:following] if _depth(line) <= indent]
            continue
        made += _lines(entry, indent) if _key(device) in changed else lines[begin:end]
        made += lines[end:following]
    for entry in entries.values():
        made += _lines(entry, indent)
    ending = "\r\n" if "\r\n" in text else "\n"
    return "".join(f"{line}{ending}" for line in made)


def _spans(lines: Sequence[str]) -> tuple[int, list[tuple[int, int, int]]] | None:
    """How deep entries stand, and of each its first line, the one behind it, and the first of the next; between the
    last two are comments. None where there are no such lines."""
    top = next((at for at, line in enumerate(lines) if re.match(r"devices\s*:\s*(#.*)?$", line)), None)
    if top is None:
        return None
    first = next((begins for line in lines[top + 1 :] if (begins := _BEGINS.match(line))), None)
    if first is None:
        return None
    indent = len(first[1])
    starts = [at for at in range(top + 1, len(lines)) if (it := _BEGINS.match(lines[at])) and len(it[1]) == indent]
    spans = []
    for start, following in zip(starts, [*starts[1:], len(lines)], strict=True):
        end = following
        while end > start + 1 and _BETWEEN.fullmatch(lines[end - 1]):
            end -= 1
        spans.append((start, end, following))
    return indent, spans


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip()) if line.strip() else 0


def _lines(entry: Mapping[str, Any], indent: int) -> Iterator[str]:
    """An entry as lines of the list."""
    made = io.StringIO()
    yaml = YAML()
    yaml.width = 120 - indent
    yaml.dump(CommentedSeq([_node(entry)]), made)
    return (f"{' ' * indent}{line}".rstrip() for line in made.getvalue().splitlines())


# --- as a tree --------------------------------------------------------------------------------------------------------


def _rewritten(text: str, held: Directory, directory: Directory) -> str:
    """The text with other entries in its tree. Raises ValueError where it is no registry."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    if not any(line.startswith("- ") for line in text.splitlines()):  # as it is written already
        yaml.indent(mapping=2, sequence=4, offset=2)
    tree = yaml.load(text) or CommentedMap()
    written = tree.get("devices")
    if not isinstance(written, CommentedSeq) or not written:
        tree["devices"] = written = CommentedSeq()
    if len(held.devices) != len(written):
        raise ValueError("it is no registry of devices")
    entries = _by_name(directory)
    changed = {each.device.casefold() for each in differences(held, directory)}
    kept = {_key(each): place for place, each in enumerate(held.devices)}
    for place in reversed(range(len(written))):
        key = _key(held.devices[place])
        if key not in entries or kept[key] != place:
            del written[place]
        elif key in changed:
            written[place] = _node(entries[key])
    written.extend(_node(entry) for key, entry in entries.items() if key not in kept)
    made = io.StringIO()
    yaml.dump(tree, made)
    return made.getvalue()


# --- both -------------------------------------------------------------------------------------------------------------


def _key(device: DeviceEntry) -> str:
    """Its name as LDAP compares names."""
    return device.name.casefold()


def _by_name(directory: Directory) -> dict[str, Any]:
    return dict(zip(map(_key, directory.devices), entries_of(directory)["devices"], strict=True))


def _held(file: Path) -> Directory:
    problems: list[Problem] = []
    found = entries_in(file, problems)
    if found is None:
        raise ValueError("; ".join(map(str, problems)))
    return found


def _means(text: str, name: str, directory: Directory) -> bool:
    return bool(text) and not _faults(text, name, directory)


def _faults(text: str, name: str, directory: Directory) -> Sequence[object]:
    """Why a file with this text would not say the directory; () if it does."""
    problems: list[Problem] = []
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, name)
        trial.write_text(text, encoding="utf-8", newline="")
        read = entries_in(trial, problems)
    if read is None:
        return problems
    return [  # no value: it may be one of the environment, by ${NAME}
        ", ".join(filter(None, (each.device, each.part, each.attribute))) for each in differences(directory, read)
    ]


def _node(value: Any) -> Any:
    """Plain data as YAML that reads well: lists of single values in one line."""
    if isinstance(value, Mapping):
        return CommentedMap((key, _node(item)) for key, item in value.items())
    if isinstance(value, list):
        node = CommentedSeq(_node(item) for item in value)
        if not any(isinstance(item, Mapping) for item in value):
            node.fa.set_flow_style()
        return node
    return value
