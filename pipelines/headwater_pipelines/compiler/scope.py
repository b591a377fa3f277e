"""Which column a name means: the relations in FROM first, then aliases of the select list, as DuckDB binds."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from headwater.errors import UnknownColumn, UnsupportedSql
from headwater_pipelines.compiler.clock import is_clock
from headwater_pipelines.compiler.plan import Item, Node
from headwater_pipelines.compiler.refusals import Refusal, value_keyword
from headwater_pipelines.compiler.syntax import Tree, column, field_of, is_column, rewrite_free

_ARROW = re.compile(r"\s*(,\s*\w+\s*)*\)?\s*->")
"""What follows the first parameter of a lambda function in the old notation, which DuckDB no longer takes."""


@dataclass(frozen=True)
class Visible:
    """A FROM item: the alias its SQL uses, the name parts it answers to, its columns (shown → own name)."""

    alias: str
    qualifier: tuple[str, ...]
    columns: dict[str, str]
    node: Node
    hidden: bool = False
    """Of the compiler, and no part of the definition: found by its alias alone."""

    def answers(self, parts: list[str]) -> bool:
        wanted = tuple(part.lower() for part in parts)
        return len(wanted) <= len(self.qualifier) and self.qualifier[len(self.qualifier) - len(wanted) :] == wanted


@dataclass
class Scope:
    """Names visible to the expressions of one SELECT. ``merged``: columns joined by USING → item and own name."""

    refuse: Refusal
    items: list[Visible] = field(default_factory=list)
    merged: dict[str, tuple[str, str]] = field(default_factory=dict)
    aliases: dict[str, Tree] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    """Items that stand beside the groups, not the rows."""

    def plan_items(self) -> tuple[Item, ...]:
        """The FROM items as a plan has them: several that one join gave are one."""
        return tuple(Item(alias, node) for alias, node in {item.alias: item.node for item in self.items}.items())

    def resolve(self, expression: Any) -> Any:
        """A copy in which every column is named by item and own name; UnknownColumn with a near name."""
        return self._resolve(expression, ())

    def _resolve(self, expression: Any, through: tuple[str, ...]) -> Any:
        return rewrite_free(expression, lambda node: self._column(node, through) if is_column(node) else None)

    def _column(self, node: Tree, through: tuple[str, ...]) -> Any:
        names: list[str] = node["column_names"]
        if names[0] in self.constants or self._is_clock(names[0]):
            return node
        for count in range(len(names), 0, -1):  # a column by all its names; else a field of one by the first of them
            found = self.find(names[:count])
            if found is not None:
                whole = {**column(found[0], found[1]), "query_location": node["query_location"]}
                return reduce(field_of, names[count:], whole)
        name = names[0].lower()
        if len(names) == 1 and name in self.aliases and name not in through:
            return self._resolve({**self.aliases[name], "alias": ""}, (*through, name))
        raise self._unknown(node)

    def _is_clock(self, alias: str) -> bool:
        return any(item.alias == alias and is_clock(item) for item in self.items)

    def find(self, names: list[str]) -> tuple[str, str] | None:
        """(item alias, own column name) of a possibly qualified column; None when there is none."""
        name = names[-1].lower()
        if len(names) == 1 and name in self.merged:
            return self.merged[name]
        for item in self.items:
            if name in item.columns and item.answers(names[:-1]) and (len(names) > 1 or not item.hidden):
                return item.alias, item.columns[name]
        return None

    def _unknown(self, node: Tree) -> UnknownColumn | UnsupportedSql:
        keyword = value_keyword(node)
        if keyword is not None:
            return keyword(self.refuse)
        names = node["column_names"]
        items = [item for item in self.items if item.answers(names[:-1])]
        known = [name for item in items or self.items for name in item.columns]
        near = difflib.get_close_matches(names[-1].lower(), known, 1, 0.5)
        line, place = self.refuse.definition.place(int(node["query_location"]))
        todo = "" if near else f"Columns: {', '.join(known[:12])}."
        if _ARROW.match(self.refuse.definition.text[int(node["query_location"]) + len(names[0]) :]):
            near, todo = [], f"A lambda function is written lambda {names[0]}: ..., the arrow is for JSON."
        return UnknownColumn(
            f'there is no column "{".".join(names)}"',
            suggestion=near[0] if near else "",
            where=f"line {line}, column {place}",
            todo=todo,
        )
