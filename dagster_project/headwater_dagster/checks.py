"""The checks as Dagster has them: verdicts of ``rules`` as evaluations, and one definition to execute them by hand.

The observation sensor reports them without a run. Executed by hand they are judged anew, and ``equals_query`` compares
all rows of the view.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from headwater.errors import HeadwaterError
from headwater_dagster import health
from headwater_dagster.health import EQUAL, Known
from headwater_dagster.resource import HeadwaterResource
from headwater_dagster.rules import Verdict
from headwater_pipelines import api


def evaluated(verdict: Verdict) -> dict[str, Any]:
    """What an AssetCheckResult and an AssetCheckEvaluation take of it."""
    return {
        "check_name": verdict.check,
        "passed": verdict.passed,
        "severity": dg.AssetCheckSeverity[verdict.severity],
        "description": verdict.text,
        "metadata": metadata(verdict),
    }


def metadata(verdict: Verdict) -> dict[str, Any]:
    """Figures as they are, numbers become plots; times as times."""
    shown = {
        name: dg.MetadataValue.json(each) if isinstance(each, list) else each for name, each in verdict.figures.items()
    }
    return {**shown, **{name: dg.MetadataValue.timestamp(each) for name, each in verdict.times.items()}}


def build_health_checks(found: Known) -> list[dg.AssetChecksDefinition]:
    """All of them in one definition, any of which can be executed."""
    specs = health.check_specs(found)
    if not specs:
        return []

    @dg.multi_asset_check(specs=specs, name="health", can_subset=True)
    def health_checks(
        context: dg.AssetCheckExecutionContext, headwater: HeadwaterResource
    ) -> Iterator[dg.AssetCheckResult]:
        chosen = context.selected_asset_check_keys
        trouble = {each.asset_key: _compare(context, headwater, each) for each in chosen if each.name == EQUAL}
        given = {(each.key, one.check): one for each in health.take(headwater, found) for one in each.verdicts}
        for each in sorted(chosen):
            why = trouble.get(each.asset_key) if each.name == EQUAL else None
            verdict = given.get((each.asset_key, each.name)) if why is None else None
            if verdict is not None:
                yield dg.AssetCheckResult(asset_key=each.asset_key, **evaluated(verdict))
            else:
                said = why or "nothing is known yet"
                yield dg.AssetCheckResult(
                    asset_key=each.asset_key,
                    check_name=each.name,
                    passed=False,
                    severity=dg.AssetCheckSeverity.WARN,
                    description=said,
                )

    return [health_checks]


def _compare(
    context: dg.AssetCheckExecutionContext, headwater: HeadwaterResource, chosen: dg.AssetCheckKey
) -> str | None:
    """Compare all rows of a view now; what came of it is kept in the lake. Why that was not possible, if so."""
    try:
        with headwater.log() as log:
            context.log.info(
                "%s: %s", chosen.asset_key.path[1], api.compare_view(log, headwater.project, chosen.asset_key.path[1])
            )
    except HeadwaterError as error:
        return str(error)
    return None
