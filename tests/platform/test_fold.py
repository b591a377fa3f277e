"""Current rows at every commit against a plain Python model, in every tier and by every way of reading."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater import duck
from headwater.config import Settings
from headwater.errors import SchemaError
from headwater.lake import open_lake
from headwater.log import Log, base, rows, seal
from headwater.schema import Schema
from headwater.testing.changes import BagHistory, KeyedHistory
from headwater.testing.writer import Writer

TOPIC = "shop.public.t"
LIMITS = replace(Settings(), row_group_rows=16, segment_rows_max=40)

Bag = Counter[tuple[object, ...]]


def check_every_commit(log: Log, truth: dict[int, Bag], chance: random.Random) -> None:
    """The rows at each commit, forwards and jumping about, each way by a lake that knows nothing yet."""
    for order in (list(truth), chance.sample(list(truth), k=len(truth))):
        with open_lake(log.folder) as lake:
            for commit in order:
                found = Counter(lake.sql("SELECT * FROM t", at=commit).fetchall())
                assert found == truth[commit], f"at commit {commit}, read in the order {order}"


def check_every_tier(log: Log, truth: dict[int, Bag], seed: int) -> None:
    """Half hot, half sealed; all sealed, with bases at random commits."""
    chance = random.Random(seed)
    check_every_commit(log, truth, chance)
    for commit in chance.sample(list(truth), k=2):
        base.write(log, log.topic(TOPIC, commit), commit, LIMITS)
    seal.seal(log, LIMITS)
    check_every_commit(log, truth, chance)


def write_keyed(log: Log, seed: int, partitions: int, commits: int) -> dict[int, Bag]:
    writer, history = Writer(log), KeyedHistory(seed)
    truth: dict[int, Bag] = {writer.create(TOPIC, "table", history.schema, partitions).number: Counter()}
    for place in range(commits):
        if place == commits // 2:
            seal.seal(log, LIMITS)
        commit = writer.write(TOPIC, history.commit()).number
        truth[commit] = Counter(history.expected())
    return truth


@pytest.mark.parametrize("partitions", [pytest.param(1, marks=pytest.mark.long), 4])
def test_keyed_rows_equal_the_model_at_every_commit(log: Log, seed: int, partitions: int) -> None:
    check_every_tier(log, write_keyed(log, seed, partitions, commits=6), seed)


@pytest.mark.parametrize("partitions", [pytest.param(1, marks=pytest.mark.long), 4])
def test_keyed_rows_over_a_base_read_in_place_equal_the_model(
    log: Log, seed: int, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a large base is read; and sealed changes are folded in many small parts."""
    monkeypatch.setattr(rows.CurrentRows, "copied_bytes_max", 0)
    monkeypatch.setattr(rows, "ADVANCE_ROWS_TARGET", 10)
    monkeypatch.setattr(base, "SLICE_ROWS", 3)
    truth = write_keyed(log, seed, partitions, commits=7)
    base.write(log, log.topic(TOPIC, list(truth)[4]), list(truth)[4], LIMITS)
    check_every_tier(log, truth, seed)


def test_a_reader_follows_to_a_new_base_when_the_one_it_reads_in_place_goes(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows.CurrentRows, "copied_bytes_max", 0)
    history, writer = KeyedHistory(1), Writer(log)
    writer.create(TOPIC, "table", history.schema)
    writer.write(TOPIC, history.commit())
    base.write(log, log.topic(TOPIC), log.newest_commit(), LIMITS)
    with open_lake(log.folder) as lake:
        assert set(lake.sql("SELECT * FROM t").fetchall()) == history.expected()
        writer.write(TOPIC, history.commit())
        first = base.newest(log, log.topic(TOPIC), log.newest_commit())
        assert first is not None
        assert set(lake.sql("SELECT * FROM t").fetchall()) == history.expected()
        base.write(log, log.topic(TOPIC), log.newest_commit(), LIMITS)
        log.storage.remove(first.path)
        assert set(lake.sql("SELECT * FROM t").fetchall()) == history.expected()


def test_a_base_stands_at_the_newest_record(log: Log) -> None:
    """Other topics commit later: what is read at a position between them begins from the base all the same."""
    history, writer = KeyedHistory(1), Writer(log)
    writer.create(TOPIC, "table", history.schema)
    writer.write(TOPIC, history.commit())
    place = log.newest_commit()
    writer.create("other.public.t", "table", history.schema)
    assert log.newest_commit() > place
    base.write(log, log.topic(TOPIC), log.newest_commit(), LIMITS)
    found = base.newest(log, log.topic(TOPIC, place), place)
    assert found is not None
    assert found.commit == place
    with open_lake(log.folder) as lake:
        assert set(lake.sql(f'SELECT * FROM "{TOPIC}"', at=place).fetchall()) == history.expected()


@pytest.mark.long
@pytest.mark.timeout(900)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), partitions=st.sampled_from([1, 2, 4]))
def test_keyed_rows_equal_the_model_for_many_seeds(make_log: Callable[[], Log], seed: int, partitions: int) -> None:
    log = make_log()
    check_every_tier(log, write_keyed(log, seed, partitions, commits=14), seed)


@pytest.mark.parametrize("kind", ["multiset", "changelog"])
def test_bags_equal_the_model_at_every_commit(log: Log, seed: int, kind: Literal["multiset", "changelog"]) -> None:
    writer, history = Writer(log), BagHistory(seed, kind)
    truth: dict[int, Bag] = {
        writer.create(TOPIC, kind, history.schema, 3 if kind == "multiset" else 1).number: Counter()
    }
    for place in range(16):
        if place == 8:
            seal.seal(log, LIMITS)
        commit = writer.write(TOPIC, history.commit()).number
        truth[commit] = history.expected()
    if kind == "multiset":
        check_every_tier(log, truth, seed)
    else:
        check_changelog(log, truth, seed)


def check_changelog(log: Log, truth: dict[int, Bag], seed: int) -> None:
    """Changelogs are read through views; here only their rows, straight from what keeps them."""
    from headwater import duck
    from headwater.log.rows import CurrentRows

    topic = log.topic(TOPIC)
    chance = random.Random(seed)
    for stage in range(3):
        with duck.connect() as connection:
            current = CurrentRows(log, connection, topic)
            for commit in [*truth, *chance.sample(list(truth), k=len(truth))]:
                found = Counter(connection.execute(current.at(topic, commit)).fetchall())
                assert found == truth[commit], f"at commit {commit}, stage {stage}"
        if stage == 0:
            base.write(log, topic, chance.choice(list(truth)), LIMITS)
        if stage == 1:
            seal.seal(log, LIMITS)


def test_a_truncate_of_a_bag_among_new_rows(log: Log) -> None:
    writer = Writer(log)
    writer.create(TOPIC, "multiset", BagHistory.schema)
    truth: dict[int, Bag] = {}
    for op, weight, count in (("c", 1, 1), ("t", 0, 0), ("c", 1, 1)):
        rows = pa.table({"x": [1], "y": ["a"], "_op": [op], "_weight": [weight]})
        truth[writer.write(TOPIC, rows).number] = Counter({(1, "a"): count})
    check_every_commit(log, truth, random.Random(1))


def test_a_base_holds_each_row_of_a_bag_once(log: Log) -> None:
    """Kept rows need not be distinct; what is written for others is."""
    writer = Writer(log)
    writer.create(TOPIC, "changelog", BagHistory.schema)
    for _ in range(2):
        writer.write(TOPIC, pa.table({"x": [1, 2], "y": ["a", "b"], "_weight": [1, 3]}))
    assert base.write(log, log.topic(TOPIC), log.newest_commit(), LIMITS) == 2


@pytest.mark.parametrize("through_base", [False, True])
def test_what_a_changelog_takes_back_before_it_has_it_does_not_come(log: Log, *, through_base: bool) -> None:
    """Weights add up, also for who reads after each commit and where a base lies between."""
    writer = Writer(log)
    writer.create(TOPIC, "changelog", BagHistory.schema)
    current = rows.CurrentRows(log, duck.connect(), log.topic(TOPIC))

    def read() -> list[tuple[object, ...]]:
        return current.connection.execute(current.at(log.topic(TOPIC), log.newest_commit())).fetchall()

    writer.write(TOPIC, pa.table({"x": [1], "y": ["a"], "_weight": [1]}))
    assert read() == [(1, "a")]
    writer.write(TOPIC, pa.table({"x": [1, 2], "y": ["a", "b"], "_weight": [-1, -1]}))
    if through_base:
        assert base.write(log, log.topic(TOPIC), log.newest_commit(), LIMITS) == 1
        current = rows.CurrentRows(log, duck.connect(), log.topic(TOPIC))
    assert read() == []
    writer.write(TOPIC, pa.table({"x": [2], "y": ["b"], "_weight": [1]}))
    assert read() == []
    writer.write(TOPIC, pa.table({"x": [2], "y": ["b"], "_weight": [1]}))
    assert read() == [(2, "b")]


def test_a_base_is_sorted_whatever_slices_it_is_written_in(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """NULLs come last, values that stand often are in one slice, and none is lost between two."""
    monkeypatch.setattr(base, "SLICE_ROWS", 7)
    writer = Writer(log)
    writer.create(TOPIC, "changelog", BagHistory.schema)
    values: list[int | None] = [*range(50), *[13] * 20, *[None] * 5, -4, 2**62]
    random.Random(3).shuffle(values)
    texts = [str(place) for place in range(len(values))]
    writer.write(TOPIC, pa.table({"x": values, "y": texts, "_weight": [1] * len(values)}))
    assert base.write(log, log.topic(TOPIC), log.newest_commit(), LIMITS) == len(values)
    found = base.newest(log, log.topic(TOPIC), log.newest_commit())
    assert found is not None
    written = pq.read_table(log.storage.path(found.path)).to_pylist()
    assert [row["x"] for row in written] == sorted(values, key=lambda value: (value is None, value))
    assert {(row["x"], row["y"]) for row in written} == set(zip(values, texts, strict=True))


def records(*rows: dict[str, object]) -> pa.Table:
    schema = KeyedHistory.schema
    types = [*schema.arrow(), ("_op", pa.string()), ("_lsn", pa.int64()), ("_seq", pa.int64())]
    return pa.Table.from_pylist(list(rows), schema=pa.schema([*types, ("_unchanged", pa.list_(pa.string()))]))


def moved(old: int, new: int, lsn: int, *, unchanged: list[str], **sent: object) -> list[dict[str, object]]:
    place = {"_lsn": lsn, "_seq": 1}
    return [
        {"a": old, "b": "", "_op": "d", **place},
        {"a": new, "b": "", "_op": "c", **place, "_unchanged": unchanged, **sent},
    ]


def test_a_chain_of_key_changes_keeps_what_was_not_sent(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "table", KeyedHistory.schema, partitions=4)
    writer.write(TOPIC, records({"a": 1, "b": "", "x": 7, "y": "old", "_op": "c", "_lsn": 10, "_seq": 1}))
    update = {"a": 2, "b": "", "x": 9, "_op": "u", "_lsn": 30, "_seq": 1, "_unchanged": ["y", "z"]}
    after = writer.write(
        TOPIC,
        records(
            *moved(1, 2, 20, unchanged=["x", "y", "z"]),
            update,
            *moved(2, 3, 40, unchanged=["x", "y", "z"]),
            *moved(3, 1, 50, unchanged=["x", "y"], z=1),
            {"a": 3, "b": "", "_op": "c", "_lsn": 60, "_seq": 1},
        ),
    ).number
    expected = {(1, "", 9, "old", 1), (3, "", None, None, None)}
    for begin in (after - 1, after):
        with open_lake(log.folder) as lake:
            lake.sql("SELECT * FROM t", at=begin)
            assert set(lake.sql("SELECT * FROM t").fetchall()) == expected
    versions = "SELECT a, x, y, z FROM history.t WHERE _commit = ? ORDER BY a, x NULLS LAST"
    with open_lake(log.folder) as lake:
        found = lake.sql(versions, params=[after]).fetchall()
    assert found == [
        (1, 9, "old", 1),
        (2, 7, "old", None),
        (2, 9, "old", None),
        (3, 9, "old", None),
        (3, None, None, None),
    ]


def test_a_key_change_without_its_delete_is_refused(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "table", KeyedHistory.schema)
    writer.write(TOPIC, records(moved(1, 2, 20, unchanged=["y"])[1]))
    with open_lake(log.folder) as lake, pytest.raises(SchemaError, match="old key was not recorded"):
        lake.sql("SELECT * FROM t")


def test_an_update_that_sends_null_does_not_bring_the_old_value_back(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "table", KeyedHistory.schema)
    row = {"a": 1, "b": "", "x": 7, "y": "old", "_op": "c"}
    null = {"a": 1, "b": "", "_op": "u", "_unchanged": ["y"]}
    writer.write(TOPIC, records(row, null))
    with open_lake(log.folder) as lake:
        assert lake.sql("SELECT x, y FROM t").fetchall() == [(None, "old")]


@pytest.mark.parametrize("rest", [None, ["y"]], ids=["whole", "partial"])
def test_a_negative_zero_keeps_its_sign(log: Log, writer: Writer, rest: list[str] | None) -> None:
    kinds = {"a": "BIGINT", "f0": "FLOAT", "f1": "DOUBLE", "f2": "FLOAT[]", "f3": "DOUBLE[]", "y": "VARCHAR"}
    schema = Schema.of(kinds, key=["a"])
    writer.create(TOPIC, "table", schema)
    row = {"a": 1, "f0": -0.0, "f1": -0.0, "f2": [-0.0], "f3": [-0.0], "y": "old", "_op": "c"}
    types = pa.schema([*schema.arrow(), ("_op", pa.string()), ("_unchanged", pa.list_(pa.string()))])
    with open_lake(log.folder) as lake:
        # One commit makes the kept rows, the next changes them.
        for each in (row, row | {"_op": "u", "_unchanged": rest}):
            writer.write(TOPIC, pa.Table.from_pylist([each], schema=types))
            texts = ", ".join(f"f{number}::VARCHAR" for number in range(4))
            assert lake.sql(f"SELECT {texts}, y FROM t").fetchall() == [("-0.0", "-0.0", "[-0.0]", "[-0.0]", "old")]
