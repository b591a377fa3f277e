"""From a commit in PostgreSQL to the first answer that holds its rows, as a reader in its own process sees it.

    writer ──▶ PostgreSQL ──▶ `headwater up` ──▶ lake ◀── reader: lake.sql on three views, after each new commit

Everything shares this machine's cores. The writer commits 1,000 row changes per second in transactions of four
rows, one after the other, numbered. The reader notes when each answer of each view arrived, and up to which
transaction it reached; PostgreSQL says afterwards when each transaction committed (track_commit_timestamp). The
latency of a transaction in a view is from that moment to the first answer that holds it: decoding, fsync, catalog,
view step, publishing, the reader's noticing and its query are all in it.

    python -m benchmarks.latency [--quick] [--json]
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

import headwater as hw
from benchmarks.harness import Meter, Report, parse, percentile, say
from headwater.service.signals import stop_signals
from headwater_connectors.demo import proof
from headwater_connectors.postgres.embedded import EmbeddedPostgres

SECONDS, QUICK_SECONDS = 60.0, 15.0
ROWS_PER_S = 1_000
ROWS_PER_TRANSACTION = 4
CUSTOMERS = 1_000
P95_MS, P99_MS = 400, 800
_LIVE_S = 60.0

SCHEMA = """
CREATE TABLE customers (id bigint PRIMARY KEY, country text NOT NULL, orders integer NOT NULL);
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint NOT NULL, amount numeric(12, 2) NOT NULL,
                     placed_at timestamptz NOT NULL);
CREATE TABLE order_items (order_id bigint, line smallint, product_id bigint NOT NULL, quantity integer NOT NULL,
                          PRIMARY KEY (order_id, line));
INSERT INTO customers SELECT i, 'C' || i % 20, 0 FROM generate_series(1, 1000) AS i;
"""
# One statement, one transaction: two items, one order, one customer.
TRANSACTION = """
WITH item AS (
    INSERT INTO order_items VALUES (%(n)s, 1, %(n)s %% 50, 1), (%(n)s, 2, %(n)s %% 49, 2)
), placed AS (
    INSERT INTO orders VALUES (%(n)s, %(customer)s, %(n)s %% 1000 + 0.5, clock_timestamp())
)
UPDATE customers SET orders = orders + 1 WHERE id = %(customer)s
"""
VIEWS = {
    # the rows themselves
    "large_orders": "SELECT id, customer_id, amount FROM orders WHERE amount >= 0",
    # a join of three tables
    "lines": (
        "SELECT o.id, i.line, c.country, i.quantity FROM orders AS o"
        " JOIN order_items AS i ON i.order_id = o.id JOIN customers AS c ON c.id = o.customer_id"
    ),
    # a join under an aggregate
    "sales_by_country": (
        "SELECT c.country, count(*) AS orders, sum(o.amount) AS amount FROM orders AS o"
        " JOIN customers AS c ON c.id = o.customer_id GROUP BY c.country"
    ),
}
# The number of the last transaction that a view holds: there is one writer, so they come in order.
REACHED = {
    "large_orders": "SELECT coalesce(max(id), 0) FROM large_orders",
    "lines": "SELECT coalesce(max(id), 0) FROM lines",
    "sales_by_country": "SELECT coalesce(sum(orders), 0) FROM sales_by_country",
}


def main() -> int:
    options = parse("latency", __doc__.splitlines()[0], _roles)
    if options.writer:
        return _write(options.writer, options.seconds)
    if options.reader:
        return _read(options.reader)
    report = Report("latency", quick=options.quick)
    measure(report, QUICK_SECONDS if options.quick else SECONDS)
    return report.finish(as_json=options.json)


def measure(report: Report, seconds: float) -> None:
    """One run; fills the report."""
    settings = {"track_commit_timestamp": "on"}
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-latency-")))
        postgres = stack.enter_context(EmbeddedPostgres(settings=settings))
        dsn = postgres.create_database("latency")
        with psycopg.connect(dsn) as connection:
            connection.execute(SCHEMA)
        _write_project(root, dsn)
        up = stack.enter_context(_process(root / "up.log", _headwater("up", "--log-format", "text"), root))
        say("waiting for the views")
        _await_views(root, up)
        reader_out, writer_out = root / "reader.json", root / "writer.json"
        this = (sys.executable, "-m", "benchmarks.latency")
        with Meter(up.pid) as meter, _process(reader_out, (*this, "--reader", str(root))):
            say(f"{ROWS_PER_S:,} row changes per second for {seconds:g} s")
            with _process(writer_out, (*this, "--writer", dsn, "--seconds", str(seconds))) as writer:
                if writer.wait(seconds * 2 + 60) != 0:
                    raise RuntimeError("the writer failed")
            _await_reached(root, json.loads(writer_out.read_text())["transactions"])
        _fill(report, json.loads(writer_out.read_text()), json.loads(reader_out.read_text()), _commit_times(dsn))
        with hw.open(root) as lake:
            _explain(report, lake)
    report.figure("up_cpu_s", meter.cpu_s)
    report.figure("up_peak_mb", meter.peak_mb)


def latencies(commits: Sequence[float], answers: Sequence[tuple[float, int]]) -> list[float]:
    """Milliseconds from each commit (the n-th is transaction n + 1) to the first answer that reached it."""
    reached = [value for _, value in answers]
    found = []
    for number, committed in enumerate(commits, 1):
        # An answer never takes back what an earlier one held, so the reached numbers are in order.
        place = bisect.bisect_left(reached, number)
        found.append((answers[place][0] - committed) * 1000 if place < len(answers) else float("inf"))
    return found


def _fill(
    report: Report,
    done: dict[str, float],
    answers: dict[str, list[tuple[float, int]]],
    commits: list[float],
) -> None:
    report.figure("seconds", done["seconds"])
    report.figure("transactions", done["transactions"])
    report.goal("row_changes_per_s", done["rows"] / done["seconds"], at_least=0.95 * ROWS_PER_S)
    report.figure("answers_per_s", sum(map(len, answers.values())) / done["seconds"])
    every: list[float] = []
    early: list[float] = []
    late: list[float] = []
    for view, seen in answers.items():
        if any(later[1] < earlier[1] for earlier, later in itertools.pairwise(seen)):
            raise RuntimeError(f"{view} went back in time")
        mine = latencies(commits, seen)
        every += mine
        early += mine[: len(mine) // 3]
        late += mine[-len(mine) // 3 :]
        for share in (0.5, 0.95, 0.99):
            report.figure(f"{view}_p{share * 100:.0f}_ms", percentile(mine, share))
    report.figure("p50_ms", percentile(every, 0.5))
    report.goal("p95_ms", percentile(every, 0.95), at_most=P95_MS)
    report.goal("p99_ms", percentile(every, 0.99), at_most=P99_MS)
    report.figure("max_ms", max(every))
    # State and history grow during the run; latency must not grow with them.
    report.figure("first_third_p95_ms", percentile(early, 0.95))
    report.figure("last_third_p95_ms", percentile(late, 0.95))


def _explain(report: Report, lake: hw.Lake) -> None:
    """Where the time goes: until the transaction is in the log, and until its changes are in the views there."""
    published = proof.latency(lake, "bench", 0)
    captured = lake.sql('SELECT _ingested_at, committed_at FROM log."bench.transactions" WHERE _commit > 1').arrow()
    took = [
        (there - committed).total_seconds() * 1000
        for there, committed in zip(*(column.to_pylist() for column in captured.columns), strict=True)
    ]
    report.figure("in_the_log_p50_ms", percentile(took, 0.5))
    report.figure("in_the_log_p95_ms", percentile(took, 0.95))
    report.figure("published_p50_ms", published.p50)
    report.figure("published_p95_ms", published.p95)


def _commit_times(dsn: str) -> list[float]:
    """Seconds since 1970 at which each transaction committed, by its number."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM orders ORDER BY id"
        ).fetchall()
    return [row[0] for row in rows]


def _write(dsn: str, seconds: float) -> int:
    """The writer's process: numbered transactions at an even pace. Prints what it did."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        began = time.monotonic()
        number = 0
        while (now := time.monotonic()) < began + seconds:
            due = began + number * ROWS_PER_TRANSACTION / ROWS_PER_S
            if due > now:
                time.sleep(due - now)
            number += 1
            connection.execute(TRANSACTION, {"n": number, "customer": number * 7 % CUSTOMERS + 1})
        took = time.monotonic() - began
    rows = number * ROWS_PER_TRANSACTION
    print(json.dumps({"seconds": took, "transactions": number, "rows": rows}))
    return 0


def _read(root: str) -> int:
    """The reader's process: asks every view after each new commit until SIGTERM; prints when it got which answer."""
    answers: dict[str, list[tuple[float, int]]] = {view: [] for view in REACHED}
    position = 0
    with stop_signals() as stop, hw.open(root) as lake:
        while not stop.is_set():
            position = lake.log.wait(position, 0.1)
            for view, query in REACHED.items():
                value = int(lake.sql(query).scalar())
                answers[view].append((time.time(), value))
    print(json.dumps(answers))
    return 0


def _await_views(root: Path, up: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _LIVE_S
    while up.poll() is None and time.monotonic() < deadline:
        if (root / "lake" / "live.sqlite").exists():
            with hw.open(root) as lake:
                step = lake.log.last_step()
                live = {view.id for view in lake.log.views() if view.state == "live"}
                if step is not None and len(live) == len(VIEWS) and live <= step.views:
                    return
        time.sleep(0.2)
    raise RuntimeError(f"no live views: {(root / 'up.log').read_text()[-2000:]}")


def _await_reached(root: Path, transactions: int) -> None:
    """Until the last transaction is in every view; the reader, still running, sees it at the same time."""
    deadline = time.monotonic() + _LIVE_S
    with hw.open(root) as lake:
        while any(int(lake.sql(query).scalar()) < transactions for query in REACHED.values()):
            if time.monotonic() > deadline:
                raise RuntimeError("the views did not reach the last transaction")
            time.sleep(0.2)
    time.sleep(0.5)  # the reader's own last round


def _write_project(root: Path, dsn: str) -> None:
    (root / "views").mkdir()
    for name, query in VIEWS.items():
        (root / "views" / f"{name}.sql").write_text(f"CREATE MATERIALIZED VIEW {name} AS\n{query};\n")
    text = f'[project]\nname = "latency"\n[source.bench]\ndsn = "{dsn}"\n[settings]\nhttp_port = 0\n'
    (root / "headwater.toml").write_text(text)


def _headwater(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "headwater.cli", *arguments)


@contextmanager
def _process(output: Path, argv: Sequence[str], folder: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the block, its standard output in a file; ended by SIGTERM."""
    with output.open("wb") as out:
        errors = subprocess.STDOUT if output.suffix == ".log" else None
        process = subprocess.Popen(argv, cwd=folder, stdout=out, stderr=errors, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_LIVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _roles(parser: argparse.ArgumentParser) -> None:
    """The processes of a run are this module again."""
    for name in ("--writer", "--reader"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help=argparse.SUPPRESS)


if __name__ == "__main__":
    sys.exit(main())
