"""PIVOT with an IN list as aggregates with FILTER, UNPIVOT as two lists that are unnested side by side.

    PIVOT t ON a IN (1, 2) USING sum(x) GROUP BY g    SELECT g, sum(x) FILTER (a = 1), sum(x) FILTER (a = 2) GROUP BY g
    UNPIVOT t ON x, y INTO NAME n VALUE v             SELECT unnest(['x', 'y']) AS n, unnest([x, y]) AS v, no NULLs

DuckDB compares the values of an IN list as texts, and says what the columns are called.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import duckdb

from headwater.types import quote
from headwater_pipelines.compiler import grouping, stars
from headwater_pipelines.compiler.plan import WEIGHT, Select, digest
from headwater_pipelines.compiler.scope import Scope
from headwater_pipelines.compiler.syntax import Tree, is_column, rewrite, walk
from headwater_pipelines.compiler.whole import NoRule

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Cte, Lowering

NO_RULE = NoRule("pivot", "PIVOT")
_FUNCTIONS = ("count", "count_star", "sum", "avg", "mean", "min", "max", "first", "last", "any_value", "list",
              "array_agg", "string_agg", "median", "mode", "arg_max", "arg_min", "max_by", "min_by")  # fmt: skip
"""What these are where nothing passes a FILTER is what PIVOT shows for a value that is not there."""


def written_out(lowering: Lowering, node: Tree, ctes: Mapping[str, Cte]) -> Tree:
    """The FROM item as a subquery; NoRule where that would not say the same."""
    scope, _ = lowering.from_clause(node["source"], ctes)
    shown = stars.star({"relation_name": "", "query_location": node["query_location"]}, scope)
    names = _names(lowering, node, scope, shown)
    query = (
        _unpivoted(lowering, node, scope, shown) if node["unpivot_names"] else _pivoted(lowering, node, shown, names)
    )
    shell: Tree = lowering.duck.parse("SELECT * FROM (SELECT 1)", lambda _: (0, 0))["from_table"]
    made = {**shell, "alias": node["alias"], "column_name_alias": node.get("column_name_alias") or []}
    return {**made, "query_location": node["query_location"], "subquery": {**shell["subquery"], "node": query}}


def _names(lowering: Lowering, node: Tree, scope: Scope, shown: list[Tree]) -> list[str]:
    """The columns of the item, as DuckDB names them."""
    duck = lowering.duck
    own = [str(each["alias"]) for each in shown]
    if len({name.lower() for name in own}) < len(own):
        raise NO_RULE
    printed = [duck.print(scope.resolve(each)) for each in shown]
    rows = Select(scope.plan_items(), (), tuple(zip(own, printed, strict=True)))
    table = f"pivot_{digest(rows)}"
    duck.create_table(table, [(name, text) for name, text in lowering.describe(rows) if name != WEIGHT])
    shell: Tree = duck.parse(f"SELECT * FROM {table}", lambda _: (0, 0))
    plain = {**rewrite(node, lambda part: _last(part) if is_column(part) else None), "column_name_alias": []}
    query = {**shell, "from_table": {**plain, "source": shell["from_table"], "alias": ""}}
    try:
        return [name for name, _ in duck.describe(duck.print_query(query))]
    except duckdb.Error as error:
        raise NO_RULE from error


def _pivoted(lowering: Lowering, node: Tree, shown: list[Tree], names: list[str]) -> Tree:
    duck = lowering.duck
    read = [node["aggregates"], *(pivot["pivot_expressions"] for pivot in node["pivots"])]
    taken = {part["column_names"][-1].lower() for part in walk(read) if is_column(part)}
    groups = [str(name) for name in node["groups"]]
    groups = groups or [str(each["alias"]) for each in shown if str(each["alias"]).lower() not in taken]
    listed: list[Tree] = [duck.expression(quote(name)) for name in groups]
    for chosen in itertools.product(*(_conditions(lowering, pivot) for pivot in node["pivots"])):
        listed += [_filtered(lowering, each, " AND ".join(chosen)) for each in node["aggregates"]]
    if len(listed) != len(names):
        raise NO_RULE
    by = f" GROUP BY {', '.join(map(quote, groups))}" if groups else ""
    shell: Tree = duck.parse(f"SELECT 1 FROM t{by}", lambda _: (0, 0))
    listed = [{**each, "alias": name} for each, name in zip(listed, names, strict=True)]
    return {**shell, "select_list": listed, "from_table": node["source"]}


def _conditions(lowering: Lowering, pivot: Tree) -> list[str]:
    """Of each value in an IN list, the condition on the rows that have it."""
    if len(pivot["pivot_expressions"]) != 1 or pivot.get("pivot_enum"):
        raise NO_RULE
    value, found = lowering.duck.print(pivot["pivot_expressions"][0]), []
    for entry in pivot["entries"]:
        constant = entry.get("star_expr")
        if entry.get("values") or not constant or constant.get("class") not in ("CONSTANT", "CAST"):
            raise NO_RULE
        text = lowering.duck.print({**constant, "alias": ""})
        found.append(f"CAST({value} AS VARCHAR) IS NOT DISTINCT FROM CAST({text} AS VARCHAR)")
    return found


def _filtered(lowering: Lowering, expression: Tree, condition: str) -> Tree:
    """An expression over one aggregate call, of the rows that fulfil a condition."""
    calls = grouping.aggregates_in(expression, lowering.duck)
    if len(calls) != 1 or str(calls[0]["function_name"]).lower() not in _FUNCTIONS:
        raise NO_RULE

    def change(part: Tree) -> Any:
        if part is not calls[0]:
            return None
        own = f"({lowering.duck.print(part['filter'])}) AND " if part.get("filter") else ""
        return {**part, "filter": lowering.duck.expression(own + condition)}

    made: Tree = rewrite(expression, change)
    return made


def _unpivoted(lowering: Lowering, node: Tree, scope: Scope, shown: list[Tree]) -> Tree:
    if len(node["unpivot_names"]) != 1 or len(node["pivots"]) != 1:
        raise NO_RULE
    entries: list[tuple[str, str]] = []
    for entry in node["pivots"][0]["entries"]:
        expression = entry.get("star_expr")
        if entry.get("values") or not expression:
            raise NO_RULE
        for each in stars.expanded(lowering, [expression], scope):
            if not is_column(each):
                raise NO_RULE
            name = str(each["column_names"][-1])
            entries.append((str(entry.get("alias") or each.get("alias") or name), name))
    taken = {name.lower() for _, name in entries}
    kept = [quote(str(each["alias"])) for each in shown if str(each["alias"]).lower() not in taken]
    labels = ", ".join("'" + label.replace("'", "''") + "'" for label, _ in entries)
    values = ", ".join(quote(name) for _, name in entries)
    label, value = quote(node["pivots"][0]["unpivot_names"][0]), quote(node["unpivot_names"][0])
    listed = ", ".join([*kept, f"unnest([{labels}]) AS {label}", f"unnest([{values}]) AS {value}"])
    inner: Tree = lowering.duck.parse(f"SELECT {listed} FROM t", lambda _: (0, 0))
    inner = {**inner, "from_table": node["source"]}
    where = "" if node.get("include_nulls") else f" WHERE {value} IS NOT NULL"
    outer: Tree = lowering.duck.parse(f"SELECT * FROM (SELECT 1) AS u{where}", lambda _: (0, 0))
    table = outer["from_table"]
    return {**outer, "from_table": {**table, "subquery": {**table["subquery"], "node": inner}}}


def _last(part: Tree) -> Tree:
    return {**part, "column_names": part["column_names"][-1:]}
