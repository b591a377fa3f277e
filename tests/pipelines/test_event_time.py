"""Views with an event time, by the worker: at every step they are their SQL over the admitted rows, at its watermark.

The oracle follows the definition word by word: it goes through the commits one after the other, takes each as rows that
go and rows that come, and lets those pass that are not behind the watermark of the commits before it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headwater import duck, types
from headwater.catalog.records import Kind, to_micros
from headwater.config import Settings
from headwater.errors import StorageError
from headwater.lake import Lake
from headwater.log import Log, open_log, retention, seal
from headwater.ownership import own
from headwater.schema import Schema
from headwater.testing.writer import Writer
from headwater_pipelines import api
from headwater_pipelines.runtime import engine, registry, relation, worker
from headwater_pipelines.runtime.publish import PRODUCER
from headwater_pipelines.runtime.state import FILE, remove
from headwater_pipelines.runtime.worker import Worker

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
TABLES: dict[str, tuple[Kind, Schema]] = {
    "orders": (
        "table",
        Schema.of(id="BIGINT", k="VARCHAR", n="INTEGER", note="VARCHAR", ts="TIMESTAMP WITH TIME ZONE", key=["id"]),
    ),
    "visits": ("insert_only", Schema.of(k="VARCHAR", n="INTEGER", ts="TIMESTAMP WITH TIME ZONE")),
    "bag": ("multiset", Schema.of(k="VARCHAR", n="INTEGER", ts="TIMESTAMP WITH TIME ZONE")),
    "clicks": ("event", Schema.of(k="VARCHAR", n="INTEGER", ts="TIMESTAMP WITH TIME ZONE")),
}
VIEWS = {
    "orders_closed": "WITH (watermark = 'ts - INTERVAL 5 minutes') AS SELECT window_start, window_end, k,"
    " count(*) AS n, sum(n) AS s FROM TUMBLE(orders, ts, INTERVAL 10 MINUTE) GROUP BY ALL EMIT ON WINDOW CLOSE",
    "clicks_closed": "WITH (watermark = 'ts - INTERVAL 2 minutes', grace = '3 minutes') AS SELECT window_end, k,"
    " count(*) AS n FROM TUMBLE(clicks, ts, INTERVAL 10 MINUTE) GROUP BY ALL EMIT ON WINDOW CLOSE",
    "closed_max": "WITH (watermark = 'ts - INTERVAL 2 minutes') AS SELECT window_end, k, max(n) AS m"
    " FROM TUMBLE(clicks, ts, INTERVAL 5 MINUTE) GROUP BY ALL EMIT ON WINDOW CLOSE",
    "clicks_open": "WITH (watermark = 'ts - INTERVAL 2 minutes') AS SELECT window_end, k, max(n) AS m, count(*) AS n"
    " FROM TUMBLE(clicks, ts, INTERVAL 10 MINUTE) GROUP BY ALL",
    "orders_open": "WITH (watermark = 'ts - INTERVAL 2 minutes') AS SELECT window_end, k, max(n) AS m, count(*) AS n"
    " FROM TUMBLE(orders, ts, INTERVAL 10 MINUTE) GROUP BY ALL",
    "orders_admitted": "WITH (watermark = 'ts') AS SELECT id, k, n, note, ts FROM orders",
    "visits_open": "WITH (watermark = 'ts - INTERVAL 2 minutes') AS SELECT k, n, ts FROM visits",
    "bag_open": "WITH (watermark = 'ts - INTERVAL 2 minutes') AS SELECT window_end, k, max(n) AS m, count(*) AS n"
    " FROM TUMBLE(bag, ts, INTERVAL 10 MINUTE) GROUP BY ALL",
    "hop_closed": "WITH (watermark = 'ts - INTERVAL 1 minute') AS SELECT window_end, count(*) AS n"
    " FROM HOP(orders, ts, INTERVAL 5 MINUTE, INTERVAL 15 MINUTE) GROUP BY ALL EMIT ON WINDOW CLOSE",
    "session_closed": "WITH (watermark = 'ts - INTERVAL 1 minute') AS SELECT k, window_start, window_end, count(*) AS n"
    " FROM SESSION(clicks, ts, INTERVAL 4 MINUTE, k) GROUP BY ALL EMIT ON WINDOW CLOSE",
    "both": "WITH (watermark = 'orders: ts - INTERVAL 3 minutes; clicks: ts - INTERVAL 1 minute') AS SELECT o.k,"
    " o.window_end, o.n AS orders, c.n AS clicks FROM (SELECT k, window_end, count(*) AS n"
    " FROM TUMBLE(orders, ts, INTERVAL 10 MINUTE) GROUP BY ALL) o JOIN (SELECT k, window_end, count(*) AS n"
    " FROM TUMBLE(clicks, ts, INTERVAL 10 MINUTE) GROUP BY ALL) c USING (k, window_end) EMIT ON WINDOW CLOSE",
    "running": "WITH (watermark = 'ts - INTERVAL 2 minutes') AS SELECT k, n, ts FROM clicks"
    " WHERE ts > watermark() - INTERVAL 20 MINUTE",
    "alive": "WITH (watermark = 'orders: ts; clicks: ts - INTERVAL 1 minute', ttl = '15 minutes') AS SELECT o.k,"
    " o.id, c.n, c.ts FROM orders o LEFT JOIN clicks c ON c.k = o.k AND c.n = o.n",
    "alive_max": "WITH (watermark = 'ts', ttl = '12 minutes') AS SELECT k, max(n) AS m, min(ts) AS t, count(*) AS n"
    " FROM clicks GROUP BY k",
}  # fmt: skip
Rows = dict[str, Counter[tuple[Any, ...]]]


class Stream:
    """Random commits in which time goes on, rows come out of order, some much too late; and what they admit."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.log = open_log(folder, create=True)
        self.rows: dict[str, dict[int, tuple[Any, ...]]] = {name: {} for name in TABLES}
        self.deltas: dict[int, Rows] = {}
        self.times: dict[int, dict[str, list[int]]] = {}
        """Of every commit and table, the times in its records."""
        self.minutes = self.number = 0
        self.settings = Settings(open_rows_max=8) if seed % 2 else Settings()
        self.open = ExitStack()
        self.worker: Worker | None = None
        self.seen_late, self.seen_rows = False, set[str]()
        with own(self.log, "source:web") as owner:
            self.epoch = owner.epoch
            with self.log.transaction("source:web", self.epoch, None) as tx:
                for name, (kind, schema) in TABLES.items():
                    tx.create_topic(f"web.public.{name}", kind, schema, source="web")
                tx.position = "0"
                self.first = tx.commit().number

    def create(self, *names: str) -> None:
        for name in names:
            api.create_view(self.log, f"CREATE MATERIALIZED VIEW {name} {VIEWS[name]}")

    # ---- the writer

    def commit(self) -> None:
        """One source commit."""
        self.minutes += self.rng.choice([0, 1, 1, 3, 8])
        position = self.log.producer("source:web").position
        delta: Rows = {}
        times: dict[str, list[int]] = {}
        with self.log.transaction("source:web", self.epoch, position) as tx:
            chosen = [("orders",), ("clicks",), ("orders", "clicks"), ("visits", "orders"), ("bag", "clicks")]
            for name in self.rng.choice(chosen):
                before = Counter(self.rows[name].values())
                records = [self.change(name) for _ in range(self.rng.randrange(1, 6))]
                delta[name] = Counter(self.rows[name].values())
                delta[name].subtract(before)
                times[name] = [to_micros(each["ts"]) for each in records if each.get("ts")]
                tx.append(f"web.public.{name}", self.table(name, records))
            tx.position = str(int(position or 0) + 1)
            number = tx.commit().number
            self.deltas[number], self.times[number] = delta, times

    def change(self, name: str) -> dict[str, Any]:
        rows, pick = self.rows[name], self.rng
        back = pick.choice([0, 0, 0, 1, 2, 4, 9, 30])
        ts = (
            None if pick.random() < 0.05 else START + timedelta(minutes=self.minutes - back, seconds=pick.randrange(60))
        )
        values = {"k": pick.choice("ab"), "n": pick.randrange(5), "ts": ts}
        if name == "visits" and pick.random() < 0.05:
            rows.clear()
            return {"_op": "t"}
        if name == "bag" and rows and pick.random() < 0.3:
            gone = dict(zip(values, rows.pop(pick.choice(list(rows))), strict=True))
            return {**gone, "_op": "d", "_weight": -1}
        if name != "orders":
            self.number += 1
            rows[self.number] = tuple(values.values())
            return {**values, "_op": "c", "_weight": 1}
        key = pick.randrange(25)
        note = pick.choice(["x", "y"])
        fresh = {"id": key, "k": values["k"], "n": values["n"], "note": note, "ts": ts}
        if key not in rows:
            op = "c"
        elif pick.random() < 0.3:
            del rows[key]
            return {"id": key, "_op": "d"}
        else:
            op = "u"
            if pick.random() < 0.3:
                fresh = {**fresh, "ts": rows[key][4]}
            if pick.random() < 0.5:  # the source does not send what did not change
                rows[key] = (*tuple(fresh.values())[:3], rows[key][3], fresh["ts"])
                return {**fresh, "note": None, "_op": op, "_unchanged": ["note"]}
        rows[key] = tuple(fresh.values())
        return {**fresh, "_op": op}

    def table(self, name: str, records: list[dict[str, Any]]) -> pa.Table:
        kind, schema = TABLES[name]
        columns: dict[str, Any] = {
            field.name: pa.array([row.get(field.name) for row in records], types.arrow_type(field.type))
            for field in schema.fields
        }
        if kind != "event":
            columns["_op"] = pa.array([row["_op"] for row in records])
        if kind == "multiset":
            columns["_weight"] = pa.array([row["_weight"] for row in records], pa.int64())
        if kind == "table":
            columns["_unchanged"] = pa.array([row.get("_unchanged") for row in records], pa.list_(pa.string()))
        columns["_seq"] = pa.array(range(len(records)), pa.int64())
        return pa.table(columns)

    # ---- the pipeline

    def run(self) -> None:
        """Until all is taken in, by a worker that stays."""
        if self.worker is None:
            owner = self.open.enter_context(own(self.log, PRODUCER))
            self.worker = Worker(self.log, owner.epoch, self.settings)
            self.open.callback(self.worker.close)
        self.worker.run(threading.Event(), self.log.newest_commit())

    def end(self) -> None:
        """End the worker; the next is another one."""
        self.open.close()
        self.worker = None

    # ---- the oracle

    def admitted(self, delays: dict[str, int], grace: int, upto: int) -> tuple[Rows, Rows, int | None]:
        """The admitted rows, the late ones and the watermark after commit ``upto``; no topic is ever idle."""
        rows: Rows = {name: Counter() for name in delays}
        late: Rows = {name: Counter() for name in delays}
        tops: dict[str, int] = {}
        mark: int | None = None
        for number, delta in self.deltas.items():
            if number > upto:
                break
            for name in delta.keys() & delays.keys():
                for row, weight in delta[name].items():
                    time = None if row[-1] is None else to_micros(row[-1])
                    behind = time is not None and mark is not None and time < mark - grace
                    (late if behind else rows)[name][row] += weight
            for name in delta.keys() & delays.keys():
                tops[name] = max([*self.times[number][name], tops.get(name, -(2**62))])
            low = min((tops[name] - delays[name] for name in tops), default=None)
            if low is not None and low > -(2**61):
                mark = low if mark is None else max(mark, low)
        return rows, late, mark

    def check(self, *names: str) -> None:
        """Every step of these views."""
        compiled, _ = registry.compile_all(self.log, self.log.views())
        for view in self.log.views():
            if view.name in names:
                for step in self.log.steps():
                    if view.id in step.views:
                        self.compare(compiled[view.id], view.id, step)

    def compare(self, view: Any, number: int, step: Any) -> None:
        timed = view.event_time
        delays = {each.name.rpartition(".")[2]: each.delay_us for each in timed.columns}
        rows, late, mark = self.admitted(delays, timed.grace_us, step.input_commit)
        assert step.watermarks.get(number) == mark, (view.name, step)
        oracle = duck.connect(timezone="UTC")
        value = "'-infinity'::TIMESTAMPTZ" if mark is None else f"make_timestamptz({mark})"
        oracle.execute(f"CREATE MACRO watermark() AS {value}")
        for name, there in rows.items():
            assert min(there.values(), default=0) >= 0, (name, there)
            schema = TABLES[name][1]
            oracle.execute(f"CREATE TABLE {name} ({', '.join(f'{f.name} {f.type}' for f in schema.fields)})")
            values = [row for row, weight in there.items() for _ in range(weight)]
            if values:
                columns = zip(schema.fields, zip(*values, strict=True), strict=True)
                shown = {f.name: pa.array(each, types.arrow_type(f.type)) for f, each in columns}
                oracle.register("shown", pa.table(shown))
                oracle.execute(f"INSERT INTO {name} FROM shown")
        wanted = Counter(map(repr, oracle.execute(view.query).fetchall()))
        topic = self.log.topic(f"views.{view.name}")
        out = self.log.read_changes(topic.name, 0, step.publish_commit, [*topic.schema.names, "_weight"])
        oracle.register("changes_out", out)
        lifted = ", ".join(f"{types.lift_sql(f.name, f.type)} AS {types.quote(f.name)}" for f in topic.schema.fields)
        found = Counter[str]()
        for row in oracle.execute(f"SELECT {lifted}, _weight FROM changes_out").fetchall():
            found[repr(row[:-1])] += row[-1]
        self.seen_rows |= {view.name} if wanted else set()
        assert wanted == +found, f"{view.name} at {step}: missing {wanted - found}, extra {found - wanted}"[:1500]
        assert not -found
        self.compare_late(view, step, late)

    def compare_late(self, view: Any, step: Any, late: Rows) -> None:
        out = self.log.read_changes(f"views.{view.name}.late", 0, step.publish_commit).to_pylist()
        found = Counter[tuple[str, str]]()
        for row in out:
            sign = 1 if row["change"] == "insert" else -1
            found[row["topic"].rpartition(".")[2], str(row["event_time"])] += sign * row["copies"]
        wanted = Counter[tuple[str, str]]()
        for name, rows in late.items():
            for row, weight in rows.items():
                wanted[name, str(row[-1])] += weight
        self.seen_late |= bool(out)
        assert {k: v for k, v in found.items() if v} == {k: v for k, v in wanted.items() if v}, (view.name, step)


@pytest.fixture
def stream(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    print("seed", seed)
    monkeypatch.setattr(relation, "LOOKUP_SHARE", 0)
    monkeypatch.setattr(relation, "SPARSE_ROWS", 30)
    made = Stream(tmp_path / "lake", seed)
    yield made
    made.end()
    made.log.close()


def play(stream: Stream, names: list[str], runs: int) -> None:
    stream.create(*names)
    stream.run()
    for _ in range(runs):
        for _ in range(stream.rng.choice([1, 1, 2, 8])):
            stream.commit()
        stream.run()
    stream.check(*names)


def test_views_are_right_at_every_step(stream: Stream) -> None:
    play(stream, stream.rng.sample(list(VIEWS), 2), 5)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_all_views_are_right_at_every_step(stream: Stream) -> None:
    play(stream, list(VIEWS), 12)
    assert stream.seen_late
    assert stream.seen_rows >= set(VIEWS) - {"both"}, "there was something to be right about"


def test_a_view_that_comes_later_is_what_it_would_have_been(stream: Stream) -> None:
    """Filled between two steps, or beside them, paused and resumed: the watermark and the late rows are the same."""
    name = stream.rng.choice([name for name in VIEWS if name != "orders_open"])
    print(name)
    for _ in range(15):
        stream.commit()
    stream.create(name)
    stream.run()
    api.pause_view(stream.log, name)
    stream.run()
    for _ in range(15):
        stream.commit()
    stream.run()
    api.resume_view(stream.log, name)
    stream.run()
    stream.commit()
    stream.end()
    stream.settings = Settings(fill_beside_rows_min=1)
    stream.create("orders_open")
    stream.run()
    stream.commit()
    stream.run()
    stream.check(name, "orders_open")
    api.rename_view(stream.log, name, "renamed")
    stream.run()
    stream.check("renamed")
    topics = {topic.name for topic in stream.log.topics()}
    assert "views.renamed.late" in topics
    assert f"views.{name}.late" not in topics


def test_a_lost_state_is_rebuilt_to_the_same(stream: Stream) -> None:
    names = stream.rng.sample(list(VIEWS), 2)
    stream.create(*names)
    for _ in range(3):
        stream.commit()
        stream.commit()
        stream.run()
    stream.end()
    remove(stream.folder / "state" / FILE)
    changes = {name: stream.log.read_changes(f"views.{name}", 0, stream.log.newest_commit()).num_rows for name in names}
    stream.run()
    assert changes == {
        name: stream.log.read_changes(f"views.{name}", 0, stream.log.newest_commit()).num_rows for name in names
    }, "nothing is published anew"
    stream.commit()
    stream.run()
    stream.check(*names)


def test_a_step_that_was_not_published_keeps_its_watermark_and_its_late_rows(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(*_: object) -> None:
        raise StorageError("the machine died")

    names = stream.rng.sample(list(VIEWS), 2)
    stream.create(*names)
    stream.run()
    for _ in range(3):
        for _ in range(3):
            stream.commit()
        monkeypatch.setattr(engine, "publish", died)
        with pytest.raises(StorageError):
            stream.run()
        monkeypatch.undo()
        stream.end()
        stream.commit()
        stream.run()
    stream.check(*names)


@pytest.mark.parametrize("beside", [pytest.param(False, marks=pytest.mark.long), True])
def test_what_is_behind_the_watermark_is_forgotten_but_not_by_views_to_come(
    stream: Stream, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State holds the rows of windows that are open; a view over closed ones is filled with all of them."""
    monkeypatch.setattr(relation, "SPARSE_ROWS", 8)
    stream.settings = Settings()
    stream.create("clicks_closed", "alive_max", "closed_max")
    stream.run()
    stored, clicks = {"": 1}, 0
    for _ in range(12):  # it goes when an open part has doubled, which may be a while after the last time
        for _ in range(20):
            stream.commit()
        stream.run()
        clicks = len(stream.rows["clicks"])
        stored = {table: each["rows"] for table, each in stream.log.live.stored("pipeline:main").items()}
        if clicks > 100 and max(stored.values()) < clicks / 2:
            break
    assert max(stored.values()) < clicks / 2, (stored, clicks)
    if beside:
        stream.end()
        stream.settings = Settings(fill_beside_rows_min=1)
    api.create_view(stream.log, "SELECT * FROM clicks_closed", name="reader")
    api.create_view(stream.log, "SELECT k, sum(m) AS m FROM closed_max GROUP BY k", name="sums")
    stream.run()
    stream.commit()
    stream.run()
    if not beside:
        api.replace_view(stream.log, f"CREATE MATERIALIZED VIEW clicks_closed {VIEWS['clicks_closed']} -- again")
        new = VIEWS["closed_max"].replace("max(n) AS m", "min(n) AS m")
        api.replace_view(stream.log, f"CREATE MATERIALIZED VIEW closed_max {new}")
        stream.run()
        stream.commit()
        stream.run()
    stream.check("clicks_closed", "alive_max")
    lake = Lake(stream.log)
    for left, right in (
        ("reader", "clicks_closed"),
        ("sums", "(SELECT k, sum(m) AS m FROM closed_max GROUP BY k)"),
    ):
        for one, other in ((left, right), (right, left)):
            assert lake.sql(f"SELECT * FROM {one} EXCEPT ALL SELECT * FROM {other}").fetchall() == []
    assert lake.sql("SELECT count(*) FROM reader").fetchall()[0][0] > 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_anywhere(stream: Stream, command: Path, tmp_path: Path) -> None:
    """kill -9 of a real worker at random points, each over the leavings of the one before."""
    (tmp_path / "headwater.toml").write_text('[project]\nname = "web"\n')

    def run(failpoints: str) -> int:
        argv = [str(command), "views", "--until-caught-up", "--project", str(tmp_path)]
        environment = {**os.environ, "HEADWATER_FAILPOINTS": failpoints, "HEADWATER_OPEN_ROWS_MAX": "2"}
        done = subprocess.run(argv, check=False, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode

    stream.create(*VIEWS)
    stream.commit()
    file = tmp_path / "points"
    assert run(f"record:{file}") == 0
    points = file.read_text().split()
    killed = 0
    for _ in range(12):
        stream.commit()
        stream.commit()
        name = stream.rng.choice(sorted(set(points)))
        killed += run(f"kill:{name}:{stream.rng.randrange(1, points.count(name) + 1)}") != 0
    assert run("") == 0
    assert killed
    stream.check(*VIEWS)


class SetClock:
    """A clock that shows what it is set to."""

    now = START

    def now_us(self) -> int:
        return to_micros(self.now)


def test_what_is_idle_does_not_hold_the_watermark_back(tmp_path: Path) -> None:
    """A table that is silent, or a partition: it counts until others have been ingested for longer than ``idle``."""
    clock = SetClock()
    with open_log(tmp_path / "lake", create=True, clock=clock) as log:
        with own(log, "source:web") as owner, log.transaction("source:web", owner.epoch, None) as tx:
            for name in ("a", "b"):
                tx.create_topic(f"web.public.{name}", "event", Schema.of(ts="TIMESTAMP"), partitions=2, source="web")
            tx.position = "0"
            tx.commit()
        options = {
            "tables": "WITH (watermark = 'a: ts; b: ts', idle = '1 minute') AS SELECT ts FROM a"
            " UNION ALL SELECT ts FROM b",
            "each": "WITH (watermark = 'ts', idle = '1 minute', watermark_by = 'partition') AS SELECT ts FROM a",
            "one": "WITH (watermark = 'ts') AS SELECT ts FROM a",
        }
        for name, rest in options.items():
            api.create_view(log, f"CREATE MATERIALIZED VIEW {name} {rest}")

        def send(table: str, partition: int, minutes: int) -> dict[str, int]:
            """The views' watermarks, in minutes, after a row of so many minutes."""
            with own(log, "source:web") as owner, log.transaction("source:web", owner.epoch, position()) as tx:
                time = pa.array([START.replace(tzinfo=None) + timedelta(minutes=minutes)], pa.timestamp("us"))
                tx.append(f"web.public.{table}", pa.table({"ts": time}), partition)
                tx.position = str(int(position() or 0) + 1)
                tx.commit()
            worker.run(log, Settings(), threading.Event(), until_caught_up=True)
            step = log.last_step()
            assert step is not None
            names = {view.id: view.name for view in log.views()}
            return {names[v]: (micros - to_micros(START)) // 60_000_000 for v, micros in step.watermarks.items()}

        def position() -> str | None:
            return log.producer("source:web").position

        assert send("a", 0, 10) == {"tables": 10, "each": 10, "one": 10}
        assert send("b", 0, 3) == {"tables": 10, "each": 10, "one": 10}, "it never goes back"
        assert send("a", 1, 12) == {"tables": 10, "each": 10, "one": 12}
        assert send("a", 0, 20) == {"tables": 10, "each": 12, "one": 20}
        clock.now = START + timedelta(seconds=70)
        assert send("a", 0, 22) == {"tables": 22, "each": 22, "one": 22}, "b, and partition 1, are idle"
        assert send("a", 1, 21) == {"tables": 22, "each": 22, "one": 22}
        assert send("b", 0, 25) == {"tables": 22, "each": 22, "one": 22}
        assert send("a", 0, 30) == {"tables": 25, "each": 22, "one": 30}


def test_a_view_is_built_over_a_base_where_history_has_been_removed(tmp_path: Path) -> None:
    """What came late is known no more: all rows of the base are admitted, and what comes after is judged by them."""
    clock, schema = SetClock(), Schema.of(id="BIGINT", ts="TIMESTAMP", key=["id"])
    day = timedelta(days=1)
    limits = Settings(time_travel_s=day.total_seconds(), history_s=day.total_seconds(), base_rows_min=10**9)
    with open_log(tmp_path / "lake", create=True, clock=clock) as log:
        writer = Writer(log)
        writer.create("web.public.t", "table", schema)

        def write(key: int, days: int, op: str = "c") -> None:
            time = pa.array([START.replace(tzinfo=None) + days * day], pa.timestamp("us"))
            writer.write("web.public.t", pa.table({"id": [key], "ts": time, "_op": [op]}))
            seal.seal(log, limits)
            clock.now += day

        api.create_view(
            log, "CREATE MATERIALIZED VIEW v WITH (watermark = 'ts - INTERVAL 2 days') AS SELECT id, ts FROM t"
        )
        for key, days in enumerate((1, 5, 2, 6)):
            write(key, days)
        worker.run(log, limits, threading.Event(), until_caught_up=True)
        assert ids(log) == [0, 1, 3]
        clock.now += 3 * day
        assert retention.retain(log, limits)
        remove(tmp_path / "lake" / "state" / FILE)
        worker.run(log, limits, threading.Event(), until_caught_up=True)
        assert ids(log) == [0, 1, 2, 3]
        write(1, 7, "u")
        write(4, 3)
        worker.run(log, limits, threading.Event(), until_caught_up=True)
        assert ids(log) == [0, 1, 2, 3]
        assert Lake(log).sql("SELECT epoch_us(max(ts)) FROM v WHERE id = 1").fetchall() == [
            (to_micros(START + 7 * day),)
        ]
        assert Lake(log).sql("SELECT count(*) FROM v.late").fetchall() == [(2,)]


def ids(log: Log) -> list[int]:
    return [row[0] for row in Lake(log).sql("SELECT DISTINCT id FROM v ORDER BY id").fetchall()]
