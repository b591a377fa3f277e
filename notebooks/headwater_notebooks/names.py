"""What may be named in an SQL cell: tables and views with their columns, functions, keywords. Looked up by beginning.

A ``Names`` is made anew when the catalog has other tables or columns, and shared by all key presses until then.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Final

import pyarrow as pa

from headwater import duck, record
from headwater.catalog.records import Topic
from headwater.lake.history import VALID_FROM, VALID_TO
from headwater.types import quote

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_PARAMETERS_SHOWN: Final = 4
KEYWORDS: Final = (
    "ALL", "AND", "ANTI JOIN", "AS", "ASC", "ASOF JOIN", "BETWEEN", "BY", "CASE", "CAST", "CROSS JOIN", "DESC",
    "DESCRIBE", "DISTINCT", "ELSE", "END", "EXCEPT", "EXCLUDE", "EXISTS", "FALSE", "FILTER", "FROM", "FULL JOIN",
    "GROUP BY", "GROUP BY ALL", "GROUPING SETS", "HAVING", "ILIKE", "IN", "INNER JOIN", "INTERSECT", "INTERVAL", "IS",
    "IS DISTINCT FROM", "IS NOT NULL", "IS NULL", "JOIN", "LATERAL", "LEFT JOIN", "LIKE", "LIMIT", "MATERIALIZED",
    "NATURAL JOIN", "NOT", "NULL", "NULLS FIRST", "NULLS LAST", "OFFSET", "ON", "OR", "ORDER BY", "OVER",
    "PARTITION BY", "PIVOT", "POSITIONAL JOIN", "QUALIFY", "RANGE BETWEEN", "RECURSIVE", "REPLACE", "RIGHT JOIN",
    "ROLLUP", "ROWS BETWEEN", "SELECT", "SELECT DISTINCT", "SEMI JOIN", "SUMMARIZE", "TABLESAMPLE", "THEN", "TRUE",
    "TRY_CAST", "UNION", "UNION ALL", "UNNEST", "UNPIVOT", "USING", "VALUES", "WHEN", "WHERE", "WINDOW", "WITH",
)  # fmt: skip


class Index:
    """Names that are found by how they begin, whatever their case."""

    def __init__(self, names: Iterable[str]) -> None:
        self._sorted = sorted((name.replace('"', "").lower(), name) for name in set(names))

    def starting(self, start: str) -> Iterator[str]:
        """Names that begin so, in order."""
        wanted = start.replace('"', "").lower()
        for place in range(bisect_left(self._sorted, (wanted, "")), len(self._sorted)):
            folded, name = self._sorted[place]
            if not folded.startswith(wanted):
                return
            yield name


class Names:
    """The catalog's names. ``pending``: views that have no columns yet, for nothing of them was published."""

    def __init__(self, topics: Sequence[Topic], pending: Iterable[str] = ()) -> None:
        self.topics = {topic.name.lower(): topic for topic in topics if topic.kind != "system" and not topic.hidden}
        self._by_last: dict[str, list[Topic]] = {}
        for topic in self.topics.values():
            self._by_last.setdefault(topic.name.rpartition(".")[2].lower(), []).append(topic)
        self._pending = tuple(pending)

    def columns(self, table: str, facet: str = "") -> tuple[str, ...]:
        """Columns of a table by its full or short name; of a ``facet`` log or history with those it adds."""
        wanted = table.replace('"', "").lower()
        found = self.topics.get(wanted) or next(iter(self._by_last.get(wanted.rpartition(".")[2], ())), None)
        if found is None:
            return ()
        return (*found.schema.names, *_ADDED.get(facet, _nothing)(found))

    @cached_property
    def tables(self) -> Index:
        """As a query may write them: short where that is unique, else in full."""
        return Index([*(self._shortest(topic) for topic in self.topics.values()), *map(written, self._pending)])

    @cached_property
    def full(self) -> Index:
        """Full names, each part as it is written."""
        return Index(_dotted(topic.name) for topic in self.topics.values())

    @cached_property
    def logs(self) -> Index:
        """As they stand behind ``log.``: one quoted name."""
        return Index(quote(topic.name) for topic in self.topics.values())

    @cached_property
    def histories(self) -> Index:
        """Tables and views that have versions."""
        kinds = ("table", "multiset", "changelog")
        return Index(self._shortest(topic) for topic in self.topics.values() if topic.kind in kinds)

    @cached_property
    def all_columns(self) -> Index:
        """Every column of every table: what may come when FROM is not written yet."""
        return Index(map(written, {name for topic in self.topics.values() for name in topic.schema.names}))

    def _shortest(self, topic: Topic) -> str:
        last = topic.name.rpartition(".")[2]
        return written(last) if len(self._by_last[last.lower()]) == 1 else _dotted(topic.name)


@lru_cache(maxsize=1)
def functions() -> tuple[Index, dict[str, str]]:
    """The engine's functions, and of each what it takes and returns: "function (string, start) → VARCHAR"."""
    query = """SELECT function_name, arg_max(parameters, len(parameters)), any_value(return_type),
        any_value(function_type) FROM duckdb_functions()
        WHERE function_type IN ('scalar', 'aggregate', 'macro', 'window')
        AND regexp_full_match(function_name, '[a-z][a-z0-9_]*')
        AND NOT regexp_matches(function_name, '^(duckdb|pg|has)_') GROUP BY function_name"""
    with duck.connect() as own:
        found = own.execute(query).fetchall()
    return Index(name for name, *_ in found), {name: _signature(*rest) for name, *rest in found}


def written(name: str) -> str:
    """A name as a query has to write it."""
    return name if _PLAIN.fullmatch(name) else quote(name)


def _signature(parameters: list[str], returns: str | None, kind: str) -> str:
    shown = parameters[:_PARAMETERS_SHOWN] + (["…"] if len(parameters) > _PARAMETERS_SHOWN else [])
    kind = "function" if kind in ("scalar", "macro") else kind
    return f"{kind} ({', '.join(shown)})" + (f" → {returns}" if returns else "")


def _dotted(name: str) -> str:
    return ".".join(written(part) for part in name.split("."))


def _log_columns(topic: Topic) -> tuple[str, ...]:
    return (*record.metadata_schema(topic.kind, pa.schema([])).names, *record.IMPLICIT)


def _history_columns(topic: Topic) -> tuple[str, ...]:
    own = (VALID_TO, record.OP) if topic.kind == "table" else (record.WEIGHT,)
    return (VALID_FROM, *own, record.COMMIT, record.OFFSET)


def _nothing(_: Topic) -> tuple[str, ...]:
    return ()


_ADDED: Final[dict[str, Callable[[Topic], tuple[str, ...]]]] = {"log": _log_columns, "history": _history_columns}
