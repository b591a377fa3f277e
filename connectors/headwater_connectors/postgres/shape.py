"""A relation as announced against its topic's schema: the same, columns added, or a change we must not guess."""

from __future__ import annotations

from collections.abc import Mapping

from headwater.catalog.records import Topic
from headwater.errors import ShapeChanged
from headwater.schema import Field, Schema
from headwater_connectors.postgres.catalog import TableInfo, log_names
from headwater_connectors.postgres.columns import ColumnType, TypeInfo, column_type
from headwater_connectors.postgres.relation import Relation, Target


def target_of(relation: Relation, topic: Topic, schema: Schema, known: Mapping[int, TypeInfo]) -> Target:
    """Where the relation's changes go, given the schema in force."""
    names = log_names([column.name for column in relation.columns])
    types = _types(relation, known)
    key = tuple(names.index(name) for name in schema.key)
    return Target(topic.name, topic.kind, relation, tuple(names), types, key)


def evolve(relation: Relation, topic: Topic, known: Mapping[int, TypeInfo], table: TableInfo | None) -> Schema | None:
    """The topic's next schema version, or None when the relation has the shape it has now.

    Only nullable columns without a default, added at the end, leave existing rows as they are (NULL). Anything
    else, a rename, drop, retype or default, is not told apart by the stream: ShapeChanged. ``table`` is what the
    catalog says now, None when the table is gone.
    """
    names, types = log_names([column.name for column in relation.columns]), _types(relation, known)
    fields = topic.schema.fields
    for place, field in enumerate(fields):
        if place >= len(names) or names[place] != field.name:
            found = f"there is {names[place]} now" if place < len(names) else "it is gone"
            raise _changed(relation, topic, f"column {field.name} was renamed, moved or dropped: {found}")
        if types[place].duckdb != field.type:
            raise _changed(relation, topic, f"column {field.name} was {field.type} and is {types[place].duckdb} now")
    _refuse_other_key(relation, topic, names)
    if len(names) == len(fields):
        return None
    added = [_added(relation, topic, table, names, types, place) for place in range(len(fields), len(names))]
    return Schema(fields=(*fields, *added), key=topic.schema.key)


def _types(relation: Relation, known: Mapping[int, TypeInfo]) -> tuple[ColumnType, ...]:
    return tuple(column_type(column.type_oid, column.modifier, known) for column in relation.columns)


def _added(
    relation: Relation,
    topic: Topic,
    table: TableInfo | None,
    names: list[str],
    types: tuple[ColumnType, ...],
    place: int,
) -> Field:
    name = relation.columns[place].name
    column = next((each for each in table.columns if each.name == name), None) if table else None
    if column is None or column.filled:
        why = "has a default or NOT NULL" if column else "is not in the catalog any more"
        raise _changed(relation, topic, f"column {name} was added and {why}, so existing rows may hold values in it")
    taken = {field.id for field in topic.schema.fields}
    number = column.number if column.number not in taken else max(taken) + place + 1
    return Field(
        id=number,
        name=names[place],
        type=types[place].duckdb,
        source_type=column.type_name,
        description=column.description,
    )


def _refuse_other_key(relation: Relation, topic: Topic, names: list[str]) -> None:
    identity = {name for name, column in zip(names, relation.columns, strict=True) if column.identity}
    if topic.schema.key and relation.identity != "f" and identity and identity != set(topic.schema.key):
        old, new = ", ".join(topic.schema.key), ", ".join(sorted(identity))
        raise _changed(relation, topic, f"its key was ({old}) and is ({new}) now")


def _changed(relation: Relation, topic: Topic, what: str) -> ShapeChanged:
    return ShapeChanged(
        f"table {relation.full_name} changed its shape: {what}",
        where=topic.name,
        todo="Nothing is lost: the server keeps the changes from here on. Undo the change, or take the table as it is"
        f" now with `headwater source drop {topic.source}` and a new capture.",
        table=relation.full_name,
    )
