"""Whose orders a feed brings: an order keeps the first site that is said, whoever speaks of it later."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.config import load_site
from gateway.domain.identifiers import Mint
from gateway.edges.store import Store
from gateway.processing import feeds_of, process_message
from gateway.testing import ImagingOrder, cancel, invented_person, rad4_orm, site
from gateway.workflow.ports import ItemKey

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
ORDER = ImagingOrder(1, invented_person(1), datetime(2026, 7, 5, 9, 30))


@pytest.fixture
def sent(tmp_path):
    """Send a draft as a listener of this site; the site of the item afterwards."""
    loaded = load_site(site(tmp_path))
    with Store(loaded.store_url) as store:
        feed = feeds_of(loaded, Mint(store.site_namespace()))["ris"]

        def send(draft, number, whose):
            raw = draft.message(f"M{number}", AT)
            receipt = asyncio.run(process_message(store, raw, replace(feed, site=whose), "test"))
            assert receipt.disposition == "accepted"
            (item,) = store.reader.items_by(ItemKey.ACCESSION, ORDER.accession)
            return item.site

        yield send


@pytest.mark.parametrize(("sites", "afterwards"), [
    (("NORTH", "SOUTH"), ["NORTH", "NORTH"]),
    (("NORTH", ""), ["NORTH", "NORTH"]),
    (("", "SOUTH", "NORTH"), ["", "SOUTH", "SOUTH"]),
])  # fmt: skip
def test_an_order_keeps_the_first_site_that_is_said(sent, sites, afterwards):
    assert [sent(rad4_orm(ORDER), number, whose) for number, whose in enumerate(sites)] == afterwards


def test_a_cancel_by_another_sites_listener_moves_nothing(sent):
    assert sent(rad4_orm(ORDER), 1, "NORTH") == "NORTH"
    assert sent(cancel(ORDER), 2, "SOUTH") == "NORTH"
