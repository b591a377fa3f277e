"""What a Select compares a Clock's value with: where time passes, only rows between its old and new value can change.

    ts > v, now and before    ─▶    rows that enter or leave have min(v) <= ts <= max(v)

This holds wherever the comparison stands: under OR, in CASE, in what is aggregated. It needs that the value has no
other use, and that it is not NULL. ``now() - ts`` compared with a constant says the same of ts, a constant before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

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
    Top,
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
        case Top():
            return replace(source, input=compared(source.input, duck))
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
    for text in (*node.where, *(sql for _, sql in node.columns)):
        if alias not in text:
            continue
        tree = duck.expression(text)
        if any(_uses(tree, alias)):
            return ()
        for part in walk(tree):
            for value, instant in _pairs(part):
                if any(_uses(instant, alias)):
                    each = _compared(value, instant, alias, node, duck)
                    if each is None:
                        return ()
                    found[each] = None
    return tuple(found)


def _uses(part: Any, alias: str) -> Iterator[bool]:
    """Where an expression reads the clock, beside what it compares: that is looked at by itself."""
    if isinstance(part, list):
        for each in part:
            yield from _uses(each, alias)
    if isinstance(part, dict):
        if _is_value(part, alias):
            yield True
        elif part.get("class") not in ("COMPARISON", "BETWEEN"):
            yield from _uses(list(part.values()), alias)


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


def _compared(value: Syntax, instant: Syntax, alias: str, node: Select, duck: Duck) -> Compared | None:
    """A value that is compared with the clock's, or a constant with the time that has passed since a column's."""
    known = {item.alias for item in node.items if item.alias != alias}
    if _read(value) <= known and _is_value(instant, alias):  # what else it reads is a parameter of a lambda
        return _value(value, node, duck)
    if instant.get("class") != "FUNCTION" or instant["function_name"] != "-" or _read(value):
        return None
    now, *since = (each["expression"] for each in instant["arguments"])
    if not since or not _is_value(now, alias) or not is_column(since[0]) or not _read(since[0]) <= known:
        return None
    return _since(since[0], value, alias, node, duck)


def _read(expression: Syntax) -> set[str]:
    return {part["column_names"][0] for part in walk(expression) if is_column(part)}


def _value(expression: Syntax, node: Select, duck: Duck) -> Compared:
    """Where the Select computes it only under a condition, it may fail for other rows: these are none that change."""
    text = duck.print(expression)
    if not is_simple(expression):
        return Compared(f"TRY({text})")
    time, shift = _unshifted(expression)
    if not is_column(time):
        return Compared(text)
    column, moved = duck.print(time), duck.print(shift) if shift else ""
    kind, by = _types(node, duck, column, moved or "INTERVAL 0 DAY")
    if kind not in _TIMES or by != "INTERVAL":
        return Compared(text)
    return Compared(text, column, *bounds(kind, moved))


def _since(time: Syntax, passed: Syntax, alias: str, node: Select, duck: Duck) -> Compared | None:
    """``now() - time < INTERVAL 1 HOUR``, ``current_date - day > 30``: the time lies so long before the clock's.

    Not for intervals with months: they are compared as 30 days each.
    """
    column, length = duck.print(time), duck.print(passed)
    kind, by, clock = _types(node, duck, column, length, f"{alias}.{VALUE}")
    if (kind, clock) == ("DATE", "DATE") and by in ("INTEGER", "BIGINT"):
        return Compared("", column, *bounds(kind, f"to_days(CAST({length} AS INTEGER))"))
    if kind not in _TIMES or not clock.startswith("TIMESTAMP") or by != "INTERVAL":
        return None
    months = f"SELECT date_part('year', {length}) = 0 AND date_part('month', {length}) = 0"
    if duck.connection.execute(months).fetchall() != [(True,)]:
        return None
    return Compared("", column, *bounds(kind, length))


def _types(node: Select, duck: Duck, *texts: str) -> list[str]:
    probe = Select(node.items, (), tuple((f"t{place}", text) for place, text in enumerate(texts)))
    return [text for _, text in duck.describe(render.state(probe))][: len(texts)]


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
