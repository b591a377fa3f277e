"""The output deltas of one step, between the state's transaction and the commit that publishes them.

    few rows   in the state file (``Journal``), in the step's transaction
    many       in files of the log that nothing reads; the publish commit adopts them, so they are written once

A spilled outbox is kept in the catalog before the state's transaction commits, and that transaction notes that there is
one (``Progress.spilled``). Killed in between, the next start finds a kept outbox of a step that did not happen, and
releases it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pyarrow as pa

from headwater.catalog.records import Topic, TopicSettings
from headwater.errors import StateMismatch
from headwater.log import Log, staging, topics
from headwater.log.staging import Kept, Staging
from headwater_pipelines.runtime import letters
from headwater_pipelines.runtime.journal import Built, Journal, Progress
from headwater_pipelines.runtime.watermark import late_schema

SPILL_ROWS = 250_000
"""So many rows of output deltas are held in memory; with more, they go to files as they come."""
NAME = "pipeline:main:"
"""How the names of spilled outboxes begin; the step's number follows."""


class Outbox:
    """Open from a step's first output until it is published; a context manager, which leaves nothing after an error."""

    def __init__(self, log: Log, built: Mapping[int, Built]) -> None:
        self.log = log
        self.piece: Kept | None = None
        self._built = built
        self._parts: list[tuple[int, pa.Table]] = []
        self._rows = 0
        self._staging: Staging | None = None

    def add(self, view: int, part: pa.Table) -> None:
        """More of a view's output, or (under the negative of its number) of its late rows or dead letters."""
        self._parts.append((view, part))
        self._rows += part.num_rows
        if self._rows <= SPILL_ROWS:
            return
        self._staging = self._staging or Staging(self.log)
        # Dead letters are few, and more than records of a topic: they are never spilled.
        for each, table in self._parts:
            if not is_letters(self._built, each):
                self._staging.append(_topic(self.log, self._built, each), table)
        self._parts = [(each, table) for each, table in self._parts if is_letters(self._built, each)]

    def keep(self, journal: Journal, progress: Progress) -> Progress:
        """Nothing more comes: the step and its output are durable with the state's transaction; the step as kept."""
        if self._staging is not None:
            self.piece = self._staging.keep(f"{NAME}{progress.number}", {})
            progress = replace(progress, spilled=True)
        journal.write(progress, self._parts)
        return progress

    def parts(self) -> Iterator[tuple[int, pa.Table]]:
        """What was not spilled."""
        yield from self._parts

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if self.piece is not None:
            release(self.log)
        elif self._staging is not None:
            self._staging.discard()


def spilled(log: Log, number: int) -> Kept:
    """The kept outbox of a step; StateMismatch when it is not there."""
    for piece in staging.kept(log, NAME):
        if piece.name == f"{NAME}{number}":
            return piece
    raise StateMismatch(f"the output of step {number} is gone", todo="The state is rebuilt from the log.")


def release(log: Log) -> None:
    """Let go of every kept outbox: none belongs to a step that is still to be published."""
    names = [piece.name for piece in staging.kept(log, NAME)]
    if names:
        with log.catalog.write() as connection:
            staging.release(connection, names, log.clock.now_us(), published=False)


def is_letters(built: Mapping[int, Built], view: int) -> bool:
    """Whether the output under this number is a view's dead letters."""
    return view < 0 and built[-view].late == letters.MARK


def _topic(log: Log, built: Mapping[int, Built], view: int) -> Topic:
    """The topic that a view's output goes to, or (a negative number) its late rows: one there is, or that is made."""
    entry = built[abs(view)]
    name = f"views.{entry.name}" if view > 0 else f"views.{entry.name}.late"
    for topic in log.topics(hidden=True):
        if topic.name == name:
            return topic
    if view < 0:
        return topics.new(name, "event", late_schema(entry.late), 1, None, "", TopicSettings())
    return topics.new(name, "changelog", entry.schema, 1, None, "", TopicSettings())
