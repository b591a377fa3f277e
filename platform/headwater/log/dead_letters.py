"""Dead letters: records that were refused or could not be processed, kept with their bytes and the reason.

A topic's letters are the records of ``<topic>.dlq``, written in the commit that would have held the record, or that
moves past it. The catalog has one row a letter (``dead_letter``): its id, its state (open, redriven, discarded) and
where its newest record lies. A letter that fails again becomes another record of the same id, with a higher
delivery count; the older record stays in the log.

What a program asks is a typed column; ``_headers`` holds the record's own headers and, beside them, the same facts
under the names that Kafka's tools know (KIP-1191, and in its style what that leaves out), as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, bindparam, case, delete, func, insert, select, update

from headwater import duck, record
from headwater.catalog import tables
from headwater.catalog.records import Topic, TopicSettings
from headwater.errors import SchemaError
from headwater.log import incidents, topics
from headwater.log.transaction import Transaction
from headwater.schema import Schema
from headwater.types import quote

SUFFIX: Final = ".dlq"

RETENTION_S: Final = 30 * 86_400.0
"""Letters outlive the lake's history: a person has to look at them, and may be away for weeks."""

SCHEMA: Final = Schema.of(
    {
        "original": "BLOB",
        "format": "VARCHAR",
        "topic": "VARCHAR",
        "partition": "INTEGER",
        "offset": "BIGINT",
        "group": "VARCHAR",
        "delivery_count": "INTEGER",
        "error_class": "VARCHAR",
        "error_message": "VARCHAR",
        "error_field": "VARCHAR",
        "schema_version": "INTEGER",
        "first_failure_at": "TIMESTAMPTZ",
        "last_failure_at": "TIMESTAMPTZ",
    }
)
"""``original``: the record's bytes as they came, ``format`` how to read them (``json``: one object in UTF-8, ``arrow``:
an IPC stream of one row, any other text: only a person can). ``partition`` and ``offset`` are the record's, and NULL
when it never entered the topic; ``group`` is the consumer group that gave it up."""

HEADERS: Final = {
    "topic": "__dlq.errors.topic",
    "partition": "__dlq.errors.partition",
    "offset": "__dlq.errors.offset",
    "group": "__dlq.errors.group",
    "delivery_count": "__dlq.errors.delivery.count",
    "error_message": "__dlq.errors.message",
    "error_class": "__dlq.errors.exception.class",
    "error_field": "__dlq.errors.field",
    "schema_version": "__dlq.errors.schema.id",
    "first_failure_at": "__dlq.errors.first.failure.ts",
    "last_failure_at": "__dlq.errors.last.failure.ts",
}
"""Column to header; the first six names are KIP-1191's. Times are ISO 8601 in UTC."""

PREFIX: Final = "__dlq."
"""A header that begins so is about the letter, not the record's own."""


def append(tx: Transaction, topic: str, letters: pa.Table) -> None:
    """Stage letters of ``topic`` in a transaction, and index each as open in the same commit.

    ``<topic>.dlq`` comes to be in that commit if it is not there; of two transactions that race both succeed.

    Args:
        tx: publishes the letters with everything else it holds, or nothing.
        topic: full name of the topic that the records were meant for, or come from.
        letters: columns of ``SCHEMA`` and, as ``headers``, the records' own headers (a map of text). ``original``,
            ``format`` and ``error_class`` are needed; ``delivery_count`` is 1 and the times are now where they
            are left out or NULL, everything else is NULL.
    """
    _stage(tx, topic, letters, None)


def append_again(tx: Transaction, topic: str, letters: pa.Table, ids: Sequence[int]) -> None:
    """The same for letters that failed once more: each row becomes the newest record of the letter in ``ids``."""
    _stage(tx, topic, letters, ids)


def name_of(topic: str) -> str:
    """The dead letter topic of a topic."""
    return topic + SUFFIX


def expire(connection: Connection, dlq: Topic, now_us: int) -> None:
    """Forget the letters whose records retention has removed; those that were open are an incident."""
    letter, partition = tables.dead_letter, tables.partition
    start = select(partition.c.start_offset).where(partition.c.topic == dlq.id, partition.c.partition == 0)
    gone = (letter.c.dlq == dlq.id) & (letter.c.offset < start.scalar_subquery())
    count = connection.execute(select(func.count()).where(gone, letter.c.state == "open")).scalar_one()
    if count:
        what = f"{count:,} open dead letters left with the topic's retention, neither redriven nor discarded"
        incidents.append(connection, "dead_letters", dlq.name, what, now_us)
    connection.execute(delete(letter).where(gone))


def give_up(connection: Connection, topic: int, reason: str, ids: Sequence[int] | None = None) -> int:
    """Mark the open letters of a topic (or those of them) as discarded; returns how many."""
    letter = tables.dead_letter
    mine = (letter.c.topic == topic) & (letter.c.state == "open")
    if ids is not None:
        mine &= letter.c.id.in_(ids)
    return int(connection.execute(update(letter).where(mine).values(state="discarded", reason=reason)).rowcount)


def counts(connection: Connection) -> dict[int, dict[str, int]]:
    """``open`` and ``total`` dead letters by topic id, of topics that have any."""
    letter = tables.dead_letter
    is_open = func.sum(case((letter.c.state == "open", 1), else_=0))
    query = select(letter.c.topic, is_open, func.count()).group_by(letter.c.topic)
    return {topic: {"open": int(opened), "total": total} for topic, opened, total in connection.execute(query)}


def _stage(tx: Transaction, topic: str, letters: pa.Table, ids: Sequence[int] | None) -> None:
    if letters.num_rows == 0:
        return
    if topic.endswith(SUFFIX):
        raise SchemaError(f"{topic} holds dead letters itself", todo="They have no dead letter topic of their own.")
    dlq = name_of(topic)
    tx.create_topic(
        dlq,
        "event",
        SCHEMA,
        description=f"Dead letters of {topic}",
        settings=TopicSettings(retention_s=RETENTION_S, compatibility="NONE"),
        if_absent=True,
    )
    rows = _complete(letters, topic, tx.log.clock.now_us())
    tx.append(dlq, rows)
    index = _index(rows)
    if ids is None:
        tx.inside(lambda connection, _: _insert(connection, topic, dlq, index))
    else:
        tx.inside(lambda connection, _: _move(connection, dlq, index, ids))


def _complete(letters: pa.Table, topic: str, now_us: int) -> pa.Table:
    """The letters with every column of the topic, defaults filled in, and the letters' headers."""
    known = sorted({*SCHEMA.names, "headers"})
    unknown = sorted(set(letters.column_names).difference(known))
    if unknown:
        raise SchemaError(f"a dead letter has no column {unknown[0]!r}", where=topic, todo=f"Use {', '.join(known)}.")
    filled = {"topic": topic, "delivery_count": 1, "first_failure_at": now_us, "last_failure_at": now_us}
    columns: dict[str, pa.ChunkedArray] = {}
    for field in SCHEMA.arrow():
        if field.name in letters.column_names:
            columns[field.name] = letters[field.name].cast(field.type)
        else:
            columns[field.name] = pa.chunked_array([pa.nulls(letters.num_rows, field.type)])
        if field.name in filled:
            columns[field.name] = columns[field.name].fill_null(pa.scalar(filled[field.name], field.type))
    for needed in ("original", "format", "error_class"):
        if columns[needed].null_count:
            raise SchemaError(f"a dead letter needs {needed}", where=topic, todo="Give it for every row.")
    kind = record.EXPLICIT[record.HEADERS]
    own = letters["headers"].cast(kind) if "headers" in letters.column_names else pa.nulls(letters.num_rows, kind)
    return pa.table({**columns, record.HEADERS: _headers(columns, own)})


def _headers(columns: Mapping[str, pa.ChunkedArray], own: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray:
    """Each letter's map: the record's own headers, then what is known about its failure."""
    about = ", ".join(f"{{'key': '{header}', 'value': {_text_sql(name)}}}" for name, header in HEADERS.items())
    entries = f"map_entries(coalesce({_OWN}, MAP {{}}::MAP(VARCHAR, VARCHAR)))"
    sql = f"""SELECT map_from_entries(list_concat(
        list_filter({entries}, lambda entry: NOT starts_with(entry.key, '{PREFIX}')),
        list_filter([{about}], lambda entry: entry.value IS NOT NULL))) AS headers
        FROM letters ORDER BY {_ROW}"""
    letters = pa.table({**columns, _OWN: own, _ROW: pa.array(range(len(own)))})
    with duck.connect(for_files=True) as connection:
        connection.register("letters", letters)
        return connection.sql(sql).to_arrow_table()["headers"].cast(record.EXPLICIT[record.HEADERS])


_OWN = "_own"
_ROW = "_row"


def _text_sql(name: str) -> str:
    if SCHEMA.field(name).type == "TIMESTAMP WITH TIME ZONE":
        return f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%fZ')"
    return f"CAST({quote(name)} AS VARCHAR)"


def _index(rows: pa.Table) -> list[dict[str, Any]]:
    """What the catalog keeps of each letter. The cause has no values in it, so that like failures count as one."""
    named = pc.binary_join_element_wise(rows["error_class"], rows["error_field"], " at ")
    causes = pc.coalesce(named, rows["error_class"])
    index: list[dict[str, Any]] = pa.table(
        {"cause": causes, "time": rows["first_failure_at"].cast(pa.int64())}
    ).to_pylist()
    return index


def _insert(connection: Connection, topic: str, dlq: str, index: Sequence[Mapping[str, Any]]) -> None:
    dlq_id, first = _place(connection, dlq)
    topic_id = topics.live_id(connection, topic)
    if topic_id is None:
        raise SchemaError(f"topic {topic} does not exist", todo="A dead letter belongs to a topic.")
    place = {"dlq": dlq_id, "partition": 0, "topic": topic_id, "state": "open"}
    rows = [{**place, **letter, "offset": offset} for offset, letter in enumerate(index, first)]
    connection.execute(insert(tables.dead_letter), rows)


def _move(connection: Connection, dlq: str, index: Sequence[Mapping[str, Any]], ids: Sequence[int]) -> None:
    _, first = _place(connection, dlq)
    rows = [
        {"letter": each, "place": offset, "why": values["cause"]}
        for offset, (each, values) in enumerate(zip(ids, index, strict=True), first)
    ]
    connection.execute(_MOVE, rows)


_MOVE = (
    update(tables.dead_letter)
    .where(tables.dead_letter.c.id == bindparam("letter"))
    .values(partition=0, offset=bindparam("place"), cause=bindparam("why"))
)


def _place(connection: Connection, dlq: str) -> tuple[int, int]:
    """The dead letter topic's id, and the offset of the next letter: some of this commit may be indexed already."""
    partition, letter = tables.partition, tables.dead_letter
    dlq_id = topics.live_id(connection, dlq)
    assert dlq_id is not None, "the transaction creates it"
    taken = select(partition.c.next_offset).where(partition.c.topic == dlq_id, partition.c.partition == 0)
    indexed = select(func.coalesce(func.max(letter.c.offset), -1)).where(letter.c.dlq == dlq_id)
    return dlq_id, max(connection.execute(taken).scalar_one(), connection.execute(indexed).scalar_one() + 1)
