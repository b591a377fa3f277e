"""How a view is maintained, node by node: maintenance class, reason code, and what is stored for it.

Classes: ``linear`` (the delta of the input is enough), ``bilinear`` (joined with the other inputs' rows),
``additive`` (state per group changes by the delta), ``touched-key`` (groups that change are recomputed from
stored rows), ``first-rows`` (kept rows change by the delta, and are now and then read anew from all), ``full``
(everything is recomputed).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta

from headwater.errors import UnsupportedSql
from headwater_pipelines.compiler import diagram
from headwater_pipelines.compiler.forgetting import forgettable
from headwater_pipelines.compiler.plan import (
    Base,
    Clock,
    EventTime,
    Input,
    Item,
    Leaf,
    Node,
    Recompute,
    Select,
    Source,
    Top,
    sources,
)
from headwater_pipelines.compiler.view import CompiledView

CLASSES = tuple(diagram.COLOURS)
"""The cheapest first."""
_MADE_UP = re.compile(r"[a-z]\d+")
_INTERVAL = re.compile(r"to_(\w+?)s\(CAST\(trunc\(CAST\((\d+) AS DOUBLE\)\) AS \w+\)\)")
"""What the parser makes of INTERVAL 1 DAY."""
_REASONS = {
    "STORED_ROWS": "the topic's rows are kept, by key where it has one",
    "LINEAR": "its delta is the operator applied to the input's delta",
    "BILINEAR": "each input's delta is joined with the other inputs' stored rows",
    "ADDITIVE_STATE": "count and exact sums per group change by the delta",
    "FLOAT_SUM": "floating sums cannot be kept by subtraction: touched groups are recomputed",
    "FLOAT_SUM_WHOLE": "a floating sum over the whole input is recomputed from all rows",
    "GROUP": "groups that change are recomputed: the function does not follow from counts and sums",
    "GROUP_EXTREMES": "groups whose least or greatest value goes, or is passed, are recomputed",
    "GROUP_WHOLE": "without GROUP BY there is one group, all rows: it is recomputed with every change",
    "WINDOW_PARTITION": "partitions that change are recomputed",
    "WINDOW_WHOLE": "the windows have no PARTITION BY in common: all rows are recomputed with every change",
    "SESSION": "the sessions of the keys that change are found anew",
    "SESSION_WHOLE": "the sessions have no key: all are found anew with every change",
    "JOIN_KEY": "rows of both sides are joined anew for the keys that change",
    "JOIN_MATCHES": "rows are looked at anew when the number of those that they match changes",
    "JOIN_WHOLE": "the join compares nothing equal: all rows are joined anew with every change",
    "ROW_COUNTS": "rows that change are counted anew on both sides",
    "FIRST_OF_KEY": "the first row is chosen anew for the keys that change",
    "TOP_N": "the rows within the limit are chosen anew with every change",
    "FIRST_ROWS": "the first rows are kept with others behind them; all rows are read again when these are used up",
    "SUBQUERY": "a query with subqueries in expressions is recomputed with every change",
    "GROUPING_SETS": "grouping sets are recomputed with every change",
    "UNNEST": "unnesting beside grouping or windows is recomputed with every change",
    "LATERAL": "a query with a lateral join is recomputed with every change",
    "COLUMNS": "a query with COLUMNS(...) is recomputed with every change",
    "PIVOT": "this kind of PIVOT is recomputed with every change",
    "SET_OPERATION": "this set operation is recomputed with every change",
    "RECURSION": "a recursive query is recomputed with every change",
    "RANKED_JOIN": "a ranked join is recomputed with every change",
    "JOIN_KIND": "this kind of join is recomputed with every change",
    "USING": "a join over columns that are computed is recomputed with every change",
    "CONSTANT": "it reads no table, and never changes",
    "CLOCK_VALUES": "it reads the time and no table: it is computed anew whenever the value changes",
    "CLOCK_VALUE": "what follows from the time alone is computed once in each step",
    "ADMITTED_ROWS": "the topic's rows are kept, but for those that came behind the watermark",
    "OPEN_WINDOWS": "rows are kept until their windows are closed, and those that came behind the watermark are not",
    "WATERMARK": "what follows from the watermark alone is computed once in each step",
    "CLOCK_RANGE": "where time passes, only rows whose time has come between the last step and this one are looked at",
    "CLOCK": "all rows are looked at again whenever this value changes: it is not only compared with one of theirs",
}


@dataclass(frozen=True)
class ExplainNode:
    """One operator. ``depth`` is its place in the tree, the view's output at 0; ``stored`` a state table or ''."""

    depth: int
    operator: str
    detail: str
    maintenance: str
    reason: str
    stored: str


@dataclass(frozen=True)
class Cost:
    """What a node of a running view holds (rows, those included that cancel out) and took in the last step (ms)."""

    rows: int
    ms: float
    is_whole: bool = False
    """Whether the last step touched most of its keys, and computed all of it."""

    def __str__(self) -> str:
        whole = " for all of it, most keys were touched" if self.is_whole else ""
        return f"{self.rows:,} rows, last step {self.ms:.1f} ms{whole}"


@dataclass(frozen=True)
class Explain:
    """The plan of a view, output first. ``str`` is a text tree, notebooks show a diagram."""

    name: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]
    nodes: tuple[ExplainNode, ...]
    refresh: str = "continuous"
    event_time: str = ""
    """What its watermark is, if it has one."""
    tried: str = ""
    """With ``on_error = 'null'`` or ``'dead_letter'``, the SELECT that the view is kept equal to."""
    letters: tuple[str, ...] = ()
    """With ``on_error = 'dead_letter'``, the topics whose rows are kept apart when something of them fails."""
    ordered: tuple[str, ...] = ()
    """Orders that left a choice, as they were made total."""
    costs: Mapping[str, Cost] = field(default_factory=dict)
    """Of nodes that are stored, by ``stored``; none of a view that does not run."""

    @property
    def is_incremental(self) -> bool:
        return all(node.maintenance != "full" for node in self.nodes)

    def to_dict(self) -> dict[str, object]:
        """The same as plain data, for --json."""
        return {
            "name": self.name,
            "columns": [{"name": name, "type": text} for name, text in self.columns],
            "key": list(self.key),
            "incremental": self.is_incremental,
            "refresh": self.refresh,
            "event_time": self.event_time,
            "tried": self.tried,
            "letters": list(self.letters),
            "ordered": list(self.ordered),
            "nodes": [
                {
                    **asdict(node),
                    "why": _REASONS[node.reason],
                    "rows": None if (cost := self.costs.get(node.stored)) is None else cost.rows,
                    "step_ms_last": None if cost is None else cost.ms,
                    "whole": cost is not None and cost.is_whole,
                }
                for node in self.nodes
            ],
        }

    @property
    def head(self) -> list[str]:
        """What is to say of the view as a whole, its name and columns first."""
        key = f" by ({', '.join(self.key)})" if self.key else ""
        shape = ", ".join(f"{name} {text}" for name, text in self.columns)
        lines = [f"view {self.name}{key}: {shape}"]
        if self.refresh != "continuous":
            lines.append(f"refreshed {self.refresh}: all of it is computed then, and the difference is published")
        if self.event_time:
            lines.append(f"event time: {self.event_time}")
        if self.letters:
            kept = f"views.{self.name}.dlq"
            lines.append(f"rows of {', '.join(self.letters)} for which this fails are kept in {kept}: {self.tried}")
        elif self.tried:
            lines.append(f"what fails over a row's values is NULL: {self.tried}")
        if self.ordered:
            lines.append(f"where an order left a choice, it is made: {'; '.join(self.ordered)}")
        return lines

    def __str__(self) -> str:
        lines = self.head
        for place, node in enumerate(self.nodes):
            cost = f" · {self.costs[node.stored]}" if node.stored in self.costs else ""
            kind = f"[{node.maintenance} · {node.reason}{cost}]"
            lines.append(f"{self._branch(place)}{node.operator} {node.detail}  {kind}")
        reasons = dict.fromkeys(node.reason for node in self.nodes)
        return "\n".join([*lines, "", *(f"{reason}: {_REASONS[reason]}" for reason in reasons)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """The diagram that a notebook shows."""
        return diagram.render(self, [_REASONS[node.reason] for node in self.nodes])

    def _branch(self, place: int) -> str:
        depth = self.nodes[place].depth
        following = [node.depth for node in self.nodes[place + 1 :]]
        parts = []
        for level in range(1, depth + 1):
            rest = next((d for d in following if d <= level), -1)
            last = rest != level
            if level == depth:
                parts.append("└─ " if last else "├─ ")
            else:
                parts.append("   " if last else "│  ")
        return "".join(parts)


def explain(view: CompiledView, costs: Mapping[str, Cost] | None = None) -> Explain:
    """The nodes of a compiled view, with what those that are stored cost where it runs."""
    names = {(base.shown, name) for base, used in view.used.items() for name in used}
    columns = {base: sorted(name for full, name in names if full == base.shown) for base in view.used}
    nodes = tuple(_node(view.root, 0, "", columns))
    windows = {source.table for source in forgettable([view.root], sources(view.root)) if isinstance(source, Base)}
    nodes = tuple(replace(node, reason="OPEN_WINDOWS") if node.stored in windows else node for node in nodes)
    options = view.definition.options
    tried = view.query if options.get("on_error", "fail") != "fail" else ""
    when, topics = options.get("refresh", "continuous"), tuple(dict.fromkeys(topic for topic, _ in view.letters))
    timed = _event_time(view.event_time) if view.event_time else ""
    return Explain(view.name, view.columns, view.key, nodes, when, timed, tried, topics, view.ordered, costs or {})


def _event_time(timed: EventTime) -> str:
    def length(micros: int) -> str:
        return str(timedelta(microseconds=micros))

    columns = [
        f"{each.name}.{each.column}" + (f" - {length(each.delay_us)}" if each.delay_us else "")
        for each in timed.columns
    ]
    marks = f"the newest {columns[0]}" if len(columns) == 1 else f"the least of the newest {', '.join(columns)}"
    grace = f", by more than {length(timed.grace_us)}," if timed.grace_us else ""
    said = f"the watermark is {marks}; rows behind it{grace} go to {timed.view}.late"
    return said if timed.ttl_us is None else f"{said}; rows leave when they are {length(timed.ttl_us)} behind it"


def require_incremental(view: CompiledView) -> None:
    """UnsupportedSql when ``refresh_mode = 'incremental strict'`` is asked for and a node recomputes everything."""
    if view.definition.options.get("refresh_mode") != "incremental strict":
        return
    for node in explain(view).nodes:
        if node.maintenance == "full":
            what = f"{node.operator} {node.detail} would be recomputed in full"
            raise UnsupportedSql(
                what, code=node.reason, todo="Use DECIMAL instead of DOUBLE, or drop 'incremental strict'."
            )


def _node(node: Node, depth: int, alias: str, columns: Mapping[Base, list[str]]) -> Iterator[ExplainNode]:
    match node:
        case Leaf(source):
            yield from _source(source, depth, alias, columns)
        case Select():
            yield from _select(node, depth, columns)
        case _:
            yield ExplainNode(depth, "union all", f"of {len(node.inputs)}", "linear", "LINEAR", "")
            for part in node.inputs:
                yield from _node(part, depth + 1, "", columns)


def _select(node: Select, depth: int, columns: Mapping[Base, list[str]]) -> Iterator[ExplainNode]:
    """Project, filter and join of one Select as up to three nodes."""
    projected = ", ".join(dict.fromkeys(_projected(name, sql) for name, sql in node.columns))
    operator, detail = node.label if node.label[0] else ("project", projected)
    yield ExplainNode(depth, operator, detail, "linear", "LINEAR", "")
    clocks = [item for item in node.items if isinstance(item.node, Leaf) and isinstance(item.node.source, Clock)]
    joined = len(node.items) - len(clocks) > 1
    if (
        node.where
        and not joined
        and not any(isinstance(each.node, Leaf) and isinstance(each.node.source, Top) for each in node.items)
    ):
        depth += 1
        yield ExplainNode(depth, "filter", " AND ".join(node.where), "linear", "LINEAR", "")
    if joined:
        depth += 1
        condition = " AND ".join(node.where) or "every pair"
        yield ExplainNode(depth, "inner join", condition, "bilinear", "BILINEAR", "")
    if len(node.items) > len(clocks):
        yield from _clocks(clocks, depth + 1)
    for item in node.items:
        yield from _node(item.node, depth + 1, item.alias, columns)


def _clocks(clocks: list[Item], depth: int) -> Iterator[ExplainNode]:
    """How the rows of a Select follow the clocks beside them."""
    for item in clocks:
        compared = ", ".join(dict.fromkeys(each.value or each.column for each in item.compared))
        kind = ("linear", "CLOCK_RANGE") if compared else ("full", "CLOCK")
        yield ExplainNode(depth, "time passing", f"compared with {compared}" if compared else item.alias, *kind, "")


def _projected(name: str, sql: str) -> str:
    """A column in the words of the definition: names that the compiler made up say nothing."""
    if _MADE_UP.fullmatch(name) or sql.rpartition(".")[2].strip('"') == name:
        return sql
    return name if _MADE_UP.fullmatch(sql.rpartition(".")[2].strip('"')) else f"{sql} AS {name}"


def _source(source: Source, depth: int, alias: str, columns: Mapping[Base, list[str]]) -> Iterator[ExplainNode]:
    if isinstance(source, Base):
        shown = f"{source.shown} ({', '.join(columns.get(source, []))})"
        shown = f"{shown} as {alias}" if alias and alias != source.name.rpartition(".")[2] else shown
        timed = source.event_time
        reason = "STORED_ROWS" if timed is None else "ADMITTED_ROWS"
        yield ExplainNode(depth, "table", shown, "linear", reason, source.table)
        return
    if isinstance(source, Clock):
        shown = f"{_written(source.expression)} as {alias}"
        kind = ("clock", "CLOCK_VALUE") if source.event_time is None else ("watermark", "WATERMARK")
        yield ExplainNode(depth, kind[0], shown, "linear", kind[1], source.table)
        return
    if isinstance(source, Recompute):
        yield from _recompute(source, depth, columns)
        return
    if isinstance(source, Top):
        detail = f"{source.low + 1:,} to {source.high:,}"
        yield ExplainNode(depth, "first rows", detail, "first-rows", "FIRST_ROWS", source.table)
        yield from _node(source.input, depth + 1, "", columns)
        return
    inputs = dict(source.input.columns) if isinstance(source.input, Select) else {}
    keys = ", ".join(inputs.get(name, name) for name, _ in source.keys)
    sums = ", ".join(inputs.get(measure.column, measure.column) for measure in source.measures)
    detail = (f"by ({keys})" if keys else "of all rows") + (f" over {sums}" if sums else "")
    if not source.touched:
        kind = ("additive", "ADDITIVE_STATE")
    else:
        kind = ("touched-key", "FLOAT_SUM") if source.keys else ("full", "FLOAT_SUM_WHOLE")
    yield ExplainNode(depth, "aggregate", detail, *kind, source.table)
    yield from _node(source.input, depth + 1, "", columns)


def _call(found: re.Match[str]) -> str:
    return f"{found[1]}()"


def _written(expression: str) -> str:
    """An expression over the instant in the words of the definition."""
    return _INTERVAL.sub(r"INTERVAL \2 \1", re.sub(r"\bclock\.(now|watermark)\b", _call, expression))


def _recompute(source: Recompute, depth: int, columns: Mapping[Base, list[str]]) -> Iterator[ExplainNode]:
    names = {own: key for each in source.inputs for own, key in _shown(each)}
    by = ", ".join(dict.fromkeys(names.values()))
    kind = "touched-key" if source.keys else ("full" if source.inputs else "linear")
    yield ExplainNode(depth, source.operator, f"by ({by})" if by else "", kind, source.reason, source.table)
    for each in source.inputs:
        yield from _node(each.node, depth + 1, "", columns)


def _shown(each: Input) -> Iterator[tuple[str, str]]:
    """What an input's keys are in the words of the definition."""
    known = dict(each.node.columns) if isinstance(each.node, Select) else {}
    for key in each.keys:
        yield key, known.get(key, key)
