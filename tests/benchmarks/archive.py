"""The archive filled, searched, and gone through by the commands that an engineer runs over it.

Every command is a process of its own, timed from its start to its end as its user waits for it.
"""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from gateway.config import load_site
from gateway.edges.database import database_path
from gateway.testing import free_port, site
from tests.benchmarks import archive_population
from tests.benchmarks.archive_search import SHOWN, Searched, Timed
from tests.benchmarks.report import Row, Section, number
from tests.benchmarks.watched import Watched, watched

GATEWAY = (sys.executable, "-m", "gateway")
CHANGED_MAPPING = """
name: ihe-swf
version: "changed"
extends: {base}
rules:
  ReferringPhysicianName: {{value: "Changed^By^Mapping"}}
"""

Progress = Callable[[str], None]
Found = Row | Section


@dataclass(frozen=True, slots=True)
class Scale:
    """Messages in the archive, of which some are `replayed` (about) and the oldest `pruned`; rounds of each search."""

    messages: int
    replayed: int
    pruned: int
    rounds: int
    processes: int = 2


SAMPLE = Scale(100_000, 2_000, 10_000, 100)
MILLION = Scale(1_000_000, 10_000, 100_000, 200)
QUICK = Scale(2_500, 100, 500, 5)


def measured(folder: Path, scale: Scale, progress: Progress) -> list[Found]:
    """Fill an archive, and then all that is done with it."""
    of = f"archive of {scale.messages:,} messages"
    config = _site(folder / "archive", scale)
    store = database_path(load_site(config).store_url)
    progress(f"filling an {of}")
    filled = watched([sys.executable, "-m", "tests.benchmarks.archive_population", str(store), str(scale.messages)])
    size = _megabytes(store)
    progress("searches")
    search = watched([sys.executable, "-m", "tests.benchmarks.archive_search", str(store), str(scale.rounds)])
    found = json.loads(search.output)
    searched = Searched([Timed(**each) for each in found["timed"]], found["megabytes"])
    progress("replay, dry run")
    replay = _replay(config, scale)
    progress("mappings diff")
    diff = _diff(folder / "changed", config, scale)
    progress("prune")
    prune = watched([*GATEWAY, "messages", "prune", "--config", str(config), "--json"])
    pruned = json.loads(prune.output)["deleted"]
    return [
        Row(f"{of}: filled, past the writer", scale.messages / filled.seconds, "/s", times=_took(filled)),
        Row(f"{of}: file", size, "MB", times=f"{size * 1e3 / scale.messages:.1f} KB a message"),
        Row(f"{of}: memory of the process that searches", searched.megabytes, "MB"),
        *replay_rows(of, replay),
        *diff_rows(of, diff, scale.processes),
        Row(f"{of}: prune, {pruned:,} messages", pruned / prune.seconds, "/s", times=_took(prune)),
        Row(f"{of}: given back to the disk by it", size - _megabytes(store), "MB"),
        _section(of, searched, scale.rounds),
    ]


def replay_rows(of: str, replay: Watched) -> list[Row]:
    """What the table says of `messages replay --dry-run`."""
    messages = len(json.loads(replay.output)["messages"])
    return [Row(f"{of}: replay --dry-run, {messages:,} messages", messages / replay.seconds, "/s", times=_took(replay))]


def diff_rows(of: str, diff: Watched, processes: int) -> list[Row]:
    """What the table says of `mappings diff`."""
    said = json.loads(diff.output)
    messages = said["messages"] + said["not_read"]
    what = f"{of}: mappings diff, {processes} processes"
    times = f"{_took(diff)}; {said['changed']:,} messages changed"
    return [
        Row(what, messages / diff.seconds, "/s", times=times),
        Row(f"{what}: memory of all of them", diff.peak_mb, "MB"),
    ]


def _section(of: str, searched: Searched, rounds: int) -> Section:
    return Section(
        f"Searching an {of}",
        f"Milliseconds of {rounds} rounds, each with other values; the newest {SHOWN} of what is found are shown. The "
        "counts, which look at all that match, were done a tenth as often.",
        ("Search", "Shown", "Median", "99% within", "Worst"),
        [
            (each.what, f"{each.found:,}", *(f"{number(ms)} ms" for ms in (each.median_ms, each.p99_ms, each.worst_ms)))
            for each in searched.timed
        ],
    )


def _site(folder: Path, scale: Scale) -> Path:
    """A site with the archive's listeners, that keeps all messages but those to be pruned."""
    names = dict.fromkeys(archive_population.LISTENERS)
    listeners = [{"name": name, "host": "127.0.0.1", "port": free_port(), "mapping": "ihe-swf"} for name in names]
    return site(folder, hl7=listeners, archive={"days": 36_500, "messages_max": scale.messages - scale.pruned})


def _replay(config: Path, scale: Scale) -> Watched:
    """The messages of the last days."""
    archived = archive_population.LAST - archive_population.FIRST
    since = archive_population.LAST - max(timedelta(days=1), archived * (scale.replayed / scale.messages))
    command = [*GATEWAY, "messages", "replay", "--all", "--since", f"{since:%Y-%m-%d}", "--dry-run", "--json"]
    return watched([*command, "--config", str(config)], success=(0, 1))  # 1: some would be refused


def _diff(changed: Path, config: Path, scale: Scale) -> Watched:
    """With one attribute changed in every order, so that examples are kept and orders counted."""
    loaded = load_site(config)
    shutil.copytree(loaded.file.parent / loaded.settings.mappings, changed)
    (ready,) = changed.rglob("ihe-swf.yaml")
    text = ready.read_text(encoding="utf-8")
    base = "ihe-swf-before"
    ready.with_name(f"{base}.yaml").write_text(text.replace("name: ihe-swf\n", f"name: {base}\n"), encoding="utf-8")
    ready.write_text(CHANGED_MAPPING.format(base=base), encoding="utf-8")
    command = [*GATEWAY, "mappings", "diff", str(changed), "--config", str(config)]
    return watched([*command, "--processes", str(scale.processes), "--json"], success=(1,))


def _took(command: Watched) -> str:
    return f"{command.seconds:.1f} s"


def _megabytes(store: Path) -> float:
    return store.stat().st_size / 1e6
