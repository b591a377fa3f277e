"""pgoutput messages to Arrow tables, a whole batch at a time.

    messages ─join─▶ one buffer ─▶ per relation: tuple positions ─walk─▶ cells per column ─decode─▶ table

Python runs once per column, per relation and per rare message (Relation, Truncate), never once per row.
A row's ``_lsn`` is its transaction's commit LSN and ``_seq`` its place in the transaction from 1, so
(``_lsn``, ``_seq``) orders all changes of a source; rows of one table keep the stream's order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from headwater import record
from headwater.errors import HeadwaterError
from headwater_connectors.postgres.batch import (
    COMMIT,
    DDL,
    DELETE,
    INSERT,
    MESSAGE,
    RELATION,
    TRUNCATE,
    UPDATE,
    Batch,
    Context,
    Open,
    said,
)
from headwater_connectors.postgres.cells import Bytes, Int64s, read
from headwater_connectors.postgres.events import Arrived
from headwater_connectors.postgres.messages import Ignored, arrived
from headwater_connectors.postgres.relation import Relation, Target
from headwater_connectors.postgres.rows import Letter, Rows, TableUnreadable, truncate
from headwater_connectors.postgres.transactions import Chunk

Resolve = Callable[[Relation], Target | None]
"""Called before the first change of a relation in a shape not seen before, or of one in each batch whose target is
``fluid``; None: its changes are not wanted."""
Announced = Callable[[bytes], Collection[int]]
"""Called with what an event trigger said of DDL, at its place; oids of relations whose changes may go elsewhere."""

LETTERS_MAX = 1_000
"""Rows of one commit that become dead letters; beyond it their table is put in quarantine."""


class Decoder:
    """Stateful over one replication session: relations announced so far, and a transaction still open."""

    def __init__(self, transactions_topic: str, resolve: Resolve) -> None:
        self._transactions_topic = transactions_topic
        self._resolve = resolve
        self._targets: dict[int, Target | None] = {}
        self._relations: dict[int, Relation] = {}
        self._open: Open | None = None
        self.position = 0
        """End LSN of the last whole transaction decoded."""
        self.committed_at = 0
        """When the source committed it, in microseconds since 1970."""
        self.letters: list[Letter] = []
        """Rows that could not be decoded; whoever takes them empties the list."""
        self.validates = False
        """Whether texts are checked to be UTF-8: a database in SQL_ASCII promises nothing."""
        self.events: list[Arrived] = []
        """Events in what was decoded; whoever takes them empties the list."""
        self.messages: Mapping[str, str] = {}
        """Topics of logical messages by prefix."""
        self.announced: Announced | None = None
        """None: what event triggers say is not listened to."""
        self.ignored = Ignored()
        self.xid = 0
        """A transaction id near those that come, with its epoch: the stream sends the lower half only."""

    def decode(self, chunks: Sequence[Chunk]) -> Iterator[tuple[str, pa.Table]]:
        """(topic, rows) in an order to append in: rows of one topic in stream order, transactions last.

        Lazy: ``resolve`` and ``announced`` are called between the pieces, exactly where the rows of another shape
        begin in the stream.
        """
        if not chunks:
            return
        self._targets = {oid: target for oid, target in self._targets.items() if target is None or not target.fluid}
        batch = Batch.of(chunks)
        kinds = batch.buffer[batch.start]
        context = Context.of(batch, kinds, self._open, self.xid)
        self.xid = max(self.xid, int(context.xid.max()))
        low = 0
        for place in self._breaks(batch, kinds):
            relation = Relation.parse(batch.message(place)) if kinds[place] == RELATION else None
            if relation is not None and self._relations.get(relation.oid) == relation:
                continue
            yield from self._rows(batch, kinds, context, low, place)
            low = place + 1
            if kinds[place] == MESSAGE:
                self._reshape(batch.message(place))
            elif relation is None:
                yield from self._truncates(batch, context, place)
            else:
                self._relations[relation.oid] = relation
                self._targets.pop(relation.oid, None)
        yield from self._rows(batch, kinds, context, low, len(kinds))
        sent = arrived(batch, kinds, context, self.messages, self.ignored)
        if sent is not None:
            self.events.append(sent)
        transactions = context.transactions(kinds)
        if transactions.num_rows:
            yield self._transactions_topic, transactions
        if context.position:
            self.position = context.position
            self.committed_at = int(context.committed_at[context.transaction[np.flatnonzero(kinds == COMMIT)[-1]]])
        self._open = context.still_open(kinds)

    def _breaks(self, batch: Batch, kinds: Bytes) -> list[int]:
        """Places of messages after which rows may mean something else."""
        rare = (kinds == RELATION) | (kinds == TRUNCATE)
        if self.announced is not None:
            rare[said(batch, kinds, DDL)] = True
        found: list[int] = np.flatnonzero(rare).tolist()
        return found

    def _reshape(self, message: bytes) -> None:
        """What an event trigger said of DDL takes effect here."""
        assert self.announced is not None
        for oid in self.announced(message[10 + len(DDL) + 4 :]):
            self._targets.pop(oid, None)

    def _target(self, oid: int) -> Target | None:
        """Where a relation's changes go: asked for when the first of them comes, not when it is announced."""
        if oid not in self._targets:
            self._targets[oid] = self._resolve(self._relations[oid])
        return self._targets[oid]

    def unreadable(self, topic: str, reason: str) -> TableUnreadable:
        """The error that says so of the table whose changes go to a topic."""
        oid = next(oid for oid, target in self._targets.items() if target is not None and target.topic == topic)
        return TableUnreadable(reason, where=topic, oid=oid)

    def retarget(self, target: Resolve) -> None:
        """Ask anew where the changes of every relation go, after tables came, changed or went."""
        self._targets = {oid: target(self._relations[oid]) for oid in self._targets}

    def _rows(
        self, batch: Batch, kinds: Bytes, context: Context, low: int, high: int
    ) -> Iterator[tuple[str, pa.Table]]:
        part = kinds[low:high]
        places = low + np.flatnonzero((part == INSERT) | (part == UPDATE) | (part == DELETE))
        if not len(places):
            return
        oids = read(batch.buffer, "u4", batch.start[places] + 1)
        for oid in np.unique(oids).tolist():
            target = self._target(oid)
            if target is not None:
                yield from self._readable(batch, kinds, context, target, places[oids == oid])

    def _readable(
        self, batch: Batch, kinds: Bytes, context: Context, target: Target, places: Int64s
    ) -> Iterator[tuple[str, pa.Table]]:
        """The rows of one relation; those that cannot be decoded are found by halving, and become letters."""
        try:
            rows = Rows(batch, kinds, target, places).table(context)
            if self.validates:
                rows.validate(full=True)
            if target.outbox is not None:
                self.events.append(target.outbox.arrived(target, rows))
                return
            yield target.topic, rows
        except HeadwaterError:
            raise
        except Exception as error:  # noqa: BLE001 -- whatever the bytes of one row bring about
            if len(places) > 1:
                middle = len(places) // 2
                yield from self._readable(batch, kinds, context, target, places[:middle])
                yield from self._readable(batch, kinds, context, target, places[middle:])
                return
            self._refuse(batch, context, target, places, error)

    def _refuse(self, batch: Batch, context: Context, target: Target, places: Int64s, error: Exception) -> None:
        if len(self.letters) >= LETTERS_MAX:
            raise TableUnreadable(
                f"{len(self.letters)} rows of {target.relation.full_name} cannot be read, the last because: {error}",
                where=target.topic,
                oid=target.relation.oid,
            ) from error
        metadata = context.metadata(places)
        facts = {name.strip("_"): str(metadata[name][0]) for name in (record.LSN, record.XID, record.SEQ)}
        text = str(error).strip() or type(error).__name__
        self.letters.append(
            Letter(target.relation.oid, "pgoutput", batch.message(int(places[0])), type(error).__name__, text, facts)
        )

    def _truncates(self, batch: Batch, context: Context, place: int) -> Iterator[tuple[str, pa.Table]]:
        message = batch.message(place)
        for at in range(6, len(message), 4):
            target = self._target(int.from_bytes(message[at : at + 4]))
            if target is not None and target.outbox is None:
                yield target.topic, truncate(target, context, place)
