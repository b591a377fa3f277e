"""Transactions that are sent before they end: whole at their commit, without what was rolled back."""

from __future__ import annotations

import os
import queue
import random
from typing import TYPE_CHECKING

import numpy as np
import psycopg
import pytest

from headwater_connectors.postgres import streams
from headwater_connectors.postgres.stream import FRAME
from headwater_connectors.postgres.streams import Streams
from headwater_connectors.postgres.transactions import HEADER, Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.connectors.conftest import Captured

TABLES = (
    "CREATE TABLE big (id int PRIMARY KEY, v text, n int DEFAULT 0)",
    "CREATE TABLE small (id int PRIMARY KEY, v text)",
    "ALTER SYSTEM SET logical_decoding_work_mem = '64kB'",
    "SELECT pg_reload_conf()",
)
"""With so little memory for decoding, the server streams every transaction of a thousand rows."""


@pytest.fixture
def spooled(monkeypatch: pytest.MonkeyPatch) -> queue.SimpleQueue[bytes]:
    """What the server said of transactions in progress."""
    said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    original = Streams._control

    def control(self: Streams, message: bytes) -> Iterator[object]:
        said.put(message)
        return original(self, message)

    monkeypatch.setattr(Streams, "_control", control)
    return said


@pytest.fixture
def streamed(shop: Captured, spooled: queue.SimpleQueue[bytes]) -> Iterator[Captured]:
    """Fails when nothing was streamed."""
    shop.run(*TABLES)
    _await_setting(shop, "64kB")
    yield shop
    shop.run("ALTER SYSTEM RESET logical_decoding_work_mem", "SELECT pg_reload_conf()")
    _await_setting(shop, "64MB")
    assert not spooled.empty()


def _await_setting(shop: Captured, value: str) -> None:
    """New server processes have the setting once the server has read it."""
    for _ in range(1000):
        with psycopg.connect(shop.dsn) as other:
            if other.execute("SHOW logical_decoding_work_mem").fetchone() == (value,):
                return
    raise AssertionError("the server did not take the setting")


@pytest.mark.parametrize("mode", ["auto", "text"])
def test_a_streamed_transaction_is_one_commit(streamed: Captured, mode: str) -> None:
    shop = streamed
    shop.mode = mode
    shop.catch_up()
    shop.run(
        "BEGIN; INSERT INTO big SELECT i, repeat('x', 50) FROM generate_series(1, 5000) i;"
        " UPDATE big SET n = 1 WHERE id % 3 = 0; DELETE FROM big WHERE id % 5 = 0;"
        " INSERT INTO small VALUES (1, 'with it'); COMMIT"
    )
    shop.catch_up()
    shop.assert_equal("big", "small")
    assert len({row["_commit"] for row in shop.changes("big")}) == 1
    [(rows, begin, commit)] = shop.lake("SELECT rows, begin_lsn, commit_lsn FROM shop.transactions")
    assert rows == 5000 + 1666 + 1000 + 1
    assert 0 < begin < commit
    order = [row["_seq"] for row in shop.changes("big")]
    assert order == sorted(order)


def test_a_streamed_transaction_that_is_rolled_back_leaves_nothing(
    streamed: Captured, spooled: queue.SimpleQueue[bytes]
) -> None:
    shop = streamed
    shop.catch_up()
    with shop.running(), psycopg.connect(shop.dsn) as writer:
        writer.execute("INSERT INTO big SELECT i, repeat('x', 50) FROM generate_series(1, 5000) i")
        spooled.put(spooled.get(timeout=30))  # the fixture looks for it too
        writer.rollback()
        shop.run("INSERT INTO big VALUES (1, 'kept')")
    shop.catch_up()
    shop.assert_equal("big")
    assert len(shop.changes("big")) == 1


def test_rolled_back_parts_of_a_streamed_transaction(streamed: Captured) -> None:
    """Savepoints rolled back before, between and after what stays; one of them altered the table."""
    shop = streamed
    shop.catch_up()
    many = "INSERT INTO big SELECT i, repeat('x', 50) FROM generate_series({}, {}) i"
    shop.run(
        "BEGIN; SAVEPOINT a; " + many.format(1, 2000) + "; ROLLBACK TO a; " + many.format(1, 1500) + ";"
        " SAVEPOINT b; ALTER TABLE big ADD note text; " + many.format(3001, 4500) + "; ROLLBACK TO b;"
        " SAVEPOINT c; " + many.format(5001, 6500) + "; RELEASE c; UPDATE big SET n = 5 WHERE id < 100;"
        " SAVEPOINT d; DELETE FROM big; ROLLBACK TO d; COMMIT"
    )
    shop.run("INSERT INTO big VALUES (9999, 'after')")
    shop.catch_up()
    shop.assert_equal("big")
    assert shop.log.topic("big").schema.names == ("id", "v", "n")
    assert shop.log.topic("big").schema_version == 1


def test_the_relation_came_in_a_part_that_was_rolled_back(streamed: Captured) -> None:
    """The server announces a table once for a streamed transaction, here only inside the rolled back part."""
    shop = streamed
    shop.catch_up()
    shop.run(
        "BEGIN; SAVEPOINT a; INSERT INTO big SELECT i, repeat('x', 50) FROM generate_series(1, 3000) i;"
        " ROLLBACK TO a; INSERT INTO big SELECT i, repeat('y', 50) FROM generate_series(1, 3000) i; COMMIT"
    )
    shop.catch_up()
    shop.assert_equal("big")


@pytest.mark.long
def test_what_an_event_trigger_says_in_a_streamed_transaction(streamed: Captured) -> None:
    """Each change of shape takes effect at its place, and what was rolled back does not."""
    shop = streamed
    shop.ddl_capture = "trigger"
    shop.catch_up()
    many = "INSERT INTO big ({0}) SELECT i, repeat('x', 50) FROM generate_series({1}, {2}) i"
    shop.run(
        f"BEGIN; {many.format('id, v', 1, 2000)}; ALTER TABLE big ADD a int DEFAULT 7; ALTER TABLE big RENAME v TO w;"
        f" {many.format('id, w', 2001, 4000)}; ALTER TABLE big DROP n; UPDATE big SET a = 8 WHERE id % 2 = 0; COMMIT",
        "ALTER TABLE small ADD b int DEFAULT 1",
    )
    shop.catch_up()
    shop.assert_equal("big", "small")
    assert len(shop.changes("big")) == 6000
    versions = shop.log.topic("big").schema_version
    shop.run(
        f"BEGIN; {many.format('id, w', 4001, 6000)}; SAVEPOINT a; ALTER TABLE big DROP a;"
        f" ALTER TABLE big RENAME w TO x; {many.format('id, x', 6001, 8000)}; ROLLBACK TO a;"
        f" {many.format('id, w', 6001, 8000)}; COMMIT"
    )
    shop.catch_up()
    shop.assert_equal("big")
    assert (shop.log.topic("big").schema_version, len(shop.changes("big"))) == (versions, 10_000)


def test_messages_of_a_streamed_transaction(streamed: Captured) -> None:
    """Those that were rolled back leave no event, and say nothing of the transaction."""
    shop = streamed
    shop.messages = {"order": "shop.events.placed"}
    shop.catch_up()
    says = "SELECT pg_logical_emit_message(true, '{}', '{}')"
    ann, bob = (says.format("headwater.context", f'{{"actor": "{name}"}}') for name in ("ann", "bob"))
    many = "INSERT INTO big SELECT i, repeat('x', 50) FROM generate_series({}, {}) i"
    shop.run(
        f"BEGIN; {says.format('order', 1)}; {ann}; SAVEPOINT a;"
        f" {says.format('order', 2)}; {bob}; {many.format(1, 3000)};"
        f" ROLLBACK TO a; {many.format(1, 3000)}; {says.format('order', 3)}; COMMIT"
    )
    shop.catch_up()
    shop.assert_equal("big")
    events = shop.lake('SELECT payload, _commit FROM log."shop.events.placed" ORDER BY _offset')
    assert events == [(payload, shop.changes("big")[0]["_commit"]) for payload in ("1", "3")]
    assert shop.lake("SELECT actor FROM shop.transactions") == [("ann",)]


def test_other_tables_go_on_beside_a_streamed_transaction(streamed: Captured) -> None:
    shop = streamed
    shop.catch_up()
    with shop.running(), psycopg.connect(shop.dsn) as writer:
        for part in range(5):
            writer.execute(
                "INSERT INTO big SELECT i, repeat('x', 50) FROM generate_series(%s::int, %s) i",
                [part * 2000, part * 2000 + 1999],
            )
            shop.run(f"INSERT INTO small VALUES ({part}, 'meanwhile')")
            seen = shop.log.newest_commit()
            while len(shop.changes("small")) <= part:
                seen = shop.log.wait(seen, 10)
            assert shop.changes("big") == []
        writer.execute("ALTER TABLE big ADD note text DEFAULT 'd'")
        writer.execute("INSERT INTO big (id, note) VALUES (100000, 'own')")
        writer.commit()
    shop.catch_up()
    shop.assert_equal("big", "small")


def test_a_prepared_transaction_comes_with_its_commit(shop: Captured) -> None:
    shop.run("CREATE TABLE big (id int PRIMARY KEY, v text)")
    if shop.source_rows("SHOW max_prepared_transactions") == [("0",)]:
        pytest.skip("the server has no prepared transactions")
    shop.catch_up()
    with psycopg.connect(shop.dsn, autocommit=True) as other:
        other.execute("BEGIN")
        other.execute("INSERT INTO big SELECT i, repeat('x', 50) FROM generate_series(1, 500) i")
        other.execute("PREPARE TRANSACTION 'p'")
        shop.run("INSERT INTO big VALUES (1000, 'before')")
        shop.catch_up()
        assert [row["id"] for row in shop.changes("big")] == [1000]
        other.execute("COMMIT PREPARED 'p'")
    shop.catch_up()
    shop.assert_equal("big")


def _sent(kind: bytes, xid: int, *more: int) -> bytes:
    """A message as it is received: header, kind, transaction id, numbers of four bytes."""
    return (bytes(FRAME) + b"w").ljust(HEADER, b"\0") + kind + b"".join(n.to_bytes(4, "big") for n in (xid, *more))


@pytest.mark.parametrize("part_bytes", [1, 150, streams.PART_BYTES])
def test_segments_are_sorted_wherever_the_stream_is_cut(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    """Two streamed transactions, one with a rolled back part, around a plain one; cut anywhere, the same comes out."""
    monkeypatch.setattr(streams, "PART_BYTES", part_bytes)
    end = bytes(1 + 3 * 8)
    plain = [_sent(b"B", 0), *(_sent(b"I", number) for number in range(100, 105)), _sent(b"C", 0)]
    messages = [
        _sent(b"S", 7, 1), _sent(b"R", 7, 1), _sent(b"I", 7, 1), _sent(b"I", 8, 2), _sent(b"E", 0),
        *plain,
        _sent(b"S", 9, 1), _sent(b"I", 9, 3), _sent(b"I", 9, 4), _sent(b"E", 0),
        _sent(b"S", 7, 0), _sent(b"I", 8, 5), _sent(b"I", 7, 6), _sent(b"E", 0),
        _sent(b"A", 7, 8), _sent(b"c", 7) + end, *plain, _sent(b"A", 9, 9),
    ]  # fmt: skip
    kept = [_sent(b"R", 1), _sent(b"I", 1), _sent(b"I", 6)]
    draw = random.Random(seed)
    for _ in range(200):
        sorter, out, low = Streams(tmp_path), b"", 0
        while low < len(messages):
            high = low + draw.randint(1, 6)
            part = messages[low:high]
            chunk = Chunk.of(b"".join(part), np.array([len(each) for each in part]))
            found = [each.load() for each in sorter.sort(chunk)]
            out += b"".join(bytes(each.data) for each in found)
            assert all(int(each.lengths.sum()) == len(each.data) for each in found)
            low = high
        begin, commit = HEADER + 21, HEADER + 26
        first = b"".join(plain)
        assert out[: len(first)] == first
        rest = out[len(first) :]
        assert rest[begin : -commit - len(first)] == b"".join(kept)
        assert (rest[HEADER : HEADER + 1], rest[-len(first) - commit + HEADER : -len(first)][:1]) == (b"B", b"C")
        assert sorter.size == 0


def test_origins_in_segments_are_dropped(tmp_path: Path) -> None:
    """An Origin message has no transaction's id, so nothing may be cut out of it, nor be taken for one."""
    place = (8 << 32 | 1).to_bytes(8, "big")  # begins like the id of the part that is rolled back
    origin = _sent(b"O", 0)[:-4] + place + b"afar\0"
    messages = [
        _sent(b"S", 7, 1), origin, _sent(b"I", 7, 1), origin, _sent(b"I", 8, 2), _sent(b"E", 0),
        _sent(b"A", 7, 8), _sent(b"c", 7) + bytes(25),
    ]  # fmt: skip
    chunk = Chunk.of(b"".join(messages), np.array([len(each) for each in messages]))
    _, spooled, _ = Streams(tmp_path).sort(chunk)
    assert bytes(spooled.load().data) == _sent(b"I", 1)
    messages[-2:] = [_sent(b"c", 7) + bytes(25)]
    chunk = Chunk.of(b"".join(messages), np.array([len(each) for each in messages]))
    _, spooled, _ = Streams(tmp_path).sort(chunk)
    assert bytes(spooled.load().data) == _sent(b"I", 1) + _sent(b"I", 2)


def test_what_is_spooled_is_whole_when_calls_take_less_than_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, place: original(file, data[:7], place))
    sorter, rows = Streams(tmp_path), [_sent(b"I", 7, number) for number in range(50)]
    messages = [_sent(b"S", 7, 1), *rows, _sent(b"E", 0), _sent(b"c", 7) + bytes(25)]
    chunk = Chunk.of(b"".join(messages), np.array([len(each) for each in messages]))
    _, spooled, _ = sorter.sort(chunk)
    assert bytes(spooled.load().data) == b"".join(_sent(b"I", number) for number in range(50))
