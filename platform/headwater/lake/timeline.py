"""The commits of a lake along the clock: how many there were when, from which on each can be read, and its tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any, Final

from headwater.catalog.records import to_datetime, to_micros
from headwater.errors import Expired, UsageError
from headwater.lake.html import render
from headwater.lake.plain import plain_table
from headwater.lake.shown import panel_of
from headwater.log import retention, tags

if TYPE_CHECKING:
    from headwater.lake.lake import Lake

BUCKETS_MAX: Final = 120
"""Stretches of time of one answer."""
_SECOND: Final = 1_000_000
_WIDTHS: Final = tuple(
    round(seconds * _SECOND)
    for seconds in (
        0.01,
        0.1,
        0.2,
        0.5,
        1,
        2,
        5,
        10,
        30,
        60,
        120,
        300,
        600,
        1800,
        3600,
        7200,
        21_600,
        43_200,
        86_400,
        172_800,
        604_800,
    )
)
_CACHED_MAX: Final = 10_000
_WIDTH, _HEIGHT = 600, 48


@dataclass(frozen=True, kw_only=True)
class Commits:
    """``edges[i]``: the newest commit at or before ``start + i * width_s``, so ``edges[i + 1] - edges[i]`` are between.

    ``oldest``: the first commit at which every table can still be read; 0 for an empty lake, as ``newest``.
    """

    oldest: int
    newest: int
    start: datetime
    width_s: float
    edges: tuple[int, ...]
    tags: tuple[tags.Tag, ...]


class Timeline:
    """Where a lake can be read. In a notebook a slider that sets the position of the panels it is linked with.

    ``linked``: things with a panel, which turn with it.
    """

    panel = "timeline"

    def __init__(self, lake: Lake, linked: Sequence[object] = ()) -> None:
        self.lake = lake
        self.linked = tuple(linked)
        self._at: dict[int, int] = {}  # microseconds -> the newest commit then: past times stay as they are
        self._oldest = 0

    def commits(self, *, window_s: float | None = None, most: int = BUCKETS_MAX) -> Commits:
        """Counts of commits from the oldest readable one to the newest, or of the last ``window_s`` seconds.

        At most ``most`` stretches (4 to 120) of a length people like, the last one with the newest commit in it.
        """
        if window_s is not None and not window_s >= 1:
            raise UsageError("a window is at least one second")
        most = min(max(most, 4), BUCKETS_MAX)
        newest, named = self.lake.position(), tuple(self.lake.tags())
        oldest = self._readable_from(newest)
        if newest == 0:
            return Commits(oldest=0, newest=0, start=datetime.fromtimestamp(0, UTC), width_s=1, edges=(0,), tags=named)
        last = to_micros(self.lake.time_of(newest))
        first = to_micros(self.lake.time_of(oldest))
        if window_s is not None:
            first = max(first, last - int(window_s * _SECOND))
        width = next((each for each in _WIDTHS if (last - first) / each <= most - 2), None)
        width = width or -(-(last - first) // (most - 2) // _WIDTHS[-1]) * _WIDTHS[-1]
        start = (first - 1) // width * width  # the first commit is behind the first edge
        times = range(start, last + width, width)
        edges = tuple(self._commit_at(time, last, newest) for time in times)
        return Commits(
            oldest=oldest,
            newest=newest,
            start=to_datetime(start),
            width_s=width / _SECOND,
            edges=(max(edges[0], oldest - 1), *edges[1:]),
            tags=tuple(tag for tag in named if tag.commit <= newest),
        )

    def _commit_at(self, time: int, last: int, newest: int) -> int:
        if time >= last:
            return newest
        found = self._at.get(time)
        if found is None:
            found = self.lake.log.commit_at_time(to_datetime(time))
            if len(self._at) >= _CACHED_MAX:
                self._at.clear()
            self._at[time] = found
        return found

    def _readable_from(self, newest: int) -> int:
        """Found by halving: what is after a readable commit is readable too. It only grows, so it is kept."""
        low = max(self._oldest, min(newest, 1))
        if newest and not self._readable(low):
            high = newest
            while low + 1 < high:
                middle = (low + high) // 2
                low, high = (low, middle) if self._readable(middle) else (middle, high)
            low = high
        self._oldest = low
        return low

    def _readable(self, commit: int) -> bool:
        try:
            self.lake.time_of(commit)
            retention.require_readable(self.lake.log, commit)
        except Expired:
            return False
        return True

    def __str__(self) -> str:
        found = self.commits()
        rows = _rows(self.lake, found)
        return plain_table(("position", "commit", "time"), _TYPES, rows, len(rows), found.newest)

    def __repr__(self) -> str:
        return str(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """The slider where the notebook package is present, else a picture and a table."""
        if (panel := panel_of(self, "timeline")) is not None:
            return panel._repr_mimebundle_(include=include, exclude=exclude)
        return {"text/plain": str(self), "text/html": self.static_html()}

    def static_html(self) -> str:
        """When there were how many commits as a picture, and the ends and tags as a table."""
        found = self.commits()
        rows = _rows(self.lake, found)
        table = render(("position", "commit", "time"), _TYPES, rows, len(rows), len(rows), found.newest)
        return _picture(found) + table


_TYPES: Final = ("VARCHAR", "BIGINT", "TIMESTAMPTZ")


def _rows(lake: Lake, found: Commits) -> list[tuple[str, str, str]]:
    if not found.newest:
        return []
    named = [("oldest readable", found.oldest), *((f"tag:{tag.name}", tag.commit) for tag in found.tags)]
    return [(name, f"{commit:,}", _time(lake, commit)) for name, commit in (*named, ("newest", found.newest))]


def _time(lake: Lake, commit: int) -> str:
    try:
        return lake.time_of(commit).astimezone().isoformat(sep=" ", timespec="milliseconds")
    except Expired:
        return "not kept"  # a tag keeps its rows readable, not the commit's own entry


def _picture(found: Commits) -> str:
    counts = [after - before for before, after in zip(found.edges, found.edges[1:], strict=False)]
    if not counts:
        return ""
    step, most = _WIDTH / len(counts), max(*counts, 1)
    bars = "".join(
        f'<rect x="{n * step:.1f}" y="{_HEIGHT - (high := max(2, round(_HEIGHT * count / most)))}"'
        f' width="{max(step - 1, 0.5):.1f}" height="{high}"/>'
        for n, count in enumerate(counts)
        if count
    )
    label = f"{sum(counts):,} commits since {found.start.astimezone().isoformat(sep=' ', timespec='seconds')}"
    return (
        f'<svg role="img" aria-label="{escape(label)}" xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}"'
        f' height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" style="display: block; color: inherit; margin: 4px 12px"'
        f' fill="currentColor" fill-opacity="0.55"><title>{escape(label)}</title>{bars}</svg>'
    )
