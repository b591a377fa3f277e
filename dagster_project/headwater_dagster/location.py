"""Everything together: the definitions of one project.

Built without network in about a second: headwater.toml and the catalog are all that is read.
"""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from headwater.config import load
from headwater_dagster import health, inventory, maintenance, provenance
from headwater_dagster.assets import build_assets
from headwater_dagster.checks import build_comparing_schedule, build_health_checks
from headwater_dagster.lease import SECONDS
from headwater_dagster.observation import build_observation_sensor
from headwater_dagster.replay import build_replay_assets, build_replay_job
from headwater_dagster.resource import HeadwaterResource
from headwater_dagster.sensors import build_renewing_sensor
from headwater_dagster.stream import build_stream_job
from headwater_dagster.timetable import build_maintenance_jobs, build_maintenance_schedules
from headwater_dagster.translator import HeadwaterTranslator

LEASE_VARIABLE = "HEADWATER_LEASE_S"


def build_definitions(
    project_dir: Path | str | None = None,
    *,
    translator: HeadwaterTranslator | None = None,
    lease_s: float | None = None,
) -> dg.Definitions:
    """Definitions of one project, to be used alone or merged into others (``Definitions.merge``).

    ``project_dir`` None: HEADWATER_PROJECT, else the nearest headwater.toml upwards. ``lease_s`` None:
    HEADWATER_LEASE_S, else 600. The resource is called ``headwater``. Raises ConfigError without a project.
    """
    project = inventory.project_from_environment() if project_dir is None else load(project_dir)
    seconds = float(os.environ.get(LEASE_VARIABLE) or SECONDS) if lease_s is None else lease_s
    found = inventory.take(project)
    known = health.known(found)
    assets = build_assets(found, translator or HeadwaterTranslator())
    made_of = provenance.of(assets)
    resource = HeadwaterResource(project_dir=str(project.root))
    return dg.Definitions(
        assets=[
            *assets,
            *build_replay_assets(found.views, found.since),
            *maintenance.ASSETS,
        ],
        asset_checks=build_health_checks(known),
        jobs=[build_stream_job(seconds, made_of), build_replay_job(), *build_maintenance_jobs()],
        schedules=[*build_comparing_schedule(known), *build_maintenance_schedules(project.settings.timezone)],
        sensors=[*build_observation_sensor(resource, known, made_of), build_renewing_sensor(resource, seconds)],
        resources={"headwater": resource},
    )
