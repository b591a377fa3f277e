"""From a definition to a compiled view: checked, typed, lowered; nothing is created anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from headwater import record, types
from headwater.errors import SqlError, SqlSyntax, UnknownColumn, UnsupportedSql
from headwater.schema import Schema
from headwater_pipelines.compiler import eventtime, letters, ordering, poison, timewindows
from headwater_pipelines.compiler.clock import clocked
from headwater_pipelines.compiler.comparison import compared
from headwater_pipelines.compiler.definition import Definition
from headwater_pipelines.compiler.eventtime import event_time
from headwater_pipelines.compiler.forms import tested
from headwater_pipelines.compiler.lower import Lowering
from headwater_pipelines.compiler.plan import Base, Clock, EventTime, Leaf, Select, Top, Union, is_linear
from headwater_pipelines.compiler.refusals import Refusal, check
from headwater_pipelines.compiler.relations import Relations, Table, ViewPlan
from headwater_pipelines.compiler.shape import shape_of
from headwater_pipelines.compiler.syntax import Duck, Tree, column, scoped
from headwater_pipelines.compiler.whole import named


@dataclass(frozen=True)
class CompiledView:
    """A view that can be maintained.

    ``columns`` are names and canonical types, ``key`` the output columns that identify a row (empty when
    rows may repeat), ``used`` the columns read of every stored topic, ``reads`` the full names it names.
    """

    definition: Definition
    root: Select | Union
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]
    used: Mapping[Base, frozenset[str]]
    reads: tuple[str, ...]
    query: str
    """The SELECT as DuckDB itself runs it: without TUMBLE, HOP and SESSION, with what `on_error` means.

    With an event time it is compared over the rows that were admitted, and ``watermark()`` is the step's."""
    ordered: tuple[str, ...] = ()
    """What has a total order in ``query`` and left a choice as it was written."""
    event_time: EventTime | None = None
    letters: tuple[tuple[str, Select], ...] = ()
    """Per table with ``on_error = 'dead_letter'``: its topic, and the rows for which something fails."""

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def schema(self) -> Schema:
        return Schema.of(dict(self.columns), key=self.key)

    def as_relation(self) -> ViewPlan:
        """What later definitions see of this one."""
        return ViewPlan(self.name, self.root, self.columns, tuple(self.used.items()))


def compile_view(definition: Definition, relations: Relations, duck: Duck | None = None) -> CompiledView:
    """Compile one definition.

    SqlSyntax, UnsupportedSql (with code and place), UnknownColumn and NameNotFound (with suggestions),
    SqlError with DuckDB's own text for type errors.
    """
    duck = duck or Duck.of_thread()
    refuse = Refusal(definition)
    lowering = Lowering(duck, relations, refuse, None)
    written = duck.parse(timewindows.readable(definition), definition.place)
    tree = timewindows.rewritten(lowering, written)
    check(tree, refuse, duck)
    reads = _reads(tree, relations)
    timed = event_time(definition, reads, relations, duck)
    tree = _timed(tree, timed, lowering)
    timed = lowering.event_time
    if definition.options.get(poison.OPTION) == poison.NULL:
        tree = poison.tried(tree, duck)
    tree, orders = ordering.ordered(tree, lowering)
    tree, failing = _guarded(tree, lowering, timed)
    clocks, lowering.relations = clocked(tree, lowering.relations, duck, timed)
    clocks = tested(clocks, duck)
    lowering.names = named(clocks)
    root = compared(_lower(lowering, clocks, tree), duck)
    shape = shape_of(tree, lowering)
    root = _named(root, [name for name, _ in shape])
    columns = _columns(shape, lowering, root)
    dead = tuple((topic, _rows(lowering, query)) for topic, query in failing)
    used = {base: frozenset(names | _times(base)) for base, names in lowering.used.items()}
    key = _key(root, relations, duck)
    query = definition.query if tree is written else duck.print_query(tree)
    return CompiledView(definition, root, columns, key, used, reads, query, orders, timed, dead)


def _guarded(tree: Tree, lowering: Lowering, timed: EventTime | None) -> tuple[Tree, tuple[tuple[str, Tree], ...]]:
    """The definition over rows for which nothing fails, where the others become dead letters."""
    options = lowering.refuse.definition.options
    if options.get(poison.OPTION) != letters.DEAD_LETTER:
        return tree, ()
    if timed is not None or options.get("refresh", "continuous") != "continuous":
        what = "on_error = 'dead_letter' goes with neither a watermark nor a refresh now and then"
        raise UnsupportedSql(what, code="DEAD_LETTER", todo="Use on_error = 'fail' or 'null'.")
    return letters.guarded(tree, lowering)


def _rows(lowering: Lowering, query: Tree) -> Select:
    made = lowering.query(query, {})
    if not isinstance(made, Select) or not is_linear(made):
        raise TypeError("rows of one table are a plain select")
    return made


def _timed(tree: Tree, timed: EventTime | None, lowering: Lowering) -> Tree:
    """The definition over what its watermark admits, and shows."""
    refuse, definition = lowering.refuse, lowering.refuse.definition
    if timed is None:
        if definition.emits_on_close:
            todo = f"Write WITH (watermark = {eventtime.FORM})."
            raise refuse.at(None, "EMIT ON WINDOW CLOSE needs a watermark", "WATERMARK", todo, "EMIT")
        eventtime.require(tree, refuse)
        return tree
    if definition.emits_on_close:
        timed = eventtime.windowed(tree, timed, lowering.relations)
    lowering.event_time = timed
    lowering.relations = eventtime.admitting(lowering.relations, timed)
    tree = eventtime.living(tree, timed, lowering.relations, lowering.duck)
    return eventtime.closing(tree, timed, lowering.duck, refuse) if definition.emits_on_close else tree


def _times(base: Base) -> set[str]:
    """What is read of a topic with an event time, whatever the definition names."""
    return {base.event_time.column(base.id)} if base.event_time else set()


def _lower(lowering: Lowering, timed: Tree, tree: Tree) -> Select | Union:
    """DuckDB's own complaint about the definition comes before one about its compiled form."""
    try:
        return lowering.query(timed, {})
    except UnknownColumn:
        raise
    except SqlError as error:
        if type(error) in (SqlError, SqlSyntax):
            shape_of(tree, lowering)
        raise
    except duckdb.Error:
        shape_of(tree, lowering)
        raise


def _reads(tree: Tree, relations: Relations) -> tuple[str, ...]:
    found: dict[str, None] = {}

    def visit(node: Tree, visible: frozenset[str]) -> None:
        if node.get("type") == "BASE_TABLE" and "qualified_name" in node:
            path = node["qualified_name"]["path"]
            if len(path) > 1 or path[0].lower() not in visible:
                relation = relations.resolve(path)
                found.setdefault(relation.base.name if isinstance(relation, Table) else f"views.{relation.name}")

    scoped(tree, visit)
    return tuple(found)


def _named(root: Select | Union, names: list[str]) -> Select | Union:
    if isinstance(root, Union):
        return Union(tuple(_renamed(part, names) for part in root.inputs))
    return _renamed(root, names)


def _renamed(part: Select, names: list[str]) -> Select:
    expressions = (sql for _, sql in part.columns)
    return Select(part.items, part.where, tuple(zip(names, expressions, strict=True)))


def _columns(shape: list[tuple[str, str]], lowering: Lowering, root: Select | Union) -> tuple[tuple[str, str], ...]:
    """Output columns in canonical types; refuses names and types that a changelog cannot hold."""
    refuse, seen = lowering.refuse, set[str]()
    found = []
    for name, text in shape:
        if name.lower() in seen:
            raise refuse.at(
                None, f'two columns are named "{name}"', "DUPLICATE_COLUMN", "Give one another name with AS."
            )
        if (name.startswith("_w") and name in {*record.METADATA, "_w"}) or name in record.METADATA:
            raise refuse.at(None, f'column name "{name}" is reserved', "RESERVED_COLUMN", "Rename it with AS.")
        seen.add(name.lower())
        try:
            found.append((name, types.canonical(text)))
        except ValueError as error:
            todo = "Cast it, for example to VARCHAR."
            raise refuse.at(None, f'column "{name}" has type {text}', "OUTPUT_TYPE", todo) from error
    compiled = [(n, t) for n, t in lowering.describe(root) if n != "_w"]
    if compiled != shape:
        raise SqlError(
            f"the compiled view has columns {compiled}, the definition {shape}", todo="Report this as a defect."
        )
    return tuple(found)


def _key(root: Select | Union, relations: Relations, duck: Duck) -> tuple[str, ...]:
    """Output columns that hold a whole group key or primary key unchanged; empty when that cannot be seen."""
    if not isinstance(root, Select) or len(root.items) != 1:
        return ()
    item = root.items[0]
    if isinstance(item.node, Leaf) and isinstance(item.node.source, Base):
        parts = relations.table(item.node.source).schema.key if item.node.source.kind == "table" else ()
    elif isinstance(item.node, Select) and isinstance(item.node.items[0].node, Leaf) and item.alias == "g":
        source = item.node.items[0].node.source
        parts = (
            () if isinstance(source, Base | Clock | Top) else tuple(f"k{place}" for place in range(len(source.keys)))
        )
    else:
        return ()
    by_sql = {sql: name for name, sql in reversed(root.columns)}
    found = [by_sql.get(duck.print(column(item.alias, part))) for part in parts]
    return tuple(name for name in found if name) if all(found) else ()
