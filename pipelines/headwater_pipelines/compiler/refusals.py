"""What cannot be maintained, found in the syntax tree before anything is created, with code and place."""

from __future__ import annotations

from collections.abc import Callable

from headwater.errors import UnsupportedSql
from headwater_pipelines.compiler.definition import Definition
from headwater_pipelines.compiler.syntax import NOWHERE, Duck, Tree, walk

MAINTAINED = {"count", "count_star", "sum", "avg", "mean"}
"""Aggregate functions that can be kept up to date."""

VALUE_KEYWORDS = {
    "current_timestamp",
    "current_date",
    "current_time",
    "localtime",
    "localtimestamp",
    "current_user",
    "session_user",
    "user",
    "current_role",
    "current_catalog",
    "current_schema",
}
"""Words that DuckDB reads as a function call when no column has that name."""


class Refusal:
    """Builds UnsupportedSql errors that quote the definition."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition

    def at(self, node: Tree | None, what: str, code: str, todo: str, *words: str) -> UnsupportedSql:
        """At a node's own place or, where the parser kept none, at the first keyword sequence ``words``."""
        offset, length = _span(node)
        if offset < 0 and words:
            offset, length = self.definition.keyword(*words), len(" ".join(words))
        if offset <= 0:
            return UnsupportedSql(what, code=code, todo=todo)
        line, column = self.definition.place(offset)
        text = self.definition.text[offset : offset + max(length, 1)]
        return UnsupportedSql(what, code=code, sql=text, line=line, column=column, todo=todo)


def _span(node: Tree | None) -> tuple[int, int]:
    places = [n for n in walk(node) if n.get("query_location", NOWHERE) != NOWHERE] if node else []
    if not places:
        return -1, 0
    first = min(places, key=lambda n: int(n["query_location"]))
    end = max(int(n["query_location"]) + int(n.get("query_location_length") or 0) for n in places)
    return int(first["query_location"]), end - int(first["query_location"])


def check(node: Tree, refuse: Refusal, duck: Duck) -> None:
    """Raise the first refusal, outside in."""
    for part in walk(node):
        _query(part, refuse)
        _from(part, refuse)
        _expression(part, refuse, duck)


def _query(node: Tree, refuse: Refusal) -> None:
    kind = node.get("type")
    if kind == "RECURSIVE_CTE_NODE":
        raise refuse.at(
            None, "recursive queries are not supported", "RECURSIVE", "Write it without RECURSIVE.", "RECURSIVE"
        )
    if kind == "SET_OPERATION_NODE" and not (node.get("setop_type") == "UNION" and node.get("setop_all")):
        word = str(node.get("setop_type"))
        todo = "UNION ALL is supported." if word == "UNION" else "Express it with a join, or UNION ALL."
        raise refuse.at(None, f"{word} is not supported", "SET_OPERATION", todo, word)
    if kind == "SELECT_NODE":
        _clauses(node, refuse)
    for modifier in node.get("modifiers") or ():
        _modifier(modifier, refuse)


def _clauses(node: Tree, refuse: Refusal) -> None:
    if node.get("qualify"):
        raise refuse.at(
            node["qualify"], "QUALIFY is not supported", "WINDOW_FUNCTION", "Filter when you read the view."
        )
    if node.get("sample"):
        raise refuse.at(None, "samples are not repeatable", "SAMPLE", "Remove USING SAMPLE.", "SAMPLE")
    if len(node.get("group_sets") or ()) > 1:
        todo = "Write one GROUP BY per set and combine them with UNION ALL."
        raise refuse.at(node["group_expressions"][0], "grouping sets are not supported", "GROUPING_SETS", todo)


def _modifier(modifier: Tree, refuse: Refusal) -> None:
    match modifier.get("type"):
        case "ORDER_MODIFIER" if modifier.get("orders"):
            todo = "Remove it here; order the rows when you read the view."
            raise refuse.at(
                None, "a view's rows have no order: ORDER BY is not supported", "ORDER_BY", todo, "ORDER", "BY"
            )
        case "LIMIT_MODIFIER" | "LIMIT_PERCENT_MODIFIER":
            todo = "Remove it here; limit the rows when you read the view."
            raise refuse.at(modifier, "LIMIT and OFFSET are not supported", "LIMIT", todo, "LIMIT")
        case "DISTINCT_MODIFIER":
            todo = "GROUP BY the columns instead."
            raise refuse.at(None, "SELECT DISTINCT is not supported", "DISTINCT", todo, "DISTINCT")


_REF_TYPES = {
    "NATURAL": ("NATURAL_JOIN", "Name the columns: JOIN ... USING (...)."),
    "ASOF": ("ASOF_JOIN", "Use an inner join with a range condition."),
    "POSITIONAL": ("POSITIONAL_JOIN", "Join on a key: rows have no position."),
}

_FROM_TYPES = {
    "TABLE_FUNCTION": ("TABLE_FUNCTION", "table functions are not supported", "Read tables and views only."),
    "EXPRESSION_LIST": ("VALUES", "VALUES is not supported", "Put the values into a table of the source."),
    "PIVOT": ("PIVOT", "PIVOT is not supported", "Write SUM(x) FILTER (WHERE ...) per column."),
    "COLUMN_DATA": ("VALUES", "literal rows are not supported", "Put the values into a table of the source."),
    "EMPTY": ("NO_RELATION", "a view needs a FROM clause", "Name the table or view that it reads."),
    "SHOW_REF": ("NOT_A_SELECT", "a view is a SELECT", "Write ... AS SELECT ..."),
}


def _from(node: Tree, refuse: Refusal) -> None:
    kind = str(node.get("type"))
    if kind in _FROM_TYPES and "class" not in node:
        code, what, todo = _FROM_TYPES[kind]
        raise refuse.at(node, what, code, todo, "SELECT")
    if kind in ("BASE_TABLE", "SUBQUERY", "JOIN") and node.get("sample"):
        raise refuse.at(node, "samples are not repeatable", "SAMPLE", "Remove TABLESAMPLE.")
    if kind == "JOIN" and "ref_type" in node:
        if node["ref_type"] in _REF_TYPES:
            code, todo = _REF_TYPES[node["ref_type"]]
            raise refuse.at(node, f"{node['ref_type'].lower()} joins are not supported", code, todo)
        if node["join_type"] not in ("INNER",):
            code = "OUTER_JOIN" if node["join_type"] in ("LEFT", "RIGHT", "OUTER", "FULL") else "SEMI_JOIN"
            word = str(node["join_type"]).replace("OUTER", "FULL")
            todo = "Use an inner join." if code == "OUTER_JOIN" else "Use an inner join with a grouped subquery."
            raise refuse.at(None, f"{word} JOIN is not supported", code, todo, word)
    if kind == "BASE_TABLE" and node.get("at_clause"):
        raise refuse.at(node, "AT is not supported in a view", "AT_CLAUSE", "A view follows the newest position.")


def _expression(node: Tree, refuse: Refusal, duck: Duck) -> None:
    match node.get("class"):
        case "FUNCTION":
            _function(node, refuse, duck)
        case "WINDOW":
            todo = "Compute it when you read the view."
            raise refuse.at(node, f"window function {node['function_name']} is not supported", "WINDOW_FUNCTION", todo)
        case "SUBQUERY":
            todo = "Write it as an inner join with a derived table."
            raise refuse.at(node, "subqueries in expressions are not supported", "SUBQUERY_EXPRESSION", todo)
        case "PARAMETER":
            raise refuse.at(node, "a view has no parameters", "PARAMETER", "Write the value itself.")
        case "STAR" if node.get("columns"):
            raise refuse.at(node, "COLUMNS(...) is not supported", "COLUMNS_EXPRESSION", "Name the columns.")
        case "STAR" if node.get("rename_list"):
            raise refuse.at(node, "RENAME is not supported", "STAR_RENAME", "Name the columns.")


def _function(node: Tree, refuse: Refusal, duck: Duck) -> None:
    name = str(node["function_name"]).lower()
    aggregate = name in duck.aggregates
    rules: tuple[tuple[bool, str, str, str], ...] = (
        (
            not aggregate and duck.is_unstable(name),
            "VOLATILE_FUNCTION",
            f"{name}() gives another result each time",
            "Use a column of the source, or apply it when you read the view.",
        ),
        (name in ("unnest", "unlist"), "UNNEST", "UNNEST is not supported", "Unnest when you read the view."),
        (
            aggregate and name not in MAINTAINED,
            "AGGREGATE_FUNCTION",
            f"aggregate {name} is not supported",
            "COUNT, SUM and AVG are.",
        ),
        (
            aggregate and bool(node.get("distinct")),
            "AGGREGATE_DISTINCT",
            f"{name}(DISTINCT ...) is not supported",
            "Group by the column in a derived table first, then count its rows.",
        ),
        (
            aggregate and bool((node.get("order_bys") or {}).get("orders")),
            "AGGREGATE_ORDER",
            f"ORDER BY inside {name} is not supported",
            "Remove it: it does not change the result.",
        ),
        (bool(node.get("export_state")), "EXPORT_STATE", "EXPORT_STATE is not supported", "Remove it."),
    )
    for applies, code, what, todo in rules:
        if applies:
            raise refuse.at(node, what, code, todo)


def value_keyword(node: Tree) -> Callable[[Refusal], UnsupportedSql] | None:
    """For an unresolved column that is a value keyword: the refusal."""
    names = node["column_names"]
    if len(names) != 1 or names[0].lower() not in VALUE_KEYWORDS:
        return None
    todo = "Use a column of the source, or apply it when you read the view."
    what = f"{names[0].lower()} gives another result each time"
    return lambda refuse: refuse.at(node, what, "VOLATILE_FUNCTION", todo)
