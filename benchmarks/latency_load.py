"""What ``benchmarks.latency`` runs on: a shop's tables, the writer that changes them, ten views, the reader's queries.

The tables keep their size: each transaction places ``k`` orders of two items, pays ``k`` of a while ago, ships
``k // 2`` anywhere among the rest, counts for four customers, and removes the ``k`` oldest orders with their items.
Orders are numbered, so the highest number that a view holds says up to which transaction it reaches.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import psycopg
from psycopg.types.numeric import Int8

ORDERS, CUSTOMERS, PRODUCTS = 100_000, 10_000, 1_000
_ORDERS_PER_TRANSACTION = (7, 13)
_CUSTOMERS_PER_TRANSACTION = 4

SCHEMA = f"""
CREATE TABLE customers (id bigint PRIMARY KEY, country text NOT NULL, orders integer NOT NULL);
CREATE TABLE products (id bigint PRIMARY KEY, category text NOT NULL, price numeric(12, 2) NOT NULL);
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint NOT NULL, status text NOT NULL,
                     amount numeric(12, 2) NOT NULL, placed_at timestamptz NOT NULL);
CREATE TABLE items (order_id bigint, line smallint, product_id bigint NOT NULL, quantity integer NOT NULL,
                    PRIMARY KEY (order_id, line));
-- The benchmark's own: when which transaction committed. Not captured.
CREATE SCHEMA bench;
CREATE TABLE bench.done (n integer PRIMARY KEY, newest bigint NOT NULL);

-- Multiplicative hashing scatters what belongs to an order, and gives the same rows in every run.
CREATE FUNCTION bench.scattered(i bigint, n integer) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT (i * 2654435761 % 4294967296) % n $$;
CREATE FUNCTION bench.placed(first bigint, last bigint) RETURNS SETOF orders LANGUAGE sql AS
$$ SELECT i, 1 + bench.scattered(i, {CUSTOMERS}), 'new', 1 + bench.scattered(i * 31, 100000) / 100.0, clock_timestamp()
   FROM generate_series(first, last) AS i $$;
CREATE FUNCTION bench.lines(first bigint, last bigint) RETURNS SETOF items LANGUAGE sql AS
$$ SELECT i, line, 1 + bench.scattered(i * 7 + line, {PRODUCTS}), 1 + bench.scattered(i * 17 + line, 10)
   FROM generate_series(first, last) AS i, generate_series(1, 2) AS line $$;

INSERT INTO customers SELECT i, 'C' || i % 20, 0 FROM generate_series(1, {CUSTOMERS}) AS i;
INSERT INTO products SELECT i, 'P' || i % 50, i % 97 + 0.99 FROM generate_series(1, {PRODUCTS}) AS i;
INSERT INTO orders SELECT * FROM bench.placed(1, {ORDERS});
INSERT INTO items SELECT * FROM bench.lines(1, {ORDERS});
"""
TABLES = ("public.customers", "public.products", "public.orders", "public.items")

# One statement, one transaction. %(old)s: the oldest order there is; %(next)s: the first to be placed.
_TRANSACTION = f"""
WITH placed AS (
    INSERT INTO orders SELECT * FROM bench.placed(%(next)s, %(next)s + %(k)s - 1) RETURNING 1
), lines AS (
    INSERT INTO items SELECT * FROM bench.lines(%(next)s, %(next)s + %(k)s - 1) RETURNING 1
), paid AS (
    UPDATE orders SET status = 'paid' WHERE id BETWEEN %(next)s - 1000 AND %(next)s - 1000 + %(k)s - 1 RETURNING 1
), shipped AS (
    UPDATE orders SET status = 'shipped' WHERE id = ANY (%(ship)s) RETURNING 1
), counted AS (
    UPDATE customers SET orders = orders + 1 WHERE id = ANY (%(count)s) RETURNING 1
), left_lines AS (
    DELETE FROM items WHERE order_id BETWEEN %(old)s AND %(old)s + %(k)s - 1 RETURNING 1
), left_orders AS (
    DELETE FROM orders WHERE id BETWEEN %(old)s AND %(old)s + %(k)s - 1 RETURNING 1
), done AS (
    INSERT INTO bench.done VALUES (%(n)s, %(next)s + %(k)s - 1)
)
SELECT {
    " + ".join(
        f"(SELECT count(*) FROM {name})"
        for name in ("placed", "lines", "paid", "shipped", "counted", "left_lines", "left_orders")
    )
}
"""

MARKED = "next_orders"
VIEWS = {
    "big_orders": "SELECT id, customer_id, amount, status FROM orders WHERE amount >= 900",
    "per_minute": (
        "SELECT window_start, status, count(*) AS orders, sum(amount) AS amount"
        " FROM TUMBLE(orders, placed_at, INTERVAL 1 MINUTE) GROUP BY window_start, status"
    ),
    "sales_by_country": (
        "SELECT c.country, count(*) AS orders, sum(o.amount) AS amount"
        " FROM orders AS o JOIN customers AS c ON c.id = o.customer_id GROUP BY c.country"
    ),
    "many_of_one": (
        "SELECT o.id, i.line, o.status, p.category, i.quantity * p.price AS worth FROM orders AS o"
        " JOIN items AS i ON i.order_id = o.id JOIN products AS p ON p.id = i.product_id WHERE i.quantity >= 9"
    ),
    "waiting": (
        "SELECT c.id, c.country, o.id AS order_id, o.amount FROM customers AS c"
        " LEFT JOIN orders AS o ON o.customer_id = c.id AND o.status = 'new'"
    ),
    "best_orders": (
        "SELECT id, customer_id, amount FROM orders"
        " QUALIFY row_number() OVER (PARTITION BY customer_id ORDER BY amount DESC, id) <= 3"
    ),
    "next_orders": (
        "SELECT id, customer_id, amount - lag(amount) OVER (PARTITION BY customer_id ORDER BY id) AS more FROM orders"
    ),
    "bought": ("SELECT DISTINCT o.customer_id, i.product_id FROM orders AS o JOIN items AS i ON i.order_id = o.id"),
    "product_facts": (
        "SELECT product_id, min(quantity) AS least, max(quantity) AS most FROM items GROUP BY product_id"
    ),
    "top_countries": "SELECT country, amount FROM sales_by_country ORDER BY amount DESC, country LIMIT 5",
}

# A number of each view for whoever looks at it; next_orders has every order, so its number says how far it is.
READS = {name: f"SELECT count(*) FROM {name}" for name in VIEWS} | {MARKED: f"SELECT max(id) FROM {MARKED}"}


@dataclass
class Written:
    """What the writer did. ``behind_ms``: of each transaction, how long after its time it was begun."""

    seconds: float
    rows: int
    behind_ms: list[float]


def write(dsn: str, seconds: float, rows_per_s: float, seed: int = 5) -> Written:
    """Transactions, each at a time that was fixed before the first one began: nothing that is slow makes them fewer.

    One connection: a server that is late is caught up with at once.
    """
    chance = random.Random(seed)
    begun, rows, due, behind, n = time.monotonic(), 0, 0.0, [], 0
    old, new = 1, ORDERS + 1
    with psycopg.connect(dsn, autocommit=True) as connection:
        while due < seconds:
            left = begun + due - time.monotonic()
            if left > 0:
                time.sleep(left)
            behind.append(max(0.0, -left) * 1e3)
            n, k = n + 1, chance.randint(*_ORDERS_PER_TRANSACTION)
            values = {"n": n, "k": k, "old": Int8(old), "next": Int8(new), **_picked(chance, old + 100, new - 1100, k)}
            done = connection.execute(_TRANSACTION, values).fetchone()
            assert done is not None
            rows += done[0]
            due += done[0] / rows_per_s
            old, new = old + k, new + k
    return Written(seconds=time.monotonic() - begun, rows=rows, behind_ms=behind)


def _picked(chance: random.Random, first: int, last: int, k: int) -> dict[str, list[int]]:
    return {
        "ship": [chance.randint(first, last) for _ in range(k // 2)],
        "count": [chance.randint(1, CUSTOMERS) for _ in range(_CUSTOMERS_PER_TRANSACTION)],
    }
