"""Pages of what a live table asks: of one position, by key, and no more than the browser shows.

Requests name columns, operators and values. Values are bound, columns must exist, and no SQL ever comes from
outside. Every cell leaves as DuckDB's own text, so big integers and decimals stay exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import xxhash

from headwater import Lake, Result
from headwater import position as positions
from headwater.errors import UsageError
from headwater.lake import params as parameters
from headwater.lake.watch import reads_clock
from headwater_notebooks import query_text
from headwater_notebooks.page_order import Column
from headwater_notebooks.page_plan import CELL_CHARACTERS_MAX, Plan, Wish
from headwater_notebooks.question import Question, Subject, ask, subject, why_no_log

SECONDS_MAX: Final = 20.0
"""A page that takes longer is given up: a person would not wait for it, and the next is due."""
FEW_ROWS: Final = 100_000
"""Up to so many rows a page read in one pass is as fast as one whose rows are fetched after they were put in order, and
costs DuckDB a ninth of the bookkeeping, which it keeps for the next tens of thousands of statements."""
REMEMBERED_MAX: Final = 8
"""Questions of which totals and columns are kept for the next request: those a person goes back and forth between."""


class PageSource(Protocol):
    """What a table panel shows. Called from several threads at once."""

    def page(
        self,
        wish: Wish = ...,
        *,
        show: str = "state",
        of: Sequence[str | None] | None = None,
        since_version: str | None = None,
        at: positions.Position = None,
    ) -> dict[str, Any]: ...

    def text(
        self, wish: Wish = ..., *, show: str = "state", of: Sequence[str | None] | None = None, at: str = ""
    ) -> str: ...


class Pages:
    """Pages over one query of a lake, and over its change log and the history of its rows.

    Thread-safe as the lake is. A pinned lake (``lake.at(P)``) gives pages of that position for ever. ``params``
    are the query's, as they are when a page is asked for: of a control its value. Rows are never kept, but totals are:
    an answer that did not change is not counted again. A page that takes longer than ``seconds`` is given up.
    """

    def __init__(
        self, lake: Lake, query: str, params: Mapping[str, Any] | None = None, *, seconds: float = SECONDS_MAX
    ) -> None:
        self.lake = lake
        self.query = query.strip().rstrip(";").rstrip()
        self.params = params or {}
        self.seconds = seconds
        self._columns: dict[str, tuple[Column, ...]] = {}
        self._totals: dict[str, int] = {}
        self._sizes: dict[str, int] = {}

    def page(
        self,
        wish: Wish = Wish(),  # noqa: B008 (immutable)
        *,
        show: str = "state",
        of: Sequence[str | None] | None = None,
        since_version: str | None = None,
        at: positions.Position = None,
    ) -> dict[str, Any]:
        """One page as JSON values, at the newest position or ``at`` another.

        ``show`` is ``state``, ``log``, or the ``history`` of the row whose key has the texts ``of``.
        ``{version, position, time, columns, rows, total, next_key, previous_key, cut, key, no_log, params}``; rows hold
        texts and None. Without ``rows`` but with ``unchanged`` when the page is still what ``since_version`` named.
        A key is None where there is no further page; ``previous_key`` is for ``Wish.backwards``. Raises
        HeadwaterErrors: what the query itself raises, unknown columns, values that are no value of their column's type,
        no log.
        """
        commit = None if at is None else positions.resolve(self.lake.log, at)
        values = parameters.now(self.params)
        about, question = self._question(values, show, of, commit)
        begun, rows = self._rows(question, commit)
        asked = _digest([rows, show, of, repr(values), vars(wish)])
        version = (since_version or "").split("-")
        if version[1:2] == [asked] and not reads_clock(question.sql):
            if version[0] == str(begun):
                return {"unchanged": True, "version": since_version}
            return {**self._head(begun, f"{begun}-{asked}-{version[-1]}"), "unchanged": True}
        answer, content = self._answered(question, wish, commit, rows)
        head = self._head(answer.position, f"{begun}-{asked}-{_digest(content)}")
        if version[2:] == [_digest(content)]:
            return {**head, "unchanged": True}
        texts = {name: _shown(value) for name, value in values.items()}
        key = about.key if about else ()
        return {**head, **content, "key": list(key), "no_log": why_no_log(about), "params": texts}

    def text(
        self,
        wish: Wish = Wish(),  # noqa: B008 (immutable)
        *,
        show: str = "state",
        of: Sequence[str | None] | None = None,
        at: str = "",
    ) -> str:
        """The SQL of all that such pages show together, as a cell to run. Raises what ``page`` does."""
        commit = None if not at else positions.resolve(self.lake.log, at)
        _, question = self._question(parameters.now(self.params), show, of, commit)
        columns = self._described(question, commit)
        return query_text.cell(self.lake, question, columns, wish, at)

    def _question(
        self, values: Mapping[str, Any], show: str, of: Sequence[str | None] | None, commit: int | None
    ) -> tuple[Subject | None, Question]:
        if any(text is not None and len(text) > CELL_CHARACTERS_MAX for text in of or ()):
            raise UsageError(
                f"a key of more than {CELL_CHARACTERS_MAX} characters is not sent", todo="Use lake.history."
            )
        own = Question(sql=self.query, params=values)
        columns = self._described(own, commit)
        topics = self.lake.topics() if commit is None else self.lake.log.topics(commit)
        about = subject(self.query, [column.name for column in columns], topics)
        return about, ask(self.query, values, about, show, of)

    def _rows(self, question: Question, commit: int | None) -> tuple[int, str]:
        """A position, and what stands for the rows that the answer there is made of: equal, and so is the answer."""
        seen = self.lake.seen(question.sql, at=commit)
        return seen.position if commit is None else commit, _digest([repr(seen.topics), seen.newest])

    def _described(self, question: Question, commit: int | None) -> tuple[Column, ...]:
        """The answer's columns, asked again when a topic is another: a table may have got a new one."""
        topics = self.lake.seen(question.sql, at=commit).topics
        place = _digest([question.sql, repr(topics), repr(question.params)])
        if place not in self._columns:
            params = dict(question.params) or None
            empty = self.lake.sql(f"SELECT * FROM (\n{question.sql}\n) LIMIT 0", at=commit, params=params)
            found = tuple(Column(name, kind) for name, kind in zip(empty.columns, empty.types, strict=True))
            _remember(self._columns, place, found)
        return self._columns[place]

    def _answered(self, question: Question, wish: Wish, commit: int | None, rows: str) -> tuple[Result, dict[str, Any]]:
        """The page, counted or with the total known from before: then it must be of the very rows that were counted."""
        place = _digest([question.sql, repr(question.params), rows, wish.filters, wish.search])
        clock = reads_clock(question.sql)
        total = None if clock else self._totals.get(place)
        columns = self._described(question, commit)
        few = self._sizes.get(question.sql, FEW_ROWS + 1) <= FEW_ROWS
        plan = Plan(question=question, columns=columns, wish=wish, total=total, few=few)
        answer = self.lake.sql(plan.sql, at=commit, params=plan.params or None, seconds=self.seconds)
        if self._rows(question, commit)[1] != rows:  # something was committed meanwhile, perhaps before it was read
            if total is None:
                return answer, plan.content(answer)
            plan = Plan(question=question, columns=columns, wish=wish, few=few)
            answer = self.lake.sql(plan.sql, at=commit, params=plan.params or None, seconds=self.seconds)
            return answer, plan.content(answer)
        content = plan.content(answer)
        _remember(self._totals, place, int(content["total"]))
        if not wish.filters and not wish.search:
            _remember(self._sizes, question.sql, int(content["total"]))
        return answer, content

    def _head(self, commit: int, version: str) -> dict[str, Any]:
        time = self.lake.time_of(commit).isoformat() if commit else None
        return {"version": version, "position": str(commit), "time": time}


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= CELL_CHARACTERS_MAX else text[:CELL_CHARACTERS_MAX] + "…"


def _remember(known: dict[str, Any], place: str, value: Any) -> None:
    while len(known) >= REMEMBERED_MAX:
        known.pop(next(iter(known), ""), None)
    known[place] = value


def _digest(value: object) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(value, sort_keys=True).encode())
