"""Tables that come, change and go beside the stream: one session's care for them, between the stream's commits.

survey (the server's catalog) ──▶ new tables, tables written anew ──▶ pending, copier ──▶ appear
                             └──▶ dropped tables, changes that left the rows: once the stream has passed them
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from headwater import logs
from headwater.config import SourceConfig
from headwater.errors import HeadwaterError, SourceUnreachable, StorageError
from headwater.log import Log
from headwater.log.transaction import Transaction
from headwater_connectors.postgres import catalog, mark, requests, session, survey
from headwater_connectors.postgres import known as known_tables
from headwater_connectors.postgres.catalog import TableInfo
from headwater_connectors.postgres.chunks import TableMoved
from headwater_connectors.postgres.copier import Copier
from headwater_connectors.postgres.copying import Copied
from headwater_connectors.postgres.decoder import Decoder
from headwater_connectors.postgres.known import Known, is_still
from headwater_connectors.postgres.rows import TableUnreadable
from headwater_connectors.postgres.shape import Quiet, Rewritten, compare
from headwater_connectors.postgres.slot import Health
from headwater_connectors.postgres.source import owner_name
from headwater_connectors.postgres.tables import Tables

SURVEY_SECONDS = 10.0
"""How often the server's catalog is looked at: the time in which law 9's exception can last, and DDL without DML
goes unseen."""
ASK_SECONDS = 0.5
"""How often it is looked whether somebody asked for a copy."""
PUBLISH_SECONDS = 0.5
"""A table that was just published, or was locked when it should have been, is looked at again so soon."""

LEFT_OUT_MAX = 20
"""Tables that the status names with the reason why they are not captured."""

_log = logs.logger("capture")


class RepairAsked(Exception):
    """The session has to begin anew, with another slot."""


class Tending:
    """Everything is done in the capture's thread; ``copier`` has threads of its own."""

    def __init__(
        self, source: SourceConfig, log: Log, epoch: int, tables: Tables, copier: Copier, decoder: Decoder
    ) -> None:
        self._source = source
        self._log = log
        self._epoch = epoch
        self._decoder = decoder
        self.tables = tables
        self.copier = copier
        self._surveyed: survey.Survey | None = None  # until the stream has passed its moment
        self.slot: Health = {}
        self._marked_at = time.monotonic()
        self._left_out: dict[str, str] = {}
        self._surveyed_at = 0.0
        self._asked_at = 0.0

    @property
    def copying(self) -> int:
        """How many tables have not appeared yet, or again; -1 before the server was asked."""
        pending = sum(known.route == "pending" for known in self.tables.known.values())
        return pending if self._surveyed_at > 0 else -1

    @property
    def left_out(self) -> str:
        """What the project names and is not captured, each with its reason: the first of them, and how many more."""
        left = {known.full_name: known.reason for known in self.tables.known.values() if known.route == "nowhere"}
        said = [f"{name}: {why}" for name, why in sorted({**self._left_out, **left}.items())]
        more = [f"and {len(said) - LEFT_OUT_MAX} more"] if len(said) > LEFT_OUT_MAX else []
        return "; ".join([*said[:LEFT_OUT_MAX], *more])

    @property
    def settled(self) -> bool:
        """Whether nothing found is left to be done."""
        return self._surveyed_at > 0 and self._surveyed is None and self.tables.settled(self.copier)

    @property
    def awaited(self) -> int:
        """The LSN that a copy or a finding waits for the stream to pass."""
        return max(self.copier.awaited, self._surveyed.end if self._surveyed is not None else 0)

    def look_after(self, reached: int) -> None:
        """Tables that come, change and go; only between commits, and when nothing of a transaction was appended."""
        self.copier.reached(reached)
        outcomes = list(self.copier.outcomes())
        if outcomes:
            self._copied(outcomes)
        now = time.monotonic()
        if now - self._asked_at >= ASK_SECONDS:
            self._asked_at = now
            self._requests()
        if self.tables.begun or now - self._surveyed_at >= SURVEY_SECONDS:
            self._surveyed_at, self.tables.begun = now, False
            with session.within(self.tables.connection, self._source.silence_s):
                self._surveyed = survey.look(self._source, self.tables.connection, self.tables.known)
            self._left_out = self._surveyed.left_out
            self._look_at_slot(self._surveyed.slot)
            self._act(self._surveyed)
        if self._surveyed is not None and reached >= self._surveyed.end:
            found, self._surveyed = self._surveyed, None
            self._settle(found)

    def _look_at_slot(self, found: Health) -> None:
        said = found.get("slot_warning")
        if said and said != self.slot.get("slot_warning"):
            _log.warning("%s", said)
        self.slot = found
        if time.monotonic() - self._marked_at >= mark.PERIOD_SECONDS:
            self._marked_at = time.monotonic()
            mark.leave(self._log, self._source.name, self.tables.connection)

    def _requests(self) -> None:
        """Copies that somebody asked for, also of tables that were left."""
        if requests.repair_asked(self._log, self._source.name):
            raise RepairAsked
        asked = requests.asked(self._log, self._source.name)
        if not asked:
            return
        found = {known.full_name: known for known in self.tables.known.values()}
        with self._change() as transaction:
            for name in sorted(set(asked) & set(found)):
                table = self.tables.look(found[name].oid)
                if table is not None and not table.outbox:
                    change = self.tables.anew(found[name], table, "a copy was asked for")
                    now, where = change.known, asked[name]
                    if where and requests.can_select(found[name]) and is_still(found[name], table):
                        now = replace(now, where=where)
                    self.tables.begin_copy(
                        transaction, found[name], now, change.schema, change.reason, table.description
                    )
            transaction.inside(lambda connection, _: requests.done(connection, self._source.name, asked))

    def _outboxes(self, found: survey.Survey) -> None:
        """Tables that the project calls an outbox now, or no more: taken in anew as what they are."""
        tables = self.tables
        other = [
            (known, found.tables[oid])
            for oid, known in tables.known.items()
            if oid in found.tables and (known.route == "outbox") != found.tables[oid].outbox
        ]
        if other:
            with self._change() as transaction:
                for known, table in other:
                    tables.drop(transaction, known)
                    tables.create(transaction, table)

    def _act(self, found: survey.Survey) -> None:
        """What need not wait for the stream: new tables, tables written anew, copies that may begin."""
        tables = self.tables
        self._outboxes(found)
        rewritten = [(known, change) for known, change in self._changes(found) if isinstance(change, Rewritten)]
        lost = [
            (known, tables.anew(known, found.tables[oid], "it was taken out of the publication"))
            for oid, known in tables.known.items()
            if known.route == "topic" and oid in found.tables and oid not in found.published
        ]
        changes = {known.oid: (known, change) for known, change in [*lost, *rewritten]}
        if found.new or changes or found.incomplete:
            with self._change() as transaction:
                for table in found.new:
                    tables.create(transaction, table)
                for known, change in changes.values():
                    about = found.tables[known.oid].description
                    tables.begin_copy(transaction, known, change.known, change.schema, change.reason, about)
                for oid in found.incomplete:
                    tables.mark_incomplete(transaction, tables.known[oid], survey.ROWS_CHANGED)
        wanted = {oid for oid, known in tables.known.items() if known.route != "nowhere" and oid in found.tables}
        if wanted - found.published:
            self._publish([found.tables[oid] for oid in sorted(wanted - found.published)])
        for oid, known in tables.known.items():
            if known.route == "pending" and oid in found.published:
                tables.start_copy(self.copier, known)

    def _publish(self, unpublished: list[TableInfo]) -> None:
        """Have tables published and look again soon; those that cannot be are left, with the reason."""
        tables = self.tables
        found = survey.publish(self.tables.connection, self._source.name, unpublished)
        where = {oid: text for oid, text in found.where.items() if text}
        if found.refused or where:
            with self._change() as transaction:
                for oid, reason in found.refused.items():
                    tables.leave(transaction, tables.known[oid], reason)
                for oid, text in where.items():
                    tables.note_condition(transaction, tables.known[oid], text)
        if len(found.refused) < len(unpublished):
            self._surveyed_at = time.monotonic() - SURVEY_SECONDS + PUBLISH_SECONDS

    def _changes(self, found: survey.Survey) -> Iterator[tuple[Known, Quiet | Rewritten]]:
        tables, topics = self.tables, self.tables.topics()
        tables.types = catalog.known_types(self.tables.connection)
        for oid, known in list(tables.known.items()):
            if known.route == "topic" and oid in found.tables:
                change = compare(known, found.tables[oid], topics[known.shown], tables.types)
                if change is not None:
                    yield known, change

    def _settle(self, found: survey.Survey) -> None:
        """What the stream had to pass first: tables that are gone, and changes that left the rows as they were."""
        same = {oid for oid, known in self.tables.known.items() if found.known.get(oid) is known}
        if len(same) < len(self.tables.known):  # what the stream said since may not be all that was found
            self.tables.begun = True
        gone = [self.tables.known[oid] for oid in same if oid not in found.tables]
        changes = [(known, change) for known, change in self._changes(found) if known.oid in same]
        quiet = [(known, change) for known, change in changes if isinstance(change, Quiet)]
        if gone or quiet:
            with self._change() as transaction:
                for known in gone:
                    self.tables.drop(transaction, known)
                for known, change in quiet:
                    self.tables.apply(transaction, known, change)

    def _copied(self, outcomes: list[tuple[Known, Copied | TableMoved | HeadwaterError]]) -> None:
        """Copied tables appear, all of them in one commit; the others are looked at anew, or left."""
        known = self.tables.known
        outcomes = [(was, outcome) for was, outcome in outcomes if was.oid in known and known[was.oid].copy == was.copy]
        outcomes = [(was, self._as_planned(outcome)) for was, outcome in outcomes]
        copied = [outcome for _, outcome in outcomes if isinstance(outcome, Copied)]
        if copied:
            with self._change() as transaction:
                for each in copied:
                    self.tables.appear(transaction, each)
        for was, outcome in outcomes:
            if isinstance(outcome, TableMoved):
                _log.info("%s; it is copied anew", outcome, extra={"topic": was.topic})
                self._moved(known[was.oid])
            elif isinstance(outcome, SourceUnreachable | StorageError):
                raise outcome
            elif isinstance(outcome, HeadwaterError):
                with self._change() as transaction:
                    self.tables.leave(transaction, known[was.oid], str(outcome))

    def _as_planned(self, outcome: Copied | TableMoved | HeadwaterError) -> Copied | TableMoved | HeadwaterError:
        """Rows that were read while a composite type was altered may have any of its shapes."""
        if isinstance(outcome, Copied) and self.tables.moved(outcome.known):
            return TableMoved(f"a type of {outcome.known.full_name} changed while it was copied")
        return outcome

    def _moved(self, known: Known) -> None:
        table = self.tables.look(known.oid)
        if table is not None:
            with self._change() as transaction:
                change = self.tables.anew(known, table, known.reason or "it changed while it was copied")
                self.tables.begin_copy(
                    transaction, known, change.known, change.schema, change.reason, table.description
                )

    def quarantine(self, error: TableUnreadable) -> None:
        """One table is left; the next session goes on with the others from the same position."""
        name = owner_name(self._source.name)
        expected = self._log.producer(name).position
        known = known_tables.load(self._log, self._source.name)[int(str(error.facts["oid"]))]
        with self._log.transaction(producer=name, epoch=self._epoch, expected_position=expected) as transaction:
            self.tables.leave(transaction, known, str(error))
            transaction.commit()

    @contextmanager
    def _change(self) -> Iterator[Transaction]:
        """A commit of its own between those of the stream; relations are understood anew afterwards."""
        name = owner_name(self._source.name)
        expected = self._log.producer(name).position
        with self._log.transaction(producer=name, epoch=self._epoch, expected_position=expected) as transaction:
            yield transaction
            transaction.commit()
        self._decoder.retarget(self.tables.target)
