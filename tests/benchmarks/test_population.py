"""What the benchmarks fill a store with is what the same orders would have become on the road."""

from datetime import UTC, datetime
from pathlib import Path

from gateway.config import load_site
from gateway.domain.attributes import ATTRIBUTES, Attributes, Level
from gateway.domain.identifiers import Mint
from gateway.domain.matching import Narrowing
from gateway.edges.store import Store
from gateway.processing import feeds_of
from gateway.testing import omi, site
from gateway.workflow import intake
from tests.benchmarks.population import BUSY_STATION, NOBODYS_STATION, day_of, fill, numbers, order, station_of

COUNT = 20
OF_THE_VISIT = {attribute.tag for attribute in ATTRIBUTES if attribute.level is Level.VISIT}  # filled orders have none


def held_items(config: Path) -> list[Attributes]:
    with Store(load_site(config).store_url) as store:
        refs = store.reader.candidates(Narrowing())
        items = [item.attributes for item in store.reader.items([step_id for step_id, _ in refs])]
    return [{tag: held for tag, held in item.items() if tag not in OF_THE_VISIT} for item in items]


def test_a_filled_order_is_the_order_that_its_message_makes(tmp_path: Path) -> None:
    filled = site(tmp_path / "filled")
    fill(filled, range(COUNT))

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


def test_from_a_thousand_items_on_five_hundred_are_one_stations_day() -> None:
    assert [order(number).station for number in numbers(100)].count(BUSY_STATION) == 0
    for size in (1_000, 10_000):
        orders = [order(number) for number in numbers(size)]
        busy = [one for one in orders if one.station == BUSY_STATION]
        assert (len(orders), len(busy)) == (size, 500)
        assert {one.start.date() for one in busy} == {busy[0].start.date()}
        assert NOBODYS_STATION not in {one.station for one in orders}


def test_a_worklist_grows_by_what_it_lacks() -> None:
    held: list[int] = []
    for before, size in ((0, 100), (100, 1_000), (1_000, 10_000)):
        held += numbers(size, before)
        assert sorted(held) == sorted(numbers(size))
