"""Outer joins that compare nothing equal: the pairs that match, and the rows whose pairs are counted.

    pairs  =  left x right where the condition holds     matches  =  pairs grouped by the whole row of a side
    LEFT   =  pairs + left rows without matches

A change of one side meets the other side's rows, as in an inner join, and then only rows whose number of matches it
changed. Equal rows of a side match the same, so a row is known by its values. Not semi and anti joins: of these the
pairs are no part of the result, and may be as many as the product of both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headwater.types import quote
from headwater_pipelines.compiler.grouping import united
from headwater_pipelines.compiler.plan import Aggregate, Item, Leaf, Select, Tree
from headwater_pipelines.compiler.whole import NoRule, input_of, recomputed

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering

KINDS = ("LEFT", "RIGHT", "FULL")


def joined(
    lowering: Lowering, kind: str, sides: tuple[Item, Item], where: tuple[str, ...], shown: Sequence[tuple[str, str]]
) -> Tree:
    """The rows of a join. ``shown``: of its columns the side's alias and the name, which no other column has."""
    left, right = sides
    pairs = Select(sides, where, tuple((name, f"{alias}.{quote(name)}") for alias, name in shown))
    parts = [pairs]
    for side in {"LEFT": [left], "RIGHT": [right], "FULL": [left, right]}[kind]:
        alone = _alone(lowering, side, sides, where)
        columns = ((name, f"a.{quote(name)}" if alias == side.alias else "NULL") for alias, name in shown)
        parts.append(Select((Item("a", alone),), (), tuple(columns)))
    return united(lowering, parts)


def _alone(lowering: Lowering, side: Item, sides: tuple[Item, Item], where: tuple[str, ...]) -> Select:
    """The rows of a side that match none of the other's."""
    types = lowering.describe(side.node)[:-1]  # the last one is the weight
    own = tuple((name, f"{side.alias}.{quote(name)}") for name, _ in types)
    matches = Aggregate(Select(sides, where, own), tuple(types), (), touched=False)
    lowering.declare(matches)
    pairs = [(f"k{place}", name) for place, (name, _) in enumerate(types)]
    by = tuple(key for key, _ in pairs)
    one = input_of(lowering, Select((Item("i", side.node),), (), tuple((k, f"i.{quote(n)}") for k, n in pairs)), by)
    found = Select((Item("s", Leaf(matches)),), (), tuple((k, f"s.{quote(n)}") for k, n in pairs))
    other = input_of(lowering, found, by)
    listed = ", ".join(f"l.{key} AS {quote(name)}" for key, name in pairs)
    same = " AND ".join(f"l.{key} IS NOT DISTINCT FROM r.{key}" for key in by)
    query = f"SELECT {listed} FROM {one.name} AS l ANTI JOIN {other.name} AS r ON {same}"
    return recomputed(lowering, (one, other), query, by, NoRule("anti join", "JOIN_MATCHES"), shows_keys=True)
