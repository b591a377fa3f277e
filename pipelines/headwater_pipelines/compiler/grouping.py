"""GROUP BY, HAVING and aggregate functions: the stored aggregate below, its finished values above.

Where an aggregate function has no rule for being kept by addition, the groups that a change touches are computed anew.

State per group: ``n`` rows, and per argument the number of non-NULL values and, where needed, their sum.
COUNT, SUM and AVG over integers and DECIMAL follow from these exactly. Floating sums cannot be kept by
addition and subtraction (an infinity never cancels), so those groups are recomputed when touched.

AVG is finished by DuckDB's own finalizer from sum and count, bit for bit; where DuckDB itself rewrites AVG
to SUM / COUNT (ungrouped, or beside SUM or COUNT of the same argument) the same division is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from headwater.errors import SqlError
from headwater.types import quote
from headwater_pipelines.compiler import render
from headwater_pipelines.compiler.clock import is_clock, is_simple
from headwater_pipelines.compiler.distinct import FUNCTIONS, Values
from headwater_pipelines.compiler.extremes import extremes, least_or_greatest
from headwater_pipelines.compiler.plan import COUNT, Aggregate, Extreme, Item, Leaf, Measure, Select, Union
from headwater_pipelines.compiler.syntax import (
    Duck,
    Tree,
    bare,
    column,
    is_column,
    rewrite,
    rewrite_free,
    walk,
    walk_own,
)
from headwater_pipelines.compiler.whole import NESTED, NoRule, input_of, recomputed

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering

ADDITIVE = ("count", "sum", "avg")
"""Aggregate functions that follow from counts and sums."""
_ZERO_OVER_NOTHING = ("count", "count_star", "count_if", "countif", "approx_count_distinct", "regr_count")
_NULL_OVER_NOTHING = ("sum", "avg", "mean", "min", "max", "median", "first", "last", "any_value", "list", "array_agg",
                      "string_agg", "listagg", "group_concat", "arg_max", "arg_min", "max_by", "min_by", "mode",
                      "quantile_cont", "quantile_disc", "stddev", "variance", "bool_and", "bool_or")  # fmt: skip
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_SIGNATURE = {
    "TINYINT": "BIGINT",
    "UTINYINT": "BIGINT",
    "USMALLINT": "BIGINT",
    "UINTEGER": "BIGINT",
    "UBIGINT": "HUGEINT",
}
"""The avg() that DuckDB binds for integer types without one of their own."""
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


def aggregates_in(expression: Any, duck: Duck) -> list[Tree]:
    """The aggregate calls of an expression."""
    calls = [node for node in walk_own(expression) if node.get("class") == "FUNCTION"]
    return [node for node in calls if node["function_name"] in duck.aggregates]


def is_aggregation(node: Tree, select: list[Any], duck: Duck) -> bool:
    """Whether a SELECT groups: it says so, or an expression aggregates."""
    forced = node.get("aggregate_handling") == "FORCE_AGGREGATES"
    grouped = bool(node.get("group_expressions") or node.get("group_sets") or node.get("having"))
    return forced or grouped or any(aggregates_in(expression, duck) for expression in select)


class _NotAdditive(Exception):
    """An aggregate call that no state per group follows by addition."""


@dataclass
class _Call:
    """A distinct aggregate call: function, argument column, whether it has a FILTER; ``value`` is its column."""

    function: str
    argument: str
    filtered: bool
    value: str


@dataclass
class Grouping:
    """Lowers one aggregation. ``group`` are resolved trees over ``items``."""

    lowering: Lowering
    items: tuple[Item, ...]
    where: tuple[str, ...]
    group: list[Tree]
    constants: dict[str, Item] = field(default_factory=dict)
    """Rows of one row each beside every group."""
    arguments: dict[str, str] = field(default_factory=dict)
    calls: dict[str, _Call] = field(default_factory=dict)
    values: dict[str, Values] = field(default_factory=dict)
    """The expressions of which calls take distinct values."""

    def select(self, names: list[str], expressions: list[Tree], having: Tree | None) -> Select:
        """The SELECT list and HAVING over the finished values of the aggregate."""
        items, where, above = self.rows(expressions, having)
        return Select(items, where, tuple(zip(names, map(self.lowering.duck.print, above), strict=True)))

    def rows(self, expressions: list[Any], having: Tree | None) -> tuple[tuple[Item, ...], tuple[str, ...], list[Any]]:
        """The groups that HAVING keeps, and the expressions over them."""
        duck = self.lowering.duck
        others: dict[str, Tree] = {}
        try:
            above = [self._above(each, lambda node: self._called(node, others)) for each in (*expressions, having)]
            finished = self._together(list(others.values()))
        except _NotAdditive:
            calls: dict[str, Tree] = {}
            above = [self._above(each, lambda node: _numbered(calls, node)) for each in (*expressions, having)]
            finished = self._recomputed(list(calls.values()))
        where = () if above[-1] is None else (duck.print(above[-1]),)
        read = {part["column_names"][0] for each in above for part in walk(each) if is_column(part)}
        beside = (item for alias, item in self.constants.items() if alias in read)
        return (Item("g", finished), *beside), where, above[:-1]

    def _together(self, others: list[Tree]) -> Select:
        """The values of all calls, those of ``others`` beside the additive ones. Raises _NotAdditive."""
        if not others:
            return self._finished(self._aggregate())
        rows = None if self.group else extremes(self.lowering, self.items, self.where, others)
        if rows is not None and not self.calls:
            return replace(rows, columns=tuple((f"other_{name}", sql) for name, sql in rows.columns))
        if rows is None and not self.values:  # what has to be read for these gives the rest as well
            raise _NotAdditive
        return self._joined(self._finished(self._aggregate()), rows or self._recomputed(others))

    def _above(self, expression: Any, call: Callable[[Tree], str]) -> Any:
        """An expression over groups: keys, and aggregate calls as ``call`` names them, become columns."""
        keys = [bare(key) for key in self.group]
        duck = self.lowering.duck

        def change(node: Tree) -> Any:
            if node.get("class") is None:
                return None
            shape = bare(node)
            if shape in keys:
                return column("g", f"k{keys.index(shape)}")
            if node.get("class") == "FUNCTION" and node["function_name"] in duck.aggregates:
                return column("g", call(node))
            if is_column(node) and node["column_names"][0] in self.constants:
                return node
            if is_column(node):
                raise SqlError(
                    f'column "{node["column_names"][-1]}" must appear in GROUP BY or inside an aggregate',
                    todo="Add it to GROUP BY.",
                )
            return None

        return rewrite_free(expression, change)

    def _called(self, node: Tree, others: dict[str, Tree]) -> str:
        """The column of a call's value; those that are not additive are collected."""
        try:
            return self._call(node)
        except _NotAdditive:
            return f"other_{_numbered(others, node)}"

    def _joined(self, finished: Select, others: Select) -> Select:
        """The same groups with the values of the other calls."""
        own, found = dict(finished.columns), dict(others.columns)
        keys = [f"k{place}" for place in range(len(self.group))]
        same = tuple(f"{own[key]} IS NOT DISTINCT FROM {found[key]}" for key in keys)
        more = ((f"other_{name}", sql) for name, sql in found.items() if name not in keys)
        return Select((*finished.items, *others.items), same, (*finished.columns, *more))

    def _call(self, node: Tree) -> str:
        """The column of a call's value. Raises _NotAdditive."""
        key = json.dumps(bare(node), sort_keys=True)
        if key not in self.calls:
            name = str(node["function_name"])
            function = {"mean": "avg", "count_star": "count"}.get(name, name)
            ordered = (node.get("order_bys") or {}).get("orders")
            if function not in ADDITIVE or (ordered and function != "count"):
                raise _NotAdditive
            argument = self._distinct(function, node) if node.get("distinct") else self._argument(node)
            value = f"v{len(self.calls)}"
            self.calls[key] = _Call(function, argument, bool(node.get("filter")), value)
        return self.calls[key].value

    def _argument(self, node: Tree) -> str:
        """The input column an aggregate reads; empty for COUNT(*). A FILTER becomes a CASE around it."""
        duck = self.lowering.duck
        arguments = [part["expression"] for part in node.get("arguments") or ()]
        sql = duck.print(arguments[0]) if arguments else ""
        if node.get("filter"):
            sql = f"CASE WHEN {duck.print(node['filter'])} THEN {sql or '1'} END"
        if not sql:
            return ""
        return self.arguments.setdefault(sql, f"x{len(self.arguments)}")

    def _distinct(self, function: str, node: Tree) -> str:
        """The input column that holds each value of a call's argument once."""
        arguments = [part["expression"] for part in node.get("arguments") or ()]
        if function not in FUNCTIONS or len(arguments) != 1 or any(map(is_clock, self.items)):
            raise _NotAdditive
        sql, chosen = (self.lowering.duck.print(each) if each else "" for each in (arguments[0], node.get("filter")))
        shown = self.values.setdefault(sql, Values(sql)).shown
        name = f"x{len(self.arguments)}"
        found = self.arguments.setdefault(f"DISTINCT {sql} FILTER {chosen}", name)
        shown[found] = chosen
        return found

    def _input(self, keys: dict[str, str]) -> Select | Union:
        """The rows that are grouped: keys and arguments."""
        shown = {name for each in self.values.values() for name in each.shown}
        arguments = {name: "NULL" if name in shown else sql for sql, name in self.arguments.items()}
        rows = Select(self.items, self.where, (*keys.items(), *arguments.items()) or (("one", "1"),))
        if not self.values:
            return rows
        below = [each.below(self.lowering, self.items, self.where, keys) for each in self.values.values()]
        others = [
            each.rows(made, keys, list(arguments)) for each, made in zip(self.values.values(), below, strict=True)
        ]
        return united(self.lowering, [rows, *others])

    def _aggregate(self) -> Aggregate:
        keys = {f"k{place}": self.lowering.duck.print(key) for place, key in enumerate(self.group)}
        if self.values:  # the rows that are grouped are then not those of the query
            for call in self.calls.values():
                call.argument = call.argument or self.arguments.setdefault("1", f"x{len(self.arguments)}")
        below = self._input(keys)
        types = dict(self.lowering.describe(below))
        measures = tuple(self._measure(name, types[name]) for name in self.arguments.values())
        if self.values and any(measure.sum_type == "DOUBLE" for measure in measures):
            raise _NotAdditive
        aggregate = Aggregate(
            input=below,
            keys=tuple((name, types[name]) for name in keys),
            measures=measures,
            touched=any(measure.sum_type == "DOUBLE" for measure in measures),
        )
        self.lowering.declare(aggregate)
        return aggregate

    def _measure(self, name: str, text: str) -> Measure:
        functions = {call.function for call in self.calls.values() if call.argument == name}
        if not functions & {"sum", "avg"}:
            return Measure(name, text, "")
        if text in ("FLOAT", "DOUBLE"):
            return Measure(name, text, "DOUBLE")
        if decimal := _DECIMAL.fullmatch(text):
            return Measure(name, text, f"DECIMAL(38,{decimal[2]})")
        if text in _INTEGERS or (text == "BOOLEAN" and "avg" not in functions):
            return Measure(name, text, "HUGEINT")
        raise _NotAdditive

    def _recomputed(self, calls: list[Tree]) -> Select:
        """The values of any calls, v0, v1, ..., and the keys, k0, k1, ..., of each group."""
        duck, by = self.lowering.duck, tuple(f"k{place}" for place in range(len(self.group)))
        keys = [*zip(by, map(duck.print, self.group), strict=True)]
        columns = {sql: name for name, sql in keys}
        below = read_from(duck, self.items, columns)
        values = [f"{duck.print(rewrite_free(call, below))} AS v{place}" for place, call in enumerate(calls)]
        read = [*keys, *((name, sql) for sql, name in columns.items() if name not in by)]
        each = input_of(self.lowering, Select(self.items, self.where, tuple(read) or (("one", "1"),)), by)
        listed = ", ".join([*(f"i.{key}" for key in by), *values])
        grouped = f" GROUP BY {', '.join(f'i.{key}' for key in by)}" if by else ""
        rows = f"SELECT {listed} FROM {each.name} AS i{grouped}"
        known = self._extremes(rows, [least_or_greatest(call, duck, below) for call in calls]) if by else None
        reason = "GROUP_EXTREMES" if known else "GROUP" if by else "GROUP_WHOLE"
        return recomputed(self.lowering, (each,), rows, by, NoRule("aggregate", reason), known, shows_keys=True)

    def _extremes(self, rows: str, found: list[Extreme | None]) -> tuple[Extreme, ...] | None:
        """What calls are, if each of them is a least or greatest value, and of a type that compares."""
        known = tuple(each for each in found if each is not None)
        nested = any(NESTED.match(text) for _, text in self.lowering.describe_query(rows))
        return known if len(known) == len(found) and not nested else None

    def _finished(self, aggregate: Aggregate) -> Select:
        measures = {measure.column: measure for measure in aggregate.measures}
        values = [(call.value, self._value(call, measures.get(call.argument))) for call in self.calls.values()]
        columns = (*((name, f"s.{quote(name)}") for name, _ in aggregate.keys), *values)
        return Select((Item("s", Leaf(aggregate)),), (), columns or (("one", "1"),))

    def _value(self, call: _Call, measure: Measure | None) -> str:
        if measure is None:
            return f"s.{quote(COUNT)}"
        count, total = f"s.{quote(measure.count)}", f"s.{quote(measure.sum)}"
        if call.function == "count":
            return count
        if call.function == "sum":
            return f"CASE WHEN {count} > 0 THEN {total} END"
        return f"CASE WHEN {count} > 0 THEN {self._average(call, measure, count, total)} END"

    def _average(self, call: _Call, measure: Measure, count: str, total: str) -> str:
        if measure.sum_type == "DOUBLE" or self._divides(call):
            return f"{total} / {count}"
        signature = _SIGNATURE.get(measure.type, measure.type)
        whole = total
        if _DECIMAL.fullmatch(measure.type):
            # The digits without the point: exact where a multiplication by 10^scale could overflow.
            whole = f"CAST(replace(CAST({total} AS VARCHAR), '.', '') AS HUGEINT)"
        state = f"{{'count': CAST({count} AS UBIGINT), 'value': {whole}}}"
        return f"finalize(to_aggregate_state({state}, 'avg', ['{signature}']))"

    def _divides(self, call: _Call) -> bool:
        """Whether DuckDB's optimizer turns this AVG into SUM / COUNT."""
        if call.filtered:
            return False
        beside = (c for c in self.calls.values() if c.argument == call.argument and not c.filtered)
        return not self.group or any(other.function in ("sum", "count") for other in beside)


def read_from(duck: Duck, items: tuple[Item, ...], columns: dict[str, str]) -> Callable[[Tree], Any]:
    """Replaces what is read of ``items`` by columns of an item ``i``, which are collected: SQL → name.

    A comparison with a clock is read as it is: its result changes for fewer rows than the clock's value.
    """
    known, clocks = {item.alias for item in items}, {item.alias for item in items if is_clock(item)}

    def compares(node: Tree) -> bool:
        simple = all(is_simple(value) for value in node.values() if isinstance(value, dict))
        read = {part["column_names"][0] for part in walk(node) if is_column(part)}
        return node.get("class") in ("COMPARISON", "BETWEEN") and simple and bool(read & clocks) and read <= known

    def change(node: Tree) -> Any:
        if not is_column(node) and not compares(node):
            return None
        return column("i", columns.setdefault(duck.print(node), f"c{len(columns)}"))

    return change


def _numbered(calls: dict[str, Tree], node: Tree) -> str:
    key = json.dumps(bare(node), sort_keys=True)
    calls.setdefault(key, node)
    return f"v{list(calls).index(key)}"


def of_sets(plan: Grouping, chosen: list[list[int]], names: list[str], expressions: list[Tree], having: Any) -> Select:
    """GROUPING SETS, ROLLUP and CUBE: the grouping by each set, one after the other; what a set lacks is NULL in it."""
    lowering, duck = plan.lowering, plan.lowering.duck
    keys = tuple((f"k{place}", duck.print(key)) for place, key in enumerate(plan.group))
    types = [text for _, text in lowering.describe(Select(plan.items, plan.where, keys))][: len(keys)]
    shapes = [bare(key) for key in plan.group]

    def of_set(expression: Any, own: list[int]) -> Any:
        def change(node: Tree) -> Any:
            if node.get("class") is None:
                return None
            if node.get("class") == "FUNCTION" and node["function_name"] in duck.aggregates:
                return node
            if node.get("type") == "GROUPING_FUNCTION":
                places = [shapes.index(shape) if (shape := bare(child)) in shapes else -1 for child in node["children"]]
                if min(places) < 0:
                    raise NoRule("grouping sets", "GROUPING_SETS")
                lacking = [int(place not in own) for place in places]
                return duck.expression(f"{int(''.join(map(str, lacking)), 2)}::BIGINT")
            shape = bare(node)
            if shape in shapes and shapes.index(shape) not in own:
                return duck.expression(f"CAST(NULL AS {types[shapes.index(shape)]})")
            return None

        return rewrite(expression, change)

    parts = []
    for own in chosen:
        group = [plan.group[place] for place in own]
        part = Grouping(lowering, plan.items, plan.where, group, plan.constants)
        parts.append(part.select(names, [of_set(each, own) for each in expressions], of_set(having, own)))
    whole = tuple((name, f"u.{quote(name)}") for name in names)
    return Select((Item("u", united(lowering, parts)),), (), whole)


def united(lowering: Lowering, parts: list[Select]) -> Union:
    """UNION ALL of queries with the same column names."""
    types = lowering.describe_query(" UNION ALL ".join(f"({_plain(part)})" for part in parts))
    return Union(
        tuple(
            Select((Item("u", part),), (), tuple((name, f"CAST(u.{quote(name)} AS {text})") for name, text in types))
            for part in parts
        )
    )


def _plain(tree: Select) -> str:
    return f"SELECT {', '.join(quote(name) for name, _ in tree.columns)} FROM ({render.state(tree)})"


def over_nothing(expression: Tree, duck: Duck) -> Any:
    """What an expression over aggregates is where there is no row. NoRule where that is not known."""

    def change(node: Tree) -> Any:
        if node.get("class") != "FUNCTION" or node["function_name"] not in duck.aggregates:
            return None
        if node["function_name"] in _ZERO_OVER_NOTHING:
            return duck.expression("0::BIGINT")
        if node["function_name"] in _NULL_OVER_NOTHING:
            return duck.expression("NULL")
        raise NoRule("subquery", "SUBQUERY")

    return rewrite(expression, change)
