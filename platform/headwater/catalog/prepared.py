"""Statements of the hot path, compiled once: what every commit runs while other writers wait.

SQLAlchemy makes a key of a statement, looks its compiled form up and processes its parameters at each execution;
that is several times what SQLite takes for a row. Here the text is made once, from the same Core expression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, CursorResult, Executable
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql import ClauseElement


class Prepared:
    """A statement whose parameters need no conversion: integers, texts, bytes and NULL.

    ``columns``: of an INSERT, those that are given.
    """

    def __init__(self, statement: Executable, columns: Iterable[str] | None = None) -> None:
        self._statement = statement
        self._columns = None if columns is None else list(columns)

    @cached_property
    def _compiled(self) -> tuple[str, Sequence[str], Mapping[str, Any]]:
        assert isinstance(self._statement, ClauseElement)
        compiled = self._statement.compile(dialect=sqlite.dialect(), column_keys=self._columns)
        return str(compiled), list(getattr(compiled, "positiontup", None) or ()), compiled.params

    def run(self, connection: Connection, values: Mapping[str, Any]) -> CursorResult[Any]:
        """Execute with these parameters; a row's columns are attributes by name."""
        text, names, constants = self._compiled
        given = {**constants, **values}
        return connection.exec_driver_sql(text, tuple(given[name] for name in names))

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Execute, and each row as a dict by column name: for thousands, which SQLAlchemy's own are slow for."""
        found = self.run(connection, values)
        names = list(found.keys())
        return [dict(zip(names, row, strict=True)) for row in found.all()]

    def run_many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute once for each set of parameters."""
        text, names, _ = self._compiled
        connection.exec_driver_sql(text, [tuple(row[name] for name in names) for row in rows])
