"""The initial copy beside the server's own COPY over the same rows, and beside ADBC and ConnectorX where installed.

    python -m benchmarks.initial_copy [--quick] [--json] [--rows N] [--repeat N]

One embedded PostgreSQL with fsync on and one table of 10 columns, vacuumed and read once. By turns: COPY TO STDOUT
(FORMAT binary) to /dev/null by psql; headwater from its first connection to the commit in which the table appears and
then to the Parquet segments that hold its rows, all of it durable; ADBC and ConnectorX into Arrow in memory, durable
nowhere. A rate is the median of ``--repeat`` runs, a ratio the median of those of neighbouring runs. Headwater runs
in a process of its own; its CPU and peak memory are the process's.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.capture import LOAD, TABLE
from benchmarks.harness import Report, parse, say
from headwater_connectors.postgres.embedded import EmbeddedPostgres

GOAL_COPY, GOAL_MEMORY = 0.6, 1.0
PEERS = ("adbc", "connectorx")


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(_child(json.loads(sys.argv[2]))))
        return 0
    options = parse("initial_copy", (__doc__ or "").split("\n")[0], _more)
    rows = options.rows or (500_000 if options.quick else 5_000_000)
    repeat = options.repeat or (1 if options.quick else 3)
    with EmbeddedPostgres(settings={"max_replication_slots": "20", "max_wal_senders": "10"}) as server:
        dsn = _prepare(server, rows)
        runs = [_round(server, dsn, number) for number in range(repeat)]
    return _report(runs, rows, quick=options.quick).finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help="rows of the table (default 5,000,000)")
    parser.add_argument("--repeat", type=int, help="runs of each reader (default 3)")


def _prepare(server: EmbeddedPostgres, rows: int) -> str:
    dsn = server.create_database("bench")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute(LOAD.encode())
        say(f"filling {rows:,} rows")
        connection.execute("CALL load(%s, %s)", [rows, rows])
        connection.execute("VACUUM (FREEZE, ANALYZE) orders")
        connection.execute("CHECKPOINT")
        connection.execute("SELECT sum(hashtext(orders::text)) FROM orders")
    return dsn


def _round(server: EmbeddedPostgres, dsn: str, number: int) -> dict[str, dict[str, float]]:
    """Each reader once, next to each other."""
    found = {"copy": _plain(server, dsn)}
    for how in ("headwater", *(peer for peer in PEERS if _available(peer))):
        say(f"round {number + 1}: {how}")
        with tempfile.TemporaryDirectory() as folder:
            plan = {"how": how, "dsn": dsn, "folder": folder, "name": f"copy{number}"}
            command = [sys.executable, "-m", "benchmarks.initial_copy", "--child", json.dumps(plan)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[how] = json.loads(done.stdout)
    return found


def _plain(server: EmbeddedPostgres, dsn: str) -> dict[str, float]:
    psql = str(server.bin / "psql")
    command = [psql, dsn, "-qc", "COPY orders TO STDOUT (FORMAT binary)"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with Path("/dev/null").open("wb") as nowhere:
        subprocess.run(command, check=True, stdout=nowhere)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": seconds, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def _available(peer: str) -> bool:
    return importlib.util.find_spec("adbc_driver_postgresql" if peer == "adbc" else peer) is not None


def _child(plan: dict[str, str]) -> dict[str, float]:
    reader = {"headwater": _headwater, "adbc": _adbc, "connectorx": _connectorx}[plan["how"]]
    began = time.monotonic()
    found = reader(plan)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found.setdefault("seconds", time.monotonic() - began)
    return {**found, "cpu": usage.ru_utime + usage.ru_stime, "memory_mb": usage.ru_maxrss / 1024}


def _headwater(plan: dict[str, str]) -> dict[str, float]:
    from headwater.config import Settings, SourceConfig
    from headwater.log import open_log
    from headwater.log.seal import seal
    from headwater_connectors.postgres.capture import Capture
    from headwater_connectors.postgres.catalog import parse_lsn
    from headwater_connectors.postgres.source import PostgresSource

    began = time.monotonic()
    with open_log(Path(plan["folder"]) / "lake", create=True) as log:
        end = parse_lsn(PostgresSource().current_end(plan["dsn"]))
        source = SourceConfig(name=plan["name"], dsn=plan["dsn"])
        Capture(source, Settings(), log, threading.Event()).run(until=end)
        appeared = time.monotonic() - began
        rows = seal(log, Settings())
        seconds = time.monotonic() - began
        files = sum(path.stat().st_size for path in (log.folder / "data" / "segments").rglob("*.parquet"))
    with psycopg.connect(plan["dsn"], autocommit=True) as connection:
        connection.execute("SELECT pg_drop_replication_slot(%s)", [f"headwater_{plan['name']}"])
    return {"seconds": seconds, "appeared": appeared, "rows": rows, "parquet_mb": files / 1e6}


def _adbc(plan: dict[str, str]) -> dict[str, float]:
    adbc: Any = importlib.import_module("adbc_driver_postgresql.dbapi")
    with adbc.connect(plan["dsn"]) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM orders")
        return {"rows": cursor.fetch_arrow_table().num_rows}


def _connectorx(plan: dict[str, str]) -> dict[str, float]:
    connectorx: Any = importlib.import_module("connectorx")
    url = _url(plan["dsn"])
    table = connectorx.read_sql(url, "SELECT * FROM orders", return_type="arrow")
    return {"rows": table.num_rows}


def _url(dsn: str) -> str:
    """The connection string as a URL, which is all that ConnectorX reads."""
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    return f"postgresql://{given['user']}@{given['host']}:{given.get('port', 5432)}/{given['dbname']}"


def _report(runs: list[dict[str, dict[str, float]]], rows: int, *, quick: bool) -> Report:
    report = Report("initial_copy", quick=quick)
    report.figure("rows", rows)
    for how in runs[0]:
        report.figure(f"{how}_rows_per_s", round(rows / statistics.median(run[how]["seconds"] for run in runs)))
        report.figure(f"{how}_cpu_s_per_m_rows", round(_median(runs, how, "cpu") / rows * 1e6, 3))
        if how != "copy":
            report.figure(f"{how}_peak_mb", round(_median(runs, how, "memory_mb"), 1))
    report.figure("headwater_appeared_rows_per_s", round(rows / _median(runs, "headwater", "appeared")))
    report.figure("headwater_parquet_mb", round(_median(runs, "headwater", "parquet_mb"), 1))
    for how in runs[0]:
        if how != "headwater":
            ratio = statistics.median(run[how]["seconds"] / run["headwater"]["seconds"] for run in runs)
            least = GOAL_COPY if how == "copy" else GOAL_MEMORY
            report.goal(f"rate_of_{how}", round(ratio, 3), at_least=least)
    for peer in PEERS:
        if peer not in runs[0]:
            report.note(f"{peer} is not installed, so it was not measured")
    return report


def _median(runs: list[dict[str, dict[str, float]]], how: str, what: str) -> float:
    return statistics.median(run[how][what] for run in runs)


if __name__ == "__main__":
    sys.exit(main())
