"""UNION, INTERSECT and EXCEPT, and DISTINCT: rows compared whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headwater.types import quote
from headwater_pipelines.compiler import render
from headwater_pipelines.compiler.plan import Aggregate, Item, Leaf, Select, Union, column_names
from headwater_pipelines.compiler.syntax import Tree
from headwater_pipelines.compiler.whole import NoRule, input_of, recomputed

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Cte, Lowering


def combined(lowering: Lowering, node: Tree, ctes: Mapping[str, Cte]) -> Select | Union:
    """A set operation: UNION ALL is linear, UNION its distinct rows; the others compare how often each row is there."""
    word, keeps_all = str(node["setop_type"]), bool(node.get("setop_all"))
    by_name, word = word.endswith("_BY_NAME"), word.removesuffix("_BY_NAME")
    parts = [lowering.query(child, ctes) for child in node["children"]]
    operator = f"{word} ALL" if keeps_all else word
    said = f"{operator} BY NAME" if by_name else operator
    types = lowering.describe_query(f" {said} ".join(f"({_plain(part)})" for part in parts))
    renamed = tuple(_renamed(part, types, by_name=by_name) for part in parts)
    if word == "UNION":
        return Union(renamed) if keeps_all else distinct(lowering, Union(renamed))
    if len(parts) != 2:
        raise NoRule(operator.lower(), "SET_OPERATION")
    return _compared(lowering, operator, (renamed[0], renamed[1]), [name for name, _ in types])


def distinct(lowering: Lowering, tree: Select | Union) -> Select:
    """Each row once: a group by all columns, of which nothing but the number of rows is kept."""
    columns = [(name, text) for name, text in lowering.describe(tree) if name in column_names(tree)]
    keys = tuple((f"k{place}", text) for place, (_, text) in enumerate(columns))
    renamed = tuple((key, f"u.{quote(name)}") for (key, _), (name, _) in zip(keys, columns, strict=True))
    source = Aggregate(Select((Item("u", tree),), (), renamed), keys, (), touched=False)
    lowering.declare(source)
    own = tuple((name, f"s.{quote(key)}") for (name, _), (key, _) in zip(columns, keys, strict=True))
    return Select((Item("s", Leaf(source)),), (), own)


def _compared(lowering: Lowering, operator: str, parts: tuple[Select, Select], names: list[str]) -> Select:
    by = tuple(f"k{place}" for place in range(len(names)))
    listed = ", ".join(by)
    sides = [
        Select((Item("u", part),), (), tuple((key, f"u.{quote(own)}") for key, own in zip(by, names, strict=True)))
        for part in parts
    ]
    inputs = tuple(input_of(lowering, side, by) for side in sides)
    # The keys are the columns: they are there twice, so that the first ones can be taken off again.
    rows = f"SELECT {listed} FROM {inputs[0].name} {operator} SELECT {listed} FROM {inputs[1].name}"
    query = f"SELECT {listed}, {listed} FROM ({rows})"
    unique = tuple({each.name: each for each in inputs}.values())
    made = recomputed(lowering, unique, query, by, NoRule(operator.lower(), "ROW_COUNTS"))
    return Select(made.items, (), tuple(zip(names, (sql for _, sql in made.columns), strict=True)))


def _plain(tree: Select | Union) -> str:
    """A tree's rows without weights, for typing."""
    names = ", ".join(quote(name) for name in column_names(tree))
    return f"SELECT {names} FROM ({render.state(tree)})"


def _renamed(part: Select | Union, types: list[tuple[str, str]], *, by_name: bool) -> Select:
    """A branch with the column names and types of the whole; what a name lacks in it is NULL."""
    own = column_names(part)
    if by_name:
        there = {name.lower(): f"u.{quote(name)}" for name in own}
        values = [there.get(name.lower(), "NULL") for name, _ in types]
    else:
        values = [f'"u".{quote(name)}' for name in own]
    columns = tuple((name, f"CAST({sql} AS {text})") for sql, (name, text) in zip(values, types, strict=True))
    return Select((Item("u", part),), (), columns)
