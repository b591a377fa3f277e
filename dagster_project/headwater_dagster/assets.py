"""Sources and topics as external assets, views as materializable ones.

Materializing views by hand brings the pipeline up to the present and returns: the worker is started or adopted,
and the run ends as soon as every view has seen what was committed when it began. So it is with jobs: one that runs
is waited for, any other is run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from headwater.config import load
from headwater.errors import HeadwaterError, UsageError
from headwater_dagster.inventory import Inventory, JobData, SourceData, TopicData, ViewData, take
from headwater_dagster.jobs import catch_up
from headwater_dagster.provenance import VERSION
from headwater_dagster.resource import HeadwaterResource
from headwater_dagster.stream import LeaseConfig, account_metadata
from headwater_dagster.translator import HeadwaterTranslator


class CatchUpConfig(LeaseConfig):
    """``seconds`` 0, the default here: until caught up."""

    seconds: float = 0.0


def build_assets(inventory: Inventory, translator: HeadwaterTranslator) -> list[dg.AssetSpec | dg.AssetsDefinition]:
    """Specs of sources and topics, one definition for all views and one for all jobs."""
    external: list[SourceData | TopicData] = [*inventory.sources, *inventory.topics]
    specs = [translator.get_asset_spec(each) for each in external]
    return [*specs, *build_view_assets(inventory.views, translator), *build_job_assets(inventory.jobs, translator)]


def build_headwater_asset_specs(
    project_dir: Path | str, *, dagster_headwater_translator: HeadwaterTranslator | None = None
) -> list[dg.AssetSpec]:
    """Specs of all sources, topics, views and jobs of a project, for definitions of your own. Raises ConfigError."""
    found = take(load(project_dir))
    translator = dagster_headwater_translator or HeadwaterTranslator()
    every: list[SourceData | TopicData | ViewData | JobData] = [
        *found.sources, *found.topics, *found.views, *found.jobs
    ]  # fmt: skip
    return [translator.get_asset_spec(each) for each in every]


def headwater_assets(
    *,
    project_dir: Path | str,
    name: str | None = None,
    dagster_headwater_translator: HeadwaterTranslator | None = None,
    op_tags: Mapping[str, Any] | None = None,
    pool: str | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Decorator: a project's views as one multi-asset of your own, any subset of which can be materialized.

        @headwater_assets(project_dir="shop")
        def views(context: dg.AssetExecutionContext, headwater: HeadwaterResource):
            yield from headwater.run(context)

    Raises ConfigError without a project, UsageError while it has no view.
    """
    views = take(load(project_dir)).views
    if not views:
        raise UsageError("the project has no view yet", todo="Create one: `headwater view create FILE`.")
    translator = dagster_headwater_translator or HeadwaterTranslator()
    specs = [translator.get_asset_spec(data) for data in views]
    return dg.multi_asset(specs=specs, name=name, can_subset=True, op_tags=op_tags, pool=pool)


def build_view_assets(views: Sequence[ViewData], translator: HeadwaterTranslator) -> list[dg.AssetsDefinition]:
    """One multi-asset over all views, any subset of which can be materialized; none while there is no view."""
    if not views:
        return []
    specs = [translator.get_asset_spec(data) for data in views]

    @dg.multi_asset(specs=specs, name="views", can_subset=True)
    def materialized_views(
        context: dg.AssetExecutionContext, config: CatchUpConfig, headwater: HeadwaterResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        yield from headwater.run(context, seconds=config.seconds)

    return [materialized_views]


def build_job_assets(jobs: Sequence[JobData], translator: HeadwaterTranslator) -> list[dg.AssetsDefinition]:
    """One multi-asset over all stream jobs, any subset of which can be materialized; none while there is no job."""
    if not jobs:
        return []
    specs = {data.job.name: translator.get_asset_spec(data) for data in jobs}
    names = {spec.key: name for name, spec in specs.items()}

    @dg.multi_asset(specs=list(specs.values()), name="jobs", can_subset=True)
    def caught_up_jobs(
        context: dg.AssetExecutionContext, headwater: HeadwaterResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        chosen = {names[key]: key for key in context.selected_asset_keys}
        try:
            with headwater.log() as log:
                accounts = catch_up(headwater.project, log, sorted(chosen), context.log.info)
        except HeadwaterError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
        for account in accounts:
            key, metadata = chosen[account.name], account_metadata(account)
            yield dg.MaterializeResult(asset_key=key, metadata=metadata, data_version=VERSION)

    return [caught_up_jobs]
