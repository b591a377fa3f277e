"""Event time: WITH (watermark = ...), what is read of a topic that has one, and EMIT ON WINDOW CLOSE.

    WITH (watermark = 'created_at - INTERVAL 10 minutes', grace = '1 minute')
    WITH (watermark = 'orders: created_at - INTERVAL 10 minutes; payments: paid_at - INTERVAL 1 minute')

A topic with a watermark stands in the plan as a ``Base`` of its own, without the rows that came late. ``watermark()``
is to it what ``now()`` is to the clock: EMIT ON WINDOW CLOSE means that every TUMBLE, HOP and SESSION in the
definition gives ``WHERE window_end <= watermark() - grace``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import duckdb

from headwater.errors import SqlError, UnknownColumn
from headwater.schema import Schema
from headwater.types import quote
from headwater_pipelines.compiler.clock import is_watermark
from headwater_pipelines.compiler.definition import Definition
from headwater_pipelines.compiler.forgetting import WINDOW
from headwater_pipelines.compiler.plan import Base, EventTime, TimeColumn
from headwater_pipelines.compiler.refusals import Refusal
from headwater_pipelines.compiler.relations import Relation, Relations, Table
from headwater_pipelines.compiler.syntax import Duck, Tree, is_column, rewrite, scoped, walk
from headwater_pipelines.compiler.timewindows import MARK
from headwater_pipelines.compiler.whole import named
from headwater_pipelines.compiler.windowtimes import words

OPTIONS = ("watermark", "grace", "idle", "ttl", "watermark_by")
FORM = "'column - INTERVAL 10 minutes', or 'table: column - INTERVAL 10 minutes; ...' for several tables"
_ENTRY = re.compile(r"""\s*(?:(?P<table>[\w."]+)\s*:(?!:))?(?P<time>.*)""", re.DOTALL)
_TIMES = {
    **dict.fromkeys(("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), "TIMESTAMP"),
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP WITH TIME ZONE",
}
"""The watermark's type by that of the column."""


def event_time(definition: Definition, reads: Sequence[str], relations: Relations, duck: Duck) -> EventTime | None:
    """What the options say, None without a watermark; UnsupportedSql quotes the option that is not understood."""
    return _Options(definition, relations, duck).read(reads)


def admitting(relations: Relations, timed: EventTime) -> Relations:
    """The relations with the topics that have a watermark in place of all their rows."""
    found: list[Relation] = []
    for relation in relations.by_name.values():
        if isinstance(relation, Table) and any(each.topic == relation.base.id for each in timed.columns):
            base = Base(relation.base.name, relation.base.id, relation.base.kind, timed)
            # A late update leaves two rows of one key: the row before it, and later the one after.
            found.append(Table(base, Schema.of(dict(relation.columns))))
        else:
            found.append(relation)
    return Relations(found)


def living(tree: Tree, timed: EventTime, relations: Relations, duck: Duck) -> Tree:
    """The definition without the rows that are older than the ``ttl``; ``relations`` are admitting."""
    if timed.ttl_us is None:
        return tree
    ttl = words((0, 0, timed.ttl_us))
    names = named(tree)

    def change(node: Tree, visible: frozenset[str]) -> Any:
        if node.get("type") != "BASE_TABLE" or "qualified_name" not in node:
            return None
        path = node["qualified_name"]["path"]
        relation = None if len(path) == 1 and path[0].lower() in visible else relations.resolve(path)
        if not isinstance(relation, Table) or relation.base.event_time is None:
            return None
        time = quote(timed.column(relation.base.id))
        shown = [quote(name) for name, _ in relation.columns if names is None or name.lower() in names] or [time]
        lives = f"{time} > watermark() - INTERVAL '{ttl}' OR {time} IS NULL"
        query = duck.parse(f"SELECT {', '.join(shown)} FROM (SELECT 1) AS hw_all WHERE {lives}", _nowhere)
        shell = query["from_table"]
        query["from_table"] = {**node, "alias": "", "column_name_alias": []}
        outer = {"alias": node["alias"] or path[-1], "column_name_alias": node.get("column_name_alias") or []}
        return {**shell, **outer, "subquery": {**shell["subquery"], "node": query}}

    changed: Tree = scoped(tree, change)
    return changed


def windowed(tree: Tree, timed: EventTime, relations: Relations) -> EventTime:
    """Notes how long windows are, where nothing is read of the topics but windows over their event time."""
    calls = [part[MARK] for part in walk(tree) if MARK in part]
    inside = 0
    for call in calls:
        found = relations.resolve(call["of"]) if call["of"] else None
        topic = found.base.id if isinstance(found, Table) else None
        column = next((each.column for each in timed.columns if each.topic == topic), None)
        inside += column is not None and call["time"].rpartition(".")[2].strip('"').lower() == column.lower()
    reads = sum(part.get("type") == "BASE_TABLE" and "qualified_name" in part for part in walk(tree))
    if inside < reads:
        return timed
    sizes = [call["size_us"] for call in calls]
    return replace(timed, window_us=max(sizes) if all(sizes) else 0)


def closing(tree: Tree, timed: EventTime, duck: Duck, refuse: Refusal) -> Tree:
    """The definition with windows that are closed in place of all; ``tree`` has TUMBLE, HOP and SESSION rewritten."""
    if not any(MARK in part for part in walk(tree)):
        todo = "Group by window_start and window_end of TUMBLE(...), HOP(...) or SESSION(...)."
        raise refuse.at(None, "EMIT ON WINDOW CLOSE needs a window", "EMIT", todo, "EMIT")
    grace = f" - INTERVAL '{words((0, 0, timed.grace_us))}'" if timed.grace_us else ""

    def change(node: Tree) -> Any:
        if MARK not in node:
            return None
        inner = {key: rewrite(value, change) for key, value in node.items()}
        names = ", ".join(quote(each["alias"] or each["column_names"][-1]) for each in _shown(inner))
        kind, last = node[MARK]["ends"]
        # The last end of a window moves less often than the watermark.
        mark = last.format(at=f"watermark(){grace}") if last and kind == timed.type else f"watermark(){grace}"
        closed = duck.parse(f"SELECT {names} FROM (SELECT 1) AS w WHERE window_end <= {mark}", _nowhere)
        closed["from_table"] = {**inner, "alias": WINDOW, "column_name_alias": []}
        outer = {key: value for key, value in node.items() if key != MARK}
        return {**outer, "subquery": {**node["subquery"], "node": closed}}

    changed: Tree = rewrite(tree, change)
    return changed


def require(tree: Tree, refuse: Refusal) -> None:
    """UnsupportedSql where ``watermark()`` stands in a definition that has none."""
    for part in walk(tree):
        if is_watermark(part):
            todo = f"Write WITH (watermark = {FORM})."
            raise refuse.at(part, "the view has no watermark", "WATERMARK", todo)


def _shown(node: Tree) -> list[Tree]:
    found: list[Tree] = node["subquery"]["node"]["select_list"]
    return found


def _nowhere(_: int) -> tuple[int, int]:
    return 0, 0


@dataclass(frozen=True)
class _Options:
    definition: Definition
    relations: Relations
    duck: Duck

    def read(self, reads: Sequence[str]) -> EventTime | None:
        options = self.definition.options
        text = options.get("watermark")
        if text is None:
            for name in OPTIONS[1:]:
                if name in options:
                    self.refuse(name, f"{name} needs a watermark", f"Write WITH (watermark = {FORM}).")
            return None
        tables = [self.relations.resolve([name]) for name in reads if not name.startswith("views.")]
        known = [table for table in tables if isinstance(table, Table) and table.base.kind != "history"]
        columns, types = [], set[str]()
        for entry in text.split(";"):
            column, kind = self._entry(entry, known)
            columns.append(column)
            types.add(kind)
        if len(types) > 1:
            self.refuse("watermark", "its columns are of types with and without a time zone", "Cast one in a view.")
        if len({each.topic for each in columns}) < len(columns):
            self.refuse("watermark", "a table has two watermarks", "Keep one of them.")
        return EventTime(
            self.definition.name,
            tuple(columns),
            types.pop(),
            self._option("grace", 0),
            self._option("idle", EventTime.idle_us),
            options.get("watermark_by") == "partition",
            self._option("ttl", 0) if "ttl" in options else None,
        )

    def refuse(self, option: str, what: str, todo: str) -> NoReturn:
        offset, length = self.definition.places.get(option, (0, 0))
        node = {"query_location": offset, "query_location_length": length}
        raise Refusal(self.definition).at(node, f"{option}: {what}", "WATERMARK", todo)

    def _entry(self, text: str, known: Sequence[Table]) -> tuple[TimeColumn, str]:
        """``[table:] column [- INTERVAL ...]``."""
        parts = _ENTRY.fullmatch(text)
        name = (parts["table"] or "") if parts else ""
        column, delay = self._time(parts["time"] if parts else text)
        table = self._table(name, column, known)
        found = {field.name.lower(): field for field in table.schema.fields}.get(column.lower())
        if found is None:
            raise UnknownColumn(f'watermark: {table.name} has no column "{column}"', suggestion="")
        if found.type not in _TIMES:
            self.refuse("watermark", f"{found.name} has type {found.type}", "Choose a DATE or TIMESTAMP column.")
        return TimeColumn(table.base.id, table.name, found.name, delay), _TIMES[found.type]

    def _time(self, text: str) -> tuple[str, int]:
        """The column and how far the watermark stays behind it."""
        try:
            tree = self.duck.expression(text)
        except (SqlError, duckdb.Error):
            self.refuse("watermark", f"cannot read {text.strip()!r}", f"Write {FORM}.")
        if is_column(tree):
            return str(tree["column_names"][-1]), 0
        arguments = [each["expression"] for each in tree.get("arguments") or ()]
        if tree.get("function_name") != "-" or len(arguments) != 2 or not is_column(arguments[0]):
            self.refuse("watermark", f"cannot read {text.strip()!r}", f"Write {FORM}.")
        return str(arguments[0]["column_names"][-1]), self._length("watermark", self.duck.print(arguments[1]))

    def _table(self, name: str, column: str, known: Sequence[Table]) -> Table:
        if name:
            found = self.relations.resolve([part.strip('"') for part in name.split(".")])
            if isinstance(found, Table) and found in known:
                return found
            todo = f"It reads {', '.join(table.name for table in known) or 'no table'}."
            self.refuse("watermark", f"the view reads no table {name}", todo)
        having = [table for table in known if column.lower() in {name.lower() for name in table.schema.names}]
        if len(having) != 1:
            what = "several tables have" if having else "no table that the view reads has"
            near = [table.name for table in having or known]
            self.refuse("watermark", f"{what} a column {column}", f"Write {FORM}; the view reads {', '.join(near)}.")
        return having[0]

    def _option(self, name: str, default: int) -> int:
        text = self.definition.options.get(name)
        return default if text is None else self._length(name, "'" + text.replace("'", "''") + "'")

    def _length(self, option: str, sql: str) -> int:
        """Microseconds of an interval, which must have the same length everywhere."""
        try:
            query = self.duck.connection.sql(f"SELECT CAST({sql} AS INTERVAL) AS length")
            value = query.to_arrow_table()["length"][0].as_py()
        except duckdb.Error:
            self.refuse(option, f"{sql} is no interval", "Write for example '10 minutes'.")
        months, days, nanoseconds = value or (0, 0, 0)
        if months or min(days, nanoseconds) < 0:
            self.refuse(option, f"{sql} has months, or is negative", "Write for example '10 minutes' or '3 days'.")
        return int(days * 86_400_000_000 + nanoseconds // 1_000)
