"""How much flows and how late it is: of each topic and view, over a stretch of time, out of the committed history.

Nothing is collected meanwhile: every record bears the commit that brought it and, where its source says so, when it was
committed there; every step of the pipeline is a commit, too. So the rates of any past moment can be asked for as well.

    lag of a topic   from the source's commit of a change to ours
    lag of a view    from the source's commit of a change to the step in which the view has taken it in
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import duckdb
import pyarrow as pa
from sqlalchemy import select

from headwater import duck
from headwater import position as positions
from headwater.catalog import tables
from headwater.catalog.records import Batch, Segment, Topic
from headwater.lake.plot.encoding import stretch
from headwater.log import read

if TYPE_CHECKING:
    from headwater.lake.lake import Lake

POINTS_MAX: Final = 120
"""Buckets of a window, at most, while their steps are those of a clock."""
_STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 300, 600, 900, 1800, 3600)
RECORDS_MAX: Final = 5_000_000
"""Records of one topic that are looked at; of a window with more, the newest."""
SECOND: Final = 1_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Bucket:
    """A stretch of time from ``start`` (microseconds since 1970); ``lag_ms``: its 95th percentile, None without any."""

    start: int
    rows: int
    bytes: float
    lag_ms: float | None


@dataclass(frozen=True)
class Rate:
    """Of one topic or view. ``lag_ms``: the 50th, 95th and 99th percentile, None where nobody says when it began.

    ``whole`` is false where the window had more records than are looked at: then the rates are too low.
    """

    name: str
    kind: str
    rows: int
    rows_per_s: float
    bytes_per_s: float
    lag_ms: tuple[float, float, float] | None
    buckets: tuple[Bucket, ...]
    whole: bool = True


@dataclass(frozen=True)
class Span:
    """Full buckets between two moments, and the commits (after, upto] that may lie in them. Microseconds."""

    start: int
    end: int
    step: int
    after: int
    upto: int

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / SECOND


@dataclass(frozen=True)
class Records:
    """What is read of a topic; ``whole``: that is all of the span's."""

    plan: read.Plan
    whole: bool


class Flow:
    """Measures a lake's topics and views. Thread-safe as the lake is."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._lineage: tuple[tuple[int, ...], Mapping[str, Sequence[str]]] = ((), {})

    def span(self, window: str, at: positions.Position = None) -> Span:
        """The window that ends now, or at the time of a position; at whole buckets, of which the last is over."""
        log = self.lake.log
        width = stretch(window)
        longest = -(-width // (SECOND * POINTS_MAX))  # seconds
        seconds = next((each for each in _STEPS_S if each >= longest), longest)
        step = seconds * SECOND
        upto = self.lake.position() if at is None else positions.resolve(log, at)
        now = log.clock.now_us() if at is None else _micros(self.lake.time_of(upto)) + step if upto else step
        end = now // step * step
        start = end - -(-width // step) * step
        after = log.commit_at_time(EPOCH + timedelta(microseconds=start - 1))
        return Span(start, end, step, after, upto)

    def measured(self, span: Span) -> list[Rate]:
        """Every topic and view that had records in the span; the busiest first."""
        log = self.lake.log
        topics = [topic for topic in log.topics(span.upto) if topic.kind != "system"]
        with duck.connect(timezone=log.timezone) as own:
            found = {topic.name: _records(self.lake, own, topic, span, n) for n, topic in enumerate(topics)}
            known = {name: plan for name, plan in found.items() if plan is not None}
            rates = [
                _topic(own, topic, known[topic.name], span, n) for n, topic in enumerate(topics) if topic.name in known
            ]
            lags = self._views(own, [topic.name for topic in topics], known, span)
        every = [_with_lag(rate, lags.get(rate.name)) for rate in rates]
        return sorted((rate for rate in every if rate.rows or rate.lag_ms), key=lambda each: (-each.rows, each.name))

    def _views(
        self, own: duckdb.DuckDBPyConnection, names: Sequence[str], known: Mapping[str, Records], span: Span
    ) -> dict[str, tuple[Sequence[float], dict[int, float]]]:
        """Of each view the percentiles of its lag, in all and (the 95th) by bucket."""
        log = self.lake.log
        steps = self._steps(span)
        if not steps:
            return {}
        own.register("hw_steps", pa.Table.from_pylist(steps, _STEPS))
        found = {}
        for view in log.views(span.upto):
            bases = [f"records_{names.index(each)}" for each in _bases(view.name, self._read()) if each in known]
            if not bases:
                continue
            every = " UNION ALL ".join(
                f"SELECT _commit, coalesce(_committed_at, _ingested_at) AS began FROM {each}" for each in bases
            )
            rows = own.execute(
                f"WITH seen AS ({every}), lags AS (SELECT (published - epoch_us(began)) / 1e3 AS lag,"
                " (published - $start) // $step AS bucket FROM seen ASOF JOIN"
                " (SELECT input, min(published) AS published FROM hw_steps WHERE view = $view GROUP BY input) s"
                " ON seen._commit <= s.input)"
                " SELECT bucket, quantile_cont(lag, [0.5, 0.95, 0.99]) FROM lags"
                " GROUP BY GROUPING SETS ((), (bucket)) HAVING count(*) > 0",
                {"view": view.id, "start": span.start, "step": span.step},
            ).fetchall()
            if rows:
                whole = next((lag for bucket, lag in rows if bucket is None), None)
                assert whole is not None
                found[f"views.{view.name}"] = (whole, {bucket: lag[1] for bucket, lag in rows if bucket is not None})
        return found

    def _steps(self, span: Span) -> list[dict[str, int]]:
        """A row for each step of the span and view that it refreshed, with the time of its commit."""
        log, commit = self.lake.log, tables.commit
        before = log.last_step(span.after)
        query = select(commit.c.number, commit.c.time).where(commit.c.number > span.after, commit.c.number <= span.upto)
        with log.catalog.read() as connection:
            times: dict[int, int] = {row.number: row.time for row in connection.execute(query)}
        return [
            {"view": view, "input": step.input_commit, "published": times[step.publish_commit]}
            for step in log.steps(before.number if before else 0)
            if step.publish_commit in times
            for view in step.views
        ]

    def _read(self) -> Mapping[str, Sequence[str]]:
        """What each view reads; asked again when the views are others, for that takes the compiler."""
        ids = tuple(view.id for view in self.lake.views())
        if self._lineage[0] != ids:
            self._lineage = (ids, self.lake.lineage())
        return self._lineage[1]


_STEPS = pa.schema([("view", pa.int64()), ("input", pa.int64()), ("published", pa.int64())])


def _micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _records(lake: Lake, own: duckdb.DuckDBPyConnection, topic: Topic, span: Span, place: int) -> Records | None:
    """Make the topic's records of the span readable as ``records_<place>``; None when there are none."""
    whole = read.plan(lake.log, topic, span.after, span.upto, skip_damaged=True)
    found = _bounded(whole)
    if not found.batches and not found.segments:
        return None
    source = read.relation_sql(lake.log, own, found, f"hot_{place}")
    committed = "_committed_at" if "_committed_at" in found.target.names else "NULL::TIMESTAMPTZ AS _committed_at"
    own.execute(
        f"CREATE TEMP TABLE records_{place} AS SELECT _commit, _ingested_at, {committed} FROM ({source})"
        f" WHERE _ingested_at >= make_timestamptz({span.start}) AND _ingested_at < make_timestamptz({span.end})"
    )
    return Records(found, found.rows == whole.rows)


def _bounded(found: read.Plan) -> read.Plan:
    """The newest parts of a plan, up to a number of records."""
    left = RECORDS_MAX
    kept: list[Batch | Segment] = []
    parts: list[Batch | Segment] = [*found.segments, *found.batches]
    for part in sorted(parts, key=_last_commit, reverse=True):
        if kept and part.rows > left:
            break
        kept.append(part)
        left -= part.rows
    chosen = set(kept)
    return replace(
        found,
        segments=tuple(each for each in found.segments if each in chosen),
        batches=tuple(each for each in found.batches if each in chosen),
    )


def _last_commit(part: Batch | Segment) -> int:
    return part.last_commit if isinstance(part, Segment) else part.commit


def _topic(own: duckdb.DuckDBPyConnection, topic: Topic, found: Records, span: Span, place: int) -> Rate:
    """Rows by bucket and percentiles of the lag. Bytes: the rows times the mean size of their stored records."""
    rows = own.execute(
        "SELECT (epoch_us(_ingested_at) - $start) // $step AS bucket, count(*),"
        " quantile_cont((epoch_us(_ingested_at) - epoch_us(_committed_at)) / 1e3, [0.5, 0.95, 0.99])"
        f" FROM records_{place} GROUP BY GROUPING SETS ((), (bucket))",
        {"start": span.start, "step": span.step},
    ).fetchall()
    stored = sum(part.bytes for part in found.plan.segments) + sum(part.byte_length for part in found.plan.batches)
    each = stored / max(1, found.plan.rows)
    ((_, count, lag),) = [row for row in rows if row[0] is None]
    by_bucket = {row[0]: row for row in rows if row[0] is not None}
    per_s = SECOND / span.step
    buckets = tuple(
        Bucket(span.start + n * span.step, hits, hits * per_s * each, late[1] if late else None)
        for n in range((span.end - span.start) // span.step)
        for _, hits, late in [by_bucket.get(n, (n, 0, None))]
    )
    return Rate(
        name=topic.name,
        kind=topic.kind,
        rows=count,
        rows_per_s=count / span.seconds,
        bytes_per_s=count * each / span.seconds,
        lag_ms=tuple(lag) if lag and lag[0] is not None else None,
        buckets=buckets,
        whole=found.whole,
    )


def _with_lag(rate: Rate, lag: tuple[Sequence[float], dict[int, float]] | None) -> Rate:
    """A view's rate with the lag of what it reads."""
    if lag is None:
        return rate
    whole, by_bucket = lag
    buckets = tuple(replace(each, lag_ms=by_bucket.get(n)) for n, each in enumerate(rate.buckets))
    return replace(rate, lag_ms=(whole[0], whole[1], whole[2]), buckets=buckets)


def _bases(view: str, reads: Mapping[str, Sequence[str]]) -> list[str]:
    """The topics at the bottom of a view, through all views that it reads."""
    found: dict[str, None] = {}
    seen, ahead = {view}, list(reads.get(view, ()))
    while ahead:
        name = ahead.pop()
        short_name = name.removeprefix("views.")
        if not name.startswith("views."):
            found[name] = None
        elif short_name not in seen:
            seen.add(short_name)
            ahead += reads.get(short_name, ())
    return list(found)
