"""``WITH (on_error = 'null')``: what fails over a row's values is NULL, and nothing else of the view suffers.

The definition is written out before it is compiled: every cast of something of a row becomes TRY_CAST, and every call
of a scalar function over it stands in TRY. Each call by itself, so that equal expressions stay equal (GROUP BY). What
DuckDB answers to that text (``CompiledView.query``) is what the view holds.
"""

from __future__ import annotations

from typing import Any

from headwater_pipelines.compiler.syntax import Duck, Tree, renamed_as, walk

OPTION = "on_error"
NULL = "null"

_OF_MANY_ROWS = ("SUBQUERY", "WINDOW")
_MANY_ROWS = frozenset({"unnest", "generate_subscripts"})
_CANNOT_FAIL = frozenset({"struct_extract", "struct_pack", "list_value", "row", "grouping", "grouping_id"})


def tried(node: Any, duck: Duck) -> Any:
    """The tree with every cast and call over columns tried; names of columns stay."""
    if isinstance(node, list):
        return [tried(each, duck) for each in node]
    if not isinstance(node, dict) or node.get("class") == "LAMBDA":
        return node
    # Types have no values, and what a table function yields is no value either.
    kept = {"type_expr", "function"} if node.get("type") == "TABLE_FUNCTION" else {"type_expr"}
    made: Tree = {key: value if key in kept else tried(value, duck) for key, value in node.items()}
    if isinstance(node.get("select_list"), list):
        pairs = zip(node["select_list"], made["select_list"], strict=True)
        made["select_list"] = [renamed_as(before, after, duck) for before, after in pairs]
    if not any(part.get("class") == "COLUMN_REF" for part in walk(node)):
        return made
    if node.get("class") == "CAST":
        made["try_cast"] = True
    elif node.get("class") == "FUNCTION" and may_fail(node, duck):
        place = {key: node[key] for key in ("query_location", "query_location_length") if key in node}
        inner = {**made, "alias": ""}
        return {"class": "OPERATOR", "type": "OPERATOR_TRY", "alias": node["alias"], **place, "children": [inner]}
    return made


def may_fail(call: Tree, duck: Duck) -> bool:
    """Whether a call of a function can be tried: of one row's values, and by nothing that is computed of many rows."""
    if call["function_name"].lower() in _CANNOT_FAIL:
        return False
    parts = list(walk(call))
    calls = [part["function_name"].lower() for part in parts if part.get("class") == "FUNCTION"]
    if any(name in duck.aggregates or name in _MANY_ROWS or duck.is_unstable(name) for name in calls):
        return False
    return not any(part.get("class") in _OF_MANY_ROWS for part in parts)
