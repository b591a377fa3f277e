"""`verify --source`: equal is said to be equal, under load too, and every difference is found and named."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pytest

from headwater.config import Project
from headwater.lake import Lake
from headwater.service.compared import compare_source
from headwater_connectors.postgres import verification
from headwater_connectors.postgres.source import PostgresSource
from headwater_connectors.postgres.verification import Verified, verify

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured

COLUMNS = {
    "b boolean": "i % 2 = 0", "s smallint": "i", "l bigint": "i * 1e10::int8", "o oid": "i", "f float8": "i / 7.0",
    "r real": "i / 3.0", "n numeric(12,3)": "i / 9.0", "u numeric": "i / 11.0", "t text": "'täxt ' || i",
    "v varchar(20)": "'v' || i", "c char(5)": "'c'", "j json": "'{\"a\": 1}'", "k jsonb": "'{\"b\": [1,2]}'",
    "x bytea": "decode('00ff', 'hex')", "d date": "date '2020-01-01' + i",
    "p timestamp": "timestamp '1999-12-31 23:59:59.999999' + i * interval '1 h'",
    "z timestamptz": "timestamptz '2001-01-01 00:00:00+02' + i * interval '1 h'", "g uuid": "gen_random_uuid()",
    "i inet": "'10.0.0.1'",
}  # fmt: skip
SUMMED = f"CREATE TABLE summed (id int PRIMARY KEY, {', '.join(COLUMNS)})"
"""Types of which both sides print the same texts, but for some floats."""
READ = "CREATE TABLE read (LIKE summed INCLUDING ALL, e interval, a int[], w time)"
FILL = f"INSERT INTO NAME SELECT i, {', '.join(COLUMNS.values())} FROM generate_series(1, 500) i"
ODD = (
    "INSERT INTO NAME (id, d, p, z, n, f) VALUES (1000, 'infinity', '-infinity', 'infinity', 'NaN', 'NaN'),"
    " (1001, '0044-03-15 BC', '0044-03-15 BC', '294276-12-31 23:59:59+00', -0.001, '-Infinity'),"
    " (1002, NULL, NULL, NULL, NULL, '-0')"
)


def found(shop: Captured) -> dict[str, Verified]:
    return {each.table: each for each in verify(shop.source, shop.log)}


def test_tables_that_are_equal(shop: Captured) -> None:
    shop.run(
        SUMMED,
        READ,
        *(s.replace("NAME", name) for name in ("summed", "read") for s in (FILL, ODD)),
        "UPDATE read SET e = '1 month -3 days', a = '{1,NULL}', w = '24:00' WHERE id % 2 = 0",
        "CREATE TABLE plain (id bigint, at timestamptz, v text, n numeric(10,2), PRIMARY KEY (id, v))",
        "INSERT INTO plain SELECT i, now(), 'v' || i, i / 3.0 FROM generate_series(1, 3000) i",
        "CREATE TABLE lines (n int, v text)",
        "ALTER TABLE lines REPLICA IDENTITY FULL",
        "INSERT INTO lines SELECT i % 10, 'x' FROM generate_series(1, 300) i",
    )
    shop.catch_up()
    shop.run(
        "UPDATE plain SET n = n + 1 WHERE id % 3 = 0", "DELETE FROM lines WHERE n = 3", "UPDATE summed SET t = 'u'"
    )
    with shop.running():
        result = found(shop)
    assert {name: (each.differences, each.skipped) for name, each in result.items()} == dict.fromkeys(
        ("public.lines", "public.plain", "public.read", "public.summed"), (0, "")
    )
    assert (result["public.plain"].rows, result["public.plain"].read) == (3000, 0)
    assert (result["public.lines"].rows, result["public.lines"].read) == (270, 0)
    assert (result["public.summed"].rows, result["public.read"].rows) == (503, 503)


def test_what_was_found_is_kept_table_by_table(shop: Captured) -> None:
    for name in ("one", "two"):
        shop.run(f"CREATE TABLE {name} (id int PRIMARY KEY)", f"INSERT INTO {name} SELECT generate_series(1, 9)")
    shop.catch_up()
    sources = {shop.source.name: shop.source}
    project = Project(root=shop.log.folder, name="shop", lake_dir=shop.log.folder, sources=sources)

    def kept() -> dict[str, tuple[int, int]]:
        (source,) = Lake(shop.log).status()["sources"]
        return {table: (each["rows"], each["differences"]) for table, each in source["compared"].items()}

    with shop.running():
        assert len(compare_source(project, shop.log, "shop", print, only=["public.two"])) == 1
        assert kept() == {"public.two": (9, 0)}
        epoch = shop.log.raise_epoch("tamper")
        with shop.log.transaction("tamper", epoch) as transaction:
            transaction.append("shop.public.one", pa.table({"id": pa.array([77], pa.int32()), "_op": ["c"]}))
            transaction.commit()
        compare_source(project, shop.log, "shop", print)
    assert kept() == {"public.one": (10, 1), "public.two": (9, 0)}


def test_a_capture_that_starts_at_the_same_time_is_used(shop: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison looked before the capture owned the source: it wants to capture by itself, and may not."""
    monkeypatch.setattr("headwater_connectors.postgres.source.holder_pid", lambda *_: None)
    shop.run("CREATE TABLE one (id int PRIMARY KEY)")
    shop.catch_up()
    with shop.running() as capture:
        shop.run("INSERT INTO one SELECT generate_series(1, 9)")
        (one,) = PostgresSource().verify(shop.source, shop.log, print)
        assert (one.rows, one.differences, one.skipped) == (9, 0, "")
        assert not capture.stop.is_set()


def test_every_difference_is_found_and_named(shop: Captured) -> None:
    shop.run("CREATE TABLE plain (id int PRIMARY KEY, v text)")
    shop.run("INSERT INTO plain SELECT i, 'v' || i FROM generate_series(1, 5000) i")
    shop.catch_up()
    name = "shop.public.plain"
    epoch = shop.log.raise_epoch("tamper")
    with shop.log.transaction("tamper", epoch) as transaction:
        rows = {"id": pa.array([7, 8, 9999], pa.int32()), "v": ["wrong", None, "extra"], "_op": ["u", "d", "c"]}
        transaction.append(name, pa.table(rows))
        transaction.commit()
    with shop.running():
        result = found(shop)["public.plain"]
    assert result.differences == 4  # 7 is on both sides, and differs; 8 only there, 9999 only here
    assert {(each["only_in"], each["id"], each["v"]) for each in result.examples} == {
        ("lake", "7", "wrong"), ("source", "7", "v7"), ("source", "8", "v8"), ("lake", "9999", "extra"),
    }  # fmt: skip
    assert 1 <= result.read <= 3
    assert result.buckets == 256


def test_a_table_of_which_too_much_changes_is_not_compared(shop: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The changes are committed between the snapshot and the moment in which the lake is read."""
    monkeypatch.setattr(verification, "CHANGING_MAX", 5)
    shop.run(
        "CREATE TABLE plain (id int PRIMARY KEY, v int)", "INSERT INTO plain SELECT i, 0 FROM generate_series(1, 9) i"
    )
    shop.catch_up()
    awaiting = verification._await

    def change_first(*args: Any) -> None:
        shop.run("UPDATE plain SET v = 1 WHERE id < 7")
        awaiting(*args)

    monkeypatch.setattr(verification, "_await", change_first)
    with shop.running():
        result = found(shop)["public.plain"]
        assert (result.changing, result.differences) == (6, 0)
        assert result.skipped == "6 rows changed meanwhile, more than 5"
        monkeypatch.setattr(verification, "CHANGING_MAX", 9)
        result = found(shop)["public.plain"]
    assert (result.changing, result.differences, result.skipped, result.rows) == (6, 0, "", 3)


@pytest.mark.parametrize("identity", ["DEFAULT", pytest.param("FULL", marks=pytest.mark.long)])
def test_tables_that_change_meanwhile_have_no_differences(shop: Captured, identity: str) -> None:
    shop.run("CREATE TABLE plain (id int PRIMARY KEY, v int)", f"ALTER TABLE plain REPLICA IDENTITY {identity}")
    shop.run("INSERT INTO plain SELECT i, 0 FROM generate_series(1, 2000) i")
    stop = threading.Event()

    def load() -> None:
        with psycopg.connect(shop.dsn, autocommit=True) as writer:
            step = 0
            while not stop.is_set():
                step += 1
                writer.execute("UPDATE plain SET v = v + 1 WHERE id = %s", [step % 50])
                writer.execute("DELETE FROM plain WHERE id = %s", [10_000 + step % 7])
                writer.execute("INSERT INTO plain VALUES (%s, 1) ON CONFLICT DO NOTHING", [10_000 + step % 11])

    writing = threading.Thread(target=load)
    with shop.running():
        while "shop.public.plain" not in {topic.name for topic in shop.log.topics()}:
            shop.log.wait(shop.log.newest_commit(), 0.1)
        writing.start()
        try:
            results = [found(shop)["public.plain"] for _ in range(5)]
        finally:
            stop.set()
            writing.join()
    assert [each.differences for each in results] == [0] * 5
    assert all(each.rows > 1900 for each in results)
