"""Subqueries in expressions, as joins.

    WHERE EXISTS (... r = outer), x IN (...)    semi join         NOT EXISTS    anti join
    x NOT IN (...)                              anti join, and the number of rows and of NULLs beside it
    (SELECT max(y) FROM t)                      a row beside every row: one that is always there
    (SELECT max(y) FROM t WHERE t.k = outer)    left join with the aggregate grouped by k

What has another form has no rule, and the query around it is computed as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.errors import SqlError
from headwater.types import quote
from headwater_pipelines.compiler import forms, grouping, joins, modifiers, sets, unnesting
from headwater_pipelines.compiler.clock import VALUE, clock_of
from headwater_pipelines.compiler.plan import Clock, Item, Leaf, Select, column_names
from headwater_pipelines.compiler.scope import Scope, Visible
from headwater_pipelines.compiler.syntax import Tree, column, is_column, rewrite, walk
from headwater_pipelines.compiler.whole import NESTED, NoRule

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Cte, Lowering

NO_RULE = NoRule("subquery", "SUBQUERY")
_SIGNS = {
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_NOTEQUAL": "<>",
}


@dataclass
class Rows:
    """The rows of a FROM clause so far: ``conditions`` are resolved in ``scope``, and not part of its items yet."""

    lowering: Lowering
    ctes: Mapping[str, Cte]
    scope: Scope
    conditions: list[Any]
    clocks: dict[str, Item] = field(default_factory=dict)
    """Those that the select list reads. A condition has its own: each is then looked at by itself when time passes."""

    def filter(self, where: Any, *, correlated: bool = False) -> list[Tree]:
        """Keep the rows that fulfil a WHERE; with ``correlated`` the conditions that read more are given back."""
        parts = joins.conjuncts(forms.of_lists(where, self.lowering.duck)) if where else []
        tests = [part for part in parts if forms.test(part) is not None]
        plain = [part for part in parts if forms.test(part) is None and not forms.has_subquery(part)]
        left = []
        for part in plain:
            try:
                self._keep(part)
            except SqlError:
                if not correlated:
                    raise
                left.append(part)
        try:
            for part in tests:
                try:
                    self._test(part)
                except NoRule:
                    self._keep(self.scalars(part, {}))
            for part in parts:
                if part not in tests and part not in plain:
                    self._keep(self.scalars(part, {}))
        except SqlError as error:  # a name of a query around the one around it, or of none
            raise NO_RULE from error
        return left

    def scalars(self, expression: Any, clocks: dict[str, Item] | None = None) -> Any:
        """The expression with columns in place of its scalar subqueries; ``clocks``: FROM items to use again."""
        known = self.clocks if clocks is None else clocks

        def change(node: Tree) -> Any:
            if node.get("class") != "SUBQUERY":
                return None
            inner = forms.flattened(node["subquery"]["node"], self.lowering.duck)
            node = {**node, "subquery": {**node["subquery"], "node": inner}}
            if (clock := clock_of(inner, self.lowering.relations)) is not None:
                return self._clock(clock_item(self.lowering, clock, known))
            if node.get("subquery_type") == "EXISTS":
                return self._exists(node, inner)
            if node.get("subquery_type") != "SCALAR":
                return self._member(node, inner)
            found = constant(self.lowering, inner, self.ctes)
            if found is None:
                return self._correlated(node, inner)
            self.scope.items.append(Visible(found.alias, (found.alias,), {"v": "v"}, found.node, hidden=True))
            return column(found.alias, "v")

        return rewrite(forms.of_lists(expression, self.lowering.duck), change)

    def _clock(self, item: Item) -> Tree:
        if all(known.alias != item.alias for known in self.scope.items):
            self.scope.items.append(Visible(item.alias, (item.alias,), {}, item.node))
        return column(item.alias, VALUE)

    # ---- tests

    def _keep(self, part: Any) -> None:
        resolved = self.scope.resolve(part)
        self.lowering.note(self.scope, [resolved])
        self.conditions.append(resolved)

    def _resolved(self, value: Tree) -> str:
        found = self.scope.resolve(value)
        self.lowering.note(self.scope, [found])
        return self.lowering.duck.print(found)

    def _test(self, part: Tree) -> None:
        found = forms.test(part)
        assert found is not None
        node, negated = found
        inner = node["subquery"]["node"]
        if node["subquery_type"] == "EXISTS":
            self._attach("ANTI" if negated else "SEMI", *self._rows_of(inner))
            return
        if forms.has_subquery(node["child"]):
            raise NO_RULE
        plan = self._uncorrelated(inner)
        if node.get("comparison_type") != "COMPARE_EQUAL":
            self._compare(node, plan, negated=negated)
            return
        if plan is None:
            if negated:
                raise NO_RULE
            rows, parts = self._rows_of(inner)
            values, listed = forms.values(node["child"]), inner["select_list"]
            if len(values) != len(listed):
                raise NO_RULE
            rows.lowering.note(rows.scope, [rows.scope.resolve(each) for each in listed])
            self._attach("SEMI", rows, parts, *zip(values, listed, strict=True))
            return
        names, values = column_names(plan), forms.values(node["child"])
        if len(names) != len(values) or (negated and len(names) != 1):
            raise NO_RULE
        known = {f"v{place}": name for place, name in enumerate(names)}
        self.lowering.admit(known)
        alias = self.lowering.alias()
        scope = Scope(self.lowering.refuse, [Visible(alias, (alias,), known, plan, hidden=True)])
        rows = Rows(self.lowering, self.ctes, scope, [])
        if negated:
            counts, value = self._counted(plan, names[0]), self._resolved(node["child"])
            kept = f"{counts}.n = 0 OR ({counts}.m = {counts}.n AND {value} IS NOT NULL)"
            self.conditions.append(self.lowering.duck.expression(kept))
        pairs = [(value, column(alias, name)) for value, name in zip(values, known, strict=True)]
        self._attach("ANTI" if negated else "SEMI", rows, [], *pairs)

    def _compare(self, node: Tree, plan: Any, *, negated: bool) -> None:
        """``x > ANY (SELECT y ...)`` is ``x > min(y)``; NOT of it (so is ALL written) asks the same of every y.

        A NULL among them, or x, is true of neither; over no rows ANY is never true, and NOT of it always.
        """
        sign, names = _SIGNS.get(str(node["comparison_type"])), column_names(plan) if plan is not None else ()
        if sign is None or len(names) != 1:
            raise NO_RULE
        value = self._resolved(node["child"])
        kinds = dict(self.lowering.describe(Select(self.scope.plan_items(), (), (("x", value),))))["x"]
        if NESTED.match(kinds) or not joins.comparable(kinds, dict(self.lowering.describe(plan))[names[0]]):
            raise NO_RULE  # the least of texts need not be the least of what they are cast to
        found = self._counted(plan, names[0], "min(q.c0)", "max(q.c0)")
        bounds = {"<": ["v1"], "<=": ["v1"], ">": ["v0"], ">=": ["v0"]}.get(sign, ["v0", "v1"])
        holds = " OR ".join(f"{value} {sign} {found}.{bound}" for bound in bounds)
        none = f"{found}.n = 0 OR ({found}.m = {found}.n AND NOT ({holds}))"
        self.conditions.append(self.lowering.duck.expression(none if negated else holds))

    def _member(self, node: Tree, inner: Tree) -> Any:
        """``x IN (SELECT y ...)`` as a value: whether y is there, or could be, for all that NULLs say."""
        plan = None if forms.has_subquery(node["child"]) else self._uncorrelated(inner)
        if plan is None or node.get("comparison_type") != "COMPARE_EQUAL" or len(column_names(plan)) != 1:
            return self._valued(node, inner)
        duck, name = self.lowering.duck, column_names(plan)[0]
        read = Select((Item("q", plan),), (), (("v0", f"q.{quote(name)}"),))
        values = sets.distinct(self.lowering, read)
        marked = Select((Item("q", values),), (), (("v0", "q.v0"), ("m", "true")))
        self.lowering.admit({"v0", "m"})
        alias = self.lowering.alias()
        scope = Scope(self.lowering.refuse, [Visible(alias, (alias,), {"v0": "v0", "m": "m"}, marked, hidden=True)])
        counts = self._counted(plan, name)
        self._attach("LEFT", Rows(self.lowering, self.ctes, scope, []), [], (node["child"], column(alias, "v0")))
        value = duck.print(node["child"])
        unknown = f"{counts}.n > 0 AND ({value} IS NULL OR {counts}.m < {counts}.n)"
        return duck.expression(f"CASE WHEN {alias}.m THEN true WHEN {unknown} THEN NULL ELSE false END")

    def _counted(self, plan: Any, name: str, *more: str) -> str:
        """The item with a subquery's number of rows n, m of them no NULLs, and ``more`` calls, beside every row.

        NOT IN over rows with a NULL is true of nothing, over no rows it is true of everything.
        """
        read = Select((Item("q", plan),), (), (("c0", f"q.{quote(name)}"),))
        group = grouping.Grouping(self.lowering, (Item("q", read),), (), [])
        calls = [self.lowering.duck.expression(sql) for sql in ("count(*)", "count(q.c0)", *more)]
        names = ["n", "m", *(f"v{place}" for place, _ in enumerate(more))]
        counts = group.select(names, calls, None)
        self.lowering.admit(set(names))
        alias = self.lowering.alias()
        self.scope.items.append(Visible(alias, (alias,), {own: own for own in names}, counts, hidden=True))
        return alias

    def _rows_of(self, inner: Tree) -> tuple[Rows, list[Tree]]:
        """The rows of a subquery's FROM and WHERE, and the conditions that read the outer query."""
        if inner["type"] != "SELECT_NODE" or inner.get("modifiers") or inner["cte_map"]["map"]:
            raise NO_RULE
        if inner.get("group_expressions") or inner.get("group_sets") or inner.get("having") or inner.get("qualify"):
            raise NO_RULE
        if grouping.is_aggregation(inner, inner["select_list"], self.lowering.duck):
            raise NO_RULE
        return self._from(inner)

    def _from(self, inner: Tree) -> tuple[Rows, list[Tree]]:
        if inner["from_table"]["type"] == "EMPTY":
            raise NO_RULE
        scope, conditions = self.lowering.from_clause(inner["from_table"], self.ctes)
        rows = Rows(self.lowering, self.ctes, scope, conditions)
        return rows, rows.filter(inner.get("where_clause"), correlated=True)

    def _attach(self, kind: str, rows: Rows, parts: list[Tree], *pairs: tuple[Tree, Tree]) -> None:
        """Join the rows of a subquery; names in ``parts`` are its own first. ``pairs``: outer and inner values."""

        def resolved(left: joins.Side, right: joins.Side) -> list[Tree]:
            both = joins.inner_first(self.lowering, left, right)
            found = [both.resolve(part) for part in parts]
            for outer, inner in pairs:
                one, other = left.scope.resolve(outer), right.scope.resolve(inner)
                printed = (self.lowering.duck.print(each) for each in (one, other))
                found.append(self.lowering.duck.expression(" = ".join(f"({sql})" for sql in printed)))
            return found

        aliases = self.scope.aliases
        sides = ((self.scope, self.conditions), (rows.scope, rows.conditions))
        self.scope, self.conditions = joins.attached(self.lowering, kind, sides, resolved), []
        self.scope.aliases = aliases

    def _uncorrelated(self, inner: Tree) -> Any:
        try:
            return self.lowering.query(inner, self.ctes)
        except SqlError:
            return None

    # ---- scalars

    def _exists(self, node: Tree, inner: Tree) -> Any:
        """EXISTS as a value: whether the number of rows is not 0."""
        duck = self.lowering.duck
        plain = inner["type"] == "SELECT_NODE" and not inner.get("modifiers") and not inner.get("group_expressions")
        if not plain or inner.get("having") or inner.get("qualify") or forms.is_one_row(self.lowering.duck, inner):
            return self._valued(node, inner)
        counted = {**inner, "select_list": [duck.expression("count(*)")]}
        found = constant(self.lowering, counted, self.ctes)
        if found is not None:
            self.scope.items.append(Visible(found.alias, (found.alias,), {"v": "v"}, found.node, hidden=True))
            return duck.expression(f"{found.alias}.v > 0")
        try:
            return duck.expression(f"({duck.print(self._grouped(counted))}) > 0")
        except NoRule:
            return self._valued(node, inner)

    def _correlated(self, node: Tree, inner: Tree) -> Any:
        try:
            return self._grouped(inner)
        except NoRule:
            return self._valued(node, inner)

    def _grouped(self, inner: Tree) -> Any:
        """A left join with the aggregate, or the first row, of what is compared with the outer query."""
        first = forms.is_first_row(inner)
        if len(inner["select_list"]) != 1 or not (first or forms.is_one_row(self.lowering.duck, inner)):
            raise NO_RULE
        duck = self.lowering.duck
        rows, parts = self._from(inner)
        pairs = [_pair(part, rows.scope) for part in parts]
        try:
            value = rows.scope.resolve(inner["select_list"][0])
        except SqlError as error:
            raise NO_RULE from error
        keys = [rows.scope.resolve(own) for own, _ in pairs]
        if not keys or (first and grouping.aggregates_in(value, duck)):
            raise NO_RULE
        self.lowering.note(rows.scope, [value, *keys])
        where = tuple(map(duck.print, rows.conditions))
        names = [f"k{place}" for place in range(len(keys))]
        shown = [*names, "v", "m"], [*keys, value, duck.expression("true")]
        if first:
            empty = "NULL"
            made = self._first(inner, rows, where, *shown)
        else:
            empty = duck.print(grouping.over_nothing(value, duck))
            made = grouping.Grouping(self.lowering, rows.scope.plan_items(), where, keys).select(*shown, None)
        alias = self.lowering.alias()
        known = {name: name for name in (*names, "v", "m")}
        visible = Visible(alias, (alias,), known, made, hidden=True)
        right = Rows(self.lowering, self.ctes, Scope(self.lowering.refuse, [visible]), [])
        self.lowering.admit(known)
        equal = [forms.equal(outer, column(alias, name)) for name, (_, outer) in zip(names, pairs, strict=True)]
        self._attach("LEFT", right, equal)
        return self.lowering.duck.expression(f"CASE WHEN {alias}.m THEN {alias}.v ELSE {empty} END")

    def _valued(self, node: Tree, inner: Tree) -> Any:
        """A subquery of any kind beside each row: what it compares equal with the outer query is the key."""
        rows, parts = self._plain_rows(inner)

        def value(left: joins.Side, right: joins.Side, table: str) -> str:
            query = self._over(inner, parts, joins.inner_first(self.lowering, left, right), table)
            child = left.scope.resolve(node["child"]) if node.get("child") else None
            return self.lowering.duck.print({**node, "alias": "", "child": child, "subquery": {"node": query}})

        aliases = self.scope.aliases
        sides = ((self.scope, self.conditions), (rows.scope, rows.conditions))
        self.scope, name = joins.valued(self.lowering, sides, self._conditions(parts), value)
        self.conditions, self.scope.aliases = [], aliases
        return name

    def lateral(self, node: Tree) -> Scope:
        """A subquery in FROM that reads the items before it: computed anew for the keys that it compares equal."""
        right = node["right"]
        inner = right["subquery"]["node"]
        rows, parts = self._plain_rows(inner)

        def query(left: joins.Side, side: joins.Side, table: str) -> str:
            both = joins.inner_first(self.lowering, left, side)
            return self.lowering.duck.print_query(self._over(inner, parts, both, table))

        shown = [str(name) for name in right.get("column_name_alias") or ()]
        own = [*shown, *(self.lowering.name(each) for each in inner["select_list"][len(shown) :])]
        sides = ((self.scope, self.conditions), (rows.scope, rows.conditions))
        alias = (right["alias"] or self.lowering.alias()).lower()
        word = "LEFT" if node["join_type"] == "LEFT" else "CROSS"
        return joins.lateral(self.lowering, sides, self._conditions(parts), query, word, alias, own)

    def _conditions(self, parts: list[Tree]) -> Callable[[joins.Side, joins.Side], list[Tree]]:
        return lambda left, right: [joins.inner_first(self.lowering, left, right).resolve(part) for part in parts]

    def _over(self, inner: Tree, parts: list[Tree], scope: Scope, table: str) -> Tree:
        """A subquery over the rows of its side, which are in a table, with the conditions that read more."""
        duck = self.lowering.duck
        shell: Tree = duck.parse(f"SELECT 1 FROM {table} AS {joins.R}", lambda _: (0, 0))
        kept = " AND ".join(f"({duck.print(scope.resolve(part))})" for part in parts)
        scope.aliases = forms.aliases(inner)
        return {
            **inner,
            "select_list": [{**scope.resolve(each), "alias": each.get("alias", "")} for each in inner["select_list"]],
            "modifiers": [_resolved(each, scope) for each in inner.get("modifiers") or ()],
            "group_expressions": [_named(each, scope) for each in inner.get("group_expressions") or ()],
            "having": inner.get("having") and _named(inner["having"], scope),
            "qualify": inner.get("qualify") and _named(inner["qualify"], scope),
            "from_table": shell["from_table"],
            "where_clause": duck.expression(kept),
        }

    def _plain_rows(self, inner: Tree) -> tuple[Rows, list[Tree]]:
        """As ``_from``, of a subquery that has no set, CTE or subquery of its own."""
        if inner["type"] != "SELECT_NODE" or inner["cte_map"]["map"]:
            raise NO_RULE
        shown = [inner.get(part) for part in ("select_list", "modifiers", "group_expressions", "having", "qualify")]
        if any(part.get("class") in ("STAR", "SUBQUERY") for each in shown for part in walk(each)):
            raise NO_RULE
        return self._from(inner)

    def _first(self, inner: Tree, rows: Rows, where: tuple[str, ...], names: list[str], values: list[Any]) -> Select:
        """The first row of each key: DISTINCT ON its columns, which are the first ones."""
        rows.scope.aliases = forms.aliases(inner)
        shown = [values[names.index("v")]]
        chosen = modifiers.of_select(self.lowering, inner, rows.scope, shown, list(rows.scope.aliases))
        self.lowering.note(rows.scope, chosen.expressions)
        chosen.limit, chosen.on = "", [name for name in names if name.startswith("k")]
        columns = zip(
            [*names, *chosen.names], map(self.lowering.duck.print, [*values, *chosen.expressions]), strict=True
        )
        made = Select(rows.scope.plan_items(), where, tuple(columns))
        return modifiers.modified(self.lowering, made, len(names), chosen)


def clock_item(lowering: Lowering, clock: Clock, known: dict[str, Item]) -> Item:
    """The FROM item for a clock: one of those known so far, or a new one."""
    lowering.declare(clock)
    return known.setdefault(clock.table, Item(lowering.alias(), Leaf(clock)))


def constant(lowering: Lowering, inner: Tree, ctes: Mapping[str, Cte]) -> Item | None:
    """A subquery of one row that reads nothing outside, with its value as ``v``; None for one that does."""
    try:
        plan = lowering.query(inner, ctes)
    except SqlError:
        return None
    if not forms.is_one_row(lowering.duck, inner, ctes):
        raise NO_RULE
    lowering.admit({"v"})
    value = Select((Item("q", plan),), (), (("v", f"q.{quote(column_names(plan)[0])}"),))
    return Item(lowering.alias(), value)


def is_lateral(node: Tree) -> bool:
    """Whether a join may be with a subquery that reads its left side."""
    if node["right"]["type"] != "SUBQUERY" or node["join_type"] not in ("INNER", "LEFT") or node.get("using_columns"):
        return False
    return node.get("condition") is None or unnesting.is_true(node["condition"])


def _resolved(modifier: Tree, scope: Scope) -> Tree:
    """ORDER BY and LIMIT of a subquery; places and aliases of its select list stay what they are."""
    if modifier["type"] == "ORDER_MODIFIER":
        orders = [{**each, "expression": _named(each["expression"], scope)} for each in modifier["orders"]]
        return {**modifier, "orders": orders}
    if modifier["type"] == "LIMIT_MODIFIER":
        return modifier
    raise NO_RULE


def _named(expression: Tree, scope: Scope) -> Any:
    """An expression of a subquery in which a name of its select list stays what it is."""
    own = is_column(expression) and expression["column_names"][-1].lower() in scope.aliases
    return expression if own and len(expression["column_names"]) == 1 else scope.resolve(expression)


def _pair(part: Tree, own: Scope) -> tuple[Tree, Tree]:
    """The inner and the outer side of a comparison."""
    if part.get("type") != "COMPARE_EQUAL":
        raise NO_RULE
    for inner, outer in ((part["left"], part["right"]), (part["right"], part["left"])):
        try:
            own.resolve(inner)
        except SqlError:
            continue
        return inner, outer
    raise NO_RULE
