"""From DuckDB's syntax tree to the plan: names resolved, stars expanded, CTEs and derived tables nested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from headwater.errors import SqlError, SqlSyntax, UnknownColumn
from headwater_pipelines.compiler import (
    forms,
    grouping,
    joins,
    modifiers,
    ranked,
    render,
    sets,
    stars,
    subqueries,
    tables,
    unnesting,
)
from headwater_pipelines.compiler import windows as windowing
from headwater_pipelines.compiler.clock import VALUE, clock_of, has_only_clocks
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
    sources,
)
from headwater_pipelines.compiler.refusals import Refusal, has_unnest, require_rule
from headwater_pipelines.compiler.relations import Relations, ViewPlan
from headwater_pipelines.compiler.scope import Scope
from headwater_pipelines.compiler.syntax import (
    Duck,
    Tree,
    column,
    is_column,
    message,
    rewrite,
    rewrite_free,
    walk,
    walk_own,
)
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
    names: Counter[str] | None
    """Every name in the definition that could be a column's, and how often it is there; None: any."""
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
            self.names.update(list(names))

    def alias(self) -> str:
        """A name for a FROM item that the definition does not have."""
        self._aliases += 1
        return f"hw_{self._aliases}"

    # ---- queries

    def _query(self, node: Tree, ctes: Ctes) -> Select | Union:
        ctes = self._with(node, ctes)
        if node["type"] == "SET_OPERATION_NODE":
            return modifiers.of_rows(self, node, sets.combined(self, node, ctes))
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
        node = self._keys_first(self._with_row(node))
        require_rule(node)
        node, ctes = ranked.qualified(self, node, ctes)
        rows = subqueries.Rows(self, ctes, *self.from_clause(node["from_table"], ctes))
        expressions, grouped = self._listed(node["select_list"], rows.scope), node.get("group_expressions") or ()
        names = unique([self.name(expression) for expression in expressions])
        rows.scope.aliases = {e["alias"].lower(): e for e in reversed(expressions) if e.get("alias")}
        rows.filter(self._conjoined(node.get("where_clause"), rows.scope))
        having, qualify, constants = node.get("having"), node.get("qualify"), dict[str, Item]()
        if any(map(forms.has_subquery, (*expressions, *grouped, having, qualify))):
            beside: Callable[[Any], Any] = rows.scalars
            if self._groups(node, expressions):
                beside = self._keyed(node, expressions, rows, self._beside(rows, constants))
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

    def _keyed(
        self, node: Tree, expressions: list[Tree], rows: subqueries.Rows, beside: Callable[[Any], Any]
    ) -> Callable[[Any], Any]:
        """The same, but for what the rows are grouped by: its subqueries stand beside the rows."""
        known: dict[str, Any] = {}
        for key in self._key_list(node, expressions):
            text = self.duck.print({**key, "alias": ""})
            if forms.has_subquery(key) and text not in known:
                try:
                    known[text] = beside(key)
                except NoRule:
                    known[text] = rows.scalars(key)

        def change(expression: Any) -> Any:
            if not known or not expression or not forms.has_subquery(expression):
                return beside(expression)
            return known.get(self.duck.print({**expression, "alias": ""})) or beside(expression)

        return change

    def _key_list(self, node: Tree, expressions: list[Tree]) -> list[Tree]:
        """The grouping expressions as they are written, or where the select list has them."""
        if node.get("aggregate_handling") == "FORCE_AGGREGATES":
            return [each for each in expressions if not self._is_made(each)]
        named = {each["alias"].lower(): each for each in reversed(expressions) if each.get("alias")}
        found = []
        for each in node.get("group_expressions") or ():
            position = _position(each, len(expressions))
            name = each["column_names"][-1].lower() if is_column(each) else ""
            found.append(expressions[position - 1] if position else named.get(name, each))
        return found

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
        if has_unnest([*resolved, qualify]) and windows and aggregates:
            raise NoRule("unnest", "UNNEST")
        if not aggregates:
            if windows:
                return windowing.windowed(self, items, where, names, resolved, qualify)
            made = Select(items, where, tuple(zip(names, map(self.duck.print, resolved), strict=True)))
            if has_unnest(resolved) and [name for name, _ in self.describe(made) if name != WEIGHT] != names:
                raise NoRule("unnest", "UNNEST")  # a struct becomes several columns
            return made
        group = self._group(node, rows.scope, resolved)
        self.note(rows.scope, list(group))
        read = {part["column_names"][0] for each in group for part in walk(each) if is_column(part)}
        known = {item.alias for item in items}
        items += tuple(item for alias, item in constants.items() if alias in read - known)
        if has_unnest(group):
            items, where, (*group, having), resolved = unnesting.below_groups(
                self, items, where, [*group, having], resolved
            )
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
            plain = [part for part in select if not windowing.has_windows([part])]
            return [part for part in plain if not grouping.aggregates_in(part, self.duck)]
        found = []
        for expression in node.get("group_expressions") or ():
            position = _position(expression, len(select))
            found.append(select[position - 1] if position else scope.resolve(expression))
        return found

    def _with_row(self, node: Tree) -> Tree:
        """A SELECT of nothing but subqueries has one row, which they stand beside."""
        if node["from_table"]["type"] != "EMPTY" or not forms.has_subquery(node["select_list"]):
            return node
        if has_only_clocks(node["select_list"], self.relations):
            return node
        shell: Tree = self.duck.parse("SELECT 1 FROM (SELECT 1 AS hw_one) AS hw_row", lambda _: (0, 0))
        return {**node, "from_table": shell["from_table"]}

    def _keys_first(self, node: Tree) -> Tree:
        """Conditions of HAVING with subqueries over nothing but the groups' keys say the same in WHERE."""
        having = node.get("having")
        one = node.get("group_expressions") and len(node.get("group_sets") or ()) < 2
        if not having or not one or not forms.has_subquery(having):
            return node
        made = [each for each in node["select_list"] if each.get("alias") and self._is_made(each)]
        names = {str(each["alias"]).lower() for each in made}

        def is_of_keys(part: Tree) -> bool:
            read = {inner["column_names"][0].lower() for inner in walk_own(part) if is_column(inner)}
            return forms.has_subquery(part) and not self._is_made(part) and not read & names

        parts = joins.conjuncts(having)
        moved = [part for part in parts if is_of_keys(part)]
        where = [*(joins.conjuncts(node["where_clause"]) if node.get("where_clause") else []), *moved]
        kept = [part for part in parts if part not in moved]
        return {**node, "where_clause": joins.conjunction(where), "having": joins.conjunction(kept)}

    def _is_made(self, expression: Tree) -> bool:
        """Whether an expression has a value of many rows in it."""
        return bool(grouping.aggregates_in(expression, self.duck)) or windowing.has_windows([expression])

    def _listed(self, expressions: list[Tree], scope: Scope) -> list[Tree]:
        """A select list in which every expression is one column."""
        listed = stars.expanded(self, expressions, scope)
        return [part for each in listed for part in unnesting.fields(self, each, scope)]

    def _conjoined(self, where: Any, scope: Scope) -> Any:
        """A condition over COLUMNS(...) holds when it does for each of them."""
        parts = joins.conjuncts(where) if where and stars.has_star(where) else []
        found = [each for part in parts for each in stars.expanded(self, [part], scope)]
        return joins.conjunction([{**each, "alias": ""} for each in found]) if found else where

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
        """What a FROM clause shows, and the conditions on its rows."""
        return tables.joined(self, node, ctes)

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


def _position(expression: Tree, length: int) -> int:
    """The place in the select list that an integer constant in GROUP BY stands for; 0 for other expressions."""
    literal = expression.get("literal") or {}
    if expression.get("class") != "CONSTANT" or literal.get("kind") != "INTEGER":
        return 0
    place = int(literal["text"])
    if not 1 <= place <= length:
        raise SqlSyntax(f"GROUP BY {place}: the select list has {length} columns", todo="Name the column.")
    return place


def _is_scalar(node: Tree) -> bool:
    return node.get("subquery_type") == "SCALAR"
