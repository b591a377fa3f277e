"""Aggregate calls without GROUP BY that are one row of all: each is the first row of an order of its own.

    max(x)                 x of the first row by x DESC
    arg_min(a, b)          a of the first row by b, among those where neither is NULL
    first(a ORDER BY b)    a of the first row by b;    last: by the order turned round

A row that a call does not look at, because of FILTER or a NULL, has NULL for all of it and comes last; over no row at
all the value is NULL, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from headwater_pipelines.compiler import top
from headwater_pipelines.compiler.plan import Extreme, Item, Select
from headwater_pipelines.compiler.syntax import Duck, Tree, rewrite_free
from headwater_pipelines.compiler.whole import NESTED

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering

ASCENDING, DESCENDING = "ASC NULLS LAST", "DESC NULLS LAST"
_WORDS = {"min": ASCENDING, "max": DESCENDING}
_BY_ANOTHER = {
    **dict.fromkeys(("arg_min", "argmin", "min_by"), ASCENDING),
    **dict.fromkeys(("arg_max", "argmax", "max_by"), DESCENDING),
}
_PLACES = ("first", "any_value", "last")
_TURNED = {"ASC": "DESC", "DESC": "ASC", "FIRST": "LAST", "LAST": "FIRST", "NULLS": "NULLS"}


def extremes(
    lowering: Lowering, items: tuple[Item, ...], where: tuple[str, ...], calls: Iterable[Tree]
) -> Select | None:
    """One row with the values of calls over rows, as v0, v1, ...; None where one is no row of an order's."""
    made, columns = list[Item](), list[tuple[str, str]]()
    for place, call in enumerate(calls):
        found = _value(lowering, items, where, call)
        if found is None:
            return None
        made.append(Item(f"m{place}", found))
        columns.append((f"v{place}", f"m{place}.v"))
    return Select(tuple(made), (), tuple(columns))


def least_or_greatest(call: Tree, duck: Duck, read: Callable[[Tree], Any]) -> Extreme | None:
    """What a call of min or max over a group's rows is, as SQL over what ``read`` makes of columns; else None."""
    name = str(call["function_name"])
    arguments = [duck.print(rewrite_free(part["expression"], read)) for part in call.get("arguments") or ()]
    if name not in _WORDS or len(arguments) != 1:
        return None
    (value,) = arguments
    if call.get("filter"):
        value = f"CASE WHEN {duck.print(rewrite_free(call['filter'], read))} THEN {value} END"
    return Extreme("", value, is_least=_WORDS[name] == ASCENDING)


def _value(lowering: Lowering, items: tuple[Item, ...], where: tuple[str, ...], call: Tree) -> Select | None:
    """A row of one column, ``v``, with the call's value."""
    name, printed = str(call["function_name"]), lowering.duck.print
    arguments = [printed(each["expression"]) for each in call.get("arguments") or ()]
    by, conditions = [], [printed(call["filter"])] if call.get("filter") else []
    if name in _WORDS and len(arguments) == 1:
        by = [(arguments[0], _WORDS[name])]
    elif name in _BY_ANOTHER and len(arguments) == 2 and not call.get("distinct"):
        by = [(arguments[1], _BY_ANOTHER[name]), *_orders(call, lowering.duck)]
        conditions += [f"({sql}) IS NOT NULL" for sql in arguments]
    elif name in _PLACES and len(arguments) == 1 and not call.get("distinct"):
        conditions += [f"({arguments[0]}) IS NOT NULL"] if name == "any_value" else []
        by = [("true", ASCENDING)] if conditions else []
        by += [(sql, _turned(words) if name == "last" else words) for sql, words in _orders(call, lowering.duck)]
    if not by:
        return None
    seen = " AND ".join(conditions)
    read = [("v", arguments[0]), *((f"hw_o{place}", sql) for place, (sql, _) in enumerate(by))]
    columns = tuple((column, f"CASE WHEN {seen} THEN {sql} END" if seen else sql) for column, sql in read)
    rows = Select(items, where, columns)
    if name not in _PLACES and NESTED.match(dict(lowering.describe(rows))["hw_o0"]):
        return None
    orders = [(f"hw_o{place}", words) for place, (_, words) in enumerate(by)]
    return top.first(lowering, rows, ["v"], orders, (0, 1), ("value", printed({**call, "alias": ""})), or_nothing=True)


def _orders(call: Tree, duck: Duck) -> list[tuple[str, str]]:
    """What a call says of the order of its rows."""
    orders = (call.get("order_bys") or {}).get("orders") or ()
    return [(duck.print(each["expression"]), top.words(each)) for each in orders]


def _turned(words: str) -> str:
    return " ".join(_TURNED[word] for word in words.split())
