"""A list that shows itself as a table, and is a list in every other way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from headwater.lake.html import render_table
from headwater.lake.plain import lines

T = TypeVar("T")

Column = tuple[str, str, Callable[[Any], str | None]]
"""A heading, the DuckDB type it is aligned by, and the text of an element; None is shown as NULL."""
SHOWN: Final = 200
"""Elements that are shown; the list has them all."""

TOPICS: Final[Sequence[Column]] = (
    ("topic", "VARCHAR", lambda topic: topic.name),
    ("kind", "VARCHAR", lambda topic: topic.kind),
    ("state", "VARCHAR", lambda topic: f"{topic.state}: {topic.reason}" if topic.reason else topic.state),
    ("partitions", "BIGINT", lambda topic: f"{topic.partitions}"),
    ("columns", "VARCHAR", lambda topic: ", ".join(topic.schema.names)),
    ("key", "VARCHAR", lambda topic: ", ".join(topic.schema.key or ()) or "none"),
    ("description", "VARCHAR", lambda topic: topic.description or ""),
)
VIEWS: Final[Sequence[Column]] = (
    ("view", "VARCHAR", lambda view: view.name),
    ("state", "VARCHAR", lambda view: f"{view.state}: {view.reason}" if view.reason else view.state),
    ("refresh", "VARCHAR", lambda view: view.refresh),
    ("sql", "VARCHAR", lambda view: " ".join(view.sql.split())),
)


class Listing(list[T]):
    """``columns`` say what the table has; ``noun`` what its elements are called, in the plural."""

    def __init__(self, elements: Iterable[T], columns: Sequence[Column], noun: str) -> None:
        super().__init__(elements)
        self._columns = columns
        self._noun = noun

    def _shown(self) -> tuple[list[str], list[str], list[tuple[str | None, ...]], str]:
        heads, types = [each[0] for each in self._columns], [each[1] for each in self._columns]
        rows = [tuple(text(element) for *_, text in self._columns) for element in self[:SHOWN]]
        extent = f"{len(self):,} {self._noun}" if len(self) != 1 else f"1 {self._noun.removesuffix('s')}"
        return heads, types, rows, extent if len(self) <= SHOWN else f"showing {SHOWN} of {extent}"

    def __repr__(self) -> str:
        heads, types, rows, extent = self._shown()
        return "\n".join([*lines(heads, types, rows, typed=False), f"({extent})"])

    def _repr_html_(self) -> str:
        return render_table(*self._shown(), typed=False)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """IPython prints a list's elements one by one unless told otherwise."""
        printer.text("[...]" if cycle else repr(self))
