"""What a materialization says it was made of, so that Dagster does not call a view unsynced that follows its tables.

For Dagster an asset is made from versions of its inputs and out of date once they have others. A view is never made: it
follows. So all versions are the one that Dagster gives to data whose version nobody knows. What remains is what it can
tell rightly: that the code is another one, or that a view reads something else, until the next report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import dagster as dg
from dagster._core.definitions import data_version  # no public names for these tags

VERSION = data_version.DEFAULT_DATA_VERSION
Provenance = Mapping[dg.AssetKey, Mapping[str, str]]


def of(assets: Iterable[dg.AssetSpec | dg.AssetsDefinition]) -> Provenance:
    """The tags of each asset's materializations, as Dagster itself would write them."""
    specs = [spec for each in assets for spec in ([each] if isinstance(each, dg.AssetSpec) else each.specs)]
    return {spec.key: _tags(spec) for spec in specs if spec.code_version is not None}


def _tags(spec: dg.AssetSpec) -> dict[str, str]:
    tags = {data_version.CODE_VERSION_TAG: str(spec.code_version), data_version.DATA_VERSION_TAG: VERSION.value}
    for dep in spec.deps:
        tags[data_version.get_input_data_version_tag(dep.asset_key)] = VERSION.value
        tags[data_version.get_input_event_pointer_tag(dep.asset_key)] = data_version.NULL_EVENT_POINTER
    return tags
