"""Watching a query: its answer, or what changed in it, whenever a commit may have changed it."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from headwater import duck
from headwater.config import MIB, Settings
from headwater.errors import UsageError
from headwater.lake import params as parameters
from headwater.lake.shown import panel_of
from headwater.record import WEIGHT

if TYPE_CHECKING:
    from headwater.catalog.records import Topic
    from headwater.lake.lake import Lake
    from headwater.lake.result import Result

_CLOCK = re.compile(r"\b(now|today|age|ago|random|uuid\w*|current_\w+|localtime\w*|\w+_timestamp)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Changes:
    """What a query's answer gained and lost up to ``position``: its columns and ``_weight``, so many copies (+ or -).

    ``snapshot``: the whole answer, which replaces what came before: the first one, and whenever its columns became
    others. ``token`` stands for everything up to here: ``watch(query, resume=token)`` goes on behind it.
    """

    position: int
    rows: pa.Table
    token: str
    snapshot: bool


class Watch:
    """An endless iterator of (position, rows); positions grow, answers in between may be skipped.

    ``changes`` yields what changed instead. ``resume``, a token of an earlier watch of the same query: what it stands
    for is not told again. UsageError when the token is of another query or another lake.

    ``params`` are bound in every answer, never pasted. One that is a control (it has ``value`` and ``observe``, as
    ipywidgets' have) stands for what it is set to; when it is turned the answer comes again, at the same position too.

    ``interval`` seconds at least lie between two answers. In a notebook the object shows itself as a live
    panel. ``close`` ends the iteration, from another thread too.
    """

    def __init__(
        self,
        lake: Lake,
        query: str,
        interval: float,
        resume: str | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self.lake = lake
        self.query = query
        self.interval = interval
        self.params = dict(params or {})
        self._closed = threading.Event()
        self._asked = self.values
        self._after = -1 if resume is None else self._position(resume)

    @property
    def token(self) -> str | None:
        """Stands for all that ``changes`` has told, and grows when nothing was to be told; None before the first."""
        if self._after < 0:
            return None
        return f"{self.lake.log.incarnation[:8]}-{self._digest()}-{self._after}"

    @property
    def values(self) -> dict[str, Any]:
        """The parameters as they are now: of a control its value."""
        return parameters.now(self.params)

    def latest(self) -> Result:
        """The answer now."""
        return self.lake.sql(self.query, params=self.values or None, whole=True)

    def __iter__(self) -> Iterator[tuple[int, pa.Table]]:
        for position, answer in self._answers(self._after):
            if answer is not None:
                yield position, answer.arrow()

    def changes(self) -> Iterator[Changes]:
        """The answer, then its changes: added to one another they are the answer at each position.

        Nothing is told twice or left out, whenever it is resumed: the answer at a token's position is asked for
        again. Expired when that can no longer be read (``time_travel_s``): watch anew, without a token.
        """
        before = (
            None
            if self._after < 0
            else self.lake.sql(self.query, at=self._after, params=self._asked or None, whole=True)
        )
        limit = f"{Settings().query_memory_bytes_max // MIB}MiB"
        with duck.connect(timezone=self.lake.log.timezone, memory_limit=limit) as own:
            for position, answer in self._answers(self._after):
                self._after = position
                if answer is None:
                    continue
                whole = before is None or (before.columns, before.types) != (answer.columns, answer.types)
                rows = _difference(own, None if whole or before is None else before.arrow(), answer.arrow())
                before = answer
                if whole or rows.num_rows:
                    assert self.token is not None
                    yield Changes(position, rows, self.token, whole)

    def _answers(self, position: int) -> Iterator[tuple[int, Result | None]]:
        """Positions after ``position`` with the answer there; None where it is the one before, so nobody asked."""
        rows: tuple[tuple[Topic, ...], tuple[int, ...], str] | None = None
        while not self._closed.is_set():
            begun = time.monotonic()
            newest = self.lake.log.newest_commit()  # before the answer: what is committed while it is used comes next
            seen = self.lake.seen(self.query)
            values = self.values
            turned, self._asked = values != self._asked, values
            before, rows = rows, (seen.topics, seen.newest, repr(values))
            asked = rows != before or reads_clock(self.query)
            answer = self.lake.sql(self.query, params=values or None, whole=True) if asked else None
            reached = seen.position if answer is None else answer.position
            if reached > position or turned:
                position = max(position, reached)
                yield position, answer
            while not self._closed.is_set() and self.values == values and self.lake.log.wait(newest, 0.1) <= newest:
                continue
            self._closed.wait(max(0.0, self.interval - (time.monotonic() - begun)))

    def _digest(self) -> str:
        asked = self.query + (repr(sorted(self._asked.items())) if self._asked else "")
        return hashlib.sha256(asked.encode()).hexdigest()[:8]

    def _position(self, token: str) -> int:
        lake, digest, position = [*token.split("-"), "", ""][:3]
        if not position.isdigit():
            raise UsageError(f"{token!r} is no token of a watch", todo="Give what Changes.token was.")
        if lake != self.lake.log.incarnation[:8]:
            raise UsageError(f"token {token} is of another lake, or of the time before a restore", todo="Watch anew.")
        if digest != self._digest():
            raise UsageError(f"token {token} is of another query", todo="Watch this one from its beginning.")
        return int(position)

    def close(self) -> None:
        """End the iteration and the panel's updates."""
        self._closed.set()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """The live panel where the notebook package is present, else the answer now as a static table."""
        if (panel := panel_of(self, "watch")) is not None:
            return panel._repr_mimebundle_(include=include, exclude=exclude)
        answer = self.latest()
        return {"text/plain": str(answer), "text/html": answer._repr_html_()}


def reads_clock(query: str) -> bool:
    """Whether the answer may be another one over the same rows. A column's name may say so as well: no harm."""
    return _CLOCK.search(query) is not None


def _difference(own: duckdb.DuckDBPyConnection, before: pa.Table | None, after: pa.Table) -> pa.Table:
    """The rows of ``after`` less those of ``before``, each once with its ``_weight``."""
    own.register("after", after)
    both = f"SELECT *, 1::BIGINT AS {WEIGHT} FROM after"
    if before is not None:
        own.register("before", before)
        both += " UNION ALL SELECT *, -1::BIGINT FROM before"
    rows = f"SELECT * EXCLUDE ({WEIGHT}), sum({WEIGHT})::BIGINT AS {WEIGHT} FROM ({both})"
    return own.sql(f"{rows} GROUP BY ALL HAVING sum({WEIGHT}) <> 0").to_arrow_table()
