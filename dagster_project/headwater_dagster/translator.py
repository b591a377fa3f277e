"""From headwater's nouns to Dagster's asset specs. Subclass ``HeadwaterTranslator`` to change any of it. Keys::

[source]                      the source; carries its lag check
[source, namespace, table]    a topic, external: Dagster watches it and never writes it
["views", name]               a view, materializable
["jobs", name]                a stream job with its output, materializable
["replay", name]              hours of a view, to be made anew from the log
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from headwater.catalog.records import Topic
from headwater.errors import AmbiguousName, NameNotFound
from headwater.log.names import resolve
from headwater.schema import Schema
from headwater_dagster import lineage
from headwater_dagster.inventory import JOBS_NAMESPACE, VIEWS_NAMESPACE, JobData, SourceData, TopicData, ViewData


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
        name = topic.source or ""
        return dg.AssetSpec(
            key=topic_key(topic.name),
            deps=[source_key(name)],
            group_name=name,
            kinds={data.source.kind if data.source else "postgres"},
            description=topic.description or None,
            metadata={
                "dagster/column_schema": column_schema(topic.schema),
                "dagster/table_name": topic.name,
                "kind": topic.kind,
                "partitions": topic.partitions,
            },
        )

    def _view(self, data: ViewData) -> dg.AssetSpec:
        keys, unknown = _dependencies(lineage.inputs(data.view.sql), data)
        sql = dg.MetadataValue.md(f"```sql\n{data.view.sql}\n```")
        return dg.AssetSpec(
            key=view_key(data.view.name),
            deps=keys,
            group_name=VIEWS_NAMESPACE,
            kinds={"sql", "duckdb"},
            code_version=lineage.code_version(data.view.sql),
            metadata={"sql": sql, **_written(data.view.name, data.changelog, unknown)},
        )

    def _job(self, data: JobData) -> dg.AssetSpec:
        keys, unknown = _dependencies(data.job.inputs, data)
        return dg.AssetSpec(
            key=job_key(data.job.name),
            deps=keys,
            group_name=JOBS_NAMESPACE,
            kinds={"python", "polars"},
            code_version=data.job.version,
            description=data.job.description or None,
            metadata={"file": data.job.file, **_written(data.job.output, data.output, unknown)},
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


def column_schema(schema: Schema) -> dg.TableSchema:
    """Names, DuckDB types, NOT NULL and key of a record, as Dagster's column table shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=field.name,
                type=field.type,
                description=field.description or None,
                constraints=dg.TableColumnConstraints(
                    nullable=field.nullable, other=["key"] if field.name in schema.key else []
                ),
            )
            for field in schema.fields
        ]
    )


def _written(name: str, topic: Topic | None, unknown: Sequence[str]) -> dict[str, object]:
    """What is told of the rows that a view or job writes, and of inputs that mean nothing."""
    schema = {} if topic is None else {"dagster/column_schema": column_schema(topic.schema)}
    return {"dagster/table_name": name, **schema, **({"unresolved_inputs": ", ".join(unknown)} if unknown else {})}


def _dependencies(names: Sequence[str], data: ViewData | JobData) -> tuple[list[dg.AssetKey], list[str]]:
    """Asset keys that a view or job reads, and the names among them that mean nothing (any more)."""
    keys: dict[dg.AssetKey, None] = {}
    unknown: list[str] = []
    for name in names:
        key = input_key(name, data)
        if key is None:
            unknown.append(name)
        else:
            keys[key] = None
    return list(keys), unknown


def input_key(name: str, data: ViewData | JobData) -> dg.AssetKey | None:
    """The asset that a name in a view or job means; None when it means nothing (any more)."""
    folded = {view.lower(): view for view in data.views}
    short = name.lower().removeprefix(f"{VIEWS_NAMESPACE}.")
    if short in folded:
        return view_key(folded[short])
    try:
        found = resolve(name, data.topics).name
    except (NameNotFound, AmbiguousName):
        return None
    return job_key(data.outputs[found]) if found in data.outputs else topic_key(found)
