"""DuckDB as parser, printer and type checker: its syntax tree as JSON, and DESCRIBE over empty tables.

The engine that will run the statements also reads the definition, so no second opinion about its dialect
exists. A syntax tree node is a dict; expressions carry ``class``, queries and FROM items carry ``type``.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import duckdb

from headwater import duck
from headwater.errors import SqlError, SqlSyntax
from headwater.types import quote

Tree = dict[str, Any]
_SESSION = ("current_user", "session_user", "current_role", "current_catalog", "current_schema")
KEYWORDS = frozenset({"current_timestamp", "current_date", "current_time", "localtime", "localtimestamp", *_SESSION})
"""Words that DuckDB reads as a function call when no column has that name."""
_RANKS = {"DISTINCT_MODIFIER": 0, "ORDER_MODIFIER": 1}
"""The order of a SELECT's modifiers; LIMIT comes last."""
_KIND = re.compile(r"^\w+(?: \w+)* Error: ")
"""DuckDB begins its messages with the kind of error, which the class of ours says already."""
_LOCAL = threading.local()
NOWHERE = 18446744073709551615
"""DuckDB's ``query_location`` of nodes that the parser made up."""


@dataclass(frozen=True)
class _Functions:
    """``calls``: what each macro calls, as a call or as a keyword; ``bodies``: its parameters and its tree as JSON."""

    aggregates: frozenset[str]
    unstable: frozenset[str]
    calls: dict[str, set[str]]
    bodies: dict[str, list[tuple[tuple[str, ...], str]]]


@cache
def _functions() -> _Functions:
    """DuckDB's own list of functions: constants of the library, slow to ask for."""
    query = (
        "SELECT function_name, function_type, stability, CASE WHEN function_type = 'macro'"
        " THEN json_serialize_sql('SELECT ' || macro_definition) END, parameters FROM duckdb_functions()"
    )
    with duck.connect() as connection:
        rows = connection.execute(query).fetchall()
    # Those of the session are bound by the parser, without a function's stability.
    unstable = {name for name, _, stability, _, _ in rows if stability in ("VOLATILE", "CONSISTENT_WITHIN_QUERY")}
    calls: dict[str, set[str]] = {}
    bodies: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for name, _, _, body, parameters in rows:
        if body:
            calls.setdefault(name, set()).update(_called(json.loads(body)))
            bodies.setdefault(name, []).append((tuple(parameters), body))
    aggregates, size = {name for name, kind, _, _, _ in rows if kind == "aggregate"}, 0
    while size != len(aggregates):  # macros call macros
        size = len(aggregates)
        aggregates |= {name for name, called in calls.items() if called & aggregates}
    return _Functions(frozenset(aggregates), frozenset(unstable | KEYWORDS), calls, bodies)


def _called(body: Tree) -> set[str]:
    parts = list(walk(body))
    keywords = {part["column_names"][0].lower() for part in parts if is_column(part)} & KEYWORDS
    return keywords | {part["function_name"] for part in parts if "function_name" in part}


class Duck:
    """A private in-memory database for parsing, printing and typing; nothing is ever stored in it."""

    def __init__(self) -> None:
        self.connection = duck.connect()

    @staticmethod
    def of_thread() -> Duck:
        """This thread's: making one takes longer than compiling most definitions."""
        if not hasattr(_LOCAL, "duck"):
            _LOCAL.duck = Duck()
        found: Duck = _LOCAL.duck
        return found

    def parse(self, text: str, place: Callable[[int], tuple[int, int]]) -> Tree:
        """The tree of a single SELECT; SqlSyntax with DuckDB's own message and the place."""
        row = self.connection.execute("SELECT json_serialize_sql($text)", {"text": text}).fetchall()[0]
        parsed: Tree = json.loads(row[0])
        if parsed.get("error"):
            raise _syntax(parsed, place)
        statements: list[Tree] = parsed["statements"]
        if len(statements) != 1:
            raise SqlSyntax(f"one SELECT is expected, not {len(statements)}", todo="Define one view at a time.")
        node: Tree = self._sequential(statements[0]["node"])
        return node

    def _sequential(self, tree: Any) -> Any:
        """``(SELECT ... LIMIT 3) ORDER BY x`` with a SELECT around the first: printed as one, it would be another."""

        def change(node: Tree) -> Any:
            parts = node.get("modifiers")
            if not isinstance(parts, list) or not (count := _in_order(parts)):
                return None
            outer: Tree = self.parse("SELECT * FROM (SELECT 1)", lambda _: (0, 0))
            outer["from_table"]["subquery"]["node"] = {**node, "modifiers": parts[:count]}
            return self._sequential({**outer, "modifiers": parts[count:]})

        return rewrite(tree, change)

    def print(self, expression: Tree) -> str:
        """An expression tree as SQL."""
        shell = copy.deepcopy(self._shell)
        shell["statements"][0]["node"]["select_list"] = [{**expression, "alias": ""}]
        return self._print(shell).removeprefix("SELECT ")

    def print_query(self, node: Tree) -> str:
        """A query tree as SQL."""
        shell = copy.deepcopy(self._shell)
        shell["statements"][0]["node"] = node
        return self._print(shell)

    def expression(self, sql: str) -> Tree:
        """The tree of an expression."""
        found: Tree = self.parse(f"SELECT {sql}", lambda _: (0, 0))["select_list"][0]
        return found

    def describe(self, select: str) -> list[tuple[str, str]]:
        """Column names and types of a SELECT; duckdb.Error when it does not bind."""
        return [(row[0], row[1]) for row in self.connection.execute(f"DESCRIBE {select}").fetchall()]

    def create_table(self, name: str, columns: list[tuple[str, str]]) -> None:
        """An empty table to type statements against."""
        body = ", ".join(f"{quote(column)} {text}" for column, text in columns)
        self.connection.execute(f"CREATE OR REPLACE TABLE {quote(name)} ({body})")

    @property
    def aggregates(self) -> frozenset[str]:
        """Names of aggregate functions, and of macros over them."""
        return _functions().aggregates

    def is_unstable(self, name: str) -> bool:
        """Whether a function's result depends on more than its arguments; a macro's on what it calls."""
        known = _functions()
        return name in known.unstable or any(self.is_unstable(call) for call in known.calls.get(name, set()) - {name})

    def macro_over(self, functions: frozenset[str], name: str, size: int) -> tuple[tuple[str, ...], Tree] | None:
        """Parameters and body of a macro of so many parameters, if it calls one of these functions."""
        known = _functions()
        if not known.calls.get(name, set()) & functions:
            return None
        for parameters, body in known.bodies[name]:
            if len(parameters) == size:
                return parameters, json.loads(body)["statements"][0]["node"]["select_list"][0]
        return None

    @cached_property
    def _shell(self) -> Tree:
        row = self.connection.execute("SELECT json_serialize_sql('SELECT 1')").fetchall()[0]
        shell: Tree = json.loads(row[0])
        return shell

    def _print(self, statement: Tree) -> str:
        text = {"tree": json.dumps(statement)}
        row = self.connection.execute("SELECT json_deserialize_sql($tree::JSON)", text).fetchall()[0]
        return str(row[0])


def walk(node: Any) -> Iterator[Tree]:
    """Every dict of a tree, outside in."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def walk_own(node: Any) -> Iterator[Tree]:
    """Every dict of an expression, outside in, that is not inside a subquery of its own."""
    if isinstance(node, dict):
        yield node
        for value in node.values() if node.get("class") != "SUBQUERY" else (node.get("child"),):
            yield from walk_own(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk_own(value)


def rewrite(node: Any, change: Callable[[Tree], Any]) -> Any:
    """A copy of a tree in which ``change`` replaced nodes outside in; it returns None to leave one as it is."""
    if isinstance(node, dict):
        changed = change(node)
        return {key: rewrite(value, change) for key, value in node.items()} if changed is None else changed
    if isinstance(node, list):
        return [rewrite(value, change) for value in node]
    return node


def scoped(node: Any, change: Callable[[Tree, frozenset[str]], Any], visible: frozenset[str] = frozenset()) -> Any:
    """As ``rewrite``, with the names of the CTEs that can be read at each place: those before it, and around it."""
    if isinstance(node, list):
        return [scoped(value, change, visible) for value in node]
    if not isinstance(node, dict):
        return node
    changed = change(node, visible)
    if changed is not None:
        return changed
    entries = (node.get("cte_map") or {}).get("map") or ()
    found = []
    for entry in entries:
        name = str(entry["key"]).lower()
        own = visible | {name} if entry["value"]["query_node"]["type"] == "RECURSIVE_CTE_NODE" else visible
        found.append({**entry, "value": scoped(entry["value"], change, own)})
        visible |= {name}
    rest = {key: scoped(value, change, visible) for key, value in node.items() if key != "cte_map"}
    return {**rest, "cte_map": {**node["cte_map"], "map": found}} if entries else {**node, **rest}


def rewrite_free(node: Any, change: Callable[[Tree], Any], bound: frozenset[str] = frozenset()) -> Any:
    """As ``rewrite``, but the parameters of lambdas are left alone."""

    def each(part: Tree) -> Any:
        if part.get("class") == "LAMBDA" and part["syntax_type"] != "SINGLE_ARROW":  # which takes a JSON value's part
            return {**part, "expr": rewrite_free(part["expr"], change, bound | _parameters(part["lhs"]))}
        if is_column(part) and part["column_names"][0].lower() in bound:
            return part
        return change(part)

    return rewrite(node, each)


def _parameters(lhs: Tree) -> frozenset[str]:
    """The parameter names of a lambda's left side: a column or a row of columns."""
    if is_column(lhs):
        return frozenset({lhs["column_names"][0].lower()})
    arguments = [part.get("expression", part) for part in lhs.get("arguments") or lhs.get("children") or ()]
    return frozenset(part["column_names"][0].lower() for part in arguments if is_column(part))


def _in_order(modifiers: list[Tree]) -> int:
    """How many modifiers come in the order in which one SELECT has them, before one that does not; 0 if all do."""
    ranks = [_RANKS.get(part["type"], 2) for part in modifiers]
    return next((place for place in range(1, len(ranks)) if ranks[place] <= ranks[place - 1]), 0)


def unqualified(names: list[str], relations: Iterable[str]) -> list[str]:
    """A column's names without database and schema, where they begin with those of one of these full names."""
    lower = [name.lower() for name in names]
    for relation in relations:
        parts = relation.lower().split(".")
        for count in range(len(parts), 1, -1):
            if lower[:count] == parts[len(parts) - count :] and len(names) > count:
                return names[count - 1 :]
    return names


def is_column(node: Any) -> bool:
    return isinstance(node, dict) and node.get("class") == "COLUMN_REF"


def column(alias: str, name: str) -> Tree:
    """A reference to a column."""
    return {
        "class": "COLUMN_REF",
        "type": "COLUMN_REF",
        "alias": "",
        "query_location": NOWHERE,
        "query_location_length": 0,
        "column_names": [alias, name],
    }


def field_of(struct: Tree, name: str) -> Tree:
    """A struct's field."""
    place = {"alias": "", "query_location": struct["query_location"], "query_location_length": 0}
    constant = {"class": "CONSTANT", "type": "VALUE_CONSTANT", **place, "literal": {"kind": "STRING", "text": name}}
    return {"class": "OPERATOR", "type": "STRUCT_EXTRACT", **place, "children": [struct, constant]}


def bare(node: Any) -> Any:
    """A tree without places and aliases, for comparing two expressions."""
    if isinstance(node, dict):
        skip = ("query_location", "query_location_length", "alias")
        return {key: bare(value) for key, value in node.items() if key not in skip}
    return [bare(value) for value in node] if isinstance(node, list) else node


def renamed_as(before: Tree, after: Tree, duck: Duck) -> Tree:
    """A changed expression of a select list under the name that it had."""
    if after == before or after.get("alias") or before.get("class") in ("COLUMN_REF", "STAR"):
        return after
    return {**after, "alias": duck.print(before)}


def message(error: duckdb.Error) -> str:
    """The first paragraph of a DuckDB error, without its excerpt of a statement that the user never wrote."""
    text = str(error).split("\n\nLINE ")[0].split("\n\tCandidate functions:")[0]
    return " ".join(_KIND.sub("", text).split()).rstrip(".")


def _syntax(parsed: Tree, place: Callable[[int], tuple[int, int]]) -> SqlError:
    where = ""
    if parsed.get("position"):
        line, column_number = place(int(parsed["position"]))
        where = f"line {line}, column {column_number}"
    text = str(parsed.get("error_message", "the SQL does not parse"))
    if parsed.get("error_type") == "not implemented":
        return SqlSyntax("a view is one SELECT statement", where=where, todo="Write ... AS SELECT ...")
    return SqlSyntax(text, where=where, todo="Correct the SQL there.")
