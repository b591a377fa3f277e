"""The lag check of a source: one rule over the figures of ``headwater status --json``.

It is evaluated by the observation sensor (no run, no process), and by a run when someone presses Execute.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from headwater.service.status import collect
from headwater_dagster.inventory import SourceData, lake_exists
from headwater_dagster.resource import HeadwaterResource
from headwater_dagster.translator import source_key

NAME = "lag"
LAG_WARN_MS = 10_000
"""Far above the 400 ms of a healthy stream on a busy machine: seconds of lag mean something is wrong."""
LAG_ERROR_MS = 60_000
FIGURES = (
    "state",
    "error",
    "confirmed_lsn",
    "received_lsn",
    "server_lsn",
    "lag_bytes",
    "lag_ms",
    "rows_per_s",
    "age_s",
)
RUNNING = ("copying", "streaming")


def rule(row: Mapping[str, Any]) -> tuple[bool, dg.AssetCheckSeverity, str]:
    """Passed, severity and a sentence, for one entry of ``collect()['sources']``."""
    lag_ms = row["lag_ms"]
    if row["state"] not in RUNNING:
        why = row["error"] or "nothing captures it now"
        return False, dg.AssetCheckSeverity.ERROR, f"{row['state']}: {why}"
    if lag_ms is None:
        return True, dg.AssetCheckSeverity.WARN, f"{row['state']}, no change seen yet"
    severity = dg.AssetCheckSeverity.ERROR if lag_ms > LAG_ERROR_MS else dg.AssetCheckSeverity.WARN
    return lag_ms <= LAG_WARN_MS, severity, f"{row['state']}, {lag_ms:.0f} ms behind"


def figures(row: Mapping[str, Any], position: int) -> dict[str, Any]:
    """The status entry's figures as metadata; what is not known is left out."""
    return {"position": position} | {name: row[name] for name in FIGURES if row[name] is not None}


def unseen(name: str) -> dict[str, Any]:
    """The status entry of a declared source that has never run."""
    return {"name": name, "position": None, **dict.fromkeys(FIGURES), "state": "stopped"}


def rows_of(now: Mapping[str, Any], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``collect()['sources']`` by name, for exactly these sources."""
    known = {row["name"]: row for row in now["sources"]}
    return {name: known.get(name) or unseen(name) for name in names}


def read_status(resource: HeadwaterResource) -> dict[str, Any]:
    """``collect()`` of the project's lake; that of an empty one while there is none."""
    if not lake_exists(resource.project.lake_dir):
        return {"position": 0, "sources": [], "views": [], "jobs": [], "topics": []}
    with resource.log() as log:
        return collect(log, resource.project)


def build_lag_checks(sources: Sequence[SourceData]) -> list[dg.AssetChecksDefinition]:
    """One check per source, executable by hand as well."""
    names = [each.source.name for each in sources]
    if not names:
        return []
    specs = [
        dg.AssetCheckSpec(
            name=NAME,
            asset=source_key(name),
            description=f"Streaming, and at most {LAG_WARN_MS // 1000} s behind the server; "
            f"an error from {LAG_ERROR_MS // 1000} s. The figures of `headwater status --json`.",
        )
        for name in names
    ]

    @dg.multi_asset_check(specs=specs, name="source_lag", can_subset=True)
    def source_lag(
        context: dg.AssetCheckExecutionContext, headwater: HeadwaterResource
    ) -> Iterator[dg.AssetCheckResult]:
        now = read_status(headwater)
        selected = {key.asset_key for key in context.selected_asset_check_keys}
        for name, row in rows_of(now, names).items():
            if source_key(name) in selected:
                passed, severity, text = rule(row)
                yield dg.AssetCheckResult(
                    check_name=NAME,
                    asset_key=source_key(name),
                    passed=passed,
                    severity=severity,
                    description=text,
                    metadata=figures(row, now["position"]),
                )

    return [source_lag]
