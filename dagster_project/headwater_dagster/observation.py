"""The observation sensor: how every asset is, reported without a run.

    observation       of sources and topics: where they stand, their figures
    materialization   of views and jobs, where they have moved: freshness policies count nothing else
    evaluation        of each check

Dagster's event log has no retention, so little is said: an asset at once when its state or a verdict changes, and else
after ``report_every_s``, if it has moved; one that stands still, once an hour. A materialization clears the badges of
an asset's checks, so its verdicts come with it.
"""

import base64
import json
import math
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg

from headwater.lake.rules import Verdict
from headwater_dagster import checks, health
from headwater_dagster.health import Health, Known
from headwater_dagster.kept import instance_of
from headwater_dagster.provenance import Provenance
from headwater_dagster.resource import HeadwaterResource

OBSERVE = "observe"
INTERVAL_S = 5
"""Dagster's own floor."""
QUIET_S = 3_600.0
"""Between two reports of what stands still."""
MATERIALIZED = ("view", "job")
MATERIALIZED_S = 60.0
"""Between two materializations of an asset, whoever makes them."""
SHARE = 1
"""Assets that one tick reports on at least, of those that have merely moved."""
Event = dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation


@dataclass(frozen=True, kw_only=True)
class Told:
    """What was said of an asset the last time, and when; kept in the sensor's cursor."""

    mark: list[Any]
    at: float
    position: int
    rows: int


def packed(told: Mapping[str, Told]) -> str:
    """As a cursor: Dagster keeps a copy with every tick of a day, and 200 bytes an asset are 3 MB a day."""
    text = json.dumps({name: asdict(each) for name, each in told.items()})
    return base64.b85encode(zlib.compress(text.encode())).decode()


def unpacked(cursor: str | None) -> dict[str, Told]:
    if not cursor:
        return {}
    text = zlib.decompress(base64.b85decode(cursor))
    return {name: Told(**each) for name, each in json.loads(text).items()}


def build_observation_sensor(
    headwater: HeadwaterResource, found: Known, made_of: Provenance
) -> list[dg.SensorDefinition]:
    """None while there is nothing to report on. Given the resource, so that Dagster sets nothing up for a tick."""
    if not health.check_specs(found):
        return []
    materialized = Materialized()

    @dg.sensor(
        name=OBSERVE,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Progress, figures and checks of every asset, from what `headwater status --json` tells.",
    )
    def observe(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        told = unpacked(context.cursor)
        project, now = headwater.project, time.time()
        every_s = project.slo("").report_every_s
        events: list[Event] = []
        all_health = health.take(project, found)
        made_at = materialized.of(instance_of(context), all_health)
        for each in _due(all_health, told, made_at, now, every_s):
            name = each.key.to_user_string()
            last, (made, _) = told.get(name), made_at.get(each.key, (0.0, False))
            is_materialized = now - made < MATERIALIZED_S
            events += _events(each, last, made_of.get(each.key), is_materialized=is_materialized)
            told[name] = Told(mark=each.mark, at=now, position=each.position, rows=each.figures.get("rows_total", 0))
        cursor = packed(told)
        if not events:
            return dg.SensorResult(skip_reason="nothing new", cursor=cursor)
        return dg.SensorResult(asset_events=events, cursor=cursor)

    return [observe]


class Materialized:
    """When views and jobs were materialized the last time, and whether by a run.

    Asked again when anything was written: Dagster reads the whole of each last event, a third of a tick's work.
    """

    def __init__(self) -> None:
        self._asked: tuple[dg.DagsterInstance, int | None, list[dg.AssetKey]] | None = None
        self._found: dict[dg.AssetKey, tuple[float, bool]] = {}

    def of(self, instance: dg.DagsterInstance, found: Sequence[Health]) -> dict[dg.AssetKey, tuple[float, bool]]:
        keys = [each.key for each in found if each.kind in MATERIALIZED]
        asked = (instance, instance.event_log_storage.get_maximum_record_id(), keys)  # before: later events are newer
        if asked != self._asked:
            entries = [each.asset_entry for each in instance.get_asset_records(keys)] if keys else []
            events = {each.asset_key: each.last_materialization for each in entries}
            self._found = {key: (each.timestamp, bool(each.run_id)) for key, each in events.items() if each is not None}
            self._asked = asked
        return self._found


def _due(
    found: Sequence[Health],
    told: Mapping[str, Told],
    made_at: Mapping[dg.AssetKey, tuple[float, bool]],
    now: float,
    every_s: float,
) -> list[Health]:
    """What is said now: all that is new, and of what has merely moved or grown old, as much as is this tick's share.

    Dagster writes events one by one: said together every five minutes they would be a tick of a second.
    """
    new, old = [], []
    for each in found:
        last, (made, by_run) = told.get(each.key.to_user_string()), made_at.get(each.key, (0.0, False))
        if last is None or each.mark != last.mark or (by_run and last.at < made):
            new.append(each)
        elif now - last.at >= (every_s if each.position != last.position else QUIET_S):
            old.append((last.at, each))
    share = max(SHARE, math.ceil(len(found) * INTERVAL_S / max(every_s, INTERVAL_S)))
    old.sort(key=lambda one: one[0])
    return [*new, *(each for _, each in old[:share])]


def _events(each: Health, last: Told | None, tags: Mapping[str, str] | None, *, is_materialized: bool) -> list[Event]:
    """One event of the asset itself, and its verdicts: all of them where their badges were or are cleared."""
    has_moved = each.position > (last.position if last else 0)
    if each.kind in MATERIALIZED and has_moved and not is_materialized:
        return [_materialization(each, last, tags), *(_evaluation(each, verdict) for verdict in each.verdicts)]
    metadata = {"state": each.state, **each.figures}
    before = last.mark if last else []
    verdicts = [one for one in each.verdicts if each.kind in MATERIALIZED or list(one.mark) not in before]
    return [
        dg.AssetObservation(each.key, description=each.trouble, metadata=metadata),
        *(_evaluation(each, verdict) for verdict in verdicts),
    ]


def _materialization(each: Health, last: Told | None, tags: Mapping[str, str] | None) -> dg.AssetMaterialization:
    """As of a lease's end: from and to as input commits, ``rows`` as records written between them."""
    before = last or Told(mark=[], at=0.0, position=0, rows=0)
    moved = {"from_commit": before.position, "to_commit": each.position}
    rows = {"rows": max(0, each.figures["rows_total"] - before.rows)}
    return dg.AssetMaterialization(each.key, metadata={**moved, **each.figures, **rows}, tags=tags)


def _evaluation(each: Health, verdict: Verdict) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(asset_key=each.key, **checks.evaluated(verdict))
