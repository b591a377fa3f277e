"""One step in progress: of each stored relation the delta, the join terms that it takes part in, then the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from headwater.catalog.records import to_micros
from headwater.types import quote
from headwater_pipelines.compiler import instant, maintain, recompute, render, top
from headwater_pipelines.compiler.lookup import KEYS, Lookup
from headwater_pipelines.compiler.plan import (
    Aggregate,
    Base,
    Clock,
    EventTime,
    Input,
    Leaf,
    Node,
    Recompute,
    Source,
    Top,
    digest,
    inputs_of,
    is_linear,
    leaves,
)
from headwater_pipelines.compiler.render import delta_table
from headwater_pipelines.runtime import watermark
from headwater_pipelines.runtime.arrived import Arrived
from headwater_pipelines.runtime.relation import Found
from headwater_pipelines.runtime.runs import Index
from headwater_pipelines.runtime.state import State

if TYPE_CHECKING:
    from headwater_pipelines.runtime.program import Program

SELECTIVE_KEYS = 500
"""With fewer touched keys, to read one input before the others costs more than it saves."""

_Delta = tuple[str | None, Found | None]
"""A SELECT of a relation's delta, if it has any, and what was looked up for it."""


class Step:
    """Made for one step, inside its transaction; ``advance`` is called once for every relation, in ``order``."""

    def __init__(self, program: Program, state: State, arrived: Mapping[Base, Arrived], now: datetime | None) -> None:
        self.program = program
        self.state = state
        self.arrived = {base: records for base, records in arrived.items() if records.rows}
        self.changed: set[Source] = set()
        self.rows: dict[Source, int] = {}
        """Of the delta of each that changed."""
        self.advanced: set[Source] = set()
        """Those whose turn has come."""
        self.applied: set[str] = set()
        """The tables of those that changed and are brought up to date."""
        self.growing = {base for base, records in self.arrived.items() if program.stores[base].grows(records)}
        self.filled: set[Node] = set()
        self.terms: dict[Node, list[str]] = {}
        """Of trees that one node alone reads, the terms so far, if none of what they read changes any more."""
        self.deltas: dict[Node, str | None] = {}
        self.touched: dict[str, int] = {}
        """The tables of touched keys that this step has made, and their rows: nodes with the same keys share one."""
        self.looked: dict[tuple[str, Index, str], str] = {}
        """The table that each look-up of this step has found: of views over the same tables many ask for the same."""
        self.marks = self._advance_watermarks()
        self.may: dict[Source, bool] = {}
        for source in program.order:
            self.may[source] = self._may(source, now)
        self.joined = [tree for tree in program.trees if self._positions(tree) > 1]

    def _advance_watermarks(self) -> dict[EventTime, int | None]:
        """Watermarks that may have moved."""
        found = {}
        for timed, stores in self.program.event_times.items():
            arrived = {store: self.arrived[store.base] for store in stores if store.base in self.arrived}
            if arrived:
                with self.program.blame(self.program.users(next(iter(arrived)).base)):
                    watermark.advance(self.state, timed, arrived)
                found[timed] = watermark.value(self.state, timed)
        return found

    def _may(self, source: Source, now: datetime | None) -> bool:
        """Whether a relation can change in this step; of a clock it is known, its delta is made here."""
        match source:
            case Base():
                return source in self.arrived
            case Clock(event_time=timed):
                if timed is None:
                    value = None if now is None else instant.at(to_micros(now))
                else:
                    value = watermark.sql(timed, self.marks[timed]) if timed in self.marks else None
                if value is None:
                    return False
                with self.program.blame(self.program.users(source)):
                    rows = self._temporary(delta_table(source), instant.delta_sql(source, value))
                    for statement in instant.bounds_sql(source) if rows else ():
                        self.state.temporary(statement)
                    return rows > 0
        return any(self.may[leaf] for node in inputs_of(source) for leaf in leaves(node))

    def order(self) -> list[Source]:
        """Bases first, small ones before those that are searched: terms that read them can then be computed later."""
        relations = self.state.relations

        def place(source: Source) -> int:
            return 1 + relations[source.table].is_searched if isinstance(source, Base) else 3

        return sorted(self.program.order, key=place)

    def advance(self, source: Source) -> None:
        """Stage a relation's delta, compute the join terms it takes part in, apply it."""
        rows = self._stage(source) if self.may[source] else 0
        self.advanced.add(source)
        if not rows:
            return
        self.changed.add(source)
        self.rows[source] = rows
        for tree in self.joined:
            self._terms(tree, source)
        with self.program.blame(self.program.users(source)):
            self.state.relations[source.table].add(f"SELECT * FROM {quote(delta_table(source))}", rows)
        self.applied.add(source.table)
        self.looked = {known: name for known, name in self.looked.items() if known[0] != source.table}

    def delta(self, tree: Node) -> str | None:
        """A SELECT of a tree's delta once all its leaves have advanced; None when nothing changed."""
        if tree not in self.deltas:
            self.deltas[tree] = self._delta(tree)
        return self.deltas[tree]

    def rows_of(self, tree: Node) -> int:
        """How many rows the deltas have that a tree reads."""
        return sum(self.rows.get(leaf, 0) for leaf in leaves(tree))

    def _delta(self, tree: Node) -> str | None:
        if tree in self.joined:
            made = [f"SELECT * FROM {quote(_table(tree))}"] if tree in self.filled else []
            return " UNION ALL ".join([*made, *self.terms.get(tree, [])]) or None
        changed = [(place, source) for place, source in enumerate(leaves(tree)) if source in self.changed]
        if is_linear(tree):
            return " UNION ALL ".join(render.term(tree, place) for place, _ in changed) or None
        with self.program.blame(self.program.tree_users(tree)):
            return " UNION ALL ".join(self._term(tree, place) for place, _ in changed) or None

    def only_adds(self, tree: Node) -> bool:
        """Whether every weight in the tree's delta is positive: nothing in it can cancel out.

        What is stored may hold rows that do, so a join may meet them.
        """
        adds = self.growing & self.changed
        return is_linear(tree) and all(
            isinstance(source, Base) and not source.is_bag and (source in adds or source not in self.changed)
            for source in leaves(tree)
        )

    def _stage(self, source: Source) -> int:
        """Make the relation's delta table; returns its number of rows."""
        with self.program.blame(self.program.users(source)):
            if isinstance(source, Base):
                return self.program.stores[source].stage(self.state, self.arrived[source])
            if isinstance(source, Clock):
                return 2  # its value before, and now
            match source:
                case Aggregate():
                    delta, found = self._aggregate(source)
                case Recompute():
                    delta, found = self._recompute(source)
                case Top():
                    delta, found = self._top(source), None
            return 0 if delta is None else self._temporary(delta_table(source), delta, found)

    def _aggregate(self, source: Aggregate) -> _Delta:
        delta = self.delta(source.input)
        if delta is None:
            return None, None
        touched = maintain.touched_sql(source, delta)
        read = [Leaf(source), source.input] if source.touched else [Leaf(source)]
        if not source.keys or not self.program.is_searched(self.state, read):
            return maintain.delta_sql(source, f"({touched})", quote(source.table), render.NOTHING), None
        name, _ = self._touch(touched)
        reads = self._look_up(source.input, source, {KEYS: name}) if source.touched else {}
        stored, found = self._stored(source, name)
        return maintain.delta_sql(source, quote(name), stored, reads), found

    def _recompute(self, source: Recompute) -> _Delta:
        all_deltas = {each: self.delta(each.node) for each in source.inputs}
        deltas = {each: delta for each, delta in all_deltas.items() if delta is not None}
        if not deltas:
            return None, None
        if not source.keys:
            whole = {each: net(self.state, each.node) for each in source.inputs}
            return recompute.delta_sql(source, quote(source.table), "", whole), None
        name, touched = self._touch(self._touched_sql(source, deltas))
        if not touched:
            return None, None
        nodes = [Leaf(source), *inputs_of(source)]
        if not self.program.is_searched(self.state, nodes):
            return recompute.delta_sql(source, quote(source.table), name, {}), None
        if not self.program.forgets_of(source) and self.program.adaptive.is_whole(self.state, source, touched):
            return recompute.delta_sql(source, quote(source.table), "", {}), None
        first = recompute.selective(source) if touched >= SELECTIVE_KEYS else None
        if first is not None:
            reads = self._look_up(first.node, source, {KEYS: name})
            self._temporary(recompute.first_table(source), recompute.first_sql(source, first, name, reads))
            self._temporary(recompute.found_table(source), recompute.found_sql(source, first))
        keys = recompute.found_table(source) if first else name
        wider = "" if first else self._wider(source, deltas)
        rest = {
            each: self._look_up(each.node, source, {KEYS: wider if self._has_found(each, source, wider) else keys})
            for each in source.inputs
            if each is not first
        }
        stored, found = self._stored(source, name)
        return recompute.delta_sql(source, stored, name, rest, first), found

    def _touched_sql(self, source: Recompute, deltas: Mapping[Input, str]) -> str:
        if source.extremes and not self.state.relations[source.table].runs:
            # To compare a delta with what is stored costs little, to read groups of many rows for nothing does not.
            return recompute.moved_sql(source, source.extremes, *deltas.values())
        return recompute.touched_sql(source, deltas)

    def _wider(self, source: Recompute, changed: Iterable[Input]) -> str:
        """A table of touched keys, made for another node, that has all of this one's; empty when there is none."""
        select = recompute.wider_sql(source, changed)
        name = f"k_{digest(select)}"
        return name if select and name in self.touched else ""

    def _has_found(self, each: Input, source: Recompute, touched: str) -> bool:
        """Whether the rows that an input has of these keys were looked up before."""
        plan = [step for step in self.program.lookups(each.node, source) if step.source == KEYS] if touched else []
        known = ((step.table, step.index, f"SELECT {', '.join(step.keys)} FROM {quote(touched)}") for step in plan)
        return bool(plan) and all(self.looked.get(key) for key in known)

    def _touch(self, select: str) -> tuple[str, int]:
        """The table of the touched keys that a SELECT gives, and how many rows it has."""
        name = f"k_{digest(select)}"
        if name not in self.touched:
            self.touched[name] = self._temporary(name, select)
        return name, self.touched[name]

    def _top(self, source: Top) -> str | None:
        delta, touched = self.delta(source.input), top.touched_table(source)
        if delta is None or not self._temporary(touched, top.touched_sql(source, delta)):
            return None
        (has_enough,) = self.state.row(top.has_enough_sql(source, touched)) or (False,)
        return top.delta_sql(source, touched) if has_enough else top.refilled_sql(source, net(self.state, source.input))

    def _stored(self, source: Aggregate | Recompute, touched: str) -> tuple[str, Found | None]:
        """A FROM item with the touched keys' stored rows."""
        if not self.state.relations[source.table].runs:
            return quote(source.table), None  # the statement reads it once, and looks for the keys itself
        for each in self.program.lookups(Leaf(source), source):
            keys = f"SELECT {', '.join(each.keys)} FROM {quote(touched)}"
            if found := self.state.relations[each.table].seek(each.index, keys):
                return f"({found.sql})", found
        return quote(source.table), None

    def _look_up(self, tree: Node, start: int | Source, known: dict[int, str]) -> dict[int, str]:
        """Tables that hold, for leaves of a tree, the rows that can meet those of the known one."""
        sources, plan = list(leaves(tree)), self.program.lookups(tree, start)
        origins = {place: quote(table) for place, table in known.items()}
        leading = {each.source for each in plan}
        for each in plan:
            is_small = not self.state.relations[each.table].is_searched
            if each.source not in origins or (is_small and each.place not in leading):
                continue
            name = self._find(each, origins[each.source])
            if not name:
                continue
            origins[each.place] = quote(name)
            if isinstance(start, int) and sources[each.place] == sources[start]:
                # The term reads it with its delta, which brings keys as well.
                delta = quote(delta_table(sources[start]))
                origins[each.place] = f"(SELECT * FROM {quote(name)} UNION ALL SELECT * FROM {delta})"
            known[each.place] = name
        return known

    def _find(self, each: Lookup, source: str) -> str:
        """The name of a table with the rows that a look-up finds; empty when they are too many."""
        keys = f"SELECT {', '.join(each.keys)} FROM {source}"
        known = each.table, each.index, keys
        if known not in self.looked:
            # What is found before and after a relation has changed are two tables: terms read them later.
            name = f"m_{digest((*known, each.table in self.applied))}"
            self.looked[known] = name if self.state.relations[each.table].find(each.index, keys, name) else ""
        return self.looked[known]

    def _temporary(self, name: str, select: str, found: Found | None = None) -> int:
        return self.state.temporary(f"CREATE OR REPLACE TEMP TABLE {quote(name)} AS {select}", None, found)

    def _positions(self, tree: Node) -> int:
        return sum(self.may[source] for source in leaves(tree))

    def _terms(self, tree: Node, source: Source) -> None:
        for place, leaf in enumerate(leaves(tree)):
            if leaf != source:
                continue
            with self.program.blame(self.program.tree_users(tree)):
                reads = self._reads(tree, place)
                term = render.term(tree, place, reads)
                if self.program.readers[tree] == 1 and self._stays(tree, place, reads):
                    self.terms.setdefault(tree, []).append(term)
                    continue
                table = quote(_table(tree))
                verb = f"INSERT INTO {table}" if tree in self.filled else f"CREATE OR REPLACE TEMP TABLE {table} AS"
                rows = self.state.temporary(f"{verb} {term}")
            if rows or tree in self.filled:
                self.filled.add(tree)

    def _stays(self, tree: Node, place: int, reads: render.Reads) -> bool:
        """Whether all that a term reads stays as it is until the end of the step."""
        return all(
            other in reads or (leaf != list(leaves(tree))[place] and not self._will_change(leaf))
            for other, leaf in enumerate(leaves(tree))
        )

    def _will_change(self, source: Source) -> bool:
        return self.may[source] and source not in self.advanced

    def _term(self, tree: Node, place: int) -> str:
        """A SELECT of what the staged delta of one leaf adds to a tree's; what it meets is looked up."""
        return render.term(tree, place, self._reads(tree, place))

    def _reads(self, tree: Node, place: int) -> dict[int, str]:
        """What stands for leaves of a tree in the term of one of them: its delta, and what was looked up for it."""
        reads = {place: delta_table(leaves(tree)[place])}
        return self._look_up(tree, place, reads) if self.program.is_searched(self.state, [tree]) else reads


def net(state: State, tree: Node) -> render.Reads:
    """For each leaf of a tree a view of its rows as they stand, none of which is taken back."""
    return {place: state.relations[source.table].net() for place, source in enumerate(leaves(tree))}


def _table(tree: Node) -> str:
    return "f_" + digest(tree)
