"""The transactional outbox: what an application says in its transactions is in event topics, once, or says why not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import headwater
from headwater.config import OutboxConfig
from headwater.lake.status import status

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured

ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, cents int)"
OUTBOX = (
    "CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text, aggregateid text,"
    " type text, payload jsonb)"
)
COLUMNS = {"id": "BIGINT", "cents": "BIGINT"}


@pytest.fixture(params=["binary", "text"])
def either(request: pytest.FixtureRequest, shop: Captured) -> Captured:
    shop.mode = request.param
    return shop


def _says(prefix: str, content: str, *, inside: bool = True) -> str:
    return f"SELECT pg_logical_emit_message({str(inside).lower()}, '{prefix}', $x${content}$x$)"


def _events(shop: Captured, topic: str, columns: str = "*") -> list[tuple[Any, ...]]:
    return shop.lake(f'SELECT {columns} FROM log."{topic}" ORDER BY _lsn, _seq, _offset')


def _letters(shop: Captured, topic: str) -> list[tuple[bytes, str, dict[str, str]]]:
    rows = shop.log.read_changes(f"{topic}.dlq", 0, shop.log.newest_commit()).to_pylist()
    return [(row["original"], row["error_message"], dict(row["_headers"])) for row in rows]


def test_messages_of_a_configured_prefix_are_events_of_its_topic(either: Captured) -> None:
    """In the commit of their transaction, in order, by the topic's columns; the others are letters or only counted."""
    shop = either
    shop.messages = {"order": "shop.events.placed", "plain": "shop.events.plain"}
    with headwater.open(shop.folder) as lake:
        lake.create_topic("shop.events.placed", COLUMNS, key=["id"], partitions=1)
    shop.run(ORDERS)
    shop.catch_up()
    said = [_says("order", json.dumps({"id": n, "cents": n * 100})) for n in range(1, 4)]
    shop.run(
        f"BEGIN; {said[0]}; INSERT INTO orders VALUES (1, 100); {said[1]}; COMMIT",
        f"BEGIN; {said[2]}; ROLLBACK",
        _says("order", '{"id": "many", "cents": 3}'),
        _says("order", '{"id": 4}'), _says("order", "no json"), _says("order", ""), said[2],
        _says("plain", '{"any": ["json", 1.50]}'), _says("plain", "[1"),
        _says("order", '{"id": 9, "cents": 9}', inside=False), _says("audit", "x"), _says("audit", "y", inside=False),
    )  # fmt: skip
    shop.catch_up()
    shop.assert_equal("orders")
    found = _events(shop, "shop.events.placed", "id, cents, _commit, _lsn, _seq, _xid IS NOT NULL, _headers['type']")
    [row] = shop.changes("orders")
    assert found[:2] == [
        (1, 100, row["_commit"], row["_lsn"], 0, True, "order"),
        (2, 200, row["_commit"], row["_lsn"], 1, True, "order"),
    ]
    assert [each[:2] for each in found[2:]] == [(4, None), (3, 300)]
    assert _events(shop, "shop.events.plain", "type, payload") == [("plain", '{"any": ["json", 1.50]}')]
    letters = _letters(shop, "shop.events.placed")
    assert [letter[:2] for letter in letters] == [
        (b'{"id": "many", "cents": 3}', "id: 'many' does not fit BIGINT"),
        (b"no json", "the line is not a JSON object"),
        (b"", "the payload is not a JSON object"),
    ]
    lsns = {lsn for (lsn,) in shop.lake("SELECT commit_lsn FROM shop.transactions")}
    assert {int(headers["lsn"]) for _, _, headers in letters} <= lsns
    assert [letter[0] for letter in _letters(shop, "shop.events.plain")] == [b"[1"]
    shop.catch_up()
    assert len(_events(shop, "shop.events.placed")) == 4


def test_what_nobody_asked_for_is_counted_in_the_status(shop: Captured) -> None:
    shop.messages = {"order": "shop.events.placed"}
    shop.run(ORDERS)
    shop.catch_up()
    with shop.running():
        shop.run(_says("audit", "x"), _says("audit", "y", inside=False), _says("order", "1"), _says("order", "{"))
        found = shop.until(lambda: status(shop.log)["sources"][0], lambda each: each["refused_events"] == 1)
    assert (found["events"], found["ignored_messages"]) == (1, "audit: 2")


def test_rows_inserted_into_an_outbox_table_are_events(either: Captured) -> None:
    """Routed by a column, by the columns of a topic that is there; deletes and updates of the table are nothing."""
    shop = either
    shop.outbox = {"public.outbox": OutboxConfig()}
    with headwater.open(shop.folder) as lake:
        lake.create_topic("shop.events.order", COLUMNS, key=["id"], partitions=1)
    shop.run(ORDERS, OUTBOX, "INSERT INTO outbox (aggregatetype, payload) VALUES ('order', '{}')")
    shop.catch_up()
    write = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES"
    shop.run(
        f"BEGIN; INSERT INTO orders VALUES (1, 100); {write} ('order', '1', 'placed', '{{\"id\": 1, \"cents\": 100}}'),"
        " ('customer', 'ann', 'seen', '{\"at\": [1]}'); DELETE FROM outbox; COMMIT",
        f"{write} ('order', '2', 'placed', '{{\"cents\": 1}}'), (NULL, '3', 'x', '{{}}'),"
        " ('no name', '4', 'x', '{}'), ('customer', NULL, 'gone', NULL), ('customer', 'bob', 'gone', NULL)",
        "UPDATE outbox SET type = 'y'", "TRUNCATE outbox",
    )  # fmt: skip
    shop.catch_up()
    shop.assert_equal("orders")
    [row] = shop.changes("orders")
    placed = "id, cents, _commit, _lsn, _event_id IS NOT NULL, _headers['key'], _headers['type']"
    assert _events(shop, "shop.events.order", placed) == [(1, 100, row["_commit"], row["_lsn"], True, "1", "placed")]
    customers = _events(shop, "shop.events.customer", "key, type, payload")
    assert customers == [("ann", "seen", '{"at": [1]}'), ("bob", "gone", None)]
    assert shop.log.topic("shop.events.customer").schema.key == ("key",)
    assert [letter[1] for letter in _letters(shop, "shop.events.order")] == ["id is missing in the key"]
    [keyless] = _letters(shop, "shop.events.customer")
    assert (json.loads(keyless[0])["type"], keyless[1]) == ("gone", "key is missing in the key")
    nowhere = _letters(shop, "shop.public.outbox")
    assert [letter[1] for letter in nowhere] == ["it names no topic", "'shop.events.no name' is no topic name"]
    assert json.loads(nowhere[0][0])["aggregateid"] == "3"
    assert shop.changes("outbox") == []
    [(redriven, failed)] = [(each.redriven, each.failed) for each in [_mend_and_redrive(shop, "shop.events.customer")]]
    assert (redriven, failed) == (0, 1)


def _mend_and_redrive(shop: Captured, topic: str) -> Any:
    with headwater.open(shop.folder) as lake:
        return lake.dlq.redrive(topic)


def test_an_outbox_table_of_other_columns_and_one_topic(either: Captured) -> None:
    """A key that is a number, a payload that is bytes, a fixed topic; then a column that is gone, and back."""
    shop = either
    config = OutboxConfig(topic="shop.news", key="who", type="what", payload="body", id="n")
    shop.outbox = {"apart.said": config}
    shop.run(ORDERS, "CREATE SCHEMA apart", "CREATE TABLE apart.said (n bigserial, who bigint, what text, body bytea)")
    shop.catch_up()
    shop.run("INSERT INTO apart.said (who, what, body) VALUES (7, 'hello', convert_to('{\"a\": 1.10}', 'UTF8'))")
    shop.run("ALTER TABLE apart.said DROP what", "INSERT INTO apart.said (who, body) VALUES (8, '\\xff')")
    shop.catch_up()
    assert _events(shop, "shop.news", "key, type, payload, _event_id") == [("7", "hello", '{"a": 1.10}', "1")]
    assert [letter[:2] for letter in _letters(shop, "shop.news")] == [(b"\xff", "payload: '\\\\xff' does not fit JSON")]


def test_a_table_becomes_an_outbox_and_a_table_again(shop: Captured) -> None:
    shop.run(ORDERS, OUTBOX, "INSERT INTO outbox (aggregatetype) VALUES ('before')")
    shop.catch_up()
    shop.assert_equal("outbox", columns="id::text, aggregatetype")
    shop.outbox = {"public.outbox": OutboxConfig()}
    shop.catch_up()
    shop.run("INSERT INTO outbox (aggregatetype, aggregateid, payload) VALUES ('order', '1', '1')")
    shop.catch_up()
    assert _events(shop, "shop.events.order", "key, payload") == [("1", "1")]
    assert "shop.public.outbox" not in {topic.name for topic in shop.log.topics()}
    shop.outbox = {}
    shop.catch_up()
    shop.run("DELETE FROM outbox WHERE aggregatetype = 'before'")
    shop.catch_up()
    shop.assert_equal("outbox", columns="id::text, aggregatetype, payload::text")


def test_a_topic_dropped_by_somebody_else_comes_to_be_again(shop: Captured) -> None:
    shop.messages = {"order": "shop.events.placed"}
    shop.run(ORDERS)
    shop.catch_up()
    shop.run(_says("order", "1"))
    shop.catch_up()
    with headwater.open(shop.folder) as lake:
        lake.drop_topic("shop.events.placed")
    shop.run(_says("order", "2"))
    shop.catch_up()
    assert _events(shop, "shop.events.placed", "payload") == [("2",)]
