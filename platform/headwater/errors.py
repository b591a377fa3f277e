"""Every error headwater raises on purpose, as one tree; anything else that escapes is our bug.

    HeadwaterError
    ├── UsageError                      the caller asked for something that makes no sense (exit code 2)
    ├── ConfigError                     headwater.toml or the environment
    ├── StorageError                    the disk
    │   ├── DiskFull        (retryable)
    │   └── CorruptFile                 a file's bytes are not the ones that were committed
    ├── CatalogError
    │   ├── Fenced                      a newer owner exists; this writer must stop
    │   ├── PositionConflict            the stored position is not the expected one
    │   └── DuplicateName
    ├── OwnedElsewhere                  another process runs this component
    ├── NameNotFound / AmbiguousName    table, view and topic names
    ├── PositionError
    │   ├── Expired, NotYet, NoCommonPosition
    ├── SchemaError
    ├── SourceError
    │   ├── SourceUnreachable, SlotInUse (retryable)
    │   └── SourceNotReady, SourceGap, PublicationMissing, ShapeChanged
    ├── SqlError
    │   └── UnsupportedSql, UnknownColumn, SqlSyntax
    └── PipelineError
        └── StateMismatch

A message is one paragraph: what happened, where, what to do. Facts are attributes, so that callers never
parse prose. ``Retryable`` marks what may succeed when tried again unchanged; the supervisor decides by it.
"""

from __future__ import annotations

from collections.abc import Sequence


class Retryable:
    """Marker: the same attempt may succeed later, nothing has to be changed by a person first."""


class HeadwaterError(Exception):
    """Root of the tree: what happened, where it happened, what to do about it."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", todo: str = "", **facts: object) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.todo = todo
        self.facts = facts

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        remedy = f" {self.todo}" if self.todo else ""
        return f"{self.what}{place}.{remedy}" if not self.what.endswith((".", "?")) else f"{self.what}{place}{remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.todo, self.facts)


def _rebuild(kind: type[HeadwaterError], what: str, where: str, todo: str, facts: dict[str, object]) -> HeadwaterError:
    error = kind.__new__(kind)
    HeadwaterError.__init__(error, what, where=where, todo=todo, **facts)
    for name, value in facts.items():
        setattr(error, name, value)
    return error


class UsageError(HeadwaterError):
    exit_code = 2


class ConfigError(HeadwaterError):
    pass


class StorageError(HeadwaterError):
    pass


class DiskFull(StorageError, Retryable):
    pass


class CorruptFile(StorageError):
    pass


class CatalogError(HeadwaterError):
    pass


class Fenced(CatalogError):
    pass


class PositionConflict(CatalogError):
    pass


class DuplicateName(CatalogError):
    pass


class OwnedElsewhere(HeadwaterError):
    pass


class NameNotFound(HeadwaterError):
    """An unknown table, view or topic; ``suggestions`` are near names that exist."""

    def __init__(self, what: str, *, suggestions: Sequence[str] = (), where: str = "", todo: str = "") -> None:
        if suggestions and not todo:
            todo = f"Did you mean {' or '.join(suggestions)}?"
        super().__init__(what, where=where, todo=todo, suggestions=tuple(suggestions))
        self.suggestions = tuple(suggestions)


class AmbiguousName(HeadwaterError):
    """A short name that several topics answer to; ``candidates`` are their full names."""

    def __init__(self, what: str, *, candidates: Sequence[str], where: str = "", todo: str = "") -> None:
        todo = todo or f"Write one of {', '.join(candidates)}."
        super().__init__(what, where=where, todo=todo, candidates=tuple(candidates))
        self.candidates = tuple(candidates)


class PositionError(HeadwaterError):
    pass


class Expired(PositionError):
    pass


class NotYet(PositionError):
    pass


class NoCommonPosition(PositionError):
    pass


class SchemaError(HeadwaterError):
    pass


class SourceError(HeadwaterError):
    pass


class SourceUnreachable(SourceError, Retryable):
    pass


class SourceNotReady(SourceError):
    pass


class SlotInUse(SourceError, Retryable):
    pass


class SourceGap(SourceError):
    pass


class PublicationMissing(SourceError):
    pass


class ShapeChanged(SourceError):
    pass


class SqlError(HeadwaterError):
    pass


class SqlSyntax(SqlError):
    pass


class UnknownColumn(SqlError):
    """A column no relation in scope has; ``suggestion`` is the nearest that exists, or empty."""

    def __init__(self, what: str, *, suggestion: str = "", where: str = "", todo: str = "") -> None:
        if suggestion and not todo:
            todo = f'Did you mean "{suggestion}"?'
        super().__init__(what, where=where, todo=todo, suggestion=suggestion)
        self.suggestion = suggestion


class UnsupportedSql(SqlError):
    """SQL that cannot be maintained; refused before anything is created.

    ``code`` is a stable reason code, ``sql`` the offending text, ``line`` and ``column`` where it
    stands in the definition (1-based; 0 when the parser gave no place).
    """

    def __init__(self, what: str, *, code: str, sql: str = "", line: int = 0, column: int = 0, todo: str = "") -> None:
        place = f"line {line}, column {column}" if line else ""
        super().__init__(f"{what} [{code}]", where=place, todo=todo, code=code, sql=sql, line=line, column=column)
        self.code = code
        self.sql = sql
        self.line = line
        self.column = column


class PipelineError(HeadwaterError):
    pass


class StateMismatch(PipelineError):
    pass
