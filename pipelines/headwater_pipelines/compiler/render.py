"""Plan trees as DuckDB SQL: their rows over stored relations, and one delta term per leaf.

Of a tree's leaves, the term of leaf p reads the delta at p. Other leaves of the same relation are taken after
it (stored rows plus delta) before p and as stored behind p; leaves of other relations are taken as stored.
Applied relation by relation, "terms first, then the delta into the table", the terms add up to the tree's
delta with a single copy of the state.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    Union,
    leaves,
)


def delta_table(source: Source) -> str:
    """The temporary table that holds a relation's change in a step: its columns and the weight."""
    return f"d_{source.table}"


def state(node: Node) -> str:
    """A SELECT of the tree's rows over what is stored now; with a weight column if any input has one."""
    return _Renderer(-1, None).select(node, 0).sql


def is_weighted(node: Node) -> bool:
    """Whether ``state`` has a weight column."""
    return any(source.weighted for source in leaves(node))


def term(node: Node, position: int) -> str:
    """A SELECT, with weight column, of the delta that the leaf at ``position`` contributes."""
    source = list(leaves(node))[position]
    return _Renderer(position, source).select(node, 0).sql


def bound(clock: Clock, word: str) -> str:
    """The ``min`` or ``max`` of a clock's values before and after, as the name of a variable: a scan folds it."""
    return f"{word}_{clock.table}"


def _range(item: Item, clock: Clock) -> str:
    """A condition on the rows for which a comparison with the clock may come out differently than before."""
    low, high = (f"getvariable('{bound(clock, word)}')" for word in ("min", "max"))
    found = []
    for each in item.compared:
        near = (
            f"{each.column} BETWEEN {each.low.format(v=low)} AND {each.high.format(v=high)} AND " if each.column else ""
        )
        found.append(f"{near}{each.value} BETWEEN {low} AND {high}")
    return f"({' OR '.join(found)})"


@dataclass(frozen=True)
class _Part:
    """A FROM item or SELECT; ``weighted`` when it carries the weight column."""

    sql: str
    weighted: bool


@dataclass(frozen=True)
class _Renderer:
    position: int
    source: Source | None

    def select(self, node: Node, start: int) -> _Part:
        match node:
            case Select():
                return self._select(node, start)
            case Union(inputs):
                return self._union(inputs, start)
            case Leaf(Aggregate() | Clock() | Recompute() as source):
                names = ", ".join(quote(name) for name, _ in source.columns())
                item = self._leaf(source, start)
                weight = f", {WEIGHT}" if item.weighted else ""
                return _Part(f"SELECT {names}{weight} FROM {item.sql}", item.weighted)
        raise TypeError("a bare base leaf is not a query")

    def _select(self, node: Select, start: int) -> _Part:
        parts, weights, where = [], [], list(node.where)
        for item in node.items:
            part = self._item(item.node, start)
            if start == self.position and item.compared and isinstance(self.source, Clock):
                where.append(_range(item, self.source))
            start += sum(1 for _ in leaves(item.node))
            parts.append(f"{part.sql} AS {quote(item.alias)}")
            if part.weighted:
                weights.append(f"{quote(item.alias)}.{WEIGHT}")
        columns = [f"{sql} AS {quote(name)}" for name, sql in node.columns]
        if weights:
            columns.append(f"{' * '.join(weights)} AS {WEIGHT}")
        sql = f"SELECT {', '.join(columns)} FROM {', '.join(parts)}"
        if where:
            sql += " WHERE " + " AND ".join(where)
        return _Part(sql, bool(weights))

    def _item(self, node: Node, start: int) -> _Part:
        if isinstance(node, Leaf):
            return self._leaf(node.source, start)
        part = self.select(node, start)
        return _Part(f"({part.sql})", part.weighted)

    def _leaf(self, source: Source, at: int) -> _Part:
        if at == self.position:
            return _Part(quote(delta_table(source)), True)
        if source == self.source and at < self.position:
            columns = "* " if source.weighted else f"*, 1::BIGINT AS {WEIGHT} "
            both = f"SELECT {columns}FROM {quote(source.table)} UNION ALL SELECT * FROM {quote(delta_table(source))}"
            return _Part(f"({both})", True)
        return _Part(quote(source.table), source.weighted)

    def _union(self, inputs: tuple[Select, ...], start: int) -> _Part:
        parts = []
        for node in inputs:
            size = sum(1 for _ in leaves(node))
            if start <= self.position < start + size:
                return self._select(node, start)
            parts.append(self._select(node, start))
            start += size
        if not any(part.weighted for part in parts):
            return _Part(" UNION ALL ".join(part.sql for part in parts), False)
        plain = f"SELECT *, 1::BIGINT AS {WEIGHT} FROM ({{}})"
        texts = (part.sql if part.weighted else plain.format(part.sql) for part in parts)
        return _Part(" UNION ALL ".join(texts), True)
