"""What the state file knows about itself: the step it stands at, its outbox, the views it was built for.

Everything here changes in the same transaction as the rows it speaks about. The outbox holds the output
deltas of a step as Arrow streams, byte for byte what is published. A step adds its record and its output in one
statement; those of steps before it, which nobody reads any more, are removed many at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from headwater.catalog.records import to_datetime, to_micros
from headwater.errors import StateMismatch
from headwater.schema import Schema
from headwater_pipelines.runtime.state import State

PARTS_PER_INSERT = 32
"""Output deltas that one statement stores: few statements for a step, few in memory for a fill."""
COMPRESSED_BYTES = 1 << 20
"""An output delta of this size is compressed: a large one costs more to write than to compress, a small one less."""

PAST_ROWS_MAX = 200
PAST_BYTES_MAX = 4 << 20
"""So much of earlier steps is left in the file: to remove it takes as long as to add it."""
RECORD = 0
"""What a step's own record has in the place of a view."""

_TABLES = (
    "CREATE TABLE steps (number BIGINT, view BIGINT, part BIGINT, body BLOB)",
    "CREATE TABLE running (view BIGINT, name VARCHAR, plan VARCHAR, shape VARCHAR, replaces BIGINT, late VARCHAR)",
    "CREATE TABLE stored (relation VARCHAR, topic BIGINT, name VARCHAR, kind VARCHAR, shape VARCHAR)",
)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The step that the state stands at. ``views`` are those that are defined at ``input_commit``.

    ``spilled``: its output is kept in files of the log instead of the outbox.
    """

    incarnation: str
    epoch: int
    number: int
    input_commit: int
    instant: datetime
    views: frozenset[int]
    watermarks: Mapping[int, int] = field(default_factory=dict, hash=False)
    spilled: bool = False


@dataclass(frozen=True)
class Built:
    """A view whose state is in the file: the digest of its whole plan, and its output's shape.

    The text would not do: what a view reads may have been replaced.
    """

    name: str
    plan: str
    schema: Schema
    replaces: int | None = None
    late: str = ""
    """The type of its watermark, if it has one: then there is a side topic for late rows. Or ``letters.MARK``."""


@dataclass(frozen=True)
class Stored:
    """A topic's stored copy: the relation, the topic's id and the columns that are kept."""

    relation: str
    topic: int
    name: str
    kind: str
    schema: Schema


class Journal:
    """Reads and writes the bookkeeping tables of a state file."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._rows = self._bytes = PAST_BYTES_MAX
        """What the file holds of steps that are over, at most."""

    def create(self, progress: Progress) -> None:
        """Make a new state file's bookkeeping, in one transaction."""
        self.state.begin()
        for statement in _TABLES:
            self.state.write(statement)
        self.write(progress)
        self.state.commit()

    def read(self) -> Progress | None:
        """None when the file is new. StateMismatch when it is one of another release."""
        tables = self.state.tables() - {"relations", "runs", "written_by"}
        if not tables:
            return None
        if not {"steps", "running", "stored"} <= tables:
            raise StateMismatch("the pipeline's state has another form", todo="It is rebuilt from the log.")
        row = self.state.row(f"SELECT body FROM steps WHERE view = {RECORD} ORDER BY number DESC LIMIT 1")
        return None if row is None else _progress(json.loads(row[0]))

    def write(self, progress: Progress, outbox: Iterable[tuple[int, pa.Table]] = ()) -> None:
        """Add a step and its output deltas by view, in the order in which they are published; in its transaction."""
        parts = ((view, part, _encode(table)) for part, (view, table) in enumerate(outbox))
        rows = chain([(RECORD, 0, json.dumps(_record(progress)).encode())], parts)
        while group := list(islice(rows, PARTS_PER_INSERT)):
            marks = ", ".join(["(?, ?, ?, ?)"] * len(group))
            self.state.write(f"INSERT INTO steps VALUES {marks}", [v for row in group for v in (progress.number, *row)])
            self._rows += len(group)
            self._bytes += sum(len(body) for _, _, body in group)

    def forget(self) -> None:
        """Remove the steps that are over, all being published, when they are many; before the next one is written."""
        if self._rows > PAST_ROWS_MAX or self._bytes > PAST_BYTES_MAX:
            self.state.write("DELETE FROM steps")
            self._rows = self._bytes = 0

    def outbox(self, number: int) -> Iterator[tuple[int, pa.Table]]:
        """A step's output deltas in the order in which they are published, one in memory at a time."""
        mine = f"FROM steps WHERE number = {int(number)} AND view <> {RECORD}"
        places = self.state.connection.execute(f"SELECT view, part {mine} ORDER BY view, part").fetchall()
        for view, part in places:
            row = self.state.row(f"SELECT body {mine} AND view = {int(view)} AND part = {int(part)}")
            if row is not None:
                yield view, pa.ipc.open_stream(pa.BufferReader(row[0])).read_all()

    # ---- what is in the file

    def built(self) -> dict[int, Built]:
        rows = self.state.connection.execute("SELECT * FROM running ORDER BY view").fetchall()
        return {row[0]: Built(row[1], row[2], Schema.from_json(row[3]), *row[4:]) for row in rows}

    def stored(self) -> dict[str, Stored]:
        """By the name of the relation."""
        rows = self.state.connection.execute("SELECT relation, topic, name, kind, shape FROM stored").fetchall()
        return {row[0]: Stored(row[0], row[1], row[2], row[3], Schema.from_json(row[4])) for row in rows}

    def set_built(self, built: Mapping[int, Built]) -> None:
        self.state.write("DELETE FROM running")
        for view, entry in built.items():
            row = [view, entry.name, entry.plan, entry.schema.to_json(), entry.replaces, entry.late]
            self.state.write("INSERT INTO running VALUES (?, ?, ?, ?, ?, ?)", row)

    def set_stored(self, stored: Iterable[Stored]) -> None:
        self.state.write("DELETE FROM stored")
        for entry in stored:
            row = [entry.relation, entry.topic, entry.name, entry.kind, entry.schema.to_json()]
            self.state.write("INSERT INTO stored VALUES (?, ?, ?, ?, ?)", row)


def _record(progress: Progress) -> dict[str, Any]:
    own = {"instant": to_micros(progress.instant), "views": sorted(progress.views)}
    return {**vars(progress), **own, "watermarks": dict(progress.watermarks)}


def _progress(record: dict[str, Any]) -> Progress:
    own = {"instant": to_datetime(record["instant"]), "views": frozenset(record["views"])}
    watermarks = {int(view): micros for view, micros in record["watermarks"].items()}
    return Progress(**{**record, **own, "watermarks": watermarks})


def _encode(table: pa.Table) -> bytes:
    options = pa.ipc.IpcWriteOptions(compression="zstd" if table.nbytes >= COMPRESSED_BYTES else None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body
