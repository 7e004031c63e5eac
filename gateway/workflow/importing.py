"""Worklist items of another system are taken over as they are, all attributes kept."""

from datetime import datetime

from gateway.domain.identifiers import Issuers, Mint
from gateway.wire.worklist_files import ImportedItem
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.orders import apply_events
from gateway.workflow.ports import Unit


def import_item(unit: Unit, item: ImportedItem, mint: Mint, issuers: Issuers, at: datetime, site: str = "") -> None:
    """Hold the item like an order of `site` that came by a feed; the same item again updates it. Raises Refused."""
    apply_events(unit, [item.event], Circumstances(f"import of {item.name}", mint, issuers, site=site), at)
