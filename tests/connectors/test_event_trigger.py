"""``ddl_capture = "trigger"``: what DDL does is known in the very commit in which it happened, without looking."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.connectors.test_shapes import ORDERS, OTHER_ROWS, SAME_ROWS, named

from headwater.config import SourceConfig
from headwater.errors import SourceNotReady
from headwater_connectors.postgres import check, event_trigger, session, source, survey, tending
from headwater_connectors.postgres.tending import Tending

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured

KINDS = {kind: change for kind, change in {**SAME_ROWS, **OTHER_ROWS}.items() if kind != "vacuumed whole"}
"""VACUUM runs in no transaction, fires no event trigger and changes no row."""
DROPPED = "dropped and created again"
STEP_BY_STEP = "added, dropped and added again with a default"
"""The rows stay as they are, which nobody can know who sees only the end of it."""
MARK = "CREATE TABLE mark (id int PRIMARY KEY)"


@contextmanager
def blind(shop: Captured, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A capture that reads the stream and nothing else; it has read all that was committed when the block ends."""
    with monkeypatch.context() as patched:
        patched.setattr(Tending, "look_after", lambda *_: None)
        with shop.running():
            yield
            shop.run("INSERT INTO mark SELECT coalesce(max(id), 0) + 1 FROM mark")
            [(last,)] = shop.source_rows("SELECT max(id) FROM mark")
            shop.until(lambda: {row["id"] for row in shop.changes("mark")}, lambda found: last in found)


@pytest.fixture
def told(shop: Captured) -> Captured:
    shop.ddl_capture = "trigger"
    shop.run(MARK)
    return shop


@pytest.mark.long
def test_every_kind_of_ddl_is_known_in_the_commit_in_which_it_happened(
    told: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row follows, and nobody looks at the server's catalog."""
    shop = told
    tables = {f"t{place}": kind for place, kind in enumerate(KINDS)}
    for table in tables:
        shop.run(*named(ORDERS, table))
    shop.catch_up()
    with blind(shop, monkeypatch):
        for place, (table, kind) in enumerate(tables.items()):
            shop.run(
                "; ".join(["BEGIN", *named(KINDS[kind], table), f"INSERT INTO mark VALUES ({1000 + place})", "COMMIT"])
            )
    commits = {row["id"] - 1000: row["_commit"] for row in shop.changes("mark")}
    topics = {topic.name.removeprefix("shop.public."): topic for topic in shop.log.topics(hidden=True)}
    again = [kind for kind in OTHER_ROWS if kind not in (DROPPED, STEP_BY_STEP)]
    assert [kind for table, kind in tables.items() if table in topics and topics[table].state == "reshaping"] == again
    for place, (table, kind) in enumerate(tables.items()):
        if kind in again:
            assert topics[f"{table}.pending"].created == commits[place], kind
    shop.catch_up()
    for place, (table, kind) in enumerate(tables.items()):
        at = {topic.name: topic for topic in shop.log.topics(commits[place])}.get(f"shop.public.{table}")
        if kind == DROPPED:
            assert at is None
        elif kind not in again:
            assert at is not None
            assert at.schema == shop.log.topic(table).schema, kind
    shop.assert_equal(*tables, "mark")
    assert {topic.state for topic in shop.log.topics()} == {"live"}


@pytest.mark.long
def test_what_was_rolled_back_was_never_said(told: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = told
    shop.run(*ORDERS)
    shop.catch_up()
    with blind(shop, monkeypatch):
        shop.run(
            "BEGIN; ALTER TABLE orders ALTER n TYPE text; ROLLBACK",
            "BEGIN; SAVEPOINT a; ALTER TABLE orders ADD a int; INSERT INTO orders (id, a) VALUES (100, 1);"
            " ROLLBACK TO a; INSERT INTO orders (id) VALUES (101); SAVEPOINT b; DROP TABLE orders; ROLLBACK TO b;"
            " COMMIT",
            "BEGIN; ALTER TABLE orders ADD p int; PREPARE TRANSACTION 'no'",
            "ROLLBACK PREPARED 'no'",
        )
    assert (shop.log.topic("orders").schema_version, shop.log.topic("orders").state) == (1, "live")
    shop.assert_equal("orders")
    with blind(shop, monkeypatch):
        shop.run(
            "BEGIN; ALTER TABLE orders ADD p int DEFAULT 6; INSERT INTO mark VALUES (500); PREPARE TRANSACTION 'yes'"
        )
        shop.run("INSERT INTO mark VALUES (400)", "COMMIT PREPARED 'yes'")
    commits = {row["id"]: row["_commit"] for row in shop.changes("mark")}
    assert "p" in shop.log.topic("orders", commits[500]).schema.names
    shop.assert_equal("orders")


@pytest.mark.long
@pytest.mark.parametrize("ddl_capture", ["auto", "off"])
def test_a_trigger_that_is_there_is_listened_to(
    told: Captured, monkeypatch: pytest.MonkeyPatch, ddl_capture: str
) -> None:
    """By ``auto``, too; ``off`` hears nothing, and sees what became of the table once it looks."""
    shop = told
    shop.run(*ORDERS)
    shop.catch_up()
    shop.ddl_capture = ddl_capture
    with blind(shop, monkeypatch):
        shop.run("ALTER TABLE orders ADD more int DEFAULT 7")
    assert ("more" in shop.log.topic("orders").schema.names) == (ddl_capture == "auto")
    shop.catch_up()
    shop.assert_equal("orders")


def test_several_changes_in_one_transaction_take_effect_at_their_places(
    told: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among them a column that is altered twice: what the second did leaves no trace that the first did not."""
    shop = told
    shop.run(*ORDERS, *named(ORDERS, "twice"), *named(ORDERS, "gone"))
    shop.catch_up()
    with blind(shop, monkeypatch):
        shop.run(
            "BEGIN; ALTER TABLE orders ADD a int DEFAULT 1; INSERT INTO orders (id) VALUES (100);"
            " ALTER TABLE orders RENAME a TO b; UPDATE orders SET b = 5 WHERE id = 3; ALTER TABLE orders DROP who;"
            " ALTER TABLE orders ADD who int; INSERT INTO orders (id, who) VALUES (101, 7); COMMIT",
            "BEGIN; ALTER TABLE twice ALTER n DROP NOT NULL; ALTER TABLE twice ALTER n TYPE int USING n + 1; COMMIT",
            "BEGIN; INSERT INTO gone (id) VALUES (99); ALTER TABLE gone ADD a int;"
            " ALTER TABLE gone ALTER n TYPE text; DROP TABLE gone; COMMIT",
        )
    assert (shop.log.topic("orders").state, shop.log.topic("orders").reason) == ("live", "")
    shop.assert_equal("orders")
    assert shop.log.topic("twice").state == "reshaping"
    assert sorted(topic.name for topic in shop.log.topics(hidden=True) if "gone" in topic.name) == []
    shop.catch_up()
    shop.assert_equal("orders", "twice")


@pytest.mark.long
def test_partitions_and_heirs(told: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = told
    part = "CREATE TABLE {0}_{1} PARTITION OF {0} FOR VALUES FROM ({1}) TO ({2})"
    for table in ("a", "b", "c"):
        shop.run(
            f"CREATE TABLE {table} (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)",
            part.format(table, 0, 10), part.format(table, 10, 20), f"INSERT INTO {table} VALUES (1, 'x'), (11, 'y')",
        )  # fmt: skip
    shop.run("CREATE TABLE p (id int PRIMARY KEY)", "CREATE TABLE h (PRIMARY KEY (id)) INHERITS (p)")
    shop.catch_up()
    with blind(shop, monkeypatch):
        shop.run(
            part.format("a", 20, 30), "INSERT INTO a VALUES (21, 'z')",
            "ALTER TABLE b DETACH PARTITION b_10",
            "DROP TABLE c_10",
            "ALTER TABLE p ADD note text",
        )  # fmt: skip
    assert {name: shop.log.topic(name).state for name in "abcph"} == {
        "a": "live", "b": "reshaping", "c": "reshaping", "p": "live", "h": "live",
    }  # fmt: skip
    assert (shop.log.topic("p").schema.names, shop.log.topic("h").schema.names) == (("id", "note"),) * 2
    shop.assert_equal("a")
    with blind(shop, monkeypatch):  # made and attached in one transaction, with a row that was nobody's before
        shop.run(
            "BEGIN; CREATE TABLE n (id int NOT NULL, v text); INSERT INTO n VALUES (31, 'n');"
            " ALTER TABLE a ATTACH PARTITION n FOR VALUES FROM (30) TO (40); COMMIT"
        )
    assert shop.log.topic("a").state == "reshaping"
    shop.catch_up()
    shop.assert_equal("a", "b", "c", "h")


def test_a_table_that_loses_its_key_can_be_updated_at_once(told: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a role that has no right to anything of ours (law 9); without the trigger UPDATE fails for some seconds."""
    shop = told
    role = f"plain_{shop.source_rows('SELECT current_database()')[0][0]}"
    shop.run(f"CREATE ROLE {role} LOGIN", f"GRANT CREATE ON SCHEMA public TO {role}")
    try:
        with psycopg.connect(make_conninfo(shop.dsn, user=role), autocommit=True) as application:
            for statement in (*ORDERS, *named(ORDERS, "other"), "CREATE UNIQUE INDEX by_n ON other (n)"):
                application.execute(statement.encode())
            application.execute("ALTER TABLE other REPLICA IDENTITY USING INDEX by_n")
            shop.catch_up()
            with blind(shop, monkeypatch):
                application.execute("ALTER TABLE orders DROP CONSTRAINT orders_pkey")
                application.execute("UPDATE orders SET n = n + 1 WHERE id < 5")
                application.execute("DROP INDEX by_n")
                application.execute("DELETE FROM other WHERE id = 7")
        assert {shop.log.topic(name).state for name in ("orders", "other")} == {"reshaping"}
        shop.catch_up()
        shop.assert_equal("orders", "other")
        assert shop.log.topic("orders").kind == "insert_only"
    finally:
        shop.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.long
def test_nothing_of_the_trigger_makes_ddl_fail(told: Captured) -> None:
    shop = told
    shop.run(*ORDERS)
    shop.catch_up()
    with shop.running():
        shop.run(
            "CREATE OR REPLACE FUNCTION headwater_shop.tell(event text, tag text) RETURNS void LANGUAGE plpgsql"
            " AS 'BEGIN RAISE EXCEPTION ''broken''; END'",
            "ALTER TABLE orders ADD a int",
            "DROP FUNCTION headwater_shop.tell(text, text)",
            "ALTER TABLE orders DROP a",
            "CREATE TABLE more (id int PRIMARY KEY); DROP TABLE more",
        )
    shop.catch_up()  # which makes it anew
    with session.connect(shop.dsn, "shop") as connection:
        assert event_trigger.is_made(connection, "shop")
    shop.run("DROP PUBLICATION headwater_shop_inserts; CREATE PUBLICATION headwater_shop_inserts")
    shop.run("DROP SCHEMA headwater_shop CASCADE", "ALTER TABLE orders ADD b int DEFAULT 2", "DROP TABLE mark")


@pytest.mark.long
def test_what_is_not_told_exactly_has_the_catalog_looked_at(told: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """New tables, commands that touch many or run under an old snapshot, and what somebody else says.

    Nobody can drop a table of the lake by saying so.
    """
    shop = told
    monkeypatch.setattr(event_trigger, "RELATIONS_MAX", 1)
    shop.run(*ORDERS, *named(ORDERS, "old"), *named(ORDERS, "many"))
    shop.run("CREATE TABLE heir (PRIMARY KEY (id)) INHERITS (many)")
    shop.catch_up()
    says = "SELECT pg_logical_emit_message(true, 'headwater.ddl', '{}')"
    looks: list[object] = []
    look = survey.look

    def counted(config: SourceConfig, *more: Any) -> survey.Survey:
        looks.append(config)
        return look(config, *more)

    monkeypatch.setattr(survey, "look", counted)
    with monkeypatch.context() as patched, shop.running():
        shop.until(lambda: len(looks), lambda count: count > 0)
        patched.setattr(tending, "SURVEY_SECONDS", 1e9)
        shop.run("CREATE TABLE new (id int PRIMARY KEY)")
        shop.until(lambda: {topic.name for topic in shop.log.topics()}, lambda names: "shop.public.new" in names)
        [(oid,)] = shop.source_rows("SELECT 'orders'::regclass::oid::int8")
        shop.run(says.format("no JSON"), says.format('{"source": "shop"}'))
        facts = {"source": "shop", "layout": event_trigger.LAYOUT, "published": True, "xid": 1}
        absurd = [[[oid, "public", "orders", "d", 0, 0, "", ["no such"], True, 5]], [[oid, 1, 7, *"abcdefgh"]], []]
        shop.run(*(says.format(json.dumps({**facts, **more})) for more in ({"gone": [oid]}, {"state": absurd})))
    with blind(shop, monkeypatch), psycopg.connect(shop.dsn) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1 FROM mark")
        shop.run("ALTER TABLE old ADD a int")
        other.execute("ALTER TABLE old ADD b int")
        other.commit()
        shop.run("ALTER TABLE many ADD a int")
    assert shop.log.topic("old").schema.names[-1] == "a"
    assert {shop.log.topic(name).schema_version for name in ("orders", "many", "heir")} == {1}
    shop.catch_up()
    shop.assert_equal("orders", "old", "heir")
    assert [shop.log.topic(name).schema_version for name in ("orders", "old", "many", "heir")] == [1, 3, 2, 2]


@pytest.mark.long
def test_prepare_makes_it_check_names_it_and_drop_removes_it(shop: Captured) -> None:
    made = "SELECT evtname FROM pg_event_trigger UNION SELECT nspname FROM pg_namespace WHERE nspname LIKE 'headwater%'"
    shop.run(*ORDERS)
    role = f"may_replicate_{shop.source_rows('SELECT current_database()')[0][0]}"
    shop.run(f"CREATE ROLE {role} LOGIN REPLICATION", f"GRANT ALL ON DATABASE {shop.connection.info.dbname} TO {role}")
    shop.run(f"GRANT ALL ON SCHEMA public TO {role}", f"ALTER TABLE orders OWNER TO {role}")
    shop.ddl_capture = "trigger"
    try:
        with session.connect(make_conninfo(shop.dsn, user=role), "shop") as connection:
            [finding] = check.source(shop.source, connection, None)
            assert finding.fatal
            with pytest.raises(SourceNotReady, match="headwater_shop cannot be made"):
                source.prepare(shop.source, connection)
            shop.run(finding.sql)
            assert check.source(shop.source, connection, None) == []
            source.prepare(shop.source, connection)
        with session.connect(shop.dsn, "shop") as connection:
            shop.run("ALTER EVENT TRIGGER headwater_shop DISABLE")
            assert not event_trigger.is_made(connection, "shop")
            source.prepare(shop.source, connection)
            assert event_trigger.is_made(connection, "shop")
            source.drop(shop.source, shop.log, shop.log.raise_epoch("source:shop"), connection)
            assert shop.source_rows(made) == []
            source.prepare(shop.source, connection)
            shop.ddl_capture = "off"
            assert "fail" in check.source(shop.source, connection, None)[0].what
        shop.catch_up()
        assert shop.source_rows(made) == []
    finally:
        shop.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
