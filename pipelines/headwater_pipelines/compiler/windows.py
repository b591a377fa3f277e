"""Window functions and QUALIFY: the partitions that a change touches are computed anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater_pipelines.compiler import grouping
from headwater_pipelines.compiler.plan import Item, Select
from headwater_pipelines.compiler.syntax import Tree, bare, rewrite_free, walk_own
from headwater_pipelines.compiler.whole import NoRule, input_of, recomputed

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering

PARTITIONS = NoRule("window", "WINDOW_PARTITION")
WHOLE = NoRule("window", "WINDOW_WHOLE")


def has_windows(expressions: list[Any]) -> bool:
    return any(node.get("class") == "WINDOW" for expression in expressions for node in walk_own(expression))


def windowed(
    lowering: Lowering,
    items: tuple[Item, ...],
    where: tuple[str, ...],
    names: list[str],
    expressions: list[Tree],
    qualify: Tree | None,
) -> Select:
    """The select list, and what QUALIFY keeps, over the rows of ``items`` that fulfil ``where``.

    The key is what every window partitions by; without such a thing every change touches everything.
    """
    duck = lowering.duck
    found = expressions if qualify is None else [*expressions, qualify]
    keys = [duck.print(key) for key in common_partitions(found)]
    by = tuple(f"k{place}" for place in range(len(keys)))
    columns = dict(zip(keys, by, strict=True))
    below = grouping.read_from(duck, items, columns)
    shown = [duck.print(rewrite_free(expression, below)) for expression in expressions]
    kept = "" if qualify is None else f" QUALIFY {duck.print(rewrite_free(qualify, below))}"
    read = tuple((name, sql) for sql, name in columns.items())
    each = input_of(lowering, Select(items, where, read or (("one", "1"),)), by)
    # What the rows have as a key already is not stored a second time.
    listed = dict.fromkeys([*(f"i.{key}" for key in by), *shown])
    named = ", ".join(f'{sql} AS "e{place}"' for place, sql in enumerate(listed))
    query = f"SELECT {named} FROM {each.name} AS i{kept}"
    made = recomputed(lowering, (each,), query, by, PARTITIONS if by else WHOLE, shows_keys=True)
    stored = dict(zip(listed, (sql for _, sql in made.columns), strict=True))
    return Select(made.items, (), tuple((name, stored[sql]) for name, sql in zip(names, shown, strict=True)))


def common_partitions(expressions: list[Any]) -> list[Tree]:
    """The expressions by which every window among them partitions."""
    windows = [node for expression in expressions for node in walk_own(expression) if node.get("class") == "WINDOW"]
    first, *others = windows
    shapes = [[bare(each) for each in window["partitions"]] for window in others]
    found: list[Tree] = []
    for each in first["partitions"]:
        shape = bare(each)
        if all(shape in others_ for others_ in shapes) and shape not in map(bare, found):
            found.append(each)
    return found
