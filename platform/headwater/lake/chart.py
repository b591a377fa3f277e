"""A chart of a query: drawn anew at each position, shown live in a notebook, as text and SVG everywhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import pyarrow as pa
import xxhash

from headwater import position as positions
from headwater.lake import filters as conditions
from headwater.lake.html import render
from headwater.lake.params import now
from headwater.lake.plot.aggregation import ALL_POINTS_MAX, Aggregation
from headwater.lake.plot.drawing import draw
from headwater.lake.plot.encoding import Column, Encoding, Wish, choose, wish
from headwater.lake.plot.engines import Engine, handed_over
from headwater.lake.plot.letters import letters
from headwater.lake.plot.picture import Look, Picture
from headwater.lake.plot.points import Point, Points, read
from headwater.lake.plot.source import LakeSource, Source, TableSource, nature
from headwater.lake.plot.svg import legend, svg
from headwater.lake.shown import panel_of

if TYPE_CHECKING:
    from headwater.lake.lake import Lake

STATIC_POINTS: Final = 300
"""Of a static picture: a saved notebook keeps each of them as text."""
STATIC_ROWS: Final = 12
"""Of the table below a static picture."""
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One drawing: what was found, where it stands, and at which commit it is true."""

    encoding: Encoding
    points: Points
    picture: Picture
    position: str
    time: str | None

    @property
    def measure(self) -> str:
        """What the values are."""
        return measure(self.encoding, self.points)

    @property
    def names(self) -> list[str]:
        """The legend: names of the series, none where there is one that the axis names."""
        found = [each.name for each in self.points.series]
        return found if len(found) > 1 or self.encoding.color else []

    @property
    def extent(self) -> str:
        """How many rows became how many points."""
        drawn = sum(len(each.points) for each in self.points.series)
        what = {"bar": "bar", "histogram": "bin"}.get(self.encoding.kind, "point")
        rows = f"{self.points.rows:,} {'row' if self.points.rows == 1 else 'rows'}"
        return f"{rows}, {drawn:,} {what if drawn == 1 else what + 's'}"

    @property
    def notes(self) -> list[str]:
        """What is not in the picture, and why."""
        points, x = self.points, self.encoding.x.name
        found = []
        if points.form == "sample":
            found.append("a sample, chosen by a hash of the rows")
        if points.form == "range":
            found.append("each point the mean of its rows, the band from least to greatest")
        if points.others[0]:
            found.append(f"{points.others[0]:,} smaller series with {points.others[1]:,} rows left out")
        if points.more_categories:
            found.append(f"{points.more_categories:,} more {x} left out")
        if points.unplaced:
            found.append(f"{points.unplaced:,} rows without a place on {x} (NULL, NaN or infinite) left out")
        if points.empty:
            found.append(f"{points.empty:,} values NULL, NaN or infinite")
        return [each for each in (*found, *self.picture.notes) if each]

    def value(self, point: Point) -> str:
        """What a point stands for, exactly, as one line of text."""
        main, detail = self.told(point)
        return f"{main}, {detail}" if detail else main

    def told(self, point: Point) -> tuple[str, str]:
        """The value, and what else is to be said of it: of several rows the mean, then least, greatest, how many."""
        exact = grouped(point.low_text or "NULL")
        if self.encoding.kind not in ("line", "area") or point.rows == 1:
            return exact, ""
        rows = f"{point.rows:,} rows"
        if point.low_text == point.high_text:
            return exact, rows
        mean = "NULL" if point.y is None else f"{point.y:,.6g}"
        return f"mean {mean}", f"{exact} to {grouped(point.high_text or 'NULL')}, {rows}"


class Chart:
    """A chart that follows its query. In a notebook it shows itself as a live panel.

    ``draw`` gives the drawing at a position, ``svg`` a picture for a file, ``print`` a picture in letters.
    """

    def __init__(
        self, source: Source, asked: Wish, *, title: str = "", log: bool = False, unit: str = "", interval: float = 1.0
    ) -> None:
        self.source = source
        self.asked = asked
        self.title = title
        self.log = log
        self.unit = unit
        self.interval = interval
        self._panel: Any = None
        self._columns: tuple[str, tuple[Column, ...]] = ("", ())
        self._ordered, self._repeat = nature(source.sql)

    def draw(
        self,
        *,
        at: positions.Position = None,
        width: int = Look.width,
        height: int = Look.height,
        log: bool | None = None,
        hidden: Sequence[str] = (),
        filters: Sequence[Mapping[str, Any]] = (),
        chosen: tuple[str | None, str | None] = (None, None),
        most: int = ALL_POINTS_MAX,
    ) -> Drawn:
        """The chart as it is at a position; raises what the query raises, and what ``encoding.choose`` does.

        ``filters``: conditions on the query's columns; ``chosen``: a stretch of x, as text, to be marked;
        ``most``: points of all series together, about.
        """
        columns = self.columns(at)
        encoding = choose(self.asked, columns)
        params: dict[str, Any] = {}

        def bind(value: str) -> str:
            params[f"hw_{len(params)}"] = value
            return f"$hw_{len(params) - 1}"

        where = conditions.where(filters, {each.name: each.type for each in columns}, bind)
        asked = Aggregation(
            encoding,
            self.source.sql,
            where=where,
            ordered=self._ordered,
            repeat=self._repeat,
            limits=chosen,
            most=most,
        )
        answer = self.source.ask(asked.sql, params | asked.params, at)
        points = read(answer.rows, encoding, asked.dots)
        look = replace(
            self._look(encoding, points), width=width, height=height, hidden=frozenset(hidden),
            log=self.log if log is None else log,
        )  # fmt: skip
        return Drawn(
            encoding=encoding, points=points, picture=draw(points, look), position=answer.position, time=answer.time
        )

    def columns(self, at: positions.Position = None) -> tuple[Column, ...]:
        """The query's columns; asked again when its tables have moved, for they may have got new ones."""
        state = self.source.state(at).rows
        if self._columns[0] != state:
            empty = self.source.ask(f"SELECT * FROM (\n{self.source.sql}\n) LIMIT 0", {}, at)
            self._columns = (state, empty.columns)
        return self._columns[1]

    def _look(self, encoding: Encoding, points: Points) -> Look:
        zone = (
            ZoneInfo(self.source.timezone)
            if encoding.x.zoned and encoding.kind in ("line", "area", "scatter")
            else None
        )
        label = measure(encoding, points)
        x_label = encoding.x.name
        if encoding.x.zoned and zone is None:  # bins stand on the zone's own clock
            x_label += f" ({self.source.timezone})"
        return Look(
            kind=encoding.kind,
            x_label=x_label,
            y_label=label,
            unit=self.unit,
            time=encoding.x.sort == "time",
            zone=zone,
        )

    # ---- forms without a page

    def svg(self, *, at: positions.Position = None, width: int = Look.width, height: int = Look.height) -> str:
        """The picture as a string, for a file or a mail."""
        drawn = self.draw(at=at, width=width, height=height)
        return svg(drawn.picture, self.label(drawn))

    def label(self, drawn: Drawn) -> str:
        """What the picture shows, in a sentence for those who do not see it."""
        encoding = drawn.encoding
        y = ", ".join(each.name for each in encoding.y) or "rows"
        by = f" by {encoding.color.name}" if encoding.color else ""
        head = f"{self.title}: " if self.title else ""
        return f"{head}{encoding.kind} chart of {y} over {encoding.x.name}{by}; {drawn.extent}"

    def static_html(self, at: positions.Position = None) -> str:
        """Title, picture, legend, notes and a table: readable where no script runs."""
        drawn = self.draw(at=at, most=STATIC_POINTS)
        head = f'<div style="font-weight: 600; margin: 2px 0 4px">{escape(self.title)}</div>' if self.title else ""
        position = f" · position {int(drawn.position):,}" if drawn.position else ""
        notes = "".join(f" · {escape(note)}" for note in drawn.notes)
        return (
            f'<div class="headwater-chart" style="overflow-x: auto">{head}{svg(drawn.picture, self.label(drawn))}'
            f"{legend(drawn.names, dashed=drawn.encoding.kind in ('line', 'area'))}"
            f'<div style="font-size: 12px; opacity: 0.8">{escape(drawn.extent)}{position}{notes}</div>'
            f'<details><summary style="cursor: pointer; font-size: 12px">as a table</summary>'
            f"{self._table(drawn)}</details>"
            "</div>"
        )

    def _table(self, drawn: Drawn) -> str:
        rows = table_rows(drawn)
        names = table_heads(drawn)
        types = ["VARCHAR"] * (len(names) - 1) + ["DOUBLE"]
        shown = rows[:STATIC_ROWS]
        return render(names, types, shown, len(rows), len(shown), int(drawn.position or 0))

    def __str__(self) -> str:
        drawn = self.draw()
        position = f", at commit {drawn.position}" if drawn.position else ""
        lines = [self.label(drawn) + position, *letters(drawn.points, drawn.value), *drawn.notes]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """The live panel where the notebook package is present, else the picture."""
        if (panel := panel_of(self, "chart")) is not None:
            return panel._repr_mimebundle_(include=include, exclude=exclude)
        return {"text/plain": str(self), "text/html": self.static_html()}


def chart(
    lake: Lake, query: str, *, engine: Engine | None = None, params: Mapping[str, Any] | None = None, **options: Any
) -> Any:
    """See ``Lake.chart``."""
    source = LakeSource(lake, query, params)
    return _chart(source, engine, lambda: lake.sql(query, params=now(source.params) or None).arrow(), **options)


def chart_of(
    table: pa.Table, *, engine: Engine | None = None, timezone: str = "UTC", position: int | None = None, **options: Any
) -> Any:
    """A Chart of rows that are there already; options as of ``Lake.chart``. With ``engine``, that library's object."""
    return _chart(TableSource(table, timezone=timezone, position=position), engine, lambda: table, **options)


def _chart(
    source: Source,
    engine: Engine | None,
    rows: Any,
    *,
    kind: str | None = None,
    x: str | None = None,
    y: str | Sequence[str] | None = None,
    color: str | None = None,
    window: str | None = None,
    title: str = "",
    log: bool = False,
    unit: str = "",
    interval: float = 1.0,
) -> Any:
    made = Chart(source, wish(kind, x, y, color, window), title=title, log=log, unit=unit, interval=interval)
    encoding = choose(made.asked, made.columns())  # a mistake shows here, not when the cell's value is drawn
    return made if engine is None else handed_over(engine, rows(), encoding, title, log=log)


def table_heads(drawn: Drawn) -> list[str]:
    """Column names of the chart as a table."""
    y = drawn.measure
    head = ["series"] if drawn.names else []
    return [*head, drawn.encoding.x.name, y if not head or drawn.encoding.color else "value"]


def table_rows(drawn: Drawn) -> list[tuple[str | None, ...]]:
    """Every point of the picture as a row of text."""
    return [
        ((series.name,) if drawn.names else ()) + (across(point), drawn.value(point))
        for series in drawn.points.series
        for point in series.points
    ]


def measure(encoding: Encoding, points: Points) -> str:
    """What the values of a chart are, for its axis and its table."""
    y = ", ".join(each.name for each in encoding.y) or "rows"
    return f"sum of {y}" if points.form == "sum" else y


def across(point: Point) -> str:
    """Where a point stands, exactly."""
    return point.x0_text if point.x0_text == point.x1_text else f"{point.x0_text} to {point.x1_text}"


def grouped(text: str) -> str:
    """An exact number with its thousands separated; another text as it is."""
    if not _NUMBER.fullmatch(text):
        return text
    whole, dot, rest = text.partition(".")
    return f"{int(whole):,}{dot}{rest}" if not whole.startswith("-0") else text


def version(*parts: object) -> str:
    """A short text that is equal for equal parts."""
    return xxhash.xxh3_64_hexdigest(repr(parts).encode())
