"""``now()`` and what follows from it: relations of one row, whose change between two steps is a delta like any other.

    ts > now() - INTERVAL 1 DAY   ─▶   ts > (SELECT v FROM hw_now_1)          v is computed once in each step

The definition is rewritten before anything else reads it, so that every rule for scalar subqueries holds here, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headwater_pipelines.compiler.plan import Clock, EventTime, Item, Leaf, Select, digest
from headwater_pipelines.compiler.relations import Relations, ViewPlan
from headwater_pipelines.compiler.syntax import Duck, Tree, is_column, rewrite, walk

VALUE = "v"
_NOW, _WATERMARK = "clock.now", "clock.watermark"
_MEANING = {
    "now": _NOW,
    "transaction_timestamp": _NOW,
    "get_current_timestamp": _NOW,
    "current_timestamp": _NOW,
    "today": f"CAST({_NOW} AS DATE)",
    "current_date": f"CAST({_NOW} AS DATE)",
    "current_localtimestamp": f"CAST({_NOW} AS TIMESTAMP)",
    "localtimestamp": f"CAST({_NOW} AS TIMESTAMP)",
    "current_localtime": f"CAST(CAST({_NOW} AS TIMESTAMP) AS TIME)",
    "localtime": f"CAST(CAST({_NOW} AS TIMESTAMP) AS TIME)",
    "get_current_time": f"CAST({_NOW} AS TIMETZ)",
    "current_time": f"CAST({_NOW} AS TIMETZ)",
    "watermark": _WATERMARK,
}
"""Functions and keywords by what they are of the instant, under the lake's time zone, or of the view's watermark."""
KEYWORDS = ("current_timestamp", "current_date", "current_time", "localtime", "localtimestamp")
"""Those that are written without parentheses, where no column has the name."""
_KNOWN = {"+", "-", "date_trunc", "time_bucket", "timezone", "trunc", "to_years", "to_months", "to_weeks", "to_days",
          "to_hours", "to_minutes", "to_seconds", "to_milliseconds", "to_microseconds"}  # fmt: skip
"""Functions that are NULL over nothing but NULL."""
_OF_ARGUMENTS = ("age", "ago")
"""Functions of an argument and the instant."""
_ROWS = ("range", "generate_series", "unnest")


def is_instant(node: Tree) -> bool:
    """Whether a function call reads the clock: its result is fixed for a step, and another one in the next."""
    name = str(node["function_name"]).lower()
    count = len(node.get("arguments") or ())
    return (name in _MEANING and count == 0) or (name in _OF_ARGUMENTS and count == 1)


def is_watermark(node: Tree) -> bool:
    """Whether a node is a call of ``watermark()``."""
    name = str(node.get("function_name")).lower()
    return node.get("class") == "FUNCTION" and name == "watermark" and not node.get("arguments")


def clocked(tree: Tree, relations: Relations, duck: Duck, timed: EventTime | None = None) -> tuple[Tree, Relations]:
    """The definition with what follows from the instant alone read from relations of its own, and these, too.

    ``timed``: what the watermark is that the definition reads.
    """
    shadowed = {part["alias"].lower() for part in walk(tree) if isinstance(part.get("alias"), str)}
    shadowed |= {name.lower() for relation in relations.by_name.values() for name, _ in relation.columns}

    def reads(node: Any) -> bool:
        return any(_meaning(part, shadowed) for part in walk(node))

    if not reads(tree):
        return tree, relations
    named = rewrite(tree, lambda node: _named(node, reads, duck))
    plain = rewrite(named, lambda node: _rows(node, reads, duck))
    plain = rewrite(plain, lambda node: _expanded(node, shadowed, duck))
    made: dict[str, ViewPlan] = {}
    return _lifted(plain, made, duck, timed), relations.with_views(made.values())


def _meaning(node: Tree, shadowed: set[str]) -> str:
    """What a function call or keyword without arguments is of the instant; '' for anything else."""
    if is_column(node) and len(node["column_names"]) == 1:
        name = str(node["column_names"][0]).lower()
        return _MEANING[name] if name in KEYWORDS and name not in shadowed else ""
    if node.get("class") == "FUNCTION" and is_instant(node):
        return _MEANING.get(str(node["function_name"]).lower(), _NOW)
    return ""


def _named(node: Tree, reads: Callable[[Any], bool], duck: Duck) -> Any:
    """A SELECT whose columns keep the names that they have as they are written."""
    if node.get("type") != "SELECT_NODE" or not reads(node["select_list"]):
        return None

    def name(expression: Tree) -> Tree:
        if expression.get("alias") or expression.get("class") == "STAR" or not reads(expression):
            return expression
        own = expression["column_names"][-1] if is_column(expression) else duck.print(expression)
        return {**expression, "alias": own}

    rest = {key: rewrite(value, lambda part: _named(part, reads, duck)) for key, value in node.items()}
    return {**rest, "select_list": [name(each) for each in rest["select_list"]]}


def _rows(node: Tree, reads: Callable[[Any], bool], duck: Duck) -> Any:
    """``generate_series(..., now(), ...)`` in FROM as a query: a table function takes no subquery."""
    if node.get("type") != "TABLE_FUNCTION" or not reads(node["function"]):
        return None
    call = node["function"]
    if call["function_name"] not in _ROWS:
        return None
    value = call["arguments"][0]["expression"] if call["function_name"] == "unnest" else {**call, "alias": ""}
    text = f"SELECT * FROM (SELECT unnest({duck.print(value)}) AS {call['function_name']})"
    found: Tree = duck.parse(text, lambda _: (0, 0))["from_table"]
    shown = node.get("column_name_alias") or []
    return {**found, "alias": node["alias"] or call["function_name"], "column_name_alias": shown}


def _expanded(node: Tree, shadowed: set[str], duck: Duck) -> Any:
    """Keywords and functions of the instant as what they mean, in terms of ``clock.now``."""
    if node.get("class") == "FUNCTION" and is_instant(node) and node.get("arguments"):
        inner = rewrite(node["arguments"][0]["expression"], lambda part: _expanded(part, shadowed, duck))
        return _placed(duck.expression(of_argument(node["function_name"].lower(), duck.print(inner))), node)
    meaning = _meaning(node, shadowed)
    return _placed(duck.expression(meaning), node) if meaning else None


def of_argument(name: str, argument: str) -> str:
    """What ``age(argument)`` or ``ago(argument)`` means, as SQL over ``clock.now``."""
    if name == "ago":
        return f"{_NOW} - CAST({argument} AS INTERVAL)"
    # Of a naive timestamp DuckDB takes the age at midnight UTC, whatever the time zone; of another at its midnight.
    naive = f"CAST(CAST(timezone('UTC', {_NOW}) AS DATE) AS TIMESTAMP)"
    return (
        f"CASE WHEN typeof({argument}) = 'TIMESTAMP WITH TIME ZONE'"
        f" THEN age(date_trunc('day', {_NOW}), CAST({argument} AS TIMESTAMPTZ))"
        f" ELSE age({naive}, CAST({argument} AS TIMESTAMP)) END"
    )


def _placed(expression: Tree, like: Tree) -> Tree:
    """An expression in the place of another: under its alias, where messages point to."""
    place: Tree = {key: like[key] for key in ("query_location", "query_location_length") if key in like}
    return {**expression, **place, "alias": like.get("alias", "")}


def _lifted(tree: Tree, made: dict[str, ViewPlan], duck: Duck, timed: EventTime | None) -> Tree:
    """Every largest expression over the instant alone, or the watermark alone, as a subquery of a relation."""

    def change(node: Tree) -> Any:
        if "class" not in node or not (of := _is_of_clock(node, duck)):
            return None
        view = _relation(node, duck, timed if of == _WATERMARK else None)
        made[view.name] = view
        return _placed(duck.expression(f"(SELECT {VALUE} FROM {view.name})"), node)

    return rewrite(tree, change)  # type: ignore[no-any-return]


def _is_of_clock(node: Tree, duck: Duck) -> str:
    """What an expression is of, if of one of them alone: the instant or the watermark."""
    found = set[str]()
    for part in walk(node):
        if is_column(part):
            found.add(".".join(part["column_names"]))
        if part.get("class") in ("SUBQUERY", "WINDOW", "LAMBDA", "STAR"):
            return ""
        if part.get("class") == "FUNCTION" and part["function_name"] in (*duck.aggregates, "unnest", "unlist"):
            return ""
    return found.pop() if found in ({_NOW}, {_WATERMARK}) else ""


def _relation(node: Tree, duck: Duck, timed: EventTime | None) -> ViewPlan:
    text = duck.print(node)
    values = f"CAST(NULL AS {timed.type if timed else 'TIMESTAMPTZ'}) AS {_WATERMARK[6:] if timed else _NOW[6:]}"
    ((_, kind),) = duck.describe(f"SELECT {text} FROM (SELECT {values}) AS clock")
    clock = Clock(text, kind, all(map(_is_known, walk(node))), timed)
    root = Select((Item("c", Leaf(clock)),), (), ((VALUE, f"c.{VALUE}"),))
    return ViewPlan(f"hw_now_{digest((text, timed))}", root, ((VALUE, kind),), ())


def _is_known(part: Tree) -> bool:
    """Whether a part of an expression makes no NULL."""
    match part.get("class"):
        case "FUNCTION":
            return str(part["function_name"]) in _KNOWN
        case "CONSTANT":
            return bool(part["literal"]["kind"] != "NULL_LITERAL")
        case "CAST":
            return not part["try_cast"]
    return part.get("class") in (None, "COLUMN_REF", "TYPE")


def clock_of(query: Tree, relations: Relations) -> Clock | None:
    """The clock whose value a scalar subquery is; None for a query that was written by hand."""
    path = (query.get("from_table") or {}).get("qualified_name", {}).get("path") or [""]
    view = relations.by_name.get(f"views.{path[0]}") if path[0].startswith("hw_now_") else None
    source = next(iter(view.root.items)).node if isinstance(view, ViewPlan) and isinstance(view.root, Select) else None
    return source.source if isinstance(source, Leaf) and isinstance(source.source, Clock) else None


def has_only_clocks(expression: Any, relations: Relations) -> bool:
    """Whether nothing but the instant is asked for by subqueries."""
    found = (node["subquery"]["node"] for node in walk(expression) if node.get("class") == "SUBQUERY")
    return all(clock_of(query, relations) is not None for query in found)


def is_simple(expression: Tree) -> bool:
    """Whether a value fails for no row: a column, or one moved by an interval."""
    for part in walk(expression):
        fails = part.get("class") == "FUNCTION" and part["function_name"] not in _KNOWN
        casts = part.get("class") == "CAST" and any(map(is_column, walk(part)))
        if fails or casts or part.get("class") not in (None, "FUNCTION", "CAST", "CONSTANT", "COLUMN_REF", "TYPE"):
            return False
    return True


def is_clock(item: Any) -> bool:
    """Whether a FROM item is a clock."""
    return isinstance(item.node, Leaf) and isinstance(item.node.source, Clock)
