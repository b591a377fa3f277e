"""What an event trigger said of DDL, taken up at its place in the stream: what a survey would find seconds later.

A message speaks of one table as the catalog has it right after the command, or of tables that are gone. What it does
not say exactly (a command under an old snapshot, a trigger of another release, text of somebody else) has the survey
look at once; the survey also mends what a wrong one made us believe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import psycopg

from headwater import logs
from headwater.log.transaction import Transaction
from headwater_connectors.postgres import catalog
from headwater_connectors.postgres.catalog import TableInfo
from headwater_connectors.postgres.event_trigger import LAYOUT
from headwater_connectors.postgres.known import Known
from headwater_connectors.postgres.shape import Quiet, Rewritten
from headwater_connectors.postgres.tables import Tables

_log = logs.logger("capture")

UNPUBLISHED = "it was taken out of the publication"


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """``table`` after a command in the transaction ``xid``, or ``gone`` tables and partitions; neither: look."""

    source: str
    table: TableInfo | None = None
    gone: tuple[int, ...] = ()
    published: bool = True
    xid: int = 0

    @classmethod
    def parse(cls, said: bytes, tables: Tables) -> Announcement:
        """Anybody may send anything: what is not understood says to look."""
        body: dict[str, Any] = {}
        try:
            body = dict(json.loads(said))
            return cls(source=str(body["source"]), **(_facts(body, tables) if body["layout"] == LAYOUT else {}))
        except Exception as error:  # noqa: BLE001 -- whatever a text that anybody may have sent brings about
            _log.info("a message about DDL is not understood: %s: %s", type(error).__name__, error)
            return cls(source=str(body.get("source", "")))


def _facts(body: Mapping[str, Any], tables: Tables) -> dict[str, Any]:
    if "gone" in body:
        return {"gone": tuple(map(int, body["gone"]))}
    if "state" not in body:
        return {}
    rows, columns, parts = body["state"]
    [table] = catalog.assembled(tables.connection, rows, columns, parts, tables.config)
    return {"table": table, "published": bool(body["published"]), "xid": int(body["xid"])}


def follow(tables: Tables, said: bytes, transaction: Transaction) -> set[int]:
    """Take up what a message says; returns the oids of tables whose changes may go elsewhere from here on."""
    announced = Announcement.parse(said, tables)
    if announced.source != tables.source:
        return set()
    if announced.table is not None:
        return _altered(tables, announced, announced.table, transaction)
    if announced.gone:
        return _gone(tables, announced.gone, transaction)
    tables.begun = True
    return set()


def _altered(tables: Tables, announced: Announcement, table: TableInfo, transaction: Transaction) -> set[int]:
    found = tables.known.get(table.oid)
    if found is None:
        tables.begun |= any(fnmatchcase(table.full_name, pattern) for pattern in tables.config.wanted)
        return set()
    if found.route == "pending":
        tables.stale.add(table.oid)
    elif table.outbox or table.refused:
        tables.begun = True
    if found.route != "topic" or table.outbox or table.refused:
        return set()
    tables.types = catalog.known_types(tables.connection)
    try:
        change = tables.compare(_uncertain(found, announced.xid), table, transaction)
    except psycopg.Error:  # of the connection, not of what was said
        raise
    except Exception as error:  # noqa: BLE001 -- it may tell of a table that cannot be
        _log.warning("what a message says of %s is not followed: %s", table.full_name, error)
        tables.begun = True
        return set()
    if not announced.published and not isinstance(change, Rewritten):
        topic = transaction.topic(found.shown)
        assert topic is not None
        now, schema = (change.known, change.schema) if change else (found, topic.schema)
        change = Rewritten(UNPUBLISHED, schema, now)
    if isinstance(change, Quiet):
        tables.apply(transaction, found, change)
    elif change is not None:
        tables.begin_copy(transaction, found, change.known, change.schema, change.reason, table.description)
    return {table.oid} if change is not None else set()


def _uncertain(found: Known, xid: int) -> Known:
    """The record, less what it says of columns that were altered in the transaction ``xid`` already.

    Altered once more in it, their rows in the catalog bear the same mark.
    """
    mine = {column.number for column in found.columns if (column.changed - xid) % (1 << 32) < 1 << 31}
    return replace(
        found, columns=tuple(replace(each, changed=-1) if each.number in mine else each for each in found.columns)
    )


def _gone(tables: Tables, gone: tuple[int, ...], transaction: Transaction) -> set[int]:
    """Tables that were dropped, and partitions of others. Believed once the catalog says so, too."""
    changed = set()
    for oid in gone:
        found = tables.known.get(oid)
        if found is None:
            continue
        if tables.look(oid) is None:
            tables.drop(transaction, found)
            changed.add(oid)
        else:
            tables.begun = True
    for found in list(tables.known.values()):
        if found.route == "topic" and found.oid not in gone and not set(gone).isdisjoint(found.parts):
            table = tables.look(found.oid)
            change = tables.compare(found, table, transaction) if table else None
            if table is not None and isinstance(change, Rewritten):
                tables.begin_copy(transaction, found, change.known, change.schema, change.reason, table.description)
                changed.add(found.oid)
            else:
                tables.begun = True
    return changed
