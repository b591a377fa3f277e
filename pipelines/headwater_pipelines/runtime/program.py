"""All live views: the stored relations that they need, in an order that needs one copy of the state.

For each stored relation that changes, inputs first: its delta is staged, the terms that join it with other
relations as they are stored at this moment are computed, and only then is it applied (``step``). Deltas that join
nothing, or in which one leaf alone can change, are inlined where they are read.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import duckdb
import pyarrow as pa

from headwater.catalog.records import to_micros
from headwater.types import quote
from headwater_pipelines.compiler import CompiledView, instant, maintain, recompute, render, top
from headwater_pipelines.compiler.forgetting import forgettable
from headwater_pipelines.compiler.lookup import KEYS, Lookup, cast_key, keyed, lookups, shows_whole_rows
from headwater_pipelines.compiler.plan import (
    Aggregate,
    Base,
    Clock,
    Derived,
    EventTime,
    Leaf,
    Node,
    Recompute,
    Select,
    Source,
    Top,
    column_names,
    inputs_of,
    is_linear,
    is_row_by_row,
    key_names,
    leaves,
    sources,
)
from headwater_pipelines.runtime import letters, watermark
from headwater_pipelines.runtime.adaptive import Adaptive
from headwater_pipelines.runtime.admission import Admitted
from headwater_pipelines.runtime.arrived import Arrived
from headwater_pipelines.runtime.bases import Store
from headwater_pipelines.runtime.blame import Blame, ViewFailed
from headwater_pipelines.runtime.state import State
from headwater_pipelines.runtime.step import Step, net

FEW_ROWS = 20_000
"""The output of a view in which each changed row gives at most one is taken at once when no more have changed."""


@dataclass
class Program:
    """All live views by id. ``stores`` holds the stored copy of every topic they read."""

    views: Mapping[int, CompiledView]
    stores: Mapping[Base, Store]
    order: list[Source] = field(init=False)
    trees: list[Node] = field(init=False)
    has_changed: bool = field(init=False, default=False)
    """Whether the last step changed any row, of a table, a state or a view; that time has passed is none."""
    adaptive: Adaptive = field(init=False, default_factory=Adaptive)
    spent_s: dict[str, float] = field(init=False, default_factory=dict)
    """What the last step spent on each stored relation, by its table; display only."""

    def __post_init__(self) -> None:
        found: dict[Source, None] = {}
        for view in self.views.values():
            found.update(dict.fromkeys(sources(view.root)))
        # Bases first: the delta of what is derived is complete only when everything below it has been processed.
        self.order = sorted(found, key=lambda source: not isinstance(source, Base))
        roots: list[Node] = [view.root for view in self.views.values()]
        inputs: list[Node] = [node for source in self.derived for node in inputs_of(source)]
        self.trees = [tree for tree in dict.fromkeys([*inputs, *roots]) if not is_linear(tree)]
        self.forgets = forgettable((view.root for view in self.views.values()), self.order)
        """Relations with rows that can go once their windows are closed, and which."""
        self._users = {source: self._users_of(source) for source in self.order}
        self._tree_users = {tree: self._users_of_tree(tree) for tree in self.trees}
        self.readers = Counter([*inputs, *roots])
        """How many nodes and views read a tree."""
        self._lookups = self._plan_lookups()
        self._distinct = {view_id for view_id, view in self.views.items() if shows_whole_rows(view.root)}
        """Views whose delta has each row once as it is."""
        self._row_by_row = {view_id for view_id, view in self.views.items() if is_row_by_row(view.root)}

    @property
    def derived(self) -> list[Derived]:
        return [source for source in self.order if not isinstance(source, Base)]

    @property
    def bases(self) -> list[Base]:
        return [source for source in self.order if isinstance(source, Base)]

    @property
    def reads_clock(self) -> bool:
        """Whether a view's rows change by themselves while time passes."""
        return any(isinstance(source, Clock) and source.event_time is None for source in self.order)

    @property
    def event_times(self) -> dict[EventTime, list[Store]]:
        """The event times of views that run, with the stored copies that follow each."""
        found: dict[EventTime, list[Store]] = {}
        for base, store in self.stores.items():
            if base.event_time is not None:
                found.setdefault(base.event_time, []).append(store)
        return found

    @property
    def loads(self) -> list[list[Store]]:
        """The stored copies that are loaded together: all that one watermark follows from."""
        single = [[store] for base, store in self.stores.items() if base.event_time is None]
        return [*single, *self.event_times.values()]

    @property
    def tables(self) -> set[str]:
        """The names of the stored relations that it needs."""
        found = {source.table for source in self.derived} | {timed.table for timed in self.event_times}
        return found.union(*(store.tables for store in self.stores.values()))

    def watermarks(self, state: State) -> dict[int, int]:
        """By view, those that there are."""
        mine = {view_id: view.event_time for view_id, view in self.views.items() if view.event_time}
        found = {view_id: watermark.value(state, timed) for view_id, timed in mine.items()}
        return {view_id: micros for view_id, micros in found.items() if micros is not None}

    def create(self, state: State, derived: Sequence[Derived], now: datetime) -> None:
        """Create and fill new states (in ``order``) from the stored relations below them, at an instant."""
        for source in derived:
            names = tuple(quote(name) for name in key_names(source) or column_names(Leaf(source)))
            with self.blame(self._users[source]):
                made = state.create(source.table, source.columns(), names)
                match source:
                    case Clock(event_time=timed):
                        mark = watermark.sql(timed, watermark.value(state, timed)) if timed else None
                        made.fill(instant.fill_sql(source, mark or instant.at(to_micros(now))))
                    case Aggregate():
                        made.fill(maintain.fill_sql(source))
                    case Recompute():
                        made.fill(recompute.fill_sql(source, {e: net(state, e.node) for e in source.inputs}))
                    case Top():
                        made.fill(top.fill_sql(source, net(state, source.input)))

    def prepare(self, state: State) -> None:
        """Make the indexes that steps look rows up with, where a relation is large enough to have any."""
        for plan in self._lookups.values():
            for each in plan:
                state.relations[each.table].prepare(each.index)

    def lookups(self, tree: Node, start: int | Source) -> tuple[Lookup, ...]:
        """How to find the rows of a tree that meet those of one leaf, or those of a stored relation's touched keys."""
        return self._lookups[tree, start]

    def is_large(self, state: State, nodes: Iterable[Node]) -> bool:
        """Whether anything that trees read is too much for memory."""
        return any(state.relations[source.table].runs for node in nodes for source in leaves(node))

    def is_searched(self, state: State, nodes: Iterable[Node]) -> bool:
        """Whether anything that trees read need not be scanned."""
        return any(state.relations[source.table].is_searched for node in nodes for source in leaves(node))

    def types(self, source: Source) -> Mapping[str, str]:
        """The types of a stored relation's columns."""
        if isinstance(source, Base):
            return {field.name: field.type for field in self.stores[source].schema.fields}
        return dict(source.columns())

    def _plan_lookups(self) -> dict[tuple[Node, int | Source], tuple[Lookup, ...]]:
        found: dict[tuple[Node, int | Source], tuple[Lookup, ...]] = {}
        if not self.stores:
            return found
        for tree in self.trees:
            for place, _ in enumerate(leaves(tree)):
                found[tree, place] = lookups(tree, place, self.types)
        for source in self.derived:
            keys = key_names(source)
            if not keys:
                continue
            kinds = {name: text for name, text in source.columns() if name in keys}
            touched = tuple(cast_key(name, kinds[name]) for name in keys)
            found[Leaf(source), source] = (Lookup(0, source.table, tuple(map(quote, keys)), KEYS, touched),)
            if isinstance(source, Recompute):
                for each in source.inputs:
                    own = dict(zip(keys, each.keys, strict=True))
                    found[each.node, source] = keyed(each.node, own, kinds, self.types)
            elif isinstance(source, Aggregate) and source.touched:
                found[source.input, source] = keyed(source.input, {key: key for key in keys}, kinds, self.types)
        return found

    def contents(self, view_id: int) -> str:
        """A SELECT of a view's whole contents, consolidated, as its changelog takes it."""
        view = self.views[view_id]
        return maintain.output_sql(view.columns, render.state(view.root))

    def scattered(self, state: State, view_id: int) -> str:
        """The same where equal rows may come apart: of any number of rows, in the memory that its joins need."""
        view = self.views[view_id]
        rows = render.state(view.root, net(state, view.root))
        return maintain.output_sql(view.columns, rows, distinct=False)

    def step(
        self, state: State, arrived: Mapping[Base, Arrived], now: datetime | None = None
    ) -> Iterator[tuple[int, pa.Table]]:
        """Apply one batch of change records; yields the output delta of each view that changed, a large one in parts.

        ``now``: the instant that the step moves to, forwards or back; without it, time stands still.
        Between two outputs no other statement can run.
        The caller holds the transaction. ViewFailed names the views whose statement DuckDB refused.
        """
        run = Step(self, state, arrived, now)
        self.spent_s, self.adaptive.whole = {}, set()
        for source in run.order():
            began = time.perf_counter()
            run.advance(source)
            self.spent_s[source.table] = time.perf_counter() - began
        self.has_changed = any(not isinstance(source, Clock) for source in run.changed)
        for view_id, view in self.views.items():
            delta = run.delta(view.root)
            if delta is None:
                continue
            is_distinct = view_id in self._distinct or run.only_adds(view.root)
            query = maintain.output_sql(view.columns, delta, distinct=not is_distinct)
            few = view_id in self._row_by_row and run.rows_of(view.root) <= FEW_ROWS
            with self.blame(frozenset({view_id})):
                for output in state.parts(query, few=few):
                    self.has_changed = True
                    yield view_id, output
        yield from self._late(run)
        for view_id, view in self.views.items():
            for rows in self.letters(view_id, run.state, run.delta) if view.letters else ():
                self.has_changed = True
                yield -view_id, rows
        self._forget(run)

    def _forget(self, run: Step) -> None:
        """Say of what is stored what nobody will look at again: it goes when it is consolidated."""
        for timed, mark in run.marks.items():
            if mark is None:
                continue
            for store in self.event_times[timed]:
                store.forget(run.state, mark)
            for source, (by, condition) in self.forgets.items():
                if by == timed:
                    run.state.relations[source.table].dead = condition.format(closed=mark - timed.grace_us)

    def letters(self, view_id: int, state: State, rows: Callable[[Select], str | None]) -> Iterator[pa.Table]:
        """A view's dead letters out of rows that fail; ViewFailed where there are too many."""
        try:
            with self.blame(frozenset({view_id})):
                yield from letters.letters(self.views[view_id], state, rows)
        except letters.TooManyLetters as error:
            raise ViewFailed(str(error), frozenset({view_id})) from error

    def _late(self, run: Step) -> Iterator[tuple[int, pa.Table]]:
        """The rows that came too late for a view, under the negative of its id."""
        for view_id, view in self.views.items():
            for store in self.event_times.get(view.event_time, ()) if view.event_time else ():
                if store.base in run.arrived and isinstance(store, Admitted) and store.has_late(run.state):
                    yield -view_id, run.state.query(store.late_sql())

    def settle(self, state: State) -> None:
        """Freeze what has grown too large to stay open; at the end of a transaction. ViewFailed as of ``step``."""
        for table, relation in state.relations.items():
            try:
                relation.settle()
            except duckdb.Error:
                with self.blame(frozenset(view for view in self.views if table in self.tables_of(view))):
                    raise

    def tables_of(self, view: int) -> set[str]:
        """The stored relations that a view reads."""
        found = {source.table for source in self.order if view in self._users[source]}
        return found | {table for base, store in self.stores.items() if base.table in found for table in store.tables}

    def forgets_of(self, source: Source) -> bool:
        """Whether a relation, or what it is computed from, lacks rows of closed windows."""
        read = {leaf for node in inputs_of(source) for leaf in leaves(node)}
        return not self.forgets.keys().isdisjoint({source, *read})

    def users(self, source: Source) -> frozenset[int]:
        """The views that read a stored relation, through whatever lies between."""
        return self._users[source]

    def tree_users(self, tree: Node) -> frozenset[int]:
        """The views that read a tree."""
        return self._tree_users[tree]

    def _users_of(self, source: Source) -> frozenset[int]:
        return frozenset(view_id for view_id, view in self.views.items() if source in sources(view.root))

    def _users_of_tree(self, tree: Node) -> frozenset[int]:
        def holds(view: CompiledView) -> bool:
            return view.root == tree or any(tree in inputs_of(source) for source in sources(view.root))

        return frozenset(view_id for view_id, view in self.views.items() if holds(view))

    @staticmethod
    def blame(users: frozenset[int]) -> Blame:
        """Names these views where a statement in its block fails."""
        return Blame(users)
