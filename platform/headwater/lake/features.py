"""Features at a point in time: for each label, what tables and views said when the label was made.

    label's time ──▶ commit c (the newest at or before it) ──▶ rows of the label's key at c, in each table

What was committed after c plays no part, whatever its own columns say of its time: an event that came late is not in
the features of a label that was made before it came. So each label's features are what ``lake.at(time)`` gives for its
key, for all labels at once.

    rows at the oldest label's commit ─┐
                                       ├─▶ versions: a row, from one commit until another ──▶ joined with the labels
    records of the commits after it  ──┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa

from headwater import record
from headwater.errors import Expired, NotYet, SqlError, UnknownColumn, UsageError
from headwater.lake.history import filled
from headwater.lake.result import Asked, Result, Rows, fetch
from headwater.log import generations, moves, read
from headwater.log.names import near
from headwater.types import lift_sql, quote

if TYPE_CHECKING:
    from headwater.catalog.records import Topic
    from headwater.lake.answer import Answers
    from headwater.lake.lake import Lake

KINDS: Final = ("table", "changelog", "event")
_PAGE: Final = 100_000
_CARRIED: Final = (record.OP, record.LSN, record.SEQ, record.UNCHANGED, record.PARTITION, record.OFFSET, record.COMMIT)


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One table or view: its columns that are wanted, those that the labels name, and the one that is its own time."""

    topic: Topic
    columns: tuple[str, ...]
    matched: tuple[str, ...]
    event_time: str | None

    @classmethod
    def of(cls, topic: Topic, columns: Sequence[str] | None, on: Sequence[str], event_time: str | None) -> Feature:
        """Checked; UsageError and UnknownColumn say what does not fit."""
        names, key = topic.schema.names, topic.schema.key
        if topic.kind not in KINDS or (topic.kind == "changelog" and not key):
            raise UsageError(
                f"{topic.name} has no key, so it has no one row for a label",
                todo="Make a view of it that groups by one.",
            )
        matched = tuple(on) if set(on) <= set(names) else tuple(key)
        if len(matched) != len(on):
            raise UsageError(
                f"{topic.name} has no columns {', '.join(on)}, and its key is {', '.join(key) or 'none'}",
                todo="Name the labels' columns like the table's, or as many as its key has.",
            )
        if event_time is None and topic.kind != "event" and set(matched) != set(key):
            raise UsageError(
                f"{topic.name} may have many rows for one {', '.join(on)}: its key is {', '.join(key)}",
                todo=f"Make a view of it that groups by {', '.join(on)}, or say which is the newest: event_time=.",
            )
        wanted = tuple(name for name in names if name not in matched) if columns is None else tuple(columns)
        for name in (*wanted, *([event_time] if event_time else [])):
            if name not in names:
                raise UnknownColumn(
                    f'{topic.name} has no column "{name}"', suggestion=next(iter(near(name, names)), "")
                )
        return cls(topic=topic, columns=wanted, matched=matched, event_time=event_time)


def as_of(
    lake: Lake,
    answers: Answers,
    labels: Any,
    features: Mapping[str, Sequence[str] | None] | Sequence[str],
    on: str | Sequence[str],
    time: str,
    event_time: Mapping[str, str],
    upto: int,
) -> Result:
    """See ``Lake.as_of``; ``upto`` is the newest commit that may be seen."""
    given = _table(labels)
    keys = [on] if isinstance(on, str) else list(on)
    for name in (*keys, time):
        if name not in given.column_names:
            raise UnknownColumn(
                f'the labels have no column "{name}"', suggestion=next(iter(near(name, given.column_names)), "")
            )
    asked = features if isinstance(features, Mapping) else dict.fromkeys(features)
    found = {name: answers.log.topic(name, upto) for name in asked}
    unknown = set(event_time) - set(found)
    if unknown:
        raise UsageError(
            f"event_time names {sorted(unknown)[0]}, which is no feature", todo="Name it among the features."
        )
    parts = [Feature.of(found[name], columns, keys, event_time.get(name)) for name, columns in asked.items()]
    cursor = answers.memory.cursor()
    try:
        types = [str(kind) for kind in cursor.from_arrow(given).types]
        first = _place_labels(answers, cursor, given, keys, time, upto)
        table = given
        for part in parts:
            rows, own = _joined(answers, cursor, part, first, upto)
            for name, kind in zip(rows.column_names, own, strict=True):
                label = name if name not in table.column_names else f"{part.topic.name.rpartition('.')[2]}_{name}"
                table = table.append_column(label, rows.column(name))
                types.append(kind)
    except duckdb.Error as error:
        raise SqlError(str(error), todo="Check that the labels' columns have the types of the tables'.") from error
    finally:
        cursor.execute("DROP TABLE IF EXISTS asof_labels")
    return Result(lake, Asked(), Rows(table, table.num_rows), types, upto, upto)


def _table(labels: Any) -> pa.Table:
    if isinstance(labels, Result):
        return labels.arrow()
    if not hasattr(labels, "__arrow_c_stream__"):
        raise UsageError(
            f"labels are a {type(labels).__name__}", todo="Give a Polars, pandas or Arrow table, or a query's result."
        )
    return pa.table(labels)


def _place_labels(
    answers: Answers, cursor: duckdb.DuckDBPyConnection, given: pa.Table, keys: list[str], time: str, upto: int
) -> int:
    """``asof_labels``: number, key ``k0``.., time ``t`` and commit ``c`` of each label; returns the oldest commit."""
    kind = given.schema.field(time).type
    if not pa.types.is_timestamp(kind) and not pa.types.is_date(kind):
        raise UsageError(f"the labels' {time} is {kind}, not a time", todo="Make it a timestamp.")
    if given.column(time).null_count:
        raise UsageError(f"{given.column(time).null_count} labels have no {time}", todo="Leave them out.")
    number = pa.array(range(given.num_rows), pa.int64())
    # Columns are named anew: those of the labels may be called as they like.
    columns = {"n": number, "t": given.column(time), **{f"k{i}": given.column(key) for i, key in enumerate(keys)}}
    cursor.register("asof_given", pa.table(columns))
    kept = "".join(f", k{place}" for place in range(len(keys)))
    placed = f"SELECT n, t::TIMESTAMPTZ AS t, 0::BIGINT AS c{kept} FROM asof_given"
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE asof_labels AS {placed}")
    cursor.unregister("asof_given")
    oldest, newest = cursor.execute("SELECT min(t), max(t) FROM asof_labels").fetchall()[0]
    if oldest is None:
        return upto
    first = _oldest_commit(answers, oldest, upto)
    cursor.register("asof_commits", _commits(answers, first, min(upto, answers.log.commit_at_time(newest))))
    cursor.execute(
        "UPDATE asof_labels SET c = f.number FROM (SELECT l.n, m.number FROM asof_labels l"
        " ASOF JOIN (SELECT max(number) AS number, time FROM asof_commits GROUP BY time) m ON l.t >= m.time) f"
        " WHERE asof_labels.n = f.n"
    )
    cursor.unregister("asof_commits")
    return first


def _oldest_commit(answers: Answers, moment: Any, upto: int) -> int:
    found = min(answers.log.commit_at_time(moment), upto)
    if found:
        return found
    if answers.log.commits(0, 1):
        raise NotYet(
            f"a label is of {moment.isoformat()}, before the lake's first commit", todo="Leave out labels of that time."
        )
    raise Expired(f"a label is of {moment.isoformat()}, which is beyond what is kept", todo="Leave out older labels.")


def _commits(answers: Answers, first: int, last: int) -> pa.Table:
    """Number and time of the commits from ``first`` to ``last``."""
    pages: list[list[Any]] = []
    after = first - 1
    while after < last and (page := answers.log.commits(after, last, _PAGE)):
        pages.append(page)
        after = page[-1].number
    numbers = [each.number for each in chain.from_iterable(pages)]
    times = [each.time for each in chain.from_iterable(pages)]
    return pa.table({"number": pa.array(numbers, pa.int64()), "time": pa.array(times, pa.timestamp("us", tz="UTC"))})


def _joined(
    answers: Answers, cursor: duckdb.DuckDBPyConnection, part: Feature, first: int, upto: int
) -> tuple[pa.Table, list[str]]:
    """The feature's columns for each label, in the labels' order, and their types; NULL where there is no row."""
    with answers.memory.lock:  # the rows that are kept stay as they are until they are copied
        cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE asof_versions AS {_versions_sql(answers, cursor, part, first, upto)}"
        )
    match = " AND ".join(f"l.k{place} = v.{quote(name)}" for place, name in enumerate(part.matched))
    shown = ", ".join(f"v.{quote(name)}" for name in part.columns)
    if part.event_time is None:
        then = ", ".join(
            f"CASE WHEN v.gone IS NULL OR v.gone > l.c THEN v.{quote(n)} END AS {quote(n)}" for n in part.columns
        )
        newest = f"ASOF LEFT JOIN asof_versions v ON {match} AND l.c >= v.known"
        sql = f"SELECT {then} FROM asof_labels l {newest} ORDER BY l.n"
    else:
        event = f"v.{quote(part.event_time)}"
        newest = f"arg_max(struct_pack({shown}), row({event}, v.known, v.place))"
        known = f"l.c >= v.known AND (v.gone IS NULL OR v.gone > l.c) AND {event} <= l.t"
        sql = (
            f"SELECT unnest(found.f) FROM asof_labels l LEFT JOIN (SELECT l.n, {newest} AS f FROM asof_labels l"
            f" JOIN asof_versions v ON {match} AND {known} GROUP BY l.n) found ON l.n = found.n ORDER BY l.n"
        )
    try:
        relation = cursor.sql(sql)
        return fetch(relation, whole=True).table, [str(kind) for kind in relation.types]
    finally:
        cursor.execute("DROP TABLE asof_versions")


def _versions_sql(answers: Answers, cursor: duckdb.DuckDBPyConnection, part: Feature, first: int, upto: int) -> str:
    """SQL of the rows that were there at ``first`` or later: the columns, ``known`` and ``gone`` (commits), ``place``.

    Expired when retention has removed something that this needs.
    """
    topic = part.topic
    start = 0 if topic.kind == "event" else first
    plan = read.plan(answers.log, topic, start, upto, whole=True)
    source = read.relation_sql(answers.log, cursor, plan, "asof_records")
    lifted = ", ".join(f"{lift_sql(f.name, f.type)} AS {quote(f.name)}" for f in topic.schema.fields)
    names = ", ".join(quote(name) for name in topic.schema.names)
    if topic.kind == "event":
        return (
            f"SELECT {lifted}, {record.COMMIT} AS known, NULL::BIGINT AS gone, {record.OFFSET} AS place FROM ({source})"
        )
    keys = ", ".join(quote(name) for name in topic.schema.key)
    before = answers.memory.rows(topic).at(topic, start)
    if topic.kind == "changelog":
        return f"""WITH weighed AS (
  SELECT {names}, {start} AS known, 1 AS n FROM ({before})
  UNION ALL SELECT {lifted}, {record.COMMIT}, {record.WEIGHT} FROM ({source})),
changes AS (SELECT {names}, known, sum(n) AS n FROM weighed GROUP BY ALL HAVING sum(n) <> 0),
-- of a key in a commit: the row that came, else that the one before went
states AS (SELECT * FROM changes QUALIFY row_number() OVER (PARTITION BY {keys}, known ORDER BY n DESC) = 1),
spans AS (SELECT *, lead(known) OVER (PARTITION BY {keys} ORDER BY known) AS gone FROM states)
SELECT * EXCLUDE (n), 0::BIGINT AS place FROM spans WHERE n > 0"""
    carried = ", ".join(_CARRIED)
    # As one partition, so that offsets order all records, and truncates stand among them.
    lined = f"SELECT {lifted}, {carried} FROM ({generations.linear_sql(source)})"
    if plan.rows and cursor.execute(moves.exist_sql(lined)).fetchall()[0][0]:
        lined = moves.complete(cursor, topic.schema, lined, before, "asof_moves")
    columns = ", ".join(filled(name, topic, keys) for name in topic.schema.names)
    op, offset, commit = record.OP, record.OFFSET, record.COMMIT
    return f"""WITH changes AS (
  SELECT {names}, 'r' AS {op}, NULL::VARCHAR[] AS {record.UNCHANGED}, 0::BIGINT AS {offset}, {start} AS {commit}
  FROM ({before})
  UNION ALL SELECT {names}, {op}, {record.UNCHANGED}, {offset}, {commit} FROM ({lined})),
cuts AS (SELECT {offset}, {commit} AS cut FROM changes WHERE {op} = 't'),
spans AS (SELECT {columns}, {op}, {commit} AS known, {offset},
  lead({commit}) OVER (PARTITION BY {keys} ORDER BY {offset}) AS next_change FROM changes WHERE {op} <> 't')
SELECT {names}, known, least(next_change, cut) AS gone, s.{offset} AS place
FROM spans s ASOF LEFT JOIN cuts ON s.{offset} < cuts.{offset}
WHERE {op} <> 'd' AND coalesce(least(next_change, cut) > known, true)"""
