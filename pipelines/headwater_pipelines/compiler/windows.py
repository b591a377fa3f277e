"""Window functions and QUALIFY: the partitions that a change touches are computed anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from headwater_pipelines.compiler import grouping
from headwater_pipelines.compiler.clock import is_clock
from headwater_pipelines.compiler.plan import Item, Select
from headwater_pipelines.compiler.syntax import Duck, Tree, bare, column, rewrite_free, walk_own
from headwater_pipelines.compiler.whole import NoRule, input_of, recomputed

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering

PARTITIONS = NoRule("window", "WINDOW_PARTITION")
WHOLE = NoRule("window", "WINDOW_WHOLE")
TOTALS = ("count", "count_star", "sum", "avg", "mean", "min", "max")


def has_windows(expressions: list[Any]) -> bool:
    return any(node.get("class") == "WINDOW" for expression in expressions for node in walk_own(expression))


def windowed(
    lowering: Lowering,
    items: tuple[Item, ...],
    where: tuple[str, ...],
    names: list[str],
    expressions: list[Tree],
    qualify: Tree | None,
) -> Select:
    """The select list, and what QUALIFY keeps, over the rows of ``items`` that fulfil ``where``.

    The key is what every window partitions by. Where there is no such thing, windows that have no order are totals,
    which stand beside the rows; of others every change touches everything.
    """
    duck = lowering.duck
    found = expressions if qualify is None else [*expressions, qualify]
    if not common_partitions(found) and not any(map(is_clock, items)):
        items, conditions, found = _totals(lowering, items, where, found)
        where, expressions = (*where, *conditions), found[: len(expressions)]
        qualify = None if qualify is None else found[-1]
        if not has_windows(found):
            where = where if qualify is None else (*where, duck.print(qualify))
            return Select(items, where, tuple(zip(names, map(duck.print, expressions), strict=True)))
    keys = [duck.print(key) for key in common_partitions(found)]
    by = tuple(f"k{place}" for place in range(len(keys)))
    columns = dict(zip(keys, by, strict=True))
    below = grouping.read_from(duck, items, columns)
    shown = [duck.print(rewrite_free(expression, below)) for expression in expressions]
    kept = "" if qualify is None else f" QUALIFY {duck.print(rewrite_free(qualify, below))}"
    read = tuple((name, sql) for sql, name in columns.items())
    each = input_of(lowering, Select(items, where, read or (("one", "1"),)), by)
    # What the rows have as a key already is not stored a second time.
    listed = dict.fromkeys([*(f"i.{key}" for key in by), *shown])
    named = ", ".join(f'{sql} AS "e{place}"' for place, sql in enumerate(listed))
    query = f"SELECT {named} FROM {each.name} AS i{kept}"
    made = recomputed(lowering, (each,), query, by, PARTITIONS if by else WHOLE, shows_keys=True)
    stored = dict(zip(listed, (sql for _, sql in made.columns), strict=True))
    return Select(made.items, (), tuple((name, stored[sql]) for name, sql in zip(names, shown, strict=True)))


def _totals(
    lowering: Lowering, items: tuple[Item, ...], where: tuple[str, ...], expressions: list[Tree]
) -> tuple[tuple[Item, ...], list[str], list[Tree]]:
    """The rows with their totals beside them, what joins these, and the expressions over both."""
    duck, made, conditions = lowering.duck, list[Item](), list[str]()
    wanted: dict[str, tuple[list[Tree], dict[str, Tree]]] = {}
    aliases: dict[str, str] = {}

    def change(node: Tree) -> Any:
        if not _is_total(node):
            return None
        by, call = node["partitions"], _call(node, duck)
        group = json.dumps([bare(each) for each in by], sort_keys=True)
        calls = wanted.setdefault(group, (by, {}))[1]
        shape = json.dumps(bare(call), sort_keys=True)
        calls.setdefault(shape, call)
        return column(aliases.setdefault(group, lowering.alias()), f"v{list(calls).index(shape)}")

    above = [rewrite_free(each, change) for each in expressions]
    for group, (by, calls) in wanted.items():
        names = [*(f"k{place}" for place, _ in enumerate(by)), *(f"v{place}" for place, _ in enumerate(calls))]
        lowering.admit(names)
        totals = grouping.Grouping(lowering, items, where, by).select(names, [*by, *calls.values()], None)
        made.append(Item(aliases[group], totals))
        same = (f"{duck.print(key)} IS NOT DISTINCT FROM {aliases[group]}.k{place}" for place, key in enumerate(by))
        conditions += same
    return (*items, *made), conditions, above


def _is_total(node: Tree) -> bool:
    """Whether a window has the same value for every row of its partition, by a function with a rule for groups."""
    whole = node.get("start") == "UNBOUNDED_PRECEDING" and node.get("end") in (
        "CURRENT_ROW_RANGE",
        "UNBOUNDED_FOLLOWING",
    )
    ordered = any(node.get(part) for part in ("orders", "arg_orders", "ignore_nulls"))
    plain = node.get("class") == "WINDOW" and node.get("exclude_clause") == "NO_OTHER" and not ordered
    return plain and whole and str(node["function_name"]) in TOTALS


def _call(window: Tree, duck: Duck) -> Tree:
    """The aggregate call that a window makes of its partition."""
    kept = ("function_name", "arguments", "distinct", "query_location", "query_location_length", "qualified_name")
    call: Tree = {**duck.expression("sum(x)"), **{part: window[part] for part in kept if part in window}}
    return {**call, "filter": window["filter_expr"]}


def common_partitions(expressions: list[Any]) -> list[Tree]:
    """The expressions by which every window among them partitions."""
    windows = [node for expression in expressions for node in walk_own(expression) if node.get("class") == "WINDOW"]
    first, *others = windows
    shapes = [[bare(each) for each in window["partitions"]] for window in others]
    found: list[Tree] = []
    for each in first["partitions"]:
        shape = bare(each)
        if all(shape in others_ for others_ in shapes) and shape not in map(bare, found):
            found.append(each)
    return found
