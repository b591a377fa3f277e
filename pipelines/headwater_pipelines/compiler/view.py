"""From a definition to a compiled view: checked, typed, lowered; nothing is created anywhere."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from headwater import record, types
from headwater.errors import SqlError, SqlSyntax, UnknownColumn
from headwater.schema import Schema
from headwater_pipelines.compiler.definition import Definition
from headwater_pipelines.compiler.lower import Lowering
from headwater_pipelines.compiler.plan import Base, Leaf, Select, Union, digest
from headwater_pipelines.compiler.refusals import Refusal, check
from headwater_pipelines.compiler.relations import Relations, Table, ViewPlan
from headwater_pipelines.compiler.syntax import Duck, Tree, column, is_column, message, scoped, unqualified
from headwater_pipelines.compiler.whole import named

_MISSING = re.compile(r'Referenced column "([^"]+)" (?:was )?not found|does not have a column named "([^"]+)"')


@dataclass(frozen=True)
class CompiledView:
    """A view that can be maintained.

    ``columns`` are names and canonical types, ``key`` the output columns that identify a row (empty when
    rows may repeat), ``used`` the columns read of every stored topic, ``reads`` the full names it names.
    """

    definition: Definition
    root: Select | Union
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]
    used: Mapping[Base, frozenset[str]]
    reads: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def schema(self) -> Schema:
        return Schema.of(dict(self.columns), key=self.key)

    def as_relation(self) -> ViewPlan:
        """What later definitions see of this one."""
        return ViewPlan(self.name, self.root, self.columns, tuple(self.used.items()))


def compile_view(definition: Definition, relations: Relations, duck: Duck | None = None) -> CompiledView:
    """Compile one definition.

    SqlSyntax, UnsupportedSql (with code and place), UnknownColumn and NameNotFound (with suggestions),
    SqlError with DuckDB's own text for type errors.
    """
    duck = duck or Duck()
    tree = duck.parse(definition.select, definition.place)
    refuse = Refusal(definition)
    check(tree, refuse, duck)
    lowering = Lowering(duck, relations, refuse, named(tree))
    reads = _reads(tree, relations)
    root = _lower(lowering, tree)
    shape = _shape(tree, lowering)
    root = _named(root, [name for name, _ in shape])
    columns = _columns(shape, lowering, root)
    used = {base: frozenset(names) for base, names in lowering.used.items()}
    key = _key(root, relations, duck)
    return CompiledView(definition, root, columns, key, used, reads)


def _lower(lowering: Lowering, tree: Tree) -> Select | Union:
    """DuckDB's own complaint about the definition comes before one about its compiled form."""
    try:
        return lowering.query(tree, {})
    except UnknownColumn:
        raise
    except SqlError as error:
        if type(error) in (SqlError, SqlSyntax):
            _shape(tree, lowering)
        raise
    except duckdb.Error:
        _shape(tree, lowering)
        raise


def _shape(tree: Tree, lowering: Lowering) -> list[tuple[str, str]]:
    """Names and types of the definition's own text, bound by DuckDB over empty tables."""
    text = lowering.duck.print_query(_internal(tree, lowering))
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


def _internal(tree: Tree, lowering: Lowering) -> Tree:
    """The tree with stored relations under their internal names and columns with at most one qualifier."""
    known = list(lowering.relations.by_name)

    def change(node: Tree, visible: frozenset[str]) -> Any:
        if is_column(node):
            return {**node, "column_names": unqualified(node["column_names"], known)}
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


def _reads(tree: Tree, relations: Relations) -> tuple[str, ...]:
    found: dict[str, None] = {}

    def visit(node: Tree, visible: frozenset[str]) -> None:
        if node.get("type") == "BASE_TABLE" and "qualified_name" in node:
            path = node["qualified_name"]["path"]
            if len(path) > 1 or path[0].lower() not in visible:
                relation = relations.resolve(path)
                found.setdefault(relation.name if isinstance(relation, Table) else f"views.{relation.name}")

    scoped(tree, visit)
    return tuple(found)


def _named(root: Select | Union, names: list[str]) -> Select | Union:
    if isinstance(root, Union):
        return Union(tuple(_renamed(part, names) for part in root.inputs))
    return _renamed(root, names)


def _renamed(part: Select, names: list[str]) -> Select:
    expressions = (sql for _, sql in part.columns)
    return Select(part.items, part.where, tuple(zip(names, expressions, strict=True)))


def _columns(shape: list[tuple[str, str]], lowering: Lowering, root: Select | Union) -> tuple[tuple[str, str], ...]:
    """Output columns in canonical types; refuses names and types that a changelog cannot hold."""
    refuse, seen = lowering.refuse, set[str]()
    found = []
    for name, text in shape:
        if name.lower() in seen:
            raise refuse.at(
                None, f'two columns are named "{name}"', "DUPLICATE_COLUMN", "Give one another name with AS."
            )
        if (name.startswith("_w") and name in {*record.METADATA, "_w"}) or name in record.METADATA:
            raise refuse.at(None, f'column name "{name}" is reserved', "RESERVED_COLUMN", "Rename it with AS.")
        seen.add(name.lower())
        try:
            found.append((name, types.canonical(text)))
        except ValueError as error:
            todo = "Cast it, for example to VARCHAR."
            raise refuse.at(None, f'column "{name}" has type {text}', "OUTPUT_TYPE", todo) from error
    compiled = [(n, t) for n, t in lowering.describe(root) if n != "_w"]
    if compiled != shape:
        raise SqlError(
            f"the compiled view has columns {compiled}, the definition {shape}", todo="Report this as a defect."
        )
    return tuple(found)


def _key(root: Select | Union, relations: Relations, duck: Duck) -> tuple[str, ...]:
    """Output columns that hold a whole group key or primary key unchanged; empty when that cannot be seen."""
    if not isinstance(root, Select) or len(root.items) != 1:
        return ()
    item = root.items[0]
    if isinstance(item.node, Leaf) and isinstance(item.node.source, Base):
        parts = relations.table(item.node.source).schema.key if item.node.source.kind == "table" else ()
    elif isinstance(item.node, Select) and isinstance(item.node.items[0].node, Leaf) and item.alias == "g":
        source = item.node.items[0].node.source
        parts = () if isinstance(source, Base) else tuple(f"k{place}" for place in range(len(source.keys)))
    else:
        return ()
    by_sql = {sql: name for name, sql in reversed(root.columns)}
    found = [by_sql.get(duck.print(column(item.alias, part))) for part in parts]
    return tuple(name for name in found if name) if all(found) else ()
