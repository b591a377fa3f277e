"""Stream jobs over a real log: what they read, keep and write is exact, whatever is killed or raised in between."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.waiting import until

import headwater as hw
from headwater import logs
from headwater.config import load
from headwater.errors import PipelineError, UsageError
from headwater.lake import Lake
from headwater.log import Log, jobs, open_log
from headwater.ownership import own
from headwater.service.caught_up import CaughtUp
from headwater_pipelines.api import create_view
from headwater_pipelines.jobs import api, worker
from headwater_pipelines.runtime import worker as pipeline

from .conftest import Shop

FILE = '''
"""Jobs over the shop's tables."""

import headwater as hw
import polars as pl


@hw.job(
    inputs="orders",
    output="copied",
    key="id",
    columns={"id": "BIGINT", "customer_id": "BIGINT", "total": "DECIMAL(12,2)", "note": "VARCHAR"},
)
def copied(orders: pl.DataFrame) -> pl.DataFrame:
    """The orders, as they are."""
    return orders


@hw.job(
    inputs=["orders", "customers"],
    output="counted",
    key=["kind", "id"],
    columns={"kind": "VARCHAR", "id": "BIGINT", "changes": "BIGINT", "last": "BIGINT"},
    state={"kind": "VARCHAR", "id": "BIGINT", "changes": "BIGINT"},
    state_key=["kind", "id"],
    start="beginning",
    batch_rows=20,
)
def counted(orders: pl.DataFrame, customers: pl.DataFrame, context: hw.JobContext) -> pl.DataFrame | None:
    """How often each row was changed."""
    both = {"o": orders, "c": customers}
    both = pl.concat(each.select("id", "_commit", kind=pl.lit(kind)) for kind, each in both.items())
    new = both.group_by("kind", "id").agg(pl.len().cast(pl.Int64).alias("n"), pl.col("_commit").max())
    known = new.join(context.state.get(new), on=["kind", "id"], how="left")
    now = known.select("kind", "id", (pl.col("n") + pl.col("changes").fill_null(0)).alias("changes"), last="_commit")
    context.state.put(now.drop("last"))
    return now


@hw.job(inputs="orders", output="audit", start="beginning", columns={"id": "BIGINT", "op": "VARCHAR", "at": "BIGINT"})
def audit(orders: pl.DataFrame) -> pl.DataFrame:
    """A record of every change."""
    return orders.select("id", op="_op", at="_commit")
'''


ONE = FILE.partition("@hw.job(\n    inputs=[")[0].rstrip()
"""The first of them alone."""


@pytest.fixture
def jobs_file(shop: Shop) -> Path:
    """The jobs of the shop's project."""
    path = shop.folder / "jobs" / "shop.py"
    path.parent.mkdir()
    path.write_text(FILE)
    return path


def run(shop: Shop, *names: str) -> None:
    with open_log(shop.lake) as log:
        worker.run(log, load(shop.folder), threading.Event(), names, until_caught_up=True)


def rows(log: Log, sql: str) -> Counter[Any]:
    return Counter(tuple(row.values()) for row in Lake(log).sql(sql).arrow().to_pylist())


def check(shop: Shop) -> None:
    """Every output is what its job makes of the log, by DuckDB from scratch."""
    with open_log(shop.lake) as log:
        assert [(record.state, record.reason) for record in jobs.read(log)] == [("live", "")] * 3
        assert rows(log, "SELECT * FROM copied") == rows(log, "SELECT id, customer_id, total, note FROM orders")
        both = " UNION ALL ".join(
            f"SELECT '{kind}' AS kind, id, _commit FROM log.\"shop.public.{table}\""
            for kind, table in (("o", "orders"), ("c", "customers"))
        )
        wanted = rows(log, f"SELECT kind, id, count(*), max(_commit) FROM ({both}) GROUP BY ALL")
        assert rows(log, "SELECT kind, id, changes, last FROM counted") == wanted
        written = rows(log, 'SELECT id, _op AS op, _commit AS at FROM log."shop.public.orders"')
        assert rows(log, "SELECT * FROM audit") == written
        for name in ("copied", "counted", "audit"):
            mine = [each for each in log.commits() if each.producer == f"job:{name}"]
            begins = max((at + 1 for at, each in enumerate(mine) if each.position is None), default=0)
            places = [int(each.position or 0) for each in mine[begins:]]
            assert places == sorted(set(places)), f"{name} took the same commits in twice"


@pytest.mark.usefixtures("jobs_file")
def test_outputs_are_what_the_functions_make_of_the_log(shop: Shop) -> None:
    run(shop)
    check(shop)
    for _ in range(2):
        with open_log(shop.lake) as log:
            for _ in range(shop.rng.randrange(1, 5)):
                shop.commit(log)
        run(shop)
        check(shop)


# ---- again


def test_a_replay_gives_the_same_and_shows_what_changed(shop: Shop, jobs_file: Path) -> None:
    places = []
    for _ in range(3):
        with open_log(shop.lake) as log:
            commit_orders(shop, log)
            places.append(log.newest_commit())
        run(shop)
    project = load(shop.folder)
    with open_log(shop.lake) as log:
        for name in ("copied", "counted", "audit"):
            whole = api.replay_job(log, project, name)
            assert (whole.steps >= 2, whole.differences) == (True, ())
            part = api.replay_job(log, project, name, places[0], places[1])
            assert (0 < part.steps < whole.steps, 0 < part.rows < whole.rows, part.differences) == (True, True, ())
        before = log.newest_commit()
    jobs_file.write_text(FILE.replace('(pl.col("n") + ', '(1 + pl.col("n") + '))
    with open_log(shop.lake) as log:
        changed = api.replay_job(log, project, "counted", places[0])
        assert {each.topic for each in changed.differences} == {"jobs.counted", "jobs.counted~state"}
        assert all(each.missing == each.extra > 0 for each in changed.differences)
        assert log.newest_commit() == before
        with pytest.raises(UsageError, match="no step"):
            api.replay_job(log, project, "counted", before, before)


# ---- killed


@pytest.fixture
def run_jobs(command: Path, shop: Shop) -> Callable[..., int]:
    """`headwater job run --until-caught-up` as a process of its own, with failpoints; its exit status."""

    def run(failpoints: str = "") -> int:
        argv = [str(command), "job", "run", "--until-caught-up", "--project", str(shop.folder)]
        environment = {**os.environ, "HEADWATER_FAILPOINTS": failpoints}
        done = subprocess.run(argv, check=False, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode

    return run


def kill_at(shop: Shop, run_jobs: Callable[..., int], points: list[tuple[str, int]]) -> int:
    killed = 0
    for name, hit in points:
        with open_log(shop.lake) as log:
            for _ in range(2):
                shop.commit(log)
        killed += run_jobs(f"kill:{name}:{hit}") == -signal.SIGKILL
    assert run_jobs() == 0
    return killed


def recorded(shop: Shop, run_jobs: Callable[..., int], tmp_path: Path) -> Counter[str]:
    """The crash points that a run with some steps passes, and how often."""
    with open_log(shop.lake) as log:
        shop.commit(log)
    file = tmp_path / "points"
    assert run_jobs(f"record:{file}") == 0
    return Counter(file.read_text().split())


@pytest.mark.usefixtures("jobs_file")
def test_kill_at_random_points(shop: Shop, run_jobs: Callable[..., int], tmp_path: Path) -> None:
    counts = recorded(shop, run_jobs, tmp_path)
    assert {"job.call:before", "job.commit:before", "job.commit:after", "catalog.commit:after"} <= set(counts)
    points = [(name, shop.rng.randrange(1, counts[name] + 1)) for name in shop.rng.sample(sorted(counts), 1)]
    points.append(("job.commit:after", 1))
    killed = kill_at(shop, run_jobs, points)
    print(f"{killed} of {len(points)} runs were killed")
    assert killed
    check(shop)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("jobs_file")
def test_kill_at_every_point(shop: Shop, run_jobs: Callable[..., int], tmp_path: Path) -> None:
    counts = recorded(shop, run_jobs, tmp_path)
    kill_at(shop, run_jobs, [(name, hit) for name, count in counts.items() for hit in range(1, count + 1)])
    check(shop)


# ---- failing, pausing, beginning anew

BAD = """

@hw.job(inputs="orders", output="ratio", key="id", columns={"id": "BIGINT", "ratio": "DOUBLE"})
def ratio(orders: pl.DataFrame) -> pl.DataFrame:
    n = orders.height
    return orders.select("id", ratio=pl.lit(1.0 / (n - n)))
"""


def commit_orders(shop: Shop, log: Log) -> None:
    """Commits until one has changed the orders."""
    before = log.topic("orders"), log.newest_commit()
    while not log.read_changes(before[0].name, before[1], log.newest_commit()).num_rows:
        shop.commit(log)


def states(log: Log) -> dict[str, str]:
    return {record.name: record.state for record in jobs.read(log)}


def test_a_job_that_raises_is_paused_with_the_line_and_the_others_go_on(shop: Shop, jobs_file: Path) -> None:
    jobs_file.write_text(FILE + BAD)
    with pytest.raises(PipelineError, match="job ratio is paused"):
        run(shop)
    with open_log(shop.lake) as log:
        assert states(log) == {"audit": "live", "copied": "live", "counted": "live", "ratio": "paused"}
        reason = jobs.find(log, "ratio").reason
        line = (FILE + BAD).splitlines().index('    return orders.select("id", ratio=pl.lit(1.0 / (n - n)))') + 1
        assert reason.startswith("ZeroDivisionError: float division by zero")
        assert f"shop.py, line {line}, in ratio: return orders.select" in reason
        assert "Traceback" not in reason
        assert jobs.position(log, "ratio") is None
    jobs_file.write_text(FILE + BAD.replace("(n - n)", "n"))
    with open_log(shop.lake) as log:
        api.resume_job(log, "ratio")
    run(shop)
    with open_log(shop.lake) as log:
        assert set(states(log).values()) == {"live"}
        assert rows(log, "SELECT id FROM ratio") == rows(log, "SELECT id FROM orders")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("return orders.select('id')", "column ratio is missing"),
        ("return orders.select('id', ratio=pl.lit('x'))", "column ratio holds 'x', which does not fit DOUBLE"),
        ("return orders.select(pl.lit(None, pl.Int64).alias('id'), ratio=pl.lit(1.0))", "key column id is NULL"),
        ("return orders.select('id', 'note', ratio=pl.lit(1.0))", "column note is not declared"),
        ("return orders.select('id', ratio=pl.lit(1.0), _op=pl.lit('x'))", "_op is 'x'"),
        ("return 3", "int"),
    ],
)
def test_what_cannot_be_stored_is_told(shop: Shop, jobs_file: Path, body: str, what: str) -> None:
    jobs_file.write_text(FILE + BAD.partition("    n = ")[0] + f"    {body}\n")
    with pytest.raises(PipelineError) as refused:
        run(shop, "ratio")
    assert what in str(refused.value)
    assert "shop.py, line" in str(refused.value)


def test_a_reset_job_begins_anew_with_another_shape(shop: Shop, jobs_file: Path) -> None:
    run(shop)
    wider = FILE.replace('"note": "VARCHAR"}', '"note": "VARCHAR", "more": "BOOLEAN"}').replace(
        "return orders\n", "return orders.with_columns(more=True)\n"
    )
    jobs_file.write_text(wider)
    with open_log(shop.lake) as log:
        commit_orders(shop, log)
    with pytest.raises(PipelineError, match="headwater job reset copied"):
        run(shop, "copied")
    with open_log(shop.lake) as log:
        for name in ("copied", "counted", "audit"):
            api.reset_job(log, name)
            api.resume_job(log, name)
    run(shop)
    with open_log(shop.lake) as log:
        assert rows(log, "SELECT * EXCLUDE (more) FROM copied WHERE more") == rows(
            log, "SELECT id, customer_id, total, note FROM orders"
        )
    jobs_file.write_text(FILE)
    with open_log(shop.lake) as log:
        api.reset_job(log, "copied")
    run(shop)
    check(shop)
    with open_log(shop.lake) as log:
        create_view(log, "SELECT count(*) AS n, sum(total) AS total FROM copied", name="sums")
        pipeline.run(log, load(shop.folder).settings, threading.Event(), until_caught_up=True)
        api.reset_job(log, "copied")
        pipeline.run(log, load(shop.folder).settings, threading.Event(), until_caught_up=True)
        assert rows(log, "FROM sums") == Counter([(0, None)])
    run(shop)
    with open_log(shop.lake) as log:
        pipeline.run(log, load(shop.folder).settings, threading.Event(), until_caught_up=True)
        assert rows(log, "FROM sums") == rows(log, "SELECT count(*), sum(total) FROM orders")


@pytest.mark.usefixtures("jobs_file")
def test_a_dropped_job_leaves_its_output(shop: Shop) -> None:
    run(shop)
    with open_log(shop.lake) as log:
        jobs.register(log, jobs.JobRecord(name="next", inputs=("jobs.counted",), output="jobs.next"))
        with pytest.raises(UsageError, match=r"jobs\.counted is read by job next"):
            Lake(log).drop_topic("counted")
        jobs.forget(log, "next")
        api.drop_job(log, "counted")
        assert "counted" not in states(log)
        assert [t.name for t in log.topics(hidden=True) if t.name.endswith("~state")] == []
        assert rows(log, "SELECT count(*) FROM counted WHERE changes > 0") != Counter()
        for name in ("copied", "audit"):
            api.drop_job(log, name)
        commit_orders(shop, log)
        Lake(log).drop_topic("counted")
    run(shop)
    check(shop)


def test_jobs_are_loaded_anew_when_a_file_changes(shop: Shop, jobs_file: Path) -> None:
    """In one process that goes on: a mistake stops the jobs of its file only, until it is mended."""
    other = jobs_file.with_name("other.py")
    other.write_text(ONE.replace("copied", "again"))
    stop = threading.Event()
    with open_log(shop.lake) as log:
        project = load(shop.folder)
        thread = threading.Thread(target=worker.run, args=(log, project, stop))
        thread.start()
        try:
            until(lambda: set(states(log).values()) == {"live"} and jobs.reached(log, log.newest_commit()))
            other.write_text("import headwater as hw\n1 / 0\n")
            until(lambda: states(log)["again"] == "failed")
            assert "other.py, line 2" in jobs.find(log, "again").reason
            shop.commit(log)
            other.write_text(ONE.replace("copied", "again"))
            until(lambda: set(states(log).values()) == {"live"} and jobs.reached(log, log.newest_commit()))
            assert rows(log, "SELECT * FROM again") == rows(log, "SELECT * FROM copied")
            api.pause_job(log, "copied")
            api.reset_job(log, "copied")
            api.resume_job(log, "copied")
            until(lambda: jobs.position(log, "copied") is not None and jobs.reached(log, log.newest_commit()))
            assert rows(log, "SELECT * FROM again") == rows(log, "SELECT * FROM copied")
        finally:
            stop.set()
            thread.join()


def test_a_circle_is_refused(shop: Shop, jobs_file: Path) -> None:
    back = ONE.partition("@hw.job")[2].replace("copied", "back").replace('inputs="orders"', 'inputs="copied"')
    jobs_file.write_text(f"{ONE}\n\n@hw.job{back}")
    run(shop)
    with open_log(shop.lake) as log:
        assert rows(log, "SELECT * FROM back") == rows(log, "SELECT * FROM orders")
    jobs_file.write_text(jobs_file.read_text().replace('inputs="orders"', 'inputs=["jobs.back"]', 1))
    with pytest.raises(
        PipelineError, match="what it writes: jobs.copied → jobs.back → jobs.copied".replace(".", r"\.")
    ):
        run(shop)


@pytest.mark.usefixtures("jobs_file")
def test_up_waits_for_jobs(shop: Shop) -> None:
    """`up --until-caught-up` is over when jobs have taken in what there was, those of others' outputs included."""
    with open_log(shop.lake) as log:
        shop.commit(log)
        assert CaughtUp(log, {}).poll(), "nobody has told of any job"
        log.live.beat("pipeline:main", state="idle")
        assert not CaughtUp(log, {}, ["pipeline:main", "jobs:main"]).poll(), "jobs have not begun"
    run(shop)
    with open_log(shop.lake) as log:
        log.live.beat("jobs:main", state="running")
        caught_up = CaughtUp(log, {}, ["pipeline:main", "jobs:main"])
        assert caught_up.poll()
        commit_orders(shop, log)
        again = CaughtUp(log, {}, ["pipeline:main", "jobs:main"])
        assert not again.poll()
        api.pause_job(log, "copied")
        assert again.left_behind() == {"job copied stopped": "paused by hand"}
        jobs.set_state(log, "audit", "waiting", "there is no table or view orders")
        assert "job audit waits" in again.left_behind()


@pytest.mark.usefixtures("jobs_file")
def test_up_does_not_wait_for_jobs_that_nobody_runs(shop: Shop) -> None:
    run(shop)
    with open_log(shop.lake) as log:
        commit_orders(shop, log)
        assert CaughtUp(log, {}).poll(), "there is no process for jobs"


def test_an_input_counts_from_the_moment_it_is_there(shop: Shop) -> None:
    """By a short name too, of which a job was told before its table was there: nobody takes it for caught up."""
    with open_log(shop.lake) as log:
        jobs.register(log, jobs.JobRecord(name="early", inputs=("payments",), output="jobs.early", state="waiting"))
        assert jobs.reached(log, log.newest_commit())
        Lake(log).create_topic("web.payments", {"id": "BIGINT"})
        assert not jobs.reached(log, log.newest_commit())


def test_what_a_job_waits_for_is_said(shop: Shop, jobs_file: Path) -> None:
    late = ONE.replace("copied", "late").replace('inputs="orders"', 'inputs="payments"')
    jobs_file.with_name("late.py").write_text(late)
    with pytest.raises(PipelineError) as told:
        run(shop)
    assert str(told.value) == "job late waits: there is no table or view payments."
    with open_log(shop.lake) as log:
        assert states(log) == {"audit": "live", "copied": "live", "counted": "live", "late": "waiting"}


@pytest.mark.usefixtures("jobs_file")
def test_a_job_of_another_process_is_waited_for(shop: Shop) -> None:
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logs.logger().addHandler(handler)
    logs.logger().setLevel(logging.INFO)
    with open_log(shop.lake) as log:
        try:
            with own(log, "job:copied"):
                thread = threading.Thread(target=run, args=(shop,))
                thread.start()
                who = f"job:copied is already running as process {os.getpid()}"
                until(lambda: f"{who}: waiting until it has taken in what is there\n" in said.getvalue())
            thread.join()
        finally:
            logs.logger().removeHandler(handler)
    assert said.getvalue().count("already running") == 1
    check(shop)


def test_what_no_file_declares_any_more_is_said(shop: Shop, jobs_file: Path) -> None:
    run(shop)
    jobs_file.unlink()
    stop = threading.Event()
    with open_log(shop.lake) as log:
        thread = threading.Thread(target=worker.run, args=(log, load(shop.folder), stop))
        thread.start()
        try:
            until(lambda: set(states(log).values()) == {"failed"})
            assert "headwater job drop copied" in jobs.find(log, "copied").reason
            jobs_file.write_text(FILE)
            until(lambda: set(states(log).values()) == {"live"})
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"inputs": []}, "inputs must be"),
        ({"inputs": ["orders", "orders"]}, "inputs must be"),
        ({"output": "views.mine"}, "means something else"),
        ({"output": "a b"}, "no topic's name"),
        ({"key": "id", "columns": {"n": "BIGINT"}}, "key column id is not in columns"),
        ({"state": {"id": "BIGINT"}}, "belong together"),
        ({"state": {"id": "BIGINT"}, "state_key": "id"}, "no columns beside its key"),
        ({"batch_rows": 0}, "batch_rows = 0"),
        ({"start": "now"}, "start = 'now'"),
        ({"inputs": ["orders", "customers", "more"]}, "must take 3 frames"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_declared(arguments: dict[str, Any], what: str) -> None:
    declared: dict[str, Any] = {"inputs": "orders", "output": "mine", **arguments}
    with pytest.raises(UsageError, match=what) as refused:

        @hw.job(**declared)
        def mine(orders: pl.DataFrame) -> pl.DataFrame:
            return orders

    assert "test_jobs.py, line" in refused.value.where
