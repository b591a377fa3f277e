"""Keys and old rows: whatever the server sends of a row that was, under each replica identity, lake = source."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured

IDENTITIES = {"by_default": "DEFAULT", "by_index": "USING INDEX by_k", "by_full": "FULL", "by_nothing": "NOTHING"}
LONG = "repeat(md5(i::text), 300)"
"""Stored out of line, so that an update of other columns does not send it."""

KEYS = {
    "a key changes": ["UPDATE t SET id = id + 1000, k = k + 1000 WHERE id = 1"],
    "only the primary key changes": ["UPDATE t SET id = id + 1000 WHERE id = 2"],
    "only the unique column changes": ["UPDATE t SET k = k + 1000 WHERE id = 3"],
    "a key changes there and back": [
        "BEGIN; UPDATE t SET id = 1004 WHERE id = 4; UPDATE t SET id = 4 WHERE id = 1004; COMMIT"
    ],
    "two keys change places": [
        (
            "BEGIN; UPDATE t SET id = -1, k = -1 WHERE id = 7; UPDATE t SET id = 7, k = 7 WHERE id = 8;"
            " UPDATE t SET id = 8, k = 8 WHERE id = -1; COMMIT"
        )
    ],
}
VALUES = {
    "an unchanged long value": ["UPDATE t SET n = n + 1 WHERE id BETWEEN 10 AND 14"],
    "one of two changes": ["UPDATE t SET other = 'short' WHERE id = 11", "UPDATE t SET n = 0 WHERE id = 11"],
    "it is emptied, and stays so": ["UPDATE t SET body = NULL WHERE id = 12", "UPDATE t SET n = 5 WHERE id = 12"],
    "another long one": ["UPDATE t SET body = repeat('z', 9000) WHERE id = 13", "UPDATE t SET n = 6 WHERE id = 13"],
    "NULLs": ["UPDATE t SET n = NULL, other = NULL WHERE id = 14", "UPDATE t SET n = 1 WHERE id = 14"],
    "NULLs, deleted": ["UPDATE t SET n = NULL, body = NULL WHERE id = 15", "DELETE FROM t WHERE id = 15"],
}
ONE_TRANSACTION = {
    "deleted and inserted": [
        (
            "BEGIN; DELETE FROM t WHERE id = 20;"
            f" INSERT INTO t SELECT i, i, {LONG}, 'again', 1 FROM generate_series(20, 20) i; COMMIT"
        )
    ],
    "the same, then updated": [
        (
            "BEGIN; DELETE FROM t WHERE id = 21; INSERT INTO t VALUES (21, 21, NULL, 'x', 1);"
            " UPDATE t SET n = 2 WHERE id = 21; COMMIT"
        )
    ],
    "inserted, updated, deleted, inserted": [
        (
            f"BEGIN; INSERT INTO t SELECT i, i, {LONG}, NULL, 1 FROM generate_series(90, 90) i;"
            " UPDATE t SET n = 2 WHERE id = 90; DELETE FROM t WHERE id = 90;"
            " INSERT INTO t VALUES (90, 90, 'b', NULL, 3);"
            " UPDATE t SET n = n + 1 WHERE id = 90; COMMIT"
        )
    ],
    "updated often": ["BEGIN; " + "; ".join(f"UPDATE t SET n = {n} WHERE id = 23" for n in range(9)) + "; COMMIT"],
    "one takes the key that another left": [
        "BEGIN; DELETE FROM t WHERE id = 24; UPDATE t SET id = 24, k = 24 WHERE id = 25; COMMIT"
    ],
    "inserted and moved": [
        (
            f"BEGIN; INSERT INTO t SELECT i, i, {LONG}, NULL, 1 FROM generate_series(91, 91) i;"
            " UPDATE t SET id = 92, k = 92 WHERE id = 91; UPDATE t SET n = 7 WHERE id = 92; COMMIT"
        )
    ],
    "all of it undone": ["BEGIN; UPDATE t SET id = id + 5000, k = k + 5000; DELETE FROM t; ROLLBACK"],
}
BAG = [
    "UPDATE bag SET b = 'one' WHERE ctid = (SELECT min(ctid) FROM bag WHERE a = 1)",
    "DELETE FROM bag WHERE ctid = (SELECT max(ctid) FROM bag WHERE a = 1)",
    "DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE a IS NULL)",
    "UPDATE bag SET b = 'no longer' WHERE a IS NULL AND c IS NULL",
    ("BEGIN; INSERT INTO bag VALUES (1, 'x'), (1, 'x'); DELETE FROM bag WHERE a = 1 AND b = 'x';"
    " INSERT INTO bag VALUES (1, 'x'); COMMIT"),
    "UPDATE bag SET a = 3 WHERE a = 2", "UPDATE bag SET b = b WHERE a = 3",
]  # fmt: skip
"""Duplicates, rows of NULL and long values in a table without a key."""


@pytest.mark.parametrize("mode", ["binary", pytest.param("text", marks=pytest.mark.long)])
def test_every_replica_identity_with_every_kind_of_change(shop: Captured, mode: str) -> None:
    """A table for each identity, all in one source; what each change did is seen after each group of them."""
    shop.mode = mode
    for table, identity in IDENTITIES.items():
        shop.run(
            f"CREATE TABLE {table} (id int PRIMARY KEY, k int NOT NULL, body text, other text, n int)",
            f"ALTER TABLE {table} ALTER body SET STORAGE EXTERNAL, ALTER other SET STORAGE EXTERNAL",
            f"INSERT INTO {table} SELECT i, i, {LONG}, {LONG}, i FROM generate_series(1, 30) i",
        )
        if "INDEX" in identity:
            shop.run(f"CREATE UNIQUE INDEX by_k ON {table} (k)")
        shop.run(f"ALTER TABLE {table} REPLICA IDENTITY {identity}")
    shop.run(
        "CREATE TABLE bag (a int, b text, c text)", "ALTER TABLE bag REPLICA IDENTITY FULL",
        "ALTER TABLE bag ALTER c SET STORAGE EXTERNAL",
        f"INSERT INTO bag SELECT i % 3 + 1, 'x', CASE WHEN i % 2 = 0 THEN {LONG} END FROM generate_series(1, 12) i",
        "INSERT INTO bag SELECT NULL FROM generate_series(1, 4)",
    )  # fmt: skip
    shop.catch_up()
    kinds = {"by_default": "table", "by_index": "table", "by_full": "table", "by_nothing": "insert_only"}
    assert {table: shop.log.topic(table).kind for table in IDENTITIES} == kinds
    with_old_rows = [table for table in IDENTITIES if table != "by_nothing"]
    shop.assert_equal(*IDENTITIES, "bag")
    shop.run("INSERT INTO by_nothing VALUES (40, 40, NULL, NULL, 1), (41, 41, 'b', NULL, NULL)")
    for group in (KEYS, VALUES, ONE_TRANSACTION):
        for changes in group.values():
            for statement in changes:
                shop.run(*(re.sub(r"\bt\b", table, statement) for table in with_old_rows))
        shop.catch_up()
        shop.assert_equal(*with_old_rows, "by_nothing")
    shop.run(*BAG)
    shop.catch_up()
    shop.assert_equal("bag")
    shop.run(
        "UPDATE by_nothing SET id = id + 100, n = 5 WHERE id < 5", "DELETE FROM by_nothing WHERE id = 9",
        "SELECT pg_stat_force_next_flush()", "SELECT 1",
    )  # fmt: skip
    shop.catch_up()
    assert shop.log.topic("by_nothing").state == "incomplete"
    shop.assert_equal(*with_old_rows, "bag")
