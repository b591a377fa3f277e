"""What a job is called with: every type, kinds of topics, hot and sealed; large commits in parts, once and again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import headwater as hw
from headwater import duck, types
from headwater.config import Settings
from headwater.lake import Lake
from headwater.log import Log, jobs, open_log, retention
from headwater.log.seal import seal
from headwater.log.system import transaction
from headwater.ownership import own
from headwater.schema import Schema
from headwater_pipelines.jobs import replay
from headwater_pipelines.jobs.room import Room
from headwater_pipelines.jobs.runner import Done, Runner
from headwater_pipelines.jobs.state import KeyedState

ALL = """
SELECT 7::BIGINT AS id, true AS a, 1::TINYINT AS b, 2::SMALLINT AS c, 3::INTEGER AS d, 5::UTINYINT AS e,
  6::USMALLINT AS f, 7::UINTEGER AS g, 8::UBIGINT AS h, -170141183460469231731687303715884105727 // 10 AS i,
  1.5::FLOAT AS j, 'nan'::DOUBLE AS k, 12.34::DECIMAL(12,2) AS l, 'ü' AS m, '{"x": 1}'::JSON AS n, '\\xff'::BLOB AS o,
  'c0ffee00-0000-4000-8000-00000000beef'::UUID AS p, DATE 'infinity' AS q, TIME '23:59:59.999999' AS r,
  TIMETZ '12:00:00+02' AS s, TIMESTAMP '290308-12-21 (BC) 00:00:00' AS t, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS u,
  INTERVAL '1 month 2 days 3 seconds' AS v, [1, NULL, 3]::BIGINT[] AS w, {'a': 1, 'b': ['x']} AS x
UNION ALL BY NAME SELECT 8::BIGINT AS id
"""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with open_log(tmp_path / "lake", create=True) as made:
        yield made


def write(log: Log, name: str, kind: Any, schema: Schema, table: pa.Table, partitions: int = 1) -> int:
    with transaction(log, "system:test") as tx:
        tx.create_topic(name, kind, schema, partitions=partitions, if_absent=True)
        tx.append(name, table)
        return tx.commit().number


def numbers(first: int, count: int, op: str = "c") -> pa.Table:
    return pa.table({"id": pa.array(range(first, first + count), pa.int64()), "_op": [op] * count})


def run(log: Log, job: hw.Job) -> list[Done]:
    """Steps until there is nothing more."""
    done: list[Done] = []
    with own(log, jobs.PREFIX + job.name) as owner:
        runner = Runner(log, job, owner.epoch, Settings())
        while (step := runner.step(log.newest_commit())) is not None or runner.after != log.newest_commit():
            done += [step] if step else []
        runner.close()
    return done


def same(log: Log, one: str, other: str) -> None:
    lake = Lake(log)
    assert lake.sql(f"SELECT count(*) FROM {one}").scalar() > 0
    for left, right in ((one, other), (other, one)):
        assert lake.sql(f"SELECT * FROM {left} EXCEPT ALL SELECT * FROM {right}").arrow().num_rows == 0


def write_every_type(log: Log, kind: str) -> Schema:
    """Two rows of the topic x.public.all."""
    with duck.connect(for_files=True) as own_:
        found = own_.sql(f"DESCRIBE {ALL}").fetchall()
        schema = Schema.of({name: types.canonical(text) for name, text, *_ in found}, key=["id"])
        lowered = ", ".join(f"{types.lower_sql(f.name, f.type)} AS {f.name}" for f in schema.fields)
        rows = own_.sql(f"SELECT {lowered} FROM ({ALL})").to_arrow_table()
    assert {f.type.partition("(")[0] for f in schema.fields} >= set(types._ARROW) - {"STRUCT"}
    if kind == "table":
        rows = rows.append_column("_op", pa.array(["c"] * rows.num_rows))
    target = pa.schema([*schema.arrow(), *list(rows.schema)[len(schema.names) :]])
    write(log, "x.public.all", kind, schema, rows.cast(target))
    return schema


@pytest.mark.parametrize("start", ["rows", "beginning"])
@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("kind", ["table", "event"])
def test_every_type_passes(log: Log, start: Any, sealed: bool, kind: str) -> None:
    schema = write_every_type(log, kind)
    if sealed:
        seal(log, Settings())
    columns = {f.name: f.type for f in schema.fields}
    key = "id" if kind == "table" else ()

    @hw.job(inputs="all", output="copied", key=key, columns=columns, state=columns, state_key="id", start=start)
    def copy(given: pl.DataFrame, context: hw.JobContext) -> pl.DataFrame:
        context.state.put(given.select(list(columns)))
        return given.select("id").join(context.state.get(given), on="id")

    run(log, copy)
    same(log, "x.public.all", "copied")
    assert replay.replay(log, copy, Settings(), 0, log.newest_commit()).differences == ()


@pytest.mark.parametrize("sealed", [False, True])
def test_a_large_commit_comes_in_parts_and_is_published_at_once(log: Log, sealed: bool) -> None:
    schema = Schema.of(id="BIGINT", key=["id"])
    write(log, "x.public.many", "table", schema, numbers(0, 5))
    large = write(log, "x.public.many", "table", schema, numbers(5, 250))
    write(log, "x.public.many", "table", schema, numbers(255, 7))
    calls: list[tuple[int, int, int]] = []

    @hw.job(
        inputs="many",
        output="copied",
        key="id",
        start="beginning",
        batch_rows=50,
        state={"id": "BIGINT", "n": "BIGINT"},
        state_key="id",
    )
    def copy(many: pl.DataFrame, context: hw.JobContext) -> pl.DataFrame:
        calls.append((context.commit, context.part, many.height))
        last = many.select(id=pl.col("id") - 1)
        before = context.state.get(last).height  # of what an earlier part has put, the last one
        context.state.put(many.select("id", n=pl.lit(before)))
        return many.select("id")

    if sealed:
        seal(log, Settings())
    done = run(log, copy)
    assert sum(height for _, _, height in calls) == 262
    if not sealed:  # how many rows of a segment a commit has is known when it is read
        assert [(part, height) for commit, part, height in calls if commit == large] == [(n, 50) for n in range(5)]
    assert [step.rows_out for step in done] == [step.rows for step in done]
    same(log, "x.public.many", "copied")
    first = list(calls)
    calls.clear()
    seal(log, Settings())
    again = replay.replay(log, copy, Settings(), 0, log.newest_commit())
    assert (again.differences, calls) == ((), first)


def test_a_part_that_fails_leaves_nothing_of_the_others(log: Log) -> None:
    schema = Schema.of(id="BIGINT", key=["id"])
    write(log, "x.public.many", "table", schema, numbers(0, 100))
    broken = [True]

    @hw.job(
        inputs="many",
        output="copied",
        key="id",
        columns={"id": "BIGINT"},
        batch_rows=10,
        state={"id": "BIGINT", "n": "BIGINT"},
        state_key="id",
    )
    def copy(many: pl.DataFrame, context: hw.JobContext) -> pl.DataFrame:
        assert not context.state.get(many).height
        context.state.put(many.select("id", n=pl.lit(1, pl.Int64)))
        if broken[0] and context.part == 5:
            raise ValueError("broken")
        return many.select("id")

    before = log.newest_commit()
    with pytest.raises(hw.HeadwaterError, match="ValueError: broken"):
        run(log, copy)
    assert (log.newest_commit(), jobs.position(log, "copy")) == (before, None)
    broken[0] = False
    run(log, copy)
    same(log, "x.public.many", "copied")


def test_partitions_hot_and_sealed_are_read_on_once(log: Log, seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    schema = Schema.of(id="BIGINT", n="BIGINT", key=["id"])
    seen: list[tuple[int, int]] = []

    @hw.job(
        inputs=["spread"], output="seen", columns={"n": "BIGINT"}, start="beginning", batch_rows=rng.choice([5, 30])
    )
    def look(spread: pl.DataFrame) -> pl.DataFrame:
        seen.extend(spread.select("_commit", "n").iter_rows())
        return spread.select("n")

    written = 0
    with own(log, "job:look") as owner:
        runner = Runner(log, look, owner.epoch, Settings())
        for _ in range(8):
            for _ in range(rng.randrange(1, 6)):
                count = rng.choice([1, 3, 20, 80])
                ids = pa.array([rng.randrange(40) for _ in range(count)], pa.int64())
                table = pa.table({"id": ids, "n": pa.array(range(written, written + count), pa.int64())})
                write(log, "x.events.spread", "event", schema, table, partitions=3)
                written += count
            if rng.random() < 0.4:
                seal(log, Settings())
            if rng.random() < 0.2:
                runner.close()
                runner = Runner(log, look, owner.epoch, Settings())
            while runner.step(log.newest_commit()) is not None or runner.after != log.newest_commit():
                if rng.random() < 0.1:
                    seal(log, Settings())
        runner.close()
    assert sorted(n for _, n in seen) == list(range(written))
    assert replay.replay(log, look, Settings(), 0, log.newest_commit()).differences == ()


@pytest.mark.parametrize("rows", [2, 100])
@pytest.mark.parametrize("sealed", [False, True])
def test_values_that_the_source_did_not_send_are_there(log: Log, rows: int, sealed: bool) -> None:
    """From the row before, from the same range, from under an old key, and from an earlier part of a large commit."""
    schema = Schema.of(id="BIGINT", n="BIGINT", long="VARCHAR", note="VARCHAR", key=["id"])
    kept: list[list[dict[str, Any]]] = [
        [{"id": i, "n": 0, "long": f"long {i}", "note": None, "_op": "c"} for i in range(6)],
        [
            {"id": 0, "n": 1, "_op": "u", "_unchanged": ["long"]},
            {"id": 0, "n": 2, "note": "x", "_op": "u", "_unchanged": ["long"]},
            {"id": 0, "n": 3, "_op": "u", "_unchanged": ["long", "note"]},
            {"id": 1, "n": 1, "long": "other", "note": "y", "_op": "u"},
            {"id": 1, "n": 2, "note": None, "_op": "u", "_unchanged": ["long"]},
            {"id": 2, "_op": "d", "_lsn": 5, "_seq": 1},
            {"id": 9, "n": 4, "_op": "c", "_unchanged": ["long"], "_lsn": 5, "_seq": 1},
            {"id": 9, "n": 5, "_op": "u", "_unchanged": ["long"]},
            {"id": 3, "_op": "d"},
        ],
        [{"id": 9, "n": 6, "_op": "u", "_unchanged": ["long"]}, {"id": 4, "n": 7, "long": None, "_op": "u"}],
        [{"id": 4, "n": 8, "_op": "u", "_unchanged": ["long"]}],
    ]
    meta = {"_op": pa.string(), "_unchanged": pa.list_(pa.string()), "_lsn": pa.int64(), "_seq": pa.int64()}
    shape = pa.schema([*schema.arrow(), *meta.items()])
    seen: list[tuple[Any, ...]] = []

    @hw.job(inputs="lazy", output="copied", key="id", start="beginning", batch_rows=rows)
    def copy(lazy: pl.DataFrame) -> pl.DataFrame:
        seen.extend(lazy.select("id", "n", "long", "note", "_op").iter_rows())
        return lazy

    for changes in kept:
        write(log, "x.public.lazy", "table", schema, pa.Table.from_pylist(changes, shape))
        if not sealed:
            run(log, copy)
    if sealed:
        seal(log, Settings())
        run(log, copy)
    same(log, "x.public.lazy", "copied")
    assert seen[6:] == [
        (0, 1, "long 0", None, "u"),
        (0, 2, "long 0", "x", "u"),
        (0, 3, "long 0", "x", "u"),
        (1, 1, "other", "y", "u"),
        (1, 2, "other", None, "u"),
        (2, None, None, None, "d"),
        (9, 4, "long 2", None, "c"),
        (9, 5, "long 2", None, "u"),
        (3, None, None, None, "d"),
        (9, 6, "long 2", None, "u"),
        (4, 7, None, None, "u"),
        (4, 8, None, None, "u"),
    ]


def test_weights_of_a_bag_become_upserts(log: Log) -> None:
    schema = Schema.of(id="BIGINT", total="BIGINT")
    with transaction(log, "system:test") as tx:
        tx.create_topic("views.totals", "changelog", schema)
        tx.append("views.totals", pa.table({"id": [1, 2], "total": [10, 20], "_weight": [1, 1]}))
        tx.commit()

    @hw.job(inputs="totals", output="latest", key="id", columns={"id": "BIGINT", "total": "BIGINT"})
    def latest(totals: pl.DataFrame) -> pl.DataFrame:
        return totals

    run(log, latest)
    with transaction(log, "system:test") as tx:
        tx.append("views.totals", pa.table({"id": [1, 1, 2], "total": [11, 10, 20], "_weight": [1, -1, -1]}))
        tx.commit()
    run(log, latest)
    assert Lake(log).sql("FROM latest").arrow().to_pylist() == [{"id": 1, "total": 11}]


def test_retention_keeps_what_a_job_has_not_taken_in(log: Log) -> None:
    schema = Schema.of(id="BIGINT", key=["id"])
    write(log, "x.public.many", "table", schema, numbers(0, 5))

    @hw.job(inputs="many", output="copied", key="id", columns={"id": "BIGINT"})
    def copy(many: pl.DataFrame) -> pl.DataFrame:
        return many.select("id")

    run(log, copy)
    record = jobs.JobRecord(name="copy", inputs=("x.public.many",), output="jobs.copied")
    place = jobs.position(log, "copy")
    assert place is not None
    settings = Settings(time_travel_s=0.001)
    write(log, "x.public.many", "table", schema, numbers(5, 5))
    write(log, "x.public.many", "table", schema, numbers(10, 5))
    assert retention.readable(log, settings).floor > place
    jobs.register(log, record)
    assert retention.readable(log, settings).floor == place
    assert jobs.reached(log, place)
    assert not jobs.reached(log, log.newest_commit())


def test_state_beyond_the_memory_limit_is_spilled(tmp_path: Path) -> None:
    schema = Schema.of(id="BIGINT", text="VARCHAR", key=["id"])
    room = Room(folder=tmp_path / "not" / "there", memory_limit="20MiB")
    state = KeyedState(schema, "state of a test", "UTC", room)
    ids = pl.select(id=pl.int_range(200_000))
    rows = ids.with_columns(text=pl.concat_str(pl.lit("the text of number " * 6), "id"))
    sent: list[int] = []
    for part in rows.iter_slices(20_000):
        state.begin(lambda table: sent.append(table.num_rows))
        state.put(part)
        state.commit()
    assert any((tmp_path / "not").rglob("*.tmp")), "it fits"
    assert (len(state), sum(sent)) == (200_000, 200_000)
    some = ids.sample(500, seed=1)
    assert state.get(some).sort("id").equals(rows.join(some, on="id", how="semi").sort("id"))
    state.begin(lambda table: sent.append(table.num_rows))
    state.delete(some["id"])
    state.rollback()
    assert len(state) == 200_000
    state.close()
