"""The web shop that the demo runs on: its schema, and the rows it opens with.

The same seed gives the same rows. ``accounts`` is the shop's invariant: transfers keep the sum of its balances,
in every transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files

import psycopg
from psycopg import sql

CUSTOMERS = 2_000
PRODUCTS = 500
ACCOUNTS = 1_000

TABLES = (
    "customers",
    "products",
    "accounts",
    "orders",
    "order_items",
    "payments",
    "page_views",
    "wishes",
    "audit_log",
)
PARTITIONED = ("orders", "page_views")
"""The busiest tables: four partitions each, so that the demo shows them."""
PARTITIONS = 4


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What the shop holds. ``balance`` is the sum of all balances, for ever."""

    rows: int
    balance: Decimal
    new: bool


def open_shop(dsn: str, seed: int) -> Opened:
    """Make the schema and the first rows, in one transaction, unless they are there."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT to_regclass('public.accounts') IS NOT NULL").fetchone()
        new = not (found and found[0])
        if new:
            connection.execute(_text("shop.sql"))
            # setseed takes -1..1; the seed's last six digits are plenty of shops.
            connection.execute("SELECT setseed(%s)", [seed % 1_000_000 / 1_000_000])
            connection.execute(_text("seed.sql"))
        rows = sum(_count(connection, table) for table in TABLES)
        balance = connection.execute("SELECT sum(balance) FROM accounts").fetchone()
    assert balance is not None
    return Opened(rows=rows, balance=balance[0], new=new)


def _count(connection: psycopg.Connection[tuple[object, ...]], table: str) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return int(str(row[0]))


def _text(name: str) -> str:
    return files("headwater_connectors.demo").joinpath(name).read_text(encoding="utf-8")
