"""Completion inside SQL cells: tables and views, their columns, functions, keywords, and the magics' options.

It works through the kernel, so in every front end. The catalog is looked at with each key press and read when it
has changed; never before the lake was opened by a cell: a key press opens none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Final

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)

from headwater.catalog.records import Topic, View
from headwater.log import tags
from headwater_notebooks import names as known
from headwater_notebooks.names import KEYWORDS, Index, Names, written
from headwater_notebooks.scope import Place, Source, place
from headwater_notebooks.session import Session

SHOWN_MAX: Final = 200
"""Nobody reads more, and each is sent to the page."""
_OURS: Final = ("sql", "hw", "view", "hwview", "hwexplain")
_CELL = re.compile(rf"(?:\s*%%(?!(?:{'|'.join(_OURS)})\b)\w+[^\n]*\n)*\s*%%({'|'.join(_OURS)})\b([^\n]*)")
_LINE = re.compile(r"\s*(?:\w+\s*=\s*)?%(sql|hw)\b")
_OPTIONS: Final = {
    "sql": ("--at", "--limit", "--live"),
    "hw": ("--at", "--limit", "--live"),
    "view": ("--replace",),
    "hwview": ("--replace",),
}
_KEYWORDS: Final = Index(KEYWORDS)

Found = tuple[str, str]
"""What may stand at the cursor, and what kind of thing it is."""


class Completion:
    """The matcher of one shell. ``is_ours``: whether a cell magic of this name is this package's."""

    def __init__(self, session: Session, is_ours: Callable[[str], bool] = lambda _: True) -> None:
        self.session = session
        self._is_ours = is_ours
        self._made_of: tuple[list[Topic], list[View]] = ([], [])
        self._names = Names([])

        @context_matcher(identifier="headwater")  # type: ignore[untyped-decorator]  # IPython types it no further
        def matcher(context: CompletionContext) -> SimpleMatcherResult:
            return self._match(context)

        self.matcher = matcher

    def names(self) -> Names:
        """The catalog's names as they are now."""
        if self.session.opened:
            log = self.session.lake.log
            now = (log.topics(), log.views())
            if now != self._made_of:
                topics, views = self._made_of = now
                self._names = Names(topics, [view.name for view in views if view.topic is None])
        return self._names

    def _match(self, context: CompletionContext) -> SimpleMatcherResult:
        text = context.full_text
        lines = text.split("\n")
        cursor = sum(len(line) + 1 for line in lines[: context.cursor_line]) + context.cursor_position
        found: Iterable[Found] = ()
        in_cell = _CELL.match(text)
        before = text[:cursor].rpartition("\n")[2]
        if in_cell and self._is_ours(in_cell[1]) and cursor > in_cell.end():
            found = self._sql(text, in_cell.end() + 1, cursor, context.token)
        elif in_cell and self._is_ours(in_cell[1]) and cursor >= in_cell.start(2):
            found = self._options(in_cell[1], context.token, before)
        elif not in_cell and (magic := _LINE.match(before)):
            end = text.find("\n", cursor)
            whole = text if end < 0 else text[:end]
            found = self._sql(whole, cursor - len(before) + magic.end(), cursor, context.token)
        else:
            return SimpleMatcherResult(completions=[])
        shown = [SimpleCompletion(each, type=kind) for each, kind in islice(found, SHOWN_MAX)]
        if not shown and context.token:  # without anything IPython would offer Python's names, which mean nothing here
            shown = [SimpleCompletion(context.token, type="text")]
        return SimpleMatcherResult(completions=shown, suppress=True, ordered=True)

    def _options(self, magic: str, token: str, before: str) -> Iterator[Found]:
        if re.search(r"--at[ =]+\S*$", before):
            named = [f"tag:{tag.name}" for tag in tags.listed(self.session.lake.log)] if self.session.opened else []
            yield from ((each, "position") for each in ("latest", "commit:", *named) if each.startswith(token))
            return
        used = before.split()
        yield from ((each, "option") for each in _OPTIONS.get(magic, ()) if each.startswith(token) and each not in used)

    def _sql(self, text: str, begin: int, cursor: int, token: str) -> Iterator[Found]:
        here = place(text[begin:], cursor - begin)
        if here is None:
            return
        # What IPython replaces is ``token``, which ends at other characters than a name in SQL does.
        ahead = text[cursor - len(token) : begin + here.begin]
        within = here.chain[: len(here.chain) - len(token)] if len(here.chain) > len(token) else ""
        for name, kind in _unique(_at(here, self.names())):
            if name.lower().startswith(within.lower()):
                yield ahead + name[len(within) :], kind


def _at(here: Place, names: Names) -> Iterator[Found]:
    """What may stand at a place, the likeliest first; each replaces the whole chain."""
    owner = here.owner
    start = here.chain[len(owner) + 1 :] if owner else here.chain
    if owner:
        return _behind(owner, start, here, names)
    tables = chain(
        ((name, "table") for name in _starting(start, (written(cte.alias) for cte in here.ctes.values()))),
        ((name, "table") for name in names.tables.starting(start)),
        ((name, "schema") for name in ("log", "history") if name.startswith(start.lower())),
    )
    if here.wants_table:
        return tables
    return chain(_columns_in_reach(start, here, names), _words(start), () if here.sources else tables)


def _behind(owner: str, start: str, here: Place, names: Names) -> Iterator[Found]:
    """Columns of a table or alias, names behind ``log.`` and ``history.``, and the rest of a full name."""
    folded = owner.replace('"', "").lower()
    source = next((each for each in here.sources if each.alias.lower() == folded), None)
    columns = _columns(source, names) if source else () if here.wants_table else names.columns(folded)
    for name in _starting(start, map(written, columns)):
        yield f"{owner}.{name}", "column"
    if folded in ("log", "history"):
        index = names.logs if folded == "log" else names.histories
        yield from ((f"{owner}.{name}", "table") for name in index.starting(start))
    yield from ((name, "table") for name in names.full.starting(f"{folded}.{start}"))


def _columns_in_reach(start: str, here: Place, names: Names) -> Iterator[Found]:
    if not here.sources:  # FROM is not written yet
        return ((name, "column") for name in (names.all_columns.starting(start) if start else ()))
    found = (written(name) for source in here.sources for name in _columns(source, names))
    aliases = (written(source.alias) for source in here.sources if source.alias)
    return chain(
        ((name, "column") for name in _starting(start, found)),
        ((name, "table") for name in _starting(start, aliases)),
    )


def _columns(source: Source, names: Names) -> tuple[str, ...]:
    if source.name:
        return names.columns(source.name, source.facet)
    return (*source.columns, *(name for each in source.inside for name in _columns(each, names)))


def _words(start: str) -> Iterator[Found]:
    upper = start[:1].isupper() or not start
    yield from ((word if upper else word.lower(), "keyword") for word in _KEYWORDS.starting(start))
    if start:
        index, signatures = known.functions()
        yield from ((name, signatures[name]) for name in index.starting(start))


def _starting(start: str, found: Iterable[str]) -> Iterator[str]:
    wanted = start.replace('"', "").lower()
    return (name for name in found if name.replace('"', "").lower().startswith(wanted))


def _unique(found: Iterable[Found]) -> Iterator[Found]:
    seen: set[str] = set()
    for name, kind in found:
        if name.lower() not in seen:
            seen.add(name.lower())
            yield name, kind
