"""Completion inside SQL cells, from the catalog: tables and views, their columns, keywords.

It works through the kernel, so in every front end. The catalog is read at most every two seconds, and not
before the lake was opened by a cell: a key press never opens one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)

from headwater.types import quote
from headwater_notebooks.session import Session

FRESH_S: Final = 2.0
_CELL = re.compile(r"\s*%%(sql|hw|view)\b")
_LINE = re.compile(r"\s*(\w+\s*=\s*)?%(sql|hw)\b")
_ALIAS = re.compile(r'(?:from|join|,)\s+([\w."]+)(?:\s+(?:as\s+)?([^\W\d]\w*))?', re.IGNORECASE)
_AFTER_TABLE = re.compile(r"\b(from|join)\s+[\w.\"]*$|\b(from|join)\s+[\w.\", ]+,\s*[\w.\"]*$", re.IGNORECASE)
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_KEYWORDS: Final = (
    "SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "HAVING", "LIMIT", "OFFSET", "JOIN", "LEFT JOIN", "INNER JOIN",
    "ON", "USING", "AS", "AND", "OR", "NOT", "IN", "IS NULL", "IS NOT NULL", "BETWEEN", "LIKE", "ILIKE", "EXISTS",
    "CASE", "WHEN", "THEN", "ELSE", "END", "DISTINCT", "UNION ALL", "EXCEPT", "INTERSECT", "WITH", "VALUES", "ASC",
    "DESC", "NULLS FIRST", "NULLS LAST", "OVER", "PARTITION BY", "FILTER", "INTERVAL", "CAST", "TRUE", "FALSE", "NULL",
    "COUNT", "SUM", "AVG", "MIN", "MAX", "COALESCE", "QUALIFY",
)  # fmt: skip


@dataclass(frozen=True)
class Names:
    """What the catalog held: short or full name of each table or view, and its columns."""

    columns: Mapping[str, tuple[str, ...]]
    taken: float

    def of(self, table: str) -> tuple[str, ...]:
        """Columns of a table by any of its names; empty when it is unknown."""
        wanted = table.replace('"', "").lower()
        for name, columns in self.columns.items():
            if name.lower() == wanted or name.lower().endswith("." + wanted):
                return columns
        return ()


class Completion:
    """The matcher of one shell."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._names = Names({}, 0.0)

        @context_matcher(identifier="headwater")  # type: ignore[untyped-decorator]  # IPython types it no further
        def matcher(context: CompletionContext) -> SimpleMatcherResult:
            return self._match(context)

        self.matcher = matcher

    def names(self) -> Names:
        """The catalog's names, at most ``FRESH_S`` old."""
        if self.session.opened and time.monotonic() - self._names.taken > FRESH_S:
            topics = self.session.lake.topics()
            found = {topic.name: topic.schema.names for topic in topics if topic.kind != "system" and not topic.hidden}
            self._names = Names({name: tuple(columns) for name, columns in found.items()}, time.monotonic())
        return self._names

    def _match(self, context: CompletionContext) -> SimpleMatcherResult:
        line = context.full_text.splitlines()[context.cursor_line] if context.full_text.strip() else ""
        in_cell = bool(_CELL.match(context.full_text)) and context.cursor_line > 0
        if not (in_cell or _LINE.match(line)):
            return SimpleMatcherResult(completions=[])
        before = line[: context.cursor_position]
        texts = complete(context.token, context.full_text, before, self.names())
        return SimpleMatcherResult(
            completions=[SimpleCompletion(text, type=kind) for text, kind in texts], suppress=True
        )


def complete(token: str, text: str, before: str, names: Names) -> list[tuple[str, str]]:
    """What may stand at the cursor: (text that replaces ``token``, kind), the likeliest first."""
    owner, dot, start = token.rpartition(".")
    aliases = {alias.lower(): table for table, alias in _ALIAS.findall(text) if alias}
    if dot and (columns := names.of(aliases.get(owner.lower(), owner))):
        return [(f"{owner}.{_written(name)}", "column") for name in _starting(start, columns)]
    tables = [(name, "table") for name in _starting(token, _table_names(names))]
    if _AFTER_TABLE.search(before):
        return tables
    used = {column for table, _ in _ALIAS.findall(text) for column in names.of(table)}
    used = used or {column for columns in names.columns.values() for column in columns}  # FROM is not written yet
    own = [(_written(name), "column") for name in _starting(token, sorted(used))]
    keywords = [
        (word if token[:1].isupper() or not token else word.lower(), "keyword") for word in _starting(token, _KEYWORDS)
    ]
    return [*own, *tables, *keywords]


def _table_names(names: Names) -> list[str]:
    """Short names where they are unique, else full ones, as a query may write them."""
    short = [name.rpartition(".")[2] for name in names.columns]
    found = []
    for full, last in zip(names.columns, short, strict=True):
        parts = [last] if short.count(last) == 1 else full.split(".")
        found.append(".".join(_written(part) for part in parts))
    return sorted(found)


def _starting(start: str, names: Iterable[str]) -> Sequence[str]:
    wanted = start.replace('"', "").lower()
    return [name for name in names if name.replace('"', "").lower().startswith(wanted)]


def _written(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else quote(name)
