"""What a Select compares a Clock's value with: where time passes, only rows between its old and new value can change.

    ts > v, now and before    ─▶    rows that enter or leave have min(v) <= ts <= max(v)

This holds wherever the comparison stands: under OR, in CASE, in what is aggregated. It needs that the value has no
other use, and that it is not NULL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from headwater_pipelines.compiler import render
from headwater_pipelines.compiler.clock import VALUE, is_simple
from headwater_pipelines.compiler.plan import (
    Aggregate,
    Clock,
    Compared,
    Item,
    Leaf,
    Node,
    Recompute,
    Select,
    Source,
    Tree,
    Union,
)
from headwater_pipelines.compiler.syntax import Duck, is_column, walk
from headwater_pipelines.compiler.syntax import Tree as Syntax

_TIMES = ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "DATE")


def compared(tree: Tree, duck: Duck) -> Tree:
    """The tree with the values that are compared with a clock noted at it."""
    if isinstance(tree, Union):
        return Union(tuple(_select(part, duck) for part in tree.inputs))
    return _select(tree, duck)


def _node(node: Node, duck: Duck) -> Node:
    return Leaf(_source(node.source, duck)) if isinstance(node, Leaf) else compared(node, duck)


def _source(source: Source, duck: Duck) -> Source:
    match source:
        case Aggregate():
            return replace(source, input=_node(source.input, duck))
        case Recompute(inputs=inputs):
            return replace(source, inputs=tuple(replace(each, node=compared(each.node, duck)) for each in inputs))
    return source


def _select(node: Select, duck: Duck) -> Select:
    items = []
    for item in node.items:
        clock = item.node.source if isinstance(item.node, Leaf) else None
        found = _comparisons(item.alias, node, duck) if isinstance(clock, Clock) and clock.is_known else ()
        items.append(Item(item.alias, _node(item.node, duck), found))
    return replace(node, items=tuple(items))


def _comparisons(alias: str, node: Select, duck: Duck) -> tuple[Compared, ...]:
    """What the clock's value is compared with; nothing when the Select has another use for it as well."""
    found: dict[Compared, None] = {}
    known = {item.alias for item in node.items if item.alias != alias}
    for text in (*node.where, *(sql for _, sql in node.columns)):
        parts = list(walk(duck.expression(text))) if alias in text else []
        uses, seen = {id(part) for part in parts if _is_value(part, alias)}, set[int]()
        for value, instant in (pair for part in parts for pair in _pairs(part)):
            read = {part["column_names"][0] for part in walk(value) if is_column(part)}
            if id(instant) in uses and read <= known:  # no parameter of a lambda
                found[_value(value, node, duck)] = None
                seen.add(id(instant))
        if uses - seen:
            return ()
    return tuple(found)


def _pairs(part: Syntax) -> Iterator[tuple[Syntax, Syntax]]:
    """The pairs of values that a node compares by their order, both ways round."""
    if part.get("class") == "COMPARISON":
        yield part["left"], part["right"]
        yield part["right"], part["left"]
    if part.get("class") == "BETWEEN":
        for bound in ("lower", "upper"):
            yield part["input"], part[bound]
            yield part[bound], part["input"]


def _is_value(part: Syntax, alias: str) -> bool:
    return is_column(part) and part["column_names"] == [alias, VALUE]


def _value(expression: Syntax, node: Select, duck: Duck) -> Compared:
    """Where the Select computes it only under a condition, it may fail for other rows: these are none that change."""
    text = duck.print(expression)
    if not is_simple(expression):
        return Compared(f"TRY({text})")
    time, shift = _unshifted(expression)
    if not is_column(time):
        return Compared(text)
    column, moved = duck.print(time), duck.print(shift) if shift else ""
    probe = Select(node.items, (), (("t", column), ("s", moved or "INTERVAL 0 DAY")))
    types = dict(duck.describe(render.state(probe)))
    if types["t"] not in _TIMES or types["s"] != "INTERVAL":
        return Compared(text)
    return Compared(text, column, *bounds(types["t"], moved))


def _unshifted(expression: Syntax) -> tuple[Syntax, Syntax | None]:
    """A column, and the constant that the value is ahead of it; the value itself where it is something else."""
    if expression.get("class") != "FUNCTION" or expression["function_name"] not in "+-":
        return expression, None
    left, *rest = (each["expression"] for each in expression["arguments"])
    if not rest or any(map(is_column, walk(rest[0]))) or not is_column(left):
        return expression, None
    return left, rest[0] if expression["function_name"] == "+" else {
        **expression,
        "arguments": expression["arguments"][1:],
    }


def bounds(text: str, shift: str) -> tuple[str, str]:
    """The least and the greatest time that a column of this type can have where its value lies between {v} and {v}.

    Days and months are not of one length everywhere, and a naive time is not one instant in every zone.
    """
    slack = ["CASE current_setting('TimeZone') WHEN 'UTC' THEN INTERVAL 0 DAY ELSE INTERVAL 2 DAY END"]
    if shift:
        months = f"date_part('month', {shift}) <> 0 OR date_part('year', {shift}) <> 0"
        slack.append(f"CASE WHEN {months} THEN INTERVAL 4 DAY ELSE INTERVAL 0 DAY END")
    if text == "DATE":
        slack.append("INTERVAL 1 DAY")
    value = f"CAST({{v}} AS {'TIMESTAMP' if text == 'DATE' else text})" + (f" - ({shift})" if shift else "")
    return f"CAST({' - '.join([value, *slack])} AS {text})", f"CAST({' + '.join([value, *slack])} AS {text})"
