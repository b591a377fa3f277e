"""Which rows of a tree's other leaves can meet those of one leaf: they are looked up by key instead of scanned.

A term of a join, and the recomputation of some keys, start from few rows. Equalities between plain columns lead from
them to the rows that they join, leaf by leaf. What no equality leads to is read whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from headwater.types import quote
from headwater_pipelines.compiler.plan import (
    Aggregate,
    Leaf,
    Node,
    Recompute,
    Select,
    Source,
    Top,
    Union,
    column_names,
    leaves,
)

KEYS = -1
"""The place of the touched keys, which are no leaf of the tree."""

_NAME = r'(?:"(?:[^"]|"")*"|\w+)'
COLUMN = re.compile(rf"({_NAME})\.({_NAME})")
"""A column as plans have it: the alias that it is of, and its name."""
_CAST = re.compile(rf"CAST\(({_NAME})\.({_NAME}) AS ([^()]+(?:\([^()]*\))?)\)")
_EQUALITY = re.compile(rf"({_NAME}\.{_NAME}) (?:=|IS NOT DISTINCT FROM) ({_NAME}\.{_NAME})")
_INTEGERS = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG")} | {"INTEGER", "UINTEGER"}

Types = Callable[[Source], Mapping[str, str]]
"""The types of a stored relation's columns by name."""
Column = tuple[int, str]
"""A leaf's place and a column of it."""


@dataclass(frozen=True)
class Lookup:
    """Rows of the leaf at ``place``, found in ``table`` by ``index``: the values that ``keys`` have at ``source``."""

    place: int
    table: str
    index: tuple[str, ...]
    source: int
    keys: tuple[str, ...]


def lookups(tree: Node, start: int, types: Types) -> tuple[Lookup, ...]:
    """How to get, in this order, from the leaf at ``start`` to the others that its term of the tree reads."""
    plan = _Plan(tree, types)
    return tuple(plan.spread(start, plan.equalities, plan.beside(start)))


def keyed(tree: Node, columns: Mapping[str, str], kinds: Mapping[str, str], types: Types) -> tuple[Lookup, ...]:
    """How to get from touched keys to a tree's rows. ``columns``: its columns by key; ``kinds``: the keys' types."""
    plan = _Plan(tree, types)
    named = [([(KEYS, key)], found) for key, column in columns.items() if (found := plan.origin(tree, column, 0))]
    plan.types[KEYS] = dict(kinds)
    return tuple(plan.spread(KEYS, [*named, *plan.equalities], frozenset()))


def cast_key(key: str, kind: str) -> str:
    """A key as one of the column that is searched; what does not fit its type is not there."""
    return f"TRY_CAST({quote(key)} AS {kind})"


def stored_columns(tree: Node, names: Sequence[str]) -> tuple[Source, tuple[str, ...]] | None:
    """The relation whose rows alone a tree reads, and which of its columns some of the tree's are; None if no such."""
    if len(leaves(tree)) != 1:
        return None
    plan = _Plan(tree, lambda _: {})
    found = [plan.origin(tree, name, 0) for name in names]
    return (leaves(tree)[0], tuple(each[0][1] for each in found)) if all(found) else None


def chooses(tree: Node) -> bool:
    """Whether a tree has conditions."""
    match tree:
        case Select(items=items, where=where):
            return bool(where) or any(chooses(item.node) for item in items)
        case Union(inputs):
            return any(map(chooses, inputs))
    return False


def shows_whole_rows(tree: Node) -> bool:
    """Whether a tree's rows are those of one stored relation with every column of it.

    Its delta then has each row once, and none that cancels out, as the relation's has.
    """
    source, *others = leaves(tree)
    is_consolidated = isinstance(source, Recompute) or (isinstance(source, Aggregate) and not source.touched)
    if others or not is_consolidated:
        return False
    plan = _Plan(tree, lambda _: {})
    shown = {name.lower() for column in column_names(tree) for _, name in plan.origin(tree, column, 0)}
    return shown >= {name.lower() for name in column_names(Leaf(source))}


def is_filtered(node: Node) -> bool:
    """Whether a tree has a condition that is no equality of columns, or rows that were chosen by others below it."""
    match node:
        case Select(items=items, where=where):
            plain = all(_EQUALITY.fullmatch(part) for condition in where for part in _conjuncts(condition))
            return not plain or any(is_filtered(item.node) for item in items)
        case Union(inputs):
            return all(is_filtered(part) for part in inputs)
        case Leaf(source):
            return isinstance(source, Recompute | Top)


class _Plan:
    """A tree's leaves with their types, and the equalities that hold between columns of them."""

    def __init__(self, tree: Node, types: Types) -> None:
        self.tree = tree
        self.sources = dict(enumerate(leaves(tree)))
        self.types = {place: dict(types(source)) for place, source in self.sources.items()}
        self.equalities = list(self._equalities(tree, 0))

    def spread(
        self, start: int, equalities: list[tuple[list[Column], list[Column]]], absent: frozenset[int]
    ) -> Iterator[Lookup]:
        known = [start]
        for source in known:  # grows while it is walked
            for place, pairs in self._reached(source, equalities, absent).items():
                if place in known:
                    continue
                known.append(place)
                own = sorted(set(pairs))
                index = tuple(quote(name) for name, _ in own)
                keys = tuple(self._cast(place, name, source, key) for name, key in own)
                yield Lookup(place, self.sources[place].table, index, source, keys)

    def _reached(
        self, source: int, equalities: list[tuple[list[Column], list[Column]]], absent: frozenset[int]
    ) -> dict[int, list[tuple[str, str]]]:
        """Leaves that share values with one, and the pairs of columns that are equal: theirs, the source's."""
        found: dict[int, list[tuple[str, str]]] = {}
        for left, right in [*equalities, *((right, left) for left, right in equalities)]:
            here = [column for column in left if column[0] not in absent]
            # Of several branches of a union, each brings values: those of one alone would not be all.
            if len(here) != 1 or here[0][0] != source:
                continue
            for place, name in right:
                if place not in absent and place != source and self._comparable(place, name, *here[0]):
                    found.setdefault(place, []).append((name, here[0][1]))
        return found

    def _comparable(self, place: int, name: str, other: int, key: str) -> bool:
        """Whether equal values are equal in one of the types as well: they are of one type, or integers."""
        kinds = {self.types[place].get(name, "?"), self.types[other].get(key, "??")}
        return len(kinds) == 1 or kinds <= _INTEGERS

    def _cast(self, place: int, name: str, source: int, key: str) -> str:
        """A key in the type of the column that is searched: DuckDB hashes -1 of another width to something else."""
        kind = self.types[place][name]
        # Touched keys of several inputs have the widest of their types, whatever is declared.
        same = source != KEYS and self.types[source][key] == kind
        return quote(key) if same else cast_key(key, kind)

    def beside(self, start: int) -> frozenset[int]:
        """Leaves in other branches of a union that holds ``start``: they take no part in its term."""
        found: set[int] = set()

        def visit(node: Node, first: int) -> None:
            parts = node.inputs if isinstance(node, Union) else ()
            children = [item.node for item in node.items] if isinstance(node, Select) else list(parts)
            places = []
            for child in children:
                size = sum(1 for _ in leaves(child))
                places.append(range(first, first + size))
                visit(child, first)
                first += size
            if parts and any(start in own for own in places):
                found.update(place for own in places if start not in own for place in own)

        visit(self.tree, 0)
        return frozenset(found)

    def origin(self, node: Node, column: str, start: int) -> list[Column]:
        """The leaves' columns that a tree's column is; empty when it is computed, in any branch of a union."""
        match node:
            case Leaf():
                return [(start, column)]
            case Select(columns=columns):
                sql = next((sql for name, sql in columns if name.lower() == column.lower()), "")
                return self._plain(node, sql, start)
            case Union(inputs):
                found = []
                for part in inputs:
                    own = self.origin(part, column, start)
                    if not own:
                        return []
                    found += own
                    start += sum(1 for _ in leaves(part))
                return found

    def _plain(self, node: Select, sql: str, start: int) -> list[Column]:
        cast = _CAST.fullmatch(sql)
        match = cast or COLUMN.fullmatch(sql)
        if match is None:
            return []
        alias, name = (_unquoted(each) for each in match.groups()[:2])
        for item in node.items:
            if item.alias.lower() == alias.lower():
                found = self.origin(item.node, name, start)
                if cast and any(self.types[place].get(own) != cast[3] for place, own in found):
                    return []
                return found
            start += sum(1 for _ in leaves(item.node))
        return []

    def _equalities(self, node: Node, start: int) -> Iterator[tuple[list[Column], list[Column]]]:
        children: list[Node] = []
        if isinstance(node, Select):
            children = [item.node for item in node.items]
            for condition in node.where:
                for part in _conjuncts(condition):
                    if match := _EQUALITY.fullmatch(part):
                        sides = [self._plain(node, match[side], start) for side in (1, 2)]
                        if all(sides):
                            yield sides[0], sides[1]
        elif isinstance(node, Union):
            children = list(node.inputs)
        for child in children:
            yield from self._equalities(child, start)
            start += sum(1 for _ in leaves(child))


def _conjuncts(condition: str) -> Iterator[str]:
    """The parts of a condition, as DuckDB prints it, that AND connects, and those that all branches of an OR have."""
    text = condition.strip()
    while text.startswith("(") and _closing(text) == len(text) - 1:
        text = text[1:-1].strip()
    first, *others = _split(text, " OR ")
    if others:
        yield text
        rest = [set(_conjuncts(branch)) for branch in others]
        yield from (part for part in _conjuncts(first) if all(part in branch for branch in rest))
        return
    parts = _split(text, " AND ")
    if len(parts) == 1 or len(_split(text, " BETWEEN ")) > 1:
        yield text
        return
    for part in parts:
        yield from _conjuncts(part)


def _depths(text: str) -> Iterator[tuple[int, int, bool]]:
    """Place, depth in parentheses and whether it is outside of quotes, of each character."""
    depth, quoted = 0, ""
    for place, char in enumerate(text):
        if quoted:
            quoted = "" if char == quoted else quoted
            yield place, depth, False
            continue
        if char in "'\"":
            quoted = char
        depth += (char == "(") - (char == ")")
        yield place, depth, char not in "'\""


def _closing(text: str) -> int:
    """The place of the parenthesis that closes the first one."""
    return next((place for place, depth, plain in _depths(text) if plain and depth == 0), -1)


def _split(text: str, word: str) -> list[str]:
    """What lies between the places where a word stands outside of parentheses and quotes."""
    cuts = [place for place, depth, plain in _depths(text) if plain and depth == 0 and text.startswith(word, place)]
    starts = [0, *(cut + len(word) for cut in cuts)]
    return [text[start:end] for start, end in zip(starts, [*cuts, len(text)], strict=True)]


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
