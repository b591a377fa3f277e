"""What is typed into an SQL cell: options, an assignment, the SQL, and its ``:name`` parameters.

    %%sql [NAME <<] [--at POSITION] [--limit ROWS | --live]
    SELECT ... WHERE customer = :who

A parameter is a colon directly before a name and not directly after a word, a quote or a bracket: ``a::int``,
``{'k': v}``, ``x[1:n]`` and what stands in strings and comments are not. Its value is bound by the engine; the
text of the query never holds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headwater.errors import NameNotFound, UsageError
from headwater.log.names import near

_OPTION = re.compile(
    r"""\s*(?:(?P<assign>[^\W\d]\w*)\s*<<|--(?P<name>[\w-]+)(?:[ =]+(?P<value>"[^"]*"|'[^']*'|[^\s"'-]\S*))?)"""
)
_BLANK = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*"
_NOTHING = re.compile(_BLANK + r"(?:;\s*)*", re.DOTALL)
_ASSIGN = re.compile(rf"(?P<before>{_BLANK})(?P<name>[^\W\d]\w*)\s*<<", re.DOTALL)
_PIECE = re.compile(
    r"""(?P<skip>'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)"""
    r"""|(?<![\w:'"\)\]\[}]):(?P<parameter>[^\W\d]\w*)""",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One SQL cell, read. ``params`` are values, or controls, by the name that the query now calls ``$name``."""

    sql: str
    assign: str | None = None
    at: str | None = None
    limit: int | None = None
    live: bool = False
    params: Mapping[str, Any]


def read(line: str, body: str | None, namespace: Mapping[str, Any]) -> Cell:
    """Read the magic's line and the cell below it. UsageError for an option that does not exist."""
    options: dict[str, str] = {}
    assign, rest = _options(line, options)
    if body is not None:
        if rest.strip():
            raise UsageError(
                f"{rest.strip()!r} was not understood", where="first line of the cell", todo="The SQL begins below it."
            )
        named = _ASSIGN.match(body)
        assign = assign or (named["name"] if named else None)
        rest = named["before"] + body[named.end() :] if named else body
    if _NOTHING.fullmatch(rest):
        raise UsageError("the cell has no SQL", todo="Write a SELECT, as in `%%sql` and below it `SELECT 1`.")
    sql, params = bind(rest, namespace)
    limit, live = _limit(options.get("limit")), "live" in options
    if live and limit is not None:
        raise UsageError("--limit is for rows that are shown once", todo="A live table turns pages: leave it out.")
    at = _place(options.get("at"), namespace)
    return Cell(sql=sql, assign=assign, at=at, limit=limit, live=live, params=params)


def _place(text: str | None, namespace: Mapping[str, Any]) -> str | None:
    """A position, of which ``:name`` is the value of a variable, as in the SQL."""
    name = (text or "").removeprefix(":")
    if text is None or not name.isidentifier() or name not in namespace:
        if text is not None and text.startswith(":"):
            bind(text, namespace)  # says which names there are
        return text
    if not text.startswith(":"):
        raise UsageError(f"{text!r} is a variable's name, not a position", todo=f"Write --at :{name} for its value.")
    return str(namespace[name])


def _options(text: str, options: dict[str, str]) -> tuple[str | None, str]:
    assign = None
    while found := _OPTION.match(text):
        if found["assign"]:
            assign = found["assign"]
        elif found["name"] in ("at", "limit") and found["value"]:
            options[found["name"]] = found["value"].strip("\"'")
        elif found["name"] == "live" and not found["value"]:
            options["live"] = ""
        elif found["name"] in ("at", "limit"):
            raise UsageError(f"--{found['name']} needs a value", todo=f"As in --{found['name']} 10.")
        elif found["name"] and text[found.start() :].lstrip().startswith("-- "):
            break  # an SQL comment
        else:
            raise UsageError(f"there is no option --{found['name']}", todo="The options are --at, --limit and --live.")
        text = text[found.end() :]
    return assign, text


def _limit(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise UsageError(f"--limit {text} is not 1 to 10000", todo="It says how many rows to show; the result has all.")
    return int(text)


def bind(sql: str, namespace: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """``:name`` to ``$name``, and the variables' values. NameNotFound when one does not exist."""
    params: dict[str, Any] = {}

    def replace(found: re.Match[str]) -> str:
        name = found["parameter"]
        if name is None:
            return found[0]
        if name not in namespace:
            known = [each for each in namespace if not each.startswith("_")]
            meant = near(name, known)
            todo = "" if meant else f"Give it a value in a cell of its own: {name} = ..."
            raise NameNotFound(
                f"there is no variable {name} for :{name}", suggestions=meant, where="the notebook", todo=todo
            )
        params[name] = namespace[name]
        return f"${name}"

    return _PIECE.sub(replace, sql), params
