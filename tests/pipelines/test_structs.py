"""Views over struct columns: their fields, whole structs in the answer, as a group's key, in a join, and rebuilt."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa

from headwater import duck, types
from headwater.config import Settings
from headwater.lake import open_lake
from headwater.log import Log, open_log
from headwater.log.transaction import Transaction
from headwater.ownership import own
from headwater.schema import Schema
from headwater_pipelines import api
from headwater_pipelines.runtime import worker

PLACE = types.struct([("Street", "VARCHAR"), ("code", "UUID"), ("since", "INTERVAL"), ("more", "JSON")])
PEOPLE = Schema.of({"id": "BIGINT", "home": PLACE, "visits": f"{PLACE}[]"}, key=["id"])
VIEWS = {
    "streets": "SELECT id, (home).street AS street, home.since AS since FROM people WHERE home.code IS NOT NULL",
    "homes": "SELECT id, home, visits, visits[1].more AS more FROM people",
    "shared": "SELECT home, count(*) AS n, sum(id) AS ids FROM people GROUP BY home",
    "by_street": "SELECT p.home.street, count(*) AS n FROM people p GROUP BY p.home.street HAVING count(*) > 1",
    "pairs": "SELECT a.id AS one, b.id AS other, b.home FROM people a JOIN people b ON a.home = b.home AND a.id < b.id",
}
HOME = (
    "struct_pack(street := 's' || id % 3, code := CASE WHEN id % 4 > 0 THEN '6fa459ea-ee8a-3ca4-894e-db77e160355e' END,"
    " since := to_months(1) + to_days(id % 2), more := '{\"a\": 1}')"
)


def rows(ids: str, op: str) -> pa.Table:
    """Records of people with these ids (SQL), in file types."""
    lowered = ", ".join(f"{types.lower_sql(field.name, field.type)} AS {field.name}" for field in PEOPLE.fields)
    made = f"SELECT id::BIGINT AS id, CASE WHEN id % 5 > 0 THEN CAST({HOME} AS {PLACE}) END AS home FROM {ids} t(id)"
    with duck.connect(for_files=True) as connection:
        return connection.sql(
            f"SELECT {lowered}, '{op}' AS _op, row_number() OVER () AS _seq"
            f" FROM (SELECT id, home, CAST([home, NULL] AS {PLACE}[]) AS visits FROM ({made}))"
        ).to_arrow_table()


def test_views_over_structs_equal_their_sql(tmp_path: Path) -> None:
    with open_log(tmp_path / "lake", create=True) as log, own(log, "source:shop") as owner:
        position = 0

        def commit(*tables: pa.Table) -> None:
            nonlocal position
            expected = str(position) if position else None
            with log.transaction("source:shop", owner.epoch, expected) as tx:
                if not position:
                    tx.create_topic("shop.public.people", "table", PEOPLE, source="shop")
                _append(tx, *tables)
                position += 1
                tx.position = str(position)
                tx.commit()

        commit(rows("range(20)", "r"))
        for name, sql in VIEWS.items():
            api.create_view(log, sql, name=name)
        check(log)
        commit(rows("range(5, 9)", "d"), rows("range(20, 30)", "c"))
        check(log)
        for path in (tmp_path / "lake" / "state").glob("main.duckdb*"):
            path.unlink()
        commit(rows("range(10, 12)", "d"))
        check(log)  # rebuilt: what is published is compared with what the tables hold


def _append(transaction: Transaction, *tables: pa.Table) -> None:
    for table in tables:
        transaction.append("shop.public.people", table)


def check(log: Log) -> None:
    worker.run(log, Settings(), threading.Event(), until_caught_up=True)
    assert {view.name: (view.state, view.reason) for view in log.views()} == dict.fromkeys(VIEWS, ("live", ""))
    with open_lake(log.folder) as lake:
        for name, sql in VIEWS.items():
            for one, other in ((f"FROM {name}", sql), (sql, f"FROM {name}")):
                [(count,)] = lake.sql(f"SELECT count(*) FROM ({one} EXCEPT ALL {other})").fetchall()
                assert count == 0, name
        assert lake.sql("SELECT typeof(home) FROM homes LIMIT 1").fetchall() == [
            ("STRUCT(Street VARCHAR, code UUID, since INTERVAL, more JSON)",)
        ]
