"""Which column of an answer is what in a plot: said by the reader, or chosen from the columns' types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from headwater.errors import NameNotFound, UsageError
from headwater.log.names import near
from headwater.types import quote

Kind = Literal["line", "bar", "area", "histogram", "scatter"]
KINDS: Final = get_args(Kind)
Sort = Literal["number", "time", "category"]

_NUMBERS: Final = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL",
                   "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")  # fmt: skip
_FLOATS: Final = ("FLOAT", "DOUBLE")
_UNITS: Final = {
    "ms": 1_000,
    "s": 10**6,
    "m": 60 * 10**6,
    "h": 3600 * 10**6,
    "d": 86_400 * 10**6,
    "w": 7 * 86_400 * 10**6,
}
_STRETCH: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|[smhdw])\s*")


@dataclass(frozen=True)
class Column:
    """A column of the answer; ``type`` as DuckDB writes it."""

    name: str
    type: str

    @property
    def sort(self) -> Sort:
        if self.type.split("(")[0] in _NUMBERS:
            return "number"
        return "time" if self.type == "DATE" or self.type.startswith("TIMESTAMP") else "category"

    @property
    def zoned(self) -> bool:
        return self.type == "TIMESTAMP WITH TIME ZONE"

    @property
    def whole(self) -> bool:
        return self.sort == "number" and self.type.split("(")[0] not in ("DECIMAL", *_FLOATS)

    def finite_sql(self) -> str:
        """The value, or NULL where it has no place on an axis: NaN, the infinities."""
        name = quote(self.name)
        may = self.type in _FLOATS or self.sort == "time"
        return f"CASE WHEN isfinite({name}) THEN {name} END" if may else name


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a reader asked for. ``window``: microseconds of the last stretch of ``x``, 0 for all of it."""

    kind: Kind | None = None
    x: str | None = None
    y: tuple[str, ...] = ()
    color: str | None = None
    window: int = 0


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Without ``y``, rows are counted. Of several ``y`` each is a series of its own, else each value of ``color``."""

    kind: Kind
    x: Column
    y: tuple[Column, ...] = ()
    color: Column | None = None
    window: int = 0


def wish(kind: str | None, x: str | None, y: str | Sequence[str] | None, color: str | None, window: str | None) -> Wish:
    """What people write, checked as far as it can be without the columns. UsageError."""
    if kind is not None and kind not in KINDS:
        raise UsageError(f"no kind of chart is called {kind!r}", todo=f"Use {', '.join(KINDS)}, or leave it out.")
    ys = (y,) if isinstance(y, str) else tuple(y or ())
    if len(ys) > 1 and color:
        raise UsageError("several y and a color are two ways to make series", todo="Give one of them.")
    if kind == "histogram" and ys:
        raise UsageError("a histogram counts rows by x and has no y", todo="Leave y out, or ask for bars.")
    return Wish(kind=cast("Kind | None", kind), x=x, y=ys, color=color, window=stretch(window) if window else 0)


def stretch(text: str) -> int:
    """``15m`` as microseconds: a number and ms, s, m, h, d or w. UsageError."""
    found = _STRETCH.fullmatch(text)
    if found is None or float(found[1]) <= 0:
        raise UsageError(f"{text!r} is not a stretch of time", todo="Write it like 30s, 15m, 2h or 7d.")
    return round(float(found[1]) * _UNITS[found[2]])


def choose(asked: Wish, columns: Sequence[Column]) -> Encoding:
    """The encoding over these columns. NameNotFound for one that is not there, UsageError for one that cannot be that.

    Left open: x is the first time, else the first column; y every number left, of points the first; over a time a
    line, over text bars, over a number points, without any y a histogram; the only text column left makes the series.
    """
    x = _column(asked.x, columns) if asked.x else _first(asked, columns)
    color = _column(asked.color, columns) if asked.color else None
    ys = tuple(_number(_column(each, columns)) for each in asked.y)
    rest = [each for each in columns if each not in (x, color)]
    if not ys and asked.kind != "histogram":
        found = tuple(each for each in rest if each.sort == "number")
        single = color is not None or asked.kind == "scatter" or (asked.kind is None and x.sort == "number")
        ys = found[:1] if single else found
    kind = asked.kind or _kind(x, ys)
    texts = [each for each in rest if each.sort == "category"]
    if color is None and len(ys) <= 1 and len(texts) == 1:
        color = texts[0]
    _check(kind, x, ys, asked)
    return Encoding(kind=kind, x=x, y=ys, color=color, window=asked.window)


def _first(asked: Wish, columns: Sequence[Column]) -> Column:
    free = [each for each in columns if each.name not in (*asked.y, asked.color)] or list(columns)
    if not free:
        raise UsageError("the answer has no columns to draw")
    sorts: tuple[Sort, ...] = ("number", "time") if asked.kind == "histogram" else ("time",)
    return next((each for sort in sorts for each in free if each.sort == sort), free[0])


def _kind(x: Column, ys: Sequence[Column]) -> Kind:
    if not ys:
        return "bar" if x.sort == "category" else "histogram"
    return {"time": "line", "category": "bar", "number": "scatter"}[x.sort]  # type: ignore[return-value]


def _check(kind: Kind, x: Column, ys: Sequence[Column], asked: Wish) -> None:
    if kind in ("line", "area", "histogram", "scatter") and x.sort == "category":
        raise UsageError(
            f"{kind} needs a number or a time on x, and {x.name} is {x.type.lower()}",
            todo="Ask for bars, or another x.",
        )
    if kind != "bar" and kind != "histogram" and not ys:
        raise UsageError(f"{kind} needs a column of numbers for y", todo="Select one, or ask for a histogram.")
    if kind == "scatter" and len(ys) > 1:
        raise UsageError("scatter takes one y", todo="Give one, and color= for series.")
    if asked.window and x.sort != "time":
        raise UsageError(f"window needs a time on x, and {x.name} is {x.type.lower()}", todo="Give x=, or no window.")


def _column(name: str, columns: Sequence[Column]) -> Column:
    for column in columns:
        if column.name == name:
            return column
    raise NameNotFound(f"the answer has no column {name!r}", suggestions=near(name, [each.name for each in columns]))


def _number(column: Column) -> Column:
    if column.sort != "number":
        raise UsageError(f"y needs numbers, and {column.name} is {column.type.lower()}", todo="Cast it, or count rows.")
    return column
