"""What a live table asks: its query's answer, the log of what changed in it, or the versions of one of its rows.

All three are a SELECT with parameters, so all three are paged, sorted, filtered and copied alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlglot
from sqlglot import exp

from headwater import record
from headwater.catalog.records import Topic
from headwater.errors import UsageError
from headwater.lake import history
from headwater.lake.resolve import resolve
from headwater.types import lift_sql, quote

_SIMPLE: Final = {"expressions", "from_", "where", "order", "limit", "offset", "kind"}
"""Parts of a SELECT from one table that leave each of its rows at most once."""
_MULTIPLYING: Final = (exp.Explode, exp.UDTF, exp.Anonymous, exp.AggFunc, exp.Query)
_MAKE_A_VIEW: Final = (
    "Watch that table or view itself and filter in the panel, or make a view of this query: a view has a log."
)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A SELECT and its parameters. No two rows share the values of ``unique``; it is empty where rows may be equal.

    ``nullable``: whether one of these values may be NULL. A record's place never is, nor a table's key: PostgreSQL and
    what takes produced records refuse it. A group of a view's may be.
    """

    sql: str
    params: Mapping[str, Any] = field(default_factory=dict)
    unique: tuple[str, ...] = ()
    nullable: bool = True


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The one table, view or log whose rows a query shows, each at most once.

    ``outputs``: the query's name for each of the topic's columns that it shows as they are. ``why_no_log``: empty when
    what changed in the answer is what the topic's log says.
    """

    topic: Topic
    outputs: Mapping[str, str]
    unique: tuple[str, ...]
    nullable: bool
    why_no_log: str

    @property
    def key(self) -> tuple[str, ...]:
        """The answer's columns that hold the topic's key; empty when it has none or they are not all shown."""
        return _all(self.topic.schema.key, self.outputs)

    def log(self) -> Question:
        """What changed, the newest first."""
        schema = self.topic.schema
        has = record.metadata_schema(self.topic.kind, schema.arrow()).names
        shown = [each for each in schema.fields if each.name in self.outputs]
        moment = f"coalesce({record.COMMITTED_AT}, {record.INGESTED_AT})"
        place = (record.COMMIT, record.PARTITION, record.OFFSET)
        columns = [
            *(name for name in (record.OP, record.WEIGHT) if name in has),
            record.COMMIT,
            f"{moment if record.COMMITTED_AT in has else record.INGESTED_AT} AS {record.COMMITTED_AT}",
            *(f"{lift_sql(each.name, each.type)} AS {quote(self.outputs[each.name])}" for each in shown),
            record.PARTITION,
            record.OFFSET,
            *(name for name in (record.UNCHANGED,) if name in has),
        ]
        order = ", ".join(f"{name} DESC" for name in place)
        sql = f"SELECT {', '.join(columns)}\nFROM log.{quote(self.topic.name)}\nORDER BY {order}"
        return Question(sql=sql, unique=place, nullable=False)

    def history(self, values: Sequence[Any]) -> Question:
        """The versions of the row with this key, the newest first."""
        sql, params = history.of_key(self.topic, tuple(values))
        newest_first = f"{record.COMMIT} DESC, {record.OFFSET} DESC"
        return Question(
            sql=f"SELECT * FROM (\n{sql}\n) ORDER BY {newest_first}",
            params=params,
            unique=(record.COMMIT, record.OFFSET),
            nullable=False,
        )


def subject(query: str, columns: Sequence[str], topics: Sequence[Topic]) -> Subject | None:
    """What a query with these output columns is about; None when it is not the rows of one table, view or log."""
    references = resolve(query, topics).references
    select = sqlglot.parse_one(query, read="duckdb")
    if len(references) != 1 or references[0].facet == "history" or not isinstance(select, exp.Select):
        return None
    source = select.args["from_"].this if "from_" in select.args else None
    if not isinstance(source, exp.Table) or any(value for name, value in select.args.items() if name not in _SIMPLE):
        return None
    if any(value for name, value in source.args.items() if name not in ("this", "db", "catalog", "alias")):
        return None
    topic, facet = references[0].topic, references[0].facet
    own = topic.schema.names if facet == "rows" else [*topic.schema.names, record.PARTITION, record.OFFSET]
    outputs = _outputs(select.expressions, columns, own, source.alias_or_name)
    if outputs is None:
        return None
    key = topic.schema.key if facet == "rows" else (record.PARTITION, record.OFFSET)
    return Subject(
        topic=topic,
        outputs=outputs,
        unique=_all(key, outputs),
        nullable=facet == "rows" and topic.kind != "table",
        why_no_log=_why_no_log(select, facet, outputs, columns),
    )


def ask(query: str, params: Mapping[str, Any], found: Subject | None, show: str, key: Sequence[Any] | None) -> Question:
    """The question of a panel over ``query`` that shows ``state``, ``log`` or the ``history`` of a key.

    UsageError, with the reason, where there is no log or no history.
    """
    if show == "state":
        if found is None:
            return Question(sql=query, params=params)
        return Question(sql=query, params=params, unique=found.unique, nullable=found.nullable)
    if show == "log":
        if found is None or found.why_no_log:
            raise UsageError(f"there is no change log: {why_no_log(found)}", todo=_MAKE_A_VIEW)
        return found.log()
    if show == "history":
        if found is None or not found.key or key is None:
            raise UsageError(
                "rows of this query have no history", todo="It takes a table or view with its key columns."
            )
        return found.history(key)
    raise UsageError(f"a table cannot show {show!r}", todo="It shows state, log or history.")


def why_no_log(found: Subject | None) -> str:
    """Why what changed in a query's answer cannot be told; empty when it can."""
    return "this query is not the rows of one table or view" if found is None else found.why_no_log


def _outputs(
    terms: Sequence[exp.Expr], columns: Sequence[str], own: Sequence[str], source: str
) -> dict[str, str] | None:
    """The output name of each own column that is shown as it is; None when a term may repeat or join rows."""
    if any(term.find(*_MULTIPLYING) for term in terms):
        return None
    stars = [term for term in terms if isinstance(term, exp.Star)]
    if stars:
        bare = len(terms) == 1 and not any(stars[0].args.values())
        return {name: name for name in own if name in columns} if bare else None
    if len(terms) != len(columns):
        return None
    folded = {name.lower(): name for name in own}
    found = {}
    for term, output in zip(terms, columns, strict=True):
        column = term.unalias()
        if isinstance(column, exp.Column) and column.name.lower() in folded and column.table in ("", source):
            found[folded[column.name.lower()]] = output
    return found


def _why_no_log(select: exp.Select, facet: str, outputs: Mapping[str, str], columns: Sequence[str]) -> str:
    if facet != "rows":
        return "this query reads a log already"
    if any(select.args.get(part) for part in ("where", "limit", "offset")):
        return "this query shows only some of the rows"
    if set(outputs.values()) != set(columns):
        return "this query shows more than the columns as they are"
    return ""


def _all(names: Sequence[str], outputs: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(outputs[name] for name in names) if all(name in outputs for name in names) else ()
