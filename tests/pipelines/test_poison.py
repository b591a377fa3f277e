"""What a value that fails costs: with ``on_error = 'null'`` its own expression, with ``'dead_letter'`` its row.

The view equals the SQL with TRY written out, or the SQL over the rows that do not fail.
"""

from __future__ import annotations

import random
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from headwater.errors import UnsupportedSql
from headwater.lake import Lake
from headwater.log import open_log
from headwater.schema import Schema
from headwater.testing.writer import Writer
from headwater_pipelines import api
from headwater_pipelines.compiler import parse
from headwater_pipelines.runtime import letters as runtime_letters
from headwater_pipelines.runtime import outbox

from .test_lifecycle import run

TEXTS = ["1", "2", "3", "12", "junk", "", None, "1e400", "99999999999999999999", "2026-02-28", "2026-02-30"]
VIEWS = {
    "casts": ("SELECT id, raw::INT AS n FROM t", "SELECT id, TRY_CAST(raw AS INT) AS n FROM t"),
    "filtered": ("SELECT id FROM t WHERE raw::INT > 1", "SELECT id FROM t WHERE TRY_CAST(raw AS INT) > 1"),
    "within": (
        "SELECT id, coalesce(raw::INT, 0) + big * 4 AS n FROM t",
        "SELECT id, TRY(coalesce(TRY_CAST(raw AS INT), 0) + TRY(big * 4)) AS n FROM t",
    ),
    "summed": (
        "SELECT raw::DATE AS day, sum(raw::INT) AS s FROM t GROUP BY raw::DATE",
        "SELECT TRY_CAST(raw AS DATE) AS day, sum(TRY_CAST(raw AS INT)) AS s FROM t GROUP BY ALL",
    ),
    "computed_key": (
        "SELECT strptime(raw, '%Y-%m-%d') AS day, count(*) AS n FROM t GROUP BY strptime(raw, '%Y-%m-%d')",
        "SELECT TRY(strptime(raw, '%Y-%m-%d')) AS day, count(*) AS n FROM t GROUP BY ALL",
    ),
    "joined": (
        "SELECT a.id, b.id AS other FROM t a LEFT JOIN t b ON a.raw::INT = b.id",
        "SELECT a.id, b.id AS other FROM t a LEFT JOIN t b ON TRY_CAST(a.raw AS INT) = b.id",
    ),
    "ranked": (
        "SELECT id, row_number() OVER (PARTITION BY raw::INT ORDER BY id) AS place FROM t",
        "SELECT id, row_number() OVER (PARTITION BY TRY_CAST(raw AS INT) ORDER BY id) AS place FROM t",
    ),
    "listed": (
        "SELECT id, list_transform([raw], lambda x: x::INT) AS l FROM t",
        "SELECT id, TRY(list_transform([raw], lambda x: x::INT)) AS l FROM t",
    ),
    "found": (
        "SELECT id FROM t WHERE raw::INT IN (SELECT id FROM t WHERE big * 2 > 0)",
        "SELECT id FROM t WHERE TRY_CAST(raw AS INT) IN (SELECT id FROM t WHERE TRY(big * 2) > 0)",
    ),
}


@pytest.mark.long
def test_every_expression_that_fails_is_null(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with open_log(tmp_path / "lake", create=True) as log, Lake(log) as lake:
        writer = Writer(log)
        writer.create("s.public.t", "table", Schema.of(id="BIGINT", raw="VARCHAR", big="BIGINT", key=["id"]))
        for name, (sql, _) in VIEWS.items():
            api.create_view(log, f"CREATE MATERIALIZED VIEW {name} WITH (on_error = 'null') AS {sql}")
        failed = 0
        for _ in range(2):
            ids = rng.sample(range(20), 12)
            texts = [rng.choice(TEXTS) for _ in ids]
            failed += sum(text not in ("1", "2", "3", "12", None) for text in texts)
            bigs = [rng.choice([1, 2, 2**62]) for _ in ids]
            ops = [rng.choice("uuud") for _ in ids]
            writer.write("s.public.t", pa.table({"id": ids, "raw": texts, "big": bigs, "_op": ops}))
            run(log)
            assert {view.name: view.state for view in log.views()} == dict.fromkeys(VIEWS, "live")
            for name, (_, hand) in VIEWS.items():
                for one, other in ((f"FROM {name}", hand), (hand, f"FROM {name}")):
                    assert lake.sql(f"({one}) EXCEPT ALL ({other})").rows == 0, name
        assert failed


def test_explain_says_what_is_kept_and_columns_keep_their_names(tmp_path: Path) -> None:
    with open_log(tmp_path / "lake", create=True) as log:
        Writer(log).create("s.public.t", "table", Schema.of(id="BIGINT", raw="VARCHAR", key=["id"]))
        sql = "SELECT id + 1, raw::INT, upper('x'), id FROM t"
        plain = api.explain(log, f"CREATE MATERIALIZED VIEW v AS {sql}")
        tried = api.explain(log, f"CREATE MATERIALIZED VIEW v WITH (on_error = 'null') AS {sql}")
        assert tried.columns == plain.columns
        assert "what fails over a row's values is NULL: SELECT TRY((id + 1))" in str(tried)
        assert "TRY_CAST(raw AS INTEGER)" in tried.tried
        assert not plain.tried


def test_other_values_are_refused() -> None:
    with pytest.raises(UnsupportedSql, match="'fail' or 'null' or 'dead_letter'"):
        parse("CREATE MATERIALIZED VIEW v WITH (on_error = 'skip') AS SELECT 1 AS a")


def test_an_answer_says_that_a_view_is_not_kept_up_to_date(tmp_path: Path) -> None:
    with open_log(tmp_path / "lake", create=True) as log, Lake(log) as lake:
        writer = Writer(log)
        writer.create("s.public.t", "table", Schema.of(id="BIGINT", raw="VARCHAR", key=["id"]))
        view = lake.create_view("v", "SELECT id, raw::INT AS n FROM t")
        for number, text in enumerate(("1", "many")):
            writer.write("s.public.t", pa.table({"id": [number], "raw": [text], "_op": ["c"]}))
            run(log)
            assert lake.sql("FROM t").notices == ()
            (*said,) = lake.sql("FROM v").notices
            assert said == ([] if text == "1" else [f"view v is paused ({view.reason}): these are its last rows"])
        assert lake.sql("FROM v").fetchall() == [(0, 1)]
        assert lake.sql("FROM v", at=lake.position()).notices == (), "the past is what it is"
        assert str(view.reason) in repr(view), "however long it is"


FAILING = {
    "plain": ("SELECT id, raw::INT AS n FROM t", "SELECT id, raw::INT AS n FROM good"),
    "chosen": ("SELECT id FROM t WHERE big = 1 AND raw::INT > 1", "SELECT id FROM good WHERE big = 1 AND raw::INT > 1"),
    "guarded": (
        "SELECT id, CASE WHEN regexp_full_match(raw, '[0-9]{1,3}') THEN raw::INT END AS n FROM t",
        "SELECT id, CASE WHEN regexp_full_match(raw, '[0-9]{1,3}') THEN raw::INT END AS n FROM t",
    ),
    "summed": (
        "SELECT raw::INT AS k, sum(raw::INT) AS s FROM t GROUP BY raw::INT",
        "SELECT raw::INT AS k, sum(raw::INT) AS s FROM good GROUP BY raw::INT",
    ),
    "joined": (
        "SELECT a.id, b.id AS other FROM t a LEFT JOIN t b ON a.id = b.raw::INT",
        "SELECT a.id, b.id AS other FROM t a LEFT JOIN (SELECT id, raw::INT AS n FROM good) b ON a.id = b.n",
    ),
    "ranked": (
        "SELECT id, row_number() OVER (PARTITION BY big ORDER BY raw::INT, id) AS place FROM t",
        "SELECT id, row_number() OVER (PARTITION BY big ORDER BY raw::INT, id) AS place FROM good",
    ),
    "found": (
        "WITH n AS (SELECT id, raw::INT AS n FROM t) SELECT id FROM t WHERE id IN (SELECT n FROM n)",
        "SELECT id FROM t WHERE id IN (SELECT raw::INT FROM good)",
    ),
}
LETTERS = "WITH (on_error = 'dead_letter')"
GOOD = "CREATE VIEW good AS SELECT * FROM t WHERE raw IS NULL OR TRY_CAST(raw AS INT) IS NOT NULL"


def equal_over_good_rows(lake: Lake, names: list[str]) -> None:
    with duckdb.connect(config={"threads": 1}) as oracle:
        oracle.register("arrived", lake.sql("FROM t").arrow())
        oracle.execute("CREATE TABLE t AS FROM arrived")
        oracle.execute(GOOD)
        for name in names:
            oracle.register("found", lake.sql(f"FROM {name}").arrow())
            hand = FAILING[name][1]
            for one, other in (("FROM found", hand), (hand, "FROM found")):
                assert not oracle.execute(f"({one}) EXCEPT ALL ({other})").fetchall(), name
            oracle.unregister("found")


def letters(lake: Lake, name: str) -> list[tuple[str, str, str]]:
    found = lake.dlq.letters(f"views.{name}").to_pylist()
    return sorted((each["topic"], each["error_field"], each["original"].decode()) for each in found)


def test_rows_that_fail_are_kept_as_dead_letters(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SPILL_ROWS", 3)  # what is spilled leaves the letters behind
    rng = random.Random(seed)
    with open_log(tmp_path / "lake", create=True) as log, Lake(log) as lake:
        writer = Writer(log)
        writer.create("s.public.t", "table", Schema.of(id="BIGINT", raw="VARCHAR", big="BIGINT", key=["id"]))
        seen: set[str] = set()
        for number in range(2):
            ids = rng.sample(range(20), 12)
            texts = ["junk", "2", *(rng.choice(TEXTS) for _ in ids[2:])]
            rows = {"id": ids, "raw": texts, "big": [1, 2, *(rng.choice([1, 2]) for _ in ids[2:])]}
            writer.write("s.public.t", pa.table({**rows, "_op": ["u"] * 12}))
            bad = [f'{{"id":{i},"raw":"{x}"}}' for i, x in zip(ids, texts, strict=True) if x in TEXTS[4:6] + TEXTS[7:]]
            seen.update(bad)
            if number == 0:
                for name, (sql, _) in FAILING.items():
                    api.create_view(log, f"CREATE MATERIALIZED VIEW {name} {LETTERS} AS {sql}")
            run(log)
            assert {view.name: view.state for view in log.views()} == dict.fromkeys(FAILING, "live")
            equal_over_good_rows(lake, list(FAILING))
        found = letters(lake, "plain")
        assert {original for _, _, original in found} == seen
        assert {(topic, field) for topic, field, _ in found} == {("s.public.t", "CAST(raw AS INTEGER)")}
        assert {field for _, field, _ in letters(lake, "chosen")} == {"(CAST(raw AS INTEGER) > 1)"}
        assert 0 < len(letters(lake, "chosen")) < len(found), "rows that WHERE leaves out are not tried"
        assert "views.guarded.dlq" not in {topic.name for topic in log.topics()}
        before = {name: letters(lake, name) for name in ("plain", "found", "joined")}
        writer.write(
            "s.public.t", pa.table({"id": list(range(20)), "raw": ["7"] * 20, "big": [1] * 20, "_op": ["u"] * 20})
        )
        api.replace_view(
            log, f"CREATE MATERIALIZED VIEW plain WITH (on_error = 'dead_letter') AS {FAILING['plain'][0]}"
        )
        run(log)
        equal_over_good_rows(lake, list(FAILING))
        assert {name: letters(lake, name) for name in before} == before, "mended rows are in the view, letters stay"


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("SELECT id FROM s.public.t", "nothing here that can fail"),
        ("SELECT x::INT AS n FROM (SELECT raw AS x FROM t)", "not a column of one table"),
        ("SELECT (a.raw || b.raw)::INT AS n FROM t a JOIN t b USING (id)", "not a column of one table"),
    ],
)
def test_what_cannot_be_kept_as_a_dead_letter_is_refused(tmp_path: Path, sql: str, text: str) -> None:
    with open_log(tmp_path / "lake", create=True) as log:
        Writer(log).create("s.public.t", "table", Schema.of(id="BIGINT", raw="VARCHAR", key=["id"]))
        with pytest.raises(UnsupportedSql, match=text) as caught:
            api.explain(log, f"CREATE MATERIALIZED VIEW v {LETTERS} AS {sql}")
        assert caught.value.code == "DEAD_LETTER"
        plan = api.explain(log, f"CREATE MATERIALIZED VIEW v {LETTERS} AS SELECT raw::INT AS n FROM t")
        assert (
            "rows of s.public.t for which this fails are kept in views.v.dlq: SELECT TRY_CAST(raw AS INTEGER)"
            in str(plan)
        )


def test_too_many_rows_that_fail_pause_the_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_letters, "LETTERS_MAX", 5)
    with open_log(tmp_path / "lake", create=True) as log:
        writer = Writer(log)
        writer.create("s.public.t", "table", Schema.of(id="BIGINT", raw="VARCHAR", key=["id"]))
        api.create_view(log, f"CREATE MATERIALIZED VIEW v {LETTERS} AS SELECT raw::INT AS n FROM t")
        writer.write("s.public.t", pa.table({"id": list(range(9)), "raw": ["x"] * 9, "_op": ["c"] * 9}))
        run(log)
        (view,) = log.views()
        assert view.state == "paused"
        assert "more than 5 rows of s.public.t fail at once" in str(view.reason)
