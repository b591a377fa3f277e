"""Topics that people own: created, altered and dropped in one commit each, with errors that say what to write."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from headwater.catalog.records import TopicSettings
from headwater.errors import DuplicateName, IncompatibleSchema, NameNotFound, UsageError
from headwater.lake import Lake, open_lake
from headwater.log import Log, administration, dead_letters, topic_settings
from headwater.log.repartition import repartition
from headwater.log.system import transaction
from headwater.log.views import create as create_view
from headwater.testing.writer import Writer

NAME = "shop.events.clicks"
COLUMNS = {"user": "BIGINT", "page": "VARCHAR", "at": "TIMESTAMPTZ"}

EVERY_SETTING: dict[str, Any] = {
    "cleanup": "both",
    "retention": "7 days",
    "retention_bytes": "1 GiB",
    "delete_retention": "36h",
    "compaction_lag": 0,
    "seal_bytes": 1_000_000,
    "seal_age": "1.5s",
    "compatibility": "full",
    "dedupe": timedelta(hours=24),
    "record_bytes_max": "64KB",
}


@pytest.fixture
def lake(log: Log) -> Lake:
    return Lake(log)


def test_a_topic_with_every_setting(lake: Lake) -> None:
    about = {"description": "Clicks", "owner": "web", "criticality": "high", "classification": "internal"}
    topic = lake.create_topic(NAME, COLUMNS, key=["user"], partitions=3, **EVERY_SETTING, **about)
    assert topic.settings == TopicSettings(
        cleanup="both",
        retention_s=604_800,
        retention_bytes=1 << 30,
        delete_retention_s=129_600,
        compaction_lag_s=0,
        seal_bytes=1_000_000,
        seal_age_s=1.5,
        compatibility="FULL",
        dedupe_s=86_400,
        record_bytes_max=65_536,
    )
    assert (topic.partitions, topic.schema.key, topic.kind) == (3, ("user",), "event")
    assert {name: getattr(topic, name) for name in about} == about
    assert topic_settings.parse(dict(topic_settings.shown(topic.settings))) == topic.settings
    assert lake.create_topic("plain", COLUMNS).partitions == 4
    assert lake.create_topic("rows", COLUMNS, key=["user"], kind="table").partitions == 1


def test_alter_changes_what_is_named_and_nothing_else(lake: Lake) -> None:
    lake.create_topic(NAME, COLUMNS, key=["user"], retention="7d", owner="web")
    with open_lake(lake.log.folder) as other:
        assert other.log.topic(NAME).settings.retention_s == 604_800
        altered = lake.alter_topic(NAME, cleanup="compact", description="All clicks")
        assert (altered.settings.retention_s, altered.settings.cleanup) == (604_800, "compact")
        assert (altered.owner, altered.description) == ("web", "All clicks")
        assert other.log.topic(NAME) == altered, "every reader sees it"
    assert lake.alter_topic("clicks", retention="none").settings.retention_s is None


def test_two_that_alter_at_once_both_count(log: Log) -> None:
    administration.create(log, NAME, COLUMNS)
    changes: list[dict[str, Any]] = [
        {"retention": "1d"},
        {"seal_age": "5s"},
        {"dedupe": "1h"},
        {"record_bytes_max": 999},
    ]
    threads = [threading.Thread(target=administration.alter, args=(log, NAME), kwargs=each) for each in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = log.topic(NAME).settings
    assert (found.retention_s, found.seal_age_s, found.dedupe_s, found.record_bytes_max) == (86_400, 5, 3_600, 999)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"retenton": "7d"}, r"no setting 'retenton'. Did you mean retention\?"),
        ({"ownr": "x"}, r"Did you mean owner\?"),
        ({"retention": "7 dogs"}, "has no unit of time. Units: ms, s, m, min, h, d, w"),
        ({"retention": "soon"}, 'is not a time. Write it like "7d"'),
        ({"retention": 0}, "out of range. Use more than 0, or none"),
        ({"retention": True}, "is not a time"),
        ({"seal_bytes": "1 box"}, "has no unit of size"),
        ({"cleanup": "compct"}, r"Use one of delete, compact, both. Did you mean compact\?"),
        ({"compatibility": "sideways"}, "Use one of NONE, BACKWARD"),
        ({"record_bytes_max": None}, "cannot be none"),
        ({"cleanup": "compact"}, "needs a key .*: it has no key"),
        ({"partitions": 0}, "0 partitions are out of range"),
        ({"partitions": 300}, "Use 1 to 256"),
        ({"key": ["usr"]}, r"no column 'usr' to be the key \(shop.events.clicks\). Did you mean user\?"),
        ({"kind": "table"}, "a table needs a key"),
        ({"kind": "table", "key": ["user"], "dedupe": "1h"}, "dedupe is for event topics"),
        ({"owner": 7}, "owner is no text"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(lake: Lake, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lake.create_topic(NAME, COLUMNS, **settings)
    assert lake.log.newest_commit() == 0


@pytest.mark.parametrize("name", ["a.b.c.d", "", "1st", "views.x", "log.x", "x.dlq", "a b", "headwater.x", "é" * 3])
def test_names_that_mean_something_else_are_refused(lake: Lake, name: str) -> None:
    with pytest.raises(UsageError):
        lake.create_topic(name, COLUMNS)


@pytest.mark.parametrize("columns", [{}, {"_op": "VARCHAR"}, {"a": "BIGINT", "A": "BIGINT"}, {"a": "POINT"}])
def test_columns_that_cannot_be_are_refused(lake: Lake, columns: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        lake.create_topic(NAME, columns)


def test_a_name_is_taken_whatever_its_case(lake: Lake) -> None:
    lake.create_topic(NAME, COLUMNS)
    for name in (NAME, NAME.upper()):
        with pytest.raises(DuplicateName, match=f"{NAME} exists already"):
            lake.create_topic(name, COLUMNS)


def test_partitions_are_not_altered_but_repartitioned(lake: Lake) -> None:
    lake.create_topic(NAME, COLUMNS)
    with pytest.raises(UsageError, match=r"topic repartition shop\.events\.clicks N"):
        lake.alter_topic(NAME, partitions=8)
    lake.repartition(NAME, 8)
    assert lake.log.topic(NAME).partitions == 8


def test_a_dropped_topic_is_read_at_older_positions_and_its_name_is_free(lake: Lake) -> None:
    lake.create_topic("t", {"n": "BIGINT"})
    with lake.producer() as producer:
        producer.send("t", [{"n": 1}, {"n": 2}]).result(timeout=20)
    before = lake.position()
    lake.drop_topic("t")
    with pytest.raises(NameNotFound):
        lake.sql("FROM t")
    assert lake.sql("SELECT sum(n) FROM t", at=before).scalar() == 3
    lake.create_topic("t", {"m": "VARCHAR"})
    assert lake.sql("SELECT count(*) FROM t").scalar() == 0


def test_what_is_in_use_is_not_dropped(lake: Lake, writer: Writer) -> None:
    lake.create_topic(NAME, COLUMNS)
    writer.create("shop.public.orders", "table", dead_letters.SCHEMA)
    with pytest.raises(UsageError, match="written by source shop"):
        lake.drop_topic("orders")
    with lake.log.catalog.write() as connection:
        create_view(connection, "per_page", f"SELECT page, count(*) FROM {NAME} GROUP BY 1", {})
        create_view(connection, "other", "SELECT topic FROM shop.public.orders", {})
    with pytest.raises(UsageError, match=r"is read by per_page\. Drop or replace"):
        lake.drop_topic(NAME)
    lake.log.drop_view("per_page")
    with transaction(lake.log, "system:test") as tx:
        dead_letters.append(tx, NAME, _letters())
        tx.commit()
    with pytest.raises(UsageError, match="1 open dead letters"):
        lake.drop_topic(NAME)
    lake.dlq.discard(NAME, reason="a test")
    lake.drop_topic(NAME)
    assert [topic.name for topic in lake.topics()] == ["shop.public.orders"], "its dead letter topic went with it"


def test_a_query_that_only_the_view_compiler_parses_holds_what_it_names(lake: Lake) -> None:
    lake.create_topic("web.clicks", COLUMNS)
    lake.create_topic("web.clicks_of_bots", COLUMNS)
    query = "SELECT user, count(*) AS n FROM SESSION(clicks, at_time, INTERVAL 15 SECONDS, user) GROUP BY ALL"
    with lake.log.catalog.write() as connection:
        create_view(connection, "visits", query, {})
    with pytest.raises(UsageError, match="is read by visits"):
        lake.drop_topic("web.clicks")
    lake.drop_topic("web.clicks_of_bots")


def test_the_next_schema_of_a_topic_is_given_by_its_columns(lake: Lake) -> None:
    lake.create_topic("t", {"id": "BIGINT", "n": "INTEGER"}, key=["id"])
    with lake.producer() as producer:
        producer.send("t", {"id": 1, "n": 1}).result(timeout=20)
    wider = {"id": "BIGINT", "number": "BIGINT", "note": "VARCHAR"}
    assert lake.register_schema("t", wider, renames={"number": "n"}).number == 2
    assert lake.register_schema("t", wider).number == 2, "what is in force is no new version"
    with lake.producer() as producer:
        producer.send("t", [{"id": 2, "number": 2**40}, {"id": 3, "number": 3, "note": "x"}]).result(timeout=20)
    assert lake.sql("FROM t ORDER BY id").fetchall() == [(1, 1, None), (2, 2**40, None), (3, 3, "x")]
    assert lake.describe("t").key == ("id",)
    assert lake.register_schema("t", {**wider, "more": "DATE"}).number == 3
    with pytest.raises(IncompatibleSchema, match="number was BIGINT"):
        lake.register_schema("t", {**wider, "number": "VARCHAR", "more": "DATE"})


def test_an_older_position_has_the_partitions_of_then(log: Log) -> None:
    first = administration.create(log, NAME, COLUMNS, partitions=2).created
    repartition(log, NAME, 5)
    assert [log.topic(NAME, at).partitions for at in (first, log.newest_commit())] == [2, 5]


def _letters() -> Any:
    import pyarrow as pa

    return pa.table({"original": [b"{}"], "format": ["json"], "error_class": ["X"]})
