"""Stored copies of topics with an event time: rows that come behind the watermark are kept apart.

A change is taken commit by commit, as rows that go (-1) and rows that come (+1). Those whose time is not behind the
watermark of the commits before, by more than the grace, are admitted; the others are late: they go to the view's side
topic, and the copy stays as it was. ``behind`` holds them by weight, so that

    the topic's rows  =  admitted + behind

is where the row before a change is looked up. NULL and infinite times are never late.
"""

from __future__ import annotations

from headwater import record
from headwater.log import moves
from headwater.types import quote
from headwater_pipelines.compiler.plan import WEIGHT, EventTime
from headwater_pipelines.runtime import watermark
from headwater_pipelines.runtime.arrived import Arrived
from headwater_pipelines.runtime.bases import META, Store, filled_sql, is_identity
from headwater_pipelines.runtime.state import ARRIVED, State

ADMITTED, BEFORE = "_admitted", "_before"


class Admitted(Store):
    """See above. ``watermark.advance`` comes before ``stage`` and ``load``, once for all of a view's topics."""

    @property
    def timed(self) -> EventTime:
        timed = self.base.event_time
        if timed is None:
            raise TypeError(f"{self.base.name} has no event time")
        return timed

    @property
    def reads(self) -> list[str]:
        meta = [name for name in META[self.base.kind] if name != record.PARTITION]
        return [*self.schema.names, *meta, record.PARTITION, record.COMMIT, record.INGESTED_AT]

    @property
    def tables(self) -> tuple[str, ...]:
        return (self.base.table, self.behind)

    @property
    def behind(self) -> str:
        """The stored relation of late rows."""
        return f"behind_{self.base.table}"

    def create(self, state: State) -> None:
        super().create(state)
        made = state.relations[self.base.table]
        state.create(self.behind, made.columns, made.primary)

    def load(self, state: State, changes: Arrived) -> None:
        self.apply(state, self.stage(state, changes))
        if self.has_late(state):
            state.relations[watermark.held(self.timed)].append(f"SELECT *, 1 FROM ({self.late_sql()})")

    def stage(self, state: State, changes: Arrived) -> int:
        if changes.rows == 0:
            return 0
        if changes.table is not None:
            state.connection.register(ARRIVED, changes.table)
        time = watermark.micros_sql(self.timed, quote(self.timed.column(self.base.topic)))
        late = f"coalesce({time} < {BEFORE} - {self.timed.grace_us}, false)"
        cuts = f"SELECT {record.COMMIT}, before AS {BEFORE} FROM {quote(watermark.cuts(self.timed))}"
        judged = f"SELECT *, NOT {late} AS {ADMITTED} FROM ({self._gross(state, changes)})"
        judged += f" JOIN ({cuts}) USING ({record.COMMIT})"
        state.temporary(f"CREATE OR REPLACE TEMP TABLE {quote(self._judged)} AS {judged}")
        if changes.table is not None:
            state.connection.unregister(ARRIVED)  # a rollback does it otherwise
        rows = f"SELECT {self.columns}, {WEIGHT} FROM {quote(self._judged)} WHERE"
        if self.base.kind != "event" and self.has_late(state):
            state.relations[self.behind].append(f"{rows} NOT {ADMITTED}")
        return state.temporary(f"CREATE OR REPLACE TEMP TABLE {quote(self.delta)} AS {rows} {ADMITTED}")

    def forget(self, state: State, mark: int) -> None:
        """Let go of rows that are out of the view for good. Of a table with a key the next change needs the row."""
        if self.timed.ttl_us is None or self.base.kind == "table":
            return
        time = watermark.micros_sql(self.timed, quote(self.timed.column(self.base.topic)))
        for table in self.tables:
            state.relations[table].dead = f"{time} <= {mark - self.timed.ttl_us}"

    def has_late(self, state: State) -> bool:
        """Whether the step that was staged last has late rows."""
        return bool((state.row(f"SELECT bool_or(NOT {ADMITTED}) FROM {quote(self._judged)}") or (False,))[0])

    def late_sql(self) -> str:
        """A SELECT of the late rows that were staged last, as the side topic takes them."""
        timed, name = self.timed, self.base.name.replace("'", "''")
        time = f"CAST({quote(timed.column(self.base.topic))} AS {timed.type})"
        mark = watermark.sql(timed, BEFORE)
        grace = f"to_microseconds({timed.grace_us})"
        reason = f"'behind the watermark by ' || ({mark} - {time})"
        if timed.grace_us:
            reason += f" || ', the grace is ' || {grace}"
        row = ", ".join(f"{quote(each)} := {quote(each)}" for each in self.schema.names)
        return (
            f"SELECT '{name}' AS topic, {time} AS event_time, {mark} AS watermark, {reason} AS reason,"
            f" CASE WHEN {WEIGHT} > 0 THEN 'insert' ELSE 'delete' END AS change, abs({WEIGHT}) AS copies,"
            f" {record.COMMIT} AS input_commit, CAST(to_json(struct_pack({row})) AS VARCHAR) AS row"
            f" FROM {quote(self._judged)} WHERE NOT {ADMITTED}"
        )

    @property
    def _judged(self) -> str:
        return f"j_{self.base.table}"

    # ---- what each commit changes

    def _gross(self, state: State, changes: Arrived) -> str:
        """SQL of the rows that go and come, with weight and commit."""
        if self.base.kind == "table" and not self.grows(changes):
            return self._versions(state, changes)
        weight = record.WEIGHT if self.base.is_bag else "1::BIGINT"
        rows = f"SELECT {self._lifted()}, {weight} AS {WEIGHT}, {record.COMMIT}"
        if "t" not in changes.ops:
            return f"{rows} FROM {changes.source}"
        rows += f", {record.OFFSET}, {record.PARTITION} FROM {changes.source} WHERE {record.OP} <> 't'"
        return self._truncated(state, changes, rows)

    def _truncated(self, state: State, changes: Arrived, rows: str) -> str:
        """A truncation takes back all that was there before, in its own commit."""
        commit, offset, partition = record.COMMIT, record.OFFSET, record.PARTITION
        return f"""WITH cut AS (SELECT {partition} AS cut_in, {offset} AS cut_at, {commit} AS cut FROM {changes.source}
  WHERE {record.OP} = 't'),
made AS (SELECT * FROM ({rows}) AS r ASOF LEFT JOIN cut ON r.{partition} = cut_in AND r.{offset} < cut_at)
SELECT {self.columns}, {WEIGHT}, {commit} FROM made WHERE {commit} IS DISTINCT FROM cut
UNION ALL SELECT {self.columns}, -{WEIGHT}, cut FROM made WHERE cut <> {commit}
UNION ALL SELECT {self.columns}, -{WEIGHT}, (SELECT min(cut) FROM cut) FROM {self._everything(state, "")}"""

    def _versions(self, state: State, changes: Arrived) -> str:
        """Of every key that changes, the rows that it has between commits: each comes with one and goes with one."""
        keys = ", ".join(map(quote, self.schema.key))
        commit, offset, partition, op = record.COMMIT, record.OFFSET, record.PARTITION, record.OP
        meta = ", ".join([*META["table"], commit])
        source = f"SELECT {self._lifted()}, {meta} FROM {changes.source}"
        truncated = "t" in changes.ops
        prior = self._everything(state, "" if truncated else source)
        if (state.row(moves.exist_sql(source)) or (False,))[0]:
            rows = f"SELECT {self.columns} FROM {prior}"
            source = moves.complete(state.connection, self.schema, source, rows)
        touched = "" if truncated else f" WHERE ({keys}) IN (SELECT ({keys}) FROM changes)"
        filled = ", ".join(filled_sql(self.schema, name) for name in self.schema.names)
        rows = f"""WITH changes AS MATERIALIZED ({source}),
current AS (SELECT {self.columns} FROM {prior}{touched}),
cuts AS (SELECT {partition} AS cut_in, {offset} AS cut_at, {commit} AS cut FROM changes WHERE {op} = 't'),
records AS (SELECT {self.columns}, {op}, {record.UNCHANGED}, {offset}, {partition}, {commit} FROM changes
    WHERE {op} <> 't'
  UNION ALL SELECT {self.columns}, 'c', NULL, -1, (SELECT min(cut_in) FROM cuts), 0 FROM current),
spans AS (SELECT {filled}, {op}, {offset}, {partition}, {commit},
  lead({commit}) OVER (PARTITION BY {keys} ORDER BY {offset}) AS next FROM records),
bounded AS (SELECT spans.*, cut FROM spans ASOF LEFT JOIN cuts ON {partition} = cut_in AND {offset} < cut_at),
made AS (SELECT {self.columns}, {commit}, least(next, cut) AS gone FROM bounded WHERE {op} <> 'd')
SELECT {self.columns}, 1::BIGINT AS {WEIGHT}, {commit} FROM made WHERE {commit} > 0 AND {commit} IS DISTINCT FROM gone
UNION ALL SELECT {self.columns}, -1, gone FROM made WHERE gone <> {commit}"""
        if not all(is_identity(field.type) for field in self.schema.fields):
            return rows
        # An update of columns that the view does not read changes nothing.
        summed = f"SELECT {self.columns}, sum({WEIGHT})::BIGINT AS {WEIGHT}, {commit} FROM ({rows})"
        return f"{summed} GROUP BY ALL HAVING sum({WEIGHT}) <> 0"

    def _everything(self, state: State, source: str) -> str:
        """The topic's rows that stand, those at least that have a key of ``source``: admitted ones and late ones."""
        keys, parts = ", ".join(map(quote, self.schema.key)), []
        for table in self.tables:
            relation, found = state.relations[table], f"p_{table}"
            index = tuple(map(quote, self.schema.key))
            few = source and relation.runs and relation.find(index, f"SELECT {keys} FROM ({source})", found)
            parts.append(f"SELECT {self.columns}, {WEIGHT} FROM {quote(found if few else table)}")
        both = f"({' UNION ALL '.join(parts)})"
        return f"({state.relations[self.base.table].current_sql(both)})"
