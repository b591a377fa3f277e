"""Random but possible histories of a table, and the plain Python model of what its rows are at each commit.

The model never looks at headwater: a dict of rows (or a Counter of them) changed by the same operations that the
records describe. Histories hold creates, updates that leave values unsent, deletes, key changes (chains of them
too), truncates, keys that come back, and rows copied again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from headwater import record
from headwater.schema import Schema

KEYED = Schema.of({"a": "BIGINT", "b": "VARCHAR", "x": "BIGINT", "y": "VARCHAR", "z": "DECIMAL(12,2)"}, key=["a", "b"])
BAG = Schema.of({"x": "BIGINT", "y": "VARCHAR"})

Row = tuple[Any, ...]
_DATA = ("x", "y", "z")


class KeyedHistory:
    """A keyed table's random history. ``rows`` is the truth: key → values of the other columns."""

    schema = KEYED

    def __init__(self, seed: int, keys: int = 12) -> None:
        self.random = random.Random(seed)
        self.keys = keys
        self.rows: dict[tuple[int, str], list[Any]] = {}
        self._lsn = 1000
        self._seq = 0

    def commit(self, transactions: int = 3, changes: int = 6) -> pa.Table:
        """The records of one commit of whole source transactions; ``rows`` stands after it."""
        records: list[dict[str, Any]] = []
        for _ in range(self.random.randint(1, transactions)):
            self._lsn, self._seq = self._lsn + 10, 0
            for _ in range(self.random.randint(1, changes)):
                self._seq += 1
                records += self._change()
        return _table(records, self.schema, {record.LSN, record.SEQ, record.UNCHANGED, record.OP})

    def expected(self) -> set[Row]:
        """The rows now, in the schema's order."""
        return {(*key, *values) for key, values in self.rows.items()}

    def _change(self) -> Iterator[dict[str, Any]]:
        held, free = list(self.rows), [key for key in self._all_keys() if key not in self.rows]
        roll = self.random.random()
        if roll < 0.02:
            self.rows.clear()
            return iter([self._record("t", (None, None), [None] * 3)])
        if held and free and roll < 0.2:
            return self._move(self.random.choice(held), self.random.choice(free))
        if held and roll < 0.6:
            return self._update(self.random.choice(held))
        if held and roll < 0.75:
            key = self.random.choice(held)
            del self.rows[key]
            return iter([self._record("d", key, [None] * 3)])
        key = self.random.choice(free or held)
        self.rows[key] = [self._value(name) for name in _DATA]
        return iter([self._record(self.random.choice("cr") if key in free else "r", key, self.rows[key])])

    def _update(self, key: tuple[int, str]) -> Iterator[dict[str, Any]]:
        sent, unchanged = self._changed(self.rows[key])
        yield self._record("u", key, sent, unchanged)

    def _move(self, old: tuple[int, str], new: tuple[int, str]) -> Iterator[dict[str, Any]]:
        values = self.rows.pop(old)
        sent, unchanged = self._changed(values)
        self.rows[new] = values
        yield self._record("d", old, [None] * 3)
        yield self._record("c", new, sent, unchanged)

    def _changed(self, values: list[Any]) -> tuple[list[Any], list[str]]:
        """Change some of ``values`` in place; what a source sends of them, and which it does not send."""
        unchanged = []
        for place, name in enumerate(_DATA):
            if self.random.random() < 0.4:
                values[place] = self._value(name)
            elif self.random.random() < 0.7:
                unchanged.append(name)
        return [None if name in unchanged else value for name, value in zip(_DATA, values, strict=True)], unchanged

    def _record(self, op: str, key: tuple[Any, Any], values: list[Any], unchanged: list[str] | None = None) -> Any:
        return {
            "a": key[0],
            "b": key[1],
            **dict(zip(_DATA, values, strict=True)),
            record.OP: op,
            record.LSN: self._lsn,
            record.SEQ: self._seq,
            record.UNCHANGED: unchanged or None,
        }

    def _value(self, name: str) -> Any:
        return None if self.random.random() < 0.2 else random_value(self.schema.field(name).type, self.random)

    def _all_keys(self) -> list[tuple[int, str]]:
        return [(number, "it's" if number % 2 else "") for number in range(self.keys)]


class BagHistory:
    """A keyless table's (``multiset``) or a view's (``changelog``) random history; ``rows`` counts each row."""

    schema = BAG

    def __init__(self, seed: int, kind: str) -> None:
        self.random = random.Random(seed)
        self.kind = kind
        self.rows: Counter[Row] = Counter()

    def commit(self, changes: int = 12) -> pa.Table:
        """The records of one commit; ``rows`` stands after it."""
        records = [r for _ in range(self.random.randint(1, changes)) for r in self._change()]
        return _table(records, self.schema, {record.WEIGHT} if self.kind == "changelog" else {record.WEIGHT, record.OP})

    def expected(self) -> Counter[Row]:
        return +self.rows

    def _change(self) -> list[dict[str, Any]]:
        held = list(self.rows.elements())
        roll = self.random.random()
        if self.kind == "multiset" and roll < 0.03:
            self.rows.clear()
            return [self._record("t", (None, None), 0)]
        if held and roll < 0.3:
            return [self._weigh("d", self.random.choice(held), -1)]
        if held and roll < 0.5:
            return [self._weigh("u", self.random.choice(held), -1), self._weigh("u", self._row(), 1)]
        return [self._weigh("c", self._row(), self.random.choice([1, 1, 3]) if self.kind == "changelog" else 1)]

    def _weigh(self, op: str, row: Row, weight: int) -> dict[str, Any]:
        self.rows[row] += weight
        return self._record(op, row, weight)

    def _row(self) -> Row:
        return (self.random.choice([None, 1, 2, 3]), self.random.choice([None, "", "a"]))

    def _record(self, op: str, row: Row, weight: int) -> dict[str, Any]:
        return {"x": row[0], "y": row[1], record.OP: op, record.WEIGHT: weight}


def random_value(duckdb_type: str, source: random.Random) -> Any:
    """A Python value for a column of a few common types, small enough to meet again."""
    if duckdb_type.startswith("DECIMAL"):
        from decimal import Decimal

        return Decimal(source.randint(-500, 500)).scaleb(-2)
    return source.randint(-9, 9) if duckdb_type == "BIGINT" else source.choice(["", "a", "ß", "a'b", "long" * 50])


def _table(records: list[dict[str, Any]], schema: Schema, metadata: set[str]) -> pa.Table:
    fields = [*schema.arrow(), *((name, record.EXPLICIT[name]) for name in sorted(metadata))]
    return pa.Table.from_pylist(records, schema=pa.schema(fields))
