"""Every function of DuckDB: a view that calls it equals DuckDB after every change, or it is refused with a reason code.

A function that the list (functions.tsv) does not know makes a test fail: after an upgrade somebody has to look.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.pipelines.functions import (
    BASE,
    CLOCK,
    INTERNAL,
    POOL,
    SCHEMA,
    Function,
    code_of,
    derived,
    functions,
    is_grouped,
    known,
    oracle,
    statement,
    working,
)
from tests.pipelines.world import Topic, World

from headwater_pipelines.compiler.syntax import Duck

DOCS = Path(__file__).parents[2] / "docs" / "views.md"
CALLS_PER_VIEW = 60


class Samples(World):
    """Rows of the pool under random keys."""

    FILL = 30
    DIGITS = 11
    TRUNCATES = 0.01

    def tables(self) -> list[Topic]:
        return [Topic(BASE, SCHEMA)]

    def value(self, topic: Topic, name: str, text: str) -> Any:  # noqa: ARG002
        return self.rng.randrange(40) if name == "id" else None

    def mended(self, topic: Topic, row: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        return {"id": row["id"], **self.rng.choice(POOL)}


@pytest.fixture(scope="module")
def typing() -> Duck:
    return Duck()


def equal_duckdb(rng: random.Random, calls: list[str], *, grouped: bool) -> None:
    """Views of these calls, compared over random changes."""
    starts = range(0, len(calls), CALLS_PER_VIEW)
    shapes = {str(start): statement(calls[start : start + CALLS_PER_VIEW], grouped=grouped) for start in starts}
    world = Samples(rng, None, shapes)
    for _ in range(3):
        world.step()
    world.state.close()


def test_every_function_is_known() -> None:
    version, calls = known()
    assert version == duckdb.__version__, "write the list anew: python -m tests.pipelines.functions"
    there = {(function.kind, function.name) for function in functions(oracle())}
    listed = {(call.kind, call.name) for call in calls}
    assert there - listed == set(), "functions that nobody has looked at"
    assert listed - there == set(), "functions that are gone"


def test_what_is_refused(typing: Duck) -> None:
    refused = [call for call in known()[1] if call.code]
    print(Counter(call.code for call in refused))
    for call in refused:
        if call.code != INTERNAL:
            assert code_of(call.sql, typing, grouped=is_grouped(call.kind, call.name, typing)) == call.code, call
    text = DOCS.read_text()
    named = {call.name for call in refused if call.code not in (INTERNAL, CLOCK)}
    assert not {name for name in named if f"`{name}`" not in text}, "docs/views.md lists what is refused"


@pytest.mark.parametrize("grouped", [False, True])
def test_a_call_of_every_function_equals_duckdb(seed: int, typing: Duck, grouped: bool) -> None:
    print("seed", seed)
    kept = [call for call in known()[1] if not call.code and is_grouped(call.kind, call.name, typing) == grouped]
    equal_duckdb(random.Random(seed), [call.sql for call in kept], grouped=grouped)


@pytest.mark.long
def test_the_list_is_what_is_found() -> None:
    assert derived(oracle(), Duck()) == known()[1]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("grouped", [False, True])
def test_every_overload_equals_duckdb(seed: int, typing: Duck, grouped: bool) -> None:
    print("seed", seed)
    connection = oracle()
    refused = {(call.kind, call.name) for call in known()[1] if call.code}
    wanted = [
        function
        for function in functions(connection)
        if (function.kind, function.name) not in refused and is_grouped(function.kind, function.name, typing) == grouped
    ]
    found: dict[Function, str] = {function: working(connection, function, typing) for function in wanted}
    calls = [sql for sql in dict.fromkeys(found.values()) if sql]
    without = [function for function, sql in found.items() if not sql]
    print(f"{len(wanted)} overloads, {len(calls)} calls; of {len(without)} no call was found: {without}")
    assert len(without) < len(wanted) / 10
    equal_duckdb(random.Random(seed), calls, grouped=grouped)
