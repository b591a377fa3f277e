"""The schema browser: what there is to read on the left; columns, versions and readers of the chosen one beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import traitlets
import xxhash

from headwater.errors import NameNotFound, UsageError
from headwater.lake.schema_tree import Item, SchemaTree
from headwater.position import Position, resolve
from headwater_notebooks.panel import Panel

ITEMS_MAX: Final = 400
"""Names in one reply; more are found by searching."""
COLUMNS_MAX: Final = 500
VERSIONS_MAX: Final = 20
READERS_MAX: Final = 100
HITS_MAX: Final = 4
TEXT_MAX: Final = 300
SQL_MAX: Final = 4_000
SEARCH_MAX: Final = 200


class SchemaPanel(Panel):
    """Follows the names of a lake. ``selection``: the full name of what is chosen, or empty; both ways."""

    module = "schema_panel"

    selection = traitlets.Unicode("").tag(sync=True)
    _interval_ms = traitlets.Int(2000).tag(sync=True)

    def __init__(self, tree: SchemaTree, *, interval: float = 2.0) -> None:
        self.tree = tree
        self.lake = tree.lake
        super().__init__(_interval_ms=max(100, round(interval * 1000)))

    def answer(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if op != "browse":
            return super().answer(op, request)
        search, chosen = _text(request, "search")[:SEARCH_MAX], _text(request, "chosen")
        at = self.where(request)
        position = self.tree.lake.position() if at is None else resolve(self.tree.lake.log, at)
        version = xxhash.xxh3_64_hexdigest(repr((self.tree.seen(at), search, chosen, at)).encode())
        head = {"version": version, "position": str(position)}
        if version == request.get("since_version"):
            return {**head, "unchanged": True}
        items = self.tree.items(search, at)
        return {
            **head,
            "items": [_document(each) for each in items[:ITEMS_MAX]],
            "count": str(len(items)),
            "chosen": self._chosen(chosen, at) if chosen else None,
        }

    def static_html(self) -> str:
        return self.tree.static_html(self.at or None)

    def __repr__(self) -> str:
        return str(self.tree)

    def _chosen(self, name: str, at: Position) -> dict[str, Any]:
        """Everything about one name; ``missing`` where there is no such name at this position."""
        try:
            columns, versions = self.tree.columns(name, at), self.tree.versions(name, at)
        except NameNotFound:
            return {"name": name, "missing": True}
        definition = self.tree.definition(name, at)
        return {
            "name": name,
            "columns": [{**vars(each), "description": each.description[:TEXT_MAX]} for each in columns[:COLUMNS_MAX]],
            "more_columns": max(0, len(columns) - COLUMNS_MAX),
            "versions": [
                {
                    **vars(each),
                    "commit": str(each.commit),
                    "changes": [text[:TEXT_MAX] for text in each.changes[:COLUMNS_MAX]],
                    "verdict": each.verdict[:TEXT_MAX],
                }
                for each in versions[:VERSIONS_MAX]
            ],
            "more_versions": max(0, len(versions) - VERSIONS_MAX),
            "readers": self.tree.readers(name, at)[:READERS_MAX],
            "reads": self.tree.reads(name, at)[:READERS_MAX],
            "definition": None if definition is None else definition[:SQL_MAX],
        }


def _document(item: Item) -> dict[str, Any]:
    return {
        "name": item.name,
        "group": item.group,
        "kind": item.kind,
        "sql": item.sql,
        "state": item.state,
        "columns": item.columns,
        "key": list(item.key),
        "owner": item.owner[:TEXT_MAX],
        "description": item.description[:TEXT_MAX],
        "hits": list(item.hits[:HITS_MAX]),
        "more_hits": max(0, len(item.hits) - HITS_MAX),
    }


def _text(request: Mapping[str, Any], name: str) -> str:
    value = request.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{name} is a text, not {json.dumps(value, default=str)[:80]}")
    return value or ""
