"""``FROM (SELECT ..., row_number() OVER (...) AS place ...) WHERE place <= 3`` is the subquery with QUALIFY.

The rows of window functions are stored. Written as QUALIFY, only those are stored that are wanted, and a row that comes
first changes one row of the result instead of the place of every row behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headwater_pipelines.compiler.joins import conjuncts
from headwater_pipelines.compiler.syntax import Tree, is_column, rewrite, walk

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Cte, Ctes, Lowering


def qualified(lowering: Lowering, node: Tree, ctes: Ctes) -> tuple[Tree, Ctes]:
    """The SELECT, with those conditions of its WHERE in its subquery that read nothing but columns written there.

    Of a CTE that it reads alone the SELECT gets one of its own, for others may read all of its rows.
    """
    table = node["from_table"]
    cte = _cte(table, ctes)
    nested = table["subquery"]["node"] if table["type"] == "SUBQUERY" else {}
    inner = cte.query if cte is not None else nested
    if not node.get("where_clause") or inner.get("type") != "SELECT_NODE" or inner.get("modifiers"):
        return node, ctes
    if table.get("column_name_alias") or table.get("sample") or inner.get("sample"):
        return node, ctes
    shown = _shown(lowering, inner, ctes if cte is None else cte.visible)
    kept, moved = list[Tree](), list[Tree]()
    for part in conjuncts(node["where_clause"]):
        found = _inside(part, str(table["alias"] or table.get("table_name")).lower(), shown)
        (kept if found is None else moved).append(part if found is None else found)
    if not any(map(_has_window, moved)):
        return node, ctes
    changed = {**inner, "qualify": _all([*([inner["qualify"]] if inner.get("qualify") else []), *moved])}
    node = {**node, "where_clause": _all(kept) if kept else None}
    if cte is None:
        return {**node, "from_table": {**table, "subquery": {**table["subquery"], "node": changed}}}, ctes
    name = lowering.alias()
    place = {"table_name": name, "qualified_name": {"path": [name]}, "alias": table["alias"] or table["table_name"]}
    return {**node, "from_table": {**table, **place}}, {**ctes, name: replace(cte, query=changed)}


def _cte(table: Tree, ctes: Ctes) -> Cte | None:
    """The CTE that a FROM item names, if its columns have their own names."""
    path: list[str] = table["qualified_name"]["path"] if table["type"] == "BASE_TABLE" else []
    found = ctes.get(path[0].lower()) if len(path) == 1 else None
    return found if found is not None and not found.aliases else None


def _shown(lowering: Lowering, inner: Tree, ctes: Ctes) -> dict[str, Tree]:
    """The columns that a subquery writes out, by the name that they have outside beyond doubt."""
    listed = inner["select_list"]
    named = [(_name(each), each) for each in listed if each.get("class") != "STAR"]
    names = [name for name, _ in named]
    doubtful = {name for name in names if names.count(name) > 1}
    if len(named) < len(listed):  # a star may have a column of the same name
        doubtful |= {name.lower() for each in lowering.relations.by_name.values() for name, _ in each.columns}
        doubtful |= _written([inner["from_table"], *(cte.query for cte in ctes.values())])
    doubtful |= {name for name, each in named if any(part.get("class") == "SUBQUERY" for part in walk(each))}
    return {name: {**each, "alias": ""} for name, each in named if name and name not in doubtful}


def _inside(part: Tree, alias: str, shown: Mapping[str, Tree]) -> Tree | None:
    """A condition over the subquery's columns as one over its rows; None where it reads anything else."""
    if any(each.get("class") in ("SUBQUERY", "WINDOW", "LAMBDA", "STAR") for each in walk(part)):
        return None
    for each in walk(part):
        names = [name.lower() for name in each["column_names"]] if is_column(each) else []
        if names and (names[-1] not in shown or names[:-1] not in ([], [alias])):
            return None

    def change(each: Tree) -> Any:
        return shown[each["column_names"][-1].lower()] if is_column(each) else None

    found: Tree = rewrite(part, change)
    return found


def _written(trees: Iterable[Any]) -> set[str]:
    """Every name that a tree gives to something, or that a column in it has."""
    found: set[str] = set()
    for part in (part for tree in trees for part in walk(tree)):
        names = [part.get("alias"), *(part.get("column_names") or ()), *(part.get("column_name_alias") or ())]
        found |= {str(name).lower() for name in names if name}
    return found


def _name(expression: Tree) -> str:
    own = expression["column_names"][-1] if is_column(expression) else ""
    return str(expression.get("alias") or own).lower()


def _has_window(expression: Tree) -> bool:
    return any(part.get("class") == "WINDOW" for part in walk(expression))


def _all(parts: list[Tree]) -> Tree:
    if len(parts) == 1:
        return parts[0]
    return {
        "class": "CONJUNCTION",
        "type": "CONJUNCTION_AND",
        "alias": "",
        "query_location": parts[0]["query_location"],
        "query_location_length": 0,
        "children": parts,
    }
