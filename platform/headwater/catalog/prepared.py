"""Statements of the hot path, compiled once: what every commit runs while other writers wait.

SQLAlchemy makes a key of a statement, looks its compiled form up, processes its parameters and wraps its rows at each
execution; that is several times what SQLite takes for a row. Here the text is made once, from the same Core
expression, and goes to the driver of the caller's connection, in the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Executable, Select
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql import ClauseElement

R = TypeVar("R")
_NOTHING: Mapping[str, Any] = {}


def driver(connection: Connection) -> sqlite3.Connection:
    """SQLite's own connection beneath this one, in the same transaction."""
    return cast(sqlite3.Connection, connection.connection.dbapi_connection)


class Prepared:
    """A statement whose parameters need no conversion: integers, texts, bytes and NULL.

    ``columns``: of an INSERT, those that are given. A row's columns are attributes by name. Raises sqlite3.Error.
    """

    def __init__(self, statement: Executable, columns: Iterable[str] | None = None) -> None:
        self._statement = statement
        self._columns = None if columns is None else list(columns)
        self._row: Any = None

    @cached_property
    def _compiled(self) -> tuple[str, Sequence[str], Mapping[str, Any]]:
        assert isinstance(self._statement, ClauseElement)
        compiled = self._statement.compile(dialect=sqlite.dialect(), column_keys=self._columns)
        return str(compiled), list(getattr(compiled, "positiontup", None) or ()), compiled.params

    def run(self, connection: Connection, values: Mapping[str, Any] = _NOTHING) -> None:
        """Execute with these parameters."""
        self._execute(connection, values).close()

    def all(self, connection: Connection, values: Mapping[str, Any] = _NOTHING) -> list[Any]:
        """Execute, and the rows."""
        cursor = self._execute(connection, values)
        return list(map(self._made(cursor), cursor.fetchall()))

    def first(self, connection: Connection, values: Mapping[str, Any] = _NOTHING) -> Any:
        """Execute, and the first row; None when there is none."""
        found = self.all(connection, values)
        return found[0] if found else None

    def value(self, connection: Connection, values: Mapping[str, Any] = _NOTHING) -> Any:
        """Execute, and the first column of the first row; None when there is none."""
        found = self._execute(connection, values).fetchall()
        return found[0][0] if found else None

    def records(self, connection: Connection, kind: type[R], values: Mapping[str, Any] = _NOTHING) -> list[R]:
        """Execute, and each row as a frozen dataclass whose fields are the columns.

        Its ``__init__`` sets field by field, which readers of thousands of rows feel; it is not called.
        """
        cursor = self._execute(connection, values)
        assert isinstance(self._statement, Select)
        names = self._statement.selected_columns.keys()  # as asked for; what SQLite calls them stands in the file
        made = []
        for row in cursor.fetchall():
            each = object.__new__(kind)
            vars(each).update(zip(names, row, strict=True))
            made.append(each)
        return made

    def run_many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute once for each set of parameters."""
        text, names, _ = self._compiled
        driver(connection).executemany(text, [tuple(row[name] for name in names) for row in rows]).close()

    def _execute(self, connection: Connection, values: Mapping[str, Any]) -> sqlite3.Cursor:
        text, names, constants = self._compiled
        given = {**constants, **values}
        return driver(connection).execute(text, [given[name] for name in names])

    def _made(self, cursor: sqlite3.Cursor) -> Any:
        if self._row is None:
            make: Any = namedtuple  # a type checker wants to know the columns
            self._row = make("Row", [column[0] for column in cursor.description])._make
        return self._row
