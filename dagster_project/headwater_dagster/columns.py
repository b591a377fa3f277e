"""Columns as Dagster's pages show them: types, keys, descriptions, and what each column of a view is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import dagster as dg
from sqlglot.errors import SqlglotError

from headwater.schema import Schema
from headwater_dagster import lineage

LEFT_OUT = "column_lineage_left_out"
"""Metadata: why a view has no column lineage."""
REASON_CHARS = 200


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a name in a view's SQL means; ``schema`` is None while its columns are not known."""

    key: dg.AssetKey
    schema: Schema | None
    more: Mapping[str, str] = field(default_factory=dict)
    """Columns that it has besides, with their types, and that nothing is drawn to: no page has them."""


def column_schema(schema: Schema, descriptions: Mapping[str, str] | None = None) -> dg.TableSchema:
    """Names, DuckDB types, NOT NULL and key of a record, as Dagster's column table shows them.

    ``descriptions``: of columns that have none of their own.
    """
    said = descriptions or {}
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=each.name,
                type=each.type,
                description=each.description or said.get(each.name),
                constraints=dg.TableColumnConstraints(
                    nullable=each.nullable, other=["key"] if each.name in schema.key else []
                ),
            )
            for each in schema.fields
        ]
    )


def of_view(sql: str, schema: Schema | None, find: Callable[[str], Input | None]) -> dict[str, object]:
    """Metadata: columns where they are known, what they are made of, or why that is not drawn.

    A column that is handed through has its input's description.
    """
    if schema is None:
        return {LEFT_OUT: "its columns are known once it has been built"}
    inputs: dict[str, Input] = {}

    def relation(name: str) -> Mapping[str, str] | None:
        found = find(name)
        if found is None or found.schema is None:
            return None
        inputs[name] = found
        return {**{each.name: each.type for each in found.schema.fields}, **found.more}

    try:
        origins = _paired(schema, lineage.columns(sql, relation))
    except SqlglotError as error:
        return {"dagster/column_schema": column_schema(schema), LEFT_OUT: _reason(error)}
    deps = {
        name: [
            dg.TableColumnDep(asset_key=inputs[of].key, column_name=column)
            for of, column in origin.columns
            if column not in inputs[of].more
        ]
        for name, origin in origins.items()
    }
    said = {name: _description(*origin.columns[0], inputs) for name, origin in origins.items() if origin.is_copy}
    return {
        "dagster/column_schema": column_schema(schema, {name: text for name, text in said.items() if text}),
        "dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps),
    }


def _paired(schema: Schema, origins: Mapping[str, lineage.Origin]) -> dict[str, lineage.Origin]:
    """Origins by the view's own names. SqlglotError when sqlglot sees other columns than the view has."""
    own = [each.name for each in schema.fields]
    alike = len(own) == len(origins) and all(
        seen.lower() == name.lower() or seen.startswith("_col_")  # its name for what DuckDB calls count_star()
        for name, seen in zip(own, origins, strict=False)
    )
    if not alike:
        raise SqlglotError(f"sqlglot sees the columns {', '.join(origins)}")
    return dict(zip(own, origins.values(), strict=True))


def _description(name: str, column: str, inputs: Mapping[str, Input]) -> str:
    schema = inputs[name].schema
    return next((each.description for each in schema.fields if each.name == column), "") if schema else ""


def _reason(error: SqlglotError) -> str:
    """The first line of what sqlglot says, without its colours."""
    return str(error).splitlines()[0].replace("\x1b[4m", "").replace("\x1b[0m", "")[:REASON_CHARS]
