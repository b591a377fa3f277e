"""The accepted form of a view: CREATE MATERIALIZED VIEW name [WITH (option = value, ...)] AS SELECT ...
Where the name is given beside the text, as in a notebook's cell, it may begin with WITH or with the SELECT.

Only the header is read here; the SELECT keeps its place in the text, so every later message can say line and
column of what the user wrote. A comment that the text begins with is the option ``description``, unless that is given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from headwater.errors import HeadwaterError, SqlSyntax, UnsupportedSql
from headwater_pipelines.compiler import refresh, size

OPTIONS = {
    "refresh": ("continuous", "manual", "every 5 minutes"),
    "refresh_mode": ("auto", "incremental strict"),
    "on_error": ("fail", "null", "dead_letter"),
    "description": (),
    "owner": (),
    "watermark": (),
    "grace": (),
    "idle": (),
    "ttl": (),
    "watermark_by": ("topic", "partition"),
    size.OPTION: (),
}
"""Known options and their values; an empty tuple takes any text."""
SAID = ("description", "owner")
"""Options that say something about a view; no row depends on them."""
DESCRIPTION_CHARS = 1_000
"""Of a comment that becomes a description: every reader of the catalog has it in memory. The text has the rest."""
EMIT = "EMIT ON WINDOW CLOSE"


@dataclass(frozen=True)
class Definition:
    """``text`` is the whole statement, ``start`` where its SELECT begins."""

    name: str
    text: str
    start: int
    options: dict[str, str] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict, compare=False)
    """Offset and length of every option, where the text has a header."""

    @property
    def select(self) -> str:
        """The SELECT with the header, and EMIT ON WINDOW CLOSE, blanked out: offsets are those of ``text``."""
        end = self._emit or len(self.text)
        return _blank(self.text[: self.start]) + self.text[self.start : end] + _blank(self.text[end:])

    @property
    def emits_on_close(self) -> bool:
        """Whether only closed windows are to be shown."""
        return self._emit > 0

    @cached_property
    def _emit(self) -> int:
        """Offset of EMIT ON WINDOW CLOSE at the end; 0 when it is not there."""
        tokens = [token for token in tokenize(self.text) if token.text != ";"]
        words = " ".join(" ".join(token.text.upper() for token in tokens[-4:]).split())
        return tokens[-4].start if words == EMIT else 0

    @property
    def query(self) -> str:
        """The SELECT alone."""
        return self.text[self.start :].strip().rstrip(";").strip()

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column, from 1, of a character offset."""
        before = self.text[:offset]
        return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1

    def keyword(self, *words: str) -> int:
        """Offset of the first keyword sequence ``words`` in the SELECT; 0 when it is not there."""
        tokens = [token for token in tokenize(self.text) if token.start >= self.start]
        # The tokenizer makes one token of some pairs (ORDER BY) and two of others (BY NAME).
        texts = [" ".join(token.text.upper().split()) for token in tokens]
        wanted = " ".join(words)
        for place, token in enumerate(tokens):
            if " ".join(texts[place : place + len(words)]).startswith(wanted):
                return token.start
        return 0


def _blank(text: str) -> str:
    return "".join(char if char == "\n" else " " for char in text)


def tokenize(text: str) -> list[Token]:
    """SqlSyntax when the text does not even split into tokens (an open quote, for instance)."""
    try:
        return DuckDB().tokenize(text)
    except SqlglotError as error:
        raise SqlSyntax(f"cannot read the SQL: {str(error).splitlines()[0]}", todo="Check its quotes.") from error


def parse(text: str, name: str = "") -> Definition:
    """Read a definition; without its CREATE, as WITH (option = value) AS SELECT or as a bare query, it takes ``name``.

    SqlSyntax or UnsupportedSql with the place when the header is not of the accepted form.
    """
    tokens = tokenize(text)
    if not tokens:
        raise SqlSyntax("the SQL is empty", todo="Write CREATE MATERIALIZED VIEW name AS SELECT ...")
    if tokens[0].text.upper() != "CREATE":
        if not name:
            raise _form(text, tokens[0], "a view needs a name")
        if [token.text.upper() for token in tokens[:2]] == ["WITH", "("]:
            definition = _Header(text, tokens).rest(name)
        else:
            definition = Definition(name=name, text=text, start=tokens[0].start)
    else:
        definition = _Header(text, tokens).read()
    if comment := _comment(tokens[0]):
        definition.options.setdefault("description", comment)
    return definition


def _comment(token: Token) -> str:
    """What stands as comments before a token, without what frames it."""
    lines: list[str] = []
    for comment in token.comments:
        block = comment.splitlines()
        lines += [line.strip().removeprefix("*").strip() if len(block) > 1 else line.strip() for line in block]
    return "\n".join(lines).strip()[:DESCRIPTION_CHARS]


def read_file(path: Path) -> Definition:
    """The definition in a .sql file; a bare SELECT takes the file's name."""
    text = path.read_text(encoding="utf-8")
    return parse(text, name=path.stem)


def _form(text: str, token: Token, what: str) -> HeadwaterError:
    line, column = Definition("", text, 0).place(token.start)
    return UnsupportedSql(
        f"{what}, at {token.text!r}",
        code="NOT_A_VIEW_DEFINITION",
        sql=token.text,
        line=line,
        column=column,
        todo="Write CREATE MATERIALIZED VIEW name [WITH (option = 'value')] AS SELECT ...",
    )


class _Header:
    """Reads tokens from CREATE up to and including AS."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self.text = text
        self.tokens = tokens
        self.at = 0
        self.places: dict[str, tuple[int, int]] = {}

    def read(self) -> Definition:
        for word in ("CREATE", "MATERIALIZED", "VIEW"):
            self.expect(word)
        name = self.take()
        if name.token_type not in (TokenType.VAR, TokenType.IDENTIFIER) and not name.text.isidentifier():
            raise _form(self.text, name, "expected the view's name")
        if self.peek() == ".":
            raise _form(self.text, self.tokens[self.at], "a view's name has one part")
        return self.rest(name.text)

    def rest(self, name: str) -> Definition:
        """What follows the name."""
        options = self.options() if self.peek() == "WITH" else {}
        self.expect("AS")
        if self.at >= len(self.tokens):
            raise _form(self.text, self.tokens[-1], "the SELECT is missing")
        return Definition(name, self.text, self.tokens[self.at].start, options, self.places)

    def peek(self) -> str:
        return self.tokens[self.at].text.upper() if self.at < len(self.tokens) else ""

    def take(self) -> Token:
        if self.at >= len(self.tokens):
            raise _form(self.text, self.tokens[-1], "the definition ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, word: str) -> None:
        token = self.take()
        if token.text.upper() != word:
            raise _form(self.text, token, f"expected {word}")

    def options(self) -> dict[str, str]:
        self.expect("WITH")
        self.expect("(")
        found: dict[str, str] = {}
        while self.peek() != ")":
            name = self.take()
            self.expect("=")
            value = self.take().text
            if value.lower() == "every":  # every '5 minutes'
                value = f"every {self.take().text}"
            found[name.text.lower()] = self.option(name, value)
            self.places[name.text.lower()] = (name.start, self.tokens[self.at - 1].end + 1 - name.start)
            if self.peek() == ",":
                self.take()
        self.expect(")")
        return found

    def option(self, name: Token, value: str) -> str:
        allowed = OPTIONS.get(name.text.lower())
        if name.text.lower() == "refresh" and (when := refresh.canonical(value)) is not None:
            return when
        is_wrong = name.text.lower() == size.OPTION and size.parse(value) is None
        if allowed is not None and (not allowed or value in allowed) and not is_wrong:
            return value
        line, column = Definition("", self.text, 0).place(name.start)
        if name.text.lower() == size.OPTION:
            allowed = ("500 MB", "2 GB")
        if allowed is None:
            what, todo = f"there is no option {name.text}", f"Known options: {', '.join(OPTIONS)}."
        else:
            what, todo = f"{name.text} cannot be {value!r}", f"It may be {' or '.join(map(repr, allowed))}."
        raise UnsupportedSql(what, code="UNKNOWN_OPTION", sql=name.text, line=line, column=column, todo=todo)
