"""Every error headwater raises on purpose, as one tree; anything else that escapes is our bug.

    HeadwaterError
    ├── UsageError                      the caller asked for something that makes no sense (exit code 2)
    ├── ConfigError                     headwater.toml or the environment
    ├── StorageError                    the disk
    │   ├── DiskFull        (retryable)
    │   │   └── DiskLow                 refused while there is still room for the rest
    │   └── CorruptFile                 a file's bytes are not the ones that were committed
    ├── CatalogError
    │   ├── Fenced                      a newer owner exists; this writer must stop
    │   │   └── FencedMember            a consumer that no longer owns the partition
    │   ├── PositionConflict            the stored position is not the expected one
    │   ├── TopicChanged    (retryable) a topic was dropped or repartitioned under a transaction
    │   └── DuplicateName
    ├── OwnedElsewhere                  another process runs this component
    ├── NameNotFound / AmbiguousName    table, view and topic names
    ├── PositionError
    │   ├── Expired, NotYet, NoCommonPosition
    │   └── FilesExpired    (retryable) files left the lake while they were read
    ├── SchemaError
    │   ├── IncompatibleSchema          the topic's compatibility refuses the new version
    │   ├── SchemaConflict              another version was registered meanwhile
    │   └── InvalidRecords              produced rows that do not fit the topic
    ├── ProducerError
    │   ├── BufferFull, NotDelivered    (retryable)
    │   ├── OffsetConflict              the partition does not end where the caller expected
    │   └── ProducerConflict            a batch number that was used for something else
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

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


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


@contextmanager
def about(query: str) -> Iterator[None]:
    """What the block raises remembers the whole SQL it is about (fact ``query``), for those who show its place."""
    try:
        yield
    except HeadwaterError as error:
        error.facts.setdefault("query", query)
        raise


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


class DiskLow(DiskFull):
    """Refused before the disk is full: reading, sealing and the catalog still work."""


class CorruptFile(StorageError):
    """Of records of the log, the facts say ``topic``, ``partition``, ``first_offset``, ``last_offset`` and ``path``."""


class CatalogError(HeadwaterError):
    pass


class Fenced(CatalogError):
    pass


class FencedMember(Fenced):
    pass


class PositionConflict(CatalogError):
    pass


class TopicChanged(CatalogError, Retryable):
    """Records were staged for a partition that is closed now; built again, the transaction finds the open ones."""


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


class FilesExpired(PositionError, Retryable):
    pass


class SchemaError(HeadwaterError):
    pass


class IncompatibleSchema(SchemaError):
    """A new version that a topic's compatibility refuses.

    ``rule`` is a stable code, ``field`` the first field that breaks it, ``version`` the number it breaks with,
    ``violations`` all of them, each with what would be accepted.
    """

    def __init__(
        self,
        what: str,
        *,
        rule: str,
        field: str,
        version: int,
        violations: Sequence[object] = (),
        where: str = "",
        todo: str = "",
    ) -> None:
        facts = {"rule": rule, "field": field, "version": version, "violations": tuple(violations)}
        super().__init__(what, where=where, todo=todo, **facts)
        self.rule = rule
        self.field = field
        self.version = version
        self.violations = tuple(violations)


class SchemaConflict(SchemaError):
    """Another version was registered since the proposed one was made from the newest."""


class InvalidRecords(SchemaError):
    """Rows that were refused: ``violations`` are the first of them, ``count`` how many there are in all."""

    def __init__(
        self, what: str, *, violations: Sequence[object] = (), count: int = 0, where: str = "", todo: str = ""
    ) -> None:
        super().__init__(what, where=where, todo=todo, violations=tuple(violations), count=count)
        self.violations = tuple(violations)
        self.count = count


class ProducerError(HeadwaterError):
    pass


class BufferFull(ProducerError, Retryable):
    pass


class NotDelivered(ProducerError, Retryable):
    """Not acknowledged within the time that the caller gave; unless it says so, nothing was given up."""


class OffsetConflict(ProducerError):
    """``partition`` ends at offset ``actual``, not at ``expected``; nothing was written."""

    def __init__(
        self, what: str, *, partition: int, expected: int, actual: int, where: str = "", todo: str = ""
    ) -> None:
        super().__init__(what, where=where, todo=todo, partition=partition, expected=expected, actual=actual)
        self.partition = partition
        self.expected = expected
        self.actual = actual


class ProducerConflict(ProducerError):
    """``stored`` is the number of the last batch that the log holds of this producer; None for none."""

    def __init__(self, what: str, *, stored: int | None = None, where: str = "", todo: str = "") -> None:
        super().__init__(what, where=where, todo=todo, stored=stored)
        self.stored = stored


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
