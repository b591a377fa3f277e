"""A damaged part stops the reads that need it and nothing else, whoever finds it; it ends when the bytes are right."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import select

from headwater import maintenance
from headwater.catalog import tables
from headwater.config import Settings
from headwater.errors import CorruptFile, FilesExpired
from headwater.lake import Lake, open_lake
from headwater.log import Log, base, incidents, patrol, quarantine, read, recovery, scan, seal
from headwater.log.verify import verify
from headwater.schema import Schema
from headwater.testing.writer import Writer
from headwater_pipelines import api
from headwater_pipelines.runtime import worker

EVENTS, OTHER, TABLE = "shop.public.events", "shop.public.other", "shop.public.t"
SCHEMA = Schema.of({"id": "BIGINT"}, key=["id"])


@pytest.fixture
def full(log: Log, writer: Writer) -> Log:
    """Events in two partitions and a table, each of two commits with their own file."""
    for name, kind, partitions in ((EVENTS, "event", 2), (OTHER, "event", 1), (TABLE, "table", 2)):
        writer.create(name, kind, SCHEMA, partitions=partitions)  # type: ignore[arg-type]
    for first in (0, 20):
        for name in (EVENTS, OTHER, TABLE):
            write(writer, name, first)
    return log


def write(writer: Writer, name: str, first: int) -> None:
    rows = {"id": list(range(first, first + 20))}
    writer.write(name, pa.table({**rows, "_op": ["c"] * 20} if name == TABLE else rows))


def place(log: Log, name: str, *, partition: int = 1, first: int = 0) -> tuple[Path, int]:
    """File and first byte of the hot batch or segment that holds this offset."""
    topic = log.topic(name)
    found = read.plan(log, topic, 0, log.newest_commit(), skip_damaged=True)
    for batch in found.batches:
        if batch.partition == partition and batch.first_offset <= first < batch.first_offset + batch.rows:
            return log.storage.path(batch.path), batch.byte_offset
    for segment in found.segments:
        if segment.partition == partition and segment.first_offset <= first <= segment.last_offset:
            return log.storage.path(segment.path), 0
    raise AssertionError(name)


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def damage(log: Log, name: str, *, partition: int = 1, first: int = 0) -> tuple[Path, bytes]:
    """Flip a byte of one part; the file and its right bytes."""
    path, start = place(log, name, partition=partition, first=first)
    whole = path.read_bytes()
    flip(path, start + 200)
    return path, whole


def in_quarantine(log: Log) -> set[tuple[str, int]]:
    names = {topic.id: topic.name for topic in log.topics(hidden=True)}
    return {(names[topic], partition) for topic, partition in quarantine.partitions(log)}


def counts(lake: Lake, name: str) -> int:
    found: int = lake.sql(f'SELECT count(*) FROM log."{name}"').scalar()
    return found


def by_reader(log: Log) -> None:
    with open_lake(log.folder) as lake, pytest.raises(CorruptFile):
        lake.sql("SELECT * FROM events")


def by_sealer(log: Log) -> None:
    seal.seal(log, Settings())


def by_verify(log: Log) -> None:
    assert len(verify(log, deep=True).findings) == 1


def by_recovery(log: Log) -> None:
    assert maintenance.start(log)["damaged"] == 1


def by_patrol(log: Log) -> None:
    for _ in range(2):  # a round begins, and is late at once
        patrol.check_some(log, interval_s=1e-6)


@pytest.mark.parametrize("find", [by_reader, by_sealer, by_verify, by_recovery])
def test_whoever_finds_a_damaged_batch_stops_that_partition_only(full: Log, find: Callable[[Log], None]) -> None:
    damage(full, EVENTS)
    find(full)
    assert in_quarantine(full) == {(EVENTS, 1)}
    [said] = incidents.newest(full)
    assert (said.kind, said.subject) == ("quarantine", f"{EVENTS}, partition 1")
    with open_lake(full.folder) as lake:
        with pytest.raises(CorruptFile) as raised:
            lake.sql("SELECT * FROM events")
        facts = raised.value.facts
        assert (facts["topic"], facts["partition"], facts["first_offset"]) == (EVENTS, 1, 0)
        assert facts["last_offset"] == batch_rows(full) - 1
        assert str(facts["path"]) in str(raised.value)
        for query, rows in (("SELECT * FROM other", 40), ("SELECT * FROM t", 40)):
            assert len(lake.sql(query)) == rows


def batch_rows(log: Log) -> int:
    query = select(tables.batch.c.rows).where(tables.batch.c.topic == log.topic(EVENTS).id)
    query = query.where(tables.batch.c.partition == 1, tables.batch.c.first_offset == 0)
    with log.catalog.read() as connection:
        return int(connection.execute(query).scalar_one())


@pytest.mark.parametrize("find", [by_verify, by_patrol])
def test_a_damaged_segment_that_still_decodes_is_refused_once_it_is_found(
    full: Log, find: Callable[[Log], None]
) -> None:
    """DuckDB does not check pages: until the check sum is looked at, wrong values would be read."""
    seal.seal(full, Settings())
    path, _ = damage(full, EVENTS)
    find(full)
    assert in_quarantine(full) == {(EVENTS, 1)}
    with open_lake(full.folder) as lake:
        with pytest.raises(CorruptFile, match=path.name):
            lake.sql("SELECT id FROM events")
        assert counts(lake, OTHER) == 40


def test_reads_that_do_not_need_the_damaged_records_are_answered(full: Log) -> None:
    damage(full, EVENTS, first=0)
    by_reader(full)
    assert full.read_changes(EVENTS, 6, full.newest_commit()).num_rows == 20
    with pytest.raises(CorruptFile):
        full.read_changes(EVENTS, 0, 6)


def test_records_may_be_left_out_on_request_and_the_answer_says_which(full: Log) -> None:
    path, _ = damage(full, EVENTS)
    lost = batch_rows(full)
    with open_lake(full.folder) as lake:
        for query in ("SELECT * FROM events", f'SELECT * FROM log."{EVENTS}"'):
            answer = lake.sql(query, damaged="skip")  # the first one finds the damage, too
            assert len(answer) == 40 - lost
            [missing] = answer.missing
            assert (missing.partition, missing.first_offset, missing.last_offset) == (1, 0, lost - 1)
            assert str(full.storage.path(missing.path)) == str(path)
        assert lake.sql("SELECT * FROM other", damaged="skip").missing == ()


def test_rows_of_a_table_are_never_given_without_all_their_records(full: Log) -> None:
    damage(full, TABLE)
    with open_lake(full.folder) as lake:
        for query in ("SELECT * FROM t", "SELECT * FROM history.t"):
            with pytest.raises(CorruptFile):
                lake.sql(query, damaged="skip")
        assert len(lake.sql(f'SELECT * FROM log."{TABLE}"', damaged="skip").missing) == 1


def hot_rows(log: Log, partition: int) -> int:
    query = "SELECT coalesce(sum(rows), 0) FROM batch WHERE topic = ? AND partition = ?"
    with log.catalog.read() as connection:
        return int(connection.exec_driver_sql(query, (log.topic(EVENTS).id, partition)).scalar_one())


def test_writing_goes_on_and_sealing_stops_before_the_damage(full: Log) -> None:
    write(Writer(full), EVENTS, 40)
    path, whole = damage(full, EVENTS, first=batch_rows(full))  # the second batch
    before, held = batch_rows(full), hot_rows(full, 1)
    assert seal.seal(full, Settings()) == 140 - (held - before)
    assert hot_rows(full, 1) == held - before, "segments stand before hot batches"
    assert seal.hot(full).commits == 0, "nothing that could be sealed is waiting"
    assert not seal.is_due(full, Settings(seal_age_s=1e-6))
    write(Writer(full), EVENTS, 60)
    lost = hot_rows(full, 1)
    assert seal.seal(full, Settings()) == 20 - (lost - (held - before))
    assert [finding.where for finding in verify(full, deep=True).findings] == [str(path.relative_to(full.folder))]
    path.write_bytes(whole)
    report = verify(full)
    assert (report.findings, report.released) == ((), 1)
    assert in_quarantine(full) == set()
    assert incidents.newest(full)[0].kind == "released"
    with open_lake(full.folder) as lake:
        assert lake.sql("SELECT count(DISTINCT id) FROM events").scalar() == 80
    assert seal.seal(full, Settings()) == lost
    assert hot_rows(full, 1) == 0
    assert verify(full, deep=True).findings == ()


def test_maintenance_goes_on_around_damaged_segments(full: Log) -> None:
    settings = Settings(base_rows_min=0)
    seal.seal(full, settings)
    damage(full, TABLE)
    by_verify(full)
    write(Writer(full), OTHER, 100)
    assert maintenance.run_once(full, settings, force=True)["sealed"] == 20
    maintenance.housekeep(full, settings)
    assert in_quarantine(full) == {(TABLE, 1)}


def test_a_damaged_base_is_given_up_while_its_records_are_there(full: Log) -> None:
    base.write(full, full.topic(TABLE), full.newest_commit(), Settings())
    [path] = full.storage.path("data/bases").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with open_lake(full.folder) as lake:
        with pytest.raises(CorruptFile, match="ask again"):
            lake.sql("SELECT * FROM t")
        assert len(lake.sql("SELECT * FROM t")) == 40
    assert verify(full, deep=True).findings == ()
    assert full.newest_commit() == 9


def test_a_damaged_base_stays_when_its_records_have_gone(full: Log) -> None:
    base.write(full, full.topic(TABLE), full.newest_commit(), Settings())
    [path] = full.storage.path("data/bases").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with full.catalog.write() as connection:
        connection.exec_driver_sql("UPDATE partition SET start_offset = 1 WHERE partition = 0")
    for _ in range(2):
        with open_lake(full.folder) as lake, pytest.raises(CorruptFile, match="backup"):
            lake.sql("SELECT * FROM t")
    path.write_bytes(whole)
    with open_lake(full.folder) as lake:
        assert len(lake.sql("SELECT * FROM t")) == 40


def test_a_file_that_left_the_lake_while_it_was_read_is_no_damage(full: Log) -> None:
    plan = read.plan(full, full.topic(EVENTS), 0, full.newest_commit())
    seal.seal(full, Settings())
    recovery.remove_retired(full, grace_s=-1)
    with pytest.raises(FilesExpired):
        read.hot_table(full, plan)
    assert in_quarantine(full) == set()


@pytest.mark.parametrize("sealed", [False, True])
def test_a_consumer_gets_what_stands_before_the_damage_and_stops_there(full: Log, sealed: bool) -> None:
    """It must never pass damaged records by: what it commits then would say that they were read."""
    if sealed:
        seal.seal(full, Settings())
    write(Writer(full), EVENTS, 40)
    first = hot_first(full)
    damage(full, EVENTS, first=first)
    write(Writer(full), EVENTS, 60)
    by_reader(full)
    seal.seal(full, Settings())
    with full.catalog.read() as connection:
        [plan] = scan.plan(connection, full.topic(EVENTS), [scan.Span(partition=1, low=0, high=2**40)])
    seen: list[scan.Piece] = []
    with pytest.raises(CorruptFile) as raised:
        seen.extend(scan.pieces(full, plan, 7))
    assert sum(piece.table.num_rows for piece in seen) == first
    assert (seen[-1].upto, raised.value.facts["first_offset"]) == (first, first)


def hot_first(log: Log) -> int:
    query = "SELECT max(first_offset) FROM batch WHERE topic = ? AND partition = 1"
    with log.catalog.read() as connection:
        return int(connection.exec_driver_sql(query, (log.topic(EVENTS).id,)).scalar_one())


def test_views_over_other_topics_go_on(full: Log) -> None:
    api.create_view(full, "SELECT id FROM events", name="over_events")
    api.create_view(full, "SELECT id FROM other", name="over_other")
    worker.run(full, Settings(), threading.Event(), until_caught_up=True)
    assert {view.state for view in full.views()} == {"live"}
    writer = Writer(full)
    write(writer, EVENTS, 40)
    write(writer, OTHER, 40)
    with full.catalog.read() as connection:
        query = "SELECT next_offset - 1 FROM partition WHERE topic = ? AND partition = 1"
        newest = connection.exec_driver_sql(query, (full.topic(EVENTS).id,)).scalar_one()
    damage(full, EVENTS, first=newest)
    worker.run(full, Settings(), threading.Event(), until_caught_up=True)
    states = {view.name: view for view in full.views()}
    assert states["over_other"].state == "live"
    assert states["over_events"].state == "paused"
    assert "changed since" in states["over_events"].reason
    with open_lake(full.folder) as lake:
        assert len(lake.sql("SELECT * FROM over_other")) == 60


def test_a_process_that_may_not_write_refuses_too(full: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(full, EVENTS)
    monkeypatch.setattr(type(full.catalog), "write", refuse)
    with pytest.raises(CorruptFile) as raised:
        full.read_changes(EVENTS, 0, full.newest_commit())
    assert raised.value.facts["partition"] == 1
    assert in_quarantine(full) == set()


def refuse(_: object) -> None:
    raise PermissionError


def test_recovery_sees_a_short_file_beyond_its_budget(full: Log) -> None:
    path, start = place(full, EVENTS, first=0)
    with path.open("r+b") as file:
        file.truncate(start + 10)
    assert recovery.check_hot(full, budget_bytes=0) == 1
    assert in_quarantine(full) == {(EVENTS, 1)}


def test_the_patrol_reads_every_file_within_its_interval(full: Log) -> None:
    seal.seal(full, Settings())
    sizes = [path.stat().st_size for path in full.storage.path("data/segments").iterdir()]
    assert patrol.check_some(full, interval_s=3600) == 0, "a round that has just begun is not behind"
    assert patrol.check_some(full, budget_bytes=1, interval_s=1e-6) in sizes, "one file at least"
    read_ = 0
    for _ in range(2 * len(sizes)):
        read_ += patrol.check_some(full, budget_bytes=1, interval_s=1e-6)
    assert read_ >= sum(sizes)


def test_incidents_are_bounded(full: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incidents, "KEPT", 5)
    with full.catalog.write() as connection:
        for number in range(12):
            incidents.append(connection, "test", str(number), "", number)
    assert [each.subject for each in incidents.newest(full, 100)] == ["11", "10", "9", "8", "7"]
