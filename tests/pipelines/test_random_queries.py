"""Random queries over random changes: after every batch each view's rows are DuckDB's answer to its SQL.

Many views share one program, as in a real pipeline, and some read each other. A failure is printed with its seed, the
queries and the changes, of which everything is left out that it does without.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from tests.pipelines.expressions import Column
from tests.pipelines.queries import Generator
from tests.pipelines.world import Batch, Topic, World

from headwater.errors import HeadwaterError, UnsupportedSql
from headwater_pipelines.compiler import CompiledView

pytestmark = pytest.mark.usefixtures("few_spare_rows")

KINDS = {"VARCHAR": "str", "DOUBLE": "dbl", "DATE": "date", "TIMESTAMP": "ts", "BOOLEAN": "bool", "INTEGER[]": "list"}
"""Of columns by type; DECIMAL is ``dec``, other numbers are ``int``."""
ACCEPTED_MIN = 0.95
SHRINK_MAX = 150
"""Attempts to make a failure smaller."""


class Failed(AssertionError):
    """A view that is not its query."""


class QueryWorld(World):
    """``count`` random views; or, to do something again, the views of ``shapes`` and no others."""

    FILL = 30
    DIGITS = 11
    SIZES = (1, 2, 4, 12, 30)
    TRUNCATES = 0.008
    CHOSEN = 0.15
    DEPTHS: tuple[int, ...] = (0, 0, 1)
    """How deep queries are nested."""

    def __init__(self, seed: int, count: int, shapes: Mapping[str, str] | None = None) -> None:
        self.count = count
        self.shapes = dict(shapes or {})
        self.refused = Counter[str]()
        super().__init__(random.Random(seed), None, self.shapes)

    def tables(self) -> list[Topic]:
        whole = self.rng.choice(["SMALLINT", "INTEGER", "BIGINT", "HUGEINT"])
        exact = self.rng.choice(["DECIMAL(6,2)", "DECIMAL(12,2)", "DECIMAL(18,6)"])
        return [
            self.topic("items", 1, "table", ["id"], id="BIGINT", k="VARCHAR", grp="INTEGER", a=whole, b=exact,
                       f="DOUBLE", s="VARCHAR", d="DATE", seen="TIMESTAMP", l="INTEGER[]", ok="BOOLEAN"),
            self.topic("refs", 2, "table", ["k1", "k2"], k1="VARCHAR", k2="INTEGER", name="VARCHAR"),
            self.topic("bag", 3, "multiset", [], k="VARCHAR", x="INTEGER"),
            self.topic("events", 4, "insert_only", [], grp="INTEGER", n="BIGINT"),
            self.topic("clicks", 5, "event", [], k="VARCHAR", seen="TIMESTAMP", v=exact),
        ]  # fmt: skip

    def value(self, topic: Topic, name: str, text: str) -> Any:
        rng = self.rng
        made = super().value(topic, name, text)
        if made is None:
            return None
        match text:
            case "TIMESTAMP":
                return datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None) + timedelta(hours=rng.randrange(24 * 30))
            case "BOOLEAN":
                return rng.random() < 0.5
            case "INTEGER[]":
                return [rng.choice([None, 0, 1, 2, 5]) for _ in range(rng.randrange(4))]
        return made

    def compile(self, shapes: Mapping[str, str]) -> dict[int, CompiledView]:
        if shapes or not self.count:
            return super().compile(shapes)
        columns = {t.name: [Column(f.name, _kind(f.type)) for f in t.schema.fields] for t in self.topics}
        generator = Generator(self.rng, columns)
        self.begin_compiling()
        while len(self.shapes) < self.count:
            sql, shown = generator.statement(self.rng.choice(self.DEPTHS))
            if not self.is_sql(sql):
                continue
            name = f"q{len(self.shapes)}"
            try:
                self.add(name, sql)
            except UnsupportedSql as error:
                self.refused[error.code] += 1
                continue
            except HeadwaterError as error:
                raise Failed(f"DuckDB takes it, headwater says {error}: {sql}") from error
            self.shapes[name] = sql
            generator.add(f"view_{name}", shown)
        return self.compiled

    def is_sql(self, sql: str) -> bool:
        """Whether DuckDB takes it: the generator does not know every rule."""
        try:
            self.oracle.execute(f"DESCRIBE {sql}")
        except duckdb.Error:
            return False
        return True


def _kind(text: str) -> str:
    return KINDS.get(text, "dec" if text.startswith("DECIMAL") else "int")


def failure(seed: int, shapes: Mapping[str, str], batches: list[Batch]) -> str:
    """What goes wrong with these views over these changes; empty if nothing does."""
    world = QueryWorld(seed, 0, shapes)
    try:
        world.replay(batches)
        for view_id in world.views:
            world.compare_contents(view_id)
    except (AssertionError, HeadwaterError, duckdb.Error) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        world.state.close()
    return ""


def needed(shapes: Mapping[str, str], name: str) -> dict[str, str]:
    """A view and those that it reads."""
    found = {name}
    for other in reversed(list(shapes)):
        if any(re.search(rf"\bview_{other}\b", shapes[each]) for each in found):
            found.add(other)
    return {each: sql for each, sql in shapes.items() if each in found}


def shrunk(world: QueryWorld, seed: int, shapes: Mapping[str, str]) -> tuple[list[Batch], str]:
    """Fewer changes with which these views still fail, and how; without a failure, none."""
    batches = world.batches
    what, tries = failure(seed, shapes, batches), SHRINK_MAX
    for size in (40, 10, 3, 1):
        place = 0
        while what and place < sum(map(len, batches)) and tries:
            tries -= 1
            fewer = without(batches, place, size)
            found = failure(seed, shapes, fewer)
            batches, what, place = (fewer, found, place) if found else (batches, what, place + size)
    return (batches, what) if what else ([], "")


def without(batches: list[Batch], start: int, size: int) -> list[Batch]:
    """Batches less the changes from one place on."""
    found, place = [], 0
    for batch in batches:
        kept = [change for number, change in enumerate(batch, place) if not start <= number < start + size]
        place += len(batch)
        if kept:
            found.append(kept)
    return found


def report(world: QueryWorld, seed: int, error: Exception) -> str:
    """The failure with the least that it needs."""
    blamed = re.findall(r"view_(q\d+)", str(error)) or [
        world.views[view].name.removeprefix("view_") for view in getattr(error, "views", ())
    ]
    lines = [f"seed {seed}, step {world.number}: {type(error).__name__}: {error}"]
    for name in blamed[:1]:
        shapes = needed(world.shapes, name)
        batches, what = shrunk(world, seed, shapes)
        lines += [f"view_{each}: {sql}" for each, sql in shapes.items()]
        lines.append(f"by itself: {what or 'it does not fail'}")
        lines += [f"batch {number}: {change}" for number, batch in enumerate(batches) for change in batch]
    return "\n".join(lines)


def run(kind: type[QueryWorld], seed: int, views: int, batches: int) -> QueryWorld:
    """The world after so many (query, batch) steps; Failed with the report if one went wrong."""
    world = kind(seed, views)
    try:
        world.compare_all()  # over empty tables: an ungrouped aggregate has its one row
        for _ in range(batches):
            world.step()
        world.compare_all()
        for view_id in world.views:
            world.compare_contents(view_id)
    except (AssertionError, HeadwaterError, duckdb.Error) as error:
        raise Failed(report(world, seed, error)) from None
    finally:
        world.state.close()
    refused = sum(world.refused.values())
    print(f"seed {seed}: {views * batches} steps, {world.compared} of them with changes of what the view reads")
    print(f"{refused} of {views + refused} queries refused: {dict(world.refused)}")
    assert views >= ACCEPTED_MIN * (views + refused)
    return world


class DeepWorld(QueryWorld):
    """Queries in queries, and batches that change more tables."""

    CHOSEN = 0.4
    DEPTHS = (0, 1, 1, 2)


@pytest.mark.timeout(300)
def test_2_000_steps(seed: int) -> None:
    run(QueryWorld, seed, views=40, batches=50)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("sometimes_in_runs")
@pytest.mark.parametrize("round_", range(10))
def test_20_000_steps(seed: int, round_: int) -> None:
    print("round", round_)
    run(DeepWorld, seed, views=50, batches=40)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("sometimes_in_runs")
@pytest.mark.long
@pytest.mark.parametrize("views", [8, 120])
def test_how_changes_are_cut_into_batches_does_not_matter(seed: int, views: int) -> None:
    """One by one, all at once, in between, and a table after the other: the same rows, and those of the queries."""
    rng = random.Random(seed)
    world = run(QueryWorld, seed, views, batches=2)
    changes = [change for batch in world.batches for change in batch]
    changes = rng.sample(changes, len(changes)) if rng.random() < 0.3 else changes  # other changes then, as they fit
    changes = changes[: 60 if views < 100 else 400]
    by_table = sorted(changes, key=lambda change: change.topic)  # the tables one after the other
    cuts = [(changes, 1), (changes, rng.randint(2, 9)), (changes, len(changes)), (by_table, 20)]
    contents = []
    for ordered, size in cuts:
        other = QueryWorld(seed, 0, world.shapes)
        other.shapes = dict(world.shapes)
        try:
            other.replay(ordered[start : start + size] for start in range(0, len(ordered), size))
            other.compare_all()
            contents.append({view: +fold for view, fold in other.folds.items()})
        except (AssertionError, HeadwaterError, duckdb.Error) as error:
            raise Failed(report(other, seed, error)) from None
        finally:
            other.state.close()
    assert all(each == contents[0] for each in contents)
