"""Commits and steps that have left the catalog answer as before, and the chain that holds them all is provable."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import select, update

from headwater.catalog import tables
from headwater.catalog.records import Step
from headwater.config import Settings
from headwater.errors import CorruptFile, StorageError
from headwater.log import Log, archive, chain, chain_witness, seal
from headwater.log.proof import prove
from headwater.schema import Schema
from headwater.testing.writer import Writer

COMMITS = 60
EVENTS = Schema.of(id="BIGINT")
LIMITS = replace(Settings(), row_group_rows=32)
START = datetime(2026, 1, 1, tzinfo=UTC)


def fill(log: Log) -> None:
    """60 commits of two producers; every third is a step, of one view or of two."""
    source, pipeline = Writer(log), Writer(log, "pipeline:main")
    source.create("shop.public.e", "event", EVENTS)
    for number in range(2, COMMITS + 1):
        if number % 3:
            source.write("shop.public.e", pa.table({"id": [number]}), position=f"{number:04d}")
            continue
        with pipeline.transaction() as tx:
            views = frozenset({1, 2} if number % 2 else {1})
            tx.record_step(
                Step(number=number // 3, input_commit=number - 1, instant=START + timedelta(number), views=views)
            )
            tx.position = str(number)
            tx.commit()


def answers(log: Log) -> list[Any]:
    """Everything the log tells about commits and steps."""
    everywhere = range(COMMITS + 1)
    times = [log.commit_info(number).time for number in everywhere[1:]]
    return [
        [log.commit_info(number) for number in everywhere[1:]],
        [log.commits(after, upto, limit) for after in (0, 7, 50) for upto in (None, 8, 55) for limit in (3, 100)],
        [log.commit_at_time(moment + shift) for moment in times for shift in (timedelta(), timedelta(microseconds=-1))],
        [log.newest_commit_where("source:shop", _until(f"{number:04d}")) for number in everywhere],
        [log.newest_commit_where("nobody", _until("0001"))],
        [log.steps(after, upto) for after in (0, 4, 18) for upto in (None, 5, 19)],
        [log.last_step(at) for at in (None, *everywhere)],
        [log.newest_common_step(ids, at) for ids in (frozenset({1}), frozenset({1, 2})) for at in everywhere],
    ]


def _until(last: str) -> Any:
    return lambda position: position <= last


@pytest.fixture
def archived(log: Log) -> Log:
    """40 of the 60 commits are in commit segments of at most 15."""
    fill(log)
    seal.seal(log, LIMITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "ARCHIVE_COMMITS", 15)
        assert archive.archive(log, keep=20, least=1) == 40
    return log


def test_what_was_archived_answers_as_before(log: Log) -> None:
    fill(log)
    before = answers(log)
    seal.seal(log, LIMITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "ARCHIVE_COMMITS", 15)
        archive.archive(log, keep=20, least=1)
    with log.catalog.read() as connection:
        assert len(connection.execute(select(tables.commit)).all()) == 20
        assert len(connection.execute(select(tables.commit_segment)).all()) == 3
    assert answers(log) == before
    assert archive.archive(log, keep=20, least=1) == 0


def test_commits_with_hot_batches_stay(log: Log) -> None:
    fill(log)
    assert archive.archive(log, keep=1, least=2) == 0
    assert archive.archive(log, keep=1, least=1) == 1  # the one that only created the topic


def test_writing_goes_on_after_the_archived(archived: Log) -> None:
    assert Writer(archived).write("shop.public.e", pa.table({"id": [1]})).number == COMMITS + 1
    assert prove(archived).findings == []


def test_a_damaged_commit_segment_is_named(archived: Log) -> None:
    path = sorted(archived.storage.path("data/commits").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptFile, match=path.name):
        archived.commit_info(3)


def test_the_chain_holds_over_commits_seals_bases_and_the_archive(archived: Log) -> None:
    proof = prove(archived)
    assert proof.findings == []
    assert proof.entries == 1 + COMMITS + 1 + 3  # checkpoint, commits, one seal, three archives
    with archived.catalog.read() as connection:
        newest = connection.execute(select(tables.entry.c.digest).order_by(tables.entry.c.seq.desc())).scalars().first()
    assert newest is not None
    assert proof.root == newest.hex()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (update(tables.entry).where(tables.entry.c.seq == 59).values(position="x"), "broken at entry 59"),
        (tables.entry.delete().where(tables.entry.c.seq == 59), "entry 59 is missing"),
        (update(tables.commit).where(tables.commit.c.number == 58).values(time=1), "commit 58 in the catalog is not"),
        (tables.segment.delete(), None),
        (update(tables.file).where(tables.file.c.kind == "segment").values(removed=1), "and is not live"),
        (update(tables.file).where(tables.file.c.kind == "segment").values(digest="ab" * 16), "no entry added it"),
        (update(tables.commit_segment).values(root=b"x" * 32), "broken at data/commits"),
    ],
)
def test_a_rewritten_chain_is_found(archived: Log, change: Any, said: str | None) -> None:
    with archived.catalog.write() as connection:
        connection.execute(change)
    findings = prove(archived).findings
    assert any(said in each for each in findings) if said else findings == []


@pytest.mark.long
def test_an_older_lake_begins_its_chain_with_what_it_holds(log: Log) -> None:
    fill(log)
    seal.seal(log, LIMITS, tail_s=0)
    with log.catalog.write() as connection:
        connection.execute(tables.entry.delete())
    Writer(log).write("shop.public.e", pa.table({"id": [1]}))
    proof = prove(log)
    assert proof.findings == []
    assert proof.entries == 2
    seal.seal(log, LIMITS)
    before = answers(log)
    assert archive.archive(log, keep=0, least=1) == COMMITS
    assert answers(log) == before
    assert prove(log).findings == []


def test_a_rewritten_chain_is_whole_again_but_not_what_was_witnessed(archived: Log, tmp_path: Path) -> None:
    witness = tmp_path / "roots.txt"
    assert chain_witness.tell(archived, str(witness))
    assert not chain_witness.tell(archived, str(witness))
    Writer(archived).write("shop.public.e", pa.table({"id": [1]}))
    assert chain_witness.tell(archived, str(witness))
    roots = chain_witness.read(str(witness))
    assert len(roots) == 2
    assert prove(archived, roots).findings == []
    entry = tables.entry
    with archived.catalog.write() as connection:  # a forger changes the newest entry and mends its digest
        rows = connection.execute(select(entry).order_by(entry.c.seq.desc()).limit(2)).all()
        values = {name: value for name, value in rows[0]._mapping.items() if name != "digest"} | {"position": "forged"}
        forged = chain.link(rows[1].digest, chain.Entry(**values))
        connection.execute(update(entry).where(entry.c.seq == rows[0].seq).values(position="forged", digest=forged))
        commit = tables.commit.c.number == rows[0].number
        connection.execute(update(tables.commit).where(commit).values(position="forged"))
    assert prove(archived).findings == []
    assert any("rewritten" in each for each in prove(archived, roots).findings)
    with archived.catalog.write() as connection:
        connection.execute(entry.delete().where(entry.c.seq == rows[0].seq))
    assert any("older copy" in each for each in prove(archived, roots).findings)


def test_a_witness_may_be_a_command(log: Log, tmp_path: Path) -> None:
    fill(log)
    target = tmp_path / "told"
    assert chain_witness.tell(log, f"|tee {target}")
    assert target.read_text().split()[1] == prove(log).root
    Writer(log).write("shop.public.e", pa.table({"id": [1]}))
    with pytest.raises(StorageError, match="cannot be exported"):
        chain_witness.tell(log, "|false")
