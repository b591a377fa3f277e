"""TUMBLE, HOP and SESSION in FROM, rewritten into SQL that DuckDB has, before anything else is looked at.

    TUMBLE(t, ts, size [, offset])         the window that holds ts
    HOP(t, ts, slide, size [, offset])     every window of this size, one each slide, that holds ts
    SESSION(t, ts, gap [, key ...])        the rows of a key with less than gap between one and the next

Each gives the columns of t, window_start and window_end. A window is [window_start, window_end); windows are aligned to
1970-01-01 plus the offset. A row whose time is NULL or infinite is in no window. Also accepted is the standard's form,
``TUMBLE(TABLE t, DESCRIPTOR(ts), size)``, with ``TABLE t PARTITION BY key`` in SESSION.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import duckdb

from headwater.types import quote
from headwater_pipelines.compiler import windowtimes
from headwater_pipelines.compiler.definition import Definition, tokenize
from headwater_pipelines.compiler.plan import Select, Union
from headwater_pipelines.compiler.shape import shape_of
from headwater_pipelines.compiler.syntax import NOWHERE, Tree, is_column, rewrite, walk
from headwater_pipelines.compiler.whole import NoRule, input_of, named, recomputed

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Ctes, Lowering

INTERVALS = {"tumble": ("size", "offset"), "hop": ("slide", "size", "offset"), "session": ("gap",)}
"""The functions, and what their intervals are; an offset may be left out."""
FORMS = {
    "tumble": "TUMBLE(table, time column, INTERVAL size)",
    "hop": "HOP(table, time column, INTERVAL slide, INTERVAL size)",
    "session": "SESSION(table, time column, INTERVAL gap, key column, ...)",
}
WINDOWS_MAX = 10_000
"""Windows of one HOP that a row may be in: each is a row."""
MARK = "time_window"
"""The key of a rewritten FROM item's syntax tree that says what it was."""
_DATES = re.compile(r"DATE|TIMESTAMP(_S|_MS|_NS)?|TIMESTAMP WITH TIME ZONE")
_INPUT, _AT = "hw_input", "hw_at"


def readable(definition: Definition) -> str:
    """The SELECT without the words of the standard's form that DuckDB does not parse; every offset stays."""
    text = definition.select
    tokens = [token for token in tokenize(text) if token.start >= definition.start]
    depth, opened = 0, list[int]()
    for place, token in enumerate(tokens):
        before = tokens[place - 1].text.lower() if place else ""
        if token.text == "(":
            depth += 1
            opened += [depth] if before in INTERVALS else []
        elif token.text == ")":
            opened = [each for each in opened if each != depth]
            depth -= 1
        elif opened and opened[-1] == depth:
            words = " ".join(token.text.upper().split())
            if (words == "TABLE" and before == "(") or words in ("PARTITION BY", "PARTITION", "BY"):
                blank = ("," if words.startswith("PARTITION") else " ").ljust(token.end + 1 - token.start)
                text = text[: token.start] + blank + text[token.end + 1 :]
    return text


def rewritten(lowering: Lowering, tree: Tree) -> Tree:
    """The definition with a subquery in place of every call. UnsupportedSql at a call that says too little."""
    calls = [part for part in walk(tree) if _function(part)]
    if not calls:
        return tree
    changed: Tree = _Rewriting(lowering, named(rewrite(tree, _without_arguments))).change(tree, [])
    return changed


def lowered(lowering: Lowering, node: Tree, ctes: Ctes) -> Select | Union:
    """The rows of a rewritten call, as a plan that ``explain`` shows under the function's name."""
    mark, query = node[MARK], node["subquery"]["node"]
    if mark["function"] != "session":
        made = lowering.query(query, ctes)
        return replace(made, label=(mark["function"], mark["detail"])) if isinstance(made, Select) else made
    keys = tuple(mark["keys"])
    inner = query["from_table"]
    while inner["alias"] != _INPUT:
        inner = inner["subquery"]["node"]["from_table"]
    each = input_of(lowering, lowering.query(inner["subquery"]["node"], ctes), keys)
    text = f"SELECT {''.join(f'{key}, ' for key in keys)}{mark['query']}".replace(_INPUT, each.name)
    why = NoRule(f"session {mark['detail']}", "SESSION" if keys else "SESSION_WHOLE")
    return recomputed(lowering, (each,), text, keys, why)


@dataclass
class _Rewriting:
    """``names``: those that the definition uses outside of the calls, which may be columns; None: any."""

    lowering: Lowering
    names: Collection[str] | None

    def change(self, node: Any, entries: list[Tree]) -> Any:
        """Inside out, because a call may read another; ``entries`` are the CTEs around."""
        if isinstance(node, list):
            return [self.change(each, entries) for each in node]
        if not isinstance(node, dict):
            return node
        found = dict(node)
        if (node.get("cte_map") or {}).get("map"):
            own: list[Tree] = []
            for entry in node["cte_map"]["map"]:
                own.append(self.change(entry, [*entries, *own]))
            found["cte_map"] = {**node["cte_map"], "map": own}
            entries = [*entries, *own]
        for key, value in node.items():
            if key != "cte_map":
                found[key] = self.change(value, entries)
        return self.subquery(found, entries) if _function(node) else found

    def subquery(self, node: Tree, entries: list[Tree]) -> Tree:
        call = _Call.read(self.lowering, node)
        columns = self._columns(call, entries)
        shown = [quote(name) for name, _ in columns[:-1] if self.names is None or name.lower() in self.names]
        sql = call.sql(columns[-1][1], shown)
        query = _over(self.lowering, f"SELECT {sql}", call.rows(columns[-1][1], shown))
        return {
            "type": "SUBQUERY",
            "alias": node["alias"],
            "sample": node["sample"],
            "query_location": node["query_location"],
            "query_location_length": node["query_location_length"],
            "subquery": {"node": query, "named_param_map": []},
            "column_name_alias": node.get("column_name_alias") or [],
            MARK: {
                "function": call.name,
                "detail": call.detail,
                "keys": call.key_names,
                "query": sql,
                "of": windowtimes.topic(call.table, call.time),
                "time": call.time,
                "size_us": windowtimes.longest_us(call.lengths),
                "ends": windowtimes.ends(call.lengths, columns[-1][1]),
            },
        }

    def _columns(self, call: _Call, entries: list[Tree]) -> list[tuple[str, str]]:
        """Names and types of the table's columns and, under ``hw_at``, of the time."""
        probe = call.select(f"*, {call.time} AS {_AT}")
        probe = {**probe, "cte_map": {"map": [*entries, *probe["cte_map"]["map"]]}}
        found = shape_of(probe, self.lowering)
        if not _DATES.fullmatch(found[-1][1]):
            call.refuse(f"its time column has type {found[-1][1]}", "Use a DATE or TIMESTAMP column, or cast it.")
        taken = {name.lower() for name, _ in found[:-1]} & {"window_start", "window_end"}
        if taken:
            call.refuse(f"its table has a column {min(taken)}", "Rename the column in a subquery.")
        return found


@dataclass(frozen=True)
class _Call:
    """A call's arguments: ``table`` as a FROM item, time and keys as SQL; ``lengths``: months, days, microseconds."""

    lowering: Lowering
    node: Tree
    table: Tree
    time: str
    lengths: dict[str, tuple[int, int, int]]
    keys: tuple[str, ...] = ()

    @classmethod
    def read(cls, lowering: Lowering, node: Tree) -> _Call:
        """table, [keys,] time, interval, ... , [keys]: what stands before the first interval belongs to the table."""
        call = cls(lowering, node, {}, "", {})
        arguments = [each["expression"] for each in node["function"]["arguments"]]
        if node.get("with_ordinality") != "WITHOUT_ORDINALITY":
            call.refuse("its rows have no order", "Remove WITH ORDINALITY.")
        if any(each["name"] for each in node["function"]["arguments"]):
            call.refuse("it takes its arguments by place", f"Write {FORMS[call.name]}.")
        first = next((n for n, each in enumerate(arguments) if n > 1 and _is_constant(each)), 0)
        count = 0
        while first and first + count < len(arguments) and _is_constant(arguments[first + count]):
            count += 1
        names = INTERVALS[call.name]
        enough = len([name for name in names if name != "offset"]) <= count <= len(names)
        keys = [*arguments[1 : first - 1], *arguments[first + count :]] if first else []
        if not enough or (keys and call.name != "session"):
            call.refuse("its arguments are not those it takes", f"Write {FORMS[call.name]}.")
        lengths: dict[str, tuple[int, int, int]] = {}
        for name, argument in zip(names, arguments[first : first + count], strict=False):
            lengths[name] = call._length(name, argument, lengths)
        return cls(
            lowering,
            node,
            call._table(arguments[0]),
            lowering.duck.print(_described(arguments[first - 1])),
            lengths,
            tuple(lowering.duck.print(each) for key in keys for each in _row(key)),
        )

    @property
    def name(self) -> str:
        return str(self.node["function"]["function_name"]).lower()

    def refuse(self, what: str, todo: str) -> NoReturn:
        place = {key: self.node[key] for key in ("query_location", "query_location_length")}
        raise self.lowering.refuse.at(place, f"{self.name.upper()}: {what}", "TIME_WINDOW", todo)

    def select(self, columns: str) -> Tree:
        """A SELECT of the table."""
        shell = _made(self.lowering, f"SELECT {columns} FROM t")
        return {**shell, "from_table": self.table}

    @property
    def key_names(self) -> list[str]:
        return [f"hw_k{place}" for place in range(len(self.keys))]

    @property
    def detail(self) -> str:
        return (
            ", ".join(f"{word} {windowtimes.words(length)}" for word, length in self.lengths.items())
            + f" of {self.time}"
        )

    def rows(self, kind: str, shown: list[str]) -> Tree:
        """What the call reads: keys, columns and the time, of a type that windows have."""
        at = self.time if kind in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE") else f"CAST({self.time} AS TIMESTAMP)"
        keys = [f"{sql} AS {name}" for sql, name in zip(self.keys, self.key_names, strict=True)]
        rows = self.select(", ".join([*keys, *shown, f"{at} AS {_AT}"]))
        return {**rows, "where_clause": _made(self.lowering, f"SELECT isfinite({at})")["select_list"][0]}

    def sql(self, kind: str, shown: list[str]) -> str:
        """The columns and the window of each of these rows, which are hw_input, behind SELECT."""
        if self.name == "session":
            return self._session(shown)
        size, slide, offset = (self._interval(name) for name in ("size", "slide", "offset"))
        slide = slide or size
        zone = "TIMESTAMPTZ" if kind.endswith("ZONE") else "TIMESTAMP"
        origin = f"{zone} '1970-01-01'" + (f" + {offset}" if offset else "")
        start = last = f"time_bucket({slide}, {_AT}, {origin})"
        if self.name == "hop":  # the windows that began less than their size before
            if _micros(self.lengths["size"]) > WINDOWS_MAX * _micros(self.lengths["slide"]):
                self.refuse(f"a row would be in more than {WINDOWS_MAX} windows", "Choose a longer slide.")
            first = f"time_bucket({slide}, {_AT} - {size}, {origin}) + {slide}"
            start = f"unnest(generate_series({first}, {last}, {slide}))"
        inner = ", ".join([*shown, f"{start} AS window_start"])
        return ", ".join([*shown, "window_start", f"window_start + {size} AS window_end"]) + (
            f" FROM (SELECT {inner} FROM {_INPUT})"
        )

    def _session(self, shown: list[str]) -> str:
        """A row begins one when the gap before it is too long; rows of equal time are peers, in one with the first."""
        gap, by, columns = self._interval("gap"), self.key_names, ", ".join([*self.key_names, *shown, _AT])
        partition = f"PARTITION BY {', '.join(by)} " if by else ""
        inside = f"OVER (PARTITION BY {', '.join([*by, 'hw_session'])})"
        found = [*shown, f"min({_AT}) {inside} AS window_start", f"max({_AT}) {inside} + {gap} AS window_end"]
        return (
            f"{', '.join(found)}"
            f" FROM (SELECT {columns}, sum(hw_first) OVER ({partition}ORDER BY {_AT}) AS hw_session"
            f" FROM (SELECT {columns}, CASE WHEN lag({_AT}) OVER ({partition}ORDER BY {_AT}) + {gap} > {_AT}"
            f" THEN 0 ELSE 1 END AS hw_first FROM {_INPUT}))"
        )

    def _table(self, argument: Tree) -> Tree:
        if is_column(argument):
            shell = _made(self.lowering, f"SELECT 1 FROM {'.'.join(map(quote, argument['column_names']))}")
            place = {key: argument[key] for key in ("query_location", "query_location_length")}
            return {**shell["from_table"], **place}
        if argument.get("class") != "SUBQUERY" or argument.get("subquery_type") != "SCALAR":
            self.refuse("its first argument is no table", "Write a table's name or a query in parentheses.")
        shell = _made(self.lowering, "SELECT 1 FROM (SELECT 1) AS hw_rows")
        return {**shell["from_table"], "subquery": argument["subquery"]}

    def _interval(self, name: str) -> str:
        return f"INTERVAL '{windowtimes.words(self.lengths[name])}'" if name in self.lengths else ""

    def _length(self, name: str, argument: Tree, others: dict[str, tuple[int, int, int]]) -> tuple[int, int, int]:
        """Months, days and microseconds of a constant."""
        duck = self.lowering.duck
        try:
            query = duck.connection.sql(f"SELECT CAST({duck.print(argument)} AS INTERVAL) AS length")
            value = query.to_arrow_table()["length"][0].as_py()
        except duckdb.Error:
            self.refuse(f"its {name} is no interval", f"Write {FORMS[self.name]}, for example INTERVAL '10 seconds'.")
        months, days, nanoseconds = value or (0, 0, 0)
        found = (months, days, nanoseconds // 1_000)
        if name == "offset":
            return found
        if min(found) < 0 or not any(found):
            self.refuse(f"its {name} is not longer than nothing", "Write a positive interval.")
        if months and (days or nanoseconds) and self.name != "session":
            self.refuse(f"its {name} has months beside days or less", "Months have different lengths: use one of them.")
        if bool(months) != bool(others.get("slide", found)[0]):
            self.refuse("one of its intervals has months, the other none", "Months have different lengths.")
        return found


def _over(lowering: Lowering, query: str, rows: Tree) -> Tree:
    """A query over hw_input, which is the query ``rows``."""
    shell = _made(lowering, f"SELECT 1 FROM (SELECT 1) AS {_INPUT}")["from_table"]

    def change(node: Tree) -> Any:
        if node.get("type") == "BASE_TABLE" and node["table_name"] == _INPUT:
            return {**shell, "subquery": {**shell["subquery"], "node": rows}}
        return None

    changed: Tree = rewrite(_made(lowering, query), change)
    return changed


def _made(lowering: Lowering, sql: str) -> Tree:
    """The tree of SQL that the definition does not have, and so without places in it."""

    def change(node: Tree) -> Any:
        if node.get("query_location", NOWHERE) == NOWHERE:
            return None
        return rewrite({**node, "query_location": NOWHERE, "query_location_length": 0}, change)

    found: Tree = rewrite(lowering.duck.parse(sql, lambda _: (0, 0)), change)
    return found


def _function(node: Tree) -> bool:
    return node.get("type") == "TABLE_FUNCTION" and str(node["function"]["function_name"]).lower() in INTERVALS


def _without_arguments(node: Tree) -> Any:
    """A call without what it reads beside its table: those columns it need not show."""
    if not _function(node):
        return None
    call = node["function"]
    table = [each for each in call["arguments"][:1] if not is_column(each["expression"])]
    return {**node, "function": {**call, "arguments": rewrite(table, _without_arguments)}}


def _is_constant(argument: Tree) -> bool:
    return not any(is_column(part) or part.get("class") == "SUBQUERY" for part in walk(argument))


def _described(argument: Tree) -> Tree:
    """``DESCRIPTOR(ts)`` is ts."""
    if argument.get("function_name") == "descriptor" and len(argument["arguments"]) == 1:
        found: Tree = argument["arguments"][0]["expression"]
        return found
    return argument


def _row(key: Tree) -> Iterable[Tree]:
    """``(a, b)`` is a and b."""
    if key.get("function_name") != "row":
        return (key,)
    return tuple(each["expression"] for each in key["arguments"])


def _micros(length: tuple[int, int, int]) -> int:
    months, days, micros = length
    return ((months * 30) + days) * 86_400_000_000 + micros
