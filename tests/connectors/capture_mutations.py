"""Ways to break capture, one at a time: ``HEADWATER_CAPTURE_MUTATION`` names one for a run of the tests.

Each takes away one mechanism of the real code; AttributeError when that is no longer there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from psycopg import sql

from headwater.log.staging import Staging
from headwater.testing.breaking import Mutations, wrap
from headwater_connectors.postgres import (
    announcement,
    catalog,
    chunks,
    columns,
    copy_stream,
    copying,
    event_trigger,
    gap,
    known,
    mark,
    pending,
    pool,
    publication,
    repair,
    rows,
    session,
    shape,
    slot,
    snapshot,
    standby,
    stream,
    streams,
    survey,
)
from headwater_connectors.postgres import tables as captured_tables
from headwater_connectors.postgres.capture import Capture
from headwater_connectors.postgres.copier import Copier
from headwater_connectors.postgres.copying import Copying
from headwater_connectors.postgres.decoder import Decoder
from headwater_connectors.postgres.difference import Difference
from headwater_connectors.postgres.pieces import Pieces
from headwater_connectors.postgres.receiver import Receiver
from headwater_connectors.postgres.tables import Tables
from headwater_connectors.postgres.tending import Tending
from headwater_connectors.postgres.transactions import HEADER, Chunk, Part, Pending
from headwater_connectors.postgres.walk import UNCHANGED

MUTATIONS = _mutation = Mutations("HEADWATER_CAPTURE_MUTATION")


# ---- the slot and the session


@_mutation
def never_acknowledged() -> None:
    wrap(Receiver, "acknowledge", lambda _real: lambda _self, _lsn: None)


@_mutation
def idle_not_acknowledged() -> None:
    wrap(Capture, "_idle", lambda _real: lambda _self, _opened, _lsn: None)


@_mutation
def acknowledged_when_received() -> None:
    def take(real: Any) -> Any:
        def eager(self: Receiver, *arguments: Any) -> Any:
            found = real(self, *arguments)
            self.acknowledge(self.received)
            return found

        return eager

    wrap(Receiver, "take", take)


@_mutation
def silence_is_borne() -> None:
    @contextmanager
    def patient(_connection: Any, _seconds: float) -> Iterator[None]:
        yield

    wrap(Receiver, "_listen", lambda _real: lambda _self, **_more: None)
    wrap(session, "within", lambda _real: patient)


@_mutation
def absent_servers_given_up() -> None:
    def begin(real: Any) -> Any:
        return lambda self, *arguments, **more: real(self, *arguments, **(more | {"waits": False}))

    wrap(Capture, "__init__", begin)


@_mutation
def status_only_with_commits() -> None:
    """The server hears from us when something became durable, not every second."""

    def reply(real: Any) -> Any:
        return lambda self: real(self) if self._acknowledged != self._reported else None

    wrap(Receiver, "_reply", reply)


@_mutation
def messages_in_libpq_not_looked_for() -> None:
    stream.LibpqStream.more = property(lambda _self: False, lambda _self, _more: None)  # type: ignore[assignment]


# ---- slots that are lost, servers that are others


@_mutation
def invalidated_slots_believed() -> None:
    wrap(slot, "Slot", lambda real: lambda **facts: real(**{**facts, "invalid": ""}))


@_mutation
def every_row_read_again_after_a_gap() -> None:
    wrap(copying, "differing", lambda _real: lambda here, there: sorted({*here, *there}))


@_mutation
def values_that_the_lake_cannot_hold_compared_as_null() -> None:
    wrap(copying, "Sums", lambda real: lambda **facts: real(**{**facts, "odd": False}))


@_mutation
def another_history_repaired_unasked() -> None:
    def given(real: Any) -> Any:
        return lambda config, log, found: real(config, log, replace(found, foreign=False) if found else None)

    wrap(repair, "wanted", given)


@_mutation
def nobody_ends_the_session_of_a_capture_that_stands_still() -> None:
    wrap(slot, "end_reader", lambda _real: lambda _connection, _source: None)


@_mutation
def slots_stay_behind_at_a_failover() -> None:
    wrap(slot, "can_fail_over", lambda _real: lambda _connection, _source: False)
    wrap(slot, "set_failover", lambda _real: lambda _connection, _replication, _source: None)


@_mutation
def branches_of_history_not_compared() -> None:
    wrap(gap, "_branch", lambda _real: lambda *_: 1 << 62)


@_mutation
def idle_positions_carried_over_to_another_server() -> None:
    wrap(gap, "follow", lambda _real: gap.remember_system)


@_mutation
def marks_not_read() -> None:
    wrap(mark, "is_older", lambda _real: lambda *_: False)


@_mutation
def settings_not_pinned() -> None:
    wrap(session, "_PINNED", lambda _real: {})


@_mutation
def no_streaming_of_transactions_in_progress() -> None:
    wrap(slot, "start_command", lambda real: lambda *a, **k: real(*a, **k).replace("streaming 'on'", "streaming 'off'"))


@_mutation
def rolled_back_parts_kept() -> None:
    """What a sub-transaction wrote stays, whether it is rolled back or not."""

    def abort(real: Any) -> Any:
        return lambda self, xid, part: real(self, xid, part) if part == xid else None

    wrap(streams.Streams, "_abort", abort)


@_mutation
def messages_of_rolled_back_parts_believed() -> None:
    """Nobody notices that a transaction in progress has both: its messages are taken for said."""
    streams._Spool.says = property(lambda _self: False, lambda _self, _says: None)  # type: ignore[assignment]


@_mutation
def origins_in_segments_kept() -> None:
    """An Origin message is taken for one with a transaction's id, as all others in a segment."""
    wrap(streams, "_ORIGIN", lambda _real: 0)


@_mutation
def each_transaction_committed_by_itself() -> None:
    def take(real: Any) -> Any:
        def first(self: Pending) -> list[Part]:
            chunks = [*real(self), *self._chunks]
            place = next(at for at, chunk in enumerate(chunks) if chunk.whole)
            whole = chunks[place].load()
            kinds = np.frombuffer(whole.data, np.uint8)[np.cumsum(whole.lengths) - whole.lengths + HEADER]
            head, tail = whole.split(int(np.flatnonzero(kinds == ord("C"))[0]) + 1)
            self._reset([])
            for rest in (Chunk.of(tail.data, tail.lengths), *chunks[place + 1 :]):
                if rest.messages:
                    self.add(rest)
            return [*chunks[:place], head]

        return first

    wrap(Pending, "take_whole", take)


# ---- rows


@_mutation
def old_keys_forgotten() -> None:
    """A row whose key changed is another row, and the one of the old key stays."""
    wrap(rows.Rows, "_key_changed", lambda _real: lambda self: np.zeros(len(self._second), np.bool_))


@_mutation
def unsent_values_not_taken_from_old_rows() -> None:
    def lacking(self: rows.Rows, number: int) -> Any:
        lacks = np.asarray(self._sent[number] == UNCHANGED)
        return lacks if lacks.any() else None

    wrap(rows.Rows, "_fill_from_old", lambda _real: lacking)


@_mutation
def tables_without_identity_believed_complete() -> None:
    wrap(survey, "_changed_without_identity", lambda _real: lambda _connection, _known: [])


@_mutation
def outbox_rows_ignored() -> None:
    wrap(captured_tables.Tables, "_outbox", lambda _real: lambda *_: None)


@_mutation
def unchanged_values_not_marked() -> None:
    wrap(rows.Rows, "_unchanged", lambda _real: lambda _self, _unchanged, _kept: {})


@_mutation
def exact_texts_dropped() -> None:
    wrap(rows, "raw", lambda _real: lambda *_arguments: {})
    wrap(chunks, "raw", lambda _real: lambda *_arguments: {})


@_mutation
def no_text_for_unknown_types() -> None:
    def strict(_real: Any) -> Any:
        def exact(oid: int, _types: Mapping[int, Any]) -> Any:
            raise TypeError(f"type {oid} is not supported")

        return exact

    wrap(columns, "_exact", strict)


@_mutation
def altered_composites_not_looked_for() -> None:
    wrap(Tables, "moved", lambda _real: lambda _self, _found: False)


@_mutation
def altered_composites_not_copied() -> None:
    wrap(shape, "_composed_anew", lambda _real: lambda _known, _table: "")


@_mutation
def rows_larger_than_the_buffer_refused() -> None:
    def receive(real: Any) -> Any:
        def bounded(self: copy_stream._Copy) -> None:
            if self._held == len(self._buffer):
                raise ValueError("a row is too large")
            real(self)
            if len(self._buffer) > copy_stream.BATCH_BYTES + (1 << 16):
                raise ValueError("a row is too large")

        return bounded

    wrap(copy_stream._Copy, "receive", receive)


@_mutation
def one_bad_row_stops_the_stream() -> None:
    def readable(self: Decoder, batch: Any, kinds: Any, context: Any, target: Any, places: Any) -> Iterator[Any]:
        found = rows.Rows(batch, kinds, target, places).table(context)
        if self.validates:
            found.validate(full=True)
        yield target.topic, found

    wrap(Decoder, "_readable", lambda _real: readable)


@_mutation
def one_bad_row_stops_the_copy() -> None:
    def readable(self: chunks.Reader, data: bytes, starts: Any, kinds: Any, validates: bool) -> Iterator[pa.Table]:
        found = self._records(data, starts, kinds)
        if validates:
            found.validate(full=True)
        yield found

    wrap(chunks.Reader, "_readable", lambda _real: readable)


@_mutation
def letters_of_the_copy_forgotten() -> None:
    """Rows of a copy that cannot be read are left out, and nobody says so."""
    wrap(copying, "refused", lambda _real: lambda _pieces: [])


@_mutation
def one_bad_table_stops_the_source() -> None:
    def quarantine(_self: Tending, error: Exception) -> None:
        raise error

    wrap(Tending, "quarantine", lambda _real: quarantine)


# ---- the copy


@_mutation
def chunks_read_again_after_a_crash() -> None:
    wrap(chunks, "left", lambda _real: lambda planned, _done: list(planned))


@_mutation
def chunks_on_record_before_they_are_read() -> None:
    def keep(real: Any) -> Any:
        def early(self: Pieces, reader: Any, chunk: Any, exported: str | None, only: Any) -> Any:
            if exported is None:
                with self.copier.connection() as connection:
                    seen = str(copying._snapshot(connection))
                facts = {"part": chunk.part, "low": chunk.low, "high": chunk.high, "snapshot": seen, "letters": []}
                Staging(self.copier.log).keep(self.name(f"chunk-{chunk.name}"), facts)
            return real(self, reader, chunk, exported, only)

        return early

    wrap(Pieces, "keep_chunk", keep)


@_mutation
def conditions_on_copies_ignored() -> None:
    wrap(Copying, "_selected", lambda _real: lambda self, reader, _selected: self._whole(reader))


@_mutation
def rows_that_only_the_lake_has_not_selected() -> None:
    def select(self: Difference, _condition: str, copied: Any, _commit: int) -> None:
        self._load("copied", copied)

    wrap(Difference, "select", lambda _real: select)


@_mutation
def changes_beside_a_range_forgotten() -> None:
    def touch(real: Any) -> Any:
        def none(self: pending.Pending, *arguments: Any) -> None:
            real(self, *arguments)
            self.connection.execute("DELETE FROM again")

        return none

    wrap(pending.Pending, "touch_all", touch)


@_mutation
def nothing_read_again() -> None:
    """K is empty: what changed between the chunks' snapshots and the last is believed to be in them."""

    def touch(real: Any) -> Any:
        def none(self: pending.Pending, *arguments: Any) -> int:
            real(self, *arguments)
            self.connection.execute("DELETE FROM again")
            return 0

        return none

    wrap(pending.Pending, "touch", touch)


@_mutation
def visible_because_older() -> None:
    """A transaction is believed to be in a snapshot because its id, or its place in the WAL, is older."""
    wrap(snapshot.Snapshot, "sees_sql", lambda _real: lambda self: f"(_xid < {self.xmax})")


@_mutation
def open_transactions_not_awaited() -> None:
    wrap(copying.Copying, "_await_writers", lambda _real: lambda _self, _connection, **_more: None)


@_mutation
def changes_after_the_copy_forgotten() -> None:
    wrap(pending.Pending, "tail", lambda _real: lambda _self, _final: iter(()))


@_mutation
def another_file_not_noticed() -> None:
    """The table is believed to be the planned one, whatever its file and its columns are by now."""
    wrap(known, "is_still", lambda _real: lambda _known, _table: True)
    wrap(chunks, "is_still", lambda _real: lambda _known, _table: True)


@_mutation
def rewritten_rows_not_copied() -> None:
    wrap(shape, "_rewritten", lambda _real: lambda _known, _table: "")
    wrap(shape, "_retyped", lambda _real: lambda *_arguments: (frozenset(), ""))


@_mutation
def truncates_forgotten() -> None:
    wrap(Decoder, "_truncates", lambda _real: lambda *_arguments: iter(()))


@_mutation
def odd_keys_believed() -> None:
    """Keys that no value of the log's type holds are NULL, all of them."""
    wrap(rows, "refuse_odd_keys", lambda _real: lambda _columns: None)
    wrap(chunks, "refuse_odd_keys", lambda _real: lambda _columns: None)


# ---- the copy from a standby


def _believed(primarys: bool) -> None:
    """A snapshot of one of the servers says what rows that were read under a slot's hold."""

    def slot_of(real: Any) -> Any:
        @contextmanager
        def believed(self: Copier, there: Any) -> Iterator[Any]:
            with real(self, there) as (_, name), self.connection() as primary:
                asked = primary if primarys else there
                [(text,)] = asked.execute("SELECT pg_current_snapshot()::text").fetchall()
                yield snapshot.Snapshot.parse(text), name

        return believed

    wrap(Copier, "slot", slot_of)


@_mutation
def standbys_snapshots_believed() -> None:
    _believed(primarys=False)


@_mutation
def primarys_snapshots_believed() -> None:
    _believed(primarys=True)


@_mutation
def commits_at_the_point_seen() -> None:
    wrap(snapshot.Point, "sees_sql", lambda _real: lambda self: f"(_lsn <= {self.lsn})")


@_mutation
def standby_not_waited_for() -> None:
    wrap(standby, "_await_replay", lambda _real: lambda *_: None)


@_mutation
def lost_snapshots_replaced() -> None:
    """Who finds the snapshot gone reads on under a new one."""

    def use(real: Any) -> Any:
        def replaced(connection: Any, name: str) -> None:
            try:
                real(connection, name)
            except snapshot.SnapshotLost:
                connection.execute("ROLLBACK")
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

        return replaced

    wrap(chunks, "use", use)


@_mutation
def standby_never_given_up() -> None:
    wrap(copying, "STANDBY_SNAPSHOTS_MAX", lambda _real: 10**6)


@_mutation
def feedback_not_asked_for() -> None:
    wrap(standby, "check_feedback", lambda _real: lambda *_: None)


# ---- the application


@_mutation
def nobody_gives_way() -> None:
    wrap(pool, "WAITED_MS", lambda _real: 10**6)


@_mutation
def only_table_locks_give_way() -> None:
    """Who waits for our transaction's end, as an index build does, waits."""
    wrap(pool, "_WAITING", lambda real: real.replace("NOT w.granted", "NOT w.granted AND w.locktype = 'relation'"))


@_mutation
def waits_for_locks_without_end() -> None:
    wrap(session, "_LOCK_TIMEOUT", lambda _real: "0")


@_mutation
def survey_locks_tables() -> None:
    def measured(real: Any) -> Any:
        return lambda *a, **k: real(*a, **{**k, "measured": True})

    wrap(catalog, "tables", measured)


@_mutation
def heirs_published_with_their_parent() -> None:
    wrap(
        publication,
        "_table",
        lambda _real: lambda table: sql.Identifier(table.namespace, table.name),
    )


@_mutation
def every_table_in_one_publication() -> None:
    """Tables without a usable identity are published with their updates, too."""

    def tables(real: Any) -> Any:
        def identified(*arguments: Any, **more: Any) -> Sequence[Any]:
            found: Sequence[Any] = real(*arguments, **more)
            for table in found:
                object.__setattr__(table, "has_identity", True)
            return found

        return identified

    wrap(catalog, "tables", tables)


@_mutation
def generated_identities_believed() -> None:
    """As every_table_in_one_publication, but of those only whose identity holds a generated column."""
    wrap(catalog, "_TABLES", lambda real: real.replace("a.attgenerated <> ''", "false"))


# ---- what event triggers say


@_mutation
def event_triggers_not_heard() -> None:
    wrap(announcement, "follow", lambda _real: lambda _tables, _said, _transaction: set())


@_mutation
def nothing_between_ddl_and_the_next_row() -> None:
    last = "PERFORM pg_logical_emit_message(true, 'headwater.end', '');"
    wrap(event_trigger, "_TELL", lambda real: real.replace(last, ""))


@_mutation
def columns_altered_twice_believed() -> None:
    wrap(announcement, "_uncertain", lambda _real: lambda found, _xid: found)


@_mutation
def tables_without_identity_left_where_they_are() -> None:
    wrap(event_trigger, "_TELL", lambda real: real.replace("EXECUTE format('ALTER", "PERFORM format('ALTER"))


@_mutation
def errors_of_event_triggers_not_caught() -> None:
    wrap(event_trigger, "_CHANGED", lambda real: real.replace("WHEN OTHERS", "WHEN division_by_zero"))


@_mutation
def old_snapshots_believed() -> None:
    wrap(event_trigger, "_TELL", lambda real: real.replace("IN ('repeatable read', 'serializable')", "= ''"))
