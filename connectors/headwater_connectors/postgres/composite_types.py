"""What the catalog says of composite types: their fields, which ALTER TYPE changes under the tables that use them.

Nothing of that is in the stream, nor in what pg_attribute says of the tables' columns. So a column keeps the fields
that its type had when its topic got them, and they are compared with what the server has before rows are decoded.

What that cannot see is a transaction that alters a type and writes rows of it, while its commit waits for a synchronous
standby: it is sent before anybody sees it. The next survey does, within seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from headwater_connectors.postgres.printing import Attribute, TypeInfo, Types
from headwater_connectors.postgres.session import Connection

Composites = tuple[tuple[int, tuple[Attribute, ...]], ...]
"""Composite types by oid with the fields that they have."""

_FIELDS = """
WITH RECURSIVE inside(root, oid) AS (
    SELECT r, r FROM unnest(%s::int8[]::oid[]) AS r
    UNION SELECT i.root, p.oid FROM inside i JOIN pg_type t ON t.oid = i.oid, LATERAL (
        SELECT t.typelem WHERE t.typelem <> 0 UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL SELECT a.atttypid FROM pg_attribute a
            WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS p(oid))
SELECT i.root::int8, i.oid::int8, a.attnum, a.attname, a.atttypid::int8, a.atttypmod
FROM inside i JOIN pg_type t ON t.oid = i.oid JOIN pg_attribute a ON a.attrelid = t.typrelid
WHERE t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY i.root, i.oid, a.attnum
"""


def look(connection: Connection, oids: Iterable[int]) -> dict[int, Composites]:
    """Of each of these types that is, or has in it, a composite type: all of those as they are now."""
    found: dict[int, dict[int, list[Attribute]]] = {}
    for root, oid, *attribute in connection.execute(_FIELDS, [sorted(oids)]):
        found.setdefault(root, {}).setdefault(oid, []).append(Attribute(*attribute))
    return {root: tuple((oid, tuple(fields)) for oid, fields in inside.items()) for root, inside in found.items()}


def shaped(known: Types, made: Composites) -> Types:
    """The types with these composites, of which nothing else says the fields."""
    if not made:
        return known
    none = TypeInfo("c")
    fields = {
        oid: replace(known.get(oid, none), fields=tuple(each.type_oid for each in attributes), attributes=attributes)
        for oid, attributes in made
    }
    return {**known, **fields}
