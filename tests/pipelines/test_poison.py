"""``on_error = 'null'``: a value that fails costs its own expression; the view equals the SQL with TRY written out."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from headwater.errors import UnsupportedSql
from headwater.lake import Lake
from headwater.log import open_log
from headwater.schema import Schema
from headwater.testing.writer import Writer
from headwater_pipelines import api
from headwater_pipelines.compiler import parse

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
    with pytest.raises(UnsupportedSql, match="'fail' or 'null'"):
        parse("CREATE MATERIALIZED VIEW v WITH (on_error = 'skip') AS SELECT 1 AS a")
