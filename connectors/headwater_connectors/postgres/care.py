"""What a capture looks after beside the stream: tables whose updates the server cannot send.

A table that lost its replica identity would make the application's UPDATE fail: it is moved to the publication
for inserts (law 9). A table captured for inserts only is true as long as its rows are not changed; when the
server's counters say they were, the topic becomes ``incomplete`` (law 2's declared exception).
"""

from __future__ import annotations

import json

import psycopg

from headwater import logs
from headwater.log import Log
from headwater_connectors.postgres import catalog, publication, session

LOST_IDENTITY = "the table lost its replica identity: its updates and deletes are not sent any more"
ROWS_CHANGED = "rows of this table, captured for inserts only because it has no key, were updated or deleted"

_CHANGED = """
SELECT relid::int8, n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relid = ANY (%s::int8[]::oid[])
"""
_log = logs.logger("capture")


class Care:
    """For one source and the process that owns it."""

    def __init__(self, log: Log, source: str, epoch: int) -> None:
        self._log = log
        self._source = source
        self._producer = f"source:{source}"
        self._epoch = epoch

    def look(self, connection: session.Connection) -> None:
        """Move and mark what needs it. Raises SourceUnreachable; a missing privilege is only a warning."""
        try:
            both = publication.read(connection, self._source)
            tables = catalog.tables(connection, oids=both[0].members | both[1].members)
            moved = publication.move_without_identity(connection, self._source, tables)
            counts = self._counts(connection, [table for table in tables if table.kind == "insert_only"])
        except psycopg.errors.InsufficientPrivilege as error:
            _log.warning("tables without identity cannot be moved: %s", error)
            return
        except psycopg.Error as error:
            raise session.translate(error, self._source) from error
        reasons = {_topic(self._source, table): LOST_IDENTITY for table in moved}
        reasons |= dict.fromkeys(self._changed(counts), ROWS_CHANGED)
        self._mark(reasons)

    def _counts(self, connection: session.Connection, tables: list[catalog.TableInfo]) -> dict[str, int]:
        topics = {table.oid: _topic(self._source, table) for table in tables}
        return {topics[oid]: count for oid, count in connection.execute(_CHANGED, [list(topics)])}

    def _changed(self, counts: dict[str, int]) -> list[str]:
        """Tables whose counter moved since it was first seen; a counter of 0 was reset and tells nothing."""
        setting = f"{self._producer}:changed"
        seen: dict[str, int] = json.loads(self._log.setting(setting) or "{}")
        new = {topic: count for topic, count in counts.items() if topic not in seen}
        if new:
            self._log.set_setting(setting, json.dumps({**seen, **new}))
        return [topic for topic, count in counts.items() if topic not in new and count not in (0, seen[topic])]

    def _mark(self, reasons: dict[str, str]) -> None:
        """One commit that changes the topics' state only."""
        states = {topic.name: topic.state for topic in self._log.topics(hidden=True)}
        new = {topic: reason for topic, reason in reasons.items() if states.get(topic) == "live"}
        if not new:
            return
        expected = self._log.producer(self._producer).position
        with self._log.transaction(self._producer, self._epoch, expected) as transaction:
            for topic, reason in new.items():
                transaction.alter_topic(topic, state="incomplete", reason=reason)
                _log.warning("%s is incomplete: %s", topic, reason, extra={"topic": topic})
            transaction.commit()


def _topic(source: str, table: catalog.TableInfo) -> str:
    return catalog.topic_name(source, table.namespace, table.name)
