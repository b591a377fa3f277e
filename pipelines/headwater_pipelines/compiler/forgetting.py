"""What is stored of windows that are closed, and that nothing will read again.

A row of a topic matters until its windows are closed, and what is computed of closed windows until it is published,
provided that nobody comes back to it: every tree that reads it joins nothing, and is a view itself, or feeds groups
that are kept by addition or that belong to one window. Anything else keeps its rows.

The windows that were closed last are looked at once more, with those that close next (``render`` asks for what lies
between the two, both included): they go one window's length later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from headwater.types import quote
from headwater_pipelines.compiler.plan import (
    Aggregate,
    Base,
    Clock,
    EventTime,
    Leaf,
    Node,
    Recompute,
    Select,
    Source,
    Tree,
    Union,
    inputs_of,
    leaves,
)

WINDOW = "hw_window"
"""The alias that a window function has where its closed windows are chosen."""
_COLUMN = re.compile(r'"?(\w+)"?\."?(\w+)"?')


def forgettable(roots: Iterable[Tree], order: Iterable[Source]) -> dict[Source, tuple[EventTime, str]]:
    """Of relations with rows that can go: by which event time, and SQL that holds of them, over ``{closed}``.

    That is the time up to which windows are closed, in microseconds.
    """
    derived = [source for source in order if not isinstance(source, Base | Clock)]
    users: list[tuple[Node, Source | None]] = [(root, None) for root in dict.fromkeys(roots)]
    users += [(tree, source) for source in derived for tree in inputs_of(source)]
    found = {}
    for source in order:
        mine = [(tree, user) for tree, user in users if source in set(leaves(tree))]
        if mine and _is_settled(source) and all(_is_read_once(t) and _stays_in_windows(user) for t, user in mine):
            condition = _condition(source)
            if condition is not None:
                found[source] = condition
    return found


def _condition(source: Source) -> tuple[EventTime, str] | None:
    match source:
        case Base(event_time=EventTime(window_us=int(size)) as timed, kind=kind) if kind != "table" and size:
            column = quote(timed.column(source.id))
            return timed, f"epoch_us(CAST({column} AS {timed.type})) < {{closed}} - {2 * size}"
        case Aggregate() | Recompute():
            for name, (which, timed) in _window_keys(source):
                longest = timed.window_us or 0
                if timed.window_us is not None and (which == "window_end" or longest):
                    size = longest if which == "window_end" else 2 * longest
                    return timed, f"epoch_us({quote(name)}) < {{closed}} - {size}"
    return None


def _window_keys(source: Aggregate | Recompute) -> Iterator[tuple[str, tuple[str, EventTime]]]:
    """Keys that are a bound of a closed window, the end before the start."""
    found = []
    if isinstance(source, Aggregate):
        found = [(name, _bound(source.input, name)) for name, _ in source.keys]
    elif source.inputs:
        for place, name in enumerate(source.keys):
            bounds = {_bound(each.node, each.keys[place]) for each in source.inputs}
            found.append((name, bounds.pop() if len(bounds) == 1 else None))
    known = [(name, bound) for name, bound in found if bound is not None]
    yield from sorted(known, key=lambda each: each[1][0])


def _bound(node: Node, name: str) -> tuple[str, EventTime] | None:
    """The bound of a closed window that a column holds, and by which event time it is closed."""
    if isinstance(node, Leaf):
        if isinstance(node.source, Aggregate | Recompute):
            return dict(_window_keys(node.source)).get(name)
        return None
    if isinstance(node, Union):
        bounds = {_bound(part, name) for part in node.inputs}
        return bounds.pop() if len(bounds) == 1 else None
    parsed = _COLUMN.fullmatch(dict(node.columns).get(name, ""))
    item = next((each for each in node.items if parsed and each.alias == parsed[1]), None)
    if parsed is None or item is None:
        return None
    timed = _closes(node)
    if timed is not None and parsed[1] == WINDOW and parsed[2] in ("window_start", "window_end"):
        return parsed[2], timed
    return _bound(item.node, parsed[2])


def _closes(node: Select) -> EventTime | None:
    """The event time by which a Select chooses closed windows."""
    for item in node.items:
        if isinstance(item.node, Leaf) and isinstance(item.node.source, Clock) and item.node.source.event_time:
            wanted = f"({WINDOW}.window_end <= {item.alias}.v)"
            return item.node.source.event_time if node.where == (wanted,) else None
    return None


def _is_settled(source: Source) -> bool:
    """Whether rows of closed windows never change: nothing but the watermark moves them, and their windows alone."""
    match source:
        case Base(event_time=timed):
            return timed is not None and timed.window_us is not None
        case Aggregate() | Recompute():
            whole = isinstance(source, Recompute) and source.operator.startswith("session ")
            trees = inputs_of(source)
            return (whole or any(_window_keys(source))) and all(
                _is_read_once(tree) and all(_is_settled(each) for each in leaves(tree) if not isinstance(each, Clock))
                for tree in trees
            )
    return False


def _is_read_once(node: Node) -> bool:
    """Whether rows pass through once: with their delta, or when their window is closed."""
    match node:
        case Select(items=items):
            rows = [item for item in items if not (isinstance(item.node, Leaf) and isinstance(item.node.source, Clock))]
            return len(rows) == 1 and (len(items) == 1 or _closes(node) is not None) and _is_read_once(rows[0].node)
        case Union(inputs):
            return all(map(_is_read_once, inputs))
    return True


def _stays_in_windows(user: Source | None) -> bool:
    """Whether what a tree feeds, a view or a relation, does not come back to rows of windows that are closed."""
    if user is None or (isinstance(user, Aggregate) and not user.touched):
        return True
    return isinstance(user, Aggregate | Recompute) and any(_window_keys(user))
