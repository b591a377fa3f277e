"""The catalog's views as compiled programs, and the relations that definitions may name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from headwater.catalog.records import Topic, View
from headwater.errors import HeadwaterError
from headwater.log import Log
from headwater_pipelines.compiler import CompiledView, Relations, Table, ViewPlan, compile_view, parse
from headwater_pipelines.compiler.definition import Definition
from headwater_pipelines.compiler.plan import Base
from headwater_pipelines.compiler.syntax import Duck

READABLE = ("table", "multiset", "insert_only", "event")


def tables(topics: Sequence[Topic]) -> list[Table]:
    """The topics that views can read. Late rows are none of them: the pipeline takes no step for what it publishes."""
    readable = [topic for topic in topics if topic.kind in READABLE and not topic.name.startswith("views.")]
    return [Table(Base(topic.name, topic.id, topic.kind), topic.schema) for topic in readable]


def compile_all(
    log: Log, views: Sequence[View], duck: Duck | None = None
) -> tuple[dict[int, CompiledView], dict[int, HeadwaterError]]:
    """Compile catalog views, those that others read first; what does not compile comes with its error."""
    duck = duck or Duck.of_thread()
    known = tables(log.topics())
    compiled: dict[int, CompiledView] = {}
    errors: dict[int, HeadwaterError] = {}
    rest = list(views)
    while rest:
        errors, ready = {}, len(compiled)
        plans: list[ViewPlan] = [view.as_relation() for view in compiled.values()]
        for view in rest:
            try:
                compiled[view.id] = compile_view(definition(view), Relations([*known, *plans]), duck)
                plans.append(compiled[view.id].as_relation())
            except HeadwaterError as error:
                errors[view.id] = error
        rest = [view for view in rest if view.id in errors]
        if len(compiled) == ready:
            break
    return compiled, errors


def waiting(log: Log, compiled: Mapping[int, CompiledView]) -> dict[int, str]:
    """Views that read a table whose rows are not the source's until it is copied, and why."""
    reshaping = {t.id: f"{t.name} is reshaping: {t.reason}" for t in log.topics() if t.state == "reshaping"}
    return {
        view: reshaping[base.topic] for view, each in compiled.items() for base in each.used if base.topic in reshaping
    }


def definition(view: View) -> Definition:
    """The definition as the catalog holds it."""
    return replace(parse(view.sql, name=view.name), options=dict(view.options))


def relations(log: Log) -> Relations:
    """Everything that a new definition can name now."""
    compiled, _ = compile_all(log, log.views())
    return Relations([*tables(log.topics()), *(view.as_relation() for view in compiled.values())])


def used_columns(views: Mapping[int, CompiledView]) -> dict[Base, frozenset[str]]:
    """The columns that a set of views reads of every topic."""
    found: dict[Base, frozenset[str]] = {}
    for view in views.values():
        for base, names in view.used.items():
            found[base] = found.get(base, frozenset()) | names
    return found
