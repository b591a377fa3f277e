"""A plot as one SELECT, aggregated where the rows are, whatever the number of rows.

Of many rows a line keeps, for each of some hundred equal stretches of x, the mean and the exact least and greatest
value; a histogram and bars keep sums or counts; a scatter plot keeps the rows whose hash is smallest, so that the same
rows show the same points and new rows move none. Everything exact leaves as DuckDB's own text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from headwater.lake.plot.encoding import Column, Encoding
from headwater.lake.plot.palette import MOST
from headwater.lake.plot.points import CATEGORIES_MAX
from headwater.types import quote

POINTS_MAX: Final = 600
"""Of one line: more than one for each pixel or two is not seen."""
ALL_POINTS_MAX: Final = 3000
"""Of all series together: bounds a reply."""
SCATTER_MAX: Final = 2000
BINS: Final = 40
TEXT_MAX: Final = 200
"""Characters of a category or a series name."""
_STEPS_S: Final = (0.001, 0.01, 0.1, 1, 5, 15, 30, 60, 300, 900, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86_400,
                   7 * 86_400, 28 * 86_400, 364 * 86_400, 3640 * 86_400, 36_400 * 86_400)  # fmt: skip
"""Widths of bins over time, in seconds: those of a clock, then days and whole weeks."""


class Aggregation:
    """One plot as ``sql`` over ``source`` (a SELECT); its rows are ``points.Line``s.

    ``limits``: the chosen stretch of x as text (from, to), placed by the engine; None for an open end. ``most``: points
    of all series together, about; fewer where a plot is to be kept as text.
    """

    def __init__(
        self,
        encoding: Encoding,
        source: str,
        *,
        where: str = "",
        ordered: bool = False,
        repeat: bool = True,
        limits: tuple[str | None, str | None] = (None, None),
        most: int = ALL_POINTS_MAX,
    ) -> None:
        self.encoding = encoding
        self._most, self.dots = most, min(most, SCATTER_MAX)
        self.ordered = ordered
        self.limits = limits
        bins = encoding.kind in ("bar", "histogram")
        self._x = encoding.x
        self._wall = bins and encoding.x.zoned  # bins begin at midnight of the reader's zone
        self._names = [each.name for each in encoding.y] or [""]
        self.sql = self._sql(source, where, repeat)

    # ---- what every plot needs: the rows with a place, their span, the largest series

    def _sql(self, source: str, where: str, repeat: bool) -> str:
        encoding = self.encoding
        ys = [f"{each.finite_sql()} AS hw_y{n}" for n, each in enumerate(encoding.y)]
        series = _named(encoding.color) if encoding.color else "''"
        number = ", row_number() OVER () AS hw_n" if self._is_category and self.ordered else ""
        columns = ", ".join([f"{self._value()} AS hw_v", f"{series} AS hw_s", *ys]) + number
        place = self._place("hw_v") if not self._is_category else "0::DOUBLE"
        window = f" WHERE hw_x >= (SELECT max(hw_x) FROM hw_placed) - {encoding.window}" if encoding.window else ""
        return f"""WITH hw_answer AS {"NOT " if repeat else ""}MATERIALIZED (
{source}
), hw_rows AS NOT MATERIALIZED (SELECT {columns} FROM hw_answer{where}),
hw_placed AS NOT MATERIALIZED (SELECT *, {place} AS hw_x FROM hw_rows WHERE hw_v IS NOT NULL),
hw_in AS NOT MATERIALIZED (SELECT * FROM hw_placed{window}),
hw_span AS (SELECT min(hw_x) AS lo, max(hw_x) AS hi, count(*) AS n FROM hw_in),
hw_all AS (SELECT hw_s, count(*) AS n FROM hw_in GROUP BY hw_s),
hw_series AS (SELECT hw_s, n FROM hw_all ORDER BY n DESC, hw_s LIMIT {MOST}),
{self._points()}
SELECT * FROM hw_points
UNION ALL {_fact("span", "n", "(SELECT count(*) FROM hw_rows)", ends=("lo", "hi"))} FROM hw_span
UNION ALL {_fact("series", "n", name=f"left(hw_s, {TEXT_MAX})")} FROM hw_series
UNION ALL {_fact("all", "count(*)", "sum(n)")} FROM hw_all
{self._band()}"""

    @property
    def _is_category(self) -> bool:
        return self._x.sort == "category"

    def _value(self) -> str:
        if self._is_category:
            return _named(self._x)
        return self._x.finite_sql()

    def _place(self, value: str) -> str:
        if self._x.sort == "number":
            return f"CAST({value} AS DOUBLE)"
        return f"CAST(epoch_us({value}) AS DOUBLE)"

    def _band(self) -> str:
        if self._is_category or self.limits == (None, None):
            return ""
        ends = (f"CAST(${name} AS {self._x.type})" for name in ("hw_from", "hw_to"))
        zone = " AT TIME ZONE current_setting('TimeZone')" if self._wall else ""
        low, high = (self._place(f"({end}{zone})") for end in ends)
        return f"UNION ALL {_fact('band', '0', ends=(low, high))}"

    @property
    def params(self) -> dict[str, str | None]:
        """What the SQL has bound besides the caller's own."""
        if self._is_category or self.limits == (None, None):
            return {}
        return {"hw_from": self.limits[0], "hw_to": self.limits[1]}

    # ---- points of each kind: series, x0, x1 and their texts, y, low, high and the texts of both, rows, values

    def _points(self) -> str:
        kind = self.encoding.kind
        if kind == "scatter":
            return self._scatter()
        if self._is_category:
            return self._categories()
        return self._stretches() if kind in ("line", "area") else self._bins()

    def _stretches(self) -> str:
        """Each x by itself while rows are few, else equal stretches of x."""
        cap = f"(SELECT least({POINTS_MAX}, {self._most} // (count(*) * {len(self._names)} + 1) + 1) FROM hw_series)"
        key = "CASE WHEN n <= cap THEN hw_x ELSE least(floor((hw_x - lo) / (hi - lo) * cap), cap - 1) END"
        ends = {"x0": "min(hw_x)", "x1": "max(hw_x)", "t0": "min(hw_v)", "t1": "max(hw_v)"}
        ranges = (
            {"y": f"avg(hw_y{n}::DOUBLE)", "lo": f"min(hw_y{n})", "hi": f"max(hw_y{n})", "m": f"count(hw_y{n})"}
            for n in range(len(self._names))
        )
        every = [
            f"{self._select(name, {**ends, **found, 'tlo': found['lo'], 'thi': found['hi']})} GROUP BY hw_s, hw_key"
            for name, found in zip(self._names, ranges, strict=True)
        ]
        return (
            f"hw_limits AS (SELECT lo, hi, n, {cap} AS cap FROM hw_span),\n"
            f"hw_keyed AS NOT MATERIALIZED (SELECT hw_in.*, {key} AS hw_key"
            f" FROM hw_in, hw_limits{self._kept('WHERE')}),\n"
            f"hw_points AS ({' UNION ALL '.join(every)})"
        )

    def _select(self, name: str, values: Mapping[str, str]) -> str:
        """One SELECT of points; what is not said is NULL, and a point is of all rows of its group."""
        series = f"left(hw_s, {TEXT_MAX})" if self.encoding.color else _text(name)
        given = {"n": "count(*)", "m": "count(*)", **values}
        numbers = (f"CAST({given.get(each, 'NULL')} AS DOUBLE) AS {each}" for each in ("y", "lo", "hi"))
        texts = (f"CAST({given.get(each, 'NULL')} AS VARCHAR) AS {each}" for each in ("tlo", "thi"))
        return (
            f"SELECT 'point' AS part, {series} AS s, {given['x0']} AS x0, {given['x1']} AS x1,"
            f" CAST({given['t0']} AS VARCHAR) AS t0, CAST({given['t1']} AS VARCHAR) AS t1,"
            f" {', '.join([*numbers, *texts])}, {given['n']} AS n, {given['m']} AS m FROM hw_keyed"
        )

    def _kept(self, word: str) -> str:
        """Only the largest series; no look at them where there is one."""
        return f" {word} hw_s IN (SELECT hw_s FROM hw_series)" if self.encoding.color else ""

    def _totals(self, place: Mapping[str, str], rows: str = "count(*)", values: str = "count(hw_y{})") -> list[str]:
        """Of each y, or of the rows, the SELECT of sums or counts at a place; ``rows`` and ``values`` count them."""
        if not self.encoding.y:
            return [self._select("", {**place, "y": rows, "tlo": rows, "n": rows, "m": rows})]
        return [
            self._select(
                name, {**place, "y": f"sum(hw_y{n})", "tlo": f"sum(hw_y{n})", "n": rows, "m": values.format(n)}
            )
            for n, name in enumerate(self._names)
        ]

    def _bins(self) -> str:
        """Sums or counts by stretches whose width people like.

        Over a zone's time they begin on its clock, which is asked for each quarter of an hour and not for each row: no
        zone's clock is set within one. So rows are added up twice, first by what lies within a quarter.
        """
        clock = "epoch_us(make_timestamptz(CAST(hw_q * unit AS BIGINT)) AT TIME ZONE current_setting('TimeZone'))"
        local = clock if self._wall else "hw_q * unit"
        sums = "".join(f", sum(hw_y{n}) AS hw_y{n}, count(hw_y{n}) AS hw_m{n}" for n in range(len(self.encoding.y)))
        edges = self._edge("hw_key * width"), self._edge("(hw_key + 1) * width")
        place = {"x0": "hw_key * width", "x1": "(hw_key + 1) * width", "t0": edges[0], "t1": edges[1]}
        totals = self._totals(place, "sum(hw_rows)", "sum(hw_m{})")
        every = [f"{each} GROUP BY hw_s, hw_key, width" for each in totals]
        unit = "least(width, 9e8)" if self._wall else "width"
        return (
            f"hw_width AS (SELECT {self._width()} AS width, {unit} AS unit FROM hw_span),\n"
            f"hw_fine AS (SELECT hw_s, floor(hw_x / unit) AS hw_q, count(*) AS hw_rows{sums}"
            f" FROM hw_in, hw_width{self._kept('WHERE')} GROUP BY hw_s, hw_q),\n"
            f"hw_keyed AS (SELECT hw_fine.*, floor({local} / width) AS hw_key, width FROM hw_fine, hw_width),\n"
            f"hw_points AS ({' UNION ALL '.join(every)})"
        )

    def _width(self) -> str:
        if self._x.sort == "time":
            steps = [max(each, 86_400) if self._x.type == "DATE" else each for each in _STEPS_S]
            cases = " ".join(f"WHEN {each * 1e6:.1f} >= (hi - lo) / {BINS} THEN {each * 1e6:.1f}" for each in steps)
            return f"CAST(CASE {cases} ELSE {steps[-1] * 1e6:.1f} END AS DOUBLE)"
        raw = f"greatest((hi / {BINS} - lo / {BINS}), {'1.0' if self._x.whole else '1e-300'})"
        power = f"pow(10, floor(log10({raw})))"
        parts = " ".join(f"WHEN {part} * {power} >= {raw} * (1 - 1e-9) THEN {part}" for part in (1, 2, 5))
        single = "greatest(pow(10, floor(log10(greatest(abs(hi), 1.0))) - 1), 1.0)"
        return f"CASE WHEN hi > lo THEN (CASE {parts} ELSE 10 END * {power}) ELSE {single} END"

    def _edge(self, place: str) -> str:
        """The exact text of a bin's edge, in the column's own type."""
        if self._x.sort == "time":
            moment = f"make_timestamp(CAST({place} AS BIGINT))"
            if self._wall:
                moment = f"({moment} AT TIME ZONE current_setting('TimeZone'))"
            return f"CAST({moment} AS {self._x.type})"
        return f"CAST({place} AS HUGEINT)" if self._x.whole else place

    def _categories(self) -> str:
        """The largest categories, or the first ones in the query's own order."""
        sizes = " + ".join(f"abs(coalesce(sum(CAST(hw_y{n} AS DOUBLE)), 0))" for n in range(len(self.encoding.y)))
        order = "min(hw_n)" if self.ordered else f"{sizes or 'count(*)'} DESC, hw_v"
        cut = f"left(hw_v, {TEXT_MAX})"
        place = {"x0": "min(hw_place)", "x1": "min(hw_place)", "t0": cut, "t1": cut}
        every = [f"{each} GROUP BY hw_s, hw_v" for each in self._totals(place)]
        return (
            f"hw_ranked AS (SELECT hw_v, row_number() OVER (ORDER BY {order}) - 1.0::DOUBLE AS hw_place"
            " FROM hw_in GROUP BY hw_v),\n"
            f"hw_keyed AS (SELECT hw_in.*, hw_place FROM hw_in JOIN hw_ranked USING (hw_v)"
            f" WHERE hw_place < {CATEGORIES_MAX}{self._kept('AND')}),\n"
            f"hw_points AS ({' UNION ALL '.join(every)} UNION ALL {_fact('more', 'count(*)')} FROM hw_ranked)"
        )

    def _scatter(self) -> str:
        """Chosen first and written as text then: of a sort, each column costs, and of text most."""
        each = {
            "x0": "hw_x",
            "x1": "hw_x",
            "t0": "hw_v",
            "t1": "hw_v",
            "y": "hw_y0",
            "tlo": "hw_y0",
            "n": "1",
            "m": "1",
        }
        return (
            f"hw_keyed AS (SELECT * FROM hw_in WHERE hw_y0 IS NOT NULL{self._kept('AND')}"
            f" ORDER BY hash(hw_v, hw_y0) LIMIT {self.dots}),\n"
            f"hw_points AS ({self._select(self._names[0], each)}"
            f" UNION ALL {_fact('empty', 'count(*)')} FROM hw_in WHERE hw_y0 IS NULL)"
        )


def _fact(part: str, n: str, m: str = "0", *, name: str = "''", ends: tuple[str, str] = ("0", "0")) -> str:
    """A row that is no point: one or two numbers, and ends of x."""
    nulls = ", ".join(["NULL"] * 7)
    return f"SELECT '{part}', {name}, {ends[0]}, {ends[1]}, {nulls}, {n}, {m}"


def _named(column: Column) -> str:
    """A category or a series as text; it is cut where it leaves, for cutting each row's costs more than the rest."""
    return f"coalesce(CAST({quote(column.name)} AS VARCHAR), 'NULL')"


def _text(value: str) -> str:
    escaped = value.replace("'", "''")
    return f"'{escaped}'"
