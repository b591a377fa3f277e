"""What the state file knows about itself: the step it stands at, its outbox, the views it was built for.

Everything here changes in the same transaction as the rows it speaks about. The outbox holds the output
deltas of the last step as Arrow streams, byte for byte what is published, until the next step replaces them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

import pyarrow as pa

from headwater.catalog.records import to_datetime, to_micros
from headwater.errors import StateMismatch
from headwater.schema import Schema
from headwater_pipelines.runtime.state import State

PARTS_PER_INSERT = 8
"""Output deltas that one statement stores: few statements for a step, few in memory for a fill."""
COMPRESSED_BYTES = 1 << 20
"""An output delta of this size is compressed: a large one costs more to write than to compress, a small one less."""

_TABLES = (
    """CREATE TABLE progress (incarnation VARCHAR, epoch BIGINT, number BIGINT, input_commit BIGINT,
       instant BIGINT, views VARCHAR, watermarks VARCHAR, spilled BOOLEAN)""",
    "CREATE TABLE outbox (view BIGINT, part BIGINT, body BLOB)",
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
        if not {"progress", "outbox", "running", "stored"} <= tables:
            raise StateMismatch("the pipeline's state has another form", todo="It is rebuilt from the log.")
        row = self.state.row("SELECT * FROM progress")
        if row is None:
            return None
        incarnation, epoch, number, input_commit, instant, views, watermarks, spilled = row
        return Progress(
            incarnation=incarnation,
            epoch=epoch,
            number=number,
            input_commit=input_commit,
            instant=to_datetime(instant),
            views=frozenset(json.loads(views)),
            watermarks={int(view): micros for view, micros in json.loads(watermarks).items()},
            spilled=spilled,
        )

    def write(self, progress: Progress) -> None:
        """Replace the progress row; inside the step's transaction."""
        values = [
            progress.incarnation,
            progress.epoch,
            progress.number,
            progress.input_commit,
            to_micros(progress.instant),
            json.dumps(sorted(progress.views)),
            json.dumps(dict(progress.watermarks)),
            progress.spilled,
        ]
        names = ("incarnation", "epoch", "number", "input_commit", "instant", "views", "watermarks", "spilled")
        columns = ", ".join(f"{name} = ?" for name in names)
        if not self.state.write(f"UPDATE progress SET {columns}", values):
            self.state.write("INSERT INTO progress VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    # ---- outbox

    def clear_outbox(self) -> None:
        """Forget the published step's output; inside the next step's transaction."""
        self.state.write("DELETE FROM outbox")

    def add_outbox(self, parts: Iterable[tuple[int, int, pa.Table]]) -> None:
        """Keep output deltas as (view, part, rows), a bounded number of parts in each statement."""
        iterator = iter(parts)
        while group := list(islice(iterator, PARTS_PER_INSERT)):
            marks = ", ".join(["(?, ?, ?)"] * len(group))
            values = [value for view, part, table in group for value in (view, part, _encode(table))]
            self.state.write(f"INSERT INTO outbox VALUES {marks}", values)

    def outbox(self) -> Iterator[tuple[int, pa.Table]]:
        """Output deltas in the order in which they are published, one in memory at a time."""
        places = self.state.connection.execute("SELECT view, part FROM outbox ORDER BY view, part").fetchall()
        for view, part in places:
            row = self.state.row(f"SELECT body FROM outbox WHERE view = {int(view)} AND part = {int(part)}")
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


def _encode(table: pa.Table) -> bytes:
    options = pa.ipc.IpcWriteOptions(compression="zstd" if table.nbytes >= COMPRESSED_BYTES else None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body
