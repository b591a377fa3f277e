"""Watermarks: how far event time has come, by the records of all commits up to one, and by nothing else.

    of a topic        the greatest time of its records so far, minus the delay; it never goes back
    of a view         the least of its topics', those left out that are idle: no record of theirs is younger than
                      ``idle_us`` when the newest of all was ingested

The record of a commit is judged by the watermark of the commits before it. So it is the same however many commits a
step takes, in a replay, and in a view that is filled later. Numbers are microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headwater import record
from headwater.schema import Schema
from headwater.types import lift_sql, quote
from headwater_pipelines.compiler.plan import WEIGHT, EventTime
from headwater_pipelines.runtime.arrived import Arrived
from headwater_pipelines.runtime.bases import Store
from headwater_pipelines.runtime.state import State

COLUMNS = (("topic", "BIGINT"), ("partition", "INTEGER"), ("top", "BIGINT"), ("seen", "BIGINT"))
"""Of each part: its greatest time minus the delay, and when its newest record was ingested. Topic 0: the watermark."""


def late_schema(time: str) -> Schema:
    """The columns of a side topic; ``time``: the type of the watermark."""
    return Schema.of(
        {
            "topic": "VARCHAR",
            "event_time": time,
            "watermark": time,
            "reason": "VARCHAR",
            "change": "VARCHAR",
            "copies": "BIGINT",
            "input_commit": "BIGINT",
            "row": "VARCHAR",
        }
    )


def create(state: State, timed: EventTime) -> None:
    """Begin without a watermark."""
    state.create(timed.table, COLUMNS, ("topic", "partition"))
    shown = [(field.name, field.type) for field in late_schema(timed.type).fields]
    state.create(held(timed), shown, tuple(quote(name) for name, _ in shown))


def held(timed: EventTime) -> str:
    """The relation with the late rows of a fill, as the side topic takes them, until the view is built."""
    return f"held_{timed.table}"


def held_sql(timed: EventTime, after: int) -> str:
    """A SELECT of those that came with commits ``after`` one."""
    names = ", ".join(map(quote, late_schema(timed.type).names))
    return f"SELECT {names} FROM {quote(held(timed))} WHERE input_commit > {after}"


def value(state: State, timed: EventTime) -> int | None:
    """The watermark; None before the first row with a time."""
    row = state.row(f"SELECT top FROM ({_stored(state, timed)}) WHERE topic = 0")
    return None if row is None or row[0] is None else int(row[0])


def sql(timed: EventTime, micros: int | str | None) -> str:
    """A watermark (or SQL of one) as a value of its type; without one it lies before every time."""
    if micros is None:
        return f"CAST('-infinity' AS {timed.type})"
    return f"make_timestamp{'tz' if timed.type.endswith('ZONE') else ''}({micros})"


def micros_sql(timed: EventTime, column: str) -> str:
    """A time in microseconds; NULL where it is none, or infinite."""
    return f"epoch_us(CAST({column} AS {timed.type}))"


def cuts(timed: EventTime) -> str:
    """The temporary table with the watermark ``before`` and ``after`` each commit (``_commit``) of a step."""
    return f"c_{timed.table}"


def begin(state: State, timed: EventTime, stores: Iterable[Store]) -> None:
    """Take the rows into account that stored copies have from a base."""
    parts = []
    for store in stores:
        topic = store.base.topic
        delay = next(each.delay_us for each in timed.columns if each.topic == topic)
        top = f"max({micros_sql(timed, quote(timed.column(topic)))}) - {delay}"
        parts.append(f"SELECT {topic} AS topic, 0 AS partition, {top} AS top FROM {quote(store.base.table)}")
    tops = f"SELECT topic, partition, top FROM ({' UNION ALL '.join(parts)}) WHERE top IS NOT NULL"
    least = f"SELECT 0, 0, min(top) FROM ({tops}) HAVING count(*) > 0"
    state.relations[timed.table].append(f"SELECT *, 0, 1::BIGINT FROM ({tops} UNION ALL {least})")


def advance(state: State, timed: EventTime, arrived: Mapping[Store, Arrived], *, admit: bool = False) -> None:
    """Take the records of a step's commits into account; makes ``cuts``, in which with ``admit`` nothing is late."""
    groups, first = quote(f"g_{timed.table}"), True
    for store, changes in arrived.items():
        into = f"CREATE OR REPLACE TEMP TABLE {groups} AS" if first else f"INSERT INTO {groups}"
        state.temporary(f"{into} {_groups_sql(timed, store, changes.source)}", changes.table)
        first = False
    state.temporary(f"CREATE OR REPLACE TEMP TABLE {quote(_running(timed))} AS {_running_sql(state, timed, groups)}")
    found = f"SELECT * REPLACE (NULL::BIGINT AS before) FROM ({_cuts_sql(timed)})" if admit else _cuts_sql(timed)
    state.temporary(f"CREATE OR REPLACE TEMP TABLE {quote(cuts(timed))} AS {found}")
    taken = f"SELECT * REPLACE (-{WEIGHT} AS {WEIGHT}) FROM ({_stored(state, timed)})"
    newest = f"SELECT max({record.COMMIT}) FROM {quote(cuts(timed))}"
    last = f"1::BIGINT FROM {quote(_running(timed))} WHERE topic <> 0 AND {record.COMMIT} = ({newest})"
    parts = f"SELECT topic, partition, top, seen, {last}"
    whole = f"SELECT 0, 0, after, 0, 1::BIGINT FROM {quote(cuts(timed))} WHERE {record.COMMIT} = ({newest})"
    state.relations[timed.table].append(f"{taken} UNION ALL {parts} UNION ALL {whole}")


def _stored(state: State, timed: EventTime) -> str:
    return state.relations[timed.table].current_sql()


def _running(timed: EventTime) -> str:
    return f"r_{timed.table}"


def _groups_sql(timed: EventTime, store: Store, arrived: str) -> str:
    """The greatest time of every commit in every part that is looked at by itself."""
    topic = store.base.topic
    field = next(each for each in store.schema.fields if each.name == timed.column(topic))
    delay = next(each.delay_us for each in timed.columns if each.topic == topic)
    partition = record.PARTITION if timed.by_partition else "0"
    time = micros_sql(timed, lift_sql(field.name, field.type))
    return (
        f"SELECT {topic}::BIGINT AS topic, {partition}::INTEGER AS partition, {record.COMMIT},"
        f" max({time}) - {delay} AS top, max(epoch_us({record.INGESTED_AT})) AS seen FROM {arrived} GROUP BY ALL"
    )


def _running_sql(state: State, timed: EventTime, groups: str) -> str:
    """Of every part and every commit: the greatest time and the newest record up to there."""
    commit = record.COMMIT
    return f"""WITH known AS (SELECT topic, partition, 0::BIGINT AS {commit}, top, seen FROM ({_stored(state, timed)})
  UNION ALL SELECT topic, partition, {commit}, top, seen FROM {groups}),
parts AS (SELECT DISTINCT topic, partition FROM known), commits AS (SELECT DISTINCT {commit} FROM known),
grid AS (SELECT topic, partition, {commit}, top, seen
  FROM (parts CROSS JOIN commits) LEFT JOIN known USING (topic, partition, {commit}))
SELECT topic, partition, {commit}, max(top) OVER part AS top, max(seen) OVER part AS seen
FROM grid WINDOW part AS (PARTITION BY topic, partition ORDER BY {commit})"""


def _cuts_sql(timed: EventTime) -> str:
    commit, running = record.COMMIT, quote(_running(timed))
    return f"""WITH aged AS (SELECT *, max(seen) OVER (ORDER BY {commit}) AS newest FROM {running} WHERE topic <> 0),
least AS (SELECT {commit}, min(top) FILTER (seen >= newest - {timed.idle_us}) AS top FROM aged GROUP BY {commit}
  UNION ALL SELECT {commit}, top FROM {running} WHERE topic = 0),
grown AS (SELECT DISTINCT {commit}, max(top) OVER (ORDER BY {commit}) AS after FROM least)
SELECT {commit}, lag(after) OVER (ORDER BY {commit}) AS before, after FROM grown"""
