"""Names in a query: which tables, views, logs and histories it reads, and the query over private names.

Only the table names are replaced, by their place in the text; the rest of the query reaches DuckDB as it was
typed, so DuckDB's own dialect and its own error positions hold.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import sqlglot
from sqlglot import exp

from headwater import record
from headwater.catalog.records import Topic
from headwater.errors import NameNotFound, SqlSyntax
from headwater.log import names
from headwater.types import quote

_VOLATILE = re.compile(
    r"\b(now|today|age|ago|random|uuid\w*|gen_random_uuid|current_\w+|localtime\w*|\w+_timestamp|setseed|nextval"
    r"|\w*sample|limit|fetch|top)\b",
    re.IGNORECASE,
)

_IN_LOG_ORDER = (record.COMMIT, record.OFFSET, record.INGESTED_AT, record.COMMITTED_AT)
"""Columns that grow with a partition's records, or nearly."""

Facet = Literal["rows", "log", "history"]

# It would warn of every statement that it does not know, which is refused here with a sentence of its own.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

PARSED_MAX = 128
"""Queries whose names are remembered: a panel asks the same one again and again."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One topic that a query reads, and which face of it."""

    topic: Topic
    facet: Facet

    @property
    def private(self) -> str:
        """The name that the query is rewritten to."""
        return f"{self.facet}:{self.topic.name}"


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A query over private names, and what those stand for. ``ordered``: it sorts its rows last.

    ``newest_first``: some of it is in descending order of where records stand in the log, or when they came.
    """

    sql: str
    references: tuple[Reference, ...]
    ordered: bool = False
    newest_first: bool = False


def resolve(query: str, topics: Sequence[Topic]) -> Resolved:
    """Find every name of the lake in ``query``.

    NameNotFound and AmbiguousName for names that mean nothing or too much; SqlSyntax when the text does not
    parse. Table functions and CTE names are left alone.
    """
    ordered, newest_first = _statement(query).args.get("order") is not None, _newest_first(query)
    edits: list[tuple[int, int, str]] = []
    references: dict[str, Reference] = {}
    for table in _tables(query):
        reference = _reference(table, topics)
        references[reference.private] = reference
        start, end = _span(table)
        alias = "" if table.alias or table.find_ancestor(exp.Query) is None else f" AS {quote(table.name)}"
        edits.append((start, end, quote(reference.private) + alias))
    for start, end, text in sorted(edits, reverse=True):
        query = query[:start] + text + query[end:]
    return Resolved(sql=query, references=tuple(references.values()), ordered=ordered, newest_first=newest_first)


@lru_cache(maxsize=PARSED_MAX)
def _newest_first(query: str) -> bool:
    terms = (each for each in _statement(query).find_all(exp.Ordered) if each.args.get("desc"))
    return any(isinstance(each.this, exp.Column) and each.this.name.lower() in _IN_LOG_ORDER for each in terms)


def may_differ(query: str) -> bool:
    """Whether the same query over the same rows may have another answer: it reads the clock, draws lots, or takes some
    rows of equal rank. A column's name may say so as well: then it is asked for all at once, no more."""
    return _VOLATILE.search(query) is not None


def mentioned(query: str) -> set[str]:
    """The last parts of the table names in a query, folded."""
    return {table.name.lower() for table in _tables(query)}


@lru_cache(maxsize=PARSED_MAX)
def _statement(query: str) -> exp.Expr:
    """The one query that was given; nobody changes it."""
    try:
        parsed = sqlglot.parse(query, read="duckdb")
    except sqlglot.errors.SqlglotError as error:
        raise SqlSyntax(_message(error), todo="Check the SQL near the marked place.") from error
    statements = [part for part in parsed if part is not None and not isinstance(part, exp.Semicolon)]
    if len(statements) != 1:
        raise SqlSyntax(f"{len(statements) or 'no'} statements were given", todo="Give one SELECT.")
    if not isinstance(statements[0], exp.Query | exp.Describe | exp.Summarize | exp.Values | exp.Pivot):
        word = statements[0].this if isinstance(statements[0], exp.Command) else statements[0].key
        how = "`.explain()` of a query's result shows plans." if str(word).upper() == "EXPLAIN" else ""
        raise SqlSyntax(
            f"{str(word).upper()} is not a query",
            todo=how
            or "The lake is read with SELECT; views are made with %%view, lake.create_view or `headwater view create`.",
        )
    return statements[0]


@lru_cache(maxsize=PARSED_MAX)
def _tables(query: str) -> tuple[exp.Table, ...]:
    """Table references in the query that are neither CTEs of an enclosing scope nor functions; nobody changes them."""
    tables = _statement(query).find_all(exp.Table)
    # A name of four parts, as a dead letter topic's is, is a Dot.
    named = (t for t in tables if isinstance(t.this, exp.Identifier | exp.Dot))
    return tuple(t for t in named if t.db or not _is_cte(t))


def _is_cte(table: exp.Table) -> bool:
    """Whether an enclosing WITH defines this name (a CTE does not see itself unless it is recursive)."""
    node: exp.Expr | None = table
    inside: list[exp.Expr] = []
    while node is not None:
        with_ = node.args.get("with_") or node.args.get("with")
        if isinstance(with_, exp.With):
            for cte in with_.expressions:
                if cte.alias.lower() == table.name.lower() and (with_.recursive or cte not in inside):
                    return True
        inside.append(node)
        node = node.parent
    return False


def _reference(table: exp.Table, topics: Sequence[Topic]) -> Reference:
    parts = [part.name for part in table.parts]
    facet: Facet = "rows"
    if len(parts) > 1 and parts[0].lower() in ("log", "history"):
        facet = "log" if parts[0].lower() == "log" else "history"
        parts = parts[1:]
    visible = [topic for topic in topics if not topic.hidden]
    topic = names.resolve(".".join(parts), visible)
    if facet == "history" and topic.kind not in ("table", "multiset", "changelog"):
        raise NameNotFound(f"{topic.name} has no versions", todo=f'Read its records as log."{topic.name}".')
    return Reference(topic=topic, facet=facet)


def _span(table: exp.Table) -> tuple[int, int]:
    places = [(part.meta["start"], part.meta["end"] + 1) for part in table.parts]
    return min(start for start, _ in places), max(end for _, end in places)


def _message(error: sqlglot.errors.SqlglotError) -> str:
    found = getattr(error, "errors", None)
    if not found:
        return str(error)
    first = found[0]
    marked = f"{first['start_context'] or ''}>>>{first['highlight'] or ''}<<<{first['end_context'] or ''}"
    return f"{first['description']} at line {first['line']}, column {first['col']}: {' '.join(marked.split())}"
