"""What a view's SQL reads, column by column, and a hash of what it says. No Dagster in here.

Two texts that differ in layout, comments or letter case of keywords have the same code version: Dagster then
calls a view changed when it is. Views are maintained by DuckDB's own parser; sqlglot, which reads nearly all of them
in a few milliseconds, is only asked what to draw. What it cannot read raises SqlglotError here, and is left out there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot import lineage as glot
from sqlglot.errors import SqlglotError

PARSED_MAX = 256
"""Definitions whose trees are remembered while a code location loads, which asks each several things."""
_EMIT = re.compile(r"\s+EMIT\s+ON\s+WINDOW\s+CLOSE\s*;?\s*\Z", re.IGNORECASE)
_WINDOWS = ("tumble", "hop", "session")
_WINDOW_COLUMNS = ("window_start", "window_end")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What one column of a view is made of: (name of a table or view as written, column) pairs, sorted."""

    columns: tuple[tuple[str, str], ...]
    is_copy: bool
    """It is one column, handed through as it is."""


def inputs(sql: str) -> tuple[str, ...]:
    """Names of the tables and views that ``sql`` reads, as written without quotes, in order; CTEs left out.

    Raises SqlglotError.
    """
    return tuple(dict.fromkeys(_name(table) for table in _tables(_parsed(sql))))


def code_version(sql: str) -> str:
    """The first 16 hex digits of the SHA-256 of the normalised SQL; of the text where sqlglot cannot read it."""
    try:
        normal = _parsed(sql).sql(dialect="duckdb", comments=False)
    except SqlglotError:
        normal = sql
    normal += " EMIT ON WINDOW CLOSE" if _EMIT.search(sql) else ""
    return hashlib.sha256(normal.encode()).hexdigest()[:16]


def columns(sql: str, relation: Callable[[str], Mapping[str, str] | None]) -> dict[str, Origin]:
    """Of each column of the result, what it is made of; what only filters, joins or groups rows is not.

    ``relation`` gives a table's columns with their types by its name as written; None for one that means nothing.
    Names of columns are as ``relation`` spells them, those of the result as the SQL does. Raises SqlglotError with
    the reason where sqlglot would be wrong or cannot tell.
    """
    tree = _parsed(sql).copy()
    _refuse(tree)
    named: dict[str, str] = {}
    schema: dict[str, Mapping[str, str]] = {}
    for table in _tables(tree):
        name = _name(table)
        known = relation(name)
        if known is None:
            raise SqlglotError(f"the columns of {name} are not known")
        private = named.setdefault(name, f"t{len(named)}")
        schema[private] = known
        _rename(tree, table, private)
    found = glot.lineage(None, tree, schema=schema, dialect="duckdb", trim_selects=False, copy=False)
    names = {private: name for name, private in named.items()}
    return {column: _origin(node, schema, names) for column, node in found.items()}


@lru_cache(maxsize=PARSED_MAX)
def _parsed(sql: str) -> exp.Expr:
    """The query, with time windows written as what they read. Nobody changes it."""
    tree = sqlglot.parse_one(_EMIT.sub("", sql), dialect="duckdb")
    if isinstance(tree, exp.Create):
        tree = tree.expression
    for call in [table for table in tree.find_all(exp.Table) if _is_window(table)]:
        _write_out(call)
    return tree


def _is_window(table: exp.Table) -> bool:
    return isinstance(table.this, exp.Anonymous) and table.this.name.lower() in _WINDOWS


def _write_out(call: exp.Table) -> None:
    """TUMBLE(t, ts, ...) as (SELECT *, ts AS window_start, ts AS window_end FROM t): the same columns of the same."""
    of, at = call.this.expressions[:2]
    source = of if isinstance(of, exp.Subquery) else exp.Table(this=of.this, db=of.args.get("table"))
    if isinstance(of, exp.Column) and of.args.get("db"):
        source.set("catalog", of.args["db"])
    # In parentheses: a window's bounds come from the time, and are no copy of it.
    shown = [exp.Star(), *(exp.alias_(exp.paren(at.copy()), column) for column in _WINDOW_COLUMNS)]
    alias = call.args.get("alias") or exp.TableAlias(this=exp.to_identifier(call.this.name.lower()))
    call.replace(exp.Subquery(this=exp.select(*shown).from_(source), alias=alias))


def _tables(tree: exp.Expr) -> list[exp.Table]:
    """References to tables and views, in order: neither functions nor what an enclosing WITH defines."""
    named = [table for table in tree.find_all(exp.Table) if isinstance(table.this, exp.Identifier | exp.Dot)]
    return [table for table in named if table.args.get("db") or not _is_cte(table)]


def _is_cte(table: exp.Table) -> bool:
    """Whether an enclosing WITH defines this name (a CTE does not see itself unless it is recursive)."""
    node: exp.Expr | None = table
    inside: list[exp.Expr] = []
    while node is not None:
        with_ = node.args.get("with_")
        if isinstance(with_, exp.With):
            for cte in with_.expressions:
                if cte.alias.lower() == table.name.lower() and (with_.recursive or cte not in inside):
                    return True
        inside.append(node)
        node = node.parent
    return False


def _name(table: exp.Table) -> str:
    return ".".join(part.name for part in table.parts if part.name)


def _refuse(tree: exp.Expr) -> None:
    """Raise SqlglotError for what sqlglot would draw wrongly."""
    if any(each.args.get("by_name") for each in tree.find_all(exp.SetOperation)):
        raise SqlglotError("UNION BY NAME: columns are matched by their names, which sqlglot does by their places")
    if tree.find(exp.Columns) is not None:
        raise SqlglotError("COLUMNS(...): which columns it stands for, only DuckDB knows")
    if not isinstance(tree, exp.Query):
        raise SqlglotError(f"{tree.key.upper()} is no SELECT")


def _rename(tree: exp.Expr, table: exp.Table, private: str) -> None:
    """Give a table a name without dots, and keep what its columns are called by."""
    written = table.args.get("db")
    if not table.alias:
        table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
    if written is not None:  # shop.orders.id is orders.id
        for column in tree.find_all(exp.Column):
            if column.text("db").lower() == written.name.lower() and column.table.lower() == table.name.lower():
                column.set("db", None)
                column.set("catalog", None)
    table.set("this", exp.to_identifier(private, quoted=True))
    table.set("db", None)
    table.set("catalog", None)


def _origin(node: glot.Node, schema: Mapping[str, Mapping[str, str]], names: Mapping[str, str]) -> Origin:
    found: set[tuple[str, str]] = set()
    steps = list(node.walk())
    for each in steps:
        source = each.expression
        if isinstance(source, exp.Table) and source.name in schema:
            spelled = {column.lower(): column for column in schema[source.name]}
            column = _last(each.name).lower()
            if column in spelled:
                found.add((names[source.name], spelled[column]))
    plain = all(isinstance(each.expression.unalias(), exp.Column | exp.Table) for each in steps)
    return Origin(columns=tuple(sorted(found)), is_copy=plain and len(found) == 1)


def _last(column: str) -> str:
    """The last part of a qualified name, without its quotes."""
    if '"' not in column:
        return column.rpartition(".")[2]
    return sqlglot.parse_one(column).name
