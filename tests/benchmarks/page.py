"""docs/benchmarks.md: a part for each target that measures, kept as it is until that target runs again."""

import re
from collections.abc import Mapping
from datetime import date

BENCH, ARCHIVE = "make bench", "make bench-archive"
TITLES: Mapping[str, str] = {
    BENCH: "The gateway beside its peers",
    ARCHIVE: "An archive of a million messages",
}
"""Of the parts, in their order, by the target that writes each."""

_PART = re.compile(r"<!-- part: (?P<target>[^>]+) -->\n(?P<text>.*?)\n<!-- end -->", re.DOTALL)

INTRODUCTION = """\
# Benchmarks

Written by `make bench` (about a quarter of an hour) and `make bench-archive` (about half an hour); each part says when
it was measured. Every peer ran on the same machine in the same run, asked by the same load client, so the ratios mean
something elsewhere too; the absolute figures are this machine's. How each is measured stands in `tests/benchmarks`. The
budgets are promises, and none of them is a timed test.
"""

EXPLANATION = """\
## How to read it

- *Associate, ask, release*: four clients, each opening an association, asking for a station's list of today and
  releasing, over and over, as modalities do; *ask again*: on associations that stay open. There are 40 stations with
  ten matches each, a busy one with 500, and one that nothing is scheduled to. wlmscpfs and Orthanc read their folder of
  files for each query, which takes them seconds with 10,000; with 100,000 they are not asked. Stock pynetdicom answers
  from an index over datasets prepared beforehand and encodes each answer afresh.
- Every device of the gateway is registered, with a group, a site and a profile that uses most rules; a called worklist
  bounds sites and modalities; every query is recorded.
- *Canned replies* are the same bytes, sent by the barest server on the same event loop, which looks at nothing: what no
  server in Python could exceed.
- *500 devices, 20 orders/s*: each device opens an association, asks for its list and releases every two seconds, give
  or take; every other order changes a list that is asked for. The schedule is fixed beforehand and a query's time
  counts from when it was due, so that waiting behind a slow one counts too. The generator runs on the same cores.
- *Orders*: OMI^O23 messages over MLLP. Ours are on disk, with their worklist items and the message itself, before they
  are acknowledged; the other servers parse, acknowledge and keep nothing. hl7apy builds the message's groups and checks
  its structure; python-hl7 and simple-hl7 (Node.js) cut it into fields, which is what any server must do at least.
- *FHIR Bundle*: transactions posted over HTTP by clients that wait for each answer. The gateway checks every element,
  resolves references and conditions, keeps each resource with its version, maps and applies the order and has all of it
  with the Bundle itself on disk before it answers. The bare server reads the same Bundle into the models of
  fhir.resources, puts its bytes into one SQLite row and commits: what any server in Python would do at least. *Single
  requests* are about one patient that is there.
- *Archive*: five years of messages of an invented RIS with their search keys. Commands are timed from the start of
  their process to its end. The replay is of the last weeks, a dry run that maps, applies and undoes each message; the
  prune deletes the oldest tenth and gives its space back; the diff reads every message by two rule sets that differ in
  one attribute. The memory is that of the command's process with all that it started, shared pages counted in each.
- *Performed steps*: an association, N-CREATE, N-SET to COMPLETED, release. Both changes are on disk when they are
  answered, and the item has left the worklist.
- *Performed steps had back*: an association, N-GET of all attributes of one of those steps, release.
- *Outbox*: so many messages wait when delivery starts, of 500 patients or of as many performed steps, for a receiver
  that answers at once. The bare client sends the same on one connection and keeps nothing; the gateway has every
  outcome on disk, up to 32 in a transaction.
- *So many messages wait*: everything that is done with the outbox is a few looks into indexes, whose cost does not
  depend on how much waits. Archiving a message and putting it there takes 372,000 instructions with a million waiting
  and 417,000 with a thousand (counted with callgrind). Where its rate differs between two runs, the disk or the machine
  was busy: it is taken over less than a second. In particular the first checkpoint after a bulk load waits until all
  of the load is on the disk, which halved the first rate after one; so the load is brought to the disk before anything
  is measured, and the sizes take turns. Memory grows only by SQLite's page caches, 16 MiB for each connection, until
  they are full.
- *Memory* is what the process has in RAM; after every item was answered once where it says so. What is kept for
  matching is weighed by itself, 500 of each; an answer's encoding is kept for each shape of query.
"""


def with_part(held: str, target: str, text: str, measured: date) -> str:
    """The page with what a target has measured now; the parts of the others stay as `held`, the page so far, has them.

    Raises KeyError for a target that has no part.
    """
    parts = {found["target"]: found["text"] for found in _PART.finditer(held)}
    parts[target] = f"## {TITLES[target]}\n\nMeasured on {measured:%Y-%m-%d} by `{target}`.\n\n{text.strip()}"
    return "\n".join([INTRODUCTION, *(_part(each, parts.get(each, "")) for each in TITLES), EXPLANATION])


def _part(target: str, text: str) -> str:
    text = text or f"## {TITLES[target]}\n\nNot measured yet: `{target}` does it."
    return f"<!-- part: {target} -->\n{text}\n<!-- end -->\n"
