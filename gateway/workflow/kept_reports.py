"""The reports that outbound mappings wrote messages of, as the archive keeps them: small, and exactly what was read.

What an order, a patient and a performed step say changes after a message about them has left. With the report of then
and the mapping of then the message can be made again, byte by byte, with where each value came from.
"""

import json
import zlib
from dataclasses import asdict, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from gateway.domain.report import Header, Report

CHARACTERS_MAX = 1_000_000
"""As JSON. A usual report has five thousand; one of four thousand series has more and is not kept."""

_LEVEL = 1  # a tenth of a millisecond for a usual report, a quarter of its size


def kept(report: Report, header: Header) -> bytes | None:
    """What `restored` makes the same of; None for a report that is too large to be kept."""
    at = header.at
    text = json.dumps(
        {
            "report": {name: getattr(report, name) for name in ("facts", "person", "items", "performed", "first")},
            "header": asdict(replace(header, at=None)),
            "at": at.isoformat() if at is not None else "",
            "zone": at.tzinfo.key if at is not None and isinstance(at.tzinfo, ZoneInfo) else "",
        },
        ensure_ascii=False,
        separators=(",", ":"),
        default=dict,  # facts may be any mapping
    )
    return zlib.compress(text.encode(), _LEVEL) if len(text) <= CHARACTERS_MAX else None


def restored(data: bytes) -> tuple[Report, Header]:
    """The report and the header that were kept."""
    said = json.loads(zlib.decompress(data))
    report = said["report"]
    at = datetime.fromisoformat(said["at"]) if said["at"] else None
    if at is not None and said["zone"]:
        at = at.astimezone(ZoneInfo(said["zone"]))
    return Report(**{**report, "items": tuple(report["items"])}), Header(**{**said["header"], "at": at})
