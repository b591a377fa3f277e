"""A real webserver and daemon over a real lake, asked by GraphQL as the pages ask."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.waiting import until

from headwater.catalog.live import LiveRow
from headwater_dagster import lease, worker
from headwater_pipelines.api import paused_by

from .conftest import headwater, worker_processes
from .pages import TERMINATE, Pages

pytestmark = pytest.mark.timeout(400)  # five processes that import Dagster; on a busy machine each takes its time

VIEW = """query($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) { ... on AssetNode {
  isMaterializable kinds dependencyKeys { path }
  assetMaterializations(limit: 1) { runId metadataEntries { label ... on IntMetadataEntry { intValue } } } } } }"""
CHECK = """query { assetCheckExecutions(assetKey: {path: ["shop"]}, checkName: "lag", limit: 1) {
  status evaluation { success metadataEntries { label
    ... on TextMetadataEntry { text } ... on IntMetadataEntry { intValue }
    ... on FloatMetadataEntry { floatValue } } } } }"""


@pytest.mark.long
def test_sensor_lease_views_and_lag(pages: Pages) -> None:
    until(lambda: pages.runs("SUCCESS", "FAILURE"), "a lease launched by the sensor", 200)
    run = pages.runs("SUCCESS", "FAILURE")[-1]
    assert run["status"] == "SUCCESS"
    assert {"key": "dagster/sensor_name", "value": "renew_lease"} in run["tags"]

    def totals() -> Any:
        return pages.ask(VIEW, path=["views", "totals"])

    # A worker may need longer for its first step than the first lease lasts; the sensor renews it.
    until(lambda: totals()["assetMaterializations"], "a materialization of the view", 200)
    view = totals()
    assert view["isMaterializable"]
    paths = {tuple(each["path"]) for each in view["dependencyKeys"]}
    assert paths == {("shop", "public", "orders"), ("shop", "public", "customers")}
    figures = {each["label"]: each.get("intValue") for each in view["assetMaterializations"][0]["metadataEntries"]}
    status = json.loads(headwater(pages.shop.project, "status", "--json"))
    assert figures["to_commit"] == {each["name"]: each["input_commit"] for each in status["views"]}["totals"]
    assert len(worker_processes(pages.shop.project)) == 1

    until(lambda: pages.ask(CHECK), "an evaluation of the lag check")
    (execution,) = pages.ask(CHECK)
    assert (execution["status"], execution["evaluation"]["success"]) == ("SUCCEEDED", True)
    said = {
        each["label"]: next(value for key, value in each.items() if key != "label")
        for each in execution["evaluation"]["metadataEntries"]
    }
    source = status["sources"][0]
    for name in ("state", "lag_ms", "lag_bytes", "confirmed_lsn", "received_lsn"):
        assert said[name] == source[name]


@pytest.mark.long
@pytest.mark.parametrize("lease_s", [300.0])
def test_cancelling_pauses_and_a_launch_by_hand_resumes(pages: Pages) -> None:
    shop = pages.shop
    until(lambda: pages.runs("STARTED") and worker.find(shop.log), "a lease that works", 200)
    (run,) = pages.runs("STARTED")
    pages.ask(TERMINATE, run=run["runId"])
    until(lambda: pages.runs("CANCELED", "FAILURE"), "the end of the run")
    assert [each["status"] for each in pages.runs("CANCELED", "FAILURE")] == ["CANCELED"]
    assert paused_by(shop.log) == f"dagster run {run['runId']}"

    def pipeline() -> LiveRow:
        return shop.log.live.read()[worker.PIPELINE]

    until(lambda: pipeline().stats["state"] == "paused", "the worker's pause")
    stood, ordered = shop.log.last_step(), shop.order()
    seen = pipeline().beat_at
    until(lambda: pipeline().beat_at > seen + 2, "some rounds of the worker")
    assert shop.log.last_step() == stood, f"the worker lives and does not step: {ordered} stays unseen"
    assert len(worker_processes(shop.project)) == 1
    until(lambda: "paused by" in (pages.tick("renew_lease")["skipReason"] or ""), "a skipped renewal")
    assert pages.runs("QUEUED", "NOT_STARTED", "STARTING", "STARTED") == []

    pages.launch("stream")
    until(lambda: paused_by(shop.log) is None, "the end of the pause", 200)
    until(lambda: lease.caught_up(shop.log, shop.log.newest_commit()), "what was ordered meanwhile")


@pytest.mark.long
@pytest.mark.parametrize("lease_s", [300.0])
def test_killed_worker_under_dagster_has_one_successor(pages: Pages) -> None:
    shop = pages.shop
    until(lambda: pages.runs("STARTED") and worker.find(shop.log), "a lease that works", 200)
    first = worker.find(shop.log)
    assert first is not None
    (process,) = worker_processes(shop.project)
    process.kill()
    order = shop.order()
    until(lambda: (now := worker.find(shop.log)) is not None and now.pid != first.pid, "a successor")
    second = worker.find(shop.log)
    assert second is not None
    assert second.epoch > first.epoch
    until(lambda: lease.caught_up(shop.log, order), "its steps")
    assert [each.pid for each in worker_processes(shop.project)] == [second.pid]
    assert len(pages.runs("STARTED")) == 1, "the same run goes on"
