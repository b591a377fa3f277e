"""The shop's visitors: a bounded, seeded load on the shop's database, in a process of its own.

    python -m headwater_connectors.demo.load DSN [--rate ROWS_PER_S] [--for SECONDS] [--seed N]

Three connections work side by side, so transactions interleave in the WAL as they do in life. Each does whole
transactions, drawn from a seeded generator: orders with items and payments, pages viewed in batches, transfers
between accounts (which keep the sum of balances), price and profile changes, deletes, wishes. Popular customers
and products are drawn by Zipf's law. It stops after --for, on SIGTERM or on Ctrl-C, between two transactions,
and prints one JSON object: {"seconds", "transactions", "rows", "deadlocks"}.

The rate is a ceiling on row changes per second over all connections; when the database cannot keep up, the load
falls behind and does not catch up in a burst.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import threading
import time
from bisect import bisect
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from types import FrameType

import psycopg
from psycopg.types.json import Jsonb

from headwater_connectors.demo.shop import ACCOUNTS, CUSTOMERS, PRODUCTS

DEFAULT_RATE = 2_000
"""Row changes per second: leaves most of two cores to the database, the capture, the views and who looks at them."""
_CONNECTIONS = 3
_VIEWS_IN_A_BATCH = 60
_OWN_ORDERS_MAX = 500
"""Orders that a connection remembers and may still change; older ones are left alone."""
_LAG_FORGIVEN_S = 0.5
_CENT = Decimal("0.01")


class Zipf:
    """Draws 1..n, the k-th with a probability proportional to 1 / k**skew."""

    def __init__(self, n: int, skew: float = 1.1) -> None:
        self._cumulative = list(accumulate(1 / k**skew for k in range(1, n + 1)))

    def draw(self, chance: random.Random) -> int:
        return bisect(self._cumulative, chance.random() * self._cumulative[-1]) + 1


@dataclass
class Order:
    """An order that one connection made: what it needs to know to change it later."""

    id: int
    customer: int
    total: Decimal
    items: int
    paid: bool = False


@dataclass
class Visitor:
    """One connection's work. ``rows`` counts row changes of committed transactions, as the WAL carries them."""

    connection: psycopg.Connection[tuple[object, ...]]
    chance: random.Random
    rows: int = 0
    transactions: int = 0
    deadlocks: int = 0
    _orders: deque[Order] = field(default_factory=deque)
    _customers: Zipf = field(default_factory=lambda: Zipf(CUSTOMERS))
    _products: Zipf = field(default_factory=lambda: Zipf(PRODUCTS))

    def act(self) -> None:
        """One transaction. A deadlock is what an application meets now and then: it is rolled back and forgotten."""
        action = self.chance.choices(_ACTIONS, _WEIGHTS)[0]
        try:
            with self.connection.transaction():
                done = action(self)
        except psycopg.errors.DeadlockDetected:
            self.deadlocks += 1
            return
        self.rows += done
        self.transactions += 1

    def view_pages(self) -> int:
        """The busiest of all: one INSERT with many rows."""
        n = self.chance.randint(_VIEWS_IN_A_BATCH // 2, _VIEWS_IN_A_BATCH * 3 // 2)
        known = [self._customers.draw(self.chance) if self.chance.random() < 0.7 else None for _ in range(n)]
        products = [self._products.draw(self.chance) for _ in range(n)]
        took = [self.chance.random() * 300 for _ in range(n)]
        self.connection.execute(
            "INSERT INTO page_views (customer_id, product_id, path, took_ms, at)"
            " SELECT customer, product, '/products/' || product, took, clock_timestamp()"
            " FROM unnest(%s::bigint[], %s::bigint[], %s::real[]) AS t (customer, product, took)",
            [known, products, took],
        )
        return n

    def order(self) -> int:
        """An order, its items, less stock, and sometimes its payment, in one transaction."""
        chance, now = self.chance, datetime.now(UTC)
        customer = self._customers.draw(chance)
        # Sorted: every transaction locks products in the same order.
        wanted = sorted({self._products.draw(chance) for _ in range(chance.randint(1, 4))})
        prices = self._prices(wanted)
        quantities = [chance.randint(1, 3) for _ in wanted]
        total = sum((q * p for q, p in zip(quantities, prices, strict=True)), Decimal(0))
        row = self.connection.execute(
            "INSERT INTO orders (customer_id, total, note, placed_at, deliver_on) VALUES (%s, %s, %s, %s, %s)"
            " RETURNING id",
            [customer, total, chance.choice([None, None, "", "Ring twice, please"]), now,
             now.date() + timedelta(days=chance.randint(1, 5))],
        ).fetchone()  # fmt: skip
        assert row is not None
        made = Order(id=int(str(row[0])), customer=customer, total=total, items=len(wanted))
        self.connection.execute(
            "INSERT INTO order_items SELECT %s, * FROM unnest(%s::smallint[], %s::bigint[], %s::int[], %s::numeric[])",
            [made.id, list(range(1, len(wanted) + 1)), wanted, quantities, prices],
        )
        self.connection.execute(
            "UPDATE products SET stock = stock - q.quantity"
            " FROM (SELECT * FROM unnest(%s::bigint[], %s::int[]) AS t (id, quantity) ORDER BY 1) AS q"
            " WHERE products.id = q.id",
            [wanted, quantities],
        )
        changed = 1 + 2 * len(wanted)
        if chance.random() < 0.4:
            changed += self._pay(made)
        self._orders.append(made)
        if len(self._orders) > _OWN_ORDERS_MAX:
            self._orders.popleft()
        return changed

    def advance_order(self) -> int:
        """Pay an order, or ship it and forget it."""
        if not self._orders:
            return 0
        order = self._orders[0]
        if not order.paid:
            return self._pay(order)
        self._orders.popleft()
        self.connection.execute("UPDATE orders SET status = 'shipped' WHERE id = %s", [order.id])
        return 1

    def cancel_order(self) -> int:
        """Mark an order cancelled, or delete it with everything that belongs to it."""
        if not self._orders:
            return 0
        order = self._orders.pop()
        if self.chance.random() < 0.5:
            self.connection.execute("UPDATE orders SET status = 'cancelled' WHERE id = %s", [order.id])
            return 1
        self.connection.execute("DELETE FROM orders WHERE id = %s", [order.id])
        self.connection.execute(
            "INSERT INTO audit_log VALUES (clock_timestamp(), %s, 'deleted', %s)",
            [f"customer {order.customer}", Jsonb({"order": order.id, "total": str(order.total)})],
        )
        return 2 + order.items + order.paid

    def transfer(self) -> int:
        """Move money between two accounts: one UPDATE takes it, another gives it, the sum stays."""
        source, target = self.chance.sample(range(1, ACCOUNTS + 1), 2)
        amount = Decimal(self.chance.randint(1, 5000)) * _CENT
        # Always the smaller id first: two transfers cannot wait for each other.
        for account, change in sorted([(source, -amount), (target, amount)]):
            self.connection.execute(
                "UPDATE accounts SET balance = balance + %s, updated_at = clock_timestamp() WHERE id = %s",
                [change, account],
            )
        return 2

    def change_profile(self) -> int:
        """A customer's newsletter settings: jsonb and an array."""
        self.connection.execute(
            "UPDATE customers SET interests = %s,"
            " profile = profile || jsonb_build_object('visits', (profile->>'visits')::int + 1) WHERE id = %s",
            [self.chance.sample(["books", "music", "garden", "tools", 'news, "daily"'], 2),
             self._customers.draw(self.chance)],
        )  # fmt: skip
        return 1

    def change_price(self) -> int:
        """A price moves by a few percent; the long description beside it is not touched, nor sent."""
        self.connection.execute(
            "UPDATE products SET price = greatest(1, round(price * %s, 2)) WHERE id = %s",
            [Decimal(self.chance.randint(95, 105)) / 100, self._products.draw(self.chance)],
        )
        return 1

    def wish(self) -> int:
        """Rows of a table without a key: added, moved to another day, removed by all their columns."""
        customer, day = self._customers.draw(self.chance), datetime.now(UTC).date()
        kind = self.chance.random()
        if kind < 0.6:
            done = self.connection.execute(
                "INSERT INTO wishes VALUES (%s, %s, %s)", [customer, self._products.draw(self.chance), day]
            )
        elif kind < 0.8:
            done = self.connection.execute(
                "UPDATE wishes SET since = since + 1 WHERE ctid IN"
                " (SELECT ctid FROM wishes WHERE customer_id = %s LIMIT 3)", [customer]
            )  # fmt: skip
        else:
            done = self.connection.execute(
                "DELETE FROM wishes WHERE ctid IN (SELECT ctid FROM wishes WHERE customer_id = %s LIMIT 2)",
                [customer],
            )
        return done.rowcount

    def _prices(self, products: Sequence[int]) -> list[Decimal]:
        rows = self.connection.execute("SELECT price FROM products WHERE id = ANY(%s) ORDER BY id", [list(products)])
        return [Decimal(str(row[0])) for row in rows]

    def _pay(self, order: Order) -> int:
        # By the order's number, as seed.sql does: a load that starts again with the same seed must not repeat ids.
        self.connection.execute(
            "INSERT INTO payments VALUES (md5('payment' || %s::bigint)::uuid, %s, %s, %s, clock_timestamp())",
            [order.id, order.id, order.total, self.chance.choice(["card", "invoice", "wallet"])],
        )
        self.connection.execute("UPDATE orders SET status = 'paid' WHERE id = %s", [order.id])
        order.paid = True
        return 2


_MIX: dict[Callable[[Visitor], int], float] = {
    Visitor.view_pages: 12,
    Visitor.order: 40,
    Visitor.advance_order: 42,
    Visitor.cancel_order: 6,
    Visitor.transfer: 50,
    Visitor.change_profile: 12,
    Visitor.change_price: 8,
    Visitor.wish: 20,
}
"""How often each kind of transaction happens, relative to the others."""
_ACTIONS = tuple(_MIX)
_WEIGHTS = tuple(_MIX.values())


def run(dsn: str, *, rate: float, seconds: float | None, seed: int, stop: threading.Event) -> dict[str, float]:
    """Load the shop until ``stop`` is set or ``seconds`` have passed; returns what was done."""
    visitors = []
    began = time.monotonic()
    for number in range(_CONNECTIONS):
        connection = psycopg.connect(dsn, autocommit=True, application_name=f"web shop {number + 1}")
        visitors.append(Visitor(connection, random.Random(f"{seed}/{number}")))
    ends = None if seconds is None else began + seconds
    failed: list[BaseException] = []

    def work(visitor: Visitor) -> None:
        try:
            _paced(visitor, rate / _CONNECTIONS, ends, stop)
        except psycopg.Error as error:
            failed.append(error)
            stop.set()

    threads = [threading.Thread(target=work, args=[visitor]) for visitor in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for visitor in visitors:
        visitor.connection.close()
    if failed:
        raise failed[0]
    return {
        "seconds": round(time.monotonic() - began, 3),
        "transactions": sum(each.transactions for each in visitors),
        "rows": sum(each.rows for each in visitors),
        "deadlocks": sum(each.deadlocks for each in visitors),
    }


def _paced(visitor: Visitor, rate: float, ends: float | None, stop: threading.Event) -> None:
    """Transactions at ``rate`` row changes per second: each is due when the rows before it are paid for."""
    due = time.monotonic()
    while not stop.is_set() and (ends is None or time.monotonic() < ends):
        if stop.wait(max(0.0, due - time.monotonic())):
            return
        before = visitor.rows
        visitor.act()
        due = max(due + (visitor.rows - before) / rate, time.monotonic() - _LAG_FORGIVEN_S)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m headwater_connectors.demo.load", description=__doc__)
    parser.add_argument("dsn")
    parser.add_argument("--rate", type=float, default=DEFAULT_RATE, metavar="ROWS_PER_S")
    parser.add_argument("--for", dest="seconds", type=float, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    stop = threading.Event()

    def stopping(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, stopping)
    signal.signal(signal.SIGINT, stopping)
    try:
        done = run(options.dsn, rate=options.rate, seconds=options.seconds, seed=options.seed, stop=stop)
    except psycopg.Error as error:
        sys.stderr.write(f"the load stopped: {error}".strip() + "\n")
        return 1
    sys.stdout.write(json.dumps(done) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
