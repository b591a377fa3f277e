"""The forms of a subquery in an expression, as its text alone shows them, and the same said in a simpler one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headwater_pipelines.compiler import grouping
from headwater_pipelines.compiler.refusals import has_unnest
from headwater_pipelines.compiler.syntax import Duck, Tree, is_column, rewrite, walk

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Cte


def of_lists(expression: Any, duck: Duck) -> Any:
    """``x = ANY(list)``, ``x IN (SELECT unnest(list))``: of one row's values, and no subquery."""

    def change(node: Tree) -> Any:
        if node.get("subquery_type") != "ANY" or node.get("comparison_type") != "COMPARE_EQUAL":
            return None
        inner = node["subquery"]["node"]
        call = inner["select_list"][0] if inner["type"] == "SELECT_NODE" and len(inner["select_list"]) == 1 else {}
        if call.get("function_name") != "unnest" or inner["from_table"]["type"] != "EMPTY" or inner["where_clause"]:
            return None
        if inner.get("modifiers") or len(call["arguments"]) != 1:
            return None
        value, elements = duck.print(node["child"]), duck.print(call["arguments"][0]["expression"])
        unknown = f"({value}) IS NULL OR list_aggregate({elements}, 'count') < len({elements})"
        found = f"CASE WHEN list_contains({elements}, {value}) THEN true WHEN len({elements}) > 0 AND ({unknown})"
        return {**duck.expression(f"{found} THEN NULL ELSE false END"), "alias": node.get("alias", "")}

    return rewrite(expression, change)


def flattened(inner: Tree, duck: Duck) -> Tree:
    """An aggregate over a plain subquery, which is how ``ARRAY(SELECT ...)`` is read, as one over its tables."""
    table = inner.get("from_table") or {}
    if table.get("type") != "SUBQUERY" or table.get("column_name_alias") or not is_one_row(duck, inner):
        return inner
    below = table["subquery"]["node"]
    parts = ("group_expressions", "group_sets", "having", "qualify", "sample")
    if below["type"] != "SELECT_NODE" or any(below.get(part) for part in parts) or below["cte_map"]["map"]:
        return inner
    listed, inside = below["select_list"], [part for each in below["select_list"] for part in walk(each)]
    plain = not any(part.get("class") in ("STAR", "WINDOW", "SUBQUERY") for part in inside)
    ordered = all(part["type"] == "ORDER_MODIFIER" for part in below.get("modifiers") or ())
    if not plain or not ordered or inner.get("where_clause") or has_unnest(listed):
        return inner
    if any(grouping.aggregates_in(each, duck) for each in listed):
        return inner
    names = {_name(each): each for each in reversed(listed)}

    def change(part: Tree) -> Any:
        if part.get("class") == "POSITIONAL_REFERENCE":
            return {**listed[part["index"] - 1], "alias": ""}
        if is_column(part) and part["column_names"][-1].lower() in names:
            return {**names[part["column_names"][-1].lower()], "alias": ""}
        return None

    changed = [{**rewrite(each, change), "alias": each.get("alias", "")} for each in inner["select_list"]]
    return {**inner, "select_list": changed, "from_table": below["from_table"], "where_clause": below["where_clause"]}


def values(child: Tree) -> list[Tree]:
    """What IN compares: a value, or the fields of a row."""
    if child.get("class") == "FUNCTION" and child["function_name"] == "row":
        return [each["expression"] for each in child["arguments"]]
    return [child]


def is_one_row(duck: Duck, inner: Tree, ctes: Mapping[str, Cte] | None = None) -> bool:
    """Whether a query is an aggregate of all rows, which has one row whatever there is, or all rows of one."""
    parts = ("group_expressions", "group_sets", "having", "qualify", "modifiers")
    if inner["type"] != "SELECT_NODE" or any(inner.get(part) for part in parts):
        return False
    listed = inner["select_list"]
    if any(grouping.aggregates_in(each, duck) for each in listed):
        return inner.get("aggregate_handling") != "FORCE_AGGREGATES" and all(
            grouping.aggregates_in(each, duck) for each in listed
        )
    table = inner["from_table"]
    if inner.get("where_clause") or has_unnest(listed):
        return False
    if table["type"] == "SUBQUERY":
        return is_one_row(duck, table["subquery"]["node"], ctes)
    path = table["qualified_name"]["path"] if table["type"] == "BASE_TABLE" else []
    cte = (ctes or {}).get(path[0].lower()) if len(path) == 1 else None
    return cte is not None and is_one_row(duck, cte.query, cte.visible)


def aliases(inner: Tree) -> dict[str, Tree]:
    """What an ORDER BY may name of a select list."""
    return {each["alias"].lower(): each for each in reversed(inner["select_list"]) if each.get("alias")}


def is_first_row(inner: Tree) -> bool:
    """Whether a query is the first of some rows in an order."""
    if inner["type"] != "SELECT_NODE" or any(inner.get(part) for part in ("group_expressions", "having", "qualify")):
        return False
    parts = {part["type"]: part for part in inner.get("modifiers") or ()}
    limit = parts.pop("LIMIT_MODIFIER", None)
    if limit is None or limit.get("offset") or set(parts) - {"ORDER_MODIFIER"}:
        return False
    return bool((limit["limit"].get("literal") or {}).get("text") == "1")


def test(part: Tree) -> tuple[Tree, bool] | None:
    """An EXISTS or IN that is a condition by itself, and whether it is negated."""
    negated = part.get("type") == "OPERATOR_NOT"
    node = part["children"][0] if negated else part
    is_test = node.get("class") == "SUBQUERY" and node.get("subquery_type") in ("EXISTS", "ANY")
    return (node, negated) if is_test else None


def equal(one: Tree, other: Tree) -> Tree:
    place = {"alias": "", "query_location": one["query_location"], "query_location_length": 0}
    return {"class": "COMPARISON", "type": "COMPARE_EQUAL", **place, "left": one, "right": other}


def tested(tree: Any, duck: Duck) -> Any:
    """The tree with EXISTS (SELECT 1 ...) for EXISTS (SELECT * ...), which reads no column of the rows it asks for."""

    def change(node: Tree) -> Any:
        if node.get("subquery_type") != "EXISTS":
            return None
        inner = node["subquery"]["node"]
        others = ("modifiers", "group_expressions", "group_sets", "having", "qualify")
        if inner["type"] != "SELECT_NODE" or any(inner.get(part) for part in others):
            return None
        if any(each.get("class") != "STAR" for each in inner["select_list"]):
            return None
        inner = {**inner, "select_list": [duck.expression("1")]}
        bare = {**node, "subquery": {**node["subquery"], "node": inner}}
        return {key: rewrite(value, change) for key, value in bare.items()}

    return rewrite(tree, change)


def has_subquery(expression: Any) -> bool:
    return any(node.get("class") == "SUBQUERY" for node in walk(expression))


def _name(expression: Tree) -> str:
    own = expression["column_names"][-1] if is_column(expression) else ""
    return str(expression.get("alias") or own).lower()
