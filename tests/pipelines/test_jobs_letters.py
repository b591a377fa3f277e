"""Jobs that go on without rows that fail: the rows left out are known exactly, whatever is killed or done again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest

import headwater as hw
from headwater.config import Settings, load
from headwater.errors import PipelineError, UsageError
from headwater.lake import Lake
from headwater.lake.status import jobs_of
from headwater.log import Log, jobs, open_log
from headwater.log.system import transaction
from headwater.ownership import own
from headwater.schema import Schema
from headwater_pipelines.jobs import api, letters, worker
from headwater_pipelines.jobs.room import Room
from headwater_pipelines.jobs.runner import Runner
from headwater_pipelines.jobs.state import KeyedState

from .conftest import Shop
from .test_jobs_intake import write_every_type

FILE = '''
import headwater as hw
import polars as pl


@hw.job(
    inputs=["orders", "customers"],
    output="counted",
    key=["kind", "id"],
    columns={"kind": "VARCHAR", "id": "BIGINT", "changes": "BIGINT"},
    state={"kind": "VARCHAR", "id": "BIGINT", "changes": "BIGINT"},
    state_key=["kind", "id"],
    start="beginning",
    batch_rows=20,
    on_error="dead_letter",
)
def counted(orders: pl.DataFrame, customers: pl.DataFrame, context: hw.JobContext) -> pl.DataFrame | None:
    """How often each row was changed; whoever ends with 3 is not counted, and noticed late."""
    both = {"o": orders, "c": customers}
    both = pl.concat(each.select("id", kind=pl.lit(kind)) for kind, each in both.items())
    new = both.group_by("kind", "id").agg(pl.len().cast(pl.Int64).alias("n"))
    known = new.join(context.state.get(new), on=["kind", "id"], how="left")
    now = known.select("kind", "id", (pl.col("n") + pl.col("changes").fill_null(0)).alias("changes"))
    context.state.delete(now.filter(pl.col("id") % 2 == 0))
    context.state.put(now)
    if (both["id"] % 10 == 3).any():
        raise ValueError("an id ends with 3")
    return now
'''


@pytest.fixture
def jobs_file(shop: Shop) -> Path:
    path = shop.folder / "jobs" / "counted.py"
    path.parent.mkdir()
    path.write_text(FILE)
    return path


def run(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        worker.run(log, load(shop.folder), threading.Event(), until_caught_up=True)


def rows(log: Log, sql: str) -> Counter[Any]:
    return Counter(tuple(row.values()) for row in Lake(log).sql(sql).arrow().to_pylist())


def state_of(log: Log) -> Counter[Any]:
    """The rows that the records of the job's state come to."""
    kept: dict[Any, Any] = {}
    for row in log.read_changes("jobs.counted~state", 0, log.newest_commit()).to_pylist():
        kept[row["kind"], row["id"]] = row["changes"] if row["_op"] == "u" else None
    return Counter((*key, changes) for key, changes in kept.items() if changes is not None)


def check(shop: Shop) -> int:
    """Output and state are made of the rows that do not fail, the letters are the others; how many there are."""
    with open_log(shop.lake) as log:
        both = " UNION ALL ".join(
            f"SELECT '{table[0]}' AS kind, 'shop.public.{table}' AS topic, id, _partition, _offset"
            f' FROM log."shop.public.{table}"'
            for table in ("orders", "customers")
        )
        wanted = rows(log, f"SELECT kind, id, count(*) FROM ({both}) WHERE id % 10 <> 3 GROUP BY ALL")
        assert rows(log, "SELECT kind, id, changes FROM counted") == wanted
        assert state_of(log) == wanted
        failing = rows(log, f"SELECT topic, _partition, _offset, id FROM ({both}) WHERE id % 10 = 3")
        table = Lake(log).dlq.letters("counted", limit=100_000)
        found = table.select(["topic", "partition", "offset", "original", "error_class", "error_message"]).to_pylist()
        assert Counter((*list(each.values())[:3], json.loads(each["original"])["id"]) for each in found) == failing
        assert {each["error_class"] for each in found} == {"ValueError"}
        assert all("an id ends with 3 (counted.py, line" in each["error_message"] for each in found)
        assert api.replay_job(log, load(shop.folder), "counted").differences == ()
        return len(found)


@pytest.mark.usefixtures("jobs_file")
def test_rows_that_fail_are_left_out_and_nothing_else(shop: Shop, command: Path) -> None:
    run(shop)
    assert check(shop)
    argv = [str(command), "job", "run", "--until-caught-up", "--project", str(shop.folder)]
    for point in (f"kill:job.call:before:{shop.rng.randrange(2, 6)}", "kill:job.commit:after:1"):
        with open_log(shop.lake) as log:
            for _ in range(4):
                shop.commit(log)
            shop.update(log, "orders", range(30))  # three that fail, so that there are calls enough whatever the seed
        environment = {**os.environ, "HEADWATER_FAILPOINTS": point}
        done = subprocess.run(argv, check=False, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == -signal.SIGKILL, done.stderr
    run(shop)
    before = check(shop)
    with open_log(shop.lake) as log:
        (status,) = jobs_of(log)
        assert (status["state"], status["dead_letters"]) == ("stopped", {"open": before, "total": before})
        with pytest.raises(UsageError, match="headwater job reset counted"):
            Lake(log).dlq.redrive("counted")


def test_a_job_that_begins_anew_has_its_letters_anew(shop: Shop, jobs_file: Path) -> None:
    run(shop)
    before = check(shop)
    with open_log(shop.lake) as log:
        api.reset_job(log, "counted")
        given_up = Lake(log).dlq.letters("counted", "discarded", limit=10_000)
        assert (given_up.num_rows, set(given_up["reason"].to_pylist())) == (before, {"job counted was reset"})
    run(shop)
    assert check(shop) == before
    jobs_file.write_text(FILE.replace("== 3).any()", "== 30).any()"))
    with open_log(shop.lake) as log:
        assert {each.topic for each in api.replay_job(log, load(shop.folder), "counted").differences} == {
            "jobs.counted", "jobs.counted~state", "jobs.counted.dlq",
        }  # fmt: skip
        api.reset_job(log, "counted")
    run(shop)
    with open_log(shop.lake) as log:
        assert Lake(log).dlq.letters("counted").num_rows == 0
        assert rows(log, "SELECT count(*) FROM counted WHERE id % 10 = 3") != Counter([(0,)])


def test_where_too_many_fail_the_job_is_paused(shop: Shop, jobs_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "LETTERS_MAX", 3)
    jobs_file.write_text(FILE.replace("% 10 == 3", "< 30"))
    with pytest.raises(PipelineError, match="more than 3 rows fail at once, the first with ValueError: an id ends"):
        run(shop)
    with open_log(shop.lake) as log:
        assert not jobs.position(log, "counted")
        assert not [topic.name for topic in log.topics(hidden=True) if topic.name.startswith("jobs.")]


@pytest.mark.parametrize("tells", [True, False])
def test_an_error_of_the_state_is_no_row_s_fault(tmp_path: Path, *, tells: bool) -> None:
    """Whether the function tells of it or not."""

    @hw.job(
        inputs="items", output="n", columns={"id": "BIGINT"}, state={"id": "BIGINT", "s": "VARCHAR"},
        state_key="id", on_error="dead_letter",
    )  # fmt: skip
    def large(items: pl.DataFrame, context: hw.JobContext) -> pl.DataFrame:
        try:
            context.state.put(items.select("id", s=pl.lit("x" * 1_000_000)))
        except duckdb.Error:
            if tells:
                raise
        return items.select("id")

    with open_log(tmp_path / "lake", create=True) as log:
        with transaction(log, "system:test") as tx:
            tx.create_topic("shop.items", "event", Schema.of(id="BIGINT"))
            tx.append("shop.items", pa.table({"id": pa.array(range(64), pa.int64())}))
            tx.commit()
        with own(log, "job:large") as owner:
            runner = Runner(log, large, owner.epoch, Settings(job_memory_bytes_max=16 << 20))
            with pytest.raises(PipelineError, match="statement of the state" if not tells else "OutOfMemory"):
                runner.step(log.newest_commit())
            runner.close()
        assert not [topic for topic in log.topics(hidden=True) if topic.name.startswith("jobs.")]


def test_a_letter_holds_every_type(tmp_path: Path) -> None:
    """Of a row that Polars itself cannot make Python values of: it panics, as no Exception."""

    @hw.job(inputs="all", output="plain", columns={"id": "BIGINT"}, on_error="dead_letter")
    def plain(everything: pl.DataFrame) -> pl.DataFrame:
        return pl.DataFrame({"id": [row[0] for row in everything.rows()]})

    with open_log(tmp_path / "lake", create=True) as log:
        write_every_type(log, "table")
        with own(log, "job:plain") as owner:
            runner = Runner(log, plain, owner.epoch, Settings())
            done = runner.step(log.newest_commit())
            runner.close()
        assert done is not None
        assert (done.rows, done.rows_out, done.letters) == (2, 1, 1)
        assert rows(log, "SELECT id FROM plain") == Counter([(8,)])
        (found,) = Lake(log).dlq.letters("plain").to_pylist()
        first = json.loads(found["original"])
        assert (first["id"], first["m"], first["l"], first["q"]) == (7, "ü", 12.34, "infinity")
        assert found["error_message"].startswith("PanicException: out-of-range date (test_jobs_letters.py, line")


def test_what_a_call_did_to_the_state_is_undone(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    room = Room(folder=tmp_path / "room", memory_limit="64MiB")
    state = KeyedState(Schema.of(id="BIGINT", n="BIGINT", key=["id"]), "state of a test", "UTC", room)
    held: dict[int, int] = {}

    def change(known: dict[int, int]) -> None:
        for _ in range(rng.randrange(4)):
            keys = [rng.randrange(12) for _ in range(rng.randrange(1, 6))]
            if rng.random() < 0.4:
                state.delete(pl.Series("id", keys))
                for key in keys:
                    known.pop(key, None)
            else:
                values = [rng.randrange(100) for _ in keys]
                state.put(pl.DataFrame({"id": keys, "n": values}))
                known |= dict(zip(keys, values, strict=True))

    sent: list[pa.Table] = []
    for _ in range(12):
        state.begin(sent.append)
        for _ in range(4):
            after, count = dict(held), len(sent)
            try:
                with state.whole():
                    change(after)
                    if rng.random() < 0.5:
                        raise RuntimeError
                held = after
            except RuntimeError:
                assert len(sent) == count
            assert dict(state.get(pl.Series("id", range(12))).iter_rows()) == held
        state.commit()
    folded: dict[int, int | None] = {}
    for table in sent:
        folded |= {row["id"]: row["n"] if row["_op"] == "u" else None for row in table.to_pylist()}
    assert {key: value for key, value in folded.items() if value is not None} == held
    state.close()
