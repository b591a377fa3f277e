"""The checks as Dagster has them: verdicts of ``rules`` as evaluations, and one definition to execute them by hand.

The observation sensor reports them without a run. Executed by hand they are judged anew, and those that compare
(``equals_query`` of views, ``equals_source`` of tables) compare all rows then.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from headwater.errors import HeadwaterError
from headwater.lake.rules import Verdict
from headwater.service.compared import compare_source
from headwater_dagster import health, run_process
from headwater_dagster.health import Known
from headwater_dagster.resource import HeadwaterResource
from headwater_dagster.translator import topic_key
from headwater_pipelines import api

COMPARE = "compare_sources"
Chosen = Sequence[dg.AssetCheckKey]


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
        chosen = sorted(context.selected_asset_check_keys)
        run_process.give_way()
        trouble = {**_compare_views(context, headwater, chosen), **_compare_sources(context, headwater, chosen)}
        given = {(each.key, one.check): one for each in health.take(headwater.project, found) for one in each.verdicts}
        for each in chosen:
            verdict = given.get((each.asset_key, each.name))
            if each in trouble or verdict is None:
                yield _unknown(each, trouble.get(each, "nothing is known yet"))
            else:
                yield dg.AssetCheckResult(asset_key=each.asset_key, **evaluated(verdict))

    return [health_checks]


def _unknown(chosen: dg.AssetCheckKey, why: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=chosen.asset_key,
        check_name=chosen.name,
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=why,
    )


Trouble = dict[dg.AssetCheckKey, str]
"""Why a comparison was not possible. What comes of one that is, is kept in the lake, and judged from there."""


def _compare_views(context: dg.AssetCheckExecutionContext, headwater: HeadwaterResource, chosen: Chosen) -> Trouble:
    """Compare all rows of the chosen views now."""
    trouble = Trouble()
    for each in (key for key in chosen if key.name == health.EQUAL):
        name = each.asset_key.path[1]
        try:
            with headwater.log() as log:
                context.log.info("%s: %s", name, api.compare_view(log, headwater.project, name))
        except HeadwaterError as error:
            trouble[each] = str(error)
    return trouble


def _compare_sources(context: dg.AssetCheckExecutionContext, headwater: HeadwaterResource, chosen: Chosen) -> Trouble:
    """Compare all rows of the chosen tables with their sources now; those of one source at one position."""
    trouble, tables = Trouble(), defaultdict[str, list[dg.AssetCheckKey]](list)
    for each in (key for key in chosen if key.name == health.SOURCED):
        tables[each.asset_key.path[0]].append(each)
    for source, keys in tables.items():
        only = [".".join(each.asset_key.path[1:]) for each in keys]
        try:
            with headwater.log() as log:
                compare_source(headwater.project, log, source, context.log.info, only=only)
        except HeadwaterError as error:
            trouble |= dict.fromkeys(keys, str(error))
    return trouble


def build_comparing_schedule(found: Known) -> list[dg.ScheduleDefinition]:
    """Once an hour, compare the tables with their sources whose time has come; none without tables."""
    topics = sorted(name for name, checks in found.topics.items() if health.SOURCED in checks)
    keys = {name: dg.AssetCheckKey(topic_key(name), health.SOURCED) for name in topics}
    if not keys:
        return []
    selection = dg.AssetSelection.checks(*keys.values())
    job = dg.define_asset_job(COMPARE, selection=selection, executor_def=dg.in_process_executor)

    @dg.schedule(
        name=COMPARE,
        job=job,
        cron_schedule="7 * * * *",  # not on the hour, when everybody else begins
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Has tables compared with their sources that were not within half of `source_compared_within_s`.",
    )
    def compare_sources(headwater: HeadwaterResource) -> dg.RunRequest | dg.SkipReason:
        due = sorted(health.due(headwater, topics))
        if not due:
            return dg.SkipReason("every table was compared lately")
        return dg.RunRequest(asset_check_keys=[keys[name] for name in due])

    return [compare_sources]
