"""One bad row or table never stops the rest: letters, quarantine, and taking a table up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pytest
from tests.connectors.conftest import Captured

import headwater
from headwater.errors import NameNotFound, UsageError
from headwater_connectors.postgres import chunks, decoder, known, pieces, requests
from headwater_connectors.postgres.copying import Copying
from headwater_connectors.postgres.pieces import Pieces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def anything(admin: str, tmp_path: Path) -> Iterator[Captured]:
    """A database in SQL_ASCII, which takes any bytes for text."""
    name = f"ascii_{tmp_path.name[-8:].strip('_')}".lower()
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'".encode())
    captured = Captured(psycopg.conninfo.make_conninfo(admin, dbname=name, client_encoding="utf8"), tmp_path / "lake")
    yield captured
    captured.connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
    captured.close()
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


BAD = "convert_from('\\x61ff62', 'SQL_ASCII')"


@pytest.mark.parametrize("mode", ["auto", "text"])
def test_a_row_that_cannot_be_read_becomes_a_letter(anything: Captured, mode: str) -> None:
    shop = anything
    shop.mode = mode
    shop.run("CREATE TABLE notes (id int PRIMARY KEY, v text)", "CREATE TABLE other (id int PRIMARY KEY)")
    shop.catch_up()
    shop.run(
        f"BEGIN; INSERT INTO notes SELECT i, CASE i WHEN 37 THEN {BAD} ELSE 'fine' END FROM generate_series(1, 100) i;"
        " INSERT INTO other VALUES (1); COMMIT",
        "INSERT INTO notes VALUES (101, 'after')",
    )
    shop.catch_up()
    assert shop.lake("SELECT count(*), max(id) FROM notes") == [(100, 101)]
    assert shop.lake("SELECT * FROM other") == [(1,)]
    assert shop.log.topic("notes").state == "incomplete"
    with headwater.open(shop.folder) as lake:
        (letter,) = lake.sql('SELECT * FROM log."shop.public.notes.dlq"').arrow().to_pylist()
    assert b"a\xffb" in letter["original"]
    assert letter["format"] == "pgoutput"
    headers = dict(letter["_headers"])
    assert int(headers["lsn"]) > 0
    assert headers["seq"] == "37"


def test_a_table_of_which_nothing_can_be_read_is_left_and_the_others_go_on(
    anything: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "LETTERS_MAX", 5)
    shop = anything
    shop.run("CREATE TABLE notes (id int PRIMARY KEY, v text)", "CREATE TABLE other (id int PRIMARY KEY)")
    shop.run("INSERT INTO notes VALUES (0, 'good')")
    shop.catch_up()
    shop.run(
        f"BEGIN; INSERT INTO notes SELECT i, {BAD} FROM generate_series(1, 100) i;"
        " INSERT INTO other VALUES (1); COMMIT",
        "INSERT INTO other VALUES (2)",
    )
    shop.catch_up()
    assert shop.lake("SELECT * FROM other ORDER BY 1") == [(1,), (2,)]
    topic = shop.log.topic("notes")
    assert topic.state == "quarantined"
    assert "cannot be read" in topic.reason
    assert shop.lake("SELECT * FROM notes") == [(0, "good")]


def test_a_copy_that_is_asked_for_mends_the_table_with_its_differences(anything: Captured) -> None:
    """What was a letter is read once the source has mended it; other rows are not written again."""
    shop = anything
    shop.run("CREATE TABLE notes (id int PRIMARY KEY, v text)", "CREATE TABLE other (id int PRIMARY KEY)")
    shop.catch_up()
    shop.run(f"INSERT INTO notes SELECT i, CASE i WHEN 37 THEN {BAD} ELSE 'fine' END FROM generate_series(1, 100) i")
    shop.catch_up()
    shop.run("UPDATE notes SET v = 'mended' WHERE id = 37", "DELETE FROM notes WHERE id = 1")
    before, topic = len(shop.changes("notes")), shop.log.topic("notes").id
    requests.ask_copy(shop.log, "shop", "public.notes")
    shop.catch_up()
    shop.assert_equal("notes")
    assert (shop.log.topic("notes").state, shop.log.topic("notes").id) == ("live", topic)
    assert len(shop.changes("notes")) - before <= 3
    with pytest.raises(NameNotFound, match=r"public\.notes"):
        requests.ask_copy(shop.log, "shop", "public.note")


def test_a_table_in_quarantine_is_taken_up_again(anything: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "LETTERS_MAX", 5)
    shop = anything
    shop.run("CREATE TABLE notes (id int PRIMARY KEY, v text)", "INSERT INTO notes VALUES (0, 'good')")
    shop.catch_up()
    shop.run(f"INSERT INTO notes SELECT i, {BAD} FROM generate_series(1, 100) i")
    shop.catch_up()
    shop.run("UPDATE notes SET v = 'mended ' || id")
    assert shop.log.topic("notes").state == "quarantined"
    requests.ask_copy(shop.log, "shop", "public.notes")
    shop.catch_up()
    assert shop.log.topic("notes").state == "live"
    shop.assert_equal("notes")


def test_rows_that_cannot_be_read_in_the_first_copy_become_letters(
    anything: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks, also when they are read again because somebody touched them; the other rows are all there."""
    monkeypatch.setattr(chunks, "CHUNK_PAGES", 1)
    monkeypatch.setattr(pieces, "LETTERS_MAX", 5)
    shop = anything
    shop.run(
        "CREATE TABLE notes (id int PRIMARY KEY, v text)",
        "CREATE TABLE worse (id int PRIMARY KEY, v text)",
        "CREATE TABLE lines (v text)",
        f"INSERT INTO lines VALUES ('good'), ({BAD})",
        f"INSERT INTO worse SELECT i, {BAD} FROM generate_series(1, 9) i",
        f"INSERT INTO notes SELECT i, CASE WHEN i IN (7, 300) THEN {BAD} ELSE 'v' END FROM generate_series(1, 600) i",
    )
    keep, touched = Pieces.keep_chunk, iter([True])

    def touch(self: Pieces, *args: Any) -> Any:
        piece = keep(self, *args)
        for _ in touched:
            shop.run("UPDATE notes SET v = v || '!' WHERE id = 300")
        return piece

    monkeypatch.setattr(Pieces, "keep_chunk", touch)
    shop.catch_up()
    assert [shop.log.topic(name).state for name in ("notes", "lines")] == ["incomplete"] * 2
    assert shop.lake("SELECT count(*), min(id), max(id) FROM notes") == [(598, 1, 600)]
    assert shop.lake("SELECT * FROM lines") == [("good",)]
    with headwater.open(shop.folder) as lake:
        letters = lake.sql('SELECT original, format FROM log."shop.public.notes.dlq"').arrow().to_pylist()
    copied = {int.from_bytes(letter["original"][6:10]) for letter in letters if letter["format"] == "copy"}
    assert copied == {7, 300}
    assert [letter["format"] for letter in letters].count("pgoutput") == 1  # the update, while the table was copied
    assert all(b"a\xffb" in letter["original"] for letter in letters)
    assert "shop.public.worse" not in {topic.name for topic in shop.log.topics()}
    reasons = {each.full_name: each.reason for each in known.load(shop.log, "shop").values()}
    assert "rows of public.worse cannot be read" in reasons["public.worse"]
    shop.run("UPDATE notes SET v = 'mended' WHERE id IN (7, 300)")
    requests.ask_copy(shop.log, "shop", "public.notes")
    shop.catch_up()
    assert shop.log.topic("notes").state == "live"
    shop.assert_equal("notes")


@pytest.mark.long
def test_rows_whose_key_the_log_cannot_hold_become_letters(shop: Captured) -> None:
    """Their keys would all be NULL, and the rows one row."""
    shop.run(
        "CREATE TABLE years (k timestamp PRIMARY KEY, n int)",
        "INSERT INTO years VALUES ('294276-01-01', 1), ('294276-01-02', 2), ('2020-01-01', 3), ('infinity', 4)",
    )
    shop.catch_up()
    shop.run("UPDATE years SET n = n + 10", "INSERT INTO years VALUES ('294276-01-03', 5)")
    shop.catch_up()
    assert shop.lake("SELECT n FROM years ORDER BY n") == [(13,), (14,)]
    topic = shop.log.topic("years")
    assert topic.state == "incomplete"
    assert "294276-01-0" in topic.reason
    assert shop.lake('SELECT count(*) FROM log."shop.public.years.dlq"') == [(2 + 3,)]


@pytest.mark.long
def test_a_range_is_copied_again(shop: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only rows in the range are mended; rows that change meanwhile, into it, out of it or beside it, stay right."""
    shop.run(
        'CREATE TABLE notes (id int PRIMARY KEY, v text, "Big" text)',
        "ALTER TABLE notes ALTER v SET STORAGE EXTERNAL",
        "INSERT INTO notes SELECT i, repeat(chr(65 + i % 26), 3000), 'n' || i FROM generate_series(1, 500) i",
    )
    shop.catch_up()
    with shop.log.transaction("tamper", shop.log.raise_epoch("tamper")) as transaction:
        values = ["wrong", None, "wrong", "extra", None, "nowhere"]
        wrong = {"id": [10, 20, 200, 999, 30, 998], "v": values, "Big": ["x"] * 6}
        kinds = {"_op": ["u", "d", "u", "c", "d", "c"]}
        table = pa.table({**wrong, **kinds}).set_column(0, "id", pa.array(wrong["id"], pa.int32()))
        transaction.append("shop.public.notes", table)
        transaction.commit()
    before, keep, once = len(shop.changes("notes")), Pieces.keep_chunk, iter([True])

    def change(self: Pieces, *args: Any) -> Any:
        if next(once, False):
            shop.run("UPDATE notes SET id = 700 WHERE id = 40", "DELETE FROM notes WHERE id = 50")
        piece = keep(self, *args)
        shop.run(
            "UPDATE notes SET id = 60 WHERE id = 700", "UPDATE notes SET \"Big\" = 'new' WHERE id IN (10, 70)",
            "UPDATE notes SET id = 800 WHERE id = 80", "UPDATE notes SET id = 90 WHERE id = 800",
            "INSERT INTO notes VALUES (999, 'now here', 'r'), (50, 'again', 'r')",
        ) if next(twice, False) else None  # fmt: skip
        return piece

    selected, first = Copying._selected, iter([True])

    def change_before(self: Copying, *args: Any) -> Any:
        if next(first, False):  # no row of the range; the stream has it, and the copy's snapshot sees it
            shop.run("UPDATE notes SET \"Big\" = 'before' WHERE id = 300")
        return selected(self, *args)

    twice = iter([True])
    monkeypatch.setattr(Copying, "_selected", change_before)
    shop.run("DELETE FROM notes WHERE id IN (60, 90)")
    monkeypatch.setattr(Pieces, "keep_chunk", change)
    requests.ask_copy(shop.log, "shop", "public.notes", "id BETWEEN 1 AND 100 OR id > 997 OR \"Big\" = 'none'")
    shop.catch_up()
    assert shop.log.topic("notes").state == "live"
    theirs = dict(shop.source_rows('SELECT id, md5(v) || "Big" FROM notes'))
    ours = dict(shop.lake('SELECT id, md5(v) || "Big" FROM notes'))
    assert {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)} == {200}  # not in the range
    assert len(shop.changes("notes")) - before < 40
    requests.ask_copy(shop.log, "shop", "public.notes", "id / (id - 200) > 1")
    shop.catch_up()  # what the server cannot evaluate changes nothing
    assert shop.log.topic("notes").state == "live"
    assert shop.lake("SELECT v FROM notes WHERE id = 200") == [("wrong",)]
    requests.ask_copy(shop.log, "shop", "public.notes", "id = 200")
    shop.catch_up()
    shop.assert_equal("notes")
    for condition, says in (
        ("id = 1; DROP TABLE notes", "cannot be read"),
        ("id = 1) ORDER BY (1", "more than a condition"),
        ("id IN (SELECT 1)", "subquery"),
        ("other = 1", "no column"),
        ("id = ", "cannot be read"),
        ("true GROUP BY 1", "cannot be read|more than"),
    ):
        with pytest.raises(UsageError, match=says):
            requests.ask_copy(shop.log, "shop", "public.notes", condition)
