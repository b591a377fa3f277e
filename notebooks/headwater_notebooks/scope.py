"""Where a cursor stands in SQL that is being written, and which tables are in reach there.

The text is read as tokens, for it is not a statement yet; what is written in full (a CTE, a subquery with its
bracket closed) is parsed, for its columns. Nothing is raised: what cannot be understood offers nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

_TOKEN = re.compile(
    r"""(?P<skip>\s+|--[^\n]*|/\*.*?(?:\*/|$)|'(?:[^']|'')*(?:'|$)|\$\$.*?(?:\$\$|$))"""
    r"""|(?P<word>"(?:[^"]|"")*(?:"|$)|[^\W\d]\w*)|(?P<other>\d[\w.]*|.)""",
    re.DOTALL,
)
_WORDS: Final = frozenset((
    "select", "from", "where", "group", "order", "having", "limit", "offset", "join", "on", "using", "as", "and",
    "or", "not", "in", "is", "union", "except", "intersect", "with", "left", "right", "inner", "full", "cross",
    "outer", "semi", "anti", "asof", "natural", "lateral", "positional", "window", "qualify", "set", "by", "when",
    "then", "else", "case", "end", "between", "like", "ilike", "values", "tablesample", "pivot", "unpivot",
    "distinct", "recursive", "materialized",
))  # fmt: skip
"""Words that end a table's name instead of being its alias."""


@dataclass(frozen=True)
class Token:
    text: str
    start: int
    end: int
    word: bool

    @property
    def key(self) -> str:
        """A keyword or name to compare with; empty of a quoted name, which is no keyword."""
        return "" if self.text.startswith('"') else self.text.lower()


@dataclass(frozen=True)
class Source:
    """A table in reach: by its ``alias``. ``columns`` are known of what the query itself makes; else ``name`` has them.

    ``facet``: "log" or "history" before its name.
    """

    alias: str
    name: str = ""
    facet: str = ""
    columns: tuple[str, ...] = ()
    inside: tuple[Source, ...] = ()
    """The tables of a made one, whose columns it has where it selects a star."""


@dataclass(frozen=True)
class Place:
    """The cursor's place. ``chain``: the dotted name that is being written, with its ``begin`` in the text."""

    chain: str
    begin: int
    wants_table: bool
    sources: tuple[Source, ...]
    ctes: Mapping[str, Source] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """What stands before the last dot of the chain that is not within quotes; empty without one."""
        dots = [n for n, each in enumerate(self.chain) if each == "." and self.chain.count('"', 0, n) % 2 == 0]
        return self.chain[: dots[-1]] if dots else ""


def place(text: str, cursor: int) -> Place | None:
    """Where the cursor is in this SQL; None within a string or a comment."""
    tokens, inside = _tokens(text, cursor)
    if inside:
        return None
    before = [token for token in tokens if token.end <= cursor]
    begin = _chain_begin(before, cursor)
    ahead = [token for token in before if token.end <= begin]
    tokens = [token for token in tokens if token.end <= begin or token.start >= cursor]  # it is not an alias yet
    ctes = dict(_ctes(text, tokens))
    sources: list[Source] = []
    for opened in _opened(ahead):
        sources += _sources(text, tokens, opened, ctes)
    return Place(text[begin:cursor], begin, _wants_table(ahead), tuple(sources), ctes)


@lru_cache(maxsize=8)
def _all_tokens(text: str) -> tuple[tuple[Token, ...], tuple[tuple[int, int], ...]]:
    """Tokens, and the stretches of strings and comments."""
    tokens, skipped = [], []
    for found in _TOKEN.finditer(text):
        if found["skip"] is None:
            tokens.append(Token(found[0], found.start(), found.end(), found["word"] is not None))
        elif not found[0].isspace():
            closed = found[0].endswith(("'", "*/", "$$")) and len(found[0]) > 1 and not found[0].startswith("--")
            skipped.append((found.start(), found.end() if closed else found.end() + 1))
    return tuple(tokens), tuple(skipped)


def _tokens(text: str, cursor: int) -> tuple[Sequence[Token], bool]:
    tokens, skipped = _all_tokens(text)
    return tokens, any(start < cursor < end for start, end in skipped)


def _chain_begin(before: Sequence[Token], cursor: int) -> int:
    """Where ``a.b.c`` begins that ends at the cursor."""
    begin, expected = cursor, "either"
    for token in reversed(before):
        if token.end != begin or not (token.text == "." if expected == "dot" else token.word or token.text == "."):
            break
        if expected == "name" and not token.word:
            break
        begin, expected = token.start, "dot" if token.word else "name"
    return begin


def _wants_table(ahead: Sequence[Token]) -> bool:
    """Whether a table's name comes next: behind FROM, JOIN, or a comma between tables."""
    if not ahead:
        return False
    if ahead[-1].key in ("from", "join", "describe", "summarize"):
        return True
    if ahead[-1].text != ",":
        return False
    depth = 0
    for token in reversed(ahead[:-1]):
        depth += {")": 1, "(": -1}.get(token.text, 0)
        if depth < 0:
            return False
        if depth == 0 and token.key in _WORDS - {"as", "join", "left", "on", "using", "and", "or"}:
            return token.key == "from"
    return False


def _opened(ahead: Sequence[Token]) -> list[int]:
    """Beginnings of the queries that enclose the cursor, the innermost first; the last is 0, the whole text."""
    found: list[int] = []
    for token in ahead:
        if token.text == "(":
            found.append(token.end)
        elif token.text == ")" and found:
            found.pop()
    return [*reversed(found), 0]


def _sources(text: str, tokens: Sequence[Token], begin: int, ctes: Mapping[str, Source]) -> Iterator[Source]:
    """Tables of the query that begins here, up to the bracket that closes it; not those of its subqueries."""
    level = list(_level(tokens, begin))
    for number, token in enumerate(level):
        if token.key in ("from", "join") or (token.text == "," and _wants_table(level[: number + 1])):
            source = _source(text, tokens, level[number + 1 :], ctes)
            if source is not None:
                yield source


def _level(tokens: Sequence[Token], begin: int) -> Iterator[Token]:
    """Tokens of one query; of what stands in brackets only the opening one."""
    depth = 0
    for token in tokens:
        if token.start < begin:
            continue
        if token.text == ")":
            depth -= 1
            if depth < 0:
                return
        elif depth == 0:
            yield token
        if token.text == "(":
            depth += 1


def _source(text: str, tokens: Sequence[Token], rest: Sequence[Token], ctes: Mapping[str, Source]) -> Source | None:
    rest = list(rest)
    if rest and rest[0].key == "lateral":
        rest.pop(0)
    if not rest:
        return None
    made: Source | None = None
    parts: list[str] = []
    if rest[0].text == "(":
        opened = rest.pop(0)
        made = _made("", _between(text, tokens, opened.end))
    else:
        while rest and rest[0].word and (rest[0].key not in _WORDS or parts):
            parts.append(rest.pop(0).text)
            if not (rest and rest[0].text == "."):
                break
            rest.pop(0)
    if not parts and made is None:
        return None
    if rest and rest[0].key == "as":
        rest.pop(0)
    alias = rest[0].text if rest and rest[0].word and rest[0].key not in _WORDS else (parts[-1] if parts else "")
    alias = alias.replace('"', "")
    if made is not None:
        return Source(alias, columns=made.columns, inside=made.inside)
    facet = parts[0].lower() if len(parts) > 1 and parts[0].lower() in ("log", "history") else ""
    name = ".".join(part.replace('"', "") for part in parts[1 if facet else 0 :])
    cte = ctes.get(name.lower())
    return Source(alias, columns=cte.columns, inside=cte.inside) if cte else Source(alias, name, facet)


def _ctes(text: str, tokens: Sequence[Token]) -> Iterator[tuple[str, Source]]:
    """``name AS (...)`` behind WITH, wherever it stands."""
    if not any(token.key == "with" for token in tokens):
        return
    for number, token in enumerate(tokens):
        behind = tokens[number + 1 : number + 4]
        words = [each.key for each in behind if each.key != "materialized"]
        if token.word and token.key not in _WORDS and words[:1] == ["as"] and any(t.text == "(" for t in behind[1:3]):
            opened = next(each for each in behind if each.text == "(")
            name = token.text.replace('"', "")
            yield name.lower(), _made(name, _between(text, tokens, opened.end))


def _between(text: str, tokens: Sequence[Token], begin: int) -> str:
    depth = 0
    for token in tokens:
        if token.start >= begin:
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            if depth < 0:
                return text[begin : token.start]
    return ""


@lru_cache(maxsize=64)
def _made(alias: str, query: str) -> Source:
    """What a query in brackets gives: the columns that it names, and the tables whose columns a star takes."""
    try:
        parsed = sqlglot.parse_one(query, read="duckdb") if query.strip() else None
    except SqlglotError:
        parsed = None
    if not isinstance(parsed, exp.Query):
        return Source(alias)
    names = tuple(name for name in parsed.named_selects if name and name != "*")
    if not any(isinstance(each, exp.Star) or each.is_star for each in parsed.selects):
        return Source(alias, columns=names)
    tokens, _ = _all_tokens(query)
    return Source(alias, columns=names, inside=tuple(_sources(query, tokens, 0, dict(_ctes(query, tokens)))))
