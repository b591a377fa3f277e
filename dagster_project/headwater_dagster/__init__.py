"""Headwater in Dagster: topics and views as assets, their health as checks, the pipeline as leased runs.

General layout, in reading order: ``inventory`` (what a project and its lake hold now; ``compiled`` and ``files`` tell
it what views read and where they are written), ``translator`` (how that becomes asset specs; the one thing to
override), ``columns``, ``lineage`` and ``about`` (what the specs say), ``worker`` and ``lease`` (the pipeline's process
and how long a run vouches for it; no Dagster in them), ``jobs`` (catching up with stream jobs), ``assets``,
``provenance`` (why a view is not called unsynced),
``stream`` (the job that holds the lease), ``replay`` (backfills), ``sensors`` (which renews the lease), ``rules``,
``health``, ``checks`` and ``observation`` (what the status means for each asset, as checks and as a sensor),
``maintenance`` and ``timetable`` (its assets, and when each is due; ``integrity`` and ``old_runs`` do two of them),
``location`` (all of it together), ``component`` (the same from a ``defs.yaml``), ``definitions`` (of the one project
that the environment names), ``instance`` (dagster.yaml and the processes to start), ``server`` (one of
them, which follows the project by ``changes``).

Names are imported when first used: ``headwater_dagster.instance`` must not cost an import of Dagster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater_dagster.assets import build_headwater_asset_specs, headwater_assets
    from headwater_dagster.component import HeadwaterComponent
    from headwater_dagster.location import build_definitions
    from headwater_dagster.resource import HeadwaterResource
    from headwater_dagster.translator import HeadwaterTranslator

__all__ = [
    "HeadwaterComponent",
    "HeadwaterResource",
    "HeadwaterTranslator",
    "build_definitions",
    "build_headwater_asset_specs",
    "headwater_assets",
]

_HOME = {
    "HeadwaterComponent": "component",
    "HeadwaterResource": "resource",
    "HeadwaterTranslator": "translator",
    "build_definitions": "location",
    "build_headwater_asset_specs": "assets",
    "headwater_assets": "assets",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
