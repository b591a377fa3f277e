"""One SELECT whose orders are made total: what makes its rows differ, and where its answer depends on their order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater_pipelines.compiler import grouping
from headwater_pipelines.compiler.shape import shape_of
from headwater_pipelines.compiler.syntax import (
    NOWHERE,
    Tree,
    bare,
    column,
    is_column,
    renamed_as,
    rewrite,
    rewrite_free,
    walk,
    walk_own,
)

if TYPE_CHECKING:
    from headwater_pipelines.compiler.ordering import Orders

EXTREMES = frozenset({"arg_max", "arg_max_null", "arg_max_nulls_last", "argmax", "max_by",
                      "arg_min", "arg_min_null", "arg_min_nulls_last", "argmin", "min_by"})  # fmt: skip
ORDERED = EXTREMES | {"any_value", "arbitrary", "array_agg", "list", "first", "last", "mode", "lttb", "string_agg",
                      "group_concat", "listagg", "variant_group_object"}  # fmt: skip
"""Aggregate functions whose value depends on the order of rows, at least among equal ones."""
_POSITIONS = frozenset({"row_number", "ntile", "lag", "lead", "fill"})
"""Window functions of a row's place in its partition."""
_VALUES = frozenset({"first_value", "last_value", "nth_value"})
_EXPRESSIONS = ("select_list", "having", "qualify", "modifiers")


class Ordered:
    """One SELECT whose subqueries have been gone through."""

    def __init__(self, orders: Orders, node: Tree, ctes: list[Tree]) -> None:
        self.orders, self.node, self.ctes = orders, node, ctes
        self.duck = orders.duck
        self.hidden: list[Tree] = []
        """Columns that the subquery in FROM has to show for its order to be known outside."""
        self.known: list[Tree] | None = None
        """The order of the rows of FROM, once it has been asked for."""
        self.key = self._key()
        self.grouped = grouping.is_aggregation(node, [*node["select_list"], node.get("qualify")], self.duck)
        self.groups = self._groups() if self.grouped else []

    def ordered(self) -> Tree:
        before = self.node["select_list"]
        known = (self._is_total, self._inherited)
        made = {part: self._windows(self.orders.calls(self.node.get(part), *known)) for part in _EXPRESSIONS}
        pairs = zip(before, made["select_list"], strict=True)
        made["select_list"] = [renamed_as(old, new, self.duck) for old, new in pairs]
        node = self._shown({**self.node, **made})
        if not is_cut(node) and not has_on(node):
            return node
        orders = orders_of(node) or ([] if self.grouped else self._inherited())
        if self._tells_apart([self._meant(each["expression"]) for each in orders]):
            return node
        if self.key and not self.grouped and not _is_distinct(node):
            more = self._missing(self.key, [each["expression"] for each in orders])
        else:
            more = places(orders, self.orders.width(node, self.ctes), before)
        return self.orders.cut(self._shown(node), orders, more)

    def _shown(self, node: Tree) -> Tree:
        """With the hidden columns in its subquery."""
        if not self.hidden:
            return node
        table = node["from_table"]
        inner = table["subquery"]["node"]
        inner = {**inner, "select_list": [*inner["select_list"], *self.hidden]}
        self.hidden = []
        return {**node, "from_table": {**table, "subquery": {**table["subquery"], "node": inner}}}

    # ---- the order of rows that a subquery gives

    def _inherited(self) -> list[Tree]:
        """The ORDER BY of the only subquery, or CTE, in FROM, over its columns."""
        if self.known is None:
            self.known = self._outside()
        return self.known

    def _outside(self) -> list[Tree]:
        query = self._only()
        orders = orders_of(query) if query else []
        found = []
        for each in orders:
            own = each["expression"]
            name = _output(own, query.get("select_list") or []) or self._beside(query, own)
            if not name:
                what = "the order of a subquery's rows is not kept, and something here depends on it"
                todo = "Write ORDER BY where it matters: list(x ORDER BY y), OVER (ORDER BY y)."
                raise self.orders.lowering.refuse.at(own, what, "ORDER_NOT_TOTAL", todo)
            found.append({**each, "expression": _named([name])})
        return found

    def _beside(self, query: Tree, expression: Tree) -> str:
        """The name of one more column of a plain subquery; empty where another column would be seen or change it."""
        simple = query["type"] == "SELECT_NODE" and len(query["modifiers"]) == 1 and not query.get("having")
        stars = any(each.get("class") == "STAR" for part in _EXPRESSIONS for each in walk(self.node.get(part)))
        grouped = simple and grouping.is_aggregation(query, query["select_list"], self.duck)
        if self.node["from_table"]["type"] != "SUBQUERY" or not simple or stars or grouped:
            return ""
        self.hidden.append({**expression, "alias": f"hw_by_{len(self.hidden)}"})
        return str(self.hidden[-1]["alias"])

    def _only(self) -> Tree:
        table = self.node["from_table"]
        if table["type"] == "SUBQUERY":
            found: Tree = table["subquery"]["node"]
            return {} if table.get("column_name_alias") else found
        path = table["qualified_name"]["path"] if table["type"] == "BASE_TABLE" else []
        named = [entry for entry in self.ctes if len(path) == 1 and str(entry["key"]).lower() == path[0].lower()]
        return named[-1]["value"]["query_node"] if named and not named[-1]["value"]["aliases"] else {}

    # ---- what makes rows differ

    def _key(self) -> list[Tree]:
        """The primary key, where FROM is a table that has one."""
        table = self.node["from_table"]
        names = self.orders.key(table, self.ctes)
        return [_named([*([table["alias"]] if table["alias"] else []), name]) for name in names]

    def _groups(self) -> list[Tree]:
        """The grouping expressions, places and aliases replaced by what they stand for."""
        listed = self.node["select_list"]
        if self.node.get("aggregate_handling") == "FORCE_AGGREGATES":
            return [each for each in listed if not self._computed(each)]
        return [self._meant(each) for each in self.node.get("group_expressions") or ()]

    def _computed(self, expression: Tree) -> bool:
        windows = any(part.get("class") == "WINDOW" for part in walk_own(expression))
        return windows or bool(grouping.aggregates_in(expression, self.duck))

    def _meant(self, expression: Tree) -> Tree:
        """What a place, or a name that no table need have, stands for in the select list."""
        listed = self.node["select_list"]
        if _is_place(expression):
            place = int(expression["literal"]["text"])
            return listed[place - 1] if 0 < place <= len(listed) else expression
        if is_column(expression) and len(expression["column_names"]) == 1:
            name = expression["column_names"][0].lower()
            return next((each for each in listed if str(each.get("alias", "")).lower() == name), expression)
        return expression

    def _is_total(self, expressions: Sequence[Tree]) -> bool:
        """Whether no two rows of FROM (where they are grouped, of one group) agree in all of these."""
        one = len(self.node.get("group_sets") or ()) < 2
        return bool(self.key) and not self._missing(self.key, [*expressions, *(self.groups if one else ())])

    def _tells_apart(self, expressions: Sequence[Tree]) -> bool:
        """Whether no two rows of the result agree in all of these."""
        if self.grouped:
            return not self._missing(self.groups, expressions) and len(self.node.get("group_sets") or ()) < 2
        return self._is_total(expressions)

    def _missing(self, wanted: Sequence[Tree], among: Sequence[Tree]) -> list[Tree]:
        there = [self._own(each) for each in among]
        return [each for each in wanted if self._own(each) not in there]

    def _own(self, expression: Tree) -> Any:
        """An expression for comparing; of a column of the only table, without the table's name."""
        own = plain(expression)
        table = self.node["from_table"]
        if table["type"] == "BASE_TABLE" and is_column(expression) and len(expression["column_names"]) > 1:
            alias = str(table["alias"] or table["qualified_name"]["path"][-1]).lower()
            names = own["column_names"]
            return {"column_names": names[1:] if names[0] == alias else names}
        return own

    # ---- windows

    def _windows(self, expression: Any) -> Any:
        def change(node: Tree) -> Any:
            if node.get("class") == "SUBQUERY":
                return node
            return self._window(node) if node.get("class") == "WINDOW" else None

        return rewrite(expression, change)

    def _window(self, node: Tree) -> Tree | None:
        name = str(node["function_name"]).lower()
        rows = any(str(node[side]).endswith("_ROWS") for side in ("start", "end"))
        if not node["orders"] and not node.get("arg_orders") and (rows or name in _POSITIONS | _VALUES | ORDERED):
            node = {**node, "orders": self._inherited()}
        made, given = dict(node), node.get("arg_orders") or []
        if given and name in _POSITIONS | _VALUES | ORDERED:
            more = self._beyond(node, given) if name in _POSITIONS else ties(name, node, given)
            made["arg_orders"] = [*given, *map(by, more)]
        elif name in _VALUES | ORDERED and not rows and self._beyond(node, node["orders"]):
            more = ties(name, node, node["orders"])
            made["arg_orders"] = [*node["orders"], *map(by, more)] if more else []
        if rows or (name in _POSITIONS and not given):
            made["orders"] = [*node["orders"], *map(by, self._beyond(node, node["orders"]))]
        if made == node:
            return None
        if made["orders"] != node["orders"] and (name == "fill" or node.get("exclude_clause") in ("TIES", "GROUP")):
            what = "rows that are equal in its order have no order among them, and it depends on one"
            todo = "Order by something that no two rows have in common, such as the key."
            raise self.orders.lowering.refuse.at(node, what, "ORDER_NOT_TOTAL", todo)
        self.orders.notes.append(self.duck.print({**made, "alias": ""}))
        return made

    def _beyond(self, window: Tree, orders: list[Tree]) -> list[Tree]:
        """What has to be written behind an order for it to be total within a partition."""
        there = [*window["partitions"], *(each["expression"] for each in orders)]
        if self.grouped:
            several = len(self.node.get("group_sets") or ()) > 1
            listed = [*self.node["select_list"], self.node.get("qualify")]
            calls = [call for each in listed for call in grouping.aggregates_in(each, self.duck)] if several else []
            return self._missing([*self.groups, *calls], there)
        return self._missing(self.key or self._read(), there)

    def _read(self) -> list[Tree]:
        """The columns of FROM that the SELECT reads, each once."""
        parts = [self.node.get(part) for part in _EXPRESSIONS]
        inside = [part for each in parts for part in walk(each)]
        if any(part.get("class") in ("STAR", "SUBQUERY") for part in inside):
            return self._all()
        found: dict[str, Tree] = {}
        aliases = {str(each.get("alias")).lower() for each in self.node["select_list"] if each.get("alias")}

        def visit(part: Tree) -> None:
            if is_column(part):
                names = part["column_names"]
                if len(names) > 1 or names[0].lower() not in aliases or names[0].lower() in self._names():
                    found.setdefault(json.dumps(plain(part)), {**part, "alias": ""})

        rewrite_free(parts, visit)
        return list(found.values())

    def _names(self) -> set[str]:
        star = self.duck.expression("*")
        return {name.lower() for name in self.orders.describe(self._shell([star]), self.ctes)}

    def _all(self) -> list[Tree]:
        """Every column of FROM."""
        found: list[Tree] = []
        for name in _items(self.node["from_table"]):
            star = self.duck.parse(f'SELECT "{name}".* FROM t' if name else "SELECT * FROM t", lambda _: (0, 0))
            shown = self.orders.describe(self._shell(star["select_list"]), self.ctes)
            found += [_named([name, each] if name else [each]) for each in shown]
        if not found:
            shape_of(self.orders.tree, self.orders.lowering)
            what, todo = "the order of these rows cannot be made total", "Name the columns instead of *."
            raise self.orders.lowering.refuse.at(self.node, what, "ORDER_NOT_TOTAL", todo)
        return found

    def _shell(self, select_list: list[Tree]) -> Tree:
        shell: Tree = self.duck.parse("SELECT 1 FROM t", lambda _: (0, 0))
        return {**shell, "select_list": select_list, "from_table": self.node["from_table"]}


def ties(name: str, call: Tree, orders: list[Tree]) -> list[Tree]:
    """The arguments of a call that tell rows apart which agree in its order."""
    given = [each["expression"] for each in call.get("arguments") or ()]
    there = [plain(each["expression"]) for each in orders]
    wanted = given[:1] if name in EXTREMES else given
    reads = [each for each in wanted if any(_is_read(part) for part in walk(each))]
    return [{**each, "alias": ""} for each in reads if plain(each) not in there]


def _is_read(part: Tree) -> bool:
    return is_column(part) or part.get("class") == "POSITIONAL_REFERENCE"


def places(orders: list[Tree], width: int, listed: list[Tree]) -> list[Tree]:
    """The columns of the select list, as places, that an order does not name."""
    there = [plain(each["expression"]) for each in orders]
    names = [tree["column_names"][0] for tree in there if len(tree.get("column_names", ())) == 1]
    missing = []
    for place in range(1, width + 1):
        shown = listed[place - 1] if len(listed) == width else {}
        name = shown.get("alias") or (shown.get("column_names") or [""])[-1]
        said = str(name).lower() in names or (bool(shown) and plain(shown) in there)
        if not said and not any(place_of(each["expression"]) == place for each in orders):
            missing.append(_constant(place))
    return missing


def orders_of(node: Tree) -> list[Tree]:
    parts = [part for part in node.get("modifiers") or () if part["type"] == "ORDER_MODIFIER"]
    return list(parts[0]["orders"]) if parts else []


def is_cut(node: Tree) -> bool:
    return any(str(part["type"]).startswith("LIMIT") for part in node.get("modifiers") or ())


def _is_distinct(node: Tree) -> bool:
    parts = [part for part in node.get("modifiers") or () if part["type"] == "DISTINCT_MODIFIER"]
    return any(not part.get("distinct_on_targets") for part in parts)


def has_on(node: Tree) -> bool:
    return any(part.get("distinct_on_targets") for part in node.get("modifiers") or ())


def _items(table: Tree) -> list[str]:
    """The names of what FROM joins."""
    if table["type"] == "JOIN":
        return [*_items(table["left"]), *_items(table["right"])]
    own = table.get("table_name") or (table.get("function") or {}).get("function_name") or ""
    return [str(table.get("alias") or own)]


def _output(expression: Tree, listed: list[Tree]) -> str:
    """The name that an ORDER BY expression has in the select list beside it; empty when it is not in there."""
    place = place_of(expression)
    if 0 < place <= len(listed):
        return str(listed[place - 1].get("alias") or (listed[place - 1].get("column_names") or [""])[-1])
    name = str(expression["column_names"][-1]) if is_column(expression) else ""
    for each in listed:
        own = str(each.get("alias") or (each.get("column_names") or [""])[-1])
        if (name and own.lower() == name.lower()) or plain(each) == plain(expression):
            return own
        if each.get("class") == "STAR" and name:
            return name
    return ""


def place_of(expression: Tree) -> int:
    return int(expression["literal"]["text"]) if _is_place(expression) else 0


def _is_place(expression: Tree) -> bool:
    return expression.get("class") == "CONSTANT" and (expression.get("literal") or {}).get("kind") == "INTEGER"


def plain(expression: Tree) -> Any:
    """An expression for comparing: names compare without case."""
    if is_column(expression):
        return {"column_names": [str(name).lower() for name in expression["column_names"]]}
    return bare(expression)


def _named(names: list[str]) -> Tree:
    return {**column("", ""), "column_names": names}


def _constant(value: int) -> Tree:
    place = {"alias": "", "query_location": NOWHERE, "query_location_length": 0}
    return {"class": "CONSTANT", "type": "VALUE_CONSTANT", **place, "literal": {"kind": "INTEGER", "text": str(value)}}


def by(expression: Tree) -> Tree:
    return {"type": "ORDER_DEFAULT", "null_order": "ORDER_DEFAULT", "expression": {**expression, "alias": ""}}
