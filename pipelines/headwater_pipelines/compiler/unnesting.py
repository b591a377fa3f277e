"""``FROM t, unnest(t.list) AS u(x)``: for each row its elements, which is linear in the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.types import quote
from headwater_pipelines.compiler import joins
from headwater_pipelines.compiler.plan import WEIGHT, Item, Select
from headwater_pipelines.compiler.scope import Scope, Visible
from headwater_pipelines.compiler.syntax import Tree, is_column, walk
from headwater_pipelines.compiler.whole import NoRule

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering


_LISTS = ("unnest", "range", "generate_series")
"""Table functions whose rows are the elements of what a function of the same name gives."""


def has_rule(node: Tree) -> bool:
    """Whether a join is one with the elements of a value of its left side, and nothing else."""
    right, condition = node["right"], node.get("condition")
    if right["type"] != "TABLE_FUNCTION" or node["join_type"] not in ("INNER", "LEFT") or node.get("using_columns"):
        return False
    call = right["function"]
    plain = call["function_name"] in _LISTS and not any(each["name"] for each in call["arguments"])
    reads = any(is_column(part) for part in walk(call["arguments"]))
    always = condition is None or is_true(condition)
    return bool(plain and reads and always and right.get("with_ordinality") == "WITHOUT_ORDINALITY")


def is_true(condition: Tree) -> bool:
    return (condition.get("literal") or {}) == {"kind": "BOOLEAN", "text": "true"}


def unnested(lowering: Lowering, node: Tree, left: Scope, conditions: list[Any]) -> Scope:
    """The left side's columns and the element, as the rows of one item."""
    right, call = node["right"], node["right"]["function"]
    is_list = call["function_name"] == "unnest"
    if is_list and len(call["arguments"]) != 1:
        raise NoRule("lateral join", "LATERAL")
    value = call["arguments"][0]["expression"] if is_list else {**call, "alias": ""}
    if any(part.get("class") == "SUBQUERY" for part in walk(value)):
        raise NoRule("lateral join", "LATERAL")
    side = joins.side_of(lowering, left, conditions, joins.L)
    elements = lowering.duck.print(side.scope.resolve(value))
    if node["join_type"] == "LEFT":
        elements = f"CASE WHEN len({elements}) > 0 THEN {elements} ELSE [NULL] END"
    own = ((name, f"{joins.L}.{quote(name)}") for name in side.columns)
    tree = Select((Item(joins.L, side.tree),), (), (*own, ("u0", f"unnest({elements})")))
    if [name for name, _ in lowering.describe(tree) if name != WEIGHT] != [*side.columns, "u0"]:
        raise NoRule("lateral join", "LATERAL")  # a struct becomes several columns
    shown = (right.get("column_name_alias") or [call["function_name"]])[0].lower()
    name = (right.get("alias") or call["function_name"]).lower()
    alias = lowering.alias()
    items = [Visible(alias, item.qualifier, item.columns, tree) for item in side.scope.items]
    merged = {each: (alias, column) for each, (_, column) in side.scope.merged.items()}
    return Scope(lowering.refuse, [*items, Visible(alias, (name,), {shown: "u0"}, tree)], merged)
