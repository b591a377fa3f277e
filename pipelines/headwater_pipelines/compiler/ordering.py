"""Orders that leave a choice are made total, so that a definition has one answer.

    list(x), string_agg(x, ','), first(x), any_value(x), mode(x)     list(x ORDER BY x)
    arg_max(a, b): which of those with the greatest b                arg_max(a, b ORDER BY a)
    row_number() OVER (ORDER BY day), lag, ntile, ROWS frames        the key, or all columns that are read, behind
    last_value(x) OVER (ORDER BY day): of the peers                  last_value(x ORDER BY day, x) OVER (ORDER BY day)
    LIMIT, DISTINCT ON                                               the key, or the select list, behind their ORDER BY
    ASOF JOIN t ON ... AND a.at >= t.at: of those with equal t.at    the first of each, DISTINCT ON all that is compared

Rows of a table have no order, so DuckDB's own answer to these depends on how it happens to read them. What is written
behind an order chooses among the answers that it allows, and never changes what it says. ``CompiledView.query`` has it,
and ``explain`` says so. Where a choice cannot be made that way the definition is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import duckdb

from headwater.errors import HeadwaterError
from headwater.lake.history import VALID_FROM
from headwater.types import quote
from headwater_pipelines.compiler.joins import conjuncts
from headwater_pipelines.compiler.relations import Table
from headwater_pipelines.compiler.shape import internal
from headwater_pipelines.compiler.syntax import Duck, Tree, is_column, rewrite, walk_own
from headwater_pipelines.compiler.totals import ORDERED, Ordered, by, is_cut, orders_of, place_of, places, ties

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering


def ordered(tree: Tree, lowering: Lowering) -> tuple[Tree, tuple[str, ...]]:
    """The definition with total orders, and what was written anew in it; the same tree where nothing was."""
    found = Orders(lowering, tree)
    changed = found.node(tree, [])
    return (changed, tuple(dict.fromkeys(found.notes))) if found.notes else (tree, ())


class Orders:
    """One definition being gone through, inside out."""

    def __init__(self, lowering: Lowering, tree: Tree) -> None:
        self.lowering = lowering
        self.duck: Duck = lowering.duck
        self.tree = tree
        self.notes: list[str] = []

    def node(self, node: Any, ctes: list[Tree]) -> Any:
        """``ctes``: the WITH entries that can be read here."""
        if isinstance(node, list):
            return [self.node(each, ctes) for each in node]
        if not isinstance(node, dict):
            return node
        entries: list[Tree] = []
        for entry in (node.get("cte_map") or {}).get("map") or ():
            entries.append({**entry, "value": self.node(entry["value"], [*ctes, *entries])})
        visible = [*ctes, *entries]
        made = {key: self.node(value, visible) for key, value in node.items() if key != "cte_map"}
        if "cte_map" in node:
            made["cte_map"] = {**node["cte_map"], "map": entries}
        match node.get("type"):
            case "SELECT_NODE":
                return Ordered(self, made, visible).ordered()
            case "SET_OPERATION_NODE" if is_cut(made):
                orders, first = orders_of(made), made["children"][0]
                more = places(orders, self.width(first, visible), first.get("select_list") or [])
                return self.cut(made, orders, more)
            case "JOIN" if made["ref_type"] == "ASOF":
                return self._asof(made, visible)
            case "PIVOT":
                made["aggregates"] = [self.calls(each) for each in made["aggregates"]]
        return made

    def width(self, node: Tree, ctes: list[Tree]) -> int:
        """How many columns a query has."""
        while node["type"] != "SELECT_NODE":
            node = node["children"][0]
        listed = node["select_list"]
        if not any(part.get("class") in ("STAR", "FUNCTION") for each in listed for part in walk_own(each)):
            return len(listed)
        return len(self.describe({**node, "where_clause": None, "modifiers": []}, ctes) or listed)

    def describe(self, node: Tree, ctes: list[Tree]) -> list[str]:
        """The names of a query's columns; none when it cannot be bound by itself."""
        own = node["cte_map"]["map"] if node.get("cte_map") else []
        seen = [entry for entry in ctes if entry not in own]
        try:
            text = self.duck.print_query(internal({**node, "cte_map": {"map": [*seen, *own]}}, self.lowering))
            return [name for name, _ in self.duck.describe(text)]
        except (duckdb.Error, HeadwaterError):
            return []

    def cut(self, node: Tree, orders: list[Tree], more: list[Tree]) -> Tree:
        """A LIMIT or DISTINCT ON with these expressions behind its order."""
        if not more or any(each["expression"].get("class") == "STAR" for each in orders):
            return node
        parts = [part for part in node["modifiers"] if part["type"] != "ORDER_MODIFIER"]
        made = [*orders, *map(by, more)]
        place = sum(part["type"] == "DISTINCT_MODIFIER" for part in parts)
        shown = ", ".join(self._shown(each, node) for each in made)
        word = "DISTINCT ON" if parts[0].get("distinct_on_targets") else "LIMIT"
        self.notes.append(f"{word} ORDER BY {shown}")
        return {**node, "modifiers": [*parts[:place], {"type": "ORDER_MODIFIER", "orders": made}, *parts[place:]]}

    def _shown(self, order: Tree, node: Tree) -> str:
        """An order in the words of the definition: what a place stands for is said."""
        expression, listed = order["expression"], node.get("select_list") or []
        words = " DESC" if order["type"] == "DESCENDING" else ""
        place = place_of(expression)
        if 0 < place <= len(listed) and not any(each.get("class") == "STAR" for each in listed):
            return str(listed[place - 1].get("alias") or self.duck.print(listed[place - 1])) + words
        return self.duck.print(expression) + words

    def key(self, table: Tree, ctes: list[Tree]) -> tuple[str, ...]:
        """The columns by which no two rows of a FROM item agree; none where that is not known."""
        if table["type"] != "BASE_TABLE" or table.get("column_name_alias"):
            return ()
        path = table["qualified_name"]["path"]
        if len(path) == 1 and any(str(entry["key"]).lower() == path[0].lower() for entry in ctes):
            return ()
        try:
            found = self.lowering.relations.resolve(path)
        except HeadwaterError:  # it is said where the relation is read
            return ()
        if not isinstance(found, Table) or found.base.kind not in ("table", "history"):
            return ()
        return (*found.schema.key, VALID_FROM) if found.base.kind == "history" else found.schema.key

    def _asof(self, node: Tree, ctes: list[Tree]) -> Tree:
        """Of rows that agree in all that is compared, an as-of join finds the one that comes first by its columns."""
        right = node["right"]
        alias = str(right.get("alias") or right.get("table_name") or "").lower()
        names = [str(name).lower() for name in node.get("using_columns") or ()]
        beside = {alias, *_aliases(node["left"])}
        for part in conjuncts(node["condition"]) if node.get("condition") else []:
            read = [
                side["column_names"] for side in (part.get("left") or {}, part.get("right") or {}) if is_column(side)
            ]
            if any(len(path) > 1 and path[0].lower() not in beside for path in read):
                continue  # a condition with what stands around a lateral join chooses among what was found
            names += [path[-1].lower() for path in read if path[0].lower() == alias]
        key = {name.lower() for name in self.key(right, ctes)}
        if not alias or not names or (key and key <= set(names)):
            return node
        chosen = ", ".join(map(quote, dict.fromkeys(names)))
        text = f"SELECT * FROM (SELECT DISTINCT ON ({chosen}) * FROM t ORDER BY {chosen}) AS {quote(alias)}"
        made: Tree = self.duck.parse(text, lambda _: (0, 0))["from_table"]
        inner = {**made["subquery"]["node"], "from_table": right}
        found = Ordered(self, inner, ctes).ordered()
        return {**node, "right": {**made, "subquery": {**made["subquery"], "node": found}}}

    # ---- aggregate functions

    def calls(
        self,
        expression: Any,
        known: Callable[[list[Tree]], bool] = lambda _: False,
        inherited: Callable[[], list[Tree]] = list,
    ) -> Any:
        """An expression with total orders in its aggregate calls.

        ``known``: whether an order is total already; ``inherited``: what rows are ordered by where nothing is said.
        """

        def change(node: Tree) -> Any:
            if node.get("class") == "SUBQUERY":
                return node
            if node.get("class") != "FUNCTION":
                return None
            name = str(node["function_name"]).lower()
            if (body := self._macro(name, node)) is not None:
                return {**self.calls(body, known, inherited), "alias": node.get("alias", "")}
            if name not in ORDERED:
                return None
            orders = (node.get("order_bys") or {}).get("orders") or inherited()
            more = [] if known([each["expression"] for each in orders]) else ties(name, node, orders)
            if not more and orders == (node.get("order_bys") or {}).get("orders"):
                return None
            made = {**node, "order_bys": {"type": "ORDER_MODIFIER", "orders": [*orders, *map(by, more)]}}
            self.notes.append(self.duck.print({**made, "alias": ""}))
            return made

        return rewrite(expression, change)

    def _macro(self, name: str, node: Tree) -> Tree | None:
        """A call of a macro over such functions, written out: a macro takes no order."""
        given = [each["expression"] for each in node.get("arguments") or ()]
        found = self.duck.macro_over(ORDERED, name, len(given))
        if found is None:
            return None
        values = dict(zip(found[0], given, strict=True))
        made: Tree = rewrite(found[1], lambda part: values.get(part["column_names"][-1]) if is_column(part) else None)
        return made


def _aliases(table: Tree) -> set[str]:
    """The names of the tables in a FROM clause."""
    if table["type"] == "JOIN":
        return _aliases(table["left"]) | _aliases(table["right"])
    return {str(table.get("alias") or table.get("table_name") or "").lower()}
