"""What the server's catalog says: tables, their columns, keys and types, as the log names them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from headwater import record
from headwater.catalog.records import Kind
from headwater.config import SourceConfig, TableConfig
from headwater.schema import Field, Schema
from headwater_connectors.postgres import composite_types
from headwater_connectors.postgres.columns import ColumnType, column_type
from headwater_connectors.postgres.composite_types import Composites
from headwater_connectors.postgres.composites import distinct
from headwater_connectors.postgres.printing import TypeInfo, Types
from headwater_connectors.postgres.session import Connection

Identity = Literal["d", "i", "f", "n"]
STORED_VERSION = 180_000
"""From this version on, stored generated columns can be published."""


@dataclass(frozen=True, kw_only=True)
class ColumnInfo:
    """A published column. ``missing`` is the text of what rows older than the column read, None for NULL.

    ``changed`` differs after every ALTER of the column: the transaction that wrote its row in pg_attribute.
    """

    number: int
    name: str
    type_oid: int
    modifier: int
    type_name: str
    not_null: bool
    missing: str | None
    changed: int
    description: str
    generated: str = ""
    """pg_attribute.attgenerated: ``s`` stored, ``v`` virtual, empty for what is no generated column."""
    composites: Composites = ()
    """Those that the column's type is, or has in it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What holds rows: the table itself, or a leaf of a partitioned one. ``filenode`` is 0 where there is no file.

    ``born``: it was created as a partition, so all its rows were published; an attached one brings others along.
    """

    oid: int
    namespace: str
    name: str
    filenode: int
    pages: int
    born: bool = True


@dataclass(frozen=True, kw_only=True)
class TableInfo:
    """A table of the source; ``key`` are the columns that identify a row in what the server sends.

    ``has_identity``: whether the server can publish its updates and deletes, of every partition.
    """

    oid: int
    namespace: str
    name: str
    identity: Identity
    has_identity: bool
    key: tuple[str, ...]
    columns: tuple[ColumnInfo, ...]
    rows: int
    size: int
    description: str
    parts: tuple[Part, ...] = ()
    outbox: bool = False
    """Whether its inserted rows are events, and nothing else of it is wanted."""
    columns_ever: int = 0
    """The highest number of a column that it has, or had."""
    listed: bool = False
    """Whether the project names the columns."""
    where: str = ""
    """The project's condition on rows; empty: all are captured."""
    omitted: tuple[str, ...] = ()
    """Generated columns that the server does not publish."""
    refused: str = ""
    """Why it cannot be captured as the project says."""

    @property
    def full_name(self) -> str:
        return f"{self.namespace}.{self.name}"

    @property
    def updates(self) -> bool:
        """Whether its updates and deletes are to be published."""
        return self.has_identity and not self.outbox

    @property
    def kind(self) -> Kind:
        if not self.updates:
            return "insert_only"
        return "table" if self.key else "multiset"


# Partitions of partitions, too. pg_partition_tree would lock every one of them, and pg_relation_size the table:
# neither may wait behind the application, nor the application behind us, unless sizes are asked for.
_TREE = """
WITH RECURSIVE tree(root, relid) AS (
    SELECT oid, oid FROM pg_class
    WHERE relkind IN ('r', 'p') AND (%(oids)s::int8[] IS NULL OR oid = ANY (%(oids)s::int8[]::oid[]))
    UNION ALL SELECT t.root, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.relid
        JOIN pg_class c ON c.oid = i.inhparent AND c.relkind = 'p')
"""

# What the server refuses to update in a publication: no identity, or one of generated columns, which are not sent
# (from PostgreSQL 18 on, stored ones are).
_TABLES = """
SELECT c.oid::int8, n.nspname, c.relname, c.relreplident::text, greatest(c.reltuples, 0)::int8,
    CASE WHEN %(measured)s THEN pg_total_relation_size(c.oid) ELSE c.relpages::int8 * 8192 END,
    coalesce(obj_description(c.oid, 'pg_class'), ''),
    coalesce((SELECT array_agg(a.attname::text ORDER BY k.place)
        FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place), pg_attribute a
        WHERE i.indrelid = c.oid AND a.attrelid = c.oid AND a.attnum = k.number AND k.place <= i.indnkeyatts
            AND i.indisvalid AND CASE c.relreplident WHEN 'i' THEN i.indisreplident
                ELSE i.indisprimary AND i.indimmediate END
            AND NOT EXISTS (SELECT FROM pg_attribute g WHERE g.attrelid = c.oid AND g.attgenerated <> ''
                AND g.attnum = ANY (i.indkey::int2[]) AND NOT (g.attgenerated = 's' AND
                    current_setting('server_version_num')::int >= 180000))), '{}'),
    NOT EXISTS (SELECT FROM tree, pg_class p WHERE tree.root = c.oid AND p.oid = tree.relid
        AND NOT (p.relkind = 'p' AND p.oid <> c.oid) AND NOT CASE p.relreplident
            WHEN 'n' THEN false
            WHEN 'f' THEN current_setting('server_version_num')::int < 180000 OR NOT EXISTS (SELECT FROM pg_attribute a
                WHERE a.attrelid = p.oid AND a.attgenerated = 'v' AND NOT a.attisdropped)
            ELSE EXISTS (SELECT FROM pg_index i WHERE i.indrelid = p.oid AND i.indisvalid
                AND CASE p.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary AND i.indimmediate END
                AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = p.oid AND a.attgenerated <> ''
                    AND NOT (a.attgenerated = 's' AND current_setting('server_version_num')::int >= 180000)
                    AND a.attnum = ANY (i.indkey::int2[]))) END),
    c.relnatts
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND (%(oids)s::int8[] IS NULL OR c.oid = ANY (%(oids)s::int8[]::oid[]))
ORDER BY n.nspname, c.relname
"""

_COLUMNS = """
SELECT attrelid::int8, attnum, attname, atttypid::int8, atttypmod, format_type(atttypid, atttypmod), attnotnull,
    CASE WHEN atthasmissing THEN (attmissingval::text::text[])[1] END, xmin::text::int8,
    coalesce(col_description(attrelid, attnum), ''), attgenerated::text
FROM pg_attribute
WHERE attrelid = ANY (%s::int8[]::oid[]) AND attnum > 0 AND NOT attisdropped
ORDER BY attrelid, attnum
"""

# A partition was born as one in the transaction that made the table, without a command after that which wrote all its
# columns anew in the catalog, as ATTACH does: made and attached in one transaction, it may bring rows along.
_PARTS = """
SELECT root::int8, p.oid::int8, n.nspname, p.relname, coalesce(pg_relation_filenode(p.oid), 0)::int8,
    coalesce(CASE WHEN %(measured)s THEN pg_relation_size(p.oid) / current_setting('block_size')::int8
        ELSE p.relpages END, 0)::int8,
    coalesce((SELECT i.xmin = s.xmin AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = p.oid AND a.attnum > 0
            AND NOT a.attisdropped AND a.xmin = s.xmin AND a.cmin = s.cmin)
        FROM pg_inherits i, pg_attribute s WHERE i.inhrelid = p.oid AND s.attrelid = p.oid AND s.attnum = -6), true)
FROM tree, pg_class p, pg_namespace n
WHERE root = ANY (%(oids)s::int8[]::oid[]) AND p.oid = tree.relid AND p.relkind <> 'p' AND n.oid = p.relnamespace
ORDER BY root, p.oid
"""

# Partitions of a captured root are captured with it; a root is captured under its own name.
_LEFT_OUT = """
SELECT n.nspname, c.relname, CASE
    WHEN c.relkind = 'v' THEN 'a view: its tables are captured, define it as a view of the lake'
    WHEN c.relkind = 'm' THEN 'a materialized view: its tables are captured, define it as a view of the lake'
    WHEN c.relkind = 'f' THEN 'a foreign table: its rows are on another server'
    WHEN c.relpersistence = 't' THEN 'a temporary table'
    ELSE 'an unlogged table: the server writes nothing of it to its log; ALTER TABLE ... SET LOGGED' END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (c.relkind IN ('v', 'm', 'f') OR (c.relkind IN ('r', 'p') AND c.relpersistence <> 'p'))
    AND NOT c.relispartition AND (n.nspname !~ '^pg_' OR c.relpersistence = 't') AND n.nspname !~ '^pg_toast'
    AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname
"""

_TYPES = """
SELECT t.oid::int8, t.typtype::text, t.typname::text, coalesce(e.oid::int8, 0),
    t.typbasetype::int8, t.typtypmod,
    coalesce(r.rngsubtype::int8, m.rngtypid::int8, 0), t.typdelim::text,
    t.typsend <> 0, coalesce(x.extname::text, ''), coalesce(f.fields, '{}')
FROM pg_type t LEFT JOIN pg_type e ON e.typarray = t.oid
    LEFT JOIN pg_range r ON r.rngtypid = t.oid LEFT JOIN pg_range m ON m.rngmultitypid = t.oid
    LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
    LEFT JOIN pg_extension x ON x.oid = d.refobjid
    LEFT JOIN (SELECT attrelid, array_agg(atttypid::int8) AS fields FROM pg_attribute
        WHERE attnum > 0 AND NOT attisdropped GROUP BY attrelid) f ON f.attrelid = t.typrelid AND t.typtype = 'c'
"""


def tables(
    connection: Connection,
    patterns: Sequence[str] = ("*",),
    oids: Iterable[int] | None = None,
    *,
    measured: bool = False,
    config: SourceConfig | None = None,
) -> list[TableInfo]:
    """Ordinary and partitioned tables whose full name matches a pattern (``public.*``), by name.

    Takes no lock of a table. Sizes are those of the last VACUUM or ANALYZE; ``measured`` ones are exact, and cost the
    lock for a moment: LockNotAvailable. ``config``: what the project says of each.
    """
    asked = {"oids": None if oids is None else list(oids), "measured": measured}
    rows = connection.execute((_TREE + _TABLES).encode(), asked).fetchall()
    rows = [row for row in rows if any(fnmatchcase(f"{row[1]}.{row[2]}", pattern) for pattern in patterns)]
    listed = [row[0] for row in rows]
    columns = connection.execute(_COLUMNS, [listed]).fetchall()
    parts = connection.execute((_TREE + _PARTS).encode(), {"oids": listed, "measured": measured}).fetchall()
    return assembled(connection, rows, columns, parts, config)


def assembled(
    connection: Connection,
    rows: Sequence[Sequence[Any]],
    columns: Sequence[Sequence[Any]],
    parts: Sequence[Sequence[Any]],
    config: SourceConfig | None,
) -> list[TableInfo]:
    """The tables that the rows of the three queries tell of; composite types in them are as they are now."""
    made = composite_types.look(connection, {int(row[3]) for row in columns})
    columns_of: dict[int, list[ColumnInfo]] = {row[0]: [] for row in rows}
    for table, number, name, oid, modifier, text, not_null, missing, changed, about, generated in columns:
        columns_of[table].append(
            ColumnInfo(
                number=number, name=name, type_oid=oid, modifier=modifier, type_name=text, not_null=not_null,
                missing=missing, changed=changed, description=about, generated=generated,
                composites=made.get(oid, ()),
            )
        )  # fmt: skip
    parts_of: dict[int, list[Part]] = {row[0]: [] for row in rows}
    for table, oid, namespace, name, filenode, pages, born in parts:
        part = Part(oid=oid, namespace=namespace, name=name, filenode=filenode, pages=pages, born=born)
        parts_of[table].append(part)
    found = [
        TableInfo(
            oid=oid, namespace=namespace, name=name, identity=identity, has_identity=identified,
            key=_key(identity, key),
            columns=tuple(columns_of[oid]), rows=estimate, size=size, description=about, parts=tuple(parts_of[oid]),
            columns_ever=ever,
        )
        for oid, namespace, name, identity, estimate, size, about, key, identified, ever in rows
    ]  # fmt: skip
    return [_as_chosen(table, config, connection.info.server_version) for table in found]


def state_sql(oid: str) -> str:
    """An expression of SQL: what ``assembled`` takes of the table of that oid, three lists of rows, as JSON."""
    all_of = "%(oids)s::int8[] IS NULL OR "
    queries = ((_TREE + _TABLES, 10), (_COLUMNS.replace("%s", "%(oids)s"), 11), (_TREE + _PARTS, 7))
    lists = []
    for query, width in queries:
        names = ", ".join(f"c{place}" for place in range(width))
        text = query.replace(all_of, "").replace("%(oids)s", f"ARRAY[{oid}]").replace("%(measured)s", "false").strip()
        lists.append(
            f"(SELECT coalesce(json_agg(json_build_array({names})), '[]') FROM (\n{text}\n) AS facts({names}))"
        )
    return f"json_build_array({', '.join(lists)})"


def _as_chosen(table: TableInfo, config: SourceConfig | None, version: int) -> TableInfo:
    """The table as the server publishes it, and as the project wants it."""
    unsent = {column.name for column in table.columns if column.generated not in _sent_generated(version)}
    columns = tuple(column for column in table.columns if column.name not in unsent)
    table = replace(table, columns=columns, omitted=tuple(sorted(unsent)))
    wanted = config.table_config(table.full_name) if config else TableConfig()
    table = replace(table, outbox=config is not None and table.full_name in config.outbox, where=wanted.where)
    if not wanted.columns:
        refused = _too_old(version) if wanted.where else ""
        return replace(table, refused=refused)
    if refused := _refused(table, wanted, unsent, version):
        return replace(table, refused=refused)
    listed = tuple(column for column in columns if column.name in wanted.columns)
    return replace(table, columns=listed, listed=True)


def _sent_generated(version: int) -> tuple[str, ...]:
    """attgenerated of columns that the server publishes."""
    return ("", "s") if version >= STORED_VERSION else ("",)


def _too_old(version: int) -> str:
    return "" if version >= 150_000 else "`columns` and `where` need PostgreSQL 15 or later"


def _refused(table: TableInfo, wanted: TableConfig, unsent: set[str], version: int) -> str:
    """What is wrong with the columns that the project names."""
    names = [column.name for column in table.columns]
    unknown = [name for name in wanted.columns if name not in names]
    lacking = [name for name in table.key if name not in wanted.columns]
    if unknown:
        why = "a generated column that the server does not publish" if unknown[0] in unsent else "no column of it"
        return f"`columns` names {unknown[0]}, which is {why}"
    if table.updates and table.identity == "f":
        return "its replica identity is FULL, which needs every column: leave `columns` out, or give it a key"
    if table.updates and lacking:
        return f"`columns` lacks {lacking[0]}, which is part of the key"
    return _too_old(version)


def left_out(connection: Connection, patterns: Sequence[str]) -> dict[str, str]:
    """What matches a pattern by its full name and cannot be captured: why."""
    return {
        f"{namespace}.{name}": why
        for namespace, name, why in connection.execute(_LEFT_OUT)
        if any(fnmatchcase(f"{namespace}.{name}", pattern) for pattern in patterns)
    }


def known_types(connection: Connection) -> dict[int, TypeInfo]:
    """Every type of the database by oid."""
    return {oid: TypeInfo(*facts) for oid, *facts in connection.execute(_TYPES)}


def column_types(table: TableInfo, known: Types) -> tuple[ColumnType, ...]:
    return tuple(
        column_type(column.type_oid, column.modifier, composite_types.shaped(known, column.composites))
        for column in table.columns
    )


def text_only(tables: Iterable[TableInfo], known: Types) -> list[str]:
    """Columns that no binary session can read, as ``namespace.table.column (type)``."""
    return [
        f"{table.full_name}.{column.name} ({column.type_name})"
        for table in tables
        for column, kind in zip(table.columns, column_types(table, known), strict=True)
        if kind.binary is None and kind.sends
    ]


def schema_of(table: TableInfo, known: Types, ids: Mapping[int, int] | None = None) -> Schema:
    """The table's schema in the log; a field's id is its column's attnum, or what ``ids`` says for it."""
    ids = ids or {}
    names = log_names([column.name for column in table.columns])
    renamed = dict(zip((column.name for column in table.columns), names, strict=True))
    fields = tuple(
        Field(
            id=ids.get(column.number, column.number), name=name, type=kind.duckdb, nullable=not column.not_null,
            source_type=column.type_name, description=column.description,
        )
        for column, name, kind in zip(table.columns, names, column_types(table, known), strict=True)
    )  # fmt: skip
    return Schema(fields=fields, key=tuple(renamed[name] for name in table.key) if table.kind == "table" else ())


def log_names(columns: Sequence[str]) -> list[str]:
    """Column names in the log: DuckDB folds case and PostgreSQL does not, and metadata names are taken.

    A name that a metadata column has gets ``__src``; of names equal but for case, later ones get ``__2``, ...
    """
    return distinct([f"{column}__src" if column.lower() in record.METADATA else column for column in columns])


def current_end(connection: Connection) -> int:
    """The LSN that everything committed until now lies before.

    pg_current_wal_insert_lsn, because pg_current_wal_lsn lags with synchronous_commit = off. Where it points
    just behind a page's header it means that page's start, which is as far as the stream can get. Of a standby, what it
    has replayed.
    """
    row = connection.execute(
        "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text,"
        " current_setting('wal_block_size')::int,"
        " (SELECT setting::int8 FROM pg_settings WHERE name = 'wal_segment_size')"
    ).fetchone()
    assert row is not None
    lsn, block, segment = parse_lsn(row[0]), row[1], row[2]
    header = 40 if lsn % segment < block else 24
    return lsn - header if lsn % block == header else lsn


def topic_name(source: str, namespace: str, name: str) -> str:
    return f"{source}.{namespace}.{name}"


def _key(identity: str, key: list[str]) -> tuple[str, ...]:
    return () if identity == "n" else tuple(key)


def parse_lsn(text: str) -> int:
    """``X/Y`` as the server writes it, as a number."""
    match = re.fullmatch(r"([0-9A-Fa-f]+)/([0-9A-Fa-f]+)", text)
    assert match is not None, text
    return int(match[1], 16) << 32 | int(match[2], 16)


def format_lsn(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
