"""The check's readers: they query tables and views while everything writes, and count what goes wrong.

    python -m headwater_connectors.demo.readers PROJECT --balance SUM [--count N] [--seed N]

Each reads with ``headwater.open`` as anyone does, in a process of its own, until SIGTERM; they are forked from one
that has imported everything. Every answer is checked for what must hold at any position: the sum of balances, and
positions that never go back. Prints ``reading`` when all have had an answer, and at the end one JSON object a
reader: {"queries", "errors": [text, ...], "newest", "p95_ms"}.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event, Semaphore
from typing import Any

import duckdb
import pyarrow as pa

import headwater as hw
from headwater.errors import HeadwaterError
from headwater.service.signals import stop_signals

PAUSE_S = 0.4
"""Between two queries of one reader: people and dashboards pause too, and two cores carry everything."""
ERRORS_MAX = 20

_BALANCES = ("SELECT total FROM balance_total", "SELECT sum(balance) FROM accounts")
_EMPTY = """
    SELECT s.country, any_value(s.orders) AS orders, count(*) AS counted
    FROM sales_by_country AS s JOIN orders_enriched AS o ON o.country = s.country AND o.status <> 'cancelled'
    GROUP BY s.country HAVING any_value(s.orders) <> count(*)
"""
"""Two views, read at one position, must agree."""
_QUERIES = (
    *_BALANCES,
    _EMPTY,
    "SELECT country, revenue FROM sales_by_country ORDER BY revenue DESC LIMIT 5",
    "SELECT * FROM hot_products ORDER BY views DESC LIMIT 10",
    "SELECT p.title, r.revenue FROM revenue_by_product AS r JOIN products AS p ON p.id = r.product_id LIMIT 10",
    "SELECT status, count(*) FROM orders_enriched GROUP BY status",
    "SELECT count(*), count(DISTINCT customer_id) FROM orders",
)


def wrong(query: str, result: hw.Result, balance: Decimal) -> str:
    """What is wrong with an answer, or an empty text."""
    if query in _BALANCES and result.scalar() != balance:
        return f"{query} gave {result.scalar()} instead of {balance} at commit {result.position}"
    if query == _EMPTY and len(result):
        return f"two views disagree at commit {result.position}: {result.fetchall()[0]}"
    return ""


def read(project: str, balance: Decimal, seed: int, stop: Event, answered: Semaphore) -> dict[str, Any]:
    """Query until ``stop``; what is printed of this reader."""
    chance = random.Random(seed)
    errors: list[str] = []
    took: list[float] = []
    newest = 0
    with hw.open(project) as lake:
        while not stop.wait(PAUSE_S * chance.random() * 2):
            query = chance.choice(_QUERIES)
            began = time.monotonic()
            try:
                result = lake.sql(query)
                problem = wrong(query, result, balance)
            except (HeadwaterError, duckdb.Error, OSError) as error:
                problem = f"{query}: {type(error).__name__}: {error}"
            else:
                if result.position < newest and query in _BALANCES[1:]:
                    problem = problem or f"position went back from {newest} to {result.position}"
                newest = max(newest, result.position)
            took.append((time.monotonic() - began) * 1000)
            if problem:
                errors.append(problem)
            if len(took) == 1:
                answered.release()
    took.sort()
    p95 = round(took[int(len(took) * 0.95)], 1) if took else None
    return {"queries": len(took), "errors": errors[:ERRORS_MAX], "newest": newest, "p95_ms": p95}


def _reader(options: argparse.Namespace, number: int, stop: Event, answered: Semaphore, told: Connection) -> None:
    told.send(read(options.project, options.balance, options.seed + number, stop, answered))


def _result(told: Connection) -> dict[str, Any]:
    try:
        found: dict[str, Any] = told.recv()
    except EOFError:
        found = {"queries": 0, "errors": ["the reader ended without a word"], "newest": 0, "p95_ms": None}
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m headwater_connectors.demo.readers", description=__doc__)
    parser.add_argument("project")
    parser.add_argument("--balance", type=Decimal, required=True)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    forks = multiprocessing.get_context("fork")
    pa.scalar(0)  # pyarrow imports pandas with its first value: here once, not in each reader
    stop, answered = forks.Event(), forks.Semaphore(0)
    results: list[Connection] = []
    with stop_signals() as asked:
        for number in range(options.count):
            here, there = forks.Pipe(duplex=False)
            forks.Process(target=_reader, args=(options, number, stop, answered, there)).start()
            there.close()
            results.append(here)
        waiting = options.count
        while waiting and not asked.is_set():
            waiting -= answered.acquire(timeout=0.1)
        sys.stdout.write("reading\n")
        sys.stdout.flush()
        asked.wait()
        stop.set()
        found = [_result(each) for each in results]
    for each in found:
        sys.stdout.write(json.dumps(each) + "\n")
    return 1 if any(each["errors"] for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())
