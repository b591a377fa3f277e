"""From DuckDB's syntax tree to the plan: names resolved, stars expanded, CTEs and derived tables nested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from headwater.errors import SqlError, SqlSyntax
from headwater.types import quote
from headwater_pipelines.compiler import grouping, render
from headwater_pipelines.compiler.plan import (
    WEIGHT,
    Base,
    Item,
    Leaf,
    Node,
    Select,
    Source,
    Union,
    column_names,
    sources,
)
from headwater_pipelines.compiler.refusals import Refusal
from headwater_pipelines.compiler.relations import Relations, Table
from headwater_pipelines.compiler.scope import Scope, Visible
from headwater_pipelines.compiler.syntax import Duck, Tree, is_column, message, rewrite


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
    used: dict[Base, set[str]] = field(default_factory=dict)

    def query(self, node: Tree, ctes: Ctes) -> Select | Union:
        """A SELECT or UNION ALL as a tree."""
        ctes = self._with(node, ctes)
        if node["type"] == "SET_OPERATION_NODE":
            return self._union(node, ctes)
        return self._select(node, ctes)

    def describe(self, node: Node) -> list[tuple[str, str]]:
        """Names and types of a tree's columns, from DuckDB."""
        try:
            return self.duck.describe(render.state(node))
        except duckdb.Error as error:
            raise SqlError(message(error), todo="Correct the expression.") from error

    # ---- queries

    def _with(self, node: Tree, ctes: Ctes) -> Ctes:
        found = dict(ctes)
        for entry in node["cte_map"]["map"]:
            value = entry["value"]
            found[entry["key"].lower()] = Cte(value["query_node"], value["aliases"], dict(found))
        return found

    def _union(self, node: Tree, ctes: Ctes) -> Union:
        parts = [self.query(child, ctes) for child in node["children"]]
        if node.get("setop_by_name"):
            raise self.refuse.at(
                None, "UNION BY NAME is not supported", "SET_OPERATION", "List the columns.", "BY", "NAME"
            )
        types = self.duck.describe(" UNION ALL ".join(f"({_plain(part)})" for part in parts))
        return Union(tuple(_renamed(part, types) for part in parts))

    def _select(self, node: Tree, ctes: Ctes) -> Select:
        scope, conditions = self._from(node["from_table"], ctes)
        expressions = self._expand(node["select_list"], scope)
        scope.aliases = {e["alias"].lower(): e for e in reversed(expressions) if e.get("alias")}
        names = _unique([self._name(expression) for expression in expressions])
        resolved = [scope.resolve(expression) for expression in expressions]
        if node.get("where_clause"):
            conditions.append(scope.resolve(node["where_clause"]))
        items = tuple(Item(visible.alias, visible.node) for visible in scope.items)
        where = tuple(self.duck.print(condition) for condition in conditions)
        self._note(scope, [*conditions, *resolved])
        if not grouping.is_aggregation(node, resolved, self.duck):
            return Select(items, where, tuple(zip(names, map(self.duck.print, resolved), strict=True)))
        group = self._group(node, scope, resolved)
        having = scope.resolve(node["having"]) if node.get("having") else None
        self._note(scope, [*group, having])
        plan = grouping.Grouping(self, items, where, group)
        return plan.select(names, resolved, having)

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

    def _name(self, expression: Tree) -> str:
        if expression.get("alias"):
            return str(expression["alias"])
        return str(expression["column_names"][-1]) if is_column(expression) else self.duck.print(expression)

    def _note(self, scope: Scope, expressions: list[Any]) -> None:
        """Remember which columns of stored topics these resolved expressions read."""
        bases = {v.alias: v.node.source for v in scope.items if isinstance(v.node, Leaf)}

        def visit(node: Tree) -> None:
            if is_column(node) and isinstance(base := bases.get(node["column_names"][0]), Base):
                self.used[base].add(node["column_names"][-1])

        rewrite(expressions, visit)

    # ---- FROM

    def _from(self, node: Tree, ctes: Ctes) -> tuple[Scope, list[Tree]]:
        scope, conditions = self._join(node, ctes) if node["type"] == "JOIN" else (self._relation(node, ctes), [])
        taken: set[str] = set()
        for place, item in enumerate(scope.items):
            if item.alias in taken:
                raise self.refuse.at(
                    node, f"alias {item.alias} is used twice", "DUPLICATE_ALIAS", "Name each table once."
                )
            taken.add(item.alias)
            scope.items[place] = item
        return scope, conditions

    def _join(self, node: Tree, ctes: Ctes) -> tuple[Scope, list[Tree]]:
        left, left_conditions = self._from(node["left"], ctes)
        right, right_conditions = self._from(node["right"], ctes)
        both = Scope(self.refuse, [*left.items, *right.items], {**right.merged, **left.merged})
        conditions = [*left_conditions, *right_conditions]
        for name in node.get("using_columns") or ():
            reference = {"class": "COLUMN_REF", "column_names": [name], "query_location": node["query_location"]}
            pair = [side.resolve(reference) for side in (left, right)]
            self._note(both, pair)
            conditions.append(self.duck.expression(" = ".join(map(self.duck.print, pair))))
            both.merged[name.lower()] = pair[0]["column_names"][0]
        if node.get("condition"):
            condition = both.resolve(node["condition"])
            self._note(both, [condition])
            conditions.append(condition)
        return both, conditions

    def _relation(self, node: Tree, ctes: Ctes) -> Scope:
        if node["type"] == "SUBQUERY":
            return self._nested(self.query(node["subquery"]["node"], ctes), node, node["alias"] or "subquery", [])
        path: list[str] = node["qualified_name"]["path"]
        alias = node["alias"] or path[-1]
        cte = ctes.get(path[0].lower()) if len(path) == 1 else None
        if cte is not None:
            return self._nested(self.query(cte.query, cte.visible), node, alias, cte.aliases)
        relation = self.relations.resolve(path)
        columns = {name.lower(): name for name, _ in relation.columns}
        qualifier = (alias,) if node["alias"] else tuple(relation.name.split("."))
        if isinstance(relation, Table):
            self._declare(relation.base)
            plan: Node = Leaf(relation.base)
        else:
            plan = relation.root
            for source in sources(plan):
                self._declare(source)
            for base, names in relation.used:
                self.used[base] |= names
            qualifier = qualifier if node["alias"] else ("views", relation.name)
        columns = _shown(columns, node.get("column_name_alias") or [])
        return Scope(self.refuse, [Visible(alias, tuple(part.lower() for part in qualifier), columns, plan)])

    def _declare(self, source: Source) -> None:
        """Make a stored relation known to the type checker."""
        if isinstance(source, Base):
            weight = [(WEIGHT, "BIGINT")] if source.weighted else []
            self.duck.create_table(source.table, [*self.relations.table(source).columns, *weight])
            self.used.setdefault(source, set())
        else:
            self.duck.create_table(source.table, list(source.columns()))

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
    skip = {str(name).lower() for name in star.get("exclude_list") or ()}
    skip |= {entry["column"].lower() for entry in star.get("qualified_exclude_list") or ()}
    replace = {entry["key"].lower(): entry["value"] for entry in star.get("replace_list") or ()}
    found = []
    for item in scope.items:
        if wanted and not item.answers([wanted]):
            continue
        for name in item.columns:
            hidden = not wanted and scope.merged.get(name, item.alias) != item.alias
            if name in skip or hidden:
                continue
            reference = {"class": "COLUMN_REF", "type": "COLUMN_REF", "column_names": [item.qualifier[-1], name]}
            expression = replace.get(name, {**reference, "query_location": star["query_location"]})
            found.append({**expression, "alias": item.columns[name] if item.columns[name].lower() == name else name})
    return found


def _unique(names: list[str]) -> list[str]:
    """Names made unique for nested use: the second ``id`` is ``id_1``, as DuckDB shows it."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        count = seen.get(name.lower(), 0)
        seen[name.lower()] = count + 1
        found.append(f"{name}_{count}" if count else name)
    return found


def _plain(node: Node) -> str:
    """A tree's rows without weights, for typing."""
    names = ", ".join(quote(name) for name in column_names(node))
    return f"SELECT {names} FROM ({render.state(node)})"


def _renamed(part: Select | Union, types: list[tuple[str, str]]) -> Select:
    """A branch of a union with the union's column names and types."""
    columns = tuple(
        (name, f"CAST({quote('u')}.{quote(own)} AS {text})")
        for own, (name, text) in zip(column_names(part), types, strict=True)
    )
    return Select((Item("u", part),), (), columns)
