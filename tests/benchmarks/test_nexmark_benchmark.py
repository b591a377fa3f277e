"""What the benchmark of Nexmark measures is the whole path: its lake holds the events, and the answer to the query."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.harness import Report
from benchmarks.nexmark import compare, measure, record
from benchmarks.nexmark_data import Generator
from benchmarks.nexmark_queries import QUERIES

from headwater.lake import open_lake
from headwater_pipelines.compiler import compile_view, parse
from headwater_pipelines.runtime import registry

EVENTS = 3_000


@pytest.mark.parametrize("query", [pytest.param("q5", marks=pytest.mark.long), "q13"])
def test_a_run_leaves_the_query_s_answer(query: str, tmp_path: Path) -> None:
    run = measure(query, Generator(rate=100).events(0, EVENTS), EVENTS, tmp_path)
    assert run.events == EVENTS
    assert len(run.steps_ms) == 1
    with open_lake(tmp_path / "lake") as lake:
        plain = compile_view(parse(QUERIES[query], name="v"), registry.relations(lake.log)).query
        assert lake.sql("SELECT count(*) AS n FROM nexmark.bid").pl().item() == EVENTS * 46 // 50
        assert lake.sql("SELECT count(*) AS n FROM answer").pl().item() > 0
        for one, other in (("FROM answer", plain), (plain, "FROM answer")):
            assert lake.sql(f"({one}) EXCEPT ALL ({other})").pl().is_empty()
    report = Report("nexmark")
    record(report, query, run)
    compare(report, {query: run})
    assert {f"{query}_events_per_s", f"{query}_per_core_by_flink", "share_above_feldera"} <= report.figures.keys()
    assert [goal.name for goal in report.goals] == [f"{query}_per_core_by_flink", "share_above_feldera"]
