"""Composites as structs: from INSERT to SELECT in every tier, odd values, and types altered under their tables."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from headwater.config import Settings
from headwater.errors import NameNotFound
from headwater.log import base, seal
from headwater_connectors.postgres import composite_types
from headwater_connectors.postgres.chunks import Reader
from headwater_connectors.postgres.known import load, setting
from headwater_connectors.postgres.verification import verify

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured

PEOPLE = (
    "CREATE TYPE place AS (street text, number int, since interval)",
    "CREATE TYPE visit AS (at timestamptz, at_ place, tags text[], paid numeric(8,2))",
    "CREATE TABLE people (id int PRIMARY KEY, home place, visits visit[])",
    "INSERT INTO people VALUES (1, '(\"Long, Lane\",7,\"1 mon 2 days\")', NULL), (2, NULL, '{}'), (3, '(,,)', NULL)",
)
VISIT = "row('2026-01-02 03:04:05+00', row('b', 1, '1 year'), '{a,NULL}', 1.5)::visit"
STREAMED = (
    f'INSERT INTO people VALUES (4, \'("say ""x""",8,-00:00:00.000001)\', array[{VISIT}, NULL])',
    "UPDATE people SET home.number = 9 WHERE id = 1",
)
FIELDS = (
    "id, (home).street, (home).number, date_part('month', (home).since), date_part('microsecond', (home).since),"
    " (visits[1]).at, (visits[1]).paid, (visits[1]).tags[2], ((visits[1]).at_).street, visits IS NULL"
)
"""The same in both systems."""


def test_a_composite_is_a_struct_in_every_tier(shop: Captured) -> None:
    shop.run(*PEOPLE)
    shop.catch_up()
    shop.run(*STREAMED)
    shop.catch_up()
    shop.mode = "text"
    shop.run("INSERT INTO people SELECT id + 10, home, visits FROM people")
    shop.catch_up()
    place = 'STRUCT("street" VARCHAR, "number" INTEGER, "since" INTERVAL)'
    schema = shop.log.topic("people").schema
    assert (schema.field("home").type, schema.field("visits").type) == (
        place,
        f'STRUCT("at" TIMESTAMP WITH TIME ZONE, "at_" {place}, "tags" VARCHAR[], "paid" DECIMAL(8,2))[]',
    )

    def compare() -> None:
        shop.assert_equal("people", columns=FIELDS)
        assert shop.lake("SELECT id FROM people WHERE home IS NULL ORDER BY 1") == [(2,), (12,)]
        assert shop.lake('SELECT home.number FROM log."shop.public.people" WHERE id = 1 ORDER BY _offset') == [
            (7,),
            (9,),
        ]

    compare()
    assert seal.seal(shop.log, Settings()) > 0
    compare()
    base.write(shop.log, shop.log.topic("people"), shop.log.newest_commit(), Settings())
    compare()
    with shop.running():
        found = verify(shop.source, shop.log)
    assert [(each.differences, each.skipped) for each in found] == [(0, "")]


def test_a_composite_can_be_the_key(shop: Captured) -> None:
    shop.run(
        "CREATE TYPE place AS (street text, number int)",
        "CREATE TABLE houses (spot place PRIMARY KEY, v int)",
        "INSERT INTO houses VALUES (row('a', 1), 1), (row('b', NULL), 2), (row('c,', 3), 3)",
    )
    shop.catch_up()
    shop.run("UPDATE houses SET v = 5 WHERE v = 2", "DELETE FROM houses WHERE v = 1")
    shop.run("UPDATE houses SET spot = row('d', 4) WHERE v = 3")
    shop.catch_up()
    compared = "(spot).street, (spot).number, v"
    shop.assert_equal("houses", columns=compared)
    seal.seal(shop.log, Settings())
    base.write(shop.log, shop.log.topic("houses"), shop.log.newest_commit(), Settings())
    shop.assert_equal("houses", columns=compared)
    shop.run("UPDATE houses SET v = 6 WHERE v = 5")
    with shop.running():
        shop.until(lambda: shop.lake("SELECT max(v) FROM houses"), [(6,)].__eq__)
        found = verify(shop.source, shop.log)
    assert [(each.differences, each.skipped) for each in found] == [(0, "")]


# ---- types that are altered

MADE = (
    "CREATE TYPE {0}_type AS (a int, b int)",
    "CREATE TABLE {0} (id int PRIMARY KEY, v {0}_type, vs {0}_type[])",
    "INSERT INTO {0} SELECT i, (i, -i)::{0}_type, array[(i, 7)::{0}_type] FROM generate_series(1, 20) i",
)
ALTERED = {
    "added": (["ALTER TYPE {0}_type ADD ATTRIBUTE c text"], "(v).a, (v).b, (v).c"),
    "dropped": (["ALTER TYPE {0}_type DROP ATTRIBUTE a"], "(v).b"),
    "renamed": (["ALTER TYPE {0}_type RENAME ATTRIBUTE b TO c"], "(v).a, (v).c"),
    "replaced": (["ALTER TYPE {0}_type DROP ATTRIBUTE b, ADD ATTRIBUTE b int"], "(v).a, (v).b"),
    "others": (["ALTER TYPE {0}_type DROP ATTRIBUTE a, ADD ATTRIBUTE c int"], "(v).b, (v).c"),
    "inside": (
        ["CREATE TYPE {0}_in AS (x int)", "ALTER TYPE {0}_type ADD ATTRIBUTE c {0}_in", "UPDATE {0} SET v.c.x = 3",
         "ALTER TYPE {0}_in ADD ATTRIBUTE y int"],
        "(v).a, ((v).c).x, ((v).c).y",
    ),
}  # fmt: skip
"""What happens to the type, and the fields that it has then."""


@pytest.mark.parametrize(
    ("mode", "followed"),
    [
        pytest.param("auto", True, id="with rows after"),
        pytest.param("text", True, id="in text", marks=pytest.mark.long),
        pytest.param("auto", False, id="alone", marks=pytest.mark.long),
    ],
)
def test_the_table_is_the_servers_after_its_type_was_altered(shop: Captured, mode: str, followed: bool) -> None:
    """The stream says nothing of it, neither before the rows nor in them when they have the same look."""
    shop.mode = mode
    for table in ALTERED:
        shop.run(*(statement.format(table) for statement in MADE))
    shop.catch_up()
    for table in ALTERED:
        shop.run(f"UPDATE {table} SET v.a = 100 WHERE id = 1")
    shop.catch_up()
    before = shop.log.newest_commit()
    rows = {table: shop.lake(f"SELECT * FROM {table} ORDER BY id") for table in ALTERED}
    for table, (statements, _) in ALTERED.items():
        shop.run(*(statement.format(table) for statement in statements))
        if followed:
            shop.run(f"INSERT INTO {table} SELECT 30, v, vs FROM {table} WHERE id = 2")
    shop.catch_up()
    for table, (_, fields) in ALTERED.items():
        shop.assert_equal(table, columns=f"id, {fields}, {fields.replace('(v)', '(vs[1])')}")
        assert shop.log.topic(table).state == "live"
        assert shop.lake(f"SELECT * FROM {table} ORDER BY id", at=before) == rows[table]
    assert not [topic for topic in shop.log.topics(hidden=True) if topic.hidden]


def test_no_commit_takes_one_field_for_another(shop: Captured) -> None:
    """A type gets a field of the same look in another's place while rows stream: no commit has one for the other."""
    shop.run(*(statement.format("t") for statement in MADE))
    shop.catch_up()
    first = shop.log.newest_commit()
    with shop.running():
        shop.run("UPDATE t SET v.a = 0 WHERE id = 1")
        shop.until(lambda: shop.lake("SELECT (v).a FROM t WHERE id = 1"), [(0,)].__eq__)
        shop.run("ALTER TYPE t_type DROP ATTRIBUTE a, ADD ATTRIBUTE c int", "INSERT INTO t VALUES (40, (5, 6))")
        shop.until(lambda: shop.log.topic("t").schema.field("v").type, 'STRUCT("b" INTEGER, "c" INTEGER)'.__eq__)
    for commit in range(first, shop.log.newest_commit() + 1):
        assert shop.lake("SELECT v FROM t WHERE id = 40", at=commit) in ([], [({"b": 5, "c": 6},)]), commit
    shop.assert_equal("t", columns="id, (v).b, (v).c")


def test_a_row_written_before_and_committed_after_an_alteration(shop: Captured) -> None:
    """The server sends it in the type's older shape; the copy waits for its transaction, and reads it."""
    shop.run(*(statement.format("t") for statement in MADE))
    shop.catch_up()
    with psycopg.connect(shop.dsn) as writer, shop.running():
        writer.execute("INSERT INTO t VALUES (30, (5, 6))")
        shop.run("ALTER TYPE t_type ADD ATTRIBUTE c text", "INSERT INTO t VALUES (31, (7, 8, 'x'))")
        shop.until(lambda: shop.log.topic("t").state, "reshaping".__eq__)
        writer.execute("INSERT INTO t VALUES (32, (9, 10, 'y'))")
        writer.commit()
        shop.until(lambda: shop.log.topic("t").state, "live".__eq__)
    shop.catch_up()
    shop.assert_equal("t", columns="id, (v).a, (v).b, (v).c")
    assert {str(row["_raw"]) for row in shop.changes("t")} == {"None"}


def test_a_type_altered_while_its_table_is_copied(shop: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a chunk's own transaction, which it does not wait for: what was read then never appears."""
    shop.run(*(statement.format("t") for statement in MADE))
    original, altered = Reader._copy, list[str]()

    def copy(self: Reader, *arguments: Any) -> Any:
        if not altered:
            altered.append("ALTER TYPE t_type DROP ATTRIBUTE a, ADD ATTRIBUTE c int")
            shop.run(*altered)
        return original(self, *arguments)

    monkeypatch.setattr(Reader, "_copy", copy)
    shop.catch_up()
    assert altered
    found = []
    for commit in range(1, shop.log.newest_commit() + 1):
        with suppress(NameNotFound):
            found += shop.lake("SELECT v FROM t WHERE id = 1", at=commit)
    assert {str(value) for (value,) in found} == {"{'b': -1, 'c': None}"}


@pytest.mark.parametrize("recorded", [True, False])
def test_a_lake_of_an_earlier_release_is_copied_into_structs(
    shop: Captured, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    """There the column is the text, which stays readable at older positions; the first releases kept no records."""
    shop.run(*(statement.format("t") for statement in MADE))
    with monkeypatch.context() as earlier:
        earlier.setattr(composite_types, "look", lambda *_: {})
        shop.catch_up()
    if not recorded:
        for oid in load(shop.log, "shop"):
            shop.log.catalog.set_setting(setting("shop", oid), None)
    before = shop.log.newest_commit()
    assert shop.log.topic("t").schema.field("v").type == "VARCHAR"
    shop.run("INSERT INTO t VALUES (30, (5, 6), NULL)")
    shop.catch_up()
    assert shop.log.topic("t").schema.field("v").type == 'STRUCT("a" INTEGER, "b" INTEGER)'
    shop.assert_equal("t", columns="id, (v).a, (v).b, (vs[1]).b")
    assert shop.lake("SELECT v FROM t WHERE id = 3", at=before) == [("(3,-3)",)]
    assert len(shop.lake("SELECT id FROM t")) == 21


def test_columns_of_a_composite_type_are_added(shop: Captured) -> None:
    """Older rows, sealed and not, read NULL; one with a default, which no default of the log can be, is copied."""
    shop.run(*(statement.format("t") for statement in MADE))
    shop.catch_up()
    seal.seal(shop.log, Settings())
    shop.run("UPDATE t SET v.a = 100 WHERE id = 1", "ALTER TABLE t ADD x t_type, ADD xs t_type[]")
    shop.run("INSERT INTO t (id, xs) VALUES (30, '{NULL}')")
    shop.catch_up()
    shop.assert_equal("t", columns="id, (v).a, (x).a, xs IS NULL")
    assert len(shop.changes("t")) == 22
    shop.run("ALTER TABLE t ADD w t_type DEFAULT '(1,2)'", "INSERT INTO t (id) VALUES (31)")
    shop.catch_up()
    shop.assert_equal("t", columns="id, (v).a, (w).a, (w).b")
    assert len(shop.changes("t")) == 44
