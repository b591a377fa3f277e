"""From DuckDB's syntax tree to the plan: names resolved, stars expanded, CTEs and derived tables nested."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from headwater.errors import SqlError, SqlSyntax, UnknownColumn
from headwater_pipelines.compiler import (
    grouping,
    joins,
    modifiers,
    ranked,
    render,
    sets,
    subqueries,
    timewindows,
    unnesting,
)
from headwater_pipelines.compiler import windows as windowing
from headwater_pipelines.compiler.clock import VALUE, clock_of
from headwater_pipelines.compiler.plan import (
    WEIGHT,
    Base,
    EventTime,
    Item,
    Leaf,
    Node,
    Select,
    Source,
    Union,
    column_names,
    sources,
)
from headwater_pipelines.compiler.refusals import Refusal, has_unnest, require_rule
from headwater_pipelines.compiler.relations import Relations, Table, ViewPlan
from headwater_pipelines.compiler.scope import Scope, Visible
from headwater_pipelines.compiler.syntax import Duck, Tree, column, is_column, message, rewrite, rewrite_free, walk
from headwater_pipelines.compiler.whole import NoRule, unique, whole


@dataclass(frozen=True)
class Cte:
    """A WITH entry, lowered anew where it is read (equal subtrees compare equal), with what it may see."""

    query: Tree
    aliases: list[str]
    visible: Mapping[str, Cte]


Ctes = Mapping[str, Cte]


@dataclass
class Lowering:
    """One definition being lowered. ``used`` collects the columns read of every base."""

    duck: Duck
    relations: Relations
    refuse: Refusal
    names: set[str] | None
    """Every name in the definition that could be a column's; None: any."""
    used: dict[Base, set[str]] = field(default_factory=dict)
    event_time: EventTime | None = None
    _aliases: int = 0

    def query(self, node: Tree, ctes: Ctes) -> Select | Union:
        """A query as a tree; one that there is no rule for is computed as a whole."""
        try:
            return self._query(node, ctes)
        except NoRule as why:
            try:
                return whole(self, node, ctes, why)
            except SqlError as error:
                raise why.__cause__ if isinstance(why.__cause__, UnknownColumn) else error from error

    def describe(self, node: Node) -> list[tuple[str, str]]:
        """Names and types of a tree's columns, from DuckDB."""
        return self.describe_query(render.state(node))

    def describe_query(self, text: str) -> list[tuple[str, str]]:
        try:
            return self.duck.describe(text)
        except duckdb.Error as error:
            raise SqlError(message(error), todo="Correct the expression.") from error

    def is_named(self, name: str) -> bool:
        return self.names is None or name.lower() in self.names

    def admit(self, names: Iterable[str]) -> None:
        """Names that the definition does not have are columns, too."""
        if self.names is not None:
            self.names |= set(names)

    def alias(self) -> str:
        """A name for a FROM item that the definition does not have."""
        self._aliases += 1
        return f"hw_{self._aliases}"

    # ---- queries

    def _query(self, node: Tree, ctes: Ctes) -> Select | Union:
        ctes = self._with(node, ctes)
        if node["type"] == "SET_OPERATION_NODE":
            return modifiers.of_rows(node, sets.combined(self, node, ctes))
        return self._select(node, ctes)

    def _with(self, node: Tree, ctes: Ctes) -> Ctes:
        found = dict(ctes)
        for entry in node["cte_map"]["map"]:
            value = entry["value"]
            if value["query_node"]["type"] == "RECURSIVE_CTE_NODE":
                raise NoRule("recursion", "RECURSION")
            found[entry["key"].lower()] = Cte(value["query_node"], value["aliases"], dict(found))
        return found

    def _select(self, node: Tree, ctes: Ctes) -> Select:
        require_rule(node)
        node, ctes = ranked.qualified(self, node, ctes)
        rows = subqueries.Rows(self, ctes, *self.from_clause(node["from_table"], ctes))
        expressions, grouped = self._expand(node["select_list"], rows.scope), node.get("group_expressions") or ()
        names = unique([self.name(expression) for expression in expressions])
        rows.scope.aliases = {e["alias"].lower(): e for e in reversed(expressions) if e.get("alias")}
        rows.filter(node.get("where_clause"))
        having, qualify, constants = node.get("having"), node.get("qualify"), dict[str, Item]()
        if any(map(subqueries.has_subquery, (*expressions, *grouped, having, qualify))):
            beside = self._beside(rows, constants) if self._groups(node, expressions) else rows.scalars
            expressions = [{**beside(each), "alias": each.get("alias", "")} for each in expressions]
            having, qualify = beside(having), beside(qualify)
            node = {**node, "group_expressions": [beside(each) for each in node.get("group_expressions") or ()]}
            rows.scope.aliases = {e["alias"].lower(): e for e in reversed(expressions) if e.get("alias")}
        scope = rows.scope
        scope.constants = set(constants)
        shown = [scope.resolve(expression) for expression in expressions]
        chosen = modifiers.of_select(self, node, scope, shown, names)
        resolved = [*shown, *chosen.expressions]
        qualify = scope.resolve(qualify) if qualify else None
        having = scope.resolve(having) if having else None
        self.note(scope, [*resolved, having, qualify])
        made = self._rows(node, rows, [*names, *chosen.names], resolved, having, qualify, constants)
        return modifiers.modified(self, made, len(names), chosen)

    def _groups(self, node: Tree, expressions: list[Tree]) -> bool:
        return grouping.is_aggregation(node, [*expressions, node.get("qualify")], self.duck)

    def _beside(self, rows: subqueries.Rows, found: dict[str, Item]) -> Callable[[Any], Any]:
        """Scalar subqueries over groups: rows of one row beside them."""

        def change(node: Tree) -> Any:
            if node.get("class") == "FUNCTION" and node["function_name"] in self.duck.aggregates:
                return rows.scalars(node)  # what it aggregates is of the rows
            if node.get("class") != "SUBQUERY":
                return None
            if (clock := clock_of(node["subquery"]["node"], self.relations)) is not None:
                shared = subqueries.clock_item(self, clock, rows.clocks)
                found[shared.alias] = shared
                return column(shared.alias, VALUE)
            item = subqueries.constant(self, node["subquery"]["node"], rows.ctes) if _is_scalar(node) else None
            if item is None:
                raise subqueries.NO_RULE
            found[item.alias] = item
            return column(item.alias, "v")

        return lambda expression: rewrite(expression, change)

    def _rows(
        self,
        node: Tree,
        rows: subqueries.Rows,
        names: list[str],
        resolved: list[Tree],
        having: Tree | None,
        qualify: Tree | None,
        constants: dict[str, Item],
    ) -> Select:
        """Filter, grouping, window functions and projection."""
        items, where = rows.scope.plan_items(), tuple(map(self.duck.print, rows.conditions))
        windows = windowing.has_windows([*resolved, qualify])
        aggregates = self._groups(node, resolved)
        if has_unnest([*resolved, qualify]) and (windows or aggregates):
            raise NoRule("unnest", "UNNEST")
        if not aggregates:
            if windows:
                return windowing.windowed(self, items, where, names, resolved, qualify)
            made = Select(items, where, tuple(zip(names, map(self.duck.print, resolved), strict=True)))
            if has_unnest(resolved) and [name for name, _ in self.describe(made) if name != WEIGHT] != names:
                raise NoRule("unnest", "UNNEST")  # a struct becomes several columns
            return made
        if windows and node.get("aggregate_handling") == "FORCE_AGGREGATES":
            raise NoRule("window", "WINDOW_WHOLE")
        group = self._group(node, rows.scope, resolved)
        self.note(rows.scope, list(group))
        read = {part["column_names"][0] for each in group for part in walk(each) if is_column(part)}
        known = {item.alias for item in items}
        items += tuple(item for alias, item in constants.items() if alias in read - known)
        plan = grouping.Grouping(self, items, where, group, constants)
        if len(node.get("group_sets") or ()) > 1:
            if windows:
                raise NoRule("grouping sets", "GROUPING_SETS")
            return grouping.of_sets(plan, node["group_sets"], names, resolved, having)
        if not windows:
            return plan.select(names, resolved, having)
        items, where, above = plan.rows([*resolved, qualify], having)
        return windowing.windowed(self, items, where, names, above[:-1], above[-1])

    def _group(self, node: Tree, scope: Scope, select: list[Tree]) -> list[Tree]:
        """The grouping expressions: positions, aliases and ALL replaced by what they stand for."""
        if node.get("aggregate_handling") == "FORCE_AGGREGATES":
            return [part for part in select if not grouping.aggregates_in(part, self.duck)]
        found = []
        for expression in node.get("group_expressions") or ():
            position = _position(expression, len(select))
            found.append(select[position - 1] if position else scope.resolve(expression))
        return found

    def _expand(self, select_list: list[Tree], scope: Scope) -> list[Tree]:
        found: list[Tree] = []
        for expression in select_list:
            if expression.get("class") == "STAR":
                found += _star(expression, scope)
            else:
                found.append(expression)
        return found

    def name(self, expression: Tree) -> str:
        if expression.get("alias"):
            return str(expression["alias"])
        return str(expression["column_names"][-1]) if is_column(expression) else self.duck.print(expression)

    def note(self, scope: Scope, expressions: list[Any]) -> None:
        """Remember which columns of stored topics these resolved expressions read."""
        bases = {v.alias: v.node.source for v in scope.items if isinstance(v.node, Leaf)}

        def visit(node: Tree) -> None:
            if is_column(node) and isinstance(base := bases.get(node["column_names"][0]), Base):
                self.used[base].add(node["column_names"][-1])

        rewrite_free(expressions, visit)

    # ---- FROM

    def from_clause(self, node: Tree, ctes: Ctes) -> tuple[Scope, list[Tree]]:
        scope, conditions = self._join(node, ctes) if node["type"] == "JOIN" else (self._relation(node, ctes), [])
        taken: set[str] = set()
        for item in scope.items:
            name = item.qualifier[-1]
            if name in taken:
                raise self.refuse.at(node, f"alias {name} is used twice", "DUPLICATE_ALIAS", "Name each table once.")
            taken.add(name)
        return scope, conditions

    def _join(self, node: Tree, ctes: Ctes) -> tuple[Scope, list[Tree]]:
        left, left_conditions = self.from_clause(node["left"], ctes)
        if unnesting.has_rule(node):
            return unnesting.unnested(self, node, left, left_conditions), []
        if subqueries.is_lateral(node):
            rows = subqueries.Rows(self, ctes, left, left_conditions)
            try:
                right, right_conditions = self.from_clause(node["right"], ctes)
            except NoRule:
                return rows.lateral(node), []
            return self._joined(node, left, left_conditions, right, right_conditions)
        try:
            right, right_conditions = self.from_clause(node["right"], ctes)
        except UnknownColumn as error:  # a join on the right, whose condition may mean the items before it
            raise NoRule("lateral join", "LATERAL") from error
        return self._joined(node, left, left_conditions, right, right_conditions)

    def _joined(
        self, node: Tree, left: Scope, left_conditions: list[Any], right: Scope, right_conditions: list[Any]
    ) -> tuple[Scope, list[Tree]]:
        if joins.has_rule(node):
            return joins.joined(self, *self._timed(node, [(left, left_conditions), (right, right_conditions)])), []
        natural = joins.common(left, right) if node["ref_type"] == "NATURAL" else []
        both = Scope(self.refuse, [*left.items, *right.items], {**right.merged, **left.merged})
        conditions = [*left_conditions, *right_conditions]
        for name in node.get("using_columns") or natural:
            reference = {"class": "COLUMN_REF", "column_names": [name], "query_location": node["query_location"]}
            pair = [side.resolve(reference) for side in (left, right)]
            self.note(both, pair)
            conditions.append(self.duck.expression(" = ".join(map(self.duck.print, pair))))
            both.merged[name.lower()] = (pair[0]["column_names"][0], pair[0]["column_names"][-1])
        if node.get("condition"):
            if subqueries.has_subquery(node["condition"]):
                if not subqueries.has_only_clocks(node["condition"], self.relations):
                    raise subqueries.NO_RULE
                rows = subqueries.Rows(self, {}, both, conditions)
                rows.filter(node["condition"])
                return rows.scope, rows.conditions
            condition = both.resolve(node["condition"])
            self.note(both, [condition])
            conditions.append(condition)
        return both, conditions

    def _timed(self, node: Tree, sides: list[joins.Rows]) -> tuple[Tree, joins.Sides]:
        """A join whose condition asks for the time of rows that only have to match: these are left out before it."""
        place = {"LEFT": 1, "SEMI": 1, "ANTI": 1, "RIGHT": 0}.get(node["join_type"], -1)
        rest = []
        for part in joins.conjuncts(node["condition"]) if node.get("condition") else []:
            timed = subqueries.has_subquery(part) and subqueries.has_only_clocks(part, self.relations)
            if not timed or place < 0 or node["ref_type"] == "ASOF":
                rest.append(part)
                continue
            rows = subqueries.Rows(self, {}, *sides[place])
            try:
                rows.filter(part)
            except NoRule:  # it reads the other side
                rest.append(part)
                continue
            sides[place] = (rows.scope, rows.conditions)
        return {**node, "condition": joins.conjunction(rest)}, (sides[0], sides[1])

    def _relation(self, node: Tree, ctes: Ctes) -> Scope:
        if node["type"] == "SUBQUERY":
            try:
                if timewindows.MARK in node:
                    rows = timewindows.lowered(self, node, ctes)
                else:
                    rows = self.query(node["subquery"]["node"], ctes)
            except SqlError as error:  # it may mean a column of the items before it
                raise NoRule("lateral join", "LATERAL") from error
            return self._nested(rows, node, node["alias"] or self.alias(), [])
        if node["type"] != "BASE_TABLE":
            return self._rowless(node, ctes)
        path: list[str] = node["qualified_name"]["path"]
        alias = node["alias"] or path[-1]
        cte = ctes.get(path[0].lower()) if len(path) == 1 else None
        if cte is not None:
            return self._nested(self.query(cte.query, cte.visible), node, alias, cte.aliases)
        relation = self.relations.resolve(path)
        columns = {name.lower(): name for name, _ in relation.columns}
        qualifier = (alias,) if node["alias"] else tuple(relation.name.split("."))
        if isinstance(relation, Table):
            self.declare(relation.base)
            plan: Node = Leaf(relation.base)
        else:
            plan = relation.root
            self.read_view(relation)
            qualifier = qualifier if node["alias"] else ("views", relation.name)
        columns = _shown(columns, node.get("column_name_alias") or [])
        return Scope(self.refuse, [Visible(alias, tuple(part.lower() for part in qualifier), columns, plan)])

    def _rowless(self, node: Tree, ctes: Ctes) -> Scope:
        """VALUES or a table function: a query of its own, unless it reads the items before it."""
        shell: Tree = self.duck.parse("SELECT * FROM t", lambda _: (0, 0))
        try:
            plan = whole(self, {**shell, "from_table": {**node, "sample": None}}, ctes, NoRule("values", "CONSTANT"))
        except SqlError as error:
            raise NoRule("lateral join", "LATERAL") from error
        return self._nested(plan, {**node, "column_name_alias": []}, node["alias"] or self.alias(), [])

    def read_view(self, view: ViewPlan) -> None:
        """What an earlier view is made of is read by this definition, too."""
        for source in sources(view.root):
            self.declare(source)
        for base, names in view.used:
            self.used[base] |= names

    def declare(self, source: Source) -> None:
        """Make a stored relation known to the type checker."""
        if isinstance(source, Base):
            self.duck.create_table(source.table, [*self.relations.table(source).columns, (WEIGHT, "BIGINT")])
            self.used.setdefault(source, set())
        else:
            self.duck.create_table(source.table, [*source.columns(), (WEIGHT, "BIGINT")])

    def _nested(self, plan: Node, node: Tree, alias: str, aliases: list[str]) -> Scope:
        columns = _shown({name.lower(): name for name in column_names(plan)}, aliases)
        columns = _shown(columns, node.get("column_name_alias") or [])
        return Scope(self.refuse, [Visible(alias, (alias.lower(),), columns, plan)])


def _shown(columns: dict[str, str], aliases: list[str]) -> dict[str, str]:
    """Columns under the names that an alias list gives to the first of them."""
    shown = [alias.lower() for alias in aliases] + list(columns)[len(aliases) :]
    return dict(zip(shown, columns.values(), strict=True))


def _position(expression: Tree, length: int) -> int:
    """The place in the select list that an integer constant in GROUP BY stands for; 0 for other expressions."""
    literal = expression.get("literal") or {}
    if expression.get("class") != "CONSTANT" or literal.get("kind") != "INTEGER":
        return 0
    place = int(literal["text"])
    if not 1 <= place <= length:
        raise SqlSyntax(f"GROUP BY {place}: the select list has {length} columns", todo="Name the column.")
    return place


def _star(star: Tree, scope: Scope) -> list[Tree]:
    wanted = str(star.get("relation_name") or "").lower()
    if wanted and not any(item.answers([wanted]) for item in scope.items):
        raise NoRule("columns", "COLUMNS")  # of a struct
    skip = {str(name).lower() for name in star.get("exclude_list") or ()}
    skip |= {entry["column"].lower() for entry in star.get("qualified_exclude_list") or ()}
    replace = {entry["key"].lower(): entry["value"] for entry in star.get("replace_list") or ()}
    found, seen = [], set[str]()
    for item in scope.items:
        if wanted and not item.answers([wanted]):
            continue
        for name in item.columns:
            merged = not wanted and name in scope.merged
            if name in skip or (merged and name in seen):
                continue
            seen.add(name)
            names = [name] if merged else [item.qualifier[-1], name]
            reference = {"class": "COLUMN_REF", "type": "COLUMN_REF", "column_names": names}
            expression = replace.get(name, {**reference, "query_location": star["query_location"]})
            found.append({**expression, "alias": item.columns[name] if item.columns[name].lower() == name else name})
    return found


def _is_scalar(node: Tree) -> bool:
    return node.get("subquery_type") == "SCALAR"
