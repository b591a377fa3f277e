"""Stored relations: what was appended, taken back, frozen, merged and looked up is what a plain table would hold."""

from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

from headwater.errors import StateMismatch
from headwater_pipelines.runtime.merging import Merging
from headwater_pipelines.runtime.relation import SPARSE_ROWS, Relation
from headwater_pipelines.runtime.runs import GUESSED_ROWS, SLICES, Stopped, files_of, lower
from headwater_pipelines.runtime.state import FILE, State

COLUMNS = [("k", "BIGINT"), ("s", "VARCHAR"), ("x", "DECIMAL(12,2)"), ("f", "DOUBLE")]
TYPES = {
    "BOOLEAN": "true",
    "TINYINT": "-128",
    "UBIGINT": "18446744073709551615",
    "HUGEINT": "-170141183460469231731687303715884105728",
    "UHUGEINT": "340282366920938463463374607431768211455",
    "FLOAT": "'-0.0'",
    "DOUBLE": "'nan'",
    "DECIMAL(38,10)": "'-9999999999999999999999999999.0000000001'",
    "VARCHAR": "'a\u00e9\U0001f600'",
    "BLOB": "'\\x00\\xFF'",
    "BIT": "'0101'",
    "UUID": "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "DATE": "'infinity'",
    "TIME": "'24:00:00'",
    "TIMETZ": "'12:00:00+05:30'",
    "TIMESTAMP": "'-infinity'",
    "TIMESTAMPTZ": "'0044-03-15 (BC) 12:00:00+00'",
    "TIMESTAMP_NS": "'2026-01-01 00:00:00.123456789'",
    "INTERVAL": "INTERVAL '1 month 31 days 1 microsecond'",
    "JSON": "'{\"a\": [1, null]}'",
    "INTEGER[]": "[1, NULL]",
    "VARCHAR[][]": "[['a'], NULL]",
    "INTEGER[2]": "[1, 2]",
    "STRUCT(a INTEGER, b VARCHAR)": "{'a': 1, 'b': NULL}",
    "ENUM('x', 'y')": "'y'",
    "MAP(VARCHAR, INTEGER)": "MAP {'a': 1}",
    "TIMESTAMP_S": "'2026-01-01 00:00:01'",
    "TIMESTAMP_MS": "'2026-01-01 00:00:00.001'",
}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path / FILE, timezone="UTC", threads=2, open_rows_max=100)
    yield made
    made.close()


def filled(state: State, rng: random.Random, rounds: int) -> Relation:
    """A relation with random rows, some of them taken back, in runs and an open part; the table ``plain`` beside it."""
    relation = state.create("t1", COLUMNS, ('"k"',))
    state.connection.execute("CREATE TEMP TABLE plain AS FROM t1")
    for number in range(rounds):
        new = (
            "SELECT CASE WHEN i % 9 > 0 THEN (hash(i) % 50)::BIGINT END, chr(97 + (hash(i, 1) % 3)::INTEGER),"
            f" i % 7, i / 4.0, 1::BIGINT FROM range({number * 150}, {number * 150 + rng.randrange(90, 150)}) r(i)"
        )
        back = "SELECT * REPLACE (-_w AS _w) FROM (SELECT k, s, x, f, sum(_w)::BIGINT AS _w FROM plain"
        back += f" GROUP BY ALL HAVING sum(_w) > 0) WHERE hash(f, {number}) % 4 = 0"
        state.begin()
        for select in (new, back):
            state.connection.execute(f"CREATE OR REPLACE TEMP TABLE added AS {select}")
            relation.append("FROM added")
            state.connection.execute("INSERT INTO plain FROM added")
        relation.settle()
        state.commit()
    return relation


def net(state: State, source: str) -> list[tuple[object, ...]]:
    query = f"SELECT k, s, x, f, sum(_w) FROM {source} GROUP BY ALL HAVING sum(_w) <> 0 ORDER BY ALL"
    return state.connection.execute(query).fetchall()


def test_look_ups_find_all_rows_of_their_keys(state: State, seed: int) -> None:
    rng = random.Random(seed)
    relation = filled(state, rng, 12)
    assert len(relation.runs) > 3
    assert net(state, "t1") == net(state, "plain") == net(state, f"({relation.current_sql()})")
    assert net(state, f"({relation.net_sql()})") == net(state, "plain")
    assert state.row(f"SELECT count(*) FROM ({relation.net_sql()}) WHERE _w <= 0") == (0,)
    for index, keys in ((('"k"',), "VALUES (7), (9), (NULL), (99)"), (('"s"', '"k"'), "VALUES ('a', 3), ('c', NULL)")):
        columns = ", ".join(name.strip('"') for name in index)
        state.connection.execute(f"CREATE OR REPLACE TEMP TABLE keys AS FROM ({keys}) v({columns})")
        assert relation.find(index, "FROM keys", "found")
        same = " AND ".join(f"p.{name} IS NOT DISTINCT FROM keys.{name}" for name in index)
        wanted = net(state, f"(SELECT p.* FROM plain p SEMI JOIN keys ON {same})")
        assert wanted
        assert net(state, "found") == wanted
    assert not relation.find(('"k"',), "SELECT i FROM range(1000000) r(i)", "found"), "too many: read the whole"


def test_runs_are_merged_beside_the_steps(state: State, tmp_path: Path, seed: int) -> None:
    relation = filled(state, random.Random(seed), 12)
    relation.prepare(('"s"',))
    merging, before = Merging(), len(relation.runs)
    wanted = net(state, "plain")
    merging.tend(state)
    while merging.is_running:
        merging.wait(0.1)
        assert net(state, "t1") == wanted
    assert len(relation.runs) == before, "only the worker makes it live"
    parts = [weakref.ref(run) for run in relation.runs]
    merging.tend(state)
    assert len(relation.runs) < before
    assert sum(part() is not None for part in parts) < before, "what was merged is mapped no more: the disk is free"
    assert net(state, "t1") == wanted
    assert {int(file.name.split(".")[0].split("-")[0]) for file in (tmp_path / "runs").iterdir()} == {
        run.number for run in relation.runs
    }


def test_full_open_parts_become_runs_beside_the_steps(state: State, tmp_path: Path, seed: int) -> None:
    state.freezes_beside = True
    relation = filled(state, random.Random(seed), 1)
    assert (relation.runs, relation.open_rows) == ([], 0)
    assert relation.aside_rows > state.open_rows_max
    wanted, merging = net(state, "plain"), Merging()
    merging.tend(state)
    while merging.is_running:
        assert net(state, "t1") == wanted == net(state, f"({relation.net_sql()})")
        state.checkpoint()
        merging.wait(0.01)
    assert relation.find(('"k"',), "SELECT 7::BIGINT", "found")
    assert net(state, "found") == net(state, "(FROM plain WHERE k = 7)")
    assert (relation.runs, relation.aside_rows > 0) == ([], True), "only the worker makes it live"
    state.begin()
    relation.append("SELECT i, 'a', 1, 1, 1 FROM range(1000, 1150) r(i)")
    relation.settle()
    state.commit()
    assert [run.rows for run in relation.runs] == [150], "one part at a time is set aside"
    merging.tend(state)
    assert (relation.open_rows, relation.aside_rows, len(relation.runs)) == (0, 0, 2)
    assert net(state, "(FROM t1 WHERE k < 1000 OR k IS NULL)") == wanted
    assert relation.rows == (state.row("SELECT count(*) FROM t1") or ())[0]
    assert {int(file.stem) for file in (tmp_path / "runs").iterdir()} == {run.number for run in relation.runs}


def test_a_part_that_is_set_aside_stays_until_a_run_of_it_is_live(state: State, tmp_path: Path, seed: int) -> None:
    state.freezes_beside = True
    filled(state, random.Random(seed), 1)
    wanted, merging = net(state, "plain"), Merging()
    merging.tend(state)
    merging.wait(10)
    state.begin()
    state.relations["t1"].append("SELECT i, 'x', 1, 1, 1 FROM range(500) r(i)")
    state.relations["t1"].settle()
    state.rollback()
    merging.tend(state)
    assert not list((tmp_path / "runs").iterdir()), "the relation is not the one that it was made of"
    merging.tend(state)
    merging.wait(10)
    state.close()
    again = State(tmp_path / FILE, timezone="UTC", open_rows_max=100)
    assert not list((tmp_path / "runs").iterdir()), "nor is it that of another process"
    assert net(again, "t1") == wanted
    assert again.relations["t1"].aside_rows
    again.begin()
    again.drop("t1")
    again.commit()
    assert again.tables() == {"relations", "runs", "written_by"}
    again.close()


def test_what_cannot_be_frozen_beside_the_steps_is_said_as_it_is_settled(state: State, seed: int) -> None:
    state.freezes_beside = True
    relation, merging = filled(state, random.Random(seed), 1), Merging()
    relation.dead = "error('as planned')"
    merging.tend(state)
    merging.wait(10)
    merging.tend(state)
    with pytest.raises(duckdb.InvalidInputException, match="as planned"):
        relation.settle()
    merging.tend(state)
    assert not merging.is_running, "it is not tried again"


def test_runs_whose_rows_cancel_out_are_merged_into_none(state: State) -> None:
    relation = state.create("t1", COLUMNS, ('"k"',))
    for weight in (1, -1):
        state.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE added AS SELECT i, 'x', 1, 1, {weight} FROM range(150) r(i)"
        )
        relation.append("FROM added")
        relation.settle()
    relation.prepare(('"s"',))
    parts = list(relation.runs)
    assert len(parts) == 2
    relation.replace(parts, relation.merge(parts))
    assert net(state, "t1") == []
    hashes = relation.hashes("SELECT 1::BIGINT")
    for run in relation.runs:
        assert run.spans(('"k"',), hashes, state.connection).rows == 0
        assert run.spans(('"s"',), hashes, state.connection).rows == 0
    assert relation.rows == 0


def test_what_was_not_made_live_is_removed_at_the_next_start(state: State, tmp_path: Path, seed: int) -> None:
    relation = filled(state, random.Random(seed), 8)
    wanted = net(state, "plain")
    live = {run.path.name for run in relation.runs}
    state.begin()
    relation.append("SELECT i, 'x', 1, 1, 1 FROM range(500) r(i)")
    relation.settle()
    state.rollback()
    assert {file.name for file in (tmp_path / "runs").glob("*.arrow")} == live, "a rollback leaves no file"
    relation.merge(relation.runs[:2])
    assert {file.name for file in (tmp_path / "runs").glob("*.arrow")} > live
    assert net(state, "t1") == wanted
    kept = state.relations["t1"]
    assert {run.path.name for run in kept.runs} == live
    assert kept.rows == (state.row("SELECT count(*) FROM t1") or ())[0]
    state.close()
    again = State(tmp_path / FILE, timezone="UTC", open_rows_max=100)
    assert net(again, "t1") == wanted
    assert {file.name for file in (tmp_path / "runs").glob("*.arrow")} == live
    again.close()


def test_guessed_places_are_those_of_a_binary_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    most = 2**64 - 1
    spread = rng.integers(0, most, GUESSED_ROWS, np.uint64, endpoint=True)
    clustered = np.concatenate([spread[: GUESSED_ROWS // 2], rng.choice(spread[:9], GUESSED_ROWS // 2)])
    narrow = rng.integers(most - 10**6, most, GUESSED_ROWS, np.uint64, endpoint=True)
    for held in (spread, clustered, narrow, np.zeros(GUESSED_ROWS, np.uint64)):
        held.sort()
        wanted = np.concatenate([rng.choice(held, 500), rng.integers(0, most, 500, np.uint64), held[:9], held[-9:]])
        wanted = np.unique(np.append(wanted, np.array([0, 1, most - 1, most], np.uint64)))
        assert (lower(held, wanted) == np.searchsorted(held, wanted, "left")).all()


def test_a_state_of_another_duckdb_is_not_trusted(state: State, tmp_path: Path) -> None:
    state.write("UPDATE written_by SET version = '1.0.0'")
    state.close()
    with pytest.raises(StateMismatch, match=r"written by DuckDB 1\.0\.0"):
        State(tmp_path / FILE, timezone="UTC")


@pytest.mark.parametrize("beside", [False, True])
def test_every_type_comes_back_from_a_run(state: State, *, beside: bool) -> None:
    columns = [(f"c{place}", text) for place, text in enumerate(TYPES)]
    relation = state.create("t2", columns, ('"c1"',))
    values = ", ".join(f"CAST({value} AS {text}) AS c{place}" for place, (text, value) in enumerate(TYPES.items()))
    nulls = ", ".join("NULL" for _ in TYPES)
    select = f"SELECT {values}, 1::BIGINT AS _w FROM range(200) UNION ALL SELECT {nulls}, 1 FROM range(9)"
    if beside:
        state.freezes_beside = True
        relation.append(select)
        relation.settle()
        relation.frozen(relation.freeze())
    else:
        relation.fill(select)
    assert (len(relation.runs), relation.open_rows) == (1, 0)
    names = ", ".join(name for name, _ in columns)
    assert [row[1] for row in state.connection.execute(f"DESCRIBE SELECT {names} FROM t2").fetchall()] == [
        row[1] for row in state.connection.execute(f"DESCRIBE SELECT {values}").fetchall()
    ]
    texts = ", ".join(f"CAST({name} AS VARCHAR)" for name, _ in columns)
    wanted = ", ".join(f"CAST(CAST({value} AS {text}) AS VARCHAR)" for text, value in TYPES.items())
    rows = state.connection.execute(f"SELECT {texts}, sum(_w) FROM t2 GROUP BY ALL ORDER BY ALL").fetchall()
    assert rows[0] == (*(state.row(f"SELECT {wanted}") or ()), 200)
    assert rows[1] == (*(None for _ in TYPES), 9)


def test_a_stopped_merge_leaves_nothing_wherever_it_is(state: State, seed: int) -> None:
    relation = filled(state, random.Random(seed), 12)
    relation.prepare(('"s"',))
    before = {file for run in relation.runs for file in files_of(run.path)}

    class After(threading.Event):
        """Is set once it has been looked at so often."""

        def __init__(self, looks: int) -> None:
            super().__init__()
            self.looks = looks

        def is_set(self) -> bool:
            self.looks -= 1
            return self.looks < 0

    looks = 0
    while True:
        try:
            made = relation.merge(relation.runs, After(looks))
            break
        except Stopped:
            assert set(relation.runs[0].path.parent.iterdir()) == before, f"stopped at look {looks}"
            looks += 5
    assert looks > SLICES, "the index is built after the rows are written"
    assert made.indexes == [('"s"',)]


def test_an_open_part_in_which_nothing_cancels_is_left_alone_until_it_is_full(tmp_path: Path) -> None:
    state = State(tmp_path / FILE, timezone="UTC", threads=1, open_rows_max=8 * SPARSE_ROWS)
    growing = state.create("t1", [("k", "BIGINT")], ('"k"',))
    churning = state.create("t2", [("k", "BIGINT")], ('"k"',))
    for number in range(12):
        first = number * SPARSE_ROWS
        growing.append(f"SELECT i, 1 FROM range({first}, {first + SPARSE_ROWS}) r(i)")
        churning.append(f"SELECT i, w FROM range({SPARSE_ROWS}) r(i), (VALUES (1), (-1)) v(w)")
        for each in (growing, churning):
            each.settle()
        assert growing.settled_rows == (2 * SPARSE_ROWS if 1 <= number < 8 else 0), number
        assert churning.open_rows == 0
    assert [run.rows for run in growing.runs] == [9 * SPARSE_ROWS]
    state.close()
