"""What is wrong on the server's side and the SQL that mends it: findings, never changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from psycopg import sql

from headwater.config import SourceConfig
from headwater.log import Log
from headwater_connectors.postgres import catalog, event_trigger, events, publication, slot, standby
from headwater_connectors.postgres.session import Connection

OLDEST_VERSION: Final = 140_000
"""pgoutput's binary mode came with PostgreSQL 14."""
ORIGIN_VERSION: Final = 160_000
"""From this version on, the server can leave out what it received by replication."""
COLUMNS_SHOWN: Final = 5
"""Columns that a finding about several of them names."""
IDENTITY_WORDS: Final = {"d": "primary key", "i": "unique index", "f": "full row", "n": "none"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """``fatal``: capture cannot work. ``sql`` mends it; empty where no statement does."""

    what: str
    sql: str = ""
    fatal: bool = False


def server(connection: Connection, origin: str = "any") -> list[Finding]:
    """What any source needs: version, wal_level, free slots and senders, the replication privilege."""
    row = connection.execute(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
        " current_setting('wal_level'), current_setting('max_replication_slots')::int,"
        " (SELECT count(*) FROM pg_replication_slots), current_setting('max_wal_senders')::int,"
        " (SELECT count(*) FROM pg_stat_replication), pg_is_in_recovery(), current_user,"
        " (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user)"
    ).fetchone()
    assert row is not None
    number, version, level, slots, slots_used, senders, senders_used, standby, role, may_replicate = row
    found = []
    if number < OLDEST_VERSION:
        found.append(Finding(what=f"the server is PostgreSQL {version}; 14 or newer is needed", fatal=True))
    if origin != "any" and number < ORIGIN_VERSION:
        found.append(Finding(what=f"origin = {origin!r} needs PostgreSQL 16, the server is {version}", fatal=True))
    if level != "logical":
        found.append(
            Finding(
                what=f"wal_level is {level}, so the server writes no logical changes (needs a restart)",
                sql="ALTER SYSTEM SET wal_level = 'logical';",
                fatal=True,
            )
        )
    if not may_replicate:
        grant = sql.SQL("ALTER ROLE {} REPLICATION;").format(sql.Identifier(role)).as_string(None)
        found.append(Finding(what=f"the role {role} has no replication privilege", sql=grant, fatal=True))
    if slots_used >= slots:
        more = f"ALTER SYSTEM SET max_replication_slots = {slots + 5};"
        found.append(Finding(what=f"all {slots} replication slots are in use (needs a restart)", sql=more))
    if senders_used >= senders:
        more = f"ALTER SYSTEM SET max_wal_senders = {senders + 5};"
        found.append(Finding(what=f"all {senders} WAL senders are in use (needs a restart)", sql=more))
    if standby:
        what = "the server is a standby: publications are made, and tables copied, on its primary; let dsn lead there"
        found.append(Finding(what=what, fatal=True))
    return found


def source(config: SourceConfig, connection: Connection, log: Log | None) -> list[Finding]:
    """Everything about one source; ``log`` is None when the lake does not exist yet."""
    found = server(connection, config.origin)
    tables = catalog.tables(connection, config.wanted, config=config)
    found += [Finding(what=what, fatal=True) for what in events.check_topics(config)]
    if not tables:
        found.append(Finding(what=f"no table matches {', '.join(config.tables)}", fatal=True))
    main, inserts = publication.read(connection, config.name)
    position = log.producer(f"source:{config.name}").position if log else None
    if not (main.exists and inserts.exists):
        if position is not None:
            missing = main.name if not main.exists else inserts.name
            found.append(
                Finding(what=f"publication {missing} is missing while captured data depends on it", fatal=True)
            )
        elif not all(_owned(connection, table.oid) for table in tables):
            statements = ";\n".join(publication.create_sql(config.name, tables, connection.info.server_version)) + ";"
            found.append(
                Finding(what="this role may not publish every table; an owner has to", sql=statements, fatal=True)
            )
    else:
        found += _members(config, tables, main, inserts)
    found += _event_trigger(config, connection)
    found += [finding for table in tables for finding in _table(table)]
    found += [Finding(what=what, fatal=True) for what in mode(config, connection, tables)]
    left_out = catalog.left_out(connection, config.wanted)
    found += [Finding(what=f"{name} is left out: it is {why}") for name, why in left_out.items()]
    with standby.decoding(config, connection) as decoding:
        held = slot.read(decoding, config.name)
    if held is not None and held.invalid:
        found.append(
            Finding(
                what=f"slot {held.name} was invalidated ({held.invalid}): headwater source repair {config.name}",
                fatal=True,
            )
        )
    if held is None and position is not None:
        found.append(
            Finding(
                what=f"slot {slot.slot_name(config.name)} is gone: headwater source repair {config.name}",
                fatal=True,
            )
        )
    return found


def mode(config: SourceConfig, connection: Connection, tables: list[catalog.TableInfo]) -> list[str]:
    """Why the source's mode cannot read these tables."""
    columns = catalog.text_only(tables, catalog.known_types(connection)) if config.mode == "binary" else []
    more = f" and {len(columns) - COLUMNS_SHOWN} more columns" if len(columns) > COLUMNS_SHOWN else ""
    listed = f"{', '.join(columns[:COLUMNS_SHOWN])}{more}"
    return [f'mode = "binary" cannot read {listed}: the server sends such types as text only'] if columns else []


def _event_trigger(config: SourceConfig, connection: Connection) -> list[Finding]:
    """Capture makes and removes it by itself where its role may."""
    name = config.name
    if config.ddl_capture == "off":
        what = (
            "ddl_capture is off: DDL without rows after it is noticed within 10 s, and for so long UPDATE and DELETE"
            " fail on a table that loses its replica identity"
        )
        left = event_trigger.exists(connection, name) and not _is_superuser(connection)
        return [Finding(what=what, sql=";\n".join(event_trigger.drop_statements(name)) + ";" if left else "")]
    if config.ddl_capture == "trigger" and not event_trigger.is_made(connection, name):
        mend = "" if _is_superuser(connection) else ";\n".join(event_trigger.statements(name)) + ";"
        who = "a superuser has to make it" if mend else "capture, or `headwater source prepare`, makes it"
        return [Finding(what=f"the event trigger headwater_{name} is missing: {who}", sql=mend, fatal=bool(mend))]
    return []


def _is_superuser(connection: Connection) -> bool:
    """Whether the role may make event triggers, as far as PostgreSQL itself is asked."""
    return connection.info.parameter_status("is_superuser") == "on"


def _members(
    config: SourceConfig,
    tables: list[catalog.TableInfo],
    main: publication.Publication,
    inserts: publication.Publication,
) -> list[Finding]:
    found = []
    for table in tables:
        if table.oid not in {**main.members, **inserts.members}:
            found.append(
                Finding(
                    what=f"{table.full_name} is newer than the capture and not part of it; its statements are not"
                    f" affected. To take it in: headwater source drop {config.name}, then capture again"
                )
            )
        elif table.oid in main.members and not table.has_identity:
            name = sql.Identifier(table.namespace, table.name)
            mend = sql.SQL("ALTER PUBLICATION {} DROP TABLE {}; ALTER PUBLICATION {} ADD TABLE {};").format(
                sql.Identifier(main.name), name, sql.Identifier(inserts.name), name
            )
            found.append(
                Finding(
                    what=f"{table.full_name} lost its replica identity: the application's UPDATE and DELETE on it fail"
                    " until capture moves it (within 10 s when it runs)",
                    sql=mend.as_string(None),
                )
            )
    return found


def _table(table: catalog.TableInfo) -> list[Finding]:
    found = []
    name = sql.Identifier(table.namespace, table.name).as_string(None)
    if table.kind == "insert_only" and not table.outbox:
        found.append(
            Finding(
                what=f"{table.full_name} has no key: only inserts are captured, it becomes incomplete once rows change",
                sql=f"ALTER TABLE {name} ADD PRIMARY KEY (...);  -- or: ALTER TABLE {name} REPLICA IDENTITY FULL;",
            )
        )
    columns = [column.name for column in table.columns]
    if table.refused:
        found.append(Finding(what=f"{table.full_name} cannot be captured: {table.refused}", fatal=True))
    found += [
        Finding(what=f"column {column} of {table.full_name} is generated and is not sent, so it is not captured")
        for column in table.omitted
    ]
    for old, new in zip(columns, catalog.log_names(columns), strict=True):
        if old != new:
            found.append(Finding(what=f"column {old} of {table.full_name} is called {new} in the lake"))
    return found


def _owned(connection: Connection, oid: int) -> bool:
    row = connection.execute(
        "SELECT pg_has_role(current_user, relowner, 'USAGE') FROM pg_class WHERE oid = %s::int8::oid", [oid]
    ).fetchone()
    return bool(row and row[0])
