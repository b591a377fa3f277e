"""The dead letters of a lake: what there is and why, giving them back to their topic, giving them up.

    open ──redrive──▶ passes the door? ──▶ redriven: its record is in the topic, in the same commit
      ▲                     │ no
      └─ delivery count + 1 ┘                    open ──discard──▶ discarded, with a reason; bytes stay

A commit publishes records and marks their letters, or does neither: killed anywhere, a letter is lost nowhere and
its record written once. A record that a consumer group gave up is already in the topic: redriving it writes it there
again, for every group. Letters, and their rows of the catalog, leave with the retention of ``<topic>.dlq``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import ColumnElement, Connection, case, func, select, update

from headwater import record
from headwater.catalog import tables
from headwater.catalog.records import Topic, to_datetime
from headwater.client import door, files, frames
from headwater.client.columns import Rows
from headwater.client.frames import Frame
from headwater.errors import InvalidRecords, NameNotFound, TopicChanged, UsageError
from headwater.log import dead_letters, jobs, scan
from headwater.log.system import transaction

if TYPE_CHECKING:
    from headwater.log import Log

PRODUCER: Final = "system:dlq"

REDRIVE_ROWS: Final = 1_000
"""Letters that one commit redrives: bounds its memory, and what has to be done again after a conflict."""

MENDED: Final = "mended by hand"
"""Reason of a letter in whose place another row was written."""

State = Literal["open", "redriven", "discarded"]

_Faults = dict[int, tuple[str, str, str | None]]
"""By row among the letters: class of the error, message, field."""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Letters of a topic that failed alike, by state; ``first`` and ``last``: when such a letter first failed."""

    topic: str
    cause: str
    open: int
    redriven: int
    discarded: int
    first: datetime
    last: datetime


@dataclass(frozen=True, kw_only=True)
class Redriven:
    """What a redrive did: records written, and letters that are still bad and stay open."""

    redriven: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class _Letter:
    """One row of the catalog's index."""

    id: int
    dlq: int
    offset: int
    state: str
    reason: str


class _Moved(Exception):
    """Somebody else redrove or discarded one of the letters meanwhile."""


class DeadLetters:
    """Thread-safe; a lake hands it out as ``lake.dlq``."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def causes(self, topic: str | None = None) -> list[Cause]:
        """Causes by topic, the most frequent open ones first; of one topic or all."""
        letter, owner = tables.dead_letter, tables.topic
        alike = (letter.c.topic, letter.c.cause, letter.c.state)  # the order of an index: counted without a sort
        inner = select(*alike, func.count().label("n"), func.min(letter.c.time).label("first"))
        inner = inner.add_columns(func.max(letter.c.time).label("last")).group_by(*alike)
        if topic is not None:
            inner = inner.where(letter.c.topic == self.log.topic(topic).id)
        by_state = inner.subquery().c
        counts = [
            func.sum(case((by_state.state == state, by_state.n), else_=0))
            for state in ("open", "redriven", "discarded")
        ]
        span = [func.min(by_state.first), func.max(by_state.last)]
        columns: list[ColumnElement[Any]] = [owner.c.name, by_state.cause, *counts, *span]
        query = select(*columns).join(owner, owner.c.id == by_state.topic).group_by(owner.c.name, by_state.cause)
        query = query.order_by(owner.c.name, counts[0].desc(), by_state.cause)
        with self.log.catalog.read() as connection:
            rows = connection.execute(query).all()
        return [
            Cause(topic=n, cause=c, open=o, redriven=r, discarded=d, first=to_datetime(a), last=to_datetime(z))
            for n, c, o, r, d, a, z in rows
        ]

    def letters(
        self, topic: str, state: State = "open", *, cause: str | None = None, after: int = 0, limit: int = 100
    ) -> pa.Table:
        """Letters of a topic, of one cause or all, in the order of their ids, from the one after id ``after`` on.

        Columns: ``id``, ``state``, ``reason``, those of ``dead_letters.SCHEMA``, ``_headers``.
        """
        found = self._index(self.log.topic(topic).id, state, cause=cause, after=after, limit=limit)
        return self._records(found)

    def several(self, topic: str, ids: Sequence[int]) -> pa.Table:
        """The letters of a topic with these ids, of any state; columns as ``letters``. Unknown ids are left out."""
        return self._records(self._index(self.log.topic(topic).id, None, after=0, limit=len(ids), ids=ids))

    def show(self, letter: int) -> dict[str, Any]:
        """One letter with every column; NameNotFound when there is none of this id."""
        with self.log.catalog.read() as connection:
            rows = connection.execute(_SELECT.where(tables.dead_letter.c.id == letter)).all()
        table = self._records([_Letter(**row._mapping) for row in rows])
        if not table.num_rows:
            raise NameNotFound(f"there is no dead letter {letter}", todo="See `headwater dlq show TOPIC`.")
        shown: dict[str, Any] = table.to_pylist()[0]
        return shown

    def redrive(
        self,
        topic: str,
        ids: Sequence[int] | None = None,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> Redriven:
        """Write the records of open letters (all, or those of ``ids``) into their topic, those that may enter now.

        Each is looked at once, oldest first; one that still may not enter stays open, with a higher delivery count
        and the reason of this time. UsageError for a topic that takes no produced records.
        """
        found = self.require_redrivable(topic)
        written = failed = last = 0
        while chosen := self._index(found.id, "open", after=last, limit=REDRIVE_ROWS, ids=ids):
            last = chosen[-1].id
            good, bad = self._redrive(found.name, [letter.id for letter in chosen])
            written, failed = written + good, failed + bad
            if on_progress is not None:
                on_progress(written + failed)
        return Redriven(redriven=written, failed=failed)

    def mend(self, letter: int, row: str) -> None:
        """Write a row that somebody put right, one JSON object, in place of an open letter's record.

        The letter is then redriven, in the same commit; the bytes that had come stay in ``<topic>.dlq``. Nothing is
        changed where the row may not enter either (InvalidRecords), or the letter is not open any more (UsageError).
        NameNotFound; UsageError for a topic that takes no produced records.
        """
        name = self.show(letter)["topic"]
        self.require_redrivable(name)
        _require_object(row)
        while True:
            topic = self.log.topic(name)
            chosen = self._index(topic.id, "open", after=0, limit=1, ids=[letter])
            if not chosen:
                state = self.show(letter)["state"]
                raise UsageError(f"letter {letter} is {state} already", todo="`headwater dlq show` lists open ones.")
            try:
                self._publish(topic, _mended(self._records(chosen), row), {letter: chosen[0].offset}, by_hand=True)
            except (_Moved, TopicChanged):
                continue
            return

    def require_redrivable(self, topic: str) -> Topic:
        """The topic, whose letters can be redriven. UsageError says why those of captured tables and jobs cannot."""
        found = self.log.topic(topic)
        door.require_producible(found)
        writers = [job.name for job in jobs.read(self.log) if job.output == found.name]
        if writers:
            what = f"the dead letters of {found.name} are rows that job {writers[0]} cannot take in, not records of it"
            raise UsageError(what, todo=f"Mend the job, then `headwater job reset {writers[0]}`; or discard them.")
        return found

    def discard(self, topic: str, ids: Sequence[int] | None = None, *, reason: str) -> int:
        """Give open letters up (all, or those of ``ids``), and say why; returns how many. Their bytes stay."""
        if not reason.strip():
            raise UsageError("a discard needs a reason", todo="Say why the records are not needed.")
        found = self.log.topic(topic)
        with self.log.catalog.write() as connection:
            return dead_letters.give_up(connection, found.id, reason.strip(), ids)

    # ---- reading

    def _index(
        self,
        topic: int,
        state: str | None,
        *,
        after: int,
        limit: int,
        cause: str | None = None,
        ids: Sequence[int] | None = None,
    ) -> list[_Letter]:
        letter = tables.dead_letter
        query = _SELECT.where(letter.c.topic == topic, letter.c.id > after)
        if state is not None:
            query = query.where(letter.c.state == state)
        if cause is not None:
            query = query.where(letter.c.cause == cause)
        if ids is not None:
            query = query.where(letter.c.id.in_(ids))
        with self.log.catalog.read() as connection:
            rows = connection.execute(query.order_by(letter.c.id).limit(limit)).all()
        return [_Letter(**row._mapping) for row in rows]

    def _records(self, letters: Sequence[_Letter]) -> pa.Table:
        """The letters' newest records, in the order of ``letters``; one whose bytes have left is left out."""
        names = [*dead_letters.SCHEMA.names, record.HEADERS]
        offsets = pa.array([letter.offset for letter in letters], pa.int64())
        fields = [dead_letters.SCHEMA.arrow().field(name) for name in dead_letters.SCHEMA.names]
        none = pa.schema([*fields, (record.HEADERS, record.EXPLICIT[record.HEADERS]), (record.OFFSET, pa.int64())])
        parts = [part.filter(pc.is_in(part[record.OFFSET], offsets)) for part in self._scan(letters, names)]
        index = pa.table(
            {
                "id": pa.array([letter.id for letter in letters], pa.int64()),
                "state": pa.array([letter.state for letter in letters], pa.string()),
                "reason": pa.array([letter.reason for letter in letters], pa.string()),
            }
        )
        kept = pa.concat_tables([none.empty_table(), *parts])
        places = pc.index_in(kept[record.OFFSET], offsets)
        kept = kept.drop_columns([record.OFFSET])
        for place, name in enumerate(("id", "state", "reason")):
            kept = kept.add_column(place, name, index[name].take(places))
        return kept.take(pc.sort_indices(kept["id"]))

    def _scan(self, letters: Sequence[_Letter], names: Sequence[str]) -> Iterator[pa.Table]:
        if not letters:
            return
        topic = next(each for each in self.log.topics(hidden=True) if each.id == letters[0].dlq)
        low, high = min(letter.offset for letter in letters), max(letter.offset for letter in letters) + 1
        while low < high:
            with self.log.catalog.read() as connection:
                (found,) = scan.plan(connection, topic, [scan.Span(partition=0, low=low, high=high)])
            for piece in scan.pieces(self.log, found, REDRIVE_ROWS, [*names, record.OFFSET]):
                yield piece.table
            low = max(found.upto, low + 1)

    # ---- redriving

    def _redrive(self, name: str, ids: Sequence[int]) -> tuple[int, int]:
        """The same with these letters, those that are open: again when anything moved meanwhile."""
        while True:
            topic = self.log.topic(name)
            chosen = self._index(topic.id, "open", after=0, limit=len(ids), ids=ids)
            letters = self._records(chosen)
            try:
                return self._publish(topic, letters, {letter.id: letter.offset for letter in chosen})
            except (_Moved, TopicChanged):
                continue

    def _publish(
        self, topic: Topic, letters: pa.Table, places: dict[int, int], *, by_hand: bool = False
    ) -> tuple[int, int]:
        """Redrive in one commit; how many were written and how many not. ``by_hand``: InvalidRecords for the first."""
        ids = letters["id"].to_pylist()
        if not ids:
            return 0, 0
        faults: _Faults = {}
        with transaction(self.log, PRODUCER) as tx:
            tx.inside(lambda connection, _: _require(connection, {letter: places[letter] for letter in ids}))
            for rows, frame in _frames(topic, letters, faults):
                version = letters["schema_version"][int(rows[0])].as_py()
                checked = self._check(frame, topic, version, rows, faults)
                if checked is not None:
                    tx.append(topic.name, checked.good())
            bad = sorted(faults)
            if bad and by_hand:
                _, message, field = faults[bad[0]]
                raise InvalidRecords(message, where=f"{topic.name}{'.' + field if field else ''}")
            if bad:
                again = _failed_again(letters.take(bad), [faults[row] for row in bad])
                dead_letters.append_again(tx, topic.name, again, [ids[row] for row in bad])
            done = [letter for row, letter in enumerate(ids) if row not in faults]
            tx.inside(lambda connection, _: _mark(connection, done, MENDED if by_hand else None))
            tx.commit()
        return len(done), len(bad)

    def _check(
        self,
        frame: Frame,
        topic: Topic,
        version: int | None,
        rows: Rows,
        faults: _Faults,
    ) -> door.Checked | None:
        """The rows at the door; what may not enter goes to ``faults``, by its row among the letters."""
        try:
            if version is not None and version != topic.schema_version:
                frame = door.at_version(frame, topic, self.log.schemas(topic), version)
            checked = door.check(frame, topic, self.log.timezone)
        except InvalidRecords as error:
            faults.update({int(row): ("InvalidRecords", error.what, None) for row in rows})
            return None
        if len(checked.bad):
            told = checked.letters()
            for row, message, field in zip(
                rows[checked.bad], told["error_message"].to_pylist(), told["error_field"].to_pylist(), strict=True
            ):
                faults[int(row)] = ("InvalidRecords", message.partition(", ")[2], field)
        return checked


_LETTER = tables.dead_letter
_SELECT = select(_LETTER.c.id, _LETTER.c.dlq, _LETTER.c.offset, _LETTER.c.state, _LETTER.c.reason)


def row_text(letter: dict[str, Any]) -> str | None:
    """The original of a letter as one JSON object in text, as ``mend`` takes it; None where it is no row."""
    row = decoded(letter)
    if not isinstance(row, dict):
        return None
    original: bytes = letter["original"]  # a number keeps every digit that it came with
    return original.decode() if letter["format"] == "json" else json.dumps(row, default=str, ensure_ascii=False)


def decoded(letter: dict[str, Any]) -> Any:
    """The original of a letter as a person reads it: a row, a text, or the bytes in hexadecimal."""
    original: bytes = letter["original"]
    try:
        if letter["format"] == "arrow":
            return _arrow(original).to_pylist()[0]
        return json.loads(original) if letter["format"] == "json" else original.decode()
    except (ValueError, IndexError, pa.ArrowException):
        return original.hex()


def _frames(topic: Topic, letters: pa.Table, faults: _Faults) -> Iterator[tuple[Rows, Frame]]:
    """Letters that can be read, as frames of like ones with their rows; the others go to ``faults``."""
    alike: dict[Any, list[tuple[int, Any]]] = {}
    for row, letter in enumerate(letters.select(["original", "format", "schema_version", "offset"]).to_pylist()):
        try:
            read = _read(letter, topic)
        except (ValueError, pa.ArrowException) as error:
            faults[row] = ("Unreadable", f"the original is not {letter['format']}: {error}", None)
            continue
        shape = read.schema.names if isinstance(read, pa.Table) else None
        alike.setdefault((letter["schema_version"], str(shape)), []).append((row, read))
    for group in alike.values():
        rows = np.array([row for row, _ in group], dtype=np.int64)
        if isinstance(group[0][1], pa.Table):
            frame = frames.of_table(pa.concat_tables([read for _, read in group], promote_options="permissive"))
        else:
            frame = files.of_json(pa.array([read for _, read in group], pa.binary()), topic)
        if topic.kind == "event":
            own = [_own(each) or None for each in letters[record.HEADERS].take(rows).to_pylist()]
            if any(own):
                frame = frame.with_columns(
                    {record.HEADERS: pa.chunked_array([pa.array(own, record.EXPLICIT[record.HEADERS])])}
                )
        yield rows, frame


def _own(headers: Sequence[tuple[str, str]] | None) -> list[tuple[str, str]]:
    """A record's own headers, without those that are about the letter."""
    return [(name, value) for name, value in headers or () if not name.startswith(dead_letters.PREFIX)]


def _read(letter: dict[str, Any], topic: Topic) -> bytes | pa.Table:
    """A letter's row; ValueError when its bytes are no row."""
    if letter["format"] == "json":
        row = json.loads(letter["original"])
        if not isinstance(row, dict):
            raise ValueError("it is no object")
        original: bytes = letter["original"]  # read by columns later, with every digit of its numbers
        return original
    if letter["format"] == "arrow":
        table = _arrow(letter["original"])
        if table.num_rows != 1:
            raise ValueError(f"it has {table.num_rows} rows")
        if letter["offset"] is not None:  # a record of the topic, with what it was given when it entered
            given = set(record.METADATA) - set(door.METADATA[topic.kind])
            table = table.drop_columns([name for name in table.column_names if name in given])
        return table
    raise ValueError("only a person can read it")


def _arrow(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(data) as stream:
        return stream.read_all()


def _require_object(row: str) -> None:
    try:
        if isinstance(json.loads(row), dict):
            return
        what = "the row is no JSON object"
    except ValueError as error:
        what = f"the row is no JSON: {error}"
    raise InvalidRecords(what, todo='Write it as {"column": value, ...}.')


def _mended(letters: pa.Table, row: str) -> pa.Table:
    """A letter with another original, of the schema that is in force."""
    columns = {"original": [row.encode()], "format": ["json"], "schema_version": [None]}
    for name, value in columns.items():
        field = letters.schema.field(name)
        letters = letters.set_column(letters.schema.get_field_index(name), field, pa.array(value, field.type))
    return letters


def _failed_again(letters: pa.Table, faults: Sequence[tuple[str, str, str | None]]) -> pa.Table:
    """The letters' next records: one delivery more, and the reason of this time."""
    classes, messages, fields = zip(*faults, strict=True)
    kept = ["original", "format", "topic", "partition", "offset", "group", "schema_version", "first_failure_at"]
    columns = dict(zip(kept, letters.select(kept).columns, strict=True))
    return pa.table(
        {
            **columns,
            "delivery_count": pc.add(letters["delivery_count"], 1),
            "error_class": pa.array(classes, pa.string()),
            "error_message": pa.array(messages, pa.string()),
            "error_field": pa.array(fields, pa.string()),
            "headers": letters[record.HEADERS],
        }
    )


def _require(connection: Connection, places: dict[int, int]) -> None:
    """_Moved unless all of these letters are open and where they were read."""
    query = select(_LETTER.c.id, _LETTER.c.offset).where(_LETTER.c.id.in_(list(places)), _LETTER.c.state == "open")
    if {row.id: row.offset for row in connection.execute(query)} != places:
        raise _Moved


def _mark(connection: Connection, ids: Sequence[int], reason: str | None) -> None:
    said = {} if reason is None else {"reason": reason}
    connection.execute(update(_LETTER).where(_LETTER.c.id.in_(ids)).values(state="redriven", **said))
