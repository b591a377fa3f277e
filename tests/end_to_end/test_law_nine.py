"""No statement of the application fails because headwater captures: UPDATE and DELETE on every kind of table."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from psycopg import sql
from tests.end_to_end.site import HEADWATER, Site
from tests.waiting import until

import headwater as hw
from headwater import config
from headwater_connectors.demo import proof

# Every way a table can be identified, or not.
SCHEMA = """
CREATE TABLE keyed (id bigint PRIMARY KEY, v integer);
CREATE TABLE composite (a integer, b text, v integer, PRIMARY KEY (a, b));
CREATE TABLE by_index (id bigint NOT NULL UNIQUE, v integer);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_id_key;
CREATE TABLE whole (a integer, v integer);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE plain (a integer, v integer);
CREATE TABLE nothing (id bigint PRIMARY KEY, v integer);
ALTER TABLE nothing REPLICA IDENTITY NOTHING;
"""
LATER = "CREATE TABLE later (a integer, v integer); CREATE TABLE later_keyed (id bigint PRIMARY KEY, v integer);"


def prepare(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(SCHEMA)


def change_everything(dsn: str, first: int) -> list[str]:
    """Insert, update and delete in every table of the database, in one transaction each; the tables."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT tablename, (SELECT count(*) FROM pg_attribute WHERE attrelid = tablename::regclass AND attnum > 0)"
            " FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        ).fetchall()
        for table, width in rows:
            name = sql.Identifier(table)
            values = sql.SQL(", ").join([sql.SQL("i")] * int(width))
            with connection.transaction():
                connection.execute(
                    sql.SQL("INSERT INTO {} SELECT {} FROM generate_series({}::int, {}) AS i").format(
                        name, values, sql.Literal(first), sql.Literal(first + 9)
                    )
                )
                updated = connection.execute(sql.SQL("UPDATE {} SET v = v + 1").format(name))
                assert updated.rowcount >= 10, table
                deleted = connection.execute(
                    sql.SQL("DELETE FROM {} WHERE v % 5 = 0 AND v >= {}").format(name, sql.Literal(first))
                )
                assert deleted.rowcount >= 1, table
    return [row[0] for row in rows]


@pytest.mark.long
@pytest.mark.parametrize("ddl_capture", ["off", "trigger"])
def test_every_table_can_be_updated_and_deleted_from(site: Callable[..., Site], ddl_capture: str) -> None:
    """With the event trigger a table that loses its key, too, in the next statement."""
    shop = site(prepare)
    file = shop.root / config.FILE
    file.write_text(file.read_text().replace("dsn = ", f'ddl_capture = "{ddl_capture}"\ndsn = '))
    shop.headwater("source", "prepare", shop.source)
    with psycopg.connect(shop.dsn) as connection:
        connection.execute(LATER)
    before = change_everything(shop.dsn, 100)
    assert {"later", "plain", "nothing"} <= set(before)
    with shop.running(*HEADWATER, "capture", shop.source, "--project", str(shop.root)):
        until((shop.project.lake_dir / "live.sqlite").exists, "a lake")
        with hw.open(shop.root) as lake:
            until(lambda: lake.position() > 0, "the initial copy")
        with psycopg.connect(shop.dsn) as connection:
            connection.execute("CREATE TABLE while_running (a integer, v integer)")
            if ddl_capture == "trigger":
                connection.execute("ALTER TABLE composite DROP CONSTRAINT composite_pkey")
        change_everything(shop.dsn, 200)
    shop.headwater("capture", shop.source, "--until-caught-up")
    with hw.open(shop.root) as lake:
        tables = ["keyed", "by_index", "whole"] + ["composite"] * (ddl_capture == "off")
        rows, found = proof.tables_equal_source(lake, shop.dsn, shop.source, tables, lake.position())
    assert rows > 0
    assert found == []
