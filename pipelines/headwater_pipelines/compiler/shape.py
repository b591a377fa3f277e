"""What a query's own text gives: bound by DuckDB over empty tables, before anything is made of it."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

import duckdb

from headwater.errors import SqlError, UnknownColumn
from headwater_pipelines.compiler.clock import is_watermark
from headwater_pipelines.compiler.plan import digest
from headwater_pipelines.compiler.syntax import Tree, is_column, message, scoped, unqualified

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering

_MISSING = re.compile(r'Referenced column "([^"]+)" (?:was )?not found|does not have a column named "([^"]+)"')


def shape_of(tree: Tree, lowering: Lowering) -> list[tuple[str, str]]:
    """Names and types of the definition's own text, bound by DuckDB over empty tables."""
    text = lowering.duck.print_query(internal(tree, lowering))
    try:
        return lowering.duck.describe(text)
    except duckdb.Error as error:
        found = _MISSING.search(str(error))
        if found is None:
            raise SqlError(message(error), todo="Correct the expression.") from error
        name = found[1] or found[2]
        known = [c for relation in lowering.relations.by_name.values() for c, _ in relation.columns]
        near = difflib.get_close_matches(name, known, 1, 0.5)
        raise UnknownColumn(f'there is no column "{name}"', suggestion=near[0] if near else "") from error


def internal(tree: Tree, lowering: Lowering) -> Tree:
    """The tree with stored relations under their internal names and columns with at most one qualifier."""
    known = list(lowering.relations.by_name)

    def change(node: Tree, visible: frozenset[str]) -> Any:
        if is_column(node):
            return {**node, "column_names": unqualified(node["column_names"], known)}
        if is_watermark(node):
            kind = lowering.event_time.type if lowering.event_time else "TIMESTAMPTZ"
            return {**lowering.duck.expression(f"CAST(NULL AS {kind})"), "alias": node["alias"]}
        if node.get("type") != "BASE_TABLE" or "qualified_name" not in node:
            return None
        path = node["qualified_name"]["path"]
        if len(path) == 1 and path[0].lower() in visible:
            return None
        relation = lowering.relations.resolve(path)
        # A table of its own: the stored copy of a bag has a weight column that a star must not show.
        name = f"plain_{digest(relation.name)}"
        lowering.duck.create_table(name, list(relation.columns))
        place = {"schema_name": "", "catalog_name": "", "table_name": name, "qualified_name": {"path": [name]}}
        return {**node, **place, "alias": node["alias"] or path[-1]}

    changed: Tree = scoped(tree, change)
    return changed
