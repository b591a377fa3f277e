"""The logical plan of a view: multilinear trees over stored relations.

    view  =  tree over leaves            tree  =  Select (filter, project, inner join) | Union (all)
    leaf  =  Base (a topic's rows), Clock (a value that follows from the time), Aggregate (the state of a GROUP BY)
             Recompute (the rows of any other query) or Top (the first rows of all), the last three fed by trees
             of their own

Between two stored relations there are only operators that are linear in each of their inputs, so a tree's
delta is a sum with one term per leaf and nothing inside a tree is stored. Nodes are frozen and compare by
content: two views that contain the same aggregate share its state.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, fields
from functools import cached_property

WEIGHT = "_w"
"""The column that holds a row's weight in deltas and in stored bags."""
COUNT = "n"
"""The hidden column of an aggregate's state: rows in the group. The group dies when it is 0."""


@dataclass(frozen=True)
class TimeColumn:
    """The column that holds the event time of a topic's rows; its watermark stays ``delay_us`` behind the newest."""

    topic: int
    name: str
    column: str
    delay_us: int


@dataclass(frozen=True)
class EventTime:
    """How a view's watermark follows from the rows of its topics; every view has one of its own.

    ``type``: TIMESTAMP or TIMESTAMP WITH TIME ZONE, of the watermark. A row is late when its time is more than
    ``grace_us`` behind it. A topic (or partition, ``by_partition``) without a new record for ``idle_us`` while another
    has some does not hold it back.
    """

    view: str
    columns: tuple[TimeColumn, ...]
    type: str
    grace_us: int = 0
    idle_us: int = 60_000_000
    by_partition: bool = False
    ttl_us: int | None = None
    """Rows that are so much behind the watermark leave the view."""
    window_us: int | None = None
    """All that is shown of rows are closed windows over their event time, none longer than this; 0: of any length."""

    @property
    def table(self) -> str:
        """Where the newest times are stored."""
        return f"e_{digest(self)}"

    def column(self, topic: int) -> str:
        """The name of a topic's time column."""
        return next(each.column for each in self.columns if each.topic == topic)


@dataclass(frozen=True)
class Base:
    """The stored rows of a topic. ``kind`` as in the log, or 'history': then they are all versions of its rows.

    A recreated topic has another ``id``; the history of a topic has its negative. With ``event_time`` the rows that
    came late are none of them.
    """

    name: str
    id: int
    kind: str
    event_time: EventTime | None = None

    def __repr__(self) -> str:
        """Digests, and so the names of stored relations, are made of it: an event time only where there is one."""
        timed = "" if self.event_time is None else f", event_time={self.event_time!r}"
        return f"Base(name={self.name!r}, id={self.id!r}, kind={self.kind!r}{timed})"

    @property
    def is_bag(self) -> bool:
        """Whether its records carry weights."""
        return self.kind == "multiset"

    @property
    def topic(self) -> int:
        """The topic's id."""
        return abs(self.id)

    @property
    def table(self) -> str:
        if self.event_time is not None:
            return f"t{self.id}_{digest(self.event_time)}"
        return f"t{self.id}" if self.id >= 0 else f"h{-self.id}"

    @property
    def shown(self) -> str:
        """As a query names it."""
        return f"history.{self.name}" if self.kind == "history" else self.name


@dataclass(frozen=True)
class Measure:
    """What a group keeps about one argument: the number of non-NULL values, and their sum if ``sum_type``."""

    column: str
    type: str
    sum_type: str

    @property
    def count(self) -> str:
        return f"n_{self.column}"

    @property
    def sum(self) -> str:
        return f"s_{self.column}"


class _Derived:
    """A stored relation that a plan computes. It is known by its content's digest: plans hold each other many times."""

    @cached_property
    def table(self) -> str:
        values = [getattr(self, each.name) for each in fields(self)]  # type: ignore[arg-type]
        content = [value for value in values if value is not None]
        return f"{type(self).__name__[0].lower()}_{digest(content)}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other.table == self.table

    def __hash__(self) -> int:
        return hash(self.table)

    def __repr__(self) -> str:
        return self.table


@dataclass(frozen=True, eq=False, repr=False)
class Clock(_Derived):
    """One row, ``v``: an expression over the step's instant (``clock.now``) and nothing else. It changes between steps.

    ``is_known``: the value is never NULL. With ``event_time`` it is one over that watermark (``clock.watermark``).
    """

    expression: str
    type: str
    is_known: bool
    event_time: EventTime | None = None

    def columns(self) -> tuple[tuple[str, str], ...]:
        return (("v", self.type),)


@dataclass(frozen=True, eq=False, repr=False)
class Aggregate(_Derived):
    """One row per group of ``input`` (whose columns are the keys and the measures' arguments).

    ``touched``: touched groups are recomputed from ``input`` instead of being kept by addition.
    """

    input: Node
    keys: tuple[tuple[str, str], ...]
    measures: tuple[Measure, ...]
    touched: bool

    def columns(self) -> tuple[tuple[str, str], ...]:
        """Names and types of the state's columns."""
        found = [*self.keys, (COUNT, "BIGINT")]
        for measure in self.measures:
            found.append((measure.count, "BIGINT"))
            if measure.sum_type:
                found.append((measure.sum, measure.sum_type))
        return tuple(found)


@dataclass(frozen=True)
class Input:
    """A tree that a Recompute reads as ``name``. ``keys``: its columns with the Recompute's keys, in their order.

    ``is_needed``: a key of which it has no rows has none in the result.
    """

    name: str
    node: Tree
    keys: tuple[str, ...] = ()
    is_needed: bool = field(default=False, repr=False, compare=False)


@dataclass(frozen=True)
class Extreme:
    """The least value (else the greatest) of SQL over an input's row ``i``; it is in the output ``column``."""

    column: str
    value: str
    is_least: bool


@dataclass(frozen=True, eq=False, repr=False)
class Recompute(_Derived):
    """The rows of ``query`` over ``inputs``, a bag. When an input changes, those of the touched keys are computed anew.

    ``keys``: the first of ``outputs`` (name, type); rows of one key depend on the inputs' rows of that key alone.
    Without any there is one key, the whole. ``operator`` and ``reason`` say what it is to ``explain``.
    ``extremes``: where all that a key has is one row of least and greatest values of its one input's rows, these.
    """

    inputs: tuple[Input, ...]
    query: str
    outputs: tuple[tuple[str, str], ...]
    keys: tuple[str, ...]
    operator: str
    reason: str
    extremes: tuple[Extreme, ...] | None = None

    def columns(self) -> tuple[tuple[str, str], ...]:
        return self.outputs


@dataclass(frozen=True, eq=False, repr=False)
class Top(_Derived):
    """The rows of ``input`` that come first, as ``outputs`` (name, type); they are ordered by its column ``hw_key``.

    Those from ``low`` to ``high`` have ``hw_shown``; others are kept behind them. ``or_nothing``: behind all rows there
    is one more, of NULLs.
    """

    input: Tree
    outputs: tuple[tuple[str, str], ...]
    key_type: str
    low: int
    high: int
    or_nothing: bool = False

    def columns(self) -> tuple[tuple[str, str], ...]:
        return (*self.outputs, ("hw_key", self.key_type), ("hw_shown", "BOOLEAN"))


Derived = Clock | Aggregate | Recompute | Top
Source = Base | Derived


@dataclass(frozen=True)
class Leaf:
    """An occurrence of a stored relation in a tree."""

    source: Source


@dataclass(frozen=True)
class Compared:
    """A value that is compared with a Clock's, as SQL over the other items of a Select ('': only ``column`` is known).

    Where it is a time moved by some interval, ``column`` is that time: it lies between ``low`` and ``high``, SQL over
    ``{v}``, the Clock's least and its greatest value, wherever the value lies between these. So a scan of stored rows
    can skip those of other times.
    """

    value: str
    column: str = ""
    low: str = ""
    high: str = ""


@dataclass(frozen=True)
class Item:
    """An input of a Select under the alias that its expressions use.

    ``compared``: of a Clock, SQL over the other items that is all the Select compares its value with. What it
    computes of a row can then change only where one of these lies between the old and the new value.
    """

    alias: str
    node: Node
    compared: tuple[Compared, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Select:
    """Inner join of all items, filtered by the conjunction ``where``, projected to ``columns`` (name, SQL)."""

    items: tuple[Item, ...]
    where: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    label: tuple[str, str] = field(default=("", ""), repr=False, compare=False)
    """Operator and detail that ``explain`` shows in place of the projection; no part of what it computes."""

    @cached_property
    def leaves(self) -> tuple[Source, ...]:
        return tuple(source for item in self.items for source in leaves(item.node))

    @cached_property
    def _hashed(self) -> int:
        return hash((self.items, self.where, self.columns))

    def __hash__(self) -> int:
        """Made once: a step looks trees up all the time, and they may be deep."""
        return self._hashed


@dataclass(frozen=True)
class Union:
    """UNION ALL of selects whose columns agree in number, name and type."""

    inputs: tuple[Select, ...]

    @cached_property
    def leaves(self) -> tuple[Source, ...]:
        return tuple(source for part in self.inputs for source in part.leaves)

    @cached_property
    def _hashed(self) -> int:
        return hash(self.inputs)

    def __hash__(self) -> int:
        return self._hashed


Tree = Select | Union
Node = Leaf | Tree


def digest(value: object) -> str:
    """Twelve hexadecimal digits that name a plan node by its content."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def leaves(node: Node) -> tuple[Source, ...]:
    """The stored relations of a tree in the order in which their terms are numbered."""
    return (node.source,) if isinstance(node, Leaf) else node.leaves


def key_names(source: Derived) -> tuple[str, ...]:
    """The columns that a derived relation's rows are touched by; none when they are one whole."""
    match source:
        case Aggregate(keys=keys):
            return tuple(name for name, _ in keys)
        case Recompute(keys=names):
            return names
    return ()


def inputs_of(source: Source) -> tuple[Node, ...]:
    """The trees that feed a stored relation; a topic has none."""
    match source:
        case Aggregate() | Top():
            return (source.input,)
        case Recompute():
            return tuple(each.node for each in source.inputs)
    return ()


def sources(node: Node) -> list[Source]:
    """Every stored relation below a tree, each once, inputs before what they feed."""
    found: dict[Source, None] = {}

    def visit(tree: Node) -> None:
        for source in leaves(tree):
            if source not in found:
                for below in inputs_of(source):
                    visit(below)
            found.setdefault(source)

    visit(node)
    return list(found)


def is_linear(node: Node) -> bool:
    """Whether a tree joins nothing: its delta then reads deltas only."""
    match node:
        case Select(items=items):
            return len(items) == 1 and is_linear(items[0].node)
        case Union(inputs):
            return all(is_linear(part) for part in inputs)
    return True


_MAKES_ROWS = re.compile(r"\b(unnest|unlist|generate_subscripts)\b", re.IGNORECASE)


def is_row_by_row(node: Node) -> bool:
    """Whether each row of a leaf gives at most one row of the tree: nothing is joined, and no list is made rows of."""
    match node:
        case Select(items=items, columns=columns):
            makes = any(_MAKES_ROWS.search(sql) for _, sql in columns)
            return len(items) == 1 and not makes and is_row_by_row(items[0].node)
        case Union(inputs):
            return all(is_row_by_row(part) for part in inputs)
    return True


def column_names(node: Node) -> tuple[str, ...]:
    """Names of a tree's columns; a bare base leaf has no names of its own here."""
    match node:
        case Select(columns=columns):
            return tuple(name for name, _ in columns)
        case Union(inputs):
            return column_names(inputs[0])
        case Leaf(Clock() | Aggregate() | Recompute() | Top() as source):
            return tuple(name for name, _ in source.columns())
    raise TypeError(f"{type(node).__name__} has no column names")
