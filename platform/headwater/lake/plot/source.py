"""What plots are made from: the answer of a query at any position, or rows that are there already."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp

from headwater import duck
from headwater import position as positions
from headwater.errors import SqlError
from headwater.lake.params import now
from headwater.lake.plot.encoding import Column

if TYPE_CHECKING:
    from headwater.lake.lake import Lake

SECONDS_MAX: Final = 20.0
"""A plot that takes longer is given up: the next is due."""
_CLOCK = re.compile(r"\b(now|today|age|ago|random|uuid\w*|current_\w+|localtime\w*|\w+_timestamp)\b", re.IGNORECASE)
_TABLE: Final = "FROM hw_table"


@dataclass(frozen=True)
class Answer:
    """Rows as tuples, their columns, and the commit that they are true at (empty: of no lake) with its time."""

    columns: tuple[Column, ...]
    rows: Sequence[tuple[Any, ...]]
    position: str
    time: str | None


@dataclass(frozen=True)
class State:
    """What the answer would be made of now: equal ``rows`` are equal rows, at whatever position."""

    rows: str
    position: str


class Source(Protocol):
    """What a chart is drawn from. ``sql``: a SELECT that ``ask`` understands; called from any thread."""

    sql: str
    timezone: str

    def state(self, at: positions.Position) -> State: ...

    def ask(self, sql: str, params: Mapping[str, Any], at: positions.Position) -> Answer: ...


class LakeSource:
    """The answer of a query, at whatever position is asked for."""

    def __init__(self, lake: Lake, query: str, params: Mapping[str, Any] | None = None) -> None:
        self.lake = lake
        self.params = dict(params or {})
        self.sql = query.strip().rstrip(";").rstrip()
        self.timezone = lake.log.timezone

    def state(self, at: positions.Position) -> State:
        values = repr(now(self.params)) if self.params else ""
        if at is not None:
            commit = positions.resolve(self.lake.log, at)
            return State(f"at {commit} {values}", str(commit))
        seen = self.lake.seen(self.sql)
        clock = f" {self.lake.position()}" if _CLOCK.search(self.sql) else ""
        topics = [(topic.name, topic.schema_version) for topic in seen.topics]
        return State(f"{topics} {seen.newest}{clock} {values}", str(seen.position))

    def ask(self, sql: str, params: Mapping[str, Any], at: positions.Position) -> Answer:
        found = self.lake.sql(sql, at=at, params={**now(self.params), **params} or None, seconds=SECONDS_MAX)
        columns = tuple(Column(*each) for each in zip(found.columns, found.types, strict=True))
        time = self.lake.time_of(found.position).isoformat() if found.position else None
        return Answer(columns, found.fetchall(), str(found.position), time)


class TableSource:
    """Rows that are there already: a result's. ``at`` means nothing to them."""

    def __init__(self, table: pa.Table, *, timezone: str = "UTC", position: int | None = None) -> None:
        self.table = table
        self.timezone = timezone
        self._place = "" if position is None else str(position)
        self.sql = _TABLE

    def state(self, at: positions.Position) -> State:  # noqa: ARG002 -- they do not change
        return State("fixed", self._place)

    def ask(self, sql: str, params: Mapping[str, Any], at: positions.Position) -> Answer:  # noqa: ARG002
        with duck.connect(timezone=self.timezone) as own:
            own.register("hw_table", self.table)
            try:
                found = own.sql(sql, params=dict(params) or None)
                columns = tuple(Column(*map(str, each)) for each in zip(found.columns, found.types, strict=True))
                return Answer(columns, found.fetchall(), self._place, None)
            except duckdb.Error as error:
                raise SqlError(str(error).split("\n\nLINE ")[0], todo="Check the column and the value.") from error


def nature(query: str) -> tuple[bool, bool]:
    """Whether the query orders its rows, and whether running it again costs less than keeping its rows."""
    if query == _TABLE:
        return True, True
    try:
        parsed = sqlglot.parse_one(query, read="duckdb")
    except sqlglot.errors.ParseError:
        return False, False  # the query's own error says more, when it is run
    costly = (exp.Group, exp.Join, exp.Distinct, exp.AggFunc, exp.Window, exp.SetOperation, exp.Limit, exp.Order)
    return isinstance(parsed.args.get("order"), exp.Order), parsed.find(*costly) is None
