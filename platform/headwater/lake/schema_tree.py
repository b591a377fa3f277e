"""What there is to read in a lake at a position: tables, topics, views, with columns, versions and who reads them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import xxhash

from headwater import duck
from headwater.catalog.records import Topic, View
from headwater.errors import HeadwaterError
from headwater.lake.html import render
from headwater.lake.plain import plain_table
from headwater.lake.resolve import resolve
from headwater.lake.shown import panel_of
from headwater.log import jobs, names, subjects
from headwater.position import Position
from headwater.position import resolve as resolve_position
from headwater.registry import check, diff
from headwater.registry.diff import default_text
from headwater.types import quote

if TYPE_CHECKING:
    from headwater.lake.lake import Lake

Kind = Literal["table", "topic", "view"]
ITEMS_SHOWN: Final = 50
"""Of the form without JavaScript."""
_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_]*")
_COLUMNS: Final = ("name", "kind", "columns", "key", "owner", "description")
_TYPES: Final = ("VARCHAR",) * len(_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something that can be read. ``group``: its source, or what stands before the first dot; ``sql``: the shortest
    name that means it in a query, quoted where it must be; ``columns``: how many; ``hits``: those a search found."""

    name: str
    group: str
    kind: Kind
    sql: str
    state: str
    columns: int
    key: tuple[str, ...]
    owner: str
    description: str
    hits: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Column:
    """``default``: of new records, empty where there is none; ``source_type``: what the source calls its type."""

    name: str
    sql: str
    type: str
    nullable: bool
    key: bool
    default: str
    source_type: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Version:
    """A schema version: since which commit it is in force, how it differs from the one before, and what the topic's
    compatibility says of it."""

    number: int
    commit: int
    time: str
    changes: tuple[str, ...]
    verdict: str
    accepted: bool


class SchemaTree:
    """The catalog at the lake's position, or at ``at``; read anew each time it is asked."""

    panel: ClassVar[str] = "schema"
    """Of the entry points ``headwater.panel``, the one that shows it."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._panel: Any = None

    def items(self, search: str = "", at: Position = None) -> list[Item]:
        """Everything whose name, description, owner or column has ``search`` in it; by group and name."""
        topics, views = self._all(at)
        last = Counter(each.name.rpartition(".")[2].lower() for each in topics)
        found = [_item(topic, last, views) for topic in topics]
        published = {item.name for item in found}
        found += [_unpublished(view) for view in views.values() if f"views.{view.name}" not in published]
        words = search.lower().split()
        by_name = {topic.name: topic for topic in topics}
        kept = (_hit(item, by_name.get(item.name), words) for item in found)
        return sorted((each for each in kept if each), key=lambda each: (each.group == "views", each.group, each.name))

    def columns(self, name: str, at: Position = None) -> list[Column]:
        """Columns of a table, topic or view; NameNotFound with near names."""
        schema = self._topic(name, at).schema
        return [
            Column(
                name=field.name,
                sql=sql_name(field.name),
                type=field.declared_type,
                nullable=field.nullable,
                key=field.name in schema.key,
                default=default_text(field) if field.optional else "",
                source_type=field.source_type,
                description=field.description,
            )
            for field in schema.fields
        ]

    def versions(self, name: str, at: Position = None) -> list[Version]:
        """Versions of its schema up to the position, the newest first."""
        topic, upto = self._topic(name, at), self._commit(at)
        mode = subjects.mode(topic)
        writer = f"source {topic.source}" if topic.source else "its view"
        found = [each for each in subjects.versions(self.lake.log, topic) if upto is None or each.commit <= upto]
        told = []
        for place, each in enumerate(found):
            before = found[:place]
            broken = check(each.schema, {b.number: b.schema for b in before}, mode) if mode and before else []
            follows = f"follows {writer}" if mode is None else "the first" if not before else f"accepted by {mode}"
            told.append(
                Version(
                    number=each.number,
                    commit=each.commit,
                    time=each.time.isoformat(),
                    changes=tuple(map(str, diff(before[-1].schema, each.schema))) if before else (),
                    verdict="; ".join(map(str, broken)) or follows,
                    accepted=not broken,
                )
            )
        return told[::-1]

    def readers(self, name: str, at: Position = None) -> list[str]:
        """Views and jobs that read it, as ``view NAME`` and ``job NAME``; of jobs those that there are now."""
        topic = self._topic(name, at)
        topics, views = self._all(at)
        found = [f"view {view.name}" for view in views.values() if topic.name in _reads(view.sql, topics)]
        return found + [f"job {each.name}" for each in jobs.read(self.lake.log) if topic.name in each.inputs]

    def reads(self, name: str, at: Position = None) -> list[str]:
        """What a view reads: full names; nothing for a table."""
        topics, views = self._all(at)
        view = views.get(self._topic(name, at).name.removeprefix("views."))
        return [] if view is None else _reads(view.sql, topics)

    def definition(self, name: str, at: Position = None) -> str | None:
        """The SQL of a view; None for a table."""
        _, views = self._all(at)
        view = views.get(self._topic(name, at).name.removeprefix("views."))
        return None if view is None else view.sql

    def seen(self, at: Position = None) -> str:
        """A text that stays the same as long as nothing here would be told differently."""
        topics, views = self._all(at)
        told = [(each.id, each.name, each.schema_version, each.state, each.owner, each.description) for each in topics]
        made = [(each.id, each.name, each.state) for each in views.values()]
        readers = [(each.name, each.inputs) for each in jobs.read(self.lake.log)]
        return xxhash.xxh3_64_hexdigest(repr((told, made, readers)).encode())

    def _all(self, at: Position) -> tuple[list[Topic], dict[str, View]]:
        upto = self._commit(at)
        topics = [each for each in self.lake.log.topics(upto) if each.kind not in ("system", "transactions")]
        return topics, {view.name: view for view in self.lake.log.views(upto)}

    def _topic(self, name: str, at: Position) -> Topic:
        return names.resolve(name, self._all(at)[0])

    def _commit(self, at: Position) -> int | None:
        """None for the newest, whose names the log keeps at hand."""
        if at is not None:
            return resolve_position(self.lake.log, at)
        return self.lake._pinned_commit()

    def __str__(self) -> str:
        items = self.items()
        rows = [_row(each) for each in items[:ITEMS_SHOWN]]
        return plain_table(_COLUMNS, _TYPES, rows, len(items), self.lake.position())

    def __repr__(self) -> str:
        return str(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """The browser where the notebook package is present, else a static table."""
        if (panel := panel_of(self, "schema")) is not None:
            return panel._repr_mimebundle_(include=include, exclude=exclude)
        return {"text/plain": str(self), "text/html": self.static_html()}

    def static_html(self, at: Position = None) -> str:
        """The first tables, topics and views with their columns as HTML, readable without JavaScript."""
        items = self.items(at=at)
        rows = [self._line(each, at) for each in items[:ITEMS_SHOWN]]
        commit = self._commit(at)
        position = self.lake.position() if commit is None else commit
        return render(_COLUMNS, _TYPES, rows, len(items), len(rows), position)

    def _line(self, item: Item, at: Position) -> tuple[str, ...]:
        listed = ", ".join(f"{each.name} {each.type}" for each in self.columns(item.name, at)) if item.columns else ""
        return (item.name, item.kind, listed, ", ".join(item.key), item.owner, item.description)


def sql_name(name: str) -> str:
    """One name as it is written in SQL: in quotes where it would mean something else without."""
    return name if _PLAIN.fullmatch(name) and name not in _reserved() else quote(name)


@lru_cache(maxsize=1)
def _reserved() -> frozenset[str]:
    with duck.connect() as connection:
        sql = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'"
        return frozenset(row[0] for row in connection.execute(sql).fetchall())


def _item(topic: Topic, last: Counter[str], views: dict[str, View]) -> Item:
    short = topic.name.rpartition(".")[2]
    parts = [short] if last[short.lower()] == 1 else topic.name.split(".")
    group = topic.name.partition(".")[0]
    view = views.get(topic.name.removeprefix("views.")) if group == "views" else None
    options = {} if view is None else view.options
    return Item(
        name=topic.name,
        group=group,
        kind="view" if view else "topic" if topic.kind == "event" else "table",
        sql=".".join(map(sql_name, parts)),
        state=view.state if view else topic.state,
        columns=len(topic.schema.fields),
        key=tuple(topic.schema.key),
        owner=topic.owner or str(options.get("owner") or ""),
        description=topic.description or str(options.get("description") or ""),
    )


def _unpublished(view: View) -> Item:
    """A view that has published nothing yet."""
    return Item(
        name=f"views.{view.name}",
        group="views",
        kind="view",
        sql=sql_name(view.name),
        state=view.state,
        columns=0,
        key=(),
        owner=str(view.options.get("owner") or ""),
        description=str(view.options.get("description") or ""),
    )


def _hit(item: Item, topic: Topic | None, words: Sequence[str]) -> Item | None:
    """The item with the columns that were found; None unless each word is found somewhere."""
    if not words:
        return item
    text = f"{item.name} {item.kind} {item.owner} {item.description}".lower()
    columns = () if topic is None else topic.schema.names
    folded = "\0".join(columns).lower()  # in one piece: a lake may have a hundred thousand columns
    if not all(word in text or word in folded for word in words):
        return None
    pairs = zip(columns, folded.split("\0"), strict=True) if columns else ()
    return replace(item, hits=tuple(name for name, each in pairs if any(map(each.__contains__, words))))


def _reads(query: str, topics: Sequence[Topic]) -> list[str]:
    try:
        return sorted({reference.topic.name for reference in resolve(query, topics).references})
    except HeadwaterError:  # it names something that is not there at this position
        return []


def _row(item: Item) -> tuple[str, ...]:
    return (item.name, item.kind, f"{item.columns:,}", ", ".join(item.key), item.owner, item.description)
