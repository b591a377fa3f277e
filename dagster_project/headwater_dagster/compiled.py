"""What the compiler says of views, where neither a changelog nor sqlglot does.

It takes 15 ms a view, so it is asked about a few only: those that were not built yet, or are written in what DuckDB
alone reads. No Dagster in here.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from sqlglot.errors import SqlglotError

from headwater.log import Log, View
from headwater_dagster import lineage

if TYPE_CHECKING:
    from headwater_pipelines.compiler import CompiledView

VIEWS_MAX = 20
"""Views that it is asked about, with those that they name: bounds what loading takes."""


def ask(log: Log, views: Sequence[View], known: Container[str]) -> dict[str, CompiledView]:
    """Views whose columns are not ``known`` or that sqlglot cannot read, by name, as the compiler sees them.

    What does not compile is left out; all of them are where they are more than ``VIEWS_MAX``.
    """
    wanted = [view for view in views if view.name not in known or not _is_read(view.sql)]
    if not wanted:
        return {}
    from headwater_pipelines.runtime import registry

    chosen: dict[int, View] = {}
    waiting = list(wanted)
    while waiting:
        view = waiting.pop()
        if view.id in chosen:
            continue
        chosen[view.id] = view
        said = {word.lower() for word in re.findall(r"\w+", view.sql)}
        waiting += [each for each in views if each.name.lower() in said]
    if len(chosen) > VIEWS_MAX:
        return {}
    found, _ = registry.compile_all(log, list(chosen.values()))
    asked = {view.id for view in wanted}
    return {each.name: each for view, each in found.items() if view in asked}


def _is_read(sql: str) -> bool:
    try:
        lineage.inputs(sql)
    except SqlglotError:
        return False
    return True
