"""What Jepsen checks of a log that behaves like Kafka, as a pure function over a recorded history.

The rules are those of Jepsen's Kafka workload: every value is unique, a key is a partition. Values and offsets that
were seen are compared; nothing is assumed about offsets but that they grow, for gaps are legal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Literal

State = Literal["ok", "fail", "info"]
"""What the process was told: done, certainly not done, or nothing (it died, or the outcome is unknown)."""


@dataclass(frozen=True, kw_only=True)
class Send:
    """One value written to a key; ``offset`` where the process was told one."""

    key: str
    value: int
    offset: int | None = None


@dataclass(frozen=True, kw_only=True)
class Poll:
    """Values that one poll returned, by key, as (offset, value) in the order they came."""

    records: Mapping[str, Sequence[tuple[int, int]]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A transaction, or a poll or send alone. ``fresh``: keys whose place was given to the process anew before it."""

    process: str
    state: State
    actions: tuple[Send | Poll, ...]
    fresh: frozenset[str] = frozenset()

    @property
    def sends(self) -> Iterator[Send]:
        return (each for each in self.actions if isinstance(each, Send))

    @property
    def polls(self) -> Iterator[Poll]:
        return (each for each in self.actions if isinstance(each, Poll))


@dataclass(kw_only=True)
class _Seen:
    """What the whole history says about each key."""

    at: dict[tuple[str, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    places: dict[tuple[str, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    polled: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    last: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: -1))
    order: dict[str, list[int]] = field(default_factory=dict)
    """Of each key, every offset that anyone saw, ascending."""


Anomalies = dict[str, list[str]]
"""Cases by the anomaly's name; empty when the history is sound."""


def check(history: Sequence[Operation]) -> Anomalies:
    """Every anomaly of a history, whose operations stand in the order in which each process did them."""
    seen = _gather(history)
    found: Anomalies = {
        "inconsistent offset": [f"{k}/{o}: {sorted(v)}" for (k, o), v in seen.at.items() if len(v) > 1],
        "duplicate": [f"{k}: {v} at {sorted(o)}" for (k, v), o in seen.places.items() if len(o) > 1],
        "aborted read": list(_aborted_reads(history)),
        "precommitted read": list(_precommitted_reads(history)),
        "lost write": list(_unread(history, seen, lost=True)),
        "unseen": list(_unread(history, seen, lost=False)),
        "cycle": list(_cycles(history, seen)),
    }
    for name, case in (*_poll_order(history, seen), *_send_order(history)):
        found.setdefault(name, []).append(case)
    return {name: cases for name, cases in found.items() if cases}


def _gather(history: Sequence[Operation]) -> _Seen:
    seen = _Seen()
    for operation in history:
        for send in operation.sends:
            if send.offset is not None and operation.state != "fail":
                seen.at[send.key, send.offset].add(send.value)
                seen.places[send.key, send.value].add(send.offset)
        for poll in operation.polls:
            for key, records in poll.records.items():
                for offset, value in records:
                    seen.at[key, offset].add(value)
                    seen.places[key, value].add(offset)
                    seen.polled[key].add(value)
                    seen.last[key] = max(seen.last[key], offset)
    for key, offset in seen.at:
        seen.order.setdefault(key, []).append(offset)
    for offsets in seen.order.values():
        offsets.sort()
    return seen


def _aborted_reads(history: Sequence[Operation]) -> Iterator[str]:
    """G1a: a value was read whose writer had failed."""
    failed = {(s.key, s.value) for op in history if op.state == "fail" for s in op.sends}
    for operation in history:
        for poll in operation.polls:
            for key, records in poll.records.items():
                yield from (f"{operation.process} read {key}: {v}" for _, v in records if (key, v) in failed)


def _precommitted_reads(history: Sequence[Operation]) -> Iterator[str]:
    """A transaction read what it wrote itself: then others could have read it before it was committed."""
    for operation in history:
        own = {(send.key, send.value) for send in operation.sends}
        for poll in operation.polls:
            for key, records in poll.records.items():
                yield from (f"{operation.process}: {key}: {v}" for _, v in records if (key, v) in own)


def _unread(history: Sequence[Operation], seen: _Seen, *, lost: bool) -> Iterator[str]:
    """Acknowledged values that nobody read: lost when a later one was read, else unseen so far."""
    for operation in history:
        for send in operation.sends if operation.state == "ok" else ():
            if send.value not in seen.polled[send.key]:
                behind = send.offset is not None and send.offset <= seen.last[send.key]
                if behind == lost:
                    yield f"{send.key}: {send.value} at {send.offset}, read up to {seen.last[send.key]}"


def _poll_order(history: Sequence[Operation], seen: _Seen) -> Iterator[tuple[str, str]]:
    """Within a transaction, and from one poll of a process to its next: neither back nor past a value."""
    index = {key: {offset: place for place, offset in enumerate(offsets)} for key, offsets in seen.order.items()}
    before: dict[tuple[str, str], int] = {}
    for operation in history:
        inside: set[str] = set()
        for key in operation.fresh:
            before.pop((operation.process, key), None)
        for poll in operation.polls:
            for key, records in poll.records.items():
                for offset, _ in records:
                    last = before.get((operation.process, key))
                    name = "int " if key in inside else ""
                    place = index[key][offset]
                    case = f"{operation.process}, {key}: {last} then {offset}"
                    if last is not None and place <= index[key][last]:
                        yield f"{name}nonmonotonic poll", case
                    elif last is not None and place > index[key][last] + 1:
                        yield f"{name}poll skip", case
                    before[operation.process, key] = offset
                    inside.add(key)


def _send_order(history: Sequence[Operation]) -> Iterator[tuple[str, str]]:
    """A process's sends to a key get growing offsets, within a transaction and from one to the next."""
    before: dict[tuple[str, str], int] = {}
    for operation in history:
        inside: set[str] = set()
        for send in operation.sends if operation.state == "ok" else ():
            last = before.get((operation.process, send.key))
            if send.offset is not None:
                if last is not None and send.offset <= last:
                    name = "int " if send.key in inside else ""
                    yield f"{name}nonmonotonic send", f"{operation.process}, {send.key}: {last} then {send.offset}"
                before[operation.process, send.key] = send.offset
                inside.add(send.key)


def _cycles(history: Sequence[Operation], seen: _Seen) -> Iterator[str]:
    """G0 and G1c: transactions that must all have come before each other, by what they wrote and read last."""
    writer = {
        (send.key, send.value): number
        for number, operation in enumerate(history)
        if operation.state != "fail"
        for send in operation.sends
    }
    graph: TopologicalSorter[int] = TopologicalSorter()
    for key, offsets in seen.order.items():
        values = [next(iter(seen.at[key, offset])) for offset in offsets]
        for first, second in pairwise([writer[key, value] for value in values if (key, value) in writer]):
            if first != second:
                graph.add(second, first)
    for number, operation in enumerate(history):
        for poll in operation.polls:
            for key, records in poll.records.items():
                last = max(records, default=None)
                source = writer.get((key, last[1])) if last else None
                if source is not None and source != number:
                    graph.add(number, source)
    try:
        graph.prepare()
    except CycleError as error:
        yield " -> ".join(f"{history[number].process}#{number}" for number in error.args[1])
