"""Plan trees as DuckDB SQL: their rows over stored relations, and one delta term per leaf.

Of a tree's leaves, the term of leaf p reads the delta at p. Other leaves of the same relation are taken after
it (stored rows plus delta) before p and as stored behind p; leaves of other relations are taken as stored.
Applied relation by relation, "terms first, then the delta into the table", the terms add up to the tree's
delta with a single copy of the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from headwater.types import quote
from headwater_pipelines.compiler.plan import (
    WEIGHT,
    Aggregate,
    Clock,
    Item,
    Leaf,
    Node,
    Recompute,
    Select,
    Source,
    Top,
    Union,
    leaves,
)
from headwater_pipelines.compiler.remembered import remembered

Reads = Mapping[int, str]
"""The table that stands for the leaf at a place: rows of it that were looked up, instead of all."""
NOTHING: Reads = MappingProxyType({})


def delta_table(source: Source) -> str:
    """The temporary table that holds a relation's change in a step: its columns and the weight."""
    return f"d_{source.table}"


@remembered
def state(node: Node, reads: Reads = NOTHING) -> str:
    """A SELECT of the tree's rows, with their weights, over what is stored now."""
    return _Renderer(-1, None, reads).select(node, 0)


@remembered
def term(node: Node, position: int, reads: Reads = NOTHING) -> str:
    """A SELECT, with weight column, of the delta that the leaf at ``position`` contributes."""
    return _Renderer(position, list(leaves(node))[position], reads).select(node, 0)


def bound(clock: Clock, word: str) -> str:
    """The ``min`` or ``max`` of a clock's values before and after, as the name of a variable: a scan folds it."""
    return f"{word}_{clock.table}"


def _range(item: Item, clock: Clock) -> str:
    """A condition on the rows for which a comparison with the clock may come out differently than before."""
    low, high = (f"getvariable('{bound(clock, word)}')" for word in ("min", "max"))
    found = []
    for each in item.compared:
        parts = [f"{each.value} BETWEEN {low} AND {high}"] if each.value else []
        if each.column:
            parts.insert(0, f"{each.column} BETWEEN {each.low.format(v=low)} AND {each.high.format(v=high)}")
        found.append(" AND ".join(parts))
    return f"({' OR '.join(found)})"


@dataclass(frozen=True)
class _Renderer:
    position: int
    source: Source | None
    reads: Reads

    def select(self, node: Node, start: int) -> str:
        match node:
            case Select():
                return self._select(node, start)
            case Union(inputs):
                return self._union(inputs, start)
            case Leaf(Aggregate() | Clock() | Recompute() | Top() as source):
                names = ", ".join(quote(name) for name, _ in source.columns())
                return f"SELECT {names}, {WEIGHT} FROM {self._leaf(source, start)}"
        raise TypeError("a bare base leaf is not a query")

    def _select(self, node: Select, start: int) -> str:
        parts, weights, where = [], [], list(node.where)
        for item in node.items:
            if start == self.position and item.compared and isinstance(self.source, Clock):
                where.append(_range(item, self.source))
            parts.append(f"{self._item(item.node, start)} AS {quote(item.alias)}")
            start += sum(1 for _ in leaves(item.node))
            weights.append(f"{quote(item.alias)}.{WEIGHT}")
        columns = [f"{sql} AS {quote(name)}" for name, sql in node.columns]
        columns.append(f"{' * '.join(weights)} AS {WEIGHT}")
        sql = f"SELECT {', '.join(columns)} FROM {', '.join(parts)}"
        return f"{sql} WHERE {' AND '.join(where)}" if where else sql

    def _item(self, node: Node, start: int) -> str:
        return self._leaf(node.source, start) if isinstance(node, Leaf) else f"({self.select(node, start)})"

    def _leaf(self, source: Source, at: int) -> str:
        if at == self.position:
            return quote(delta_table(source))
        stored = quote(self.reads.get(at, source.table))
        if source == self.source and at < self.position:
            return f"(SELECT * FROM {stored} UNION ALL SELECT * FROM {quote(delta_table(source))})"
        return stored

    def _union(self, inputs: tuple[Select, ...], start: int) -> str:
        parts = []
        for node in inputs:
            size = sum(1 for _ in leaves(node))
            if start <= self.position < start + size:
                return self._select(node, start)
            parts.append(self._select(node, start))
            start += size
        return " UNION ALL ".join(parts)
