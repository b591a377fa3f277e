"""One page of an answer as SQL: filter, begin at a key, order, cut; and what comes back as a page.

The order is total: after the wanted columns come those that name a row (``Question.unique``), or else a hash of the
whole row. So a page can begin at a key instead of at a number of rows: a deep page costs what the first costs, and
rows that arrive before it do not move it. Turned around, the same order pages backwards.

A key is ``{values, skip}``: begin at these values, after so many rows equal in every column; or ``{values, left}``:
begin behind them, but for so many of their equals.

Columns must exist and values are bound, or written as literals where a person is to read the SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from headwater import Result
from headwater.errors import NameNotFound, UsageError
from headwater.lake import filters
from headwater.log.names import near
from headwater.types import quote
from headwater_notebooks.page_order import HASH, NUMBER, Column, Sort, Source
from headwater_notebooks.question import Question

ROWS_MAX: Final = 500
"""Rows of one page: more than a screen shows, few enough to paint at once."""
CELL_CHARACTERS_MAX: Final = 300
"""A longer cell is cut, and the page says how many were."""
REPLY_BYTES_MAX: Final = 512 * 1024
"""Text of one page; the rest of a wider page is on the next one."""
KEY_BYTES_MAX: Final = 16 * 1024
"""A sort value longer than this is not sent as a key: sort by a shorter column."""
SEARCH_CHARACTERS_MAX: Final = 200

Bind = Callable[[Any], str]
"""SQL that stands for a value."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a page is asked for, besides the question: as the page in the browser says it, and checked by ``Plan``."""

    sort: Sequence[Mapping[str, Any]] = ()
    filters: Sequence[Mapping[str, Any]] = ()
    search: str = ""
    key: Mapping[str, Any] | None = None
    backwards: bool = False
    limit: int = 50


@dataclass(kw_only=True)
class Plan:
    """A page's SQL in ``sql``, with ``params``. NameNotFound, UsageError for a wish that cannot be."""

    question: Question
    columns: tuple[Column, ...]
    wish: Wish
    total: int | None = None
    """How many rows the filtered answer has, when that is known already; else it is counted."""
    few: bool = False
    """Whether the answer had few rows when it was last counted: then its page is read in one pass."""
    params: dict[str, Any] = field(init=False)
    sql: str = field(init=False)
    order: list[Sort] = field(init=False)

    def __post_init__(self) -> None:
        self.params = dict(self.question.params)
        self.limit = min(max(self.wish.limit, 1), ROWS_MAX)
        source = Source.of(self.question, self.columns, numbered=not self.wanted)
        wanted = self.wanted or source.order
        named = {sort.column for sort in wanted}
        unique = self.question.unique or (HASH,) if wanted != [Sort(NUMBER)] else ()
        ties = [Sort(name) for name in unique if name not in named]
        self.order = [replace(sort, turned=self.wish.backwards) for sort in [*wanted, *ties]]
        self.sql = self._sql(source)

    @property
    def wanted(self) -> list[Sort]:
        """The sort columns that were asked for."""
        return [Sort(self._column(each.get("column")).name, bool(each.get("descending"))) for each in self.wish.sort]

    def _column(self, name: object) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise NameNotFound(
            f"the answer has no column {name!r}", suggestions=near(str(name), [c.name for c in self.columns])
        )

    def _bind(self, value: Any) -> str:
        name = f"hw_{len(self.params)}"
        self.params[name] = value
        return f"${name}"

    def conditions(self, bind: Bind) -> list[str]:
        """What a row must be to be in the filtered answer: each filter, and the search."""
        types = {column.name: column.type for column in self.columns}
        found = [filters.condition(each, types, bind) for each in self.wish.filters]
        return [*found, self._found(self.wish.search, bind)] if self.wish.search else found

    def _sql(self, source: Source) -> str:
        conditions = self.conditions(self._bind)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        order = ", ".join(sort.sql for sort in self.order)
        # "left" limits what a cell costs on its way here; one character more than is shown tells that it was cut.
        cells = ", ".join(f"left(CAST({quote(c.name)} AS VARCHAR), {CELL_CHARACTERS_MAX + 1})" for c in self.columns)
        keys = ", ".join(f"CAST({quote(s.column)} AS VARCHAR)" for s in self.order)
        late = source.cheap and bool(self.question.unique) and not self.few
        # What is read several times stands there several times: of a CTE with hot records DuckDB reads every column.
        parts, answer = list[str](), f"(\n{source.sql}\n)"
        if not source.cheap:
            parts, answer = [f"hw_answer AS MATERIALIZED {answer}"], "hw_answer"
        rows = f"({self._rows(late)} FROM {answer} AS hw_own{where})"
        if late and conditions and self.total is None:  # found once: they are counted and put in order
            parts.append(f"hw_rows AS MATERIALIZED {rows}")
            rows = "hw_rows"
        begin, skip = self._begin(rows) if self.wish.key else ("", "")
        counted = f"count(*) FROM {rows} AS hw_own" if self.total is None else self._bind(self.total)
        top = f"SELECT * FROM {rows} AS hw_own{begin} ORDER BY {order} LIMIT {self.limit + 1}{skip}"
        parts += self._late_page(answer, top) if late else [f"hw_page AS ({top})"]
        return f"""WITH {", ".join(parts)}
SELECT hw_total, hw_place, hw_cells, hw_key FROM (SELECT {counted}) AS hw_counted(hw_total) LEFT JOIN (
  SELECT row_number() OVER (ORDER BY {order}) AS hw_place, [{cells}] AS hw_cells, [{keys}] AS hw_key FROM hw_page
) ON true ORDER BY hw_place"""

    def _rows(self, late: bool) -> str:
        if late:
            return f"SELECT {', '.join(quote(sort.column) for sort in self.order)}"
        if any(sort.column == HASH for sort in self.order):
            return f"SELECT *, hash({', '.join(quote(c.name) for c in self.columns)}) AS {HASH}"
        return "SELECT *"

    def _late_page(self, answer: str, top: str) -> list[str]:
        """The page's rows fetched by what names them, after the columns that put them in order were read alone."""
        unique = [quote(name) for name in self.question.unique]
        same = " AND ".join(f"r.{name} = t.{name}" for name in unique)  # "=" lets the scan skip what cannot match
        null = " OR ".join(f"r.{name} IS NULL" for name in unique)
        as_well = " AND ".join(f"r.{name} IS NOT DISTINCT FROM t.{name}" for name in unique)
        # Not where there is none: of what is read from files, looking for a NULL reads every column of every row.
        others = f""" UNION ALL
  SELECT r.* FROM (SELECT * FROM {answer} r WHERE {null}) r SEMI JOIN hw_top t ON {as_well}"""
        page = f"SELECT r.* FROM {answer} r SEMI JOIN hw_top t ON {same}{others if self.question.nullable else ''}"
        return [f"hw_top AS MATERIALIZED ({top})", f"hw_page AS ({page})"]

    def _found(self, text: str, bind: Bind) -> str:
        if len(text) > SEARCH_CHARACTERS_MAX:
            raise UsageError(f"a search is at most {SEARCH_CHARACTERS_MAX} characters")
        places = [column for column in self.columns if column.may_hold(text.lower())]
        value = bind(text) if places else ""
        found = (filters.contains(each.name, each.type, text, value) for each in places)
        return f"({' OR '.join(found)})" if places else "false"

    def _begin(self, rows: str) -> tuple[str, str]:
        """The row comparison with the key, written out since directions differ; and what to skip of its equals."""
        key = self.wish.key
        assert key is not None
        values = key.get("values")
        if not isinstance(values, list) or len(values) != len(self.order):
            raise UsageError("the key is not one of this order", todo="Begin at the first page.")
        types = {c.name: c.type for c in self.columns} | {NUMBER: "BIGINT", HASH: "UBIGINT"}
        ahead = ""
        alternatives: list[str] = []
        equal: list[str] = []
        for sort, value in zip(self.order, values, strict=True):
            bound = "" if value is None else f"CAST({self._bind(str(value))} AS {types[sort.column]})"
            behind = sort.behind(value, bound)
            ahead = ahead if equal else behind
            if behind:
                alternatives.append(" AND ".join([*equal, behind]))
            equal.append(f"{quote(sort.column)} {'IS NULL' if value is None else f'= {bound}'}")
        same = " AND ".join(equal)
        left = _count(key, "left") if "left" in key else None
        if left != 0:
            alternatives.append(same)
        # The first column alone once more: that is what row groups can be skipped by.
        first = f"({' OR '.join([*alternatives[: bool(ahead)], equal[0]])}) AND " if len(self.order) > 1 else ""
        begin = f" WHERE {first}({' OR '.join(f'({each})' for each in alternatives) or 'false'})"
        if left is None:
            return begin, f" OFFSET {self._bind(_count(key, 'skip'))}"
        if left == 0:
            return begin, ""
        return begin, f" OFFSET (SELECT greatest(count(*) - {self._bind(left)}, 0) FROM {rows} AS hw_own WHERE {same})"

    def content(self, answer: Result) -> dict[str, Any]:
        """The reply's part that depends on the rows alone."""
        found = [line for line in answer.fetchall() if line[1] is not None]
        rows: list[list[str | None]] = []
        size = cut = 0
        for _, _, cells, _ in found[: self.limit]:
            size += sum(len(cell.encode()) for cell in cells if cell is not None) + 8 * len(cells)
            if rows and size > REPLY_BYTES_MAX:
                break
            cut += sum(cell is not None and len(cell) > CELL_CHARACTERS_MAX for cell in cells)
            rows.append([_cut(cell) for cell in cells])
        keys = [key for _, _, _, key in found[: len(rows)]]
        near_end, far_end = self._ends(keys, more=len(found) > len(rows))
        if self.wish.backwards:
            rows.reverse()
        return {
            "columns": [
                {"name": c.name, "type": c.type, "align": "right" if c.numeric else "left"} for c in self.columns
            ],
            "rows": rows,
            "total": str(answer.arrow().column("hw_total")[0].as_py()),
            "next_key": near_end if self.wish.backwards else far_end,
            "previous_key": far_end if self.wish.backwards else near_end,
            "cut": cut,
        }

    def _ends(self, keys: list[list[str | None]], *, more: bool) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Where the page before this one begins, turned around, and the page after it; None where there is none."""
        if not keys:
            return None, None
        key = self.wish.key or {}
        form = "left" if "left" in key else "skip"
        begun = _count(key, form) if key.get("values") == keys[0] else 0  # rows like the first that the key speaks of
        near_end: dict[str, Any] | None = {"values": keys[0], "left": 0} if key else None
        if begun:  # what one direction has left out, the other has left
            near_end = {"values": keys[0], "skip" if form == "left" else "left": begun}
        if not more:
            return near_end, None
        last = keys[-1]
        if sum(len(value.encode()) for value in last if value is not None) > KEY_BYTES_MAX:
            raise UsageError(
                f"a sort value is longer than {KEY_BYTES_MAX} bytes", todo="Sort by a column of shorter values."
            )
        equals = next((n for n, other in enumerate(reversed(keys)) if other != last), len(keys))
        if begun and equals == len(keys):
            return near_end, {"values": last, form: begun + equals if form == "skip" else max(begun - equals, 0)}
        return near_end, {"values": last, "skip": equals}


def _count(key: Mapping[str, Any], name: str) -> int:
    value = key.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError("the key is not one of this order", todo="Begin at the first page.")
    return value


def _cut(cell: str | None) -> str | None:
    return cell if cell is None or len(cell) <= CELL_CHARACTERS_MAX else cell[:CELL_CHARACTERS_MAX] + "…"
