"""The capture loop of one source: receive, cut at transactions, decode, commit, acknowledge.

    Receiver (thread) ──chunks──▶ Pending ──whole transactions──▶ Decoder ──tables──▶ log transaction
          ▲                                                          ▲                    │ durable
          │                                                Tables: what a relation means  │
          └───────────────────────── acknowledge(end LSN) ◀───────────────────────────────┘
    Copier (threads) ──copied tables──▶ one log transaction each, between those of the stream

A commit holds whole source transactions and their end LSN as its position; the server hears that LSN only
afterwards. On any error the session is thrown away with everything not yet durable, and the next one begins at
the stored position: nothing is lost, nothing comes twice.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    stop_never,
    wait_random_exponential,
)

from headwater import logs
from headwater.config import Settings, SourceConfig
from headwater.errors import (
    DuplicateName,
    HeadwaterError,
    PublicationMissing,
    SchemaError,
    SlotInUse,
    SourceGap,
    SourceUnreachable,
    TopicChanged,
)
from headwater.log import Log
from headwater.log.demand import Demand
from headwater.log.transaction import Transaction
from headwater.ownership import own
from headwater_connectors.postgres import announcement, catalog, requests, session
from headwater_connectors.postgres.beat import Beat
from headwater_connectors.postgres.copying import Stopped
from headwater_connectors.postgres.decoder import Decoder
from headwater_connectors.postgres.events import Events
from headwater_connectors.postgres.messages import Ignored
from headwater_connectors.postgres.opening import Opening, Session
from headwater_connectors.postgres.printing import TextNeeded
from headwater_connectors.postgres.receiver import ServerSilent
from headwater_connectors.postgres.relation import Relation, Target
from headwater_connectors.postgres.rows import TableUnreadable
from headwater_connectors.postgres.source import owner_name
from headwater_connectors.postgres.streams import Unattributed
from headwater_connectors.postgres.tables import Tables
from headwater_connectors.postgres.tending import RepairAsked
from headwater_connectors.postgres.transactions import Chunk, Part, Pending, pieces

TAKE_SECONDS = 0.2
"""The longest wait for messages; between waits the loop looks at the stop flag and beats."""
ASK_SECONDS = 0.02
"""... or, while somebody waits for a position, asks the server again."""
LINGER_SECONDS_MAX = 0.05
"""More than ten commits a second as long as they are small ..."""
BUSY_ROWS = 5_000
BUSY_LINGER_SECONDS_MAX = 0.25
"""... and fewer, larger ones once a commit has so many rows: what it costs is then spread over more of them."""
ASKED_SECONDS = 1.0
ASKED_LINGER_SECONDS_MAX = 0.15
"""Who asked for a commit (``log.demand``) so short a time ago will ask again when he can take the next one in: until
then, but not longer, rows are gathered for it ..."""
ASKED_LOOK_SECONDS = 0.002
"""... and this often is looked whether he has."""
IDLE_SECONDS = 10.0
IDLE_BYTES = 16 << 20
"""An idle position is stored, and then acknowledged, at most this often, or when so much WAL waits on it ..."""
IDLE_AFTER_COMMIT_SECONDS = 1.0
"""... but soon after a commit, so that whoever waits for the source's end sees it reached."""
DECODE_BYTES = 4 << 20
"""Decoded at a time: some 20,000 rows, whose positions stay in the processor's cache from one column to the next."""
DECODE_NICENESS = 10
"""Large pieces are decoded in a thread that gives way to the receiver and to a server on the same cores: of a backlog,
what was received can wait, but a unix socket is full a millisecond after the receiver should have run, and then the
server sleeps. On two cores the server slept 310 to 430 times instead of 630 and a million and a half changes came
5 to 8 % faster (means of five). Small ones are live: somebody waits, and on busy cores it gets a tenth of one."""
SLOT_WAIT_SECONDS = 15.0
"""How long a slot held by another process is waited for: a dead peer of ours lets go within it."""
SILENCE_SECONDS_MAX = 600.0
"""The longest patience with a silent server, reached by doubling ``silence_s`` after each session without a commit."""
RECONNECT_SECONDS_MAX = 300.0
"""A capture that nobody supervises gives up after so long without the server."""
REPAIR_ASK_SECONDS = 0.5
"""How often a capture that waits for a repair looks whether somebody asked for it."""
GAP_LOOK_SECONDS = 30.0
"""... and how often whether the server has everything again: the address may have led to another one for a while."""

NOTHING_WRONG: dict[str, str | float] = {"error": "", "mended_by": "", "away_s": 0.0}
"""In the status, over what was said before."""

_log = logs.logger("capture")


class Capture:
    """One source, run by the process that owns it. ``stop`` ends ``run`` at the next transaction boundary.

    ``waits``: instead of raising it stays and says so where changes are missing, until a repair is asked for, and where
    the server it has read from is away, however long.
    """

    def __init__(
        self, source: SourceConfig, settings: Settings, log: Log, stop: threading.Event, *, waits: bool = False
    ) -> None:
        self.source = source
        self.settings = settings
        self.log = log
        self.stop = stop
        self._beat = Beat(log, owner_name(source.name))
        self._events = Events(log, source.name)
        self._ignored = Ignored()
        self._transaction: Transaction | None = None
        self._commit_seconds = 0.0
        self._commit_rows = 0
        self._demand = Demand(log.folder)
        self._answered = self._demand.asked
        self._until: int | None = None
        self._waits = waits
        self._gap = ""

    def run(self, *, until: int | None = None) -> None:
        """Capture until ``stop`` is set, or until everything before the LSN ``until`` is durable.

        Raises what a person has to mend; SourceUnreachable, unless it waits, when the server stays away, or is away at
        the start.
        """
        self._until = until
        self._beat.answered = self._waits and self.log.producer(owner_name(self.source.name)).position is not None
        worker = ThreadPoolExecutor(1, "decode", initializer=os.nice, initargs=(DECODE_NICENESS,))
        with worker as self._worker, own(self.log, owner_name(self.source.name)) as owner:
            self._opening = Opening(
                self.source, self.log, owner.epoch, self._ignored, self._resolve, self._follow, self.source.silence_s
            )
            try:
                self._sessions()
            except HeadwaterError as error:
                self._beat.failed(error)
                raise
            except Stopped:
                _log.info("stopped; what was not yet durable will be sent again")
            self._beat.now(state="stopped")

    def _sessions(self) -> None:
        """One session after the other; a broken one is followed by the next with backoff."""
        retry = Retrying(
            retry=retry_if_exception_type((SourceUnreachable, SlotInUse)),
            wait=wait_random_exponential(multiplier=0.2, max=10),
            stop=stop_never if self._waits else stop_after_delay(RECONNECT_SECONDS_MAX),
            sleep=self._sleep,
            before_sleep=self._log_retry,
            reraise=True,
        )
        ended = False
        while not (ended or self.stop.is_set()):
            try:
                ended = self._one_session(retry)
            except (SourceGap, PublicationMissing) as error:
                if not self._waits:
                    raise
                self._await_repair(error)

    def _one_session(self, retry: Retrying) -> bool:
        """Whether there is nothing more to do; if not, another session has to follow."""
        with self._open(retry) as opened:
            try:
                self._translated(opened)
                return True
            except SourceUnreachable as error:
                if isinstance(error, ServerSilent):  # it may be busy with one huge transaction: be more patient
                    self._opening.silence_s = min(2 * self._opening.silence_s, SILENCE_SECONDS_MAX)
                self._beat.failed(error)
                _log.warning("%s; reconnecting", error)
            except (TopicChanged, DuplicateName) as error:  # of an event topic, by somebody else
                _log.info("%s; reconnecting", error)
            except Unattributed:
                self._opening.streaming = False
                _log.info("a transaction with messages was rolled back in part; reconnecting to have it sent whole")
            except TableUnreadable as error:
                opened.tending.quarantine(error)
            except RepairAsked:
                _log.info("a repair was asked for; beginning anew")
            except TextNeeded:
                if self.source.mode == "binary":
                    raise
                self._opening.only_text = True
                _log.info("a type came that is read as text; reconnecting in text mode")
        return False

    def _await_repair(self, error: HeadwaterError) -> None:
        """Until somebody asks for a repair, or it is time to see whether one is still needed. Raises Stopped."""
        if str(error) != self._gap:
            self._gap = str(error)
            _log.error("%s", error)
        until = time.monotonic() + GAP_LOOK_SECONDS
        while time.monotonic() < until and not requests.repair_asked(self.log, self.source.name):
            self._beat.waiting(error, f"headwater source repair {self.source.name}")
            self._sleep(REPAIR_ASK_SECONDS)

    def _translated(self, opened: Session) -> None:
        try:
            self._stream(opened)
        except psycopg.Error as error:  # of the ordinary connection, whoever used it
            raise session.translate(error, self.source.name) from error

    @contextmanager
    def _open(self, retry: Retrying) -> Iterator[Session]:
        attempt = retry if self._beat.answered else Retrying(
            retry=retry_if_exception_type(SlotInUse),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            stop=stop_after_delay(SLOT_WAIT_SECONDS),
            sleep=self._sleep,
            reraise=True,
        )  # fmt: skip
        opened: Session = attempt(self._opening.connect)
        self._beat.now(state="streaming", copying=-1, copy="", **NOTHING_WRONG)
        self._gap = ""
        try:
            yield opened
        finally:
            opened.close()

    # ---- streaming

    def _stream(self, opened: Session) -> None:
        """Take, commit at transaction boundaries, look after the rest; returns when there is nothing more to do."""
        pending, deadline = opened.pending, 0.0
        while not self._done(opened):
            wait = ASKED_LOOK_SECONDS if pending.whole and self._is_followed() else TAKE_SECONDS
            if pending.whole:
                wait = min(wait, max(0.0, deadline - time.monotonic()))
            if self._awaited(opened) > opened.reached and not pending.messages:
                opened.receiver.ask()
                wait = min(wait, ASK_SECONDS)
            was_whole = pending.whole
            # Once a commit is due anyway, nothing wakes this loop but enough bytes for a full one, or who asks for it.
            enough = max(1, self.settings.commit_bytes_max - pending.size) if pending.whole else 1
            self._take(opened, wait, enough)
            now = time.monotonic()
            if pending.whole and not was_whole:
                deadline = now + self._linger()
            last = self._until is not None and opened.idle >= self._until  # nothing more is waited for
            due = pending.whole and (now >= deadline or last or self._demand.asked != self._answered)
            if due or self._full(pending):
                self._commit(opened)
            elif opened.idle > opened.confirmed and not pending.messages:
                self._idle(opened, opened.idle)
            self._report(opened)
            opened.tending.look_after(opened.reached)
        if pending.whole and self._until is None:
            self._commit(opened)

    def _take(self, opened: Session, wait: float, enough: int = 1) -> None:
        """Move what was received to pending."""
        for chunk in opened.receiver.take(wait, enough):
            if isinstance(chunk, Chunk):
                for each in opened.streams.sort(chunk):
                    opened.pending.add(each)
                opened.idle = 0
            else:
                opened.idle = chunk.end_lsn

    def _awaited(self, opened: Session) -> int:
        """The LSN that somebody waits for the stream to pass."""
        return max(self._until or 0, opened.tending.awaited)

    def _full(self, pending: Pending) -> bool:
        return pending.size >= self.settings.commit_bytes_max or pending.messages >= self.settings.commit_rows_max

    def _linger(self) -> float:
        """Longer when commits are slow: a commit then costs at most about a third of the time."""
        most = BUSY_LINGER_SECONDS_MAX if self._commit_rows >= BUSY_ROWS else LINGER_SECONDS_MAX
        usual = max(self.settings.linger_ms / 1000, min(2 * self._commit_seconds, most))
        return max(usual, ASKED_LINGER_SECONDS_MAX) if self._is_followed() else usual

    def _is_followed(self) -> bool:
        """Whether somebody takes in one commit after the other; a time to come is of before the machine's start."""
        return 0 <= time.monotonic_ns() - self._demand.asked < ASKED_SECONDS * 1e9

    def _commit(self, opened: Session) -> None:
        """One log commit of every whole transaction pending; of a larger one piece by piece until its end."""
        started, self._answered = time.monotonic(), self._demand.asked
        decoder, pending = opened.decoder, opened.pending
        name = owner_name(self.source.name)
        expected = self.log.producer(name).position
        with self.log.transaction(producer=name, epoch=self._opening.epoch, expected_position=expected) as transaction:
            self._transaction = transaction
            self._events.begin()
            while not pending.whole:
                self._append(decoder, pending.take_all())
                while not pending.whole and not self._full(pending):
                    self._take(opened, TAKE_SECONDS)
                    self._report(opened)
                    if self.stop.is_set():
                        raise Stopped
            self._append(decoder, pending.take_whole())
            self._refuse(opened, transaction)
            transaction.position = catalog.format_lsn(decoder.position)
            info = transaction.commit()
        self._opening.silence_s = self.source.silence_s
        self._events.committed()
        opened.receiver.acknowledge(decoder.position)
        opened.confirmed = max(opened.confirmed, decoder.position)
        self._commit_seconds, self._commit_rows = time.monotonic() - started, info.rows or 0
        self._demand.answered(ASKED_LOOK_SECONDS + self._commit_seconds)
        self._beat.committed(info.rows or 0, decoder.committed_at)
        _log.debug("committed", extra={"commit": info.number, "lsn": info.position, "rows": info.rows})

    def _refuse(self, opened: Session, transaction: Transaction) -> None:
        """Rows that could not be decoded, with the commit that would have held them."""
        letters, opened.decoder.letters = opened.decoder.letters, []
        if letters:
            opened.tending.tables.refuse(transaction, letters)

    def _append(self, decoder: Decoder, chunks: list[Part]) -> None:
        for piece in pieces(chunks, DECODE_BYTES):
            if sum(chunk.size for chunk in piece) < DECODE_BYTES:
                self._decode(decoder, piece)
            else:
                self._worker.submit(self._decode, decoder, piece).result()

    def _decode(self, decoder: Decoder, chunks: list[Part]) -> None:
        assert self._transaction is not None
        for topic, rows in decoder.decode([chunk.load() for chunk in chunks]):
            try:
                self._transaction.append(topic, rows)
            except SchemaError as error:
                raise decoder.unreadable(topic, str(error)) from error
        events, decoder.events = decoder.events, []
        for arrived in events:
            self._events.write(self._transaction, arrived)

    def _resolve(self, tables: Tables, relation: Relation) -> Target | None:
        assert self._transaction is not None
        return tables.resolve(relation, self._transaction)

    def _follow(self, tables: Tables, said: bytes) -> set[int]:
        assert self._transaction is not None
        return announcement.follow(tables, said, self._transaction)

    # ---- beside the stream

    def _idle(self, opened: Session, lsn: int) -> None:
        """Nothing received is undurable: store the server's position, then acknowledge it."""
        after_commit = opened.confirmed == opened.decoder.position
        pause = IDLE_AFTER_COMMIT_SECONDS if after_commit else IDLE_SECONDS
        waited_for = self._until is not None and lsn >= self._until
        due = time.monotonic() - opened.confirmed_at >= pause or lsn - opened.confirmed >= IDLE_BYTES
        if not (due or waited_for):
            return
        self.log.set_confirmed(owner_name(self.source.name), catalog.format_lsn(lsn))
        opened.confirmed, opened.confirmed_at = lsn, time.monotonic()
        opened.receiver.acknowledge(lsn)

    def _report(self, opened: Session) -> None:
        if not self._beat.due:
            return
        receiver, tending = opened.receiver, opened.tending
        self._beat.streaming(
            receiver.received,
            opened.confirmed,
            receiver.server,
            behind=opened.pending.messages > 0,
            copying=tending.copying,
            note=", ".join(map(str, tending.copier.progress())),
            slot=tending.slot,
            left_out=tending.left_out,
            events=self._events.written,
            refused_events=self._events.refused,
            ignored_messages=str(self._ignored),
        )

    def _done(self, opened: Session) -> bool:
        caught_up = self._until is not None and opened.confirmed >= self._until
        return self.stop.is_set() or (caught_up and opened.tending.settled)

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Stopped

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, HeadwaterError):
            self._beat.failed(error, away_s=round(state.seconds_since_start or 0.0, 1))
        often = state.attempt_number & (state.attempt_number - 1)  # more and more seldom: a server may be away for days
        _log.log(logging.DEBUG if often else logging.WARNING, "%s; trying again", error)
