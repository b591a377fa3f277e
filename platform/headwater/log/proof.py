"""Proving the chain: that every live file descends from recorded entries, and that what is missing was removed.

Archived entries are read from their commit segments, the newest from the catalog. Digests are recomputed from
the beginning (or the first kept entry, whose predecessor's root the catalog has) and compared wherever one is
stored. What was added and not removed must be exactly what the catalog says is live.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from sqlalchemy import select

from headwater.catalog import tables
from headwater.log import chain

if TYPE_CHECKING:
    from headwater.log.log import Log

_READ_ROWS = 20_000


class Proof:
    """One pass over the chain. ``findings`` is empty when it holds; ``root`` is the newest digest in hexadecimal."""

    def __init__(
        self, seq: int = 0, digest: bytes = chain.GENESIS, witnessed: Mapping[int, bytes] = MappingProxyType({})
    ) -> None:
        self.entries = 0
        self.witnessed = witnessed
        self.findings: list[str] = []
        self.root = digest.hex()
        self.seq = seq
        self._digest = digest
        self._live: Counter[bytes] = Counter()
        self._counted = False

    def follow(self, entry: chain.Entry) -> None:
        """The next entry: its place, and what it removes must have been there."""
        if entry.seq != self.seq + 1:
            self.findings.append(f"entry {self.seq + 1} is missing: {entry.seq} follows")
        self.seq, self._digest = entry.seq, chain.link(self._digest, entry)
        self.entries += 1
        if self.witnessed.get(entry.seq, self._digest) != self._digest:
            self.findings.append(f"entry {entry.seq} is not the one that was witnessed: the chain was rewritten")
        if entry.kind == "checkpoint":
            self._live.clear()
            self._counted = True
        self._live.update(chain.split(entry.added))
        for digest in chain.split(entry.removed):
            if self._counted and self._live[digest] < 1:
                self.findings.append(f"entry {entry.seq} ({entry.kind}) removes {digest.hex()}, which was not live")
            self._live[digest] -= 1

    def meets(self, digest: bytes, where: str) -> None:
        """A stored digest must be the recomputed one; goes on from the stored one, so that one break is one finding."""
        if digest != self._digest:
            self.findings.append(
                f"the chain is broken at {where}: {digest.hex()} stored, {self._digest.hex()} computed"
            )
        self._digest = digest
        self.root = digest.hex()

    def ends(self, live: Counter[bytes]) -> None:
        """What the catalog says is live must be what the entries leave."""
        for digest in live - self._live:
            self.findings.append(f"{digest.hex()} is live and no entry added it")
        for digest in self._live - live:
            self.findings.append(f"{digest.hex()} was added, never removed, and is not live")


def prove(log: Log, witnessed: Mapping[int, bytes] = MappingProxyType({})) -> Proof:
    """Recompute the whole chain that this lake still has; memory is one digest for each live batch and file.

    ``witnessed``: roots by entry that were kept elsewhere (see ``chain_witness``).
    """
    seq, _, root = (log.setting(chain.START) or "0:").partition(":")
    proof = Proof(int(seq), bytes.fromhex(root) or chain.GENESIS, witnessed)
    segment, file, entry = tables.commit_segment, tables.file, tables.entry
    with log.catalog.read() as connection:
        archived = connection.execute(
            select(segment, file.c.path).join(file, file.c.id == segment.c.file).order_by(segment.c.first_seq)
        ).all()
        kept = connection.execute(select(entry).order_by(entry.c.seq)).all()
        commits = {row.number: row for row in connection.execute(select(tables.commit))}
        live = Counter(bytes.fromhex(digest) for digest in chain.live_digests(connection))
    for row in archived:
        for found in _archived_entries(log, row.path):
            proof.follow(found)
        proof.meets(row.root, row.path)
    for row in kept:
        values = dict(row._mapping)
        digest = values.pop("digest")
        proof.follow(chain.Entry(**values))
        proof.meets(digest, f"entry {row.seq}")
        if row.kind == "commit" and not _is_commit(row, commits.get(row.number)):
            proof.findings.append(f"commit {row.number} in the catalog is not the one of entry {row.seq}")
    if proof.entries:
        proof.ends(live)
    if witnessed and max(witnessed) > proof.seq:
        proof.findings.append(
            f"entry {max(witnessed)} was witnessed, the chain ends at {proof.seq}: this is an older copy"
        )
    return proof


def _archived_entries(log: Log, path: str) -> Iterator[chain.Entry]:
    with pq.ParquetFile(log.storage.path(path)) as file:
        for batch in file.iter_batches(_READ_ROWS, columns=list(chain.Entry.__dataclass_fields__)):
            for row in batch.to_pylist():
                if row["seq"]:  # older than the chain: a lake of an earlier release
                    yield chain.Entry(**row)


def _is_commit(row: Any, commit: Any) -> bool:
    return commit is not None and (commit.time, commit.producer, commit.position) == (
        row.time,
        row.producer,
        row.position,
    )
