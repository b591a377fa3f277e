"""The hash chain: one entry for everything that ever changed which bytes are live.

    entry n = SHA-256(entry n-1, kind, number, time, producer, position, digests removed, digests added)

Commits add their batches; a seal removes batches and adds segments; a merge, compaction, base, archive or
retention removes and adds likewise. Whoever recomputes the chain knows that every live file descends from
recorded entries and that what is missing was removed by a recorded one. The chain is written in the catalog
transaction that it records. A rewritten chain is detected only against a root that was kept elsewhere.

A ``checkpoint`` is an entry that adds everything live: verification may begin there.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, select

from headwater.catalog import tables
from headwater.catalog.prepared import Prepared

EntryKind = Literal["commit", "seal", "merge", "compact", "base", "archive", "retain", "checkpoint", "restore"]

GENESIS = bytes(32)
"""What the first entry of a lake has in the place of its predecessor."""

START = "chain_start"
"""Setting "seq:root": the last entry of the commit segments that retention removed; the chain goes on from it."""

_DIGEST_BYTES = 16
_HEAD = Prepared(select(tables.entry.c.seq, tables.entry.c.digest).order_by(tables.entry.c.seq.desc()).limit(1))
_INSERT = Prepared(tables.entry.insert())


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One link. ``number``: a commit's number, else the newest commit at that moment. Digests are 16 bytes each."""

    seq: int
    kind: str
    number: int
    time: int
    producer: str
    position: str | None
    removed: bytes
    added: bytes


def append(
    connection: Connection,
    kind: EntryKind,
    *,
    number: int,
    time: int,
    producer: str,
    position: str | None = None,
    removed: Iterable[str] = (),
    added: Iterable[str] = (),
) -> bytes:
    """Record a change of what is live, in the caller's write transaction and before it is made: the new root.

    ``removed`` and ``added`` are hexadecimal xxh3-128 digests of batches and files.
    """
    row = _HEAD.first(connection)
    if row is None and kind != "checkpoint":
        _begin(connection, number, time)
        row = _HEAD.first(connection)
    entry = Entry(
        seq=1 if row is None else row.seq + 1,
        kind=kind,
        number=number,
        time=time,
        producer=producer,
        position=position,
        removed=bytes.fromhex("".join(removed)),
        added=bytes.fromhex("".join(added)),
    )
    digest = link(GENESIS if row is None else row.digest, entry)
    _INSERT.run(connection, {**vars(entry), "digest": digest})
    return digest


def link(previous: bytes, entry: Entry) -> bytes:
    """The digest of an entry that follows ``previous``; every part stands behind its length."""
    parts = (
        previous,
        entry.kind.encode(),
        struct.pack(">qqq", entry.seq, entry.number, entry.time),
        entry.producer.encode(),
        b"" if entry.position is None else b"\x01" + entry.position.encode(),
        entry.removed,
        entry.added,
    )
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(struct.pack(">q", len(part)))
        hashed.update(part)
    return hashed.digest()


def head(connection: Connection) -> tuple[int, bytes]:
    """Number and digest of the newest entry; (0, GENESIS) for an empty lake."""
    row = _HEAD.first(connection)
    return (0, GENESIS) if row is None else (row.seq, row.digest)


def live_digests(connection: Connection) -> list[str]:
    """What the chain must add up to: the digest of every hot batch and of every live segment, base and archive."""
    file = tables.file
    sealed = select(file.c.digest).where(file.c.removed.is_(None), file.c.kind != "hot", file.c.digest.is_not(None))
    return [row[0] for query in (select(tables.batch.c.digest), sealed) for row in connection.execute(query)]


def split(digests: bytes) -> Sequence[bytes]:
    """The single digests of an entry's ``removed`` or ``added``."""
    return [digests[start : start + _DIGEST_BYTES] for start in range(0, len(digests), _DIGEST_BYTES)]


def _begin(connection: Connection, number: int, time: int) -> None:
    """A lake without a chain (new, or written before there was one) begins it with what it holds."""
    held = live_digests(connection)
    append(connection, "checkpoint", number=number, time=time, producer="headwater", added=held)
