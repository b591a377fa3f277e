"""What an answer was made of: topics and views with the columns that were read, and the position of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import traverse_scope

from headwater.lake.html import render
from headwater.lake.plain import plain_table

if TYPE_CHECKING:
    from headwater.lake.resolve import Reference
    from headwater.lake.result import Result

_HEADS = ("what", "name", "columns", "position", "is made of")
_TYPES = ("VARCHAR", "VARCHAR", "VARCHAR", "BIGINT", "VARCHAR")


@dataclass(frozen=True, kw_only=True)
class Read:
    """One topic or view that a query reads.

    ``facet``: its current ``rows``, its ``history``, or its ``log``. ``columns`` in the order of the schema; all of
    them where the query does not tell. ``position``: the commit it was read at. ``made_of``: of a view, the full names
    of the topics and views that its definition reads.
    """

    name: str
    facet: str
    columns: tuple[str, ...]
    position: int
    made_of: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What a query reads, at one position. Shows itself as a table."""

    query: str
    position: int
    reads: tuple[Read, ...]

    def _rows(self) -> list[tuple[str | None, ...]]:
        return [
            (each.facet, each.name, ", ".join(each.columns), str(each.position), ", ".join(each.made_of) or None)
            for each in self.reads
        ]

    def __repr__(self) -> str:
        return plain_table(_HEADS, _TYPES, self._rows(), len(self.reads), self.position)

    def _repr_html_(self) -> str:
        return render(_HEADS, _TYPES, self._rows(), len(self.reads), len(self.reads), self.position)


def of_result(result: Result) -> Lineage:
    """The lineage of an answer."""
    query = result._query
    used = _used_columns(query, result.question.references)
    views = {f"views.{name}": tuple(made_of) for name, made_of in result.lake.lineage().items()}
    reads = [
        Read(
            name=reference.topic.name,
            facet=reference.facet,
            columns=used.get(reference.private) or tuple(reference.topic.schema.names),
            position=result.position if reference.topic.name in views else result.input_position,
            made_of=views.get(reference.topic.name, ()),
        )
        for reference in result.question.references
    ]
    return Lineage(query=query, position=result.position, reads=tuple(reads))


def _used_columns(query: str, references: tuple[Reference, ...]) -> Mapping[str, tuple[str, ...]]:
    """Private name → columns that the query names of it; nothing where that cannot be told."""
    from headwater.lake.resolve import resolve

    topics = list({reference.topic.id: reference.topic for reference in references}.values())
    text = resolve(query, topics).sql
    schema: dict[str, object] = {
        r.private: dict.fromkeys(r.topic.schema.names, "unknown") for r in references if r.facet == "rows"
    }
    try:
        tree = qualify(
            sqlglot.parse_one(text, read="duckdb"), schema=schema, dialect="duckdb", validate_qualify_columns=False
        )
        found: dict[str, set[str]] = {}
        for table, column in _columns(tree):
            found.setdefault(table, set()).add(column.lower())
    except SqlglotError:
        return {}
    return {
        r.private: tuple(name for name in r.topic.schema.names if name.lower() in found.get(r.private, ()))
        for r in references
    }


def _columns(tree: exp.Expr) -> Iterator[tuple[str, str]]:
    """(table, column) of every column that comes straight from a table."""
    for scope in traverse_scope(tree):
        for column in scope.columns:
            source = scope.sources.get(column.table)
            if isinstance(source, exp.Table):
                yield source.name, column.name
