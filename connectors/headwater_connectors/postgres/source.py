"""A PostgreSQL source as the rest of headwater sees it, and its first capture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.pq.abc import PGconn

from headwater.config import SourceConfig
from headwater.errors import SourceNotReady
from headwater.log import Log
from headwater_connectors.postgres import catalog, check, publication, session, slot
from headwater_connectors.postgres.catalog import TableInfo
from headwater_connectors.postgres.decoder import TRANSACTIONS
from headwater_connectors.postgres.gap import forget_system
from headwater_connectors.postgres.initial_copy import copy_tables


def owner_name(source: str) -> str:
    """The name a source's process owns and commits under."""
    return f"source:{source}"


def transactions_topic(source: str) -> str:
    return f"{source}.transactions"


class PostgresSource:
    """The kind ``postgres`` of the entry-point group ``headwater.source``."""

    def current_end(self, dsn: str) -> str:
        """The LSN that everything committed until now lies before.

        pg_current_wal_insert_lsn, because pg_current_wal_lsn lags with synchronous_commit = off. Where it points
        just behind a page's header it means that page's start, which is as far as the stream can get.
        """
        with session.connect(dsn, "status") as connection:
            row = connection.execute(
                "SELECT pg_current_wal_insert_lsn()::text, current_setting('wal_block_size')::int,"
                " (SELECT setting::int8 FROM pg_settings WHERE name = 'wal_segment_size')"
            ).fetchone()
        assert row is not None
        lsn, block, segment = catalog.parse_lsn(row[0]), row[1], row[2]
        header = 40 if lsn % segment < block else 24
        return catalog.format_lsn(lsn - header if lsn % block == header else lsn)

    def describe(self, dsn: str) -> list[dict[str, Any]]:
        """Tables with their estimated rows, bytes, key columns and replica identity."""
        with session.connect(dsn, "init") as connection:
            return [
                {
                    "table": table.full_name,
                    "rows": table.rows,
                    "bytes": table.size,
                    "key": list(table.key),
                    "identity": check.IDENTITY_WORDS[table.identity] if table.has_identity else "none",
                }
                for table in catalog.tables(connection)
            ]

    def check(self, dsn: str) -> list[check.Finding]:
        """What the server lacks for any source on it."""
        with session.connect(dsn, "init") as connection:
            return check.server(connection)


def prepare(source: SourceConfig, connection: session.Connection) -> list[TableInfo]:
    """Make the publications if they are missing; the tables that are published. Raises SourceNotReady."""
    problems = [finding for finding in check.server(connection) if finding.fatal]
    if problems:
        raise SourceNotReady(
            problems[0].what, where=f"source {source.name}", todo=f"Run {problems[0].sql}" if problems[0].sql else ""
        )
    both = publication.read(connection, source.name)
    if not all(each.exists for each in both):
        try:
            publication.create(connection, source.name, catalog.tables(connection, source.tables))
        except psycopg.Error as error:
            raise session.translate(error, source.name) from error
        both = publication.read(connection, source.name)
    return catalog.tables(connection, oids=both[0].members | both[1].members)


def copy_source(
    source: SourceConfig,
    log: Log,
    epoch: int,
    connection: session.Connection,
    replication: PGconn,
    progress: Callable[[str, int], None],
) -> None:
    """Publications, slot, topics and every table's rows: the source's first commit."""
    slot.drop(connection, source.name)  # one without a stored position is left over from a copy that did not end
    tables = prepare(source, connection)
    if not tables:
        raise SourceNotReady(
            f"no table matches {', '.join(source.tables)}",
            where=f"source {source.name}",
            todo=f"Mend `tables` in headwater.toml, then run `headwater source drop {source.name}` and try again.",
        )
    known = catalog.known_types(connection)
    point, snapshot = slot.create(replication, source.name)
    with log.transaction(producer=owner_name(source.name), epoch=epoch, expected_position=None) as transaction:
        transaction.create_topic(
            transactions_topic(source.name), "transactions", TRANSACTIONS, source=source.name,
            description="The source's transactions: one row for each that changed a captured table.",
        )  # fmt: skip
        for table in tables:
            transaction.create_topic(
                catalog.topic_name(source.name, table.namespace, table.name),
                table.kind,
                catalog.schema_of(table, known),
                partitions=source.table_config(table.full_name).partitions,
                source=source.name,
                description=table.description,
            )
        copy_tables(connection, transaction, source.name, tables, known, snapshot, point, progress)
        transaction.position = catalog.format_lsn(point)
        transaction.commit()


def drop(source: SourceConfig, log: Log, epoch: int, connection: session.Connection) -> None:
    """Slot, then publications, then topics and position: the source can be captured anew. History stays readable
    at older positions."""
    slot.drop(connection, source.name)
    publication.drop(connection, source.name)
    forget_topics(source.name, log, epoch)
    forget_system(log, source.name)


def forget_topics(name: str, log: Log, epoch: int) -> None:
    producer = owner_name(name)
    topics = [topic.name for topic in log.topics(hidden=True) if topic.source == name]
    if topics:
        expected = log.producer(producer).position
        with log.transaction(producer=producer, epoch=epoch, expected_position=expected) as transaction:
            for topic in topics:
                transaction.drop_topic(topic)
            transaction.commit()
    log.forget_producer(producer)
