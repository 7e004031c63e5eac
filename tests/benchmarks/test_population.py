"""What the benchmarks fill a store with is what the same orders would have become on the road."""

from datetime import UTC, datetime
from pathlib import Path

from population import day_of, fill, order, station_of

from gateway.config import load_site
from gateway.domain.attributes import ATTRIBUTES, Attributes, Level
from gateway.domain.identifiers import Mint
from gateway.domain.matching import Narrowing
from gateway.edges.store import Store
from gateway.processing import feeds_of
from gateway.testing import omi, site
from gateway.workflow import intake

COUNT = 20
OF_THE_VISIT = {attribute.tag for attribute in ATTRIBUTES if attribute.level is Level.VISIT}  # filled orders have none


def held_items(config: Path) -> list[Attributes]:
    with Store(load_site(config).store_url) as store:
        refs = store.reader.candidates(Narrowing())
        items = [item.attributes for item in store.reader.items([step_id for step_id, _ in refs])]
    return [{tag: held for tag, held in item.items() if tag not in OF_THE_VISIT} for item in items]


def test_a_filled_order_is_the_order_that_its_message_makes(tmp_path: Path) -> None:
    filled = site(tmp_path / "filled")
    fill(filled, 0, COUNT)

    received = site(tmp_path / "received")
    settings = load_site(received)
    with Store(settings.store_url) as store:
        feed = feeds_of(settings, Mint(store.site_namespace()))["ris"]
        for number in range(COUNT):
            now = datetime.now(UTC)
            message = omi(order(number)).message(f"M{number}", now)
            store.write(lambda unit, raw=message, at=now: intake.receive(unit, raw, feed, "peer", at)).result()

    assert held_items(filled) == held_items(received)


def test_ten_orders_share_station_and_day() -> None:
    for group in (0, 1, 39, 40, 9_999):
        orders = [order(number) for number in range(group * 10, group * 10 + 10)]
        assert {one.station for one in orders} == {station_of(group)}
        assert {f"{one.start:%Y%m%d}" for one in orders} == {day_of(group)}
