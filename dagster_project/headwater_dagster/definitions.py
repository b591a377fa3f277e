"""The definitions of the project that HEADWATER_PROJECT names, for ``--module-name headwater_dagster.definitions``."""

from __future__ import annotations

from headwater_dagster.location import build_definitions

defs = build_definitions()
