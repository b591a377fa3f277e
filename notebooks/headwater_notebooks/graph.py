"""Where the nodes of a graph stand when it is drawn from left to right: by layer, with few crossings.

What feeds a node is left of it. Within a layer nodes are ordered by the middle of their neighbours, twice there and
back, which leaves few crossings in graphs of some tens of nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 190, 56
ACROSS, DOWN = 60, 16
SWEEPS = 2


@dataclass(frozen=True)
class Place:
    """The left and upper edge of a node's box."""

    x: int
    y: int


def laid_out(reads: Mapping[str, Sequence[str]]) -> dict[str, Place]:
    """Of each node, given what feeds it; names that are no node are ignored. A circle is cut somewhere."""
    inputs = {name: [each for each in fed if each in reads] for name, fed in reads.items()}
    layer: dict[str, int] = {}
    for name in inputs:
        _find_layer(name, inputs, layer)
    layers = [[name for name in inputs if layer[name] == level] for level in range(max(layer.values(), default=-1) + 1)]
    outputs: dict[str, list[str]] = {name: [] for name in inputs}
    for name, fed in inputs.items():
        for each in fed:
            outputs[each].append(name)
    for _ in range(SWEEPS):
        _order(layers, inputs)
        _order(layers[::-1], outputs)
    tallest = max(map(len, layers), default=0)
    places = {}
    for level, names in enumerate(layers):
        above = (tallest - len(names)) * (HEIGHT + DOWN) // 2
        for rank, name in enumerate(names):
            places[name] = Place(level * (WIDTH + ACROSS), above + rank * (HEIGHT + DOWN))
    return places


def _find_layer(name: str, inputs: Mapping[str, Sequence[str]], layer: dict[str, int]) -> int:
    """One more than the greatest of what feeds it; a node that is asked for while it is looked for counts as 0."""
    if name not in layer:
        layer[name] = 0
        layer[name] = max((_find_layer(each, inputs, layer) + 1 for each in inputs[name]), default=0)
    return layer[name]


def _order(layers: Sequence[list[str]], neighbours: Mapping[str, Sequence[str]]) -> None:
    """Sort each layer but the first by the middle of its neighbours in those before it."""
    rank: dict[str, float] = {}
    for names in layers:
        if rank:
            near = {name: [rank[each] for each in neighbours[name] if each in rank] for name in names}
            middle = {name: sum(found) / len(found) if found else -1.0 for name, found in near.items()}
            names.sort(key=lambda name: middle[name])
        rank |= {name: place / max(1, len(names) - 1) for place, name in enumerate(names)}
