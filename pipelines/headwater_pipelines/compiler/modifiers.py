"""DISTINCT, DISTINCT ON, ORDER BY and LIMIT. A view's rows have no order, so one without LIMIT says nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.types import quote
from headwater_pipelines.compiler import sets, stars, top
from headwater_pipelines.compiler.plan import Select, Union, column_names
from headwater_pipelines.compiler.scope import Scope
from headwater_pipelines.compiler.syntax import Tree, is_column, walk
from headwater_pipelines.compiler.whole import NoRule, input_of, recomputed

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering

_NONE: Tree = {"literal": {"kind": "INTEGER", "text": "0"}}


@dataclass
class Chosen:
    """What of a SELECT's rows is kept: by columns that are computed beside the select list, under ``names``."""

    distinct: bool = False
    on: list[str] = field(default_factory=list)
    orders: list[tuple[str, str]] = field(default_factory=list)
    """Columns with their words, both written out."""
    limit: str = ""
    span: tuple[int, int] | None = None
    """Of a limit that is a plain number: the places of the first row and of the one behind the last."""
    names: list[str] = field(default_factory=list)
    expressions: list[Any] = field(default_factory=list)

    def add(self, expression: Any) -> str:
        name = f"hw_o{len(self.names)}"
        self.names.append(name)
        self.expressions.append(expression)
        return name


def of_select(lowering: Lowering, node: Tree, scope: Scope, shown: list[Tree], names: list[str]) -> Chosen:
    """The modifiers of a SELECT; ``shown`` is its resolved select list."""
    found, parts = Chosen(), {part["type"]: part for part in node.get("modifiers") or ()}
    if "DISTINCT_MODIFIER" in parts:
        targets = parts["DISTINCT_MODIFIER"]["distinct_on_targets"]
        found.distinct = not targets
        found.on = [found.add(_target(each, scope, shown, names)) for each in targets]
    limit = parts.get("LIMIT_MODIFIER") or parts.get("LIMIT_PERCENT_MODIFIER")
    if limit is not None:
        found.limit, found.span = _limit(lowering, limit), _span(limit)
    if found.on or found.limit:
        for order in (parts.get("ORDER_MODIFIER") or {}).get("orders", ()):
            own = order["expression"]
            targets = shown if stars.is_all(own) else [_target(own, scope, shown, names)]
            found.orders += [(found.add(target), top.words(order)) for target in targets]
    return found


def of_rows(lowering: Lowering, node: Tree, tree: Select | Union) -> Select | Union:
    """The modifiers of a set operation, which order by its columns; an order alone says nothing."""
    parts, names = {part["type"]: part for part in node.get("modifiers") or ()}, list(column_names(tree))
    if not parts.keys() - {"ORDER_MODIFIER"}:
        return tree
    span = _span(parts["LIMIT_MODIFIER"]) if parts.keys() <= {"ORDER_MODIFIER", "LIMIT_MODIFIER"} else None
    orders = [
        (name, top.words(order))
        for order in (parts.get("ORDER_MODIFIER") or {}).get("orders", ())
        for name in _columns(order["expression"], names)
    ]
    found = top.first(lowering, tree, names, orders, span, _label(orders)) if span else None
    if found is None:
        raise NoRule("limit", "TOP_N")
    return found


def _columns(expression: Tree, names: list[str]) -> list[str]:
    """The columns of a set operation that an expression in its ORDER BY means."""
    if stars.is_all(expression):
        return names
    literal = expression.get("literal") or {}
    if expression.get("class") == "CONSTANT" and literal.get("kind") == "INTEGER":
        return [names[int(literal["text"]) - 1]]
    name = expression["column_names"][-1].lower() if is_column(expression) else ""
    found = [each for each in names if each.lower() == name]
    if not found:
        raise NoRule("limit", "TOP_N")
    return found[:1]


def _label(orders: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Orders as they are read, without what is the default."""
    return "order", "by " + ", ".join(
        sql + "".join(f" {part}" for part in ("DESC", "NULLS FIRST") if part in words) for sql, words in orders
    )


def modified(lowering: Lowering, made: Select, count: int, chosen: Chosen) -> Select:
    """``made`` has ``count`` columns to show, and behind them those that ``chosen`` needs."""
    if chosen.distinct:
        made = sets.distinct(lowering, made)
    if not (chosen.on or chosen.limit):
        return made
    names = [name for name, _ in made.columns[:count]]
    if chosen.span and not chosen.on:
        written = dict(zip(chosen.names, map(lowering.duck.print, chosen.expressions), strict=True))
        label = _label((written[name], words) for name, words in chosen.orders)
        if found := top.first(lowering, made, names, chosen.orders, chosen.span, label):
            return found
    by = tuple(chosen.on) if not chosen.limit else ()
    each = input_of(lowering, made, by)
    listed = [f"i.{quote(name)}" for name in by] + [f"i.{quote(name)}" for name in names]
    first = f"DISTINCT ON ({', '.join(chosen.on)}) " if chosen.on else ""
    order = f" ORDER BY {', '.join(f'{name} {words}' for name, words in chosen.orders)}" if chosen.orders else ""
    query = f"SELECT {first}{', '.join(listed)} FROM {each.name} AS i{order}{chosen.limit}"
    why = NoRule("distinct on", "FIRST_OF_KEY") if by else NoRule("limit", "TOP_N")
    rows = recomputed(lowering, (each,), query, by, why)
    return Select(rows.items, (), tuple(zip(names, (sql for _, sql in rows.columns), strict=True)))


def _target(expression: Tree, scope: Scope, shown: list[Tree], names: list[str]) -> Any:
    """What an expression in ORDER BY or DISTINCT ON means: a place or an alias of the select list, or a value."""
    if any(part.get("class") in ("STAR", "SUBQUERY") for part in walk(expression)):
        raise NoRule("limit", "TOP_N")
    literal = expression.get("literal") or {}
    if expression.get("class") == "CONSTANT" and literal.get("kind") == "INTEGER":
        return shown[int(literal["text"]) - 1]
    if is_column(expression) and len(expression["column_names"]) == 1:
        name = expression["column_names"][0].lower()
        if name in scope.aliases:
            return shown[[each.lower() for each in names].index(name)]
    return scope.resolve(expression)


def _span(part: Tree) -> tuple[int, int] | None:
    """The first and last place that a LIMIT and its OFFSET leave, where these are plain numbers."""
    if part["type"] != "LIMIT_MODIFIER" or part.get("limit_type") == "PERCENTAGE" or not part.get("limit"):
        return None
    literals = [each.get("literal") or {} for each in (part["limit"], part.get("offset") or _NONE)]
    if any(each.get("kind") != "INTEGER" for each in literals):
        return None
    limit, offset = (int(each["text"]) for each in literals)
    return offset, offset + limit


def _limit(lowering: Lowering, part: Tree) -> str:
    printed = lowering.duck.print
    if any(each.get("class") == "SUBQUERY" for each in walk(part)):
        raise NoRule("limit", "TOP_N")
    percent = "%" if part["type"] == "LIMIT_PERCENT_MODIFIER" or part.get("limit_type") == "PERCENTAGE" else ""
    text = f" LIMIT {printed(part['limit'])}{percent}" if part.get("limit") else ""
    return text + (f" OFFSET {printed(part['offset'])}" if part.get("offset") else "")
