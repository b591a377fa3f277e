"""The captured tables of one source: what the stream's relations mean, and how tables come, change and go.

    new ─▶ pending ─(copied)─▶ topic ─(same rows: a new schema version)─▶ topic
                      ▲                        │ rows may have changed
                      └────── reshaping ◀──────┘

Every change of a table's record is part of a log transaction. What is in memory belongs to one session; after an
error it is read again.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import psycopg
import pyarrow as pa

from headwater import logs
from headwater.catalog.catalog import put_setting
from headwater.catalog.records import Topic
from headwater.config import SourceConfig
from headwater.log import Log, dead_letters
from headwater.log.staging import kept, note, release
from headwater.log.transaction import Transaction
from headwater.schema import Schema
from headwater_connectors.postgres import catalog, composite_types, events, known, session, shape, survey
from headwater_connectors.postgres.catalog import TableInfo
from headwater_connectors.postgres.copier import Copier
from headwater_connectors.postgres.copying import Copied
from headwater_connectors.postgres.known import Known
from headwater_connectors.postgres.pending import appended
from headwater_connectors.postgres.pieces import LETTERS_MAX
from headwater_connectors.postgres.printing import Types
from headwater_connectors.postgres.relation import Relation, Target
from headwater_connectors.postgres.rows import Letter, TableUnreadable
from headwater_connectors.postgres.shape import Quiet, Rewritten

_log = logs.logger("capture")


class Tables:
    """``connection`` is an ordinary session of the capture's thread."""

    def __init__(self, log: Log, config: SourceConfig, connection: session.Connection) -> None:
        self.log = log
        self.config = config
        self.source = source = config.name
        self.connection = connection
        self.known = known.load(log, source)
        self.types: Types = catalog.known_types(connection)
        self.begun = False
        """Whether a copy was asked for that the survey has not begun yet."""
        self.stale: set[int] = set()
        """Tables of which something was announced while they are copied: they are looked at once they appear."""
        self._ignored: set[int] = set()

    def topics(self) -> dict[str, Topic]:
        """The source's topics by name, hidden ones included."""
        return {topic.name: topic for topic in self.log.topics(hidden=True) if topic.source == self.source}

    # ---- the stream

    def resolve(self, relation: Relation, transaction: Transaction) -> Target | None:
        """Where a relation's changes go from here on; what changed with it joins the transaction."""
        found = self.known.get(relation.oid)
        if found is None or found.route == "nowhere":
            if relation.oid not in self._ignored:
                self._ignored.add(relation.oid)
                _log.warning("changes of %s are not captured", relation.full_name)
            return None
        if found.route == "outbox":
            return self._outbox(found, relation)
        if not found.announced_as(relation) or self.moved(found):
            found = self._reshaped(found, relation, transaction)
            if found is None:
                return None
        return shape.target_of(relation, found, self.types, _goes_to(found))

    def moved(self, found: Known) -> bool:
        """Whether a composite type of the table is not what the record says: no message tells of that.

        While it is, everything that the server has sent or shown until now was in the shape on record.
        """
        made = found.composites
        return bool(made) and composite_types.look(self.connection, made) != made

    def target(self, relation: Relation) -> Target | None:
        """The same for a relation that was resolved before, after its table's record changed."""
        found = self.known.get(relation.oid)
        if found is not None and found.route == "outbox":
            return self._outbox(found, relation)
        if found is None or found.route == "nowhere" or not found.announced_as(relation):
            return None
        return shape.target_of(relation, found, self.types, _goes_to(found))

    def _outbox(self, found: Known, relation: Relation) -> Target | None:
        """None once the project calls it an outbox no more: the survey has it copied then."""
        config = self.config.outbox.get(found.full_name)
        return None if config is None else shape.outbox_target(relation, found, config, self.types)

    def _reshaped(self, found: Known, relation: Relation, transaction: Transaction) -> Known | None:
        """The table's record once its new shape is understood; None when the relation's rows are not wanted.

        They are not when the server's catalog is further on already: whatever was written in this shape was so
        before the table's last change, so the copy that has to follow reads it.
        """
        table = self.look(relation.oid)
        if table is None:
            self.leave(transaction, found, "it changed its shape and was dropped since")
            return None
        seen = _as_announced(table, relation)
        if found.route == "pending":
            if known.is_still(found, table):
                return None
            return self._again(transaction, found, table, relation)
        change = self.compare(found, seen, transaction)
        if isinstance(change, Quiet) and change.known.announced_as(relation):
            self.apply(transaction, found, change)
            return self.known[found.oid]
        return self._again(transaction, found, table, relation, change)

    def _again(
        self,
        transaction: Transaction,
        found: Known,
        table: TableInfo,
        relation: Relation,
        change: Quiet | Rewritten | None = None,
    ) -> Known | None:
        """Copy the table as it is now; its record when the relation has that shape."""
        rewritten = self.compare(found, table, transaction)
        reason = change.reason if isinstance(change, Rewritten) else "it changed its shape more than once"
        if isinstance(rewritten, Rewritten):
            reason = rewritten.reason
        elif rewritten is None or found.route == "pending":
            rewritten = self.anew(found, table, reason)
        self.begin_copy(transaction, found, rewritten.known, rewritten.schema, reason, table.description)
        now = self.known[found.oid]
        return now if now.announced_as(relation) else None

    def compare(self, found: Known, table: TableInfo, transaction: Transaction) -> Quiet | Rewritten | None:
        """What turns the table as known into ``table``, in the transaction."""
        topic = transaction.topic(found.shown or found.pending)
        assert topic is not None
        return shape.compare(found, table, topic, self.types)

    def anew(self, found: Known, table: TableInfo, reason: str) -> Rewritten:
        """What a copy of the table as it is now has to know, whether its shape changed or not."""
        topic = self.topics().get(found.shown or found.pending)
        change = shape.compare(replace(found, route="topic"), table, topic, self.types) if topic else None
        if isinstance(change, Rewritten):
            return change
        now, schema = known.of_table(table, found.topic, found), None
        if isinstance(change, Quiet):  # what older rows read in a column that was added is the lake's to know, too
            now, schema = change.known, change.schema
        return Rewritten(
            reason, schema or catalog.schema_of(table, self.types, now.ids), replace(now, replaces=found.replaces)
        )

    def start_copy(self, copier: Copier, found: Known) -> None:
        """Have the table copied, unless it is being copied."""
        if not copier.copies(found.copy):
            topics = self.topics()
            copier.start(found, topics[found.pending], topics.get(found.shown))

    def settled(self, copier: Copier) -> bool:
        """Whether no table is being copied or about to be."""
        return copier.idle and all(found.route != "pending" for found in self.known.values())

    def refuse(self, transaction: Transaction, letters: Sequence[Letter]) -> None:
        """Rows that cannot be read become dead letters, and their tables are incomplete from this commit on."""
        for oid in {letter.oid for letter in letters}:
            found, mine = self.known[oid], [letter for letter in letters if letter.oid == oid]
            if found.route == "pending":
                self._refuse_later(transaction, found, mine)
                continue
            rows = {
                "original": pa.array([letter.message for letter in mine], pa.binary()),
                "format": pa.array([letter.format for letter in mine]),
                "error_class": pa.array([letter.error_class for letter in mine]),
                "error_message": pa.array([letter.error for letter in mine]),
                "headers": pa.array([list(letter.facts.items()) for letter in mine], pa.map_(pa.string(), pa.string())),
            }
            if found.route == "outbox":
                events.create_home(transaction, found.topic, self.source)
            dead_letters.append(transaction, found.shown or found.topic, pa.table(rows))
            what = f"{len(mine)} rows could not be read and are in {found.topic}.dlq: {mine[0].error}"
            _log.error("%s: %s", found.full_name, what, extra={"topic": found.topic})
            if found.shown:
                self.mark_incomplete(transaction, found, what)

    def _refuse_later(self, transaction: Transaction, found: Known, letters: list[Letter]) -> None:
        """Changes of a table that is being copied: they become letters with the commit in which its rows appear."""
        if sum(map(len, self._refused(found))) + len(letters) > LETTERS_MAX:
            raise TableUnreadable(
                f"more than {LETTERS_MAX} changes of {found.full_name} cannot be read: {letters[-1].error}",
                where=found.topic,
                oid=found.oid,
            )
        name = f"copy:{found.copy}:letters-{uuid.uuid4().hex}"
        facts = {"letters": [letter.to_json() for letter in letters]}
        transaction.inside(lambda connection, _: note(connection, name, facts))
        _log.error("%s: %d changes could not be read: %s", found.full_name, len(letters), letters[0].error)

    def _refused(self, found: Known) -> list[list[Letter]]:
        """Of the stream, while the table was copied."""
        notes = kept(self.log, f"copy:{found.copy}:letters-")
        return [[Letter.from_json(each) for each in piece.facts["letters"]] for piece in notes]

    def mark_incomplete(self, transaction: Transaction, found: Known, reason: str) -> None:
        """Readers are told that the rows are not all of the source's (law 2's declared exception)."""
        topic = transaction.topic(found.shown)
        if topic is not None and topic.state == "live":
            transaction.alter_topic(found.shown, state="incomplete", reason=reason)
            _log.warning("%s is incomplete: %s", found.shown, reason, extra={"topic": found.shown})

    def all_binary(self) -> bool:
        """Whether every captured column can be read in a binary session."""
        tables = catalog.tables(self.connection, oids=list(self.known), config=self.config)
        return not catalog.text_only(tables, self.types)

    def newest_xid(self) -> int:
        """An xid8 near those that the stream will send."""
        row = self.connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8").fetchone()
        assert row is not None
        return int(row[0])

    def look(self, oid: int) -> TableInfo | None:
        """The table as the server's catalog has it now; None when it is gone."""
        try:
            self.types = catalog.known_types(self.connection)
            tables = catalog.tables(self.connection, oids=[oid], config=self.config)
        except psycopg.Error as error:
            raise session.translate(error, self.source) from error
        return tables[0] if tables else None

    # ---- changes of a table's record

    def create(self, transaction: Transaction, table: TableInfo) -> None:
        """A table that was not captured before: its changes wait in pending until it is copied.

        Of an outbox table nothing is copied: rows that were there before are no events.
        """
        topic = catalog.topic_name(self.source, table.namespace, table.name)
        if table.outbox:
            self._save(transaction, replace(known.of_table(table, topic), route="outbox"))
            return
        new = replace(known.of_table(table, topic), replaces=True)
        schema = catalog.schema_of(table, self.types)
        self.begin_copy(transaction, None, new, schema, "", table.description)

    def begin_repair(self, transaction: Transaction, reason: str, *, same_server: bool) -> None:
        """Compare every table with the server, whatever happened to it and its name's table meanwhile.

        On another server, and where one of the same name was made anew, the table of the same name is meant.
        """
        present = {table.oid: table for table in catalog.tables(self.connection, config=self.config)}
        named = {table.full_name: table for table in present.values()}
        taken = set(self.known) if same_server else set()
        for found in list(self.known.values()):
            table = present.get(found.oid) if same_server else None
            if table is None and (other := named.get(found.full_name)) is not None and other.oid not in taken:
                table = other
            if table is None:
                self.drop(transaction, found)
            elif found.route == "outbox" and table.outbox and table.oid == found.oid:
                continue  # nothing of it is here that could be compared
            elif found.route == "outbox" or table.outbox:
                self.drop(transaction, found)
                self.create(transaction, table)
            elif found.route != "nowhere" or table.oid != found.oid or not same_server:
                self._compare_again(transaction, found, table, reason)

    def _compare_again(self, transaction: Transaction, found: Known, table: TableInfo, reason: str) -> None:
        now = known.of_other(found, table) if table.oid != found.oid else found
        change = self.anew(now, table, reason)
        if table.oid != found.oid:
            self._forget(transaction, found)
        self.begin_copy(transaction, found, change.known, change.schema, change.reason, table.description)

    def adopt_earlier(self, transaction: Transaction) -> int:
        """Records of the tables that topics of an earlier release hold, as they are now; returns how many."""
        topics = self.topics()
        for table in catalog.tables(self.connection, config=self.config):
            name = catalog.topic_name(self.source, table.namespace, table.name)
            if name in topics:
                found = known.unshaped(known.of_table(table, name))
                self._save(transaction, replace(found, shown=name, counted=self._counted(found)))
        return len(self.known)

    def begin_copy(
        self, transaction: Transaction, before: Known | None, now: Known, schema: Schema, reason: str, about: str
    ) -> None:
        """Send the table's changes to a new pending topic; readers keep the last good rows, as ``reshaping``."""
        now = replace(
            now,
            route="pending",
            copy=uuid.uuid4().hex,
            shown=before.shown if before else "",
            replaces=now.replaces or before is None or not before.shown or now.kind == "insert_only"
            or (before.replaces and before.route == "pending"),
            reason=reason,
            counted=self._counted(now),
        )  # fmt: skip
        if before is not None and before.route == "pending":
            self._drop_pending(transaction, before)
        transaction.create_topic(now.pending, now.kind, schema, source=self.source, description=about, hidden=True)
        if now.shown:
            topic = transaction.topic(now.shown)
            if now.where and topic is not None and topic.state == "incomplete":
                now = replace(now, lacking=topic.reason)
            where = f" (since {transaction.position or transaction.expected_position})"
            transaction.alter_topic(now.shown, state="reshaping", reason=f"{reason}; it is copied again{where}")
        self.begun = True
        _log.info("%s is copied%s", now.full_name, f": {reason}" if reason else "", extra={"topic": now.topic})
        self._save(transaction, now)

    def appear(self, transaction: Transaction, copied: Copied) -> None:
        """The copied rows and what came after them, in the commit from which on readers see the table."""
        now, topic = copied.known, copied.topic
        letters = [*copied.letters, *chain.from_iterable(self._refused(now))]
        pending = self.topics()[now.pending]
        if now.replaces:
            if now.shown:
                transaction.drop_topic(now.shown)
            transaction.create_topic(
                topic.name, topic.kind, topic.schema, partitions=topic.partitions, source=self.source,
                description=topic.description,
            )  # fmt: skip
        else:
            transaction.add_schema(now.shown, topic.schema)
            state = "incomplete" if now.lacking else "live"
            transaction.alter_topic(now.shown, state=state, reason=now.lacking)
        for piece in copied.pieces:
            transaction.adopt(piece)
        rows = self.log.read_changes(pending.name, copied.upto, self.log.newest_commit(), appended(pending).names)
        transaction.append(topic.name, rows)
        transaction.drop_topic(pending.name)
        adopted = {piece.name for piece in copied.pieces}
        left = [each.name for each in kept(self.log, f"copy:{now.copy}:") if each.name not in adopted]
        transaction.inside(lambda connection, _: release(connection, left, self.log.clock.now_us(), published=False))
        now = replace(now, route="topic", copy="", shown=topic.name, replaces=False, reason="", where="", lacking="")
        self._save(transaction, now)
        self.begun |= now.oid in self.stale
        self.stale.discard(now.oid)
        self.refuse(transaction, letters)

    def apply(self, transaction: Transaction, found: Known, change: Quiet) -> None:
        """A change that left the rows as they were."""
        topic = transaction.topic(found.shown)
        assert topic is not None
        if topic.schema != change.schema:
            transaction.add_schema(found.shown, change.schema)
            _log.info("new schema version of %s", found.shown, extra={"topic": found.shown})
        if topic.description != change.description:
            transaction.alter_topic(found.shown, description=change.description)
        self._save(transaction, change.known)

    def note_condition(self, transaction: Transaction, found: Known, where: str) -> None:
        """The table is published with this condition on its rows, as the server spells it."""
        self._save(transaction, replace(found, published=where))

    def leave(self, transaction: Transaction, found: Known, reason: str) -> None:
        """Capture no more of the table; readers keep the last good rows and are told why."""
        if found.route == "pending":
            self._drop_pending(transaction, found)
        if found.shown:
            transaction.alter_topic(found.shown, state="quarantined", reason=reason)
        _log.warning("%s is not captured any more: %s", found.full_name, reason, extra={"topic": found.topic})
        self._save(transaction, replace(found, route="nowhere", copy="", reason=reason))

    def drop(self, transaction: Transaction, found: Known) -> None:
        """The table is gone: so is its topic, from this commit on."""
        if found.route == "pending":
            self._drop_pending(transaction, found)
        if found.shown:
            transaction.drop_topic(found.shown)
        self._forget(transaction, found)

    def _forget(self, transaction: Transaction, found: Known) -> None:
        del self.known[found.oid]
        name = known.setting(self.source, found.oid)
        transaction.inside(lambda connection, _: put_setting(connection, name, None))

    def _counted(self, now: Known) -> int:
        return survey.counted(self.connection, [now.oid]).get(now.oid, 0) if now.kind == "insert_only" else -1

    def _drop_pending(self, transaction: Transaction, found: Known) -> None:
        if transaction.uncreate_topic(found.pending):
            return
        transaction.drop_topic(found.pending)
        names = [piece.name for piece in kept(self.log, f"copy:{found.copy}:")]
        now = self.log.clock.now_us()
        transaction.inside(lambda connection, _: release(connection, names, now, published=False))

    def _save(self, transaction: Transaction, now: Known) -> None:
        self.known[now.oid] = now
        name, body = known.setting(self.source, now.oid), now.to_json()
        transaction.inside(lambda connection, _: put_setting(connection, name, body))


def _goes_to(found: Known) -> str:
    return found.shown if found.route == "topic" else found.pending


def _as_announced(table: TableInfo, relation: Relation) -> TableInfo:
    """The table with the relation's columns only, when the catalog has those and more: it was added to since."""
    by_name = {(column.name, column.type_oid, column.modifier): column for column in table.columns}
    columns = [by_name.get((each.name, each.type_oid, each.modifier)) for each in relation.columns]
    found = tuple(column for column in columns if column is not None)
    numbers = [column.number for column in found]
    same = len(found) == len(relation.columns) and numbers == sorted(numbers)
    later = [column.number for column in table.columns if column not in found]
    ever = min(later, default=table.columns_ever + 1) - 1
    return (
        replace(table, columns=found, columns_ever=ever)
        if same and all(k in {c.name for c in found} for k in table.key)
        else table
    )
