"""What a definition may read: stored topics and earlier views, resolved by full or unique short name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from headwater.errors import AmbiguousName, NameNotFound
from headwater.lake.history import VALID_FROM, VALID_TO
from headwater.schema import Schema
from headwater_pipelines.compiler.plan import Base, Tree


@dataclass(frozen=True)
class Table:
    """A topic whose rows views can read."""

    base: Base
    schema: Schema

    @property
    def name(self) -> str:
        return self.base.shown

    def history(self) -> Table:
        """All versions of the rows, with the time span of each; NameNotFound where a version has no end to know."""
        taken = {VALID_FROM, VALID_TO} & {name.lower() for name in self.schema.names}
        if self.base.kind != "table" or taken:
            why = f"it has a column {min(taken)}" if taken else "its rows have no key"
            raise NameNotFound(f"{self.name} has no history that a view can read: {why}")
        return Table(Base(self.base.name, -self.base.id, "history"), versioned(self.schema))

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        return tuple((field.name, field.type) for field in self.schema.fields)


def versioned(schema: Schema) -> Schema:
    """A table's columns, and when a version of a row began and ended (NULL while it is the current one)."""
    spans = dict.fromkeys((VALID_FROM, VALID_TO), "TIMESTAMP WITH TIME ZONE")
    return Schema.of({**{field.name: field.type for field in schema.fields}, **spans}, key=schema.key)


@dataclass(frozen=True)
class ViewPlan:
    """An earlier view as the trees of later ones contain it."""

    name: str
    root: Tree
    columns: tuple[tuple[str, str], ...]
    used: tuple[tuple[Base, frozenset[str]], ...]


Relation = Table | ViewPlan


class Relations:
    """The name space of a definition. Names compare without case, as DuckDB does."""

    def __init__(self, relations: Iterable[Relation]) -> None:
        self.by_name = {self._full(relation).lower(): relation for relation in relations}

    def with_views(self, plans: Iterable[ViewPlan]) -> Relations:
        """The same, and some more views."""
        return Relations([*self.by_name.values(), *plans])

    def table(self, base: Base) -> Table:
        """The topic behind a stored relation."""
        found = self.by_name[base.name.lower()]
        if not isinstance(found, Table):
            raise TypeError(f"{base.name} is a view")
        return found.history() if base.kind == "history" else found

    def resolve(self, path: list[str]) -> Relation:
        """The relation of a dotted name; NameNotFound with near names, AmbiguousName with the candidates."""
        name = ".".join(path).lower()
        if len(path) > 1 and path[0].lower() == "history":
            table = self.resolve(path[1:])
            if not isinstance(table, Table):
                raise NameNotFound(f"view {table.name} has no history that a view can read")
            return table.history()
        if name in self.by_name:
            return self.by_name[name]
        found = [full for full in self.by_name if full.endswith("." + name)]
        if len(found) == 1:
            return self.by_name[found[0]]
        if found:
            names = sorted(self._full(self.by_name[full]) for full in found)
            raise AmbiguousName(f"{'.'.join(path)} is not unique", candidates=names)
        raise NameNotFound(
            f"there is no table or view {'.'.join(path)}",
            suggestions=self._near(name),
            todo="" if self._near(name) else "`headwater topic list` shows what there is.",
        )

    def _near(self, name: str) -> list[str]:
        known = {full: full for full in self.by_name} | {full.rpartition(".")[2]: full for full in self.by_name}
        hits = difflib.get_close_matches(name, list(known), 3, 0.6)
        return list(dict.fromkeys(self._full(self.by_name[known[hit]]) for hit in hits))

    @staticmethod
    def _full(relation: Relation) -> str:
        return relation.name if isinstance(relation, Table) else f"views.{relation.name}"
