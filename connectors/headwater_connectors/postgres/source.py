"""A PostgreSQL source as the rest of headwater sees it, and its first capture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.pq.abc import PGconn
from sqlalchemy import Connection as CatalogConnection

from headwater import failpoint
from headwater.catalog.catalog import put_setting
from headwater.catalog.records import CommitInfo
from headwater.config import Settings, SourceConfig
from headwater.errors import OwnedElsewhere, SourceNotReady
from headwater.log import Log
from headwater.log.staging import kept, release
from headwater.ownership import holder_pid
from headwater_connectors.postgres import (
    catalog,
    check,
    event_trigger,
    events,
    mark,
    publication,
    session,
    slot,
    standby,
    survey,
    verification,
)
from headwater_connectors.postgres.batch import TRANSACTIONS
from headwater_connectors.postgres.catalog import TableInfo
from headwater_connectors.postgres.gap import forget_system
from headwater_connectors.postgres.known import load, setting
from headwater_connectors.postgres.tables import Tables


def owner_name(source: str) -> str:
    """The name a source's process owns and commits under."""
    return f"source:{source}"


def transactions_topic(source: str) -> str:
    return f"{source}.transactions"


class PostgresSource:
    """The kind ``postgres`` of the entry-point group ``headwater.source``."""

    def current_end(self, dsn: str) -> str:
        """The LSN that everything committed until now lies before (see ``catalog.current_end``)."""
        with session.connect(dsn, "status") as connection:
            return catalog.format_lsn(catalog.current_end(connection))

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
                for table in catalog.tables(connection, measured=True)
            ]

    def check(self, dsn: str) -> list[check.Finding]:
        """What the server lacks for any source on it."""
        with session.connect(dsn, "init") as connection:
            return check.server(connection)

    def verify(
        self, source: SourceConfig, log: Log, on_table: Callable[[str], None], only: Collection[str] = ()
    ) -> list[verification.Verified]:
        """Every captured table, or only those, compared with the server at one position (see ``verification``).

        Captures meanwhile, where nobody does.
        """
        from headwater_connectors.postgres.capture import Capture

        if holder_pid(log, owner_name(source.name)) is not None:
            return verification.verify(source, log, on_table, only=only)
        capture = Capture(source, Settings(), log, threading.Event())
        with ThreadPoolExecutor(1, "capture") as pool:
            running = pool.submit(capture.run)

            def ended() -> bool:
                return running.done() and not isinstance(running.exception(), OwnedElsewhere)

            try:
                return verification.verify(source, log, on_table, ended, only)
            finally:
                capture.stop.set()
                with suppress(OwnedElsewhere):  # by one that was just starting, and captures as well as we would
                    running.result()


def prepare(source: SourceConfig, connection: session.Connection) -> list[TableInfo]:
    """Make publications and event trigger if they are missing; the tables that are published. Raises SourceNotReady."""
    problems = [finding for finding in check.server(connection, source.origin) if finding.fatal]
    if problems:
        raise SourceNotReady(
            problems[0].what, where=f"source {source.name}", todo=f"Run {problems[0].sql}" if problems[0].sql else ""
        )
    for problem in events.check_topics(source):
        raise SourceNotReady(problem, where=f"source {source.name}", todo="Mend it in headwater.toml.")
    tables = catalog.tables(connection, source.wanted, config=source)
    if not tables:
        raise SourceNotReady(
            f"no table matches {', '.join(source.tables)}",
            where=f"source {source.name}",
            todo="Mend `tables` in headwater.toml.",
        )
    event_trigger.put_right(source, connection)
    both = publication.read(connection, source.name)
    if not all(each.exists for each in both):
        try:
            publication.create(connection, source.name)
            _publish(source.name, connection, tables)
        except psycopg.Error as error:
            raise session.translate(error, source.name) from error
        both = publication.read(connection, source.name)
    return catalog.tables(connection, oids={**both[0].members, **both[1].members}, config=source)


def require_mode(source: SourceConfig, connection: session.Connection) -> None:
    """Raises SourceNotReady where the source's mode cannot read one of its tables."""
    if source.mode == "binary":
        for problem in check.mode(source, connection, catalog.tables(connection, source.wanted, config=source)):
            raise SourceNotReady(
                problem, where=f"source {source.name}", todo='Set mode = "auto" or "text" in headwater.toml.'
            )


def _publish(source: str, connection: session.Connection, tables: list[TableInfo]) -> None:
    """Fill new publications; without the right to, they are taken back. What is locked is left for the capture."""
    refused = survey.publish(connection, source, tables).refused
    if refused:
        publication.drop(connection, source)
        raise SourceNotReady(
            next(iter(refused.values())),
            where=f"source {source}",
            todo=f"Run `headwater source check {source}` for the SQL that an owner has to run.",
        )


def begin(
    source: SourceConfig,
    log: Log,
    epoch: int,
    connection: session.Connection,
    decoding: session.Connection,
    replication: PGconn,
) -> None:
    """Publications, slot, and the source's first commit: its tables wait in pending until they are copied.

    ``decoding`` and ``replication`` are sessions where the slot is (see ``standby``).
    """
    slot.drop(decoding, source.name)  # one without a stored position is left over from a start that did not end
    published = prepare(source, connection)
    tables = Tables(log, source, connection)
    with standby.helped(source, connection, decoding):
        point = slot.create(replication, source.name, failover=slot.can_fail_over(decoding, source))
    failpoint.hit("source.begin:before")
    with log.transaction(producer=owner_name(source.name), epoch=epoch, expected_position=None) as transaction:
        transaction.create_topic(
            transactions_topic(source.name), "transactions", TRANSACTIONS, source=source.name,
            description="The source's transactions: one row for each that changed a captured table.",
        )  # fmt: skip
        for table in published:
            tables.create(transaction, table)
        transaction.position = catalog.format_lsn(point)
        transaction.commit()


def drop(source: SourceConfig, log: Log, epoch: int, connection: session.Connection) -> None:
    """Event trigger, slot, then publications, then topics and position: the source can be captured anew. History
    stays readable at older positions."""
    event_trigger.drop(connection, source.name)
    with standby.decoding(source, connection) as decoding:
        slot.drop(decoding, source.name)
    publication.drop(connection, source.name)
    forget_topics(source.name, log, epoch)
    forget_system(log, source.name)
    mark.forget(log, source.name)
    log.set_setting(f"source:{source.name}:gap", None)


def forget_topics(name: str, log: Log, epoch: int) -> None:
    producer = owner_name(name)
    topics = [topic.name for topic in log.topics(hidden=True) if topic.source == name]
    records = [setting(name, oid) for oid in load(log, name)]
    pieces = [piece.name for oid, known in load(log, name).items() for piece in kept(log, f"copy:{known.copy}:")]

    def forget(catalog_connection: CatalogConnection, _: CommitInfo) -> None:
        release(catalog_connection, pieces, log.clock.now_us(), published=False)
        for record in records:
            put_setting(catalog_connection, record, None)

    if topics:
        expected = log.producer(producer).position
        with log.transaction(producer=producer, epoch=epoch, expected_position=expected) as transaction:
            for topic in topics:
                transaction.drop_topic(topic)
            transaction.inside(forget)
            transaction.commit()
    log.forget_producer(producer)
