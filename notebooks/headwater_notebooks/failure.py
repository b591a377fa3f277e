"""An error in at most eight lines: what happened, the SQL with a caret under the place, what to do.

UnknownColumn: column "amout" does not exist
  2 | SELECT amout FROM orders
    |        ^^^^^
Did you mean "amount"?
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from typing import Final

import duckdb
from sqlglot.errors import ParseError

from headwater.errors import HeadwaterError

LINES_MAX: Final = 8
_WIDTH: Final = 110
_RED, _DIM, _PLAIN = "\x1b[31m", "\x1b[2m", "\x1b[0m"
_ENGINE_NAME = re.compile(r"""with name "?(\w+)|["']([^"']+)["']""")
_NO_COLUMN = re.compile(r'does not have a column named "([^"]+)"')
_ENGINE_LINE = re.compile(r"LINE (\d+): (.*)\n(\s*)(\^+)")


def render(error: HeadwaterError) -> list[str]:
    """The lines that IPython shows in place of a traceback (its ``_render_traceback_`` hook)."""
    place = f" ({error.where})" if error.where else ""
    head = textwrap.wrap(f"{type(error).__name__}: {_first(error)}{place}", _WIDTH) or [type(error).__name__]
    head[0] = head[0].replace(type(error).__name__, f"{_RED}{type(error).__name__}{_PLAIN}", 1)
    todo = textwrap.wrap(error.todo, _WIDTH)
    marked = _marked(error)
    room = LINES_MAX - len(marked) - min(len(todo), 2)
    return [*_at_most(head, room), *marked, *_at_most(todo, 2)]


def with_sql(error: HeadwaterError, sql: str) -> HeadwaterError:
    """Remember the text that the error is about, for the caret."""
    error.facts.setdefault("cell", sql)
    return error


def _first(error: HeadwaterError) -> str:
    return " ".join(line.strip() for line in error.what.split("\n\n")[0].splitlines())


def _at_most(lines: list[str], count: int) -> list[str]:
    return lines if len(lines) <= count else [*lines[: count - 1], lines[count - 1][: _WIDTH - 1] + "…"]


def _marked(error: HeadwaterError) -> list[str]:
    sql = error.facts.get("cell") or error.facts.get("query") or error.facts.get("sql")
    if not isinstance(sql, str):
        return []
    found = _place(error, sql)
    if found is None:
        return []
    number, start, length = found
    text = sql.splitlines()[number - 1]
    begin = max(0, start - _WIDTH + 30)  # a long line is shown from shortly before the place
    shown = text[begin : begin + _WIDTH - 10]
    label = f"{number:>4} | "
    place, end = start - begin, min(start - begin + max(1, length), max(len(shown), start - begin + 1))
    caret = f"{'| ':>{len(label)}}{' ' * _cells(shown[:place])}{'^' * max(1, _cells(shown[place:end]))}"
    return [f"{_DIM}{label}{_PLAIN}{shown}", f"{_DIM}{caret}{_PLAIN}"]


def _place(error: HeadwaterError, sql: str) -> tuple[int, int, int] | None:
    """Line (from 1), column (from 0) and length of what the error is about, in the SQL as it was typed."""
    lines = sql.splitlines()
    line, column = error.facts.get("line"), error.facts.get("column")
    if isinstance(line, int) and isinstance(column, int) and 1 <= line <= len(lines):
        return line, column - 1, len(_word(lines[line - 1][column - 1 :]))
    cause = error.__cause__
    if isinstance(cause, ParseError) and cause.errors and cause.errors[0].get("line"):
        first = cause.errors[0]
        highlight = str(first.get("highlight") or "")
        number = int(str(first["line"]))
        return (
            (number, max(0, int(str(first["col"])) - len(highlight)), len(highlight)) if number <= len(lines) else None
        )
    if isinstance(cause, duckdb.Error) and (named := _NO_COLUMN.search(str(cause))):
        return _find(lines, named[1], 1)
    if isinstance(cause, duckdb.Error) and (marked := _ENGINE_LINE.search(str(cause))):
        number, text = int(marked[1]), marked[2]
        start = len(marked[3]) - len(f"LINE {number}: ")
        return _find(lines, _word(text[start:]), number)
    if isinstance(cause, duckdb.Error):
        named = _ENGINE_NAME.search(re.split(r"Candidate|Did you mean", str(cause))[0])
        return _find(lines, (named[1] or named[2]).rpartition(".")[2], 1) if named else None
    return _find(lines, error.what.split()[-1].strip("'\""), 1) if error.what else None


def _cells(text: str) -> int:
    """Columns that a terminal or a notebook's font gives a text: two for a Chinese character, none for an accent."""
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(bool(unicodedata.combining(each)) for each in text)


def _word(text: str) -> str:
    found = re.match(r'"[^"]*"|\w+|\S', text)
    return found[0] if found else ""


def _find(lines: list[str], word: str, first: int) -> tuple[int, int, int] | None:
    """Where ``word`` stands, from the line where it should be onwards: names were longer when the engine saw them."""
    if not word:
        return None
    pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    for number in [*range(first, len(lines) + 1), *range(1, first)]:
        if found := pattern.search(lines[number - 1] if number <= len(lines) else ""):
            return number, found.start(), len(word)
    return None
