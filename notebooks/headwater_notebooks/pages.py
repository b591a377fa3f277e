"""Pages of a query's answer, by key and at one position: what a live table asks for, and no more.

A page is ordered by the wanted columns and then by a hash of the whole row, so the order is total and a page
can begin after a key instead of at a number of rows: a deep page costs what the first costs, and rows that
arrive before it do not move it. Rows equal in every column stand together; a key therefore carries how many
of its equals were already shown.

Requests name columns, operators and values. Values are bound, columns must exist, and no SQL ever comes from
outside. Every cell leaves as DuckDB's own text, so big integers and decimals stay exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import sqlglot
import xxhash
from sqlglot import exp

from headwater import Lake, Result
from headwater import position as positions
from headwater.errors import NameNotFound, UsageError
from headwater.log.names import near
from headwater.types import quote

ROWS_MAX: Final = 500
"""Rows of one page: more than a screen shows, few enough to paint at once."""
CELL_CHARACTERS_MAX: Final = 300
"""A longer cell is cut, and the page says how many were."""
REPLY_BYTES_MAX: Final = 512 * 1024
"""Text of one page; the rest of a wider page is on the next one."""
KEY_BYTES_MAX: Final = 16 * 1024
"""A sort value longer than this is not sent as a key: sort by a shorter column."""
SECONDS_MAX: Final = 20.0
"""A page that takes longer is given up: a person would not wait for it, and the next is due."""
_DEFAULT_SORT_COLUMNS: Final = 3

_NUMERIC = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL",
            "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")  # fmt: skip
_COMPARISONS: Final = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


@dataclass(frozen=True)
class Column:
    """A column of the answer; ``type`` as DuckDB writes it."""

    name: str
    type: str

    @property
    def numeric(self) -> bool:
        return self.type.split("(")[0] in _NUMERIC


@dataclass(frozen=True)
class Sort:
    """One sort column. NULLs come last either way."""

    column: str
    descending: bool = False


class PageSource(Protocol):
    """What a table panel shows. Called from several threads at once."""

    def page(
        self,
        *,
        sort: Sequence[Mapping[str, Any]] = (),
        filters: Sequence[Mapping[str, Any]] = (),
        after_key: Mapping[str, Any] | None = None,
        limit: int = 50,
        since_version: str | None = None,
        at: positions.Position = None,
    ) -> dict[str, Any]: ...


class Pages:
    """Pages over one query of a lake.

    Thread-safe as the lake is. A pinned lake (``lake.at(P)``) gives pages of that position for ever.
    """

    def __init__(self, lake: Lake, query: str) -> None:
        self.lake = lake
        self.query = query.strip().rstrip(";").rstrip()
        self._columns: tuple[int, tuple[Column, ...]] | None = None

    def page(
        self,
        *,
        sort: Sequence[Mapping[str, Any]] = (),
        filters: Sequence[Mapping[str, Any]] = (),
        after_key: Mapping[str, Any] | None = None,
        limit: int = 50,
        since_version: str | None = None,
        at: positions.Position = None,
    ) -> dict[str, Any]:
        """One page as JSON values, at the newest position or ``at`` another.

        ``{version, position, time, columns, rows, total, next_key, cut}``; rows hold texts and None. Without
        ``rows`` but with ``unchanged`` when the page is still what ``since_version`` named. ``next_key`` is
        None on the last page. Raises HeadwaterErrors: what the query itself raises, unknown columns, values
        that are no value of their column's type.
        """
        newest = self.lake.position() if at is None else positions.resolve(self.lake.log, at)
        where = None if at is None else newest
        if since_version and since_version.partition("-")[0] == str(newest):
            return {"unchanged": True, "version": since_version}
        columns = self.columns(newest, where)
        plan = _Plan(self.query, columns, sort, filters, after_key, min(max(int(limit), 1), ROWS_MAX))
        answer = self.lake.sql(plan.sql, at=where, params=plan.params or None, seconds=SECONDS_MAX)
        content = plan.content(answer, after_key)
        version = f"{newest}-{_digest([sort, filters, after_key, limit, content])}"
        head = {"version": version, "position": str(answer.position), "time": self._time(answer.position)}
        if since_version and since_version.partition("-")[2] == version.partition("-")[2]:
            return {**head, "unchanged": True}
        return {**head, **content}

    def columns(self, newest: int, at: int | None = None) -> tuple[Column, ...]:
        """The answer's columns, asked again when the lake has moved: a table may have got a new one."""
        if self._columns is None or self._columns[0] != newest:
            empty = self.lake.sql(f"SELECT * FROM (\n{self.query}\n) LIMIT 0", at=at)
            found = tuple(Column(name, kind) for name, kind in zip(empty.columns, empty.types, strict=True))
            self._columns = (newest, found)
        return self._columns[1]

    def _time(self, commit: int) -> str | None:
        return self.lake.time_of(commit).isoformat() if commit else None


class _Plan:
    """One page as SQL: filter, begin after the key, order, cut; beside it the count of all filtered rows."""

    def __init__(
        self,
        query: str,
        columns: tuple[Column, ...],
        sort: Sequence[Mapping[str, Any]],
        filters: Sequence[Mapping[str, Any]],
        after_key: Mapping[str, Any] | None,
        limit: int,
    ) -> None:
        self.columns = columns
        self.limit = limit
        self.params: dict[str, str | int] = {}
        parsed = sqlglot.parse_one(query, read="duckdb")
        wanted = [Sort(self._column(each["column"]).name, bool(each.get("descending"))) for each in sort]
        own = own_order(parsed, columns)
        numbered = not wanted and own is None
        self.sort = wanted or (own if own else [Sort(c.name) for c in columns[:_DEFAULT_SORT_COLUMNS]])
        if numbered:  # the query's order cannot be said in its columns: number its rows instead
            self.sort = [Sort("hw_number")]
            query = f"SELECT *, row_number() OVER () AS hw_number FROM (\n{query}\n)"
        self.types = {c.name: c.type for c in columns} | {"hw_number": "BIGINT"}
        self.sql = self._sql(query, filters, after_key, repeat=_cheap(parsed) and not numbered)

    def _column(self, name: object) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise NameNotFound(
            f"the answer has no column {name!r}", suggestions=near(str(name), [c.name for c in self.columns])
        )

    def _bind(self, value: str | int) -> str:
        name = f"hw_{len(self.params)}"
        self.params[name] = value
        return f"${name}"

    def _sql(
        self,
        query: str,
        filters: Sequence[Mapping[str, Any]],
        after_key: Mapping[str, Any] | None,
        *,
        repeat: bool,
    ) -> str:
        conditions = [self._condition(each) for each in filters]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        row = ", ".join(quote(c.name) for c in self.columns)
        order = ", ".join(f"{quote(s.column)} {'DESC' if s.descending else 'ASC'} NULLS LAST" for s in self.sort)
        after = f" WHERE {self._after(after_key)}" if after_key else ""
        skip = f" OFFSET {self._bind(int(after_key['skip']))}" if after_key else ""
        # "left" limits what a cell costs on its way here; one character more than is shown tells that it was cut.
        cells = ", ".join(f"left(CAST({quote(c.name)} AS VARCHAR), {CELL_CHARACTERS_MAX + 1})" for c in self.columns)
        keys = ", ".join(f"CAST({quote(s.column)} AS VARCHAR)" for s in self.sort)
        return f"""WITH hw_answer AS {"NOT " if repeat else ""}MATERIALIZED (
{query}
), hw_filtered AS NOT MATERIALIZED (SELECT * FROM hw_answer{where}),
hw_hashed AS NOT MATERIALIZED (SELECT *, hash({row}) AS hw_hash FROM hw_filtered),
hw_page AS (SELECT * FROM hw_hashed{after} ORDER BY {order}, hw_hash LIMIT {self.limit + 1}{skip})
SELECT hw_total, hw_place, hw_cells, hw_key FROM (SELECT count(*) AS hw_total FROM hw_filtered)
LEFT JOIN (SELECT row_number() OVER (ORDER BY {order}, hw_hash) AS hw_place, [{cells}] AS hw_cells,
  [{keys}, CAST(hw_hash AS VARCHAR)] AS hw_key FROM hw_page) ON true ORDER BY hw_place"""

    def _condition(self, spec: Mapping[str, Any]) -> str:
        column = self._column(spec.get("column"))
        name, op = quote(column.name), spec.get("op")
        if op == "null":
            return f"{name} IS NULL"
        if op == "not null":
            return f"{name} IS NOT NULL"
        value = self._bind(str(spec.get("value", "")))
        if op == "contains":
            return f"contains(lower(CAST({name} AS VARCHAR)), lower({value}))"
        if op in _COMPARISONS:
            return f"{name} {_COMPARISONS[op]} CAST({value} AS {column.type})"
        raise UsageError(
            f"no filter is called {op!r}", todo=f"Use contains, null, not null, {', '.join(_COMPARISONS)}."
        )

    def _after(self, key: Mapping[str, Any]) -> str:
        """The row comparison ``row >= key`` in this order, written out: directions differ, NULLs come last."""
        values = key.get("values")
        if not isinstance(values, list) or len(values) != len(self.sort) + 1:
            raise UsageError("the key is not one of this order", todo="Begin at the first page.")
        alternatives, equal = [], ""
        for sort, value in zip(self.sort, values, strict=False):
            name = quote(sort.column)
            if value is None:
                equal += f"{name} IS NULL AND "
                continue
            bound = f"CAST({self._bind(value)} AS {self.types[sort.column]})"
            alternatives.append(f"({equal}({name} {'<' if sort.descending else '>'} {bound} OR {name} IS NULL))")
            equal += f"{name} = {bound} AND "
        alternatives.append(f"({equal}hw_hash >= CAST({self._bind(values[-1])} AS UBIGINT))")
        return " OR ".join(alternatives)

    def content(self, answer: Result, after_key: Mapping[str, Any] | None) -> dict[str, Any]:
        """The reply's part that depends on the rows alone."""
        found = [line for line in answer.fetchall() if line[1] is not None]
        total = answer.arrow().column("hw_total")[0].as_py()
        rows: list[list[str | None]] = []
        size = cut = 0
        for _, _, cells, _ in found[: self.limit]:
            size += sum(len(cell.encode()) for cell in cells if cell is not None) + 8 * len(cells)
            if rows and size > REPLY_BYTES_MAX:
                break
            cut += sum(cell is not None and len(cell) > CELL_CHARACTERS_MAX for cell in cells)
            rows.append([_cut(cell) for cell in cells])
        keys = [key for _, _, _, key in found[: len(rows)]]
        return {
            "columns": [
                {"name": c.name, "type": c.type, "align": "right" if c.numeric else "left"} for c in self.columns
            ],
            "rows": rows,
            "total": str(total),
            "next_key": _key_after(keys, after_key) if len(found) > len(rows) else None,
            "cut": cut,
        }


def own_order(query: exp.Expr, columns: Sequence[Column]) -> list[Sort] | None:
    """The query's own ORDER BY said in its output columns; empty without one, None when it cannot be said."""
    order = query.args.get("order")
    if not isinstance(order, exp.Order):
        return []
    names = {c.name.lower(): c.name for c in columns}
    outputs = {each.unalias(): each.alias_or_name for each in query.selects} if isinstance(query, exp.Select) else {}
    found = []
    for each in order.expressions:
        term = each.this if isinstance(each, exp.Ordered) else each
        nulls_first = isinstance(each, exp.Ordered) and bool(each.args.get("nulls_first"))
        name = _output_name(term, outputs, columns)
        if nulls_first or name.lower() not in names:
            return None
        found.append(Sort(names[name.lower()], isinstance(each, exp.Ordered) and bool(each.args.get("desc"))))
    return found


def _output_name(term: exp.Expr, outputs: Mapping[exp.Expr, str], columns: Sequence[Column]) -> str:
    if isinstance(term, exp.Literal) and not term.is_string and 1 <= int(term.this) <= len(columns):
        return columns[int(term.this) - 1].name
    if isinstance(term, exp.Column) and not term.table:
        return term.name
    return outputs.get(term, "")


def _cheap(query: exp.Expr) -> bool:
    """Whether running the query twice (rows, and their count) costs less than keeping all its rows."""
    costly = (exp.Group, exp.Join, exp.Distinct, exp.AggFunc, exp.Window, exp.SetOperation, exp.Limit, exp.Order)
    return query.find(*costly) is None


def _key_after(keys: list[list[str | None]], before: Mapping[str, Any] | None) -> dict[str, Any]:
    last = keys[-1]
    if sum(len(value.encode()) for value in last if value is not None) > KEY_BYTES_MAX:
        raise UsageError(
            f"a sort value is longer than {KEY_BYTES_MAX} bytes", todo="Sort by a column of shorter values."
        )
    equals = next((n for n, key in enumerate(reversed(keys)) if key != last), len(keys))
    if before and equals == len(keys) and before["values"] == last:
        equals += int(before["skip"])
    return {"values": last, "skip": equals}


def _cut(cell: str | None) -> str | None:
    return cell if cell is None or len(cell) <= CELL_CHARACTERS_MAX else cell[:CELL_CHARACTERS_MAX] + "…"


def _digest(value: object) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(value, sort_keys=True).encode())
