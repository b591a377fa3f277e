"""Opening a session with the server: from which position, after which gap, in which mode, and what belongs to it alone.

position stored ──▶ gap? ──▶ go on there, or repair      none stored ──▶ begin: publications, slot, pending topics
                                 └──────────── start the stream ────────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import psycopg
from psycopg.pq.abc import PGconn

from headwater import logs
from headwater.config import SourceConfig
from headwater.log import Log
from headwater_connectors.postgres import (
    catalog,
    event_trigger,
    gap,
    mark,
    publication,
    repair,
    session,
    slot,
    standby,
    stream,
)
from headwater_connectors.postgres.batch import TRANSACTIONS
from headwater_connectors.postgres.copier import Copier
from headwater_connectors.postgres.decoder import Decoder
from headwater_connectors.postgres.gap import Gap
from headwater_connectors.postgres.messages import Ignored
from headwater_connectors.postgres.receiver import Receiver
from headwater_connectors.postgres.relation import Relation, Target
from headwater_connectors.postgres.source import begin, owner_name, require_mode, transactions_topic
from headwater_connectors.postgres.streams import Streams
from headwater_connectors.postgres.tables import Tables
from headwater_connectors.postgres.tending import Tending
from headwater_connectors.postgres.transactions import Pending

_log = logs.logger("capture")


@dataclass
class Session:
    """One replication session and what belongs to it alone."""

    connection: session.Connection
    receiver: Receiver
    decoder: Decoder
    tending: Tending
    streams: Streams
    confirmed: int
    """The LSN that was acknowledged last: everything before it is durable."""
    confirmed_at: float = 0.0
    pending: Pending = field(default_factory=Pending)
    idle: int = 0
    """The LSN of a keepalive that came after everything else; 0 when messages came later."""

    @property
    def reached(self) -> int:
        """Everything before this LSN is committed in the log."""
        return max(self.decoder.position, 0 if self.pending.messages else self.idle)

    def close(self) -> None:
        self.receiver.close()
        self.tending.copier.close()
        self.connection.close()


@dataclass
class Opening:
    """Opens one session after the other for the owner of a source; what a session taught is for the next one.

    ``resolve`` and ``follow``: what to do with a relation, and with DDL that was announced, inside a commit.
    """

    source: SourceConfig
    log: Log
    epoch: int
    ignored: Ignored
    resolve: Callable[[Tables, Relation], Target | None]
    follow: Callable[[Tables, bytes], Collection[int]]
    silence_s: float
    """For how long a silent server is waited for."""
    only_text: bool = False
    """Whether a type came that is read as text."""
    streaming: bool = True
    """Whether the next session asks for transactions while they run; the one after it does."""

    def connect(self) -> Session:
        """Begin if there is no position yet, check for a gap, start the stream at the stored position."""
        name = self.source.name
        connection = session.connect(self.source.dsn, name)
        replication = None
        try:
            require_mode(self.source, connection)
            as_bytes = session.promises_no_encoding(connection)
            application = f"headwater:{name}:{self.log.incarnation[:8]}"
            with standby.decoding(self.source, connection) as decoding:
                slot.take_over(decoding, name, application)
                replication = session.connect_replication(
                    self.source.decoding_dsn, name, application=application, as_bytes=as_bytes
                )
                system = slot.identify(replication, name)
                if self.log.producer(owner_name(name)).position is None:
                    gap.remember_system(self.log, name, system)
                    begin(self.source, self.log, self.epoch, connection, decoding, replication)
                else:
                    self._go_on(connection, decoding, replication, system)
                mark.leave(self.log, name, connection)
            return self._start(connection, replication)
        except psycopg.Error as error:
            _close(connection, replication)
            raise session.translate(error, name) from error
        except BaseException:
            _close(connection, replication)
            raise

    def _go_on(
        self, connection: session.Connection, decoding: session.Connection, replication: PGconn, system: slot.System
    ) -> None:
        """From the stored position, or after a gap, where that is wanted, from a new one."""
        name = self.source.name
        found = gap.find(self.log, name, decoding, replication, system)
        if found is None and gap.is_known(self.log, name, system) and mark.is_older(self.log, name, connection):
            found = Gap(what="the server has an older mark of ours: it was restored from a copy", foreign=True)
        wanted = repair.wanted(self.source, self.log, found)
        if wanted is not None:
            repair.begin(self.source, self.log, self.epoch, connection, decoding, replication, system, wanted)
        else:
            event_trigger.put_right(self.source, connection)
            gap.follow(self.log, name, system)
            slot.set_failover(decoding, replication, self.source)

    def _start(self, connection: session.Connection, replication: PGconn) -> Session:
        name = self.source.name
        state = self.log.producer(owner_name(name))
        assert state.position is not None
        tables = Tables(self.log, self.source, connection)
        self._take_over_lake(tables, state.position)
        text = self.source.mode == "text" or (
            self.source.mode == "auto" and (self.only_text or not tables.all_binary())
        )
        position = catalog.parse_lsn(state.position)
        confirmed = max(position, catalog.parse_lsn(state.confirmed or "0/0"))
        command = slot.start_command(
            name, publication.names(name), state.position,
            version=connection.info.server_version, binary=not text, origin=self.source.origin,
            streaming=self.streaming,
        )  # fmt: skip
        self.streaming = True
        receiver = Receiver(stream.start(replication, command, name), name, confirmed, self.silence_s)
        decoder = self._decoder(tables, position, connection)
        receiver.start()
        tending = Tending(self.source, self.log, self.epoch, tables, Copier(self.source, self.log), decoder)
        streams = Streams(self.log.storage.path("state"), self.ignored)
        _log.info("streaming %s from %s", "text" if text else "binary", state.position, extra={"lsn": state.position})
        return Session(connection, receiver, decoder, tending, streams, confirmed)

    def _decoder(self, tables: Tables, position: int, connection: session.Connection) -> Decoder:
        decoder = Decoder(transactions_topic(self.source.name), lambda relation: self.resolve(tables, relation))
        decoder.position, decoder.xid = position, tables.newest_xid()
        decoder.messages, decoder.ignored = self.source.messages, self.ignored
        if self.source.ddl_capture != "off":
            decoder.announced = lambda said: self.follow(tables, said)
        decoder.validates = session.promises_no_encoding(connection)
        return decoder

    def _take_over_lake(self, tables: Tables, position: str) -> None:
        """A lake of an earlier release: what is said of a transaction may be less, and tables have topics of the same
        name but no record."""
        name, topic = owner_name(self.source.name), transactions_topic(self.source.name)
        with self.log.transaction(producer=name, epoch=self.epoch, expected_position=position) as transaction:
            transaction.add_schema(topic, TRANSACTIONS)
            adopted = not tables.known and tables.adopt_earlier(transaction)
            if transaction.changed or adopted:
                transaction.commit()


def _close(connection: session.Connection, replication: PGconn | None) -> None:
    connection.close()
    if replication is not None:
        replication.finish()
