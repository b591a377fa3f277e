"""``*`` and ``COLUMNS(...)`` written out: which columns are meant, and the expression once for each of them.

What a pattern, a list, a lambda or ``* LIKE`` chooses, and what the results are called, is DuckDB's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import duckdb

from headwater.types import quote
from headwater_pipelines.compiler.plan import WEIGHT, Select, digest
from headwater_pipelines.compiler.scope import Scope
from headwater_pipelines.compiler.syntax import Tree, bare, is_column, rewrite, walk_own
from headwater_pipelines.compiler.whole import NoRule, unique

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering

NO_RULE = NoRule("columns", "COLUMNS")


def expanded(lowering: Lowering, expressions: list[Tree], scope: Scope) -> list[Tree]:
    """A select list with its stars written out."""
    found: list[Tree] = []
    for each in expressions:
        if each.get("class") == "STAR" and not each.get("columns"):
            found += _fields(lowering, each, scope) or star(each, scope)
        else:
            found += _columns(lowering, each, scope) if has_star(each) else [each]
    return found


def _fields(lowering: Lowering, node: Tree, scope: Scope) -> list[Tree]:
    """``address.*``: the fields of a struct, as unnest gives them."""
    name = str(node.get("relation_name") or "")
    if not name or any(item.answers([name]) for item in scope.items) or scope.find([name.lower()]) is None:
        return []
    if any(node.get(part) for part in ("exclude_list", "qualified_exclude_list", "replace_list", "rename_list")):
        raise NO_RULE
    return [lowering.duck.expression(f"unnest({quote(name)})")]


def has_star(expression: Any) -> bool:
    return any(part.get("class") == "STAR" for part in walk_own(expression))


def is_all(expression: Tree) -> bool:
    """Whether ORDER BY ALL: by all columns of the result."""
    return bool(expression.get("class") == "STAR" and expression.get("columns") and not expression.get("expr"))


def star(node: Tree, scope: Scope) -> list[Tree]:
    """The columns that ``*`` or ``t.*`` shows, each under the name that it has there."""
    wanted = str(node.get("relation_name") or "").lower()
    if wanted and not any(item.answers([wanted]) for item in scope.items):
        raise NO_RULE  # of a struct
    skip = {str(name).lower() for name in node.get("exclude_list") or ()}
    skip |= {entry["column"].lower() for entry in node.get("qualified_exclude_list") or ()}
    replace = {entry["key"].lower(): entry["value"] for entry in node.get("replace_list") or ()}
    renamed = {entry["key"]["column"].lower(): str(entry["value"]) for entry in node.get("rename_list") or ()}
    found, seen = [], set[str]()
    for item in scope.items:
        if item.hidden or (wanted and not item.answers([wanted])):
            continue
        for name in item.columns:
            merged = not wanted and name in scope.merged
            if name in skip or (merged and name in seen):
                continue
            seen.add(name)
            names = [name] if merged else [item.qualifier[-1], name]
            reference = {"class": "COLUMN_REF", "type": "COLUMN_REF", "column_names": names}
            expression = replace.get(name, {**reference, "query_location": node["query_location"]})
            shown = item.columns[name] if item.columns[name].lower() == name else name
            found.append({**expression, "alias": renamed.get(name, shown)})
    return found


def _columns(lowering: Lowering, expression: Tree, scope: Scope) -> list[Tree]:
    """An expression once for each column that its stars choose."""
    duck = lowering.duck
    first, *others = _outermost(expression)
    if any(bare(each) != bare(first) for each in others):
        raise NO_RULE
    if first.get("replace_list") or first.get("rename_list"):
        raise NO_RULE
    whole = star({"relation_name": first.get("relation_name"), "query_location": first["query_location"]}, scope)
    names = unique([str(each["alias"]) for each in whole])
    printed = [duck.print(scope.resolve(each)) for each in whole]
    rows = Select(scope.plan_items(), (), tuple(zip(names, printed, strict=True)))
    table = f"star_{digest(rows)}"
    duck.create_table(table, [(name, text) for name, text in lowering.describe(rows) if name != WEIGHT])
    plain = _unqualified(expression)
    chosen = _names(lowering, plain if not first.get("columns") else _unqualified({**first, "alias": ""}), table, scope)
    by_name = dict(zip((name.lower() for name in names), whole, strict=True))
    if any(name.lower() not in by_name for name in chosen):
        raise NO_RULE
    columns = [{**by_name[name.lower()], "alias": ""} for name in chosen]
    if not first.get("columns"):  # * LIKE 'a%' is a choice, and no value
        return [{**each, "alias": name} for each, name in zip(columns, chosen, strict=True)]
    if any(part.get("type") == "OPERATOR_UNPACK" for part in walk_own(expression)):
        return [{**_unpacked(expression, columns), "alias": expression.get("alias") or duck.print(plain)}]
    shown = _names(lowering, plain, table, scope)
    found = [rewrite(expression, _instead(each)) for each in columns]
    return [{**each, "alias": name} for each, name in zip(found, shown, strict=True)]


def _outermost(expression: Any) -> list[Tree]:
    """The stars of an expression, without those that one of them filters by a lambda."""
    found: list[Tree] = []

    def visit(part: Tree) -> Any:
        if part.get("class") == "STAR":
            found.append(part)
        return part if part.get("class") == "STAR" else None

    rewrite(expression, visit)
    return found


def _names(lowering: Lowering, expression: Tree, table: str, scope: Scope) -> list[str]:
    """The names of the columns that an expression with a star becomes."""
    own = scope.items[0].qualifier[-1] if len(scope.items) == 1 else table
    alias = f" AS {quote(expression['alias'])}" if expression.get("alias") else ""
    text = f"SELECT {lowering.duck.print(expression)}{alias} FROM {quote(table)} AS {quote(own)}"
    try:
        return [name for name, _ in lowering.duck.describe(text)]
    except duckdb.Error as error:
        raise NO_RULE from error


def _instead(reference: Tree) -> Callable[[Tree], Any]:
    return lambda part: reference if part.get("class") == "STAR" else None


def _unqualified(expression: Tree) -> Tree:
    def change(part: Tree) -> Any:
        if part.get("class") == "STAR" and part.get("relation_name"):
            return {**part, "relation_name": ""}
        return {**part, "column_names": part["column_names"][-1:]} if is_column(part) else None

    made: Tree = rewrite(expression, change)
    return made


def _unpacked(expression: Any, columns: list[Tree]) -> Any:
    """``coalesce(*COLUMNS(...))``: all columns as the arguments of one call."""
    if isinstance(expression, list):
        found = []
        for each in expression:
            inner = each.get("expression", each) if isinstance(each, dict) else each
            if isinstance(inner, dict) and inner.get("type") == "OPERATOR_UNPACK":
                found += [{**each, "expression": one} if "expression" in each else one for one in columns]
            else:
                found.append(_unpacked(each, columns))
        return found
    if isinstance(expression, dict):
        return {key: _unpacked(value, columns) for key, value in expression.items()}
    return expression
