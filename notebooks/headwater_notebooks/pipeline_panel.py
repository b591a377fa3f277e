"""The pipeline as a live graph: what feeds what, and of each part its state, its lag and what went wrong last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import traitlets
import xxhash

from headwater.lake.pipeline import Node, Pipeline
from headwater_notebooks.graph import HEIGHT, WIDTH, Place, laid_out
from headwater_notebooks.panel import Panel

COLOURS: Final = {"good": "#2e8b57", "warn": "#b7791f", "bad": "#d64545", "idle": "#808080"}
"""Each has a contrast of at least 3 to white and to black; the state is also a word."""
_MARGIN: Final = 6
_NAME_CHARACTERS: Final = 24


class PipelinePanel(Panel):
    """Follows a lake's pipeline. ``selection``: the id of the chosen node (``view:totals``), or empty; both ways."""

    module = "pipeline_panel"

    selection = traitlets.Unicode("").tag(sync=True)
    _interval_ms = traitlets.Int(1000).tag(sync=True)

    def __init__(self, pipeline: Pipeline, *, interval: float = 1.0) -> None:
        self.pipeline = pipeline
        self.lake = pipeline.lake
        super().__init__(_interval_ms=max(100, round(interval * 1000)))

    def answer(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if op != "graph":
            return super().answer(op, request)
        nodes = self.pipeline.nodes()
        places = laid_out({node.id: node.reads for node in nodes})
        position = self.pipeline.lake.position()
        found = [_document(node, places[node.id]) for node in nodes]
        head = {"version": xxhash.xxh3_64_hexdigest(repr((position, found)).encode()), "position": str(position)}
        if head["version"] == request.get("since_version"):
            return {**head, "unchanged": True}
        return {**head, "nodes": found, "box": [WIDTH, HEIGHT], "size": list(_size(places))}

    def static_html(self) -> str:
        """The graph as an SVG picture, and the same as a table of text for those who read rather than look."""
        nodes = self.pipeline.nodes()
        table = self.pipeline.static_table(nodes)
        if not nodes:
            return table
        return (
            f'<div style="overflow-x: auto">{picture(nodes)}</div><details><summary style="cursor: pointer;'
            f' font-size: 12px">as a table</summary>{table}</details>'
        )

    def __repr__(self) -> str:
        return str(self.pipeline)


def facts(node: Node) -> list[str]:
    """What stands in a box below the name."""
    state = node.state if node.lag_ms is None else f"{node.state}, {_lag(node.lag_ms)} behind"
    word = ("record" if node.kind == "topic" else "row") + ("" if node.rows == 1 else "s")
    rows = [] if node.rows is None else [f"{node.rows:,} {word}"]
    unread = [f"{node.unread:,} more topics"] if node.unread else []
    return [state, " · ".join(rows + unread)]


def picture(nodes: Sequence[Node]) -> str:
    """Static SVG in the page's own colour; no script, nothing fetched."""
    places = laid_out({node.id: node.reads for node in nodes})
    width, height = _size(places)
    lines = "".join(_line(places[fed], places[node.id]) for node in nodes for fed in node.reads if fed in places)
    boxes = "".join(_box(node, places[node.id]) for node in nodes)
    return (
        f'<svg role="img" aria-label="pipeline of {len(nodes)} parts; the table below says the same"'
        f' xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="{-_MARGIN} {-_MARGIN} {width} {height}" style="display: block; color: inherit;'
        ' font-family: system-ui, sans-serif" fill="currentColor">'
        f'<g fill="none" stroke="currentColor" stroke-opacity="0.45">{lines}</g>{boxes}</svg>'
    )


def _document(node: Node, place: Place) -> dict[str, Any]:
    return {
        "id": node.id,
        "kind": node.kind,
        "name": node.name,
        "level": node.level,
        "facts": facts(node),
        "more": {
            "state": node.state,
            "position": node.position,
            "lag": None if node.lag_ms is None else _lag(node.lag_ms),
            "rows": None if node.rows is None else str(node.rows),
            "rows/s": None if node.rows_per_s is None else f"{node.rows_per_s:,.0f}",
            "trouble": node.trouble,
        },
        "reads": list(node.reads),
        "at": [place.x, place.y],
    }


def _size(places: Mapping[str, Place]) -> tuple[int, int]:
    right = max((place.x for place in places.values()), default=0) + WIDTH
    return right + 2 * _MARGIN, max((place.y for place in places.values()), default=0) + HEIGHT + 2 * _MARGIN


def _line(start: Place, end: Place) -> str:
    left, top, right, bottom = start.x + WIDTH, start.y + HEIGHT // 2, end.x, end.y + HEIGHT // 2
    bend = (left + right) // 2
    return f'<path d="M{left} {top} C{bend} {top} {bend} {bottom} {right} {bottom}"/>'


def _box(node: Node, place: Place) -> str:
    first, second = facts(node)
    return (
        f'<g transform="translate({place.x} {place.y})"><title>{escape(node.trouble or node.name)}</title>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="5" fill="#808080" fill-opacity="0.1" stroke="#808080"/>'
        f'<rect width="6" height="{HEIGHT}" rx="3" fill="{COLOURS[node.level]}"/>'
        f'<text x="14" y="18" font-size="12" font-weight="600">{escape(_cut(node.name))}</text>'
        f'<text x="14" y="34" font-size="11">{escape(first)}</text>'
        f'<text x="14" y="49" font-size="11" fill-opacity="0.8">{escape(second)}</text></g>'
    )


def _cut(name: str) -> str:
    """The end of a long name: that is where names of one source differ."""
    return name if len(name) <= _NAME_CHARACTERS else "…" + name[1 - _NAME_CHARACTERS :]


def _lag(milliseconds: float) -> str:
    return f"{milliseconds:,.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1e3:,.0f} s"
