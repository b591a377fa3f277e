"""What cannot be maintained, found in the syntax tree before anything is created, with code and place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headwater.errors import UnsupportedSql
from headwater_pipelines.compiler.clock import is_instant
from headwater_pipelines.compiler.definition import Definition
from headwater_pipelines.compiler.syntax import KEYWORDS, NOWHERE, Duck, Tree, walk, walk_own
from headwater_pipelines.compiler.whole import NoRule

ROWS_OF_ARGUMENTS = {"range", "generate_series", "unnest", "json_each", "json_tree", "repeat", "repeat_row"}
"""Table functions whose rows follow from their arguments alone."""
SAMPLING = {"approx_quantile", "approx_top_k", "reservoir_quantile"}
"""Aggregate functions whose result depends on the order in which rows come, beyond any that could be asked for."""

_EXPANDED = ("from_table", "cte_map", "select_list", "where_clause", "modifiers")
"""Where stars are written out, or mean all columns of the result."""
VALUE_KEYWORDS = KEYWORDS | {"user"}
"""``user`` is also what macros call a parameter."""


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


def require_rule(node: Tree) -> None:
    """NoRule for a SELECT with something that only the query as a whole can be computed with."""
    if node["from_table"]["type"] == "EMPTY":
        raise NoRule("values", "CONSTANT")
    own = {key: value for key, value in node.items() if key not in _EXPANDED}
    if any(part.get("class") == "STAR" and part.get("columns") for part in walk(own)):
        raise NoRule("columns", "COLUMNS")


def has_unnest(expressions: list[Any]) -> bool:
    calls = (node for each in expressions for node in walk_own(each) if node.get("class") == "FUNCTION")
    return any(node["function_name"] in ("unnest", "unlist") for node in calls)


def _query(node: Tree, refuse: Refusal) -> None:
    if node.get("type") == "SELECT_NODE" and node.get("sample"):
        raise refuse.at(None, "samples are not repeatable", "SAMPLE", "Remove USING SAMPLE.", "SAMPLE")


def _from(node: Tree, refuse: Refusal) -> None:
    kind = str(node.get("type"))
    if "class" in node:
        return
    if kind == "SHOW_REF":
        raise refuse.at(node, "a view is a SELECT", "NOT_A_SELECT", "Write ... AS SELECT ...", "SELECT")
    if kind == "TABLE_FUNCTION" and node["function"]["function_name"] not in ROWS_OF_ARGUMENTS:
        todo = f"These depend on their arguments alone: {', '.join(sorted(ROWS_OF_ARGUMENTS))}."
        what = f"table function {node['function']['function_name']} reads what a view cannot follow"
        raise refuse.at(node, what, "TABLE_FUNCTION", todo, "SELECT")
    if kind in ("BASE_TABLE", "SUBQUERY", "JOIN") and node.get("sample"):
        raise refuse.at(node, "samples are not repeatable", "SAMPLE", "Remove TABLESAMPLE.")
    if kind == "JOIN" and node.get("ref_type") == "POSITIONAL":
        todo = "Join on a key: rows have no position."
        raise refuse.at(node, "positional joins are not supported", "POSITIONAL_JOIN", todo)
    if kind == "BASE_TABLE" and node.get("at_clause"):
        raise refuse.at(node, "AT is not supported in a view", "AT_CLAUSE", "A view follows the newest position.")


def _expression(node: Tree, refuse: Refusal, duck: Duck) -> None:
    match node.get("class"):
        case "FUNCTION" | "WINDOW":
            _function(node, refuse, duck)
        case "PARAMETER":
            raise refuse.at(node, "a view has no parameters", "PARAMETER", "Write the value itself.")


def _function(node: Tree, refuse: Refusal, duck: Duck) -> None:
    name = str(node["function_name"]).lower()
    aggregate = name in duck.aggregates
    rules: tuple[tuple[bool, str, str, str], ...] = (
        (
            node["class"] == "FUNCTION" and not aggregate and duck.is_unstable(name) and not is_instant(node),
            "VOLATILE_FUNCTION",
            f"{name}() gives another result each time",
            "Use a column of the source, or apply it when you read the view.",
        ),
        (
            aggregate and name in SAMPLING,
            "SAMPLING_AGGREGATE",
            f"{name}() estimates from a sample, another one each time",
            "Use the exact function: quantile_cont, mode, count.",
        ),
        (
            name == "bitstring_agg" and len(node.get("arguments") or ()) < 3,
            "TABLE_STATISTICS",
            "bitstring_agg() takes its first and last bit from statistics, in which rows that are gone still count",
            "Give them: bitstring_agg(x, 0, 31).",
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
