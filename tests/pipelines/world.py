"""Random tables, their changes in both forms, and views over them that are compared with DuckDB after every step.

The oracle runs a view's own text over plain tables; the subject gets change records as a source would append them.
What was done is kept (``World.batches``), so that a failure can be done again with less of it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from headwater import types
from headwater.schema import Schema
from headwater_pipelines.compiler import CompiledView, Relations, Table, compile_view, parse
from headwater_pipelines.compiler.plan import Base
from headwater_pipelines.compiler.syntax import Duck
from headwater_pipelines.runtime.arrived import Arrived, spool
from headwater_pipelines.runtime.bases import Store, prune
from headwater_pipelines.runtime.program import Program
from headwater_pipelines.runtime.state import FILE, State

_META = {"_op": pa.string(), "_weight": pa.int64(), "_offset": pa.int64(), "_partition": pa.int32(),
         "_unchanged": pa.list_(pa.string()), "_lsn": pa.int64(), "_seq": pa.int64()}  # fmt: skip


@dataclass
class Topic:
    """A topic, the rows that its table holds now, and how many changes it had."""

    base: Base
    schema: Schema
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    offset: int = 0

    @property
    def name(self) -> str:
        return self.base.name.rpartition(".")[2]

    def kind_is(self, *kinds: str) -> bool:
        return self.base.kind in kinds

    def key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.schema.key)

    def place(self, row: Mapping[str, Any]) -> int | None:
        """Where the row of this key stands; in a table without one, an equal row."""
        names = self.schema.names
        if not self.schema.key:
            whole = tuple(row[name] for name in names)
            return self.rows.index(whole) if whole in self.rows else None
        wanted = self.key(row)
        for place, each in enumerate(self.rows):
            if self.key(dict(zip(names, each, strict=True))) == wanted:
                return place
        return None


@dataclass(frozen=True)
class Change:
    """One change of a table: a row that comes, goes, or takes the place of ``old``; or all rows go.

    ``kept``: columns that the source does not send again.
    """

    topic: str
    op: str
    row: dict[str, Any] = field(default_factory=dict)
    old: dict[str, Any] = field(default_factory=dict)
    kept: tuple[str, ...] = ()


Batch = list[Change]


class World:
    """Tables with random changes and a program of views over them. ``shapes``: their queries by name.

    ``folder``: of the state file; None keeps it in memory.
    """

    FILL = 40
    """Changes in the first batch of a table."""
    NULLS = 0.2
    """The share of NULLs in columns that are not the key's."""
    SIZES = (1, 2, 5, 20, 40)
    """Changes of a table in a later batch."""
    DIGITS = 0
    """To which floats are compared; 0: exactly."""
    TRUNCATES = 0.003
    CHOSEN = 0.6
    """The share of the tables that a batch changes."""
    LARGE = 0.2
    """The share of a batch's tables whose records come as those of a commit that does not fit into memory."""
    BRIEFLY = 0.8
    """The share of the steps whose statements are planned for few rows."""
    ZONE = "UTC"
    now = datetime(2026, 1, 20, tzinfo=UTC)
    """The instant of the next step."""

    def __init__(self, rng: random.Random, folder: Path | None, shapes: Mapping[str, str]) -> None:
        self.rng = rng
        self.topics = self.tables()
        self.batches: list[Batch] = []
        self.number = 0
        """Of the step."""
        self.compared = 0
        """Views compared after a change of what they read."""
        self.oracle = duckdb.connect(config={"threads": 1})
        self.oracle.execute("ATTACH ':memory:' AS shop; CREATE SCHEMA shop.public")
        self.oracle.execute("SET search_path = 'memory.main,shop.public'; SET TimeZone = '" + self.ZONE + "'")
        # With it DuckDB 2.0 forgets LIMIT 1 over `x > ANY (SELECT ...)` where the answer is read by NOT EXISTS.
        self.oracle.execute("SET disabled_optimizers = 'statistics_propagation'")
        for macro in types.MACROS:
            self.oracle.execute(f"CREATE MACRO {macro.removeprefix('MACRO ')}")
        for topic in self.topics:
            body = ", ".join(f"{types.quote(f.name)} {f.type}" for f in topic.schema.fields)
            self.oracle.execute(f"CREATE TABLE {topic.base.name} ({body})")
        self.views = self.compile(shapes)
        used: dict[Base, frozenset[str]] = {}
        for view in self.views.values():
            for base, names in view.used.items():
                used[base] = used.get(base, frozenset()) | names
        schemas = {topic.base: topic.schema for topic in self.topics}
        self.stores = {base: Store(base, prune(schemas[base], names)) for base, names in used.items()}
        self.state = State(folder / FILE if folder else Path(":memory:"), timezone=self.ZONE, threads=1)
        self.program = Program(self.views, self.stores)
        for store in self.stores.values():
            store.create(self.state)
        self.program.create(self.state, self.program.derived, self.now)
        for view_id in self.views:
            self.publish(view_id, self.state.query(self.program.contents(view_id)))

    # ---- what a world is of

    def tables(self) -> list[Topic]:
        whole = self.rng.choice(["SMALLINT", "INTEGER", "BIGINT", "HUGEINT"])
        exact = self.rng.choice(["DECIMAL(4,2)", "DECIMAL(9,2)", "DECIMAL(12,2)", "DECIMAL(18,6)", "DECIMAL(38,3)"])
        print(f"types: a {whole}, b {exact}")
        return [
            self.topic("items", 1, "table", ["id"], id="BIGINT", k="VARCHAR", grp="INTEGER", a=whole, b=exact,
                       f="DOUBLE", s="VARCHAR", d="DATE"),
            self.topic("refs", 2, "table", ["k1", "k2"], k1="VARCHAR", k2="INTEGER", name="VARCHAR"),
            self.topic("bag", 3, "multiset", [], k="VARCHAR", x="INTEGER"),
            self.topic("events", 4, "insert_only", [], grp="INTEGER", n="BIGINT"),
        ]  # fmt: skip

    def topic(self, table: str, number: int, kind: str, key: list[str], /, **columns: str) -> Topic:
        return Topic(Base(f"shop.public.{table}", number, kind), Schema.of(columns, key=key))

    def compile(self, shapes: Mapping[str, str]) -> dict[int, CompiledView]:
        """The views of these queries by number, here and in the oracle."""
        self.begin_compiling()
        for name, sql in shapes.items():
            self.add(name, sql)
        return self.compiled

    def begin_compiling(self) -> None:
        self.relations: list[Any] = [Table(topic.base, topic.schema) for topic in self.topics]
        self.duck, self.compiled = Duck(), dict[int, CompiledView]()
        self.folds: dict[int, Counter[str]] = {}
        """The rows that each view's changelog adds up to, and how often."""

    def add(self, name: str, sql: str) -> None:
        """One more view, which later ones may read."""
        view = compile_view(parse(sql, name=f"view_{name}"), Relations(self.relations), self.duck)
        columns = [
            (row[0], types.canonical(row[1])) for row in self.oracle.execute(f"DESCRIBE {view.query}").fetchall()
        ]
        assert list(view.columns) == columns, name
        number = len(self.compiled) + 1
        self.relations.append(view.as_relation())
        self.compiled[number] = view
        self.oracle.execute(f"CREATE VIEW view_{name} AS {view.query}")
        self.folds[number] = Counter()

    def shown(self, row: tuple[Any, ...]) -> str:
        """A row as it is compared: 0.0 is -0.0, and floats have ``DIGITS``."""
        return repr(tuple(self._value(value) for value in row))

    def _value(self, value: Any) -> Any:
        match value:
            case float():
                return f"{value + 0.0:.{self.DIGITS}g}" if self.DIGITS else value + 0.0
            case list():
                return [self._value(each) for each in value]
            case dict():
                return {key: self._value(each) for key, each in value.items()}
        return value

    def mended(self, topic: Topic, row: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """What a row has to be for the queries to end."""
        return row

    def value(self, topic: Topic, name: str, text: str) -> Any:
        rng = self.rng
        if name not in topic.schema.key and rng.random() < self.NULLS:
            return None
        if name == "id":
            return rng.randrange(40)
        makers: dict[str, Any] = {
            "VARCHAR": lambda: rng.choice("xyz") if name != "name" else rng.choice(["ada", "bob", "cy"]),
            "DECIMAL": lambda: Decimal(rng.randrange(-9999, 9999)).scaleb(-2),
            "DOUBLE": lambda: rng.randrange(-40, 40) / 4,  # quarters: any order of addition gives the same sum
            "DATE": lambda: date(2026, 1, 1) + timedelta(days=rng.randrange(60)),
        }
        return makers.get(text.partition("(")[0], lambda: rng.randrange(-2, 6))()

    # ---- steps

    def step(self) -> None:
        """One random batch."""
        self.apply(self.batch())

    def apply(self, batch: Batch) -> None:
        """The program applies a batch in one transaction, then all views are compared."""
        self.batches.append(batch)
        self.number += 1
        records: dict[str, list[dict[str, Any]]] = {}
        topics = {topic.name: topic for topic in self.topics}
        for change in batch:
            records.setdefault(change.topic, []).extend(self.record(topics[change.topic], change))
        arrived = {
            topic.base: self.arrived(topic, self.arrow(topic, records[topic.name]))
            for topic in self.topics
            if records.get(topic.name) and topic.base in self.stores
        }
        for name in records:
            self.write_oracle(topics[name])
        self.state.plan(briefly=self.rng.random() < self.BRIEFLY)
        self.state.begin()
        for view_id, output in self.program.step(self.state, arrived, self.now):
            self.publish(view_id, output)
        self.program.settle(self.state)
        self.merge()
        self.state.commit()
        for view_id in self.reading(arrived):
            self.compare(view_id)
            self.compared += 1

    def arrived(self, topic: Topic, records: pa.Table) -> Arrived:
        """The records as those of an ordinary step, or as those of a large one."""
        if self.rng.random() >= self.LARGE:
            return Arrived.of(records)
        size = self.rng.choice([1, 3, 50])
        places = range(len(records))
        # Copies, as the log gives them: DuckDB does not read a slice of a struct.
        pieces = (records.take(pa.array(places[first : first + size])) for first in places[::size])
        return spool(self.state, f"arrived_{topic.name}", pieces)

    def compare_all(self) -> None:
        for view_id in self.views:
            self.compare(view_id)

    def reading(self, changed: Iterable[Base]) -> list[int]:
        """The views that read one of these tables."""
        return [view_id for view_id, view in self.views.items() if not view.used.keys().isdisjoint(changed)]

    def publish(self, view_id: int, output: pa.Table) -> None:
        """A view's change, as its changelog takes it: no row comes and goes in it, none is there less than never."""
        view = self.views[view_id]
        signs: dict[str, set[bool]] = {}
        for row, weight in self.read_output(view, output):
            assert weight, f"{view.name}: a change of weight 0: {row}"
            signs.setdefault(repr(row), set()).add(weight > 0)  # as it is: the last digit of a float may change
            self.folds[view_id][self.shown(row)] += weight
        changed = [row for row in signs if len(signs[row]) > 1]
        assert not changed, f"{view.name}: rows that come and go in one step: {changed[:8]}"
        never = [row for row in signs if self.folds[view_id][row] < 0]
        assert not never, f"{view.name}: rows deleted that never were: {never[:8]}"

    def read_output(self, view: CompiledView, output: pa.Table) -> list[tuple[tuple[Any, ...], int]]:
        """Rows in file types as DuckDB shows them, with their weights."""
        self.oracle.register("output", output)
        lifted = ", ".join(types.lift_sql(name, text) for name, text in view.columns)
        rows = self.oracle.execute(f"SELECT {lifted}, _weight FROM output").fetchall()
        self.oracle.unregister("output")
        return [(row[:-1], row[-1]) for row in rows]

    def merge(self) -> None:
        """Now and then two runs of a relation become one, as a worker does it beside its steps."""
        for stored in self.state.relations.values():
            if len(stored.runs) > 1 and self.rng.random() < 0.2:
                parts = self.rng.sample(stored.runs, 2)
                stored.replace(parts, stored.merge(parts))

    def compare(self, view_id: int) -> None:
        """The folded changelog equals the query."""
        view = self.views[view_id]
        wanted = Counter(map(self.shown, self.oracle.execute(view.query).fetchall()))
        found = self.folds[view_id]
        assert wanted == +found, f"{view.name}: missing {wanted - found}, extra {found - wanted}"[:2000]

    def compare_contents(self, view_id: int) -> None:
        """What is stored of a view is what its changelog adds up to."""
        view = self.views[view_id]
        stored = Counter[str]()
        for row, weight in self.read_output(view, self.state.query(self.program.contents(view_id))):
            stored[self.shown(row)] += weight
        found = self.folds[view_id]
        assert +stored == +found, f"{view.name}: stored {+(stored - found)}, published {+(found - stored)}"[:2000]

    # ---- the writer

    def batch(self) -> Batch:
        """Random changes of some tables. The rows they meet are those of now, and they are not applied yet."""
        chosen = [t for t in self.topics if self.rng.random() < self.CHOSEN] or [self.rng.choice(self.topics)]
        found: Batch = []
        for topic in chosen:
            rows = list(topic.rows)
            # The first batch fills the table, or groups would be too small to tell right from nearly right.
            for _ in range(self.rng.choice(self.SIZES) if topic.offset else self.FILL):
                change = self.change(topic)
                if change is not None:
                    found.append(change)
                    _write(topic, change)
            topic.rows = rows
        return found

    def change(self, topic: Topic) -> Change | None:
        """None where the key of a new row is taken."""
        roll, names = self.rng.random(), topic.schema.names
        if roll < self.TRUNCATES and topic.offset and not topic.kind_is("event"):
            return Change(topic.name, "t")
        fresh = self.mended(topic, dict(zip(names, self.row(topic), strict=True)))
        if not topic.rows or roll < 0.45 or topic.kind_is("insert_only", "event"):
            return Change(topic.name, "c", fresh) if not topic.schema.key or topic.place(fresh) is None else None
        old = dict(zip(names, self.rng.choice(topic.rows), strict=True))
        if roll < 0.65:
            return Change(topic.name, "d", old)
        new = self.mended(topic, {name: fresh[name] if self.rng.random() < 0.4 else old[name] for name in names})
        if self.rng.random() < 0.1:
            new = dict(old)  # an update that changes nothing
        moved = topic.schema.key and topic.key(new) != topic.key(old)
        if moved and topic.place(new) is not None:
            return None
        kept = [n for n in names if n not in topic.schema.key and new[n] == old[n] and self.rng.random() < 0.5]
        return Change(topic.name, "u", new, old, tuple(kept) if topic.schema.key else ())

    def row(self, topic: Topic) -> list[Any]:
        return [self.value(topic, field.name, field.type) for field in topic.schema.fields]

    def record(self, topic: Topic, change: Change) -> list[dict[str, Any]]:
        """A change applied to the oracle's rows, as change records; none where it no longer fits them."""
        fitting = _fitting(topic, change)
        if fitting is None:
            return []
        change = fitting
        _write(topic, change)
        sent = {name: None if name in change.kept else value for name, value in change.row.items()}
        new = {**sent, "_op": "c", "_weight": 1, "_unchanged": list(change.kept) or None}
        gone = {name: value for name, value in (change.old or change.row).items() if name in topic.schema.key}
        old = {**(gone or change.old or change.row), "_op": "d", "_weight": -1}
        match change.op:
            case "t":
                records = [{"_op": "t", "_weight": 0}]
            case "c":
                records = [new]
            case "d":
                records = [old]
            case _ if topic.schema.key and topic.key(change.row) == topic.key(change.old):
                records = [{**new, "_op": "u"}]
            case _:
                records = [old, new]
        for place, each in enumerate(records):
            # The two halves of a changed key share their place in the source.
            each.update(_offset=topic.offset + place, _partition=0, _lsn=self.number, _seq=topic.offset)
        topic.offset += len(records)
        return records

    def arrow(self, topic: Topic, records: list[dict[str, Any]]) -> pa.Table:
        """Change records as the log gives them to a stored copy."""
        store = self.stores[topic.base]
        columns: dict[str, pa.Array] = {}
        for f in store.schema.fields:
            columns[f.name] = pa.array([item.get(f.name) for item in records], types.arrow_type(f.type))
        for name in store.reads[len(store.schema.names) :]:
            columns[name] = pa.array([item.get(name) for item in records], _META[name])
        # An event topic without columns to read still has its rows.
        return pa.table(columns) if columns else pa.table({"_partition": pa.array([0] * len(records), pa.int32())})

    def write_oracle(self, topic: Topic) -> None:
        self.oracle.execute(f"DELETE FROM {topic.base.name}")
        if not topic.rows:
            return
        columns = zip(topic.schema.fields, zip(*topic.rows, strict=True), strict=True)
        rows = pa.table({f.name: pa.array(values, types.arrow_type(f.type)) for f, values in columns})
        lifted = ", ".join(types.lift_sql(f.name, f.type) for f in topic.schema.fields)
        self.oracle.register("rows", rows)
        self.oracle.execute(f"INSERT INTO {topic.base.name} SELECT {lifted} FROM rows")
        self.oracle.unregister("rows")

    def replay(self, batches: Iterable[Batch]) -> None:
        """Batches of another world over the same tables."""
        for batch in batches:
            self.apply(batch)


def _fitting(topic: Topic, change: Change) -> Change | None:
    """The change as it can be done to the rows of now: with other changes before it, it may mean nothing."""
    if change.op == "t":
        return change
    there = topic.place(change.old or change.row)
    if change.op == "c":
        return None if topic.schema.key and there is not None else change
    if there is None:
        return None
    if change.op == "u" and topic.schema.key:
        if topic.key(change.row) != topic.key(change.old) and topic.place(change.row) is not None:
            return None
        now = dict(zip(topic.schema.names, topic.rows[there], strict=True))
        return Change(change.topic, "u", {**change.row, **{name: now[name] for name in change.kept}}, now, change.kept)
    return change


def _write(topic: Topic, change: Change) -> None:
    """Do a change that fits to the rows."""
    if change.op == "t":
        topic.rows.clear()
        return
    if change.op != "c":
        place = topic.place(change.old or change.row)
        assert place is not None
        del topic.rows[place]
    if change.op != "d":
        topic.rows.append(tuple(change.row.values()))
