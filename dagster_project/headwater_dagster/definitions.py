"""The definitions of the project that HEADWATER_PROJECT names, for ``--module-name headwater_dagster.definitions``."""

from __future__ import annotations

import dagster as dg

from headwater_dagster.location import build_definitions

# The executor is set here and not by build_definitions: definitions with two executors cannot be merged.
defs = dg.Definitions.merge(build_definitions(), dg.Definitions(executor=dg.in_process_executor))
