"""After a gap: a new slot, and every table compared with the server from there on; no table is copied whole for it.

One commit moves the position to the new slot's, says in ``<source>.gaps`` which changes nobody saw, and makes the
tables ``reshaping``: readers keep the last good rows until each one's differences are appended (``Copying``). What
happened in between is one change a row: transactions of the gap are not told apart.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow as pa
from psycopg.pq.abc import PGconn
from sqlalchemy import Connection as CatalogConnection
from sqlalchemy import update

from headwater import failpoint, logs
from headwater.catalog import tables as catalog_tables
from headwater.catalog.catalog import put_setting
from headwater.catalog.records import CommitInfo
from headwater.config import SourceConfig
from headwater.log import Log
from headwater.schema import Schema
from headwater_connectors.postgres import gap, requests, slot, standby
from headwater_connectors.postgres.catalog import format_lsn, parse_lsn
from headwater_connectors.postgres.gap import Gap
from headwater_connectors.postgres.session import Connection
from headwater_connectors.postgres.slot import System
from headwater_connectors.postgres.source import owner_name, prepare
from headwater_connectors.postgres.tables import Tables

GAPS = Schema.of(
    {
        "at": "TIMESTAMP WITH TIME ZONE",
        "from_lsn": "BIGINT",
        "to_lsn": "BIGINT",
        "reason": "VARCHAR",
        "system": "VARCHAR",
        "timeline": "BIGINT",
    }
)
"""``<source>.gaps``: changes committed after ``from_lsn`` and before ``to_lsn`` were not seen one by one.
``system`` and ``timeline`` are those that ``to_lsn`` belongs to."""

_log = logs.logger("capture")


def gaps_topic(source: str) -> str:
    return f"{source}.gaps"


def wanted(source: SourceConfig, log: Log, found: Gap | None) -> Gap | None:
    """The gap that is to be repaired now: it is allowed, or a repair was asked for. Raises SourceGap when it is not.

    ``on_gap`` allows it once and for all, but never for a server with another history: that may be a mistake.
    """
    if requests.repair_asked(log, source.name):
        return found or Gap(what="a repair was asked for")
    if found is not None and (found.foreign or source.on_gap != "repair"):
        raise found.error(source.name)
    return found


def begin(
    source: SourceConfig,
    log: Log,
    epoch: int,
    connection: Connection,
    decoding: Connection,
    replication: PGconn,
    system: System,
    found: Gap,
) -> None:
    """A new slot and the commit from which on it is followed. Raises SlotInUse, SourceNotReady.

    ``decoding`` and ``replication`` are sessions where the slot is (see ``standby``).
    """
    name = source.name
    state = log.producer(owner_name(name))
    slot.drop(decoding, name)
    prepare(source, connection)
    same_server = not gap.is_another(log, name, system)
    with standby.helped(source, connection, decoding):
        point = slot.create(replication, name, failover=slot.can_fail_over(decoding, source))
    failpoint.hit("source.repair:before")
    since = max(parse_lsn(each or "0/0") for each in (state.position, state.confirmed))
    moment = datetime.now(UTC)
    said = {"at": moment.isoformat(), "from_lsn": format_lsn(since), "to_lsn": format_lsn(point), "reason": found.what}

    def settle(catalog: CatalogConnection, _: CommitInfo) -> None:
        producer = catalog_tables.producer
        catalog.execute(update(producer).where(producer.c.name == owner_name(name)).values(confirmed=None))
        gap.settle(catalog, name, system)
        put_setting(catalog, f"source:{name}:gap", json.dumps(said))
        requests.repair_done(catalog, name)

    with log.transaction(producer=owner_name(name), epoch=epoch, expected_position=state.position) as transaction:
        transaction.position = format_lsn(point)
        Tables(log, source, connection).begin_repair(transaction, found.what, same_server=same_server)
        topic = gaps_topic(name)
        if transaction.topic(topic) is None:
            about = (
                "Ranges of the source's WAL that were not seen; the tables were compared with the server after each."
            )
            transaction.create_topic(topic, "transactions", GAPS, source=name, description=about)
        values = [moment, since, point, found.what, system.identifier, system.timeline]
        columns = zip(GAPS.arrow(), values, strict=True)
        transaction.append(topic, pa.table({field.name: pa.array([value], field.type) for field, value in columns}))
        transaction.inside(settle)
        transaction.commit()
    _log.warning(
        "changes from %s to %s were not seen (%s); every table is compared with the server",
        said["from_lsn"], said["to_lsn"], found.what, extra={"lsn": said["to_lsn"]},
    )  # fmt: skip
