"""``WITH (on_error = 'dead_letter')``: rows of a table for which an expression fails are no rows of the view's input.

    SELECT id, note::INT AS n FROM orders    is    SELECT id, TRY_CAST(note AS INT) AS n
                                                   FROM (SELECT * FROM orders WHERE TRY({v0: note::INT}) IS NOT NULL)

An expression over the columns of one table is tried for each of its rows: a struct of the values is NULL when one of
them fails, whatever the values are. Rows that the WHERE leaves out by columns and constants alone are not tried. The
rows that fail are a query of their own, beside the view's: its changes are the dead letters. What is computed of
several tables' rows, or of many rows, still fails the view; a cast of such a value is refused, so that nobody counts
on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.errors import HeadwaterError, UnsupportedSql
from headwater.types import quote
from headwater_pipelines.compiler import grouping, poison
from headwater_pipelines.compiler.joins import conjuncts
from headwater_pipelines.compiler.relations import Table
from headwater_pipelines.compiler.syntax import (
    Tree,
    bare,
    is_column,
    renamed_as,
    rewrite,
    rewrite_free,
    unqualified,
    walk,
)

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering

DEAD_LETTER = "dead_letter"
COLUMNS = ("field", "row")
"""Of a query of rows that fail: the first expression that does, and the row as JSON."""
_EXPRESSIONS = ("select_list", "where_clause", "group_expressions", "having", "qualify", "modifiers")
_SIMPLE = ("COLUMN_REF", "CONSTANT", "COMPARISON", "BETWEEN", "CONJUNCTION")
_OPERATORS = ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL", "OPERATOR_NOT", "COMPARE_IN", "COMPARE_NOT_IN")
_OF_OTHERS = ("SUBQUERY", "WINDOW", "STAR", "PARAMETER", "POSITIONAL_REFERENCE")


@dataclass
class Tried:
    """A table in a FROM clause, what is tried of its rows, and the conditions on those that are."""

    node: Tree
    table: Table
    is_optional: bool
    expressions: list[Tree] = field(default_factory=list)
    where: list[Tree] = field(default_factory=list)

    @property
    def alias(self) -> str:
        return str(self.node["alias"] or self.node["table_name"])


def guarded(tree: Tree, lowering: Lowering) -> tuple[Tree, tuple[tuple[str, Tree], ...]]:
    """The definition over rows for which nothing fails, and the query, by topic, of those for which something does."""
    found = _Letters(lowering)
    made = found.query(tree)
    if not found.tried:
        what = "nothing here that can fail is computed of one table's row alone"
        raise UnsupportedSql(what, code="DEAD_LETTER", todo="Use on_error = 'fail' or 'null'.")
    return made, tuple((each.table.base.name, _failing(each, lowering)) for each in found.tried)


class _Letters:
    def __init__(self, lowering: Lowering) -> None:
        self.lowering = lowering
        self.duck = lowering.duck
        self.tried: list[Tried] = []

    def query(self, node: Any, ctes: frozenset[str] = frozenset()) -> Any:
        """Every SELECT of a tree, the inner ones first."""
        if isinstance(node, list):
            return [self.query(each, ctes) for each in node]
        if not isinstance(node, dict):
            return node
        entries = (node.get("cte_map") or {}).get("map") or ()
        ctes |= {str(entry["key"]).lower() for entry in entries}
        made = {key: self.query(value, ctes) for key, value in node.items()}
        return self._select(made, ctes) if node.get("type") == "SELECT_NODE" else made

    def _select(self, node: Tree, ctes: frozenset[str]) -> Tree:
        items = self._items(node["from_table"], ctes, optional=False)
        made = {part: self._guarded(node.get(part), items) for part in _EXPRESSIONS}
        pairs = zip(node["select_list"], made["select_list"], strict=True)
        made["select_list"] = [renamed_as(before, after, self.duck) for before, after in pairs]
        table = self._conditions(node["from_table"], items)
        for part in conjuncts(node["where_clause"]) if node.get("where_clause") else ():
            own = self._owner(part, items)
            if own is not None and not own.is_optional and _is_simple(part):
                own.where.append(self._plain(part))
        tried = [item for item in items if item is not None and item.expressions]
        self.tried += tried
        return {**node, **made, "from_table": self._replaced(table, tried)}

    def _items(self, table: Tree, ctes: frozenset[str], *, optional: bool) -> list[Tried | None]:
        """What FROM joins; None for what is no table."""
        if table["type"] == "JOIN":
            kind = str(table["join_type"])
            left = optional or kind in ("RIGHT", "FULL", "OUTER")
            right = optional or kind != "INNER" or table["ref_type"] == "ASOF"
            return [
                *self._items(table["left"], ctes, optional=left),
                *self._items(table["right"], ctes, optional=right),
            ]
        path = table["qualified_name"]["path"] if table["type"] == "BASE_TABLE" else []
        if not path or (len(path) == 1 and path[0].lower() in ctes) or table.get("column_name_alias"):
            return [None]
        try:
            relation = self.lowering.relations.resolve(path)
        except HeadwaterError:  # it is said where the relation is read
            return [None]
        return [Tried(table, relation, optional)] if isinstance(relation, Table) else [None]

    def _conditions(self, table: Tree, items: list[Tried | None]) -> Tree:
        if table["type"] != "JOIN":
            return table
        left, right = (self._conditions(table[side], items) for side in ("left", "right"))
        return {**table, "left": left, "right": right, "condition": self._guarded(table.get("condition"), items)}

    def _guarded(self, expression: Any, items: list[Tried | None]) -> Any:
        """An expression with what is of one table's row tried, which is remembered."""

        def change(part: Tree) -> Any:
            if part.get("class") == "SUBQUERY":
                return {**part, "child": self._guarded(part.get("child"), items)}
            if "class" not in part or not self._may_fail(part):
                return part if "class" in part else None
            # AND and OR need not look at both sides: each is tried by itself.
            own = None if part["class"] == "CONJUNCTION" else self._owner(part, items)
            if own is not None:
                plain = self._plain({**part, "alias": ""})
                if bare(plain) not in map(bare, own.expressions):
                    own.expressions.append(plain)
                return poison.tried(part, self.duck)
            if part["class"] == "CAST" and not part.get("try_cast") and self._is_row(part):
                what = "a cast of what is not a column of one table cannot be kept as a dead letter"
                todo = "Cast it in the SELECT that reads the table, or use TRY_CAST."
                raise self.lowering.refuse.at(part, what, "DEAD_LETTER", todo)
            return None

        return rewrite(expression, change)

    def _may_fail(self, expression: Tree) -> bool:
        return any(
            (part.get("class") == "CAST" and not part.get("try_cast"))
            or (part.get("class") == "FUNCTION" and poison.may_fail(part, self.duck))
            for part in walk(expression)
            if any(is_column(inner) for inner in walk(part))
        )

    def _is_row(self, expression: Tree) -> bool:
        """Whether a value is of rows, none that aggregates or windows make."""
        parts = list(walk(expression))
        made = any(part.get("class") in ("WINDOW", "SUBQUERY") for part in parts)
        return not made and not grouping.aggregates_in(expression, self.duck)

    def _owner(self, expression: Tree, items: list[Tried | None]) -> Tried | None:
        """The one table whose columns an expression reads, and nothing else."""
        parts = list(walk(expression))
        if any(part.get("class") in _OF_OTHERS for part in parts):
            return None
        calls = [str(part["function_name"]).lower() for part in parts if part.get("class") == "FUNCTION"]
        if any(name in self.duck.aggregates or name == "unnest" or self.duck.is_unstable(name) for name in calls):
            return None
        read: list[list[str]] = []

        def visit(part: Tree) -> None:
            if is_column(part):
                read.append(part["column_names"])

        rewrite_free(expression, visit)
        found = [self._item(names, items) for names in read]
        return found[0] if found and all(each is found[0] for each in found) else None

    def _item(self, names: list[str], items: list[Tried | None]) -> Tried | None:
        own = [name.lower() for name in unqualified(names, self.lowering.relations.by_name)]
        known = [item for item in items if item is not None]
        if len(own) > 1 and (named := [item for item in known if item.alias.lower() == own[0]]):
            return named[0]
        having = [item for item in known if own[0] in {name.lower() for name, _ in item.table.columns}]
        return having[0] if len(having) == 1 else None

    def _plain(self, expression: Tree) -> Tree:
        """An expression in which tables are named by one part."""
        known = list(self.lowering.relations.by_name)

        def change(part: Tree) -> Any:
            return {**part, "column_names": unqualified(part["column_names"], known)} if is_column(part) else None

        made: Tree = rewrite(expression, change)
        return made

    def _replaced(self, table: Tree, tried: list[Tried]) -> Tree:
        """FROM with a subquery in the place of each table of which something is tried."""
        if table["type"] == "JOIN":
            return {**table, **{side: self._replaced(table[side], tried) for side in ("left", "right")}}
        for each in tried:
            if each.node is table:
                shell: Tree = self.duck.parse(
                    f"SELECT * FROM (SELECT * FROM t) AS {quote(each.alias)}", lambda _: (0, 0)
                )
                made: Tree = shell["from_table"]
                where = _all([*map(self.duck.print, each.where), f"{_tries(each, self.lowering)} IS NOT NULL"])
                inner = {**made["subquery"]["node"], "from_table": table, "where_clause": self.duck.expression(where)}
                return {**made, "subquery": {**made["subquery"], "node": inner}}
        return table


def _failing(each: Tried, lowering: Lowering) -> Tree:
    """The rows of a table for which something fails: their keys and what was tried, and which expression it is."""
    duck = lowering.duck
    texts = [duck.print(expression) for expression in each.expressions]
    cases = " ".join(f"WHEN TRY({{'v': {sql}}}) IS NULL THEN {_text(sql)}" for sql in texts)
    read = {part["column_names"][-1].lower() for tree in each.expressions for part in walk(tree) if is_column(part)}
    names = [name for name, _ in each.table.columns if name in each.table.schema.key or name.lower() in read]
    packed = ", ".join(f"{_text(name)}: {quote(each.alias)}.{quote(name)}" for name in names)
    listed = f"CASE {cases} END AS field, CAST(to_json({{{packed}}}) AS VARCHAR) AS row"
    where = _all([*map(duck.print, each.where), f"{_tries(each, lowering)} IS NULL"])
    shell: Tree = duck.parse(f"SELECT {listed} FROM t WHERE {where}", lambda _: (0, 0))
    return {**shell, "from_table": each.node}


def _tries(each: Tried, lowering: Lowering) -> str:
    values = ", ".join(f"'v{n}': {lowering.duck.print(tree)}" for n, tree in enumerate(each.expressions))
    return f"TRY({{{values}}})"


def _is_simple(condition: Tree) -> bool:
    """Whether a condition compares columns and constants, and cannot fail."""
    return all(
        part["class"] in _SIMPLE or part.get("type") in _OPERATORS for part in walk(condition) if "class" in part
    )


def _all(conditions: list[str]) -> str:
    return " AND ".join(f"({each})" for each in conditions)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
