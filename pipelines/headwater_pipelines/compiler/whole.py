"""Any query at all: the relations that it reads as inputs, and its own text over them, computed anew on each change.

What the other modules have no rule for ends here, at the smallest query that contains it. Everything stays DuckDB's:
names, scopes, correlation, recursion. Only the names of stored relations, earlier views and outer CTEs are replaced.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headwater.types import quote
from headwater_pipelines.compiler.plan import (
    WEIGHT,
    Clock,
    Extreme,
    Input,
    Item,
    Leaf,
    Recompute,
    Select,
    Tree,
    column_names,
    digest,
    sources,
)
from headwater_pipelines.compiler.relations import Table
from headwater_pipelines.compiler.syntax import Tree as Syntax
from headwater_pipelines.compiler.syntax import is_column, scoped, unqualified, walk

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Cte, Lowering

NESTED = re.compile(r"STRUCT|MAP|UNION|.*\]")
"""Types whose NULLs inside min and max compare otherwise than ORDER BY, and the comparison of two values, do."""


class NoRule(Exception):
    """A part of a query for which there is no rule of its own: the query around it is computed as a whole."""

    def __init__(self, operator: str, reason: str) -> None:
        super().__init__(operator, reason)
        self.operator = operator
        self.reason = reason


def whole(lowering: Lowering, node: Syntax, ctes: Mapping[str, Cte], why: NoRule) -> Select:
    """The query as one Recompute without keys."""
    inputs: dict[str, Input] = {}
    known = [str(name) for name in lowering.relations.by_name]

    def change(part: Syntax, visible: frozenset[str]) -> Any:
        if is_column(part):
            return {**part, "column_names": unqualified(part["column_names"], known)}
        if part.get("type") != "BASE_TABLE" or "qualified_name" not in part:
            return None
        path = part["qualified_name"]["path"]
        if len(path) == 1 and path[0].lower() in visible:
            return None
        tree = _read(lowering, path, ctes, node)
        each = input_of(lowering, tree)
        inputs[each.name] = each
        place = {"table_name": each.name, "qualified_name": {"path": [each.name]}}
        return {**part, "schema_name": "", "catalog_name": "", **place, "alias": part["alias"] or path[-1]}

    text = lowering.duck.print_query(scoped(node, change))
    if why.reason == "CONSTANT" and inputs:
        timed = all(isinstance(source, Clock) for each in inputs.values() for source in sources(each.node))
        why = NoRule("values", "CLOCK_VALUES" if timed else "SUBQUERY")
    return recomputed(lowering, tuple(inputs.values()), text, (), why)


def input_of(lowering: Lowering, tree: Tree, keys: tuple[str, ...] = ()) -> Input:
    """The tree under a name of its own, known to the type checker."""
    name = f"hw_{digest((tree, keys))}"
    lowering.duck.create_table(name, [(own, text) for own, text in lowering.describe(tree) if own != WEIGHT])
    return Input(name, tree, keys)


def recomputed(
    lowering: Lowering,
    inputs: tuple[Input, ...],
    query: str,
    keys: tuple[str, ...],
    why: NoRule,
    extremes: tuple[Extreme, ...] | None = None,
    *,
    shows_keys: bool = False,
) -> Select:
    """The columns of a query over the inputs, without its first ones, the keys, under unique names of their own.

    ``extremes``: as of ``Recompute``, of the last columns. ``shows_keys``: the keys are among the columns.
    """
    shape = lowering.describe_query(query)
    hidden = 0 if shows_keys else len(keys)
    names = unique([name for name, _ in shape[hidden:]])
    plain = ", ".join(quote(f"c{place}") for place in range(len(shape)))
    outputs = tuple((f"c{place}", text) for place, (_, text) in enumerate(shape))
    own = tuple(name for name, _ in outputs[: len(keys)])
    if extremes is not None:
        last = outputs[len(outputs) - len(extremes) :]
        extremes = tuple(replace(each, column=name) for each, (name, _) in zip(extremes, last, strict=True))
    rows = f"SELECT * FROM ({query}) AS q({plain})"
    source = Recompute(inputs, rows, outputs, own, why.operator, why.reason, extremes)
    lowering.declare(source)
    shown = zip(names, outputs[hidden:], strict=True)
    return Select((Item("r", Leaf(source)),), (), tuple((name, f"r.{quote(column)}") for name, (column, _) in shown))


def unique(names: list[str]) -> list[str]:
    """Names made unique for nested use: the second ``id`` is ``id_1``, as DuckDB shows it."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        count = seen.get(name.lower(), 0)
        seen[name.lower()] = count + 1
        found.append(f"{name}_{count}" if count else name)
    return found


def _read(lowering: Lowering, path: list[str], ctes: Mapping[str, Cte], query: Syntax) -> Tree:
    """The rows of a relation that a query names, with the columns that it may read."""
    cte = ctes.get(path[0].lower()) if len(path) == 1 else None
    if cte is not None:
        plan = lowering.query(cte.query, cte.visible)
        own = column_names(plan)
        shown = [*cte.aliases, *own[len(cte.aliases) :]]
        return Select((Item("c", plan),), (), tuple((n, f"c.{quote(o)}") for n, o in zip(shown, own, strict=True)))
    relation = lowering.relations.resolve(path)
    if not isinstance(relation, Table):
        lowering.read_view(relation)
        return relation.root
    lowering.declare(relation.base)
    names = [name for name, _ in relation.columns]
    wanted = named(query)
    kept = [name for name in names if wanted is None or name.lower() in wanted or path[-1].lower() in wanted]
    kept = kept or names[:1]
    lowering.used[relation.base] |= set(kept)
    return Select((Item("t", Leaf(relation.base)),), (), tuple((name, f"t.{quote(name)}") for name in kept))


def named(query: Syntax) -> Counter[str] | None:
    """Every name that could be a column's in a query, and how often; None when a star, or a natural join, means all."""
    found = Counter[str]()
    for part in walk(query):
        if part.get("class") == "STAR" or part.get("ref_type") == "NATURAL":
            return None
        for kind in ("column_names", "using_columns"):
            found.update(str(name).lower() for name in part.get(kind) or ())
        if "aliases" in part or "column_name_alias" in part:
            found.update(str(name).lower() for name in part.get("column_name_alias") or ())
            if part.get("column_name_alias") and part.get("type") == "BASE_TABLE":
                return None  # names stand for columns by their place
    return found
