"""``FROM t, unnest(t.list) AS u(x)``: for each row its elements, which is linear in the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater_pipelines.compiler.plan import Select
from headwater_pipelines.compiler.scope import Scope, Visible
from headwater_pipelines.compiler.syntax import Tree, column, walk
from headwater_pipelines.compiler.whole import NoRule

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering


def has_rule(node: Tree) -> bool:
    """Whether a join is one with an unnested value of its left side, and nothing else."""
    right = node["right"]
    if right["type"] != "TABLE_FUNCTION" or node["join_type"] != "INNER" or node.get("using_columns"):
        return False
    call = right["function"]
    plain = len(call["arguments"]) == 1 and not call["arguments"][0]["name"]
    return bool(
        call["function_name"] == "unnest" and plain and not node.get("condition")
        and right.get("with_ordinality") == "WITHOUT_ORDINALITY"
    )  # fmt: skip


def unnested(lowering: Lowering, right: Tree, left: Scope, conditions: list[Any]) -> Scope:
    """The left side's columns and the element, as the rows of one item."""
    value = right["function"]["arguments"][0]["expression"]
    if any(part.get("class") == "SUBQUERY" for part in walk(value)):
        raise NoRule("lateral join", "LATERAL")
    resolved = left.resolve(value)
    lowering.note(left, [resolved])
    own: dict[tuple[str, str], str] = {}
    items = []
    alias = lowering.alias()
    for item in left.items:
        kept = {shown: name for shown, name in item.columns.items() if lowering.is_named(shown)}
        for name in kept.values():
            own.setdefault((item.alias, name), f"l{len(own)}")
        items.append((item, {shown: own[item.alias, name] for shown, name in kept.items()}))
    for place in left.merged.values():
        own.setdefault(place, f"l{len(own)}")
    references = [column(*place) for place in own]
    lowering.note(left, references)
    columns = [*zip(own.values(), map(lowering.duck.print, references), strict=True)]
    columns.append(("u0", f"unnest({lowering.duck.print(resolved)})"))
    tree = Select(left.plan_items(), tuple(map(lowering.duck.print, conditions)), tuple(columns))
    if [name for name, _ in lowering.describe(tree) if name != "_w"] != [name for name, _ in columns]:
        raise NoRule("lateral join", "LATERAL")  # a struct becomes several columns
    shown = (right.get("column_name_alias") or ["unnest"])[0].lower()
    name = (right.get("alias") or "unnest").lower()
    visible = [Visible(alias, item.qualifier, kept, tree) for item, kept in items]
    merged = {each: (alias, own[place]) for each, place in left.merged.items()}
    return Scope(lowering.refuse, [*visible, Visible(alias, (name,), {shown: "u0"}, tree)], merged)
