"""Health without runs: what the observation sensor reports, when it is silent, and what the checks make of it."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from headwater.config import Project, Slo, load
from headwater.errors import ConfigError
from headwater.lake import rules
from headwater.log import open_log
from headwater_dagster import build_definitions, changes, observation
from headwater_dagster import worker as process
from headwater_dagster.checks import COMPARE
from headwater_dagster.health import EQUAL, FRESH, LAG, SOURCED
from headwater_dagster.inventory import lake_exists
from headwater_pipelines import api
from headwater_pipelines.replay import audit
from headwater_pipelines.runtime import worker

from .conftest import Shop, headwater

SOURCE, ORDERS = dg.AssetKey(["shop"]), dg.AssetKey(["shop", "public", "orders"])
TOTALS, LARGE = dg.AssetKey(["views", "totals"]), dg.AssetKey(["views", "large"])
Event = dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


class Ticks:
    """The sensor's ticks, one after the other, as the daemon evaluates them: events are stored, the cursor goes on."""

    def __init__(self, project: Project, instance: dg.DagsterInstance) -> None:
        self.project = project
        self.instance = instance
        self.cursor: str | None = None
        self._loaded: tuple[str, dg.Definitions] | None = None

    def until_silent(self) -> list[Any]:
        """What ticks say until one says nothing: each has its share of what has merely moved."""
        return [event for said in iter(self.tick, []) for event in said]

    def tick(self) -> list[Any]:
        """One tick; a worker that has run beats as one that runs still, however long this machine takes."""
        if lake_exists(self.project.lake_dir):
            with open_log(self.project.lake_dir) as log:
                if process.PIPELINE in log.live.read():
                    log.live.beat(process.PIPELINE, state="live")
        defs = self._definitions()
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, definitions=defs, resources=defs.resources
        ) as context:
            data = defs.resolve_sensor_def(observation.OBSERVE).evaluate_tick(context)
        self.cursor = data.cursor
        for event in data.asset_events:
            self.instance.report_runless_asset_event(event)
        return list(data.asset_events)

    def _definitions(self) -> dg.Definitions:
        """Loaded anew when the code server would: a sensor keeps things from tick to tick."""
        with ExitStack() as stack:
            exists = lake_exists(self.project.lake_dir)
            stamp = changes.stamp(
                self.project, stack.enter_context(open_log(self.project.lake_dir)) if exists else None
            )
        if self._loaded is None or self._loaded[0] != stamp:
            self._loaded = (stamp, build_definitions(self.project.root))
        return self._loaded[1]


def run_views(shop: Shop) -> None:
    worker.run(shop.log, shop.project.settings, threading.Event(), until_caught_up=True)


def checks(events: list[Any], key: dg.AssetKey) -> dict[str, dg.AssetCheckEvaluation]:
    return {e.check_name: e for e in events if isinstance(e, dg.AssetCheckEvaluation) and e.asset_key == key}


def kinds(events: list[Any], key: dg.AssetKey) -> list[str]:
    return [type(each).__name__ for each in events if each.asset_key == key]


def figures(event: Any) -> dict[str, Any]:
    return {name: each.value for name, each in event.metadata.items()}


def later(ticks: Ticks, seconds: float) -> None:
    """As if the last reports had been so long ago."""
    told = observation.unpacked(ticks.cursor)
    ticks.cursor = observation.packed({name: replace(each, at=each.at - seconds) for name, each in told.items()})


def test_every_asset_is_reported_with_its_checks(shop: Shop, instance: dg.DagsterInstance) -> None:
    order = shop.order()
    run_views(shop)
    audit.housekeep(shop.project, shop.log)
    shop.beat(lag_ms=123.0)
    events = Ticks(shop.project, instance).tick()
    status = json.loads(headwater(shop.project, "status", "--json"))
    (source,) = (each for each in events if each.asset_key == SOURCE and isinstance(each, dg.AssetObservation))
    for name in ("lag_ms", "lag_bytes", "confirmed_lsn"):
        assert figures(source)[name] == status["sources"][0][name]
    assert checks(events, SOURCE)[LAG].passed
    (topic,) = (each for each in events if each.asset_key == ORDERS and isinstance(each, dg.AssetObservation))
    assert figures(topic)["records"] == 10
    assert {name: each.passed for name, each in checks(events, ORDERS).items()} == {
        "schema": True, "whole": True, "dead_letters": True
    }  # fmt: skip
    (view,) = (each for each in events if each.asset_key == TOTALS and isinstance(each, dg.AssetMaterialization))
    assert (figures(view)["from_commit"], figures(view)["to_commit"]) == (0, order)
    assert (figures(view)["rows"], figures(view)["lag_rows"]) == (3, 0)
    verdicts = checks(events, TOTALS)
    assert {name: each.passed for name, each in verdicts.items()} == {LAG: True, FRESH: True, EQUAL: True}
    assert verdicts[EQUAL].metadata["coverage"].value == 1.0


def test_nothing_is_said_twice(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order()
    run_views(shop)
    ticks = Ticks(shop.project, instance)
    shop.beat(lag_ms=5)
    assert ticks.tick()
    shop.order()
    shop.beat(lag_ms=6)
    assert ticks.tick() == [], "it has moved, and is as healthy as before"
    shop.beat(lag_ms=20_000)
    worse = ticks.tick()
    assert [type(each).__name__ for each in worse if each.asset_key == SOURCE] == [
        "AssetObservation", "AssetCheckEvaluation"
    ]  # fmt: skip
    assert not checks(worse, SOURCE)[LAG].passed
    shop.beat(lag_ms=20_000)
    assert kinds(ticks.tick(), SOURCE) == []


def test_what_has_moved_is_said_after_its_time(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order()
    run_views(shop)
    ticks = Ticks(shop.project, instance)
    shop.beat()
    ticks.tick()
    second = shop.order()
    run_views(shop)
    shop.beat()
    later(ticks, 200.0)  # what lies between takes seconds on a busy machine
    assert kinds(ticks.tick(), TOTALS) == []
    later(ticks, 100.1)
    again = ticks.until_silent()
    assert kinds(again, TOTALS)[0] == "AssetObservation", "a materialization came less than a minute ago"
    assert kinds(again, ORDERS) == ["AssetObservation"]
    observation.MATERIALIZED_S, kept = 0.0, observation.MATERIALIZED_S
    try:
        third = shop.order()
        run_views(shop)
        shop.beat()
        later(ticks, 301.0)
        moved = ticks.until_silent()
    finally:
        observation.MATERIALIZED_S = kept
    made = next(each for each in moved if each.asset_key == TOTALS and isinstance(each, dg.AssetMaterialization))
    assert (figures(made)["from_commit"], figures(made)["to_commit"]) == (second, third)
    assert {LAG, FRESH} <= set(checks(moved, TOTALS)), "its badges were cleared"


def test_what_stands_still_is_said_once_an_hour(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order()
    run_views(shop)
    ticks = Ticks(shop.project, instance)
    shop.beat()
    ticks.tick()
    later(ticks, 3_000.0)
    shop.beat()
    assert ticks.tick() == []
    later(ticks, 600.0)
    shop.beat()
    rounds = []
    while said := ticks.tick():
        rounds.append({each.asset_key for each in said})
        assert len(rounds[-1]) <= observation.SHARE, "a share at a time, so that no tick is long"
    assert sum(map(len, rounds)) == len(set.union(*rounds)) == len(observation.unpacked(ticks.cursor))
    assert {SOURCE, ORDERS, TOTALS} <= set.union(*rounds)


def test_verdicts_follow_a_materialization_of_somebody_else(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order()
    run_views(shop)
    ticks = Ticks(shop.project, instance)
    shop.beat()
    ticks.tick()
    assert kinds(ticks.tick(), TOTALS) == []

    @dg.op
    def materialize(context: dg.OpExecutionContext) -> None:
        context.log_event(dg.AssetMaterialization(TOTALS))

    @dg.job
    def somebody_else() -> None:
        materialize()

    somebody_else.execute_in_process(instance=instance)
    shop.beat()
    assert set(kinds(ticks.tick(), TOTALS)) == {"AssetObservation", "AssetCheckEvaluation"}
    assert ticks.tick() == []


def test_events_are_read_only_when_something_was_written(
    shop: Shop, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.order()
    run_views(shop)
    ticks = Ticks(shop.project, instance)
    ticks.until_silent()
    read = list[Any]()
    asset_records = instance.get_asset_records

    def reading(keys: list[dg.AssetKey]) -> Any:
        read.append(keys)
        return asset_records(keys)

    monkeypatch.setattr(instance, "get_asset_records", reading)
    for _ in range(3):
        assert ticks.tick() == []
    assert len(read) <= 1
    instance.report_runless_asset_event(dg.AssetMaterialization(TOTALS))
    ticks.tick()
    assert [TOTALS in keys for keys in read][-1:] == [True]


def test_a_project_without_a_lake(project: Project, instance: dg.DagsterInstance) -> None:
    events = Ticks(project, instance).tick()
    assert not checks(events, SOURCE)[LAG].passed


def test_checks_can_be_executed_by_hand(shop: Shop, instance: dg.DagsterInstance) -> None:
    job = dg.define_asset_job("by_hand", selection=dg.AssetSelection.all_asset_checks())
    defs = dg.Definitions.merge(build_definitions(shop.project.root), dg.Definitions(jobs=[job]))

    def verdicts() -> dict[tuple[str, str], tuple[bool, str]]:
        done = defs.resolve_job_def("by_hand").execute_in_process(instance=instance)
        return {
            (each.asset_key.to_user_string(), each.check_name): (each.passed, each.severity.value)
            for each in done.get_asset_check_evaluations()
        }

    shop.beat(lag_ms=7)
    assert verdicts()["views/totals", EQUAL] == (False, "WARN"), "nothing is published yet"
    shop.order()
    run_views(shop)
    shop.beat(lag_ms=7)
    found = verdicts()
    assert found["views/totals", EQUAL] == found["views/large", EQUAL] == (True, "WARN")
    assert found["shop", LAG][0]
    assert found["shop/public/orders", "schema"][0]


# ---- rules

STREAMING = {"name": "shop", "state": "streaming", "error": None, "lag_ms": 0.0, "age_s": 0.1}
LIVE = {"name": "v", "state": "live", "reason": None, "refresh": "continuous", "lag_ms": 0.0}
SLO = Slo()


@pytest.mark.parametrize(
    ("row", "passed", "severity"),
    [
        ({"lag_ms": 9_999.0}, True, None),
        ({"lag_ms": 10_001.0}, False, "WARN"),
        ({"lag_ms": 60_001.0}, False, "ERROR"),
        ({"state": "error"}, False, "ERROR"),
    ],
)
def test_lag_of_a_source(row: dict[str, Any], passed: bool, severity: str | None) -> None:
    found = rules.source_lag(STREAMING | row, SLO)
    assert found.passed == passed
    assert passed or found.severity == severity


@pytest.mark.parametrize(
    ("row", "passed", "severity"),
    [
        ({"wal_status": "reserved", "retained_wal_bytes": 1 << 20}, True, None),
        ({"wal_status": "extended", "slot_warning": "5 GiB of WAL"}, False, "WARN"),
        ({"wal_status": "unreserved"}, False, "ERROR"),
        ({"wal_status": "lost", "invalidation_reason": "wal_removed"}, False, "ERROR"),
    ],
)
def test_a_slot(row: dict[str, Any], passed: bool, severity: str | None) -> None:
    found = rules.source_slot(STREAMING | row)
    assert found is not None
    assert found.passed == passed
    assert passed or found.severity == severity


def test_a_slot_of_which_nothing_is_known() -> None:
    assert rules.source_slot(STREAMING) is None


@pytest.mark.parametrize(
    ("row", "passed", "severity"),
    [
        ({"lag_ms": 11_000.0}, False, "WARN"),
        ({"state": "paused", "reason": "by hand"}, False, "ERROR"),
        ({"state": "creating", "lag_ms": None}, True, None),
        ({"lag_ms": 99_000.0, "refresh": "manual"}, True, None),
        ({"lag_ms": 65_000.0, "refresh": "every 1 minute", "refresh_s": 60}, True, None),
        ({"lag_ms": 75_000.0, "refresh": "every 1 minute", "refresh_s": 60}, False, "WARN"),
    ],
)
def test_lag_of_a_view(row: dict[str, Any], passed: bool, severity: str | None) -> None:
    found = rules.follows(LIVE | row, SLO)
    assert found.passed == passed
    assert passed or found.severity == severity


def test_a_quiet_source_is_fresh_and_a_silent_one_is_not() -> None:
    def age(**of_source: Any) -> rules.Verdict:
        found = rules.fresh(LIVE, [STREAMING | of_source], SLO)
        assert found is not None
        return found

    assert age().passed
    assert (age(age_s=61.0).passed, age(age_s=61.0).severity) == (False, "WARN")
    assert (age(age_s=500.0, lag_ms=101_000.0).severity) == "ERROR"
    assert not age(age_s=None).passed
    assert rules.fresh(LIVE | {"refresh": "manual"}, [STREAMING], SLO) is None


def test_a_watermark_ahead_of_the_clock_is_an_error() -> None:
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)

    def at(mark: datetime, late: int = 0, zone: str = "UTC") -> rules.Verdict:
        row = {"watermark": mark.isoformat(), "late_rows": late}
        found = rules.watermark(row, SLO, now.timestamp(), 1_000, zone)
        assert found is not None
        return found

    assert at(now - timedelta(days=3)).passed
    assert at(now + timedelta(minutes=59)).passed
    assert at(now + timedelta(minutes=61)).severity == "ERROR"
    assert not at(now + timedelta(minutes=61)).passed
    assert at(now.replace(tzinfo=None) + timedelta(hours=2), zone="Europe/Zurich").passed, "14:00 there is now"
    assert at(now, late=10).passed
    assert not at(now, late=11).passed
    assert rules.watermark({"watermark": None}, SLO, 0.0, 0, "UTC") is None


def test_dead_letters_are_a_warning_and_many_an_error() -> None:
    found = [rules.dead_letters({"open": count, "total": 2_000}, SLO) for count in (0, 1, 999, 1_000)]
    assert [each.passed or each.severity for each in found] == [True, "WARN", "WARN", "ERROR"]


def test_what_was_compared() -> None:
    now = time.time()
    known = audit.Audited(parts=4, part=2, began=now - 60, at=now - 5)

    def verdict(**changed: Any) -> rules.Verdict | None:
        return rules.compared({"name": "v", "compared": vars(replace(known, **changed))}, SLO, now)

    assert rules.compared({"name": "v", "compared": None}, SLO, now) is None
    first = verdict()
    assert first is not None
    assert (first.passed, first.figures["coverage"]) == (True, 0.5)
    whole = verdict(whole_since=now - 100)
    assert whole is not None
    assert (whole.passed, whole.figures["coverage"]) == (True, 1.0)
    old = verdict(whole_since=now - 90_000)
    assert old is not None
    assert (old.passed, old.severity) == (False, "WARN")
    part = {"commit": 7, "missing": 1, "extra": 2, "sample": [{"id": "1"}]}
    wrong = verdict(differing={"1": part, "3": part}, whole_since=now)
    assert wrong is not None
    assert (wrong.passed, wrong.severity, wrong.figures["missing"], wrong.figures["extra"]) == (False, "ERROR", 2, 4)


def test_a_table_and_its_source() -> None:
    now = time.time()

    def verdict(**changed: Any) -> str | None:
        row = {"at": now - 5, "rows": 9, "differences": 0, "changing": 0, "skipped": ""} | changed
        found = rules.equals_source(row, SLO, now)
        assert found is not None
        return None if found.passed else found.severity

    assert rules.equals_source(None, SLO, now) is None
    assert verdict() is None
    assert verdict(differences=1) == "ERROR"
    assert verdict(skipped="it is being copied") == "WARN"
    assert verdict(at=now - 604_801) == "WARN"


def test_tables_are_compared_with_their_source_when_their_time_has_come(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    defs = build_definitions(shop.project.root)
    schedule = defs.resolve_schedule_def(COMPARE)
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING

    def asked() -> set[str]:
        with dg.build_schedule_context(instance=instance, resources=defs.resources) as context:
            data = schedule.evaluate_tick(context)
        return {key.asset_key.path[2] for each in data.run_requests or () for key in each.asset_check_keys or ()}

    assert asked() == {"orders", "customers"}
    at = time.time()
    known = {"public.orders": {"at": at, "rows": 0, "differences": 0, "changing": 0, "skipped": ""}}
    shop.log.set_setting("compared:shop", json.dumps(known))
    assert asked() == {"customers"}
    known["public.orders"]["at"] = at - 302_401
    shop.log.set_setting("compared:shop", json.dumps(known))
    assert asked() == {"orders", "customers"}
    with shop.project.file.open("a") as file:
        file.write("[slo]\nsource_compared_within_s = 0\n")
    assert asked() == set()


def test_a_source_that_cannot_be_asked_is_a_warning(shop: Shop, instance: dg.DagsterInstance) -> None:
    key = dg.AssetCheckKey(ORDERS, SOURCED)
    job = dg.define_asset_job("by_hand", selection=dg.AssetSelection.checks(key))
    defs = dg.Definitions.merge(build_definitions(shop.project.root), dg.Definitions(jobs=[job]))
    (found,) = defs.resolve_job_def("by_hand").execute_in_process(instance=instance).get_asset_check_evaluations()
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "127.0.0.1" in str(found.description)


def test_limits_of_the_project_file(project: Project) -> None:
    text = project.file.read_text()
    project.file.write_text(text + '[slo]\nlag_warn_s = 5\n[slo."views.totals"]\nlag_error_s = 7\n')
    found = load(project.root)
    assert (found.slo("shop").lag_warn_s, found.slo("shop").lag_error_s) == (5.0, 60.0)
    assert (found.slo("views.totals").lag_warn_s, found.slo("views.totals").lag_error_s) == (5.0, 7.0)
    for wrong, said in (("lag_warn = 5", "lag_warn_s"), ("lag_warn_s = -1", "out of range")):
        project.file.write_text(text + f"[slo]\n{wrong}\n")
        with pytest.raises(ConfigError, match=said):
            load(project.root)


def test_a_paused_view_says_why(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order()
    run_views(shop)
    api.pause_view(shop.log, "large", "somebody looks at it")
    shop.beat()
    shop.order(7)
    events = Ticks(shop.project, instance).tick()
    large = [each for each in events if each.asset_key == LARGE]
    assert figures(large[0])["lag_rows"] == 7
    lag = checks(events, LARGE)[LAG]
    assert (lag.passed, lag.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "somebody looks at it" in str(lag.description)
