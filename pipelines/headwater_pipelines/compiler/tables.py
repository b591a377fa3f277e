"""FROM: tables, views, CTEs, subqueries and inner joins, as the names that the rest of a SELECT sees.

Joins of other kinds, and rows that follow from the items before, have modules of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.errors import SqlError, UnknownColumn
from headwater_pipelines.compiler import forms, joins, pivots, subqueries, timewindows, unnesting
from headwater_pipelines.compiler.clock import has_only_clocks
from headwater_pipelines.compiler.plan import Leaf, Node, column_names
from headwater_pipelines.compiler.relations import Table
from headwater_pipelines.compiler.scope import Scope, Visible
from headwater_pipelines.compiler.syntax import Tree
from headwater_pipelines.compiler.whole import NoRule, whole

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Ctes, Lowering


def joined(lowering: Lowering, node: Tree, ctes: Ctes) -> tuple[Scope, list[Tree]]:
    scope, conditions = _join(lowering, node, ctes) if node["type"] == "JOIN" else (_relation(lowering, node, ctes), [])
    taken: set[str] = set()
    for item in scope.items:
        name = item.qualifier[-1]
        if name in taken:
            raise lowering.refuse.at(node, f"alias {name} is used twice", "DUPLICATE_ALIAS", "Name each table once.")
        taken.add(name)
    return scope, conditions


def _join(lowering: Lowering, node: Tree, ctes: Ctes) -> tuple[Scope, list[Tree]]:
    left, left_conditions = joined(lowering, node["left"], ctes)
    if unnesting.has_rule(node):
        return unnesting.unnested(lowering, node, left, left_conditions), []
    if subqueries.is_lateral(node):
        rows = subqueries.Rows(lowering, ctes, left, left_conditions)
        if unnesting.is_computed(node):
            return unnesting.computed(lowering, node, left, left_conditions), []
        try:
            right, right_conditions = joined(lowering, node["right"], ctes)
        except NoRule:
            return rows.lateral(node), []
        return _both(lowering, node, ctes, (left, left_conditions), (right, right_conditions))
    try:
        right, right_conditions = joined(lowering, node["right"], ctes)
    except UnknownColumn as error:  # a join on the right, whose condition may mean the items before it
        raise NoRule("lateral join", "LATERAL") from error
    return _both(lowering, node, ctes, (left, left_conditions), (right, right_conditions))


def _both(lowering: Lowering, node: Tree, ctes: Ctes, one: joins.Rows, other: joins.Rows) -> tuple[Scope, list[Tree]]:
    if joins.has_rule(node):
        return joins.joined(lowering, *_timed(lowering, node, [one, other])), []
    (left, left_conditions), (right, right_conditions) = one, other
    natural = joins.common(left, right) if node["ref_type"] == "NATURAL" else []
    both = Scope(lowering.refuse, [*left.items, *right.items], {**right.merged, **left.merged})
    conditions = [*left_conditions, *right_conditions]
    for name in node.get("using_columns") or natural:
        reference = {"class": "COLUMN_REF", "column_names": [name], "query_location": node["query_location"]}
        pair = [side.resolve(reference) for side in (left, right)]
        lowering.note(both, pair)
        conditions.append(lowering.duck.expression(" = ".join(map(lowering.duck.print, pair))))
        both.merged[name.lower()] = (pair[0]["column_names"][0], pair[0]["column_names"][-1])
    if node.get("condition"):
        if forms.has_subquery(node["condition"]):
            rows = subqueries.Rows(lowering, ctes, both, conditions)
            rows.filter(node["condition"])
            return rows.scope, rows.conditions
        condition = both.resolve(node["condition"])
        lowering.note(both, [condition])
        conditions.append(condition)
    return both, conditions


def _timed(lowering: Lowering, node: Tree, sides: list[joins.Rows]) -> tuple[Tree, joins.Sides]:
    """A join whose condition asks for the time of rows that only have to match: these are left out before it."""
    place = {"LEFT": 1, "SEMI": 1, "ANTI": 1, "RIGHT": 0}.get(node["join_type"], -1)
    rest = []
    for part in joins.conjuncts(node["condition"]) if node.get("condition") else []:
        timed = forms.has_subquery(part) and has_only_clocks(part, lowering.relations)
        if not timed or place < 0 or node["ref_type"] == "ASOF":
            rest.append(part)
            continue
        rows = subqueries.Rows(lowering, {}, *sides[place])
        try:
            rows.filter(part)
        except NoRule:  # it reads the other side
            rest.append(part)
            continue
        sides[place] = (rows.scope, rows.conditions)
    return {**node, "condition": joins.conjunction(rest)}, (sides[0], sides[1])


def _relation(lowering: Lowering, node: Tree, ctes: Ctes) -> Scope:
    if node["type"] == "SUBQUERY":
        try:
            if timewindows.MARK in node:
                rows = timewindows.lowered(lowering, node, ctes)
            else:
                rows = lowering.query(node["subquery"]["node"], ctes)
        except SqlError as error:  # it may mean a column of the items before it
            raise NoRule("lateral join", "LATERAL") from error
        return _nested(lowering, rows, node, node["alias"] or lowering.alias(), [])
    if node["type"] == "PIVOT":
        return _relation(lowering, pivots.written_out(lowering, node, ctes), ctes)
    if node["type"] != "BASE_TABLE":
        return _rowless(lowering, node, ctes)
    path: list[str] = node["qualified_name"]["path"]
    alias = node["alias"] or path[-1]
    cte = ctes.get(path[0].lower()) if len(path) == 1 else None
    if cte is not None:
        return _nested(lowering, lowering.query(cte.query, cte.visible), node, alias, cte.aliases)
    relation = lowering.relations.resolve(path)
    columns = {name.lower(): name for name, _ in relation.columns}
    qualifier = (alias,) if node["alias"] else tuple(relation.name.split("."))
    if isinstance(relation, Table):
        lowering.declare(relation.base)
        plan: Node = Leaf(relation.base)
    else:
        plan = relation.root
        lowering.read_view(relation)
        qualifier = qualifier if node["alias"] else ("views", relation.name)
    columns = _shown(columns, node.get("column_name_alias") or [])
    return Scope(lowering.refuse, [Visible(alias, tuple(part.lower() for part in qualifier), columns, plan)])


def _rowless(lowering: Lowering, node: Tree, ctes: Ctes) -> Scope:
    """VALUES or a table function: a query of its own, unless it reads the items before it."""
    shell: Tree = lowering.duck.parse("SELECT * FROM t", lambda _: (0, 0))
    try:
        plan = whole(lowering, {**shell, "from_table": {**node, "sample": None}}, ctes, NoRule("values", "CONSTANT"))
    except SqlError as error:
        raise NoRule("lateral join", "LATERAL") from error
    return _nested(lowering, plan, {**node, "column_name_alias": []}, node["alias"] or lowering.alias(), [])


def _nested(lowering: Lowering, plan: Node, node: Tree, alias: str, aliases: list[str]) -> Scope:
    columns = _shown({name.lower(): name for name in column_names(plan)}, aliases)
    columns = _shown(columns, node.get("column_name_alias") or [])
    return Scope(lowering.refuse, [Visible(alias, (alias.lower(),), columns, plan)])


def _shown(columns: dict[str, str], aliases: list[str]) -> dict[str, str]:
    """Columns under the names that an alias list gives to the first of them."""
    shown = [alias.lower() for alias in aliases] + list(columns)[len(aliases) :]
    return dict(zip(shown, columns.values(), strict=True))
