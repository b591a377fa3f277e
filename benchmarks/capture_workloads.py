"""The workloads of ``benchmarks.capture``: kinds of change, widths of row, sizes of transaction.

For each a database of its own: a table, the rows that updates and deletes need, a slot for every run, then the changes.
Runs of pg_recvlogical (protocol 1, binary, TCP, to /dev/null) and of headwater (binary, TCP, durable) alternate over
the same WAL. The last is one transaction of 5 M rows: headwater receives it while it runs, spooled to disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_KINDS: Sequence[tuple[str, str]] = (
    ("bigint", "i % 9973 * 7919 % 50000"),
    ("text", "'value ' || i % 1000"),
    ("numeric(12,2)", "(i % 100000) / 100.0"),
    ("timestamptz", "now()"),
    ("integer", "i % 9"),
    ("boolean", "i % 2 = 0"),
)


@dataclass(frozen=True)
class Workload:
    """``rows`` changes of one ``kind``, ``size`` in a transaction, of a table of ``columns`` columns."""

    name: str
    kind: str
    columns: int
    rows: int
    size: int

    @property
    def table(self) -> str:
        """The statement that creates it: an id, and the kinds in turn."""
        columns = ", ".join(f"c{place} {kind} NOT NULL" for place, (kind, _) in self._columns)
        return f"CREATE TABLE changes (id bigint PRIMARY KEY, {columns})"

    @property
    def before(self) -> str | None:
        """What fills it before the slots are made."""
        return None if self.kind == "insert" else self._insert("1", str(self.rows))

    @property
    def load(self) -> str:
        """Makes all changes, without waiting for the disk: what is measured is reading them."""
        low, high = "step", f"least(step + {self.size - 1}, {self.rows})"
        statement = {
            "insert": self._insert(low, high),
            "update": f"UPDATE changes SET {self._assignments} WHERE id BETWEEN {low} AND {high}",
            "delete": f"DELETE FROM changes WHERE id BETWEEN {low} AND {high}",
        }[self.kind]
        return (
            f"DO $$ BEGIN SET synchronous_commit = off; FOR step IN 1 .. {self.rows} BY {self.size}"
            f" LOOP {statement}; COMMIT; END LOOP; END $$"
        )

    @property
    def transactions(self) -> int:
        return -(-self.rows // self.size)

    @property
    def _columns(self) -> list[tuple[int, tuple[str, str]]]:
        return [(place, _KINDS[place % len(_KINDS)]) for place in range(self.columns - 1)]

    @property
    def _assignments(self) -> str:
        return ", ".join(f"c{place} = c{place}" for place, _ in self._columns[::2])

    def _insert(self, low: str, high: str) -> str:
        values = ", ".join(value for _, (_, value) in self._columns)
        return f"INSERT INTO changes SELECT i, {values} FROM generate_series({low}, {high}) AS i"


def workloads(less: int = 1) -> list[Workload]:
    """All of them, with as many rows ``less`` times."""
    found = [
        Workload(f"{kind}_{columns}_columns", kind, columns, rows // less, 500)
        for columns, rows in ((3, 1_500_000), (60, 500_000))
        for kind in ("insert", "update", "delete")
    ]
    single = [Workload(f"{kind}_1_row_transactions", kind, 10, 300_000 // less, 1) for kind in ("insert", "update")]
    large = Workload("insert_one_transaction", "insert", 10, 5_000_000 // less, 5_000_000 // less)
    return [*found, *single, large]
