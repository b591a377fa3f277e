"""Reading topics from where one is: batches of records in offset order, alone or as a member of a group.

    poll ──▶ has the catalog changed? ──▶ what is mine, where it ends (one read transaction)
         ──▶ a piece of one partition, in turn ──▶ Batch
    commit ──▶ the first offsets not handed out, if the partitions are still mine

A record is handed out at least once: what was handed out and not committed comes again after a death. With
``transaction`` the offsets are stored in the commit that holds what the consumer made of the records: exactly once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

import pyarrow as pa

from headwater import logs, record
from headwater.client import group as groups
from headwater.client.batch import Batch
from headwater.client.group import Share, let_go, producer_name
from headwater.client.locate import Where, locate
from headwater.client.member import LEASE_S, MAX_POLL_S, Member
from headwater.client.turns import Turn, Turns
from headwater.errors import Expired, FencedMember, HeadwaterError, UsageError
from headwater.log import Log, Topic, Transaction, offsets, scan
from headwater.log.offsets import PartitionState, Place, Progress

BATCH_ROWS = 10_000
"""Records in a batch at most: large enough for columnar work, small enough to be a unit of retry."""
AUTO_COMMIT_S = 1.0
"""How often a consumer stores what it has finished: what is read again after a death, against a commit's fsync."""
LOOK_S = 0.05
"""While there is something to hand out, the catalog is looked at this often: each commit of anyone changes it."""
WAIT_S = 0.25
"""The longest wait without a look at the own group's leases and the due commit."""


class Consumer:
    """Build with ``Lake.consumer``. Not thread-safe; a context manager, and an iterator of batches.

    Polling says that what was handed out before is finished: with ``auto_commit`` it is stored then, once a
    second, before a partition is let go, and on ``close``. Leaving the block by an exception stores nothing.
    """

    def __init__(
        self,
        log: Log,
        topics: str | Sequence[str],
        group: str | None = None,
        *,
        start: Where = "earliest",
        stop: Where | None = None,
        batch_rows: int = BATCH_ROWS,
        auto_commit: bool = True,
        columns: Sequence[str] | None = None,
        rate: float | None = None,
        on_expired: Literal["earliest", "error"] = "earliest",
        lease_s: float = LEASE_S,
        max_poll_s: float = MAX_POLL_S,
        client: str = "",
    ) -> None:
        """See ``Lake.consumer``."""
        names = [topics] if isinstance(topics, str) else list(topics)
        if not names or batch_rows < 1 or (rate is not None and rate <= 0):
            raise UsageError("a consumer needs a topic, and batch_rows and rate of more than 0")
        self.log = log
        self.group = group
        self.auto_commit = auto_commit and group is not None
        found = {topic.id: topic for topic in (log.topic(name) for name in names)}
        self._topics = found
        self._start = start
        self._rows = batch_rows if rate is None else max(1, min(batch_rows, int(rate)))
        self._columns = None if columns is None else list(dict.fromkeys([*columns, record.OFFSET]))
        self._rate = rate
        self._on_expired = on_expired
        self._positions: dict[Place, int] = {}
        self._committed: dict[Place, int] = {}
        self._owned: dict[Place, int] = {}
        self._states: dict[Place, PartitionState] = {}
        self._paused: set[Place] = set()
        self._turns = Turns(log, self._rows, self._columns)
        self._version = -1
        self._generation = -1
        self._full_look_at = self._looked_at = self._stored_at = self._allowed_at = time.monotonic()
        self._closed = False
        self._stops = None if stop is None else locate(log, list(found.values()), stop)
        self._member: Member | None = None
        if group is None:
            self._positions = locate(log, list(found.values()), start)
        else:
            self._member = Member(
                log,
                group,
                list(found),
                lambda: locate(log, list(found.values()), start),
                lease_s=lease_s,
                max_poll_s=max_poll_s,
                client=client,
            )

    # ---- reading

    def poll(self, timeout: float = 0.0) -> Batch | None:
        """The next batch, waiting up to ``timeout`` seconds for one; None when there is none.

        A consumer of a group joins it, lets go what others are to read, and rejoins when its lease had ended.
        CorruptFile stops the damaged partition (it is paused) and no other; Expired, see ``on_expired``.
        """
        self._require_open()
        deadline = time.monotonic() + timeout
        while True:
            self.alive()
            self._refresh()
            self._store_due()
            wait_s = self._allowed_at - time.monotonic()
            if wait_s <= 0 and (batch := self._next()) is not None:
                return batch
            if wait_s <= 0 and self._turn_generation():
                continue
            left = deadline - time.monotonic()
            if left <= 0 or self.finished:
                return None
            if wait_s > 0:
                time.sleep(min(left, wait_s, WAIT_S))
            else:
                self.log.wait_change(self._version, min(left, WAIT_S))

    def __iter__(self) -> Iterator[Batch]:
        """Batches without end, or up to ``stop``."""
        while not self._closed:
            batch = self.poll(timeout=1.0)
            if batch is not None:
                yield batch
            elif self.finished:
                return

    def rows(self) -> Iterator[dict[str, Any]]:
        """The records one by one, as dicts."""
        for batch in self:
            yield from batch.rows()

    @property
    def finished(self) -> bool:
        """Whether everything before ``stop`` was handed out: of all partitions, in a group of the owned ones."""
        if self._stops is None or not self._owned:
            return False
        places = self._stops if self._member is None else self._owned
        return all(self._position(place) >= self._end(place) for place in places)

    def remaining(self) -> int:
        """Offsets from where it is to ``stop``, over all partitions; 0 without a stop."""
        if not self._states:
            self._refresh()
        places = self._stops or {}
        return sum(max(0, self._end(place) - self._position(place)) for place in places if place in self._states)

    # ---- where it is

    def position(self) -> dict[tuple[str, int], int]:
        """Of each partition it reads, by topic name and number: the first offset not handed out."""
        return {self._named(place): self._position(place) for place in sorted(self._owned)}

    def committed(self) -> dict[tuple[str, int], int]:
        """Of each partition, the first offset that the group has not finished, as the catalog has it now."""
        with self.log.catalog.read() as connection:
            stored = offsets.stored(connection, self._require_group())
        return {self._named(place): row.offset for place, row in stored.items() if place[0] in self._topics}

    def assignment(self) -> list[tuple[str, int]]:
        """The partitions that it reads now."""
        return [self._named(place) for place in sorted(self._owned)]

    def seek(self, topic: str, partition: int, to: Where) -> None:
        """Go on at an offset (an integer), ``earliest``, ``latest``, or after a position such as ``commit:42``.

        UsageError for a partition that is not this consumer's (a group's member has none before its first poll).
        """
        place = self._place(topic, partition)
        state = self._states[place]
        if isinstance(to, int):
            if not state.start_offset <= to <= state.next_offset:
                raise UsageError(
                    f"partition {partition} holds no offset {to}",
                    where=topic,
                    todo=f"It has {state.start_offset} to {state.next_offset - 1}.",
                )
            self._positions[place] = to
        else:
            self._positions[place] = locate(self.log, [self._topics[place[0]]], to)[place]
        self._turns.drop({place})

    def pause(self, topic: str, partition: int) -> None:
        """Hand out nothing of this partition; it stays this consumer's."""
        place = self._place(topic, partition)
        self._paused.add(place)
        self._turns.drop({place})

    def resume(self, topic: str, partition: int) -> None:
        self._paused.discard(self._place(topic, partition))

    # ---- committing

    def commit(self, metadata: str = "") -> None:
        """Store that everything handed out so far is finished; durable when this returns.

        FencedMember when a partition is no longer this member's: nothing is stored, and the next poll rejoins.
        """
        progress = self.progress(metadata)
        if progress.offsets or metadata:
            try:
                with self.log.catalog.write() as connection:
                    offsets.store(connection, progress, self.log.clock.now_us())
            except FencedMember:
                self._fenced()
                raise
            self._stored(progress)

    def progress(self, metadata: str = "") -> Progress:
        """What ``commit`` would store, for ``headwater.log.offsets.stage`` in a transaction of one's own."""
        group = self._require_group()
        assert self._member is not None
        moved = {
            place: offset
            for place, offset in self._positions.items()
            if place in self._owned and (metadata or offset != self._committed.get(place))
        }
        return Progress(
            group=group, member=self._member.name, offsets=moved, generations=dict(self._owned), metadata=metadata
        )

    @contextmanager
    def transaction(self, metadata: str = "") -> Iterator[Transaction]:
        """A block whose appended records and this consumer's offsets become visible in one commit, at its end.

        When the block raises, or the commit does, nothing is published and the consumer goes on from what the
        group has stored: the same records come again. FencedMember as in ``commit``.
        """
        progress = self.progress(metadata)
        name = producer_name(self._require_group())
        try:
            with self.log.transaction(name, self.log.producer(name).epoch) as tx:
                tx.client = progress.member
                offsets.stage(tx, progress)
                yield tx
                tx.commit()
        except FencedMember:
            self._fenced()
            raise
        except BaseException:
            self.rewind()
            raise
        self._stored(progress)

    def rewind(self) -> None:
        """Go back to what the group has stored: what was handed out since comes again."""
        with self.log.catalog.read() as connection:
            stored = offsets.stored(connection, self._require_group())
        for place in self._owned:
            if place in stored:
                self._committed[place] = self._positions[place] = stored[place].offset
        self._turns.drop(set(self._owned))

    def process(
        self,
        handler: Callable[[Batch], object],
        *,
        max_attempts: int = 3,
        backoff: float = 0.1,
        backoff_max: float = 10.0,
        seconds: float | None = None,
    ) -> int:
        """Hand batches to ``handler`` and commit after each; returns how many records were handed on or given up.

        A batch whose handler raises is tried again after ``backoff`` seconds, then twice as long. After
        ``max_attempts`` its halves are tried, down to the records that fail by themselves: those go to
        ``<topic>.dlq`` in the commit that moves past them. Ends at ``stop``, or after ``seconds``.
        """
        from headwater.client.process import process

        return process(self, handler, max_attempts, (backoff, backoff_max), seconds)

    def alive(self) -> None:
        """Say that processing goes on, where one batch takes longer than ``max_poll_s``."""
        if self._member is not None:
            self._member.polled()

    def close(self, *, commit: bool | None = None) -> None:
        """Store what is finished (with ``auto_commit``, or when told), and leave the group at once."""
        if self._closed:
            return
        self._closed = True
        self._turns.drop(set(self._positions))
        if self._member is not None and self._member.joined:
            try:
                if self.auto_commit if commit is None else commit:
                    with suppress(FencedMember):  # the others have them, and begin at what was stored
                        self.commit()
            finally:
                self._member.leave()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close(commit=False if kind is not None else None)

    # ---- the group

    def _refresh(self) -> None:
        """Learn what this consumer owns and where it ends, when anything in the catalog has changed."""
        member = self._member
        if member is not None and not member.joined:
            member.join()
        while True:
            version = self.log.catalog_version()
            if member is None or not member.lapsed:
                if version == self._version:
                    return
                if self._turns and time.monotonic() - self._looked_at < LOOK_S:
                    return
            if self._glance(version):
                return
            share = self._look(version)
            if member is None:
                return
            if share is None:
                logs.logger().warning("group %s: the lease had ended, %s joins again", self.group, member.name)
                self._lose(set(self._owned))
                member.join()
            elif share.stale or member.lapsed:
                member.rebalance()
            elif share.asked:
                self._let_go(share)
            else:
                return

    def _glance(self, version: int) -> bool:
        """Where the partitions end now: all there is to learn while the group's generation stays the same.

        Two statements: every commit in the lake wakes every consumer that waits. Once in ``WAIT_S`` it looks properly.
        """
        member = self._member
        if member is None or member.lapsed or time.monotonic() - self._full_look_at > WAIT_S:
            return False
        if any(self._states[place].closed is not None for place in self._owned):
            return False  # the next generation may begin
        with self.log.catalog.read() as connection:
            if groups.generation(connection, member.group) != self._generation:
                return False
            found = offsets.states(connection, self._topics)
        self._version = version
        self._looked_at = time.monotonic()
        self._states = {state.place: state for state in found}
        for place in self._owned:
            self._check_expired(place)
        return True

    def _look(self, version: int) -> Share | None:
        """One read transaction: own partitions, their ends, and the stored offsets of those that are new."""
        self._topics = self._current_topics()
        with self.log.catalog.read() as connection:
            found = offsets.states(connection, self._topics)
            if self._member is None:
                share, stored = None, {}
                owned = {state.place: 0 for state in offsets.readable(found, self._positions)}
            else:
                share = self._member.share(connection)
                owned = dict(share.owned) if share else {}
                stored = offsets.stored(connection, self._member.group)
        self._version = version
        self._looked_at = self._full_look_at = time.monotonic()
        self._generation = share.generation if share else -1
        self._states = {state.place: state for state in found}
        if self._member is not None:
            self._lose({place for place, generation in self._owned.items() if owned.get(place) != generation})
            for place in owned.keys() - self._owned.keys():
                self._committed[place] = self._positions[place] = stored[place].offset
        kept = {place: owned[place] for place in self._owned if place in owned}
        self._owned = kept | owned  # in the order of who is next; new ones last
        for place in owned:
            self._check_expired(place)
        return share

    def _current_topics(self) -> dict[int, Topic]:
        """The topics with the schema in force now; one that was dropped is read as it was."""
        now = {topic.id: topic for topic in self.log.topics(hidden=True)}
        return {number: now.get(number, topic) for number, topic in self._topics.items()}

    def _let_go(self, share: Share) -> None:
        """Hand over what others are to read. What was handed out of it is finished: this is a new poll."""
        assert self._member is not None
        progress = self.progress()
        gone = {place: offset for place, offset in progress.offsets.items() if place in share.asked}
        with self.log.catalog.write() as connection:
            if gone and self.auto_commit:
                mine = Progress(
                    group=progress.group, member=progress.member, offsets=gone, generations=progress.generations
                )
                with suppress(FencedMember):  # removed meanwhile: the next look says so
                    offsets.store(connection, mine, self.log.clock.now_us())
            let_go(connection, self._member.group, self._member.name, share.asked)
        self._lose(set(share.asked))

    def _lose(self, places: set[Place]) -> None:
        self._turns.drop(places)
        for place in places:
            self._owned.pop(place, None)
            self._positions.pop(place, None)
            self._committed.pop(place, None)
            self._paused.discard(place)

    def _store_due(self) -> None:
        """The automatic commit. When the partitions are others' by now, they begin at what was stored."""
        if self.auto_commit and time.monotonic() - self._stored_at >= AUTO_COMMIT_S:
            self._stored_at = time.monotonic()
            try:
                self.commit()
            except FencedMember as error:
                logs.logger().warning("group %s: %s", self.group, error)

    def _fenced(self) -> None:
        """Hand out nothing more of what others own by now; the next poll learns what is left."""
        self._lose(set(self._owned))
        self._version = -1

    def _stored(self, progress: Progress) -> None:
        self._committed.update(progress.offsets)
        self._stored_at = time.monotonic()

    # ---- the pieces

    def _next(self) -> Batch | None:
        """The next batch of the partitions in turn. A damaged file stops its partition."""
        self._fill()
        while self._turns:
            turn = self._turns.take()
            try:
                piece = turn.next(crowded=self._turns.crowded)
            except HeadwaterError:
                self._paused.add(turn.place)
                raise
            if piece is not None:
                self._turns.put_back(turn)
                self._positions[turn.place] = piece.upto
                if piece.table.num_rows:
                    return self._batch(turn, piece.table)
            else:
                self._fill()
        return None

    def _turn_generation(self) -> bool:
        """Without a group: whether a closed generation of partitions was read to its end, and the next one begins."""
        if self._member is not None:
            return False
        owned = {state.place: 0 for state in offsets.readable(self._states.values(), self._positions)}
        changed = owned.keys() != self._owned.keys()
        self._owned = owned if changed else self._owned
        return changed

    def _batch(self, turn: Turn, table: pa.Table) -> Batch:
        if self._rate is not None:
            self._allowed_at = max(self._allowed_at, time.monotonic() - 1.0) + table.num_rows / self._rate
        places = table.column(record.OFFSET)
        return Batch(
            topic=turn.topic.name,
            partition=turn.place[1],
            first=places[0].as_py(),
            last=places[-1].as_py(),
            table=table,
            generation=self._owned[turn.place],
        )

    def _fill(self) -> None:
        """Begin reading partitions that have something, as many as may be read at once; one transaction for all."""
        reading = self._turns.places | self._paused
        wanted = [p for p in self._owned if p not in reading and self._position(p) < self._end(p)]
        chosen = wanted[: self._turns.free]
        self._turns.crowded = len(chosen) < len(wanted)
        if not chosen:
            return
        topics = dict.fromkeys(topic for topic, _ in chosen)
        with self.log.catalog.read() as connection:
            self._states |= {state.place: state for state in offsets.states(connection, topics)}
            for place in chosen:  # as this transaction sees it: what retention took since then is no gap
                self._check_expired(place)
                self._owned[place] = self._owned.pop(place)  # last in the order of who is next
            for number in topics:
                spans = [
                    scan.Span(partition=place[1], low=self._position(place), high=self._end(place))
                    for place in chosen
                    if place[0] == number
                ]
                self._turns.begin(connection, self._topics[number], spans)

    def _position(self, place: Place) -> int:
        if place not in self._positions:  # a partition that came after the consumer: read from its start
            self._positions[place] = self._states[place].start_offset
        return self._positions[place]

    def _end(self, place: Place) -> int:
        end = self._states[place].next_offset
        return end if self._stops is None else min(end, self._stops.get(place, self._states[place].start_offset))

    def _check_expired(self, place: Place) -> None:
        """Retention may have removed what comes next."""
        state = self._states[place]
        position = self._position(place)
        if position >= state.start_offset:
            return
        name, number = self._named(place)
        what = f"offsets {position} to {state.start_offset - 1} of partition {number} are no longer kept"
        self._positions[place] = state.start_offset
        self._turns.drop({place})
        if self._on_expired == "error":
            raise Expired(what, where=name, todo="Poll again to go on at the earliest record.")
        logs.logger().warning("%s: %s; the consumer goes on at the earliest", name, what)

    def _named(self, place: Place) -> tuple[str, int]:
        return self._topics[place[0]].name, place[1]

    def _place(self, topic: str, partition: int) -> Place:
        """A partition this consumer reads, by name."""
        self._require_open()
        if self._member is None or not self._owned:
            self._refresh()
        full = self.log.topic(topic).name
        found = next((p for p in self._owned if p[1] == partition and self._topics[p[0]].name == full), None)
        if found is None:
            raise UsageError(
                f"partition {partition} of {topic} is not this consumer's",
                todo=f"It reads {', '.join(f'{name}/{number}' for name, number in self.assignment()) or 'none yet'}.",
            )
        return found

    def _require_group(self) -> str:
        if self.group is None:
            raise UsageError("this consumer has no group", todo="Give group=... to store offsets.")
        return self.group

    def _require_open(self) -> None:
        if self._closed:
            raise UsageError("this consumer is closed")
