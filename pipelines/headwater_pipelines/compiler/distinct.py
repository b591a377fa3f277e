"""count(DISTINCT x), sum(DISTINCT x), with FILTER or without: a group by the keys and x below the group by the keys.

    rows ──▶ group by keys, x: how many rows fulfil each FILTER ──▶ x, or NULL where none does ─┐
    rows ──▶ the arguments of the other calls ──────────────────────────────────────────────────┴▶ group by keys

Both kinds of rows go into one aggregate, each with NULLs in the other's columns, which no function counts. So a value
that comes again changes its own count and nothing else, and no group is computed anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater_pipelines.compiler.plan import COUNT, Aggregate, Item, Leaf, Measure, Select

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering

FUNCTIONS = ("count", "sum")


@dataclass
class Values:
    """The distinct values of one expression: ``shown`` are the columns that hold them, each with its FILTER's SQL."""

    sql: str
    shown: dict[str, str] = field(default_factory=dict)

    def below(
        self, lowering: Lowering, items: tuple[Item, ...], where: tuple[str, ...], keys: Mapping[str, str]
    ) -> Aggregate:
        """Every value of a group, with the number of rows for each FILTER."""
        filters = {sql: f"f{place}" for place, sql in enumerate(dict.fromkeys(self.shown.values())) if sql}
        flags = ((name, f"CASE WHEN {sql} THEN 1 END") for sql, name in filters.items())
        rows = Select(items, where, (*keys.items(), ("d", self.sql), *flags))
        types = dict(lowering.describe(rows))
        measures = tuple(Measure(name, types[name], "") for name in filters.values())
        made = Aggregate(rows, tuple((name, types[name]) for name in (*keys, "d")), measures, touched=False)
        lowering.declare(made)
        return made

    def rows(self, made: Aggregate, keys: Mapping[str, str], arguments: list[str]) -> Select:
        """Each value once, where a FILTER lets it through; NULL for the arguments of other calls."""
        counts = dict(zip(dict.fromkeys(sql for sql in self.shown.values() if sql), made.measures, strict=True))
        found = dict.fromkeys(arguments, "NULL")
        for name, sql in self.shown.items():
            number = f's."{counts[sql].count}"' if sql else f's."{COUNT}"'
            found[name] = f'CASE WHEN {number} > 0 THEN s."d" END'
        columns = (*((key, f's."{key}"') for key in keys), *found.items())
        return Select((Item("s", Leaf(made)),), (), columns)
