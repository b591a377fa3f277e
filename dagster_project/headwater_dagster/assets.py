"""Sources and topics as external assets, views as materializable ones.

Materializing views by hand brings the pipeline up to the present and returns: the worker is started or adopted,
and the run ends as soon as every view has seen what was committed when it began.
"""

from collections.abc import Iterator, Sequence

import dagster as dg

from headwater_dagster.inventory import Inventory, SourceData, TopicData, ViewData
from headwater_dagster.resource import HeadwaterResource
from headwater_dagster.stream import LeaseConfig, account_metadata, held
from headwater_dagster.translator import HeadwaterTranslator


class CatchUpConfig(LeaseConfig):
    """``seconds`` 0, the default here: until caught up."""

    seconds: float = 0.0


def build_assets(inventory: Inventory, translator: HeadwaterTranslator) -> list[dg.AssetSpec | dg.AssetsDefinition]:
    """Specs of sources and topics, and one definition for all views."""
    external: list[SourceData | TopicData] = [*inventory.sources, *inventory.topics]
    return [*(translator.get_asset_spec(each) for each in external), *build_view_assets(inventory.views, translator)]


def build_view_assets(views: Sequence[ViewData], translator: HeadwaterTranslator) -> list[dg.AssetsDefinition]:
    """One multi-asset over all views, any subset of which can be materialized; none while there is no view."""
    if not views:
        return []
    specs = {data.view.name: translator.get_asset_spec(data) for data in views}
    names = {spec.key: name for name, spec in specs.items()}

    @dg.multi_asset(specs=list(specs.values()), name="views", can_subset=True)
    def materialized_views(
        context: dg.AssetExecutionContext, config: CatchUpConfig, headwater: HeadwaterResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        with headwater.log() as log:
            accounts = {each.view: each for each in held(context, log, headwater, config.seconds)}
        for key in sorted(context.selected_asset_keys):
            account = accounts.get(names[key])
            if account is None:
                raise dg.Failure(f"view {names[key]} has no step yet: see `headwater status` for its state")
            yield dg.MaterializeResult(asset_key=key, metadata=account_metadata(account))

    return [materialized_views]
