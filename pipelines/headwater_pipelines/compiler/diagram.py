"""The plan of a view as a diagram for a notebook: the view on top, below each operator what it reads.

One piece of static HTML with an SVG in it: no script, no font, no style sheet, nothing fetched, so that a saved
notebook keeps it. Text has the page's own colour, lines and boxes shades that stand out on white and on black; the
class of a node is a word and a colour. The same plan as a table is below it, for those who read rather than look.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headwater_pipelines.compiler.explain import Explain, ExplainNode

_WIDTH, _HEIGHT = 236, 76
_GAP, _RISE, _MARGIN = 20, 30, 6
_DETAIL_CHARACTERS: Final = 33
"""At 6.6 pixels each they fill a box; the whole text shows when the pointer rests on it, and is in the table."""
COLOURS: Final = {
    "linear": "#2e8b57",
    "bilinear": "#1f8a9e",
    "additive": "#3b7dd8",
    "touched-key": "#b7791f",
    "first-rows": "#8a63d2",
    "full": "#d64545",
}
"""By class, the cheapest first. Each has a contrast of at least 3 to white and to black."""
_DIM: Final = "opacity: 0.8"
_CELL: Final = "text-align:left"


@dataclass(frozen=True)
class _Placed:
    """A node's box: its number in the plan, the number of the node that reads it, its left and upper edge."""

    place: int
    parent: int | None
    left: float
    top: float

    @property
    def middle(self) -> float:
        return self.left + _WIDTH / 2


def render(plan: Explain, why: Sequence[str]) -> str:
    """The diagram, and the table under it. ``why``: of each node, its reason in a sentence."""
    head, *more = plan.head
    notes = "".join(f'<div style="font-size: 12px; {_DIM}">{html.escape(text)}</div>' for text in more)
    return (
        '<div class="headwater-plan" style="overflow-x: auto">'
        f'<div style="font-size: 13px; font-weight: 600; padding: 4px 0">{html.escape(head)}</div>{notes}'
        f"{_svg(plan, why)}"
        '<details><summary style="cursor: pointer; font-size: 12px">as a table</summary>'
        f"{_table(plan, why)}</details></div>"
    )


def _svg(plan: Explain, why: Sequence[str]) -> str:
    boxes = list(_placed([node.depth for node in plan.nodes]))
    width = max(box.left for box in boxes) + _WIDTH + 2 * _MARGIN
    height = max(box.top for box in boxes) + _HEIGHT + 2 * _MARGIN
    lines = "".join(_line(box, boxes[box.parent]) for box in boxes if box.parent is not None)
    drawn = "".join(_box(plan, box, why[box.place]) for box in boxes)
    label = f"Plan of view {plan.name}: {len(boxes)} operators. The table below says the same."
    return (
        f'<svg role="img" aria-label="{html.escape(label, quote=True)}" xmlns="http://www.w3.org/2000/svg"'
        f' width="{width:g}" height="{height:g}" viewBox="{-_MARGIN} {-_MARGIN} {width:g} {height:g}"'
        ' style="display: block; color: inherit; font: 11px system-ui, sans-serif" fill="currentColor">'
        f'<g fill="none" stroke="currentColor" stroke-opacity="0.55">{lines}</g>{drawn}</svg>'
    )


def _placed(depths: Sequence[int]) -> Iterator[_Placed]:
    """Of a tree in pre-order: leaves stand side by side, everything else above the middle of its inputs."""
    parents: list[int | None] = []
    path: list[int] = []
    for place, depth in enumerate(depths):
        del path[depth:]
        parents.append(path[-1] if path else None)
        path.append(place)
    lefts = [0.0] * len(depths)
    inputs: list[list[float]] = [[] for _ in depths]
    free = sum(each not in parents for each in range(len(depths)))
    for place in reversed(range(len(depths))):
        if inputs[place]:
            lefts[place] = (min(inputs[place]) + max(inputs[place])) / 2
        else:
            free -= 1
            lefts[place] = free * (_WIDTH + _GAP)
        parent = parents[place]
        if parent is not None:
            inputs[parent].append(lefts[place])
    for place, depth in enumerate(depths):
        yield _Placed(place, parents[place], lefts[place], depth * (_HEIGHT + _RISE))


def _line(box: _Placed, above: _Placed) -> str:
    """From an input up to who reads it, with a point at that end."""
    end = above.top + _HEIGHT
    bend = end + _RISE / 2
    tip = (
        f'<path d="M{above.middle - 4:g} {end + 7:g} L{above.middle:g} {end + 1:g} L{above.middle + 4:g} {end + 7:g}"/>'
    )
    return f'<path d="M{box.middle:g} {box.top:g} V{bend:g} H{above.middle:g} V{end + 1:g}"/>{tip}'


def _box(plan: Explain, box: _Placed, why: str) -> str:
    node = plan.nodes[box.place]
    cost = plan.costs.get(node.stored)
    colour = COLOURS[node.maintenance]
    measured = f'<text x="14" y="68">{cost.rows:,} rows · {cost.ms:.1f} ms</text>' if cost else ""
    tip = f"{node.operator} {node.detail}\n{node.reason}: {why}"
    return (
        f'<g transform="translate({box.left:g} {box.top:g})"><title>{html.escape(tip)}</title>'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="5" fill="#8080801a" stroke="#808080"/>'
        f'<rect width="6" height="{_HEIGHT}" rx="3" fill="{colour}"/>'
        f'<text x="14" y="19" font-size="13" font-weight="600">{html.escape(_cut(node.operator, 20))}</text>'
        f'<text x="{_WIDTH - 10}" y="19" text-anchor="end">{node.maintenance}</text>'
        f'<text x="14" y="38" font-family="monospace">{html.escape(_cut(node.detail))}</text>'
        f'<text x="14" y="53" font-size="10" fill-opacity="0.8">{node.reason}</text>{measured}</g>'
    )


def _cut(text: str, characters: int = _DETAIL_CHARACTERS) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _table(plan: Explain, why: Sequence[str]) -> str:
    names = ("operator", "detail", "maintenance", "reason", *(("rows", "last step ms") if plan.costs else ()))
    head = "".join(f'<th scope="col" style="{_CELL}">{name}</th>' for name in names)
    rows = "".join(_row(plan, node) for node in plan.nodes)
    caption = f"<caption>view {html.escape(plan.name)}</caption>"
    said = dict.fromkeys(f"{node.reason}: {text}" for node, text in zip(plan.nodes, why, strict=True))
    reasons = "".join(f"<li>{html.escape(text)}</li>" for text in said)
    return (
        f'<table cellpadding="4">{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><ul>{reasons}</ul>'
    )


def _row(plan: Explain, node: ExplainNode) -> str:
    cost = plan.costs.get(node.stored)
    measured = (f"{cost.rows:,}", f"{cost.ms:.1f}") if cost else ("", "") if plan.costs else ()
    texts = (f"<code>{html.escape(node.detail)}</code>", node.maintenance, node.reason, *measured)
    cells = "".join(f'<td style="{_CELL}">{text}</td>' for text in texts)
    operator = f'<td style="{_CELL};padding-left:{node.depth + 0.5:g}em">{html.escape(node.operator)}</td>'
    return f"<tr>{operator}{cells}</tr>"
