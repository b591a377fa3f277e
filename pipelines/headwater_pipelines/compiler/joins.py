"""Joins that keep or test rows: LEFT, RIGHT, FULL, SEMI, ANTI and ASOF. Keys are the columns that are compared equal.

Rows of both sides with a touched key are joined anew; without an equality between the sides that is all of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headwater.types import quote
from headwater_pipelines.compiler import unkeyed
from headwater_pipelines.compiler.plan import Input, Item, Node, Select
from headwater_pipelines.compiler.scope import Scope, Visible
from headwater_pipelines.compiler.syntax import NOWHERE, Tree, column, is_column, walk
from headwater_pipelines.compiler.whole import NoRule, input_of, recomputed

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering

_WORDS = {"LEFT": "LEFT JOIN", "RIGHT": "RIGHT JOIN", "FULL": "FULL JOIN", "SEMI": "SEMI JOIN", "ANTI": "ANTI JOIN",
          "INNER": "JOIN"}  # fmt: skip
_NUMBERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DECIMAL.*|FLOAT|DOUBLE")
L, R = "hw_l", "hw_r"
_MATCHED = {"LEFT": (R,), "RIGHT": (L,), "SEMI": (L, R), "ANTI": (R,)}
"""The sides of which rows do nothing but match others: those that match none leave no trace."""
Rows = tuple[Scope, list[Any]]
"""A scope and the conditions on its rows."""
Sides = tuple[Rows, Rows]


@dataclass(frozen=True)
class Side:
    """One side of a join under ``alias``: its rows, and its FROM items over them."""

    alias: str
    tree: Select
    scope: Scope
    shown: tuple[str, ...] | None = None
    """The columns that are used of the tree's; None: all."""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.tree.columns) if self.shown is None else self.shown


def has_rule(node: Tree) -> bool:
    """Whether a join is of the kinds that are handled here, and not an inner one; NoRule for one of neither."""
    if node.get("ranking_expression"):
        raise NoRule("ranked join", "RANKED_JOIN")
    return bool(node["join_type"] != "INNER" or node["ref_type"] == "ASOF")


def joined(lowering: Lowering, node: Tree, sides: Sides) -> Scope:
    """A join in FROM; ``sides``: the scope of each side, and the conditions on its rows."""
    kind, asof = str(node["join_type"]).replace("OUTER", "FULL"), node["ref_type"] == "ASOF"
    if kind not in _WORDS:
        raise NoRule("join", "JOIN_KIND")
    using = [str(name).lower() for name in node.get("using_columns") or ()]
    if node["ref_type"] == "NATURAL":
        using = common(sides[0][0], sides[1][0])
    last = using.pop() if asof and using else ""

    def parts(left: Side, right: Side) -> list[Tree]:
        if last:  # the last of USING is the time, and the left side's is shown
            one, other = _using([last], left.scope, right.scope)[last]
            return [lowering.duck.expression(f"{L}.{quote(one)} >= {R}.{quote(other)}")]
        if not node.get("condition"):
            return []
        if any(part.get("class") == "SUBQUERY" for part in walk(node["condition"])):
            raise NoRule("subquery", "SUBQUERY")
        merged = {**right.scope.merged, **left.scope.merged}
        both = Scope(lowering.refuse, [*left.scope.items, *right.scope.items], merged)
        return conjuncts(both.resolve(node["condition"]))

    made = attached(lowering, kind, sides, parts, using, asof=asof, is_written=True)
    if last and (found := made.find([last])) is not None:
        made.merged[last] = found
    return made


def attached(
    lowering: Lowering,
    kind: str,
    sides: Sides,
    resolved: Callable[[Side, Side], list[Tree]],
    using: Sequence[str] = (),
    *,
    asof: bool = False,
    is_written: bool = False,
) -> Scope:
    """The rows of both sides joined; ``resolved`` gives the conditions over the sides' own columns.

    ``is_written``: they stand in the definition as they are, and nothing else is made of their text.
    """
    left, right = _both(lowering, sides)
    same = _using(using, left.scope, right.scope)
    parts = [lowering.duck.expression(f"{L}.{quote(one)} = {R}.{quote(other)}") for one, other in same.values()]
    parts += resolved(left, right)
    if any(part.get("class") == "SUBQUERY" for each in parts for part in walk(each)):
        raise NoRule("subquery", "SUBQUERY")
    if not asof:
        left, right, parts = _filtered(lowering, kind, left, right, parts)
    by, inputs = _inputs(lowering, parts, left, right, kind)
    if is_written:
        kept = {name for pair in same.values() for name in pair}
        left, right = (_without(side, _named_only_in(lowering, side, parts) - kept) for side in (left, right))
    shown = [left] if kind in ("SEMI", "ANTI") else [left, right]
    both = {
        name: f"coalesce({L}.{quote(one)}, {R}.{quote(other)})" for name, (one, other) in same.items() if kind == "FULL"
    }
    word = ("ASOF " if asof else "") + _WORDS[kind]
    is_plain = not (by or asof or same) and all(_aliases(part) <= {L, R} for part in parts)
    if is_plain and kind in unkeyed.KINDS:
        listed = [(side.alias, name) for side in shown for name in side.columns]
        items = (Item(L, left.tree), Item(R, right.tree))
        made = unkeyed.joined(lowering, kind, items, tuple(map(lowering.duck.print, parts)), listed)
        return _scope(lowering, made, kind, shown, same, list(both))
    query = _query(lowering, kind, word, by, shown, list(both.values()), inputs, parts)
    why = NoRule(word.lower(), "JOIN_KEY" if by else "JOIN_WHOLE")
    made = recomputed(lowering, inputs, query, by, why, shows_keys=True)
    return _scope(lowering, made, kind, shown, same, list(both))


def valued(
    lowering: Lowering,
    sides: Sides,
    resolved: Callable[[Side, Side], list[Tree]],
    value: Callable[[Side, Side, str], str],
) -> tuple[Scope, Tree]:
    """The left rows, each with a value computed from the right ones of its key: the new scope, and the value in it."""
    left, right = _both(lowering, sides)
    by, (one, other) = _inputs(lowering, resolved(left, right), left, right)
    if not by:
        raise NoRule("subquery", "SUBQUERY")
    listed = ", ".join(_columns(L, one, [left]))
    query = f"SELECT {listed}, {value(left, right, other.name)} AS v FROM {one.name} AS {L}"
    made = recomputed(lowering, (one, other), query, by, NoRule("subquery", "JOIN_KEY"), shows_keys=True)
    scope = _scope(lowering, made, "LEFT", [left], {}, [])
    alias, name = lowering.alias(), made.columns[-1][0]
    lowering.admit({"v"})
    scope.items.append(Visible(scope.items[0].alias, (alias,), {"v": name}, made, hidden=True))
    return scope, column(alias, "v")


def lateral(
    lowering: Lowering,
    sides: Sides,
    resolved: Callable[[Side, Side], list[Tree]],
    rows: Callable[[Side, Side, str], str],
    word: str,
    name: str,
    columns: Sequence[str],
) -> Scope:
    """The left rows, each with the rows of a query over the right ones of its key, as the item ``name``."""
    left, right = _both(lowering, sides)
    by, (one, other) = _inputs(lowering, resolved(left, right), left, right)
    if not by:
        raise NoRule("lateral join", "LATERAL")
    listed = [*_columns(L, one, [left]), *(f"hw_t.c{place} AS t{place}" for place in range(len(columns)))]
    shown = ", ".join(f"c{place}" for place in range(len(columns)))
    on = " ON true" if word == "LEFT" else ""
    query = (
        f"SELECT {', '.join(listed)} FROM {one.name} AS {L} {word} JOIN"
        f" LATERAL ({rows(left, right, other.name)}) AS hw_t({shown}){on}"
    )
    made = recomputed(lowering, (one, other), query, by, NoRule("lateral join", "JOIN_KEY"), shows_keys=True)
    scope = _scope(lowering, made, "LEFT", [left], {}, [])
    own = {each.lower(): f"t{place}" for place, each in enumerate(columns)}
    alias = scope.items[0].alias if scope.items else lowering.alias()
    scope.items.append(Visible(alias, (name,), own, made))
    return scope


def inner_first(lowering: Lowering, left: Side, right: Side) -> Scope:
    """Names as a subquery on the right means them: its own before those around it."""
    merged = {**left.scope.merged, **right.scope.merged}
    return Scope(lowering.refuse, [*right.scope.items, *left.scope.items], merged)


def _both(lowering: Lowering, sides: Sides) -> tuple[Side, Side]:
    return side_of(lowering, *sides[0], L), side_of(lowering, *sides[1], R)


def side_of(lowering: Lowering, scope: Scope, conditions: list[Any], alias: str) -> Side:
    """The rows of a FROM clause as one item. Columns that nothing in the definition names are left out."""
    own: dict[tuple[str, str], str] = {}
    items = []
    for item in scope.items:
        kept = {shown: name for shown, name in item.columns.items() if lowering.is_named(shown)}
        for name in kept.values():
            own.setdefault((item.alias, name), f"{alias[-1]}{len(own)}")
        items.append((item, {shown: own[item.alias, name] for shown, name in kept.items()}))
    for place in scope.merged.values():
        own.setdefault(place, f"{alias[-1]}{len(own)}")
    references = [column(*place) for place in own]
    lowering.note(scope, references)
    columns = tuple(zip(own.values(), map(lowering.duck.print, references), strict=True))
    tree = Select(scope.plan_items(), tuple(map(lowering.duck.print, conditions)), columns or (("one", "1"),))
    visible = [replace(item, alias=alias, columns=own_, node=tree) for item, own_ in items]
    merged = {name: (alias, own[place]) for name, place in scope.merged.items()}
    return Side(alias, tree, Scope(lowering.refuse, visible, merged))


def _filtered(
    lowering: Lowering, kind: str, left: Side, right: Side, parts: list[Tree]
) -> tuple[Side, Side, list[Tree]]:
    """What is asked of the rows of one side alone, if these only have to match, chooses that side's rows before."""
    sides, rest = {L: left, R: right}, parts
    for alias in _MATCHED.get(kind, ()):
        own = [part for part in rest if _aliases(part) == {alias}]
        rest = [part for part in rest if _aliases(part) != {alias}]
        sides[alias] = _chosen(lowering, sides[alias], own) if own else sides[alias]
    return sides[L], sides[R], rest


def _chosen(lowering: Lowering, side: Side, parts: list[Tree]) -> Side:
    """The rows of a side that fulfil conditions; without the columns that the definition names nowhere else."""
    side, where = _without(side, _named_only_in(lowering, side, parts)), tuple(map(lowering.duck.print, parts))
    columns = tuple((name, f"{side.alias}.{quote(name)}") for name in side.columns)
    tree = Select((Item(side.alias, side.tree),), where, columns or (("one", "1"),))
    visible = [replace(item, node=tree) for item in side.scope.items]
    return replace(side, tree=tree, shown=None, scope=Scope(lowering.refuse, visible, side.scope.merged))


def _named_only_in(lowering: Lowering, side: Side, parts: list[Tree]) -> set[str]:
    """The columns of a side that the definition names in conditions and nowhere else."""
    read = Counter(part["column_names"][-1] for each in parts for part in walk(each) if is_column(part))
    shown: dict[str, set[str]] = {}
    for item in side.scope.items:
        for name, own in item.columns.items():
            shown.setdefault(own, set()).add(name)
    kept = {own for _, own in side.scope.merged.values()}
    names = lowering.names
    return {
        own
        for own, count in read.items()
        if names is not None and own in shown and own not in kept and sum(map(names.__getitem__, shown[own])) <= count
    }


def _without(side: Side, gone: set[str]) -> Side:
    """The same rows without columns, which their tree still has."""
    visible = [
        replace(item, columns={name: own for name, own in item.columns.items() if own not in gone})
        for item in side.scope.items
    ]
    shown = tuple(name for name in side.columns if name not in gone)
    return replace(side, shown=shown, scope=replace(side.scope, items=visible))


def _using(names: Sequence[str], left: Scope, right: Scope) -> dict[str, tuple[str, str]]:
    """What each side calls the columns that both have."""
    found = {}
    for name in names:
        one, other = left.find([name]), right.find([name])
        if one is None or other is None:
            raise NoRule("join", "USING")
        found[name] = (one[1], other[1])
    return found


def common(left: Scope, right: Scope) -> list[str]:
    """The columns that a NATURAL join compares."""
    others = {name for item in right.items for name in item.columns}
    return list(dict.fromkeys(name for item in left.items for name in item.columns if name in others))


def conjuncts(condition: Tree) -> list[Tree]:
    if condition.get("type") != "CONJUNCTION_AND":
        return [condition]
    return [part for child in condition["children"] for part in conjuncts(child)]


def conjunction(parts: list[Tree]) -> Tree | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    place = {"alias": "", "query_location": NOWHERE, "query_location_length": 0}
    return {"class": "CONJUNCTION", "type": "CONJUNCTION_AND", **place, "children": parts}


def _equalities(lowering: Lowering, parts: list[Tree], left: Side, right: Side) -> list[tuple[str, str]]:
    """What is compared equal, as SQL over each side; values that compare only after a conversion are no keys."""
    found: list[tuple[str, str]] = []
    for part in parts:
        if part.get("type") not in ("COMPARE_EQUAL", "COMPARE_NOT_DISTINCT_FROM"):
            continue
        one, other = part["left"], part["right"]
        if (_aliases(one), _aliases(other)) == ({R}, {L}):
            one, other = other, one
        if (_aliases(one), _aliases(other)) == ({L}, {R}):
            found.append((lowering.duck.print(one), lowering.duck.print(other)))
    names = tuple(f"k{place}" for place in range(len(found)))
    sides = [_keyed(side, [pair[n] for pair in found], names) for n, side in enumerate((left, right))]
    types = [dict(lowering.describe(side)) for side in sides]
    return [pair for pair, name in zip(found, names, strict=True) if comparable(types[0][name], types[1][name])]


def _inputs(
    lowering: Lowering, parts: list[Tree], left: Side, right: Side, kind: str = "LEFT"
) -> tuple[tuple[str, ...], tuple[Input, Input]]:
    """The keys' names, and both sides with the keys."""
    pairs = _equalities(lowering, parts, left, right)
    by = tuple(f"k{place}" for place in range(len(pairs)))
    one = input_of(lowering, _keyed(left, [pair[0] for pair in pairs], by), by)
    other = input_of(lowering, _keyed(right, [pair[1] for pair in pairs], by), by)
    needed = (kind not in ("RIGHT", "FULL"), kind in ("RIGHT", "SEMI", "INNER"))
    return by, (replace(one, is_needed=needed[0]), replace(other, is_needed=needed[1]))


def comparable(one: str, other: str) -> bool:
    """Whether values of two types compare as those of either do."""
    return one == other or all(_NUMBERS.fullmatch(text) for text in (one, other))


def _aliases(expression: Any) -> set[str]:
    return {part["column_names"][0] for part in walk(expression) if is_column(part)}


def _keyed(side: Side, keys: list[str], names: tuple[str, ...]) -> Select:
    own = ((name, f"{side.alias}.{quote(name)}") for name in side.columns)
    return Select((Item(side.alias, side.tree),), (), (*zip(names, keys, strict=True), *own))


def _query(
    lowering: Lowering,
    kind: str,
    word: str,
    by: tuple[str, ...],
    shown: list[Side],
    both: list[str],
    inputs: tuple[Input, ...],
    parts: list[Tree],
) -> str:
    """Keys, then the sides' columns, then those of both."""
    if kind == "FULL":
        own = (f"{side.alias}.{quote(name)}" for side in shown for name in side.columns)
        listed = [*(f"coalesce({L}.{each}, {R}.{each}) AS {each}" for each in by), *own]
    else:
        listed = _columns(R, inputs[1], shown) if kind == "RIGHT" else _columns(L, inputs[0], shown)
    listed += [f"{sql} AS b{place}" for place, sql in enumerate(both)]
    condition = " AND ".join(f"({lowering.duck.print(part)})" for part in parts)
    tables = f"{inputs[0].name} AS {L} {word} {inputs[1].name} AS {R}"
    return f"SELECT {', '.join(listed)} FROM {tables}" + f" ON {condition or 'true'}"


def _columns(alias: str, keyed: Input, shown: list[Side]) -> list[str]:
    """The keys as one side has them, then the columns of sides; a column that is a key is not there a second time."""
    assert isinstance(keyed.node, Select)
    named = {f"{alias}.{name}": name for side in shown if side.alias == alias for name in side.columns}
    keys = {key: named.get(sql, key) for key, sql in keyed.node.columns if key in keyed.keys}
    rest = ((side.alias, name) for side in shown for name in side.columns if name not in keys.values())
    return [
        *(f"{alias}.{quote(key)} AS {quote(name)}" for key, name in keys.items()),
        *(f"{own}.{quote(name)}" for own, name in rest),
    ]


def _scope(
    lowering: Lowering,
    made: Node,
    kind: str,
    shown: list[Side],
    using: dict[str, tuple[str, str]],
    both: list[str],
) -> Scope:
    """What the rest of the query sees of the joined rows."""
    alias = lowering.alias()
    items = [replace(item, alias=alias, node=made) for side in shown for item in side.scope.items]
    merged = {name: (alias, own) for side in shown for name, (_, own) in side.scope.merged.items()}
    for name, (one, other) in using.items():
        merged[name] = (alias, other if kind == "RIGHT" else one)
    merged |= {name: (alias, f"b{place}") for place, name in enumerate(both)}
    return Scope(lowering.refuse, items, merged)
