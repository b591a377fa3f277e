"""Which type may become which, so that every value ever written is still there: the promotions of Iceberg.

    TINYINT → SMALLINT → INTEGER → BIGINT          FLOAT → DOUBLE          DATE → TIMESTAMP (never WITH TIME ZONE)
    UTINYINT → USMALLINT → UINTEGER                DECIMAL(P,S) → DECIMAL(P',S) with P' ≥ P

Iceberg has one int of 32 bits; the narrower ones are it there, so widening them is no change. Nothing becomes a
text, a text becomes nothing, and integers never become floats, though Avro reads them so. A list's element type
is promoted like a column's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from headwater.types import canonical

_CHAINS = (
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT"),
    ("UTINYINT", "USMALLINT", "UINTEGER"),
    ("FLOAT", "DOUBLE"),
    ("DATE", "TIMESTAMP"),
)
_RANKS = {name: (chain[-1], rank) for chain in _CHAINS for rank, name in enumerate(chain)}
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_HASHED_ALIKE = frozenset({"BIGINT", "UINTEGER"})
"""Chains whose types have the same bytes as a key, whatever the width; decimals do too (see ``log.partitioner``)."""


def promotes(old: str, new: str) -> bool:
    """Whether every value of ``old`` is one of ``new``; a type promotes to itself."""
    if canonical(old) == canonical(new):
        return True
    (chain, rank), (other, higher) = _place(old), _place(new)
    return chain == other and rank <= higher


def related(one: str, other: str) -> bool:
    """Whether one of the two promotes to the other."""
    return promotes(one, other) or promotes(other, one)


def widest(types: Iterable[str]) -> str:
    """The type that all of ``types``, which are related to each other, promote to."""
    return max(types, key=lambda each: _place(each)[1])


def keeps_hash(old: str, new: str) -> bool:
    """Whether a key of type ``new`` goes to the same partition as the same key of type ``old``."""
    chain, _ = _place(old)
    return canonical(old) == canonical(new) or (
        related(old, new) and (chain in _HASHED_ALIKE or chain.startswith("DECIMAL"))
    )


def accepted(old: str) -> tuple[str, ...]:
    """Types that ``old`` may become, as a person is told them."""
    kind, lists = _element(old)
    if decimal := _DECIMAL.fullmatch(kind):
        return (f"DECIMAL({int(decimal[1]) + 1}..38,{decimal[2]}){lists}",) if int(decimal[1]) < 38 else ()
    for chain in _CHAINS:
        if kind in chain:
            return tuple(name + lists for name in chain[chain.index(kind) + 1 :])
    return ()


def _place(kind: str) -> tuple[str, int]:
    """The chain a type stands on, and how far along it; every type without a chain has one of its own."""
    kind, lists = _element(kind)
    if decimal := _DECIMAL.fullmatch(kind):
        return f"DECIMAL({decimal[2]}){lists}", int(decimal[1])
    chain, rank = _RANKS.get(kind, (kind, 0))
    return chain + lists, rank


def _element(kind: str) -> tuple[str, str]:
    text = canonical(kind)
    bare = text.rstrip("[]")
    return bare, text[len(bare) :]
