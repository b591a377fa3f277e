"""Reading several partitions in turn, so that one with a long backlog does not keep the others waiting."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from headwater.log import Log, Topic, scan
from headwater.log.offsets import Place
from headwater.log.scan import Piece, Span

TURNS_MAX = 8
"""Partitions read from at the same time: bounds the decoded batches and row groups in memory."""
TURN_S = 1.0
"""When more partitions wait, one is read for so long at a time: beginning again decodes part of a row group anew."""
PLAN_S = 60.0
"""A plan older than this is made anew: the files it names stay for ``file_grace_s`` only."""


@dataclass(kw_only=True)
class Turn:
    """A partition that is being read."""

    topic: Topic
    place: Place
    pieces: Iterator[Piece]
    born: float = field(default_factory=time.monotonic)
    began: bool = False

    def next(self, *, crowded: bool) -> Piece | None:
        """None at the turn's end. ``crowded``: others wait to be read."""
        age_s = time.monotonic() - self.born
        if age_s > PLAN_S or (crowded and self.began and age_s > TURN_S):
            return None
        self.began = True
        return next(self.pieces, None)


class Turns:
    """The partitions being read, first who is next. False when there is none."""

    def __init__(self, log: Log, rows: int, columns: Sequence[str] | None) -> None:
        self._log = log
        self._rows = rows
        self._columns = columns
        self._turns: deque[Turn] = deque()
        self.crowded = False
        """Whether partitions wait that are not among them."""

    def __bool__(self) -> bool:
        return bool(self._turns)

    @property
    def places(self) -> set[Place]:
        return {turn.place for turn in self._turns}

    @property
    def free(self) -> int:
        """How many more may be read at the same time."""
        return max(0, TURNS_MAX - len(self._turns))

    def begin(self, connection: Connection, topic: Topic, spans: Sequence[Span]) -> None:
        """Read these spans as well, as the caller's transaction sees them."""
        for plan in scan.plan(connection, topic, spans):
            pieces = scan.pieces(self._log, plan, self._rows, self._columns)
            self._turns.append(Turn(topic=topic, place=(topic.id, plan.span.partition), pieces=pieces))

    def take(self) -> Turn:
        """Who is next; ``put_back`` while it has more."""
        return self._turns.popleft()

    def put_back(self, turn: Turn) -> None:
        self._turns.append(turn)

    def drop(self, places: Collection[Place]) -> None:
        """Stop reading these: their position moved, or they are another's."""
        self._turns = deque(turn for turn in self._turns if turn.place not in places)
