"""Who knocked and was not let in, in the store: one row for each AE title, address and certificate, and a bounded
number of them."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

from sqlalchemy import bindparam, delete, insert, select, update

from gateway.edges.database import Connection, Prepared, Queries, Row
from gateway.edges.schema import knocks
from gateway.edges.stored_values import storable, utc_text
from gateway.workflow.knocks import KNOCKS_MAX, KNOCKS_PER_ADDRESS_MAX, Knock, merged, within_bounds

_given = bindparam

_COLUMNS = [column.name for column in knocks.columns]
_KEY_NAMES = ("ae_title", "address", "fingerprint")
_KEY = tuple(knocks.c[name] == _given(f"key_{name}") for name in _KEY_NAMES)
_KNOCK = select(*(knocks.c[name] for name in _COLUMNS))

_NEWEST_FIRST = (knocks.c.last_at.desc(), knocks.c.ae_title, knocks.c.address, knocks.c.fingerprint)

KNOCKS = Prepared(_KNOCK.order_by(*_NEWEST_FIRST))
KNOCKS_OF_AE = Prepared(_KNOCK.where(knocks.c.ae_title == _given("ae_title")).order_by(*_NEWEST_FIRST))
KNOCK = Prepared(_KNOCK.where(*_KEY))
KNOCK_INSERT = Prepared(insert(knocks).values({name: _given(name) for name in _COLUMNS}))
KNOCK_UPDATE = Prepared(
    update(knocks).where(*_KEY).values({name: _given(name) for name in _COLUMNS if name not in _KEY_NAMES})
)
KNOCK_DELETE = Prepared(delete(knocks).where(*_KEY))
KNOCK_TIMES = Prepared(select(knocks.c.address, knocks.c.last_at, knocks.c.ae_title, knocks.c.fingerprint))


class KnockReader:
    """The part of `StoreReader` about knocks; newest first."""

    _connection: Queries

    def knocks(self, ae_title: str = "") -> Sequence[Knock]:
        """Who knocked; only those of one AE title where it is named."""
        rows = (
            self._connection.rows(KNOCKS_OF_AE, ae_title=storable(ae_title))
            if ae_title
            else self._connection.rows(KNOCKS)
        )
        return [_knock(row) for row in rows]


class KnockWriter(KnockReader):
    """The part of `StoreUnit` about knocks."""

    _write: Connection

    def add_knocks(
        self, said: Sequence[Knock], most: int = KNOCKS_MAX, most_of_an_address: int = KNOCKS_PER_ADDRESS_MAX
    ) -> None:
        """Keep these. Of one address, and of all, only those that knocked last stay."""
        new = False
        for knock in said:
            key = _key(*knock.who)
            row = self._write.row(KNOCK, **key)
            values = _values(merged(_knock(row) if row else None, within_bounds(knock)))
            if row:
                for name in _KEY_NAMES:
                    del values[name]
                self._write.run(KNOCK_UPDATE, **values, **key)
            else:
                self._write.run(KNOCK_INSERT, **values)
                new = True
        if new:
            self._forget_oldest(most, most_of_an_address)

    def forget_knocks(self, ae_title: str, address: str = "", fingerprint: str | None = None) -> int:
        """Drop the knocks of this AE title, those from one address or with one certificate where it is named ("": with
        none); how many."""
        gone = [
            knock
            for knock in self.knocks(ae_title)
            if address in ("", knock.address) and fingerprint in (None, knock.fingerprint)
        ]
        for knock in gone:
            self._write.run(KNOCK_DELETE, **_key(*knock.who))
        return len(gone)

    def _forget_oldest(self, most: int, most_of_an_address: int) -> None:
        rows = sorted(self._write.rows(KNOCK_TIMES), key=lambda row: (row[0], row[1]), reverse=True)
        kept: list[Row] = []
        gone: list[Row] = []
        for _, of_address in groupby(rows, key=lambda row: row[0]):
            alike = list(of_address)
            kept += alike[:most_of_an_address]
            gone += alike[most_of_an_address:]
        kept.sort(key=lambda row: row[1], reverse=True)
        for address, _, ae_title, fingerprint in (*gone, *kept[most:]):
            self._write.run(KNOCK_DELETE, **_key(ae_title, address, fingerprint))


def _key(ae_title: str, address: str, fingerprint: str) -> dict[str, object]:
    said = zip(_KEY_NAMES, (ae_title, address, fingerprint), strict=True)
    return {f"key_{name}": storable(value) for name, value in said}


def _values(knock: Knock) -> dict[str, object]:
    return {
        "ae_title": storable(knock.ae_title),
        "address": storable(knock.address),
        "called_ae_title": storable(knock.called_ae_title),
        "reason": knock.reason,
        "first_at": utc_text(knock.first_at),
        "last_at": utc_text(knock.last_at),
        "implementation_version": storable(knock.implementation_version),
        "tls": int(knock.tls),
        "fingerprint": knock.fingerprint,
        "common_name": storable(knock.common_name),
        "times": knock.times,
    }


def _knock(row: Row) -> Knock:
    said = dict(zip(_COLUMNS, row, strict=True))
    return Knock(
        **said | {
            "first_at": datetime.fromisoformat(said["first_at"]), "last_at": datetime.fromisoformat(said["last_at"]),
            "tls": bool(said["tls"]),
        }
    )  # fmt: skip
