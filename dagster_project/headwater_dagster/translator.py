"""From headwater's nouns to Dagster's asset specs. Subclass ``HeadwaterTranslator`` to change any of it. Keys::

[source]                      the source; carries its lag check
[source, namespace, table]    a topic, external: Dagster watches it and never writes it
["views", name]               a view, materializable
["jobs", name]                a stream job with its output, materializable
["replay", name]              hours of a view, to be made anew from the log

What is said of a thing comes from where it is declared: a view's options or its leading comment, a topic's settings, a
job's docstring. Metadata follows Dagster's own names, as its integrations of dbt, dlt and sling do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import dagster as dg
from sqlglot.errors import SqlglotError

from headwater.errors import AmbiguousName, NameNotFound
from headwater.log.names import resolve
from headwater_dagster import about, columns, lineage
from headwater_dagster.columns import Input
from headwater_dagster.inventory import JOBS_NAMESPACE, VIEWS_NAMESPACE, JobData, SourceData, TopicData, ViewData

_HISTORY = "history."
_VALIDITY = dict.fromkeys(("valid_from", "valid_to"), "TIMESTAMP WITH TIME ZONE")
"""What the versions of a table's rows have besides its columns."""


class HeadwaterTranslator:
    """The one override point: subclass it, and change the spec that ``super().get_asset_spec(data)`` returns."""

    def get_asset_spec(self, data: SourceData | TopicData | ViewData | JobData) -> dg.AssetSpec:
        """The spec of one thing. Keys must stay unique; what a view depends on follows the keys given here."""
        if isinstance(data, SourceData):
            return self._source(data)
        if isinstance(data, TopicData):
            return self._topic(data)
        return self._job(data) if isinstance(data, JobData) else self._view(data)

    def _source(self, data: SourceData) -> dg.AssetSpec:
        return dg.AssetSpec(
            key=source_key(data.source.name),
            group_name=data.source.name,
            kinds={data.source.kind},
            description=f"{data.source.kind} source, captured by headwater",
            metadata={"tables": ", ".join(data.source.tables)},
        )

    def _topic(self, data: TopicData) -> dg.AssetSpec:
        topic = data.topic
        owners, said = about.owned(topic.owner)
        tags, unfit = about.tagged({"criticality": topic.criticality, "classification": topic.classification})
        return dg.AssetSpec(
            key=topic_key(topic.name),
            deps=[source_key(topic.source)] if topic.source else [],
            group_name=topic.source or about.group(topic.name),
            kinds={data.source.kind if data.source else "postgres" if topic.source else "headwater"},
            owners=owners,
            tags=tags,
            description=topic.description or None,
            metadata={
                "dagster/column_schema": columns.column_schema(topic.schema),
                "dagster/table_name": topic.name,
                "kind": topic.kind,
                "partitions": topic.partitions,
                **said,
                **unfit,
            },
        )

    def _view(self, data: ViewData) -> dg.AssetSpec:
        view, topic = data.view, data.changelog
        names, unread = _names(data)
        keys, unknown = _dependencies(names, data)
        owners, said = about.owned(view.options.get("owner") or (topic.owner if topic else None))
        drawn = columns.of_view(view.sql, data.schemas.get(view.name), partial(_input, data=data))
        return dg.AssetSpec(
            key=view_key(view.name),
            deps=keys,
            group_name=VIEWS_NAMESPACE,
            kinds={"sql", "duckdb"},
            owners=owners,
            code_version=lineage.code_version(view.sql),
            description=view.options.get("description") or (topic.description if topic else None) or None,
            freshness_policy=about.freshness(data.fresh_s),
            metadata={
                "sql": dg.MetadataValue.md(f"```sql\n{view.sql}\n```"),
                "dagster/table_name": view.name,
                "refresh": view.refresh,
                **drawn,
                **said,
                **_unresolved([*unknown, *unread]),
                **about.code(data.place),
            },
        )

    def _job(self, data: JobData) -> dg.AssetSpec:
        keys, unknown = _dependencies(data.job.inputs, data)
        owners, said = about.owned(data.output.owner if data.output else None)
        schema = {} if data.output is None else {"dagster/column_schema": columns.column_schema(data.output.schema)}
        return dg.AssetSpec(
            key=job_key(data.job.name),
            deps=keys,
            group_name=JOBS_NAMESPACE,
            kinds={"python", "polars"},
            owners=owners,
            code_version=data.job.version,
            description=data.job.description or None,
            metadata={
                "file": data.job.file,
                "dagster/table_name": data.job.output,
                **schema,
                **said,
                **_unresolved(unknown),
                **about.code(data.place),
            },
        )


def source_key(name: str) -> dg.AssetKey:
    return dg.AssetKey([name])


def topic_key(full_name: str) -> dg.AssetKey:
    """A table's own name may hold dots: only the first two separate."""
    return dg.AssetKey(full_name.split(".", 2))


def view_key(name: str) -> dg.AssetKey:
    return dg.AssetKey([VIEWS_NAMESPACE, name])


def replay_key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["replay", name])


def job_key(name: str) -> dg.AssetKey:
    return dg.AssetKey([JOBS_NAMESPACE, name])


def _unresolved(unknown: Sequence[str]) -> dict[str, object]:
    """Inputs that mean nothing."""
    return {"unresolved_inputs": ", ".join(unknown)} if unknown else {}


def _names(data: ViewData) -> tuple[tuple[str, ...], list[str]]:
    """What the view reads; and, where neither sqlglot nor the compiler says so, what to say instead."""
    try:
        return lineage.inputs(data.view.sql), []
    except SqlglotError:
        return (data.reads, []) if data.reads is not None else ((), ["unknown: sqlglot cannot read the SQL"])


def _dependencies(names: Sequence[str], data: ViewData | JobData) -> tuple[list[dg.AssetKey], list[str]]:
    """Asset keys that a view or job reads, and the names among them that mean nothing (any more)."""
    found = {name: _input(name, data) for name in names}
    keys = dict.fromkeys(each.key for each in found.values() if each is not None)
    return list(keys), [name for name, each in found.items() if each is None]


def input_keys(data: ViewData) -> list[dg.AssetKey]:
    """The assets that a view reads."""
    return _dependencies(_names(data)[0], data)[0]


def _input(name: str, data: ViewData | JobData) -> Input | None:
    folded = {view.lower(): view for view in data.views}
    short = name.lower().removeprefix(f"{VIEWS_NAMESPACE}.")
    if short in folded:
        schemas = data.schemas if isinstance(data, ViewData) else {}
        return Input(key=view_key(folded[short]), schema=schemas.get(folded[short]))
    versions = name.lower().startswith(_HISTORY)
    try:
        topic = resolve(name[len(_HISTORY) :] if versions else name, data.topics)
    except (NameNotFound, AmbiguousName):
        return None
    written_by = data.outputs.get(topic.name)
    key = topic_key(topic.name) if written_by is None else job_key(written_by)
    return Input(key=key, schema=topic.schema, more=_VALIDITY if versions else {})
