"""Rows that follow from one row's values: its lists unnested, table functions of them, expressions in a LATERAL.

    FROM t, unnest(t.list) AS u(x)       FROM t, json_each(t.doc)       FROM t, LATERAL (SELECT t.a * 2 AS b)

All of these are linear in the rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headwater.types import quote
from headwater_pipelines.compiler import grouping, joins
from headwater_pipelines.compiler.clock import is_clock
from headwater_pipelines.compiler.plan import WEIGHT, Item, Select
from headwater_pipelines.compiler.scope import Scope, Visible
from headwater_pipelines.compiler.syntax import (
    Tree,
    column,
    field_of,
    is_column,
    rewrite_free,
    walk,
    walk_own,
)
from headwater_pipelines.compiler.whole import NoRule

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering

NO_RULE = NoRule("lateral join", "LATERAL")
_LISTS = ("unnest", "range", "generate_series")
"""Table functions whose rows are the elements of what a function of the same name gives."""
_TABLES = ("json_each", "json_tree")
"""Table functions of one row's values with several columns."""
_UNNEST = ("unnest", "unlist")


def has_rule(node: Tree) -> bool:
    """Whether a join is one with the rows that follow from a value of its left side, and nothing else."""
    right = node["right"]
    if right["type"] != "TABLE_FUNCTION" or not _is_cross(node):
        return False
    call = right["function"]
    plain = call["function_name"] in (*_LISTS, *_TABLES) and not any(each["name"] for each in call["arguments"])
    reads = any(is_column(part) for part in walk(call["arguments"]))
    counted = right.get("with_ordinality") != "WITHOUT_ORDINALITY"
    return bool(
        plain and reads and (not counted or (call["function_name"] == "unnest" and node["join_type"] == "INNER"))
    )


def _is_cross(node: Tree) -> bool:
    """Whether a join is with whatever is on its right."""
    condition = node.get("condition")
    kinds = node["join_type"] in ("INNER", "LEFT") and not node.get("using_columns")
    return bool(kinds and (condition is None or is_true(condition)))


def is_true(condition: Tree) -> bool:
    return (condition.get("literal") or {}) == {"kind": "BOOLEAN", "text": "true"}


def unnested(lowering: Lowering, node: Tree, left: Scope, conditions: list[Any]) -> Scope:
    """The left side's columns and those of the rows that follow, as one item."""
    right, call = node["right"], node["right"]["function"]
    kind = call["function_name"]
    if kind == "unnest" and len(call["arguments"]) != 1:
        raise NO_RULE
    value = call["arguments"][0]["expression"] if kind == "unnest" else {**call, "alias": ""}
    if any(part.get("class") == "SUBQUERY" for part in walk(value)):
        raise NO_RULE
    side = joins.side_of(lowering, left, conditions, joins.L)
    resolved = lowering.duck.print(side.scope.resolve(value))
    fields = _fields_of(lowering, kind) if kind in _TABLES else []
    elements = _listed(resolved, fields) if kind in _TABLES else resolved
    if node["join_type"] == "LEFT":
        elements = f"CASE WHEN len({elements}) > 0 THEN {elements} ELSE [NULL] END"
    more = [("u0", f"unnest({elements})")]
    if right.get("with_ordinality") != "WITHOUT_ORDINALITY":
        more.append(("u1", f"unnest(generate_series(1, len({elements})))"))
    tree = _beside(lowering, side, more)
    names = [kind, "ordinality"][: len(more)]
    if kind in _TABLES:
        own = [(name, f"u.{quote(name)}") for name in side.columns]
        parts = ((f"u{place}", f"u.u0.{quote(name)}") for place, name in enumerate(fields))
        tree, names = Select((Item("u", tree),), (), (*own, *parts)), fields
    shown = [str(name) for name in right.get("column_name_alias") or ()]
    if kind in _TABLES and shown:
        raise NO_RULE  # by their places, of which only those that are read are there
    names = [*shown, *names[len(shown) :]]
    return _with(lowering, side, tree, str(right.get("alias") or kind).lower(), names, "u")


def is_computed(node: Tree) -> bool:
    """Whether a join is with a SELECT that reads no table: expressions over the left side."""
    inner = node["right"]["subquery"]["node"]
    if inner["type"] != "SELECT_NODE" or inner["from_table"]["type"] != "EMPTY" or inner["cte_map"]["map"]:
        return False
    parts = ("group_expressions", "group_sets", "having", "qualify", "where_clause", "modifiers")
    inside = [part for each in inner["select_list"] for part in walk(each)]
    plain = not any(part.get("class") in ("STAR", "SUBQUERY", "WINDOW") for part in inside)
    return plain and not any(inner.get(part) for part in parts) and _is_cross(node)


def computed(lowering: Lowering, node: Tree, left: Scope, conditions: list[Any]) -> Scope:
    """The left side's columns and expressions over them, as one item."""
    right = node["right"]
    listed = right["subquery"]["node"]["select_list"]
    if any(grouping.aggregates_in(each, lowering.duck) for each in listed):
        raise NO_RULE
    several = any(part.get("function_name") in _UNNEST for each in listed for part in walk_own(each))
    if several and node["join_type"] == "LEFT":
        raise NO_RULE
    side = joins.side_of(lowering, left, conditions, joins.L)
    values = [lowering.duck.print(side.scope.resolve(each)) for each in listed]
    tree = _beside(lowering, side, [(f"u{place}", sql) for place, sql in enumerate(values)])
    shown = [str(name) for name in right.get("column_name_alias") or ()]
    names = [*shown, *(lowering.name(each) for each in listed[len(shown) :])]
    return _with(lowering, side, tree, str(right["alias"] or lowering.alias()).lower(), names, "u")


def fields(lowering: Lowering, expression: Tree, scope: Scope) -> list[Tree]:
    """``unnest(struct)`` in a select list is a column for each field; anything else is itself."""
    if expression.get("class") != "FUNCTION" or expression["function_name"] not in _UNNEST:
        return [expression]
    first, *others = expression["arguments"]
    kinds = _types(lowering, first["expression"], scope)
    if kinds is None or not kinds.startswith("STRUCT("):
        return [expression]
    deep = [
        bool(part.get("literal") == {"kind": "BOOLEAN", "text": "true"}) for part in (e["expression"] for e in others)
    ]
    if len(others) > 1 or (others and (others[0]["name"] != "recursive" or not any(deep))):
        raise NoRule("unnest", "UNNEST")
    return _parts(lowering, first["expression"], scope, deep=bool(others))


def _parts(lowering: Lowering, struct: Tree, scope: Scope, *, deep: bool) -> list[Tree]:
    found = []
    value = lowering.duck.print(scope.resolve(struct))
    rows = Select(scope.plan_items(), (), (("v", value),))
    for name, text in lowering.describe(Select((Item("r", rows),), (), (("v", "unnest(r.v)"),))):
        if name == WEIGHT:
            continue
        part = {**field_of({**struct, "alias": ""}, name), "alias": name}
        if deep and ("[" in text or text.startswith("MAP")):
            raise NoRule("unnest", "UNNEST")  # lists become rows as well
        found += _parts(lowering, part, scope, deep=True) if deep and text.startswith("STRUCT(") else [part]
    return found


def _types(lowering: Lowering, expression: Tree, scope: Scope) -> str | None:
    """An expression's type; None of one that cannot be told by itself."""
    if any(part.get("class") in ("SUBQUERY", "WINDOW") for part in walk(expression)):
        return None
    if grouping.aggregates_in(expression, lowering.duck):
        return None
    value = lowering.duck.print(scope.resolve(expression))
    return dict(lowering.describe(Select(scope.plan_items(), (), (("v", value),))))["v"]


def below_groups(
    lowering: Lowering, items: tuple[Item, ...], where: tuple[str, ...], group: list[Any], shown: list[Tree]
) -> tuple[tuple[Item, ...], tuple[str, ...], list[Any], list[Tree]]:
    """Rows unnested before they are grouped by what comes of it: ``unnest(tags) AS tag ... GROUP BY tag``."""
    if any(map(is_clock, items)):
        raise NoRule("unnest", "UNNEST")
    duck, columns, made = lowering.duck, dict[str, str](), dict[str, str]()
    below = grouping.read_from(duck, items, columns)

    def change(part: Tree) -> Any:
        if part.get("class") == "FUNCTION" and part["function_name"] in _UNNEST:
            return column("i", made.setdefault(duck.print({**part, "alias": ""}), f"u{len(made)}"))
        return below(part)

    listed = [rewrite_free(each, change) for each in shown]
    keys = [rewrite_free(each, change) for each in group]
    read = ((name, sql) for sql, name in (*columns.items(), *made.items()))
    rows = Select(items, where, tuple(read))
    return (Item("i", rows),), (), keys, listed


def _listed(call: str, fields: list[str]) -> str:
    """The rows of a table function as a list of structs."""
    packed = ", ".join(f"{quote(name)}: hw_j.{quote(name)}" for name in fields)
    return f"coalesce((SELECT list({{{packed}}}) FROM {call} AS hw_j), [])"


def _fields_of(lowering: Lowering, kind: str) -> list[str]:
    """Those of a table function's columns that the definition may mean."""
    names = [name for name, _ in lowering.duck.describe(f"SELECT * FROM {kind}('{{}}'::JSON)")]
    return [name for name in names if lowering.is_named(name)] or names[:1]


def _beside(lowering: Lowering, side: joins.Side, more: list[tuple[str, str]]) -> Select:
    own = ((name, f"{joins.L}.{quote(name)}") for name in side.columns)
    tree = Select((Item(joins.L, side.tree),), (), (*own, *more))
    if [name for name, _ in lowering.describe(tree) if name != WEIGHT] != [*side.columns, *(name for name, _ in more)]:
        raise NO_RULE  # a struct becomes several columns
    return tree


def _with(lowering: Lowering, side: joins.Side, tree: Select, name: str, names: list[str], own: str) -> Scope:
    """What the rest of the query sees: the left side's items over the tree, and one more."""
    alias = lowering.alias()
    items = [replace(item, alias=alias, node=tree) for item in side.scope.items]
    merged = {each: (alias, place) for each, (_, place) in side.scope.merged.items()}
    shown = {each.lower(): f"{own}{place}" for place, each in enumerate(names)}
    return Scope(lowering.refuse, [*items, Visible(alias, (name,), shown, tree)], merged)
