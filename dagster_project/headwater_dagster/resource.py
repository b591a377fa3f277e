"""The project as a Dagster resource."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from headwater.config import Project, load
from headwater.log import Log, open_log


class HeadwaterResource(dg.ConfigurableResource[None]):
    """A headwater project by its folder. Ops of your own read it with ``headwater.open(resource.project_dir)``."""

    project_dir: str

    @property
    def project(self) -> Project:
        """Read anew each time: headwater.toml may have changed. Raises ConfigError."""
        return load(self.project_dir)

    @contextmanager
    def log(self) -> Iterator[Log]:
        """The open log; StorageError or CatalogError when there is no lake."""
        with open_log(self.project.lake_dir) as log:
            yield log

    def run(self, context: dg.AssetExecutionContext, *, seconds: float = 0.0) -> Iterator[dg.MaterializeResult[None]]:
        """Bring the selected views up to now, or with ``seconds`` hold the lease so long; a result for each.

        An asset's view is the one that its metadata ``dagster/table_name`` says. Raises Failure with the reason.
        """
        from headwater_dagster.provenance import VERSION
        from headwater_dagster.stream import account_metadata, held

        with self.log() as log:
            found = held(context, log, self, seconds)
        accounts = {each.name: each for each in found if each.namespace == "views"}
        metadata = context.assets_def.metadata_by_key
        for key in sorted(context.selected_asset_keys):
            name = str(metadata[key]["dagster/table_name"])
            account = accounts.get(name)
            if account is None:
                raise dg.Failure(f"view {name} has no step yet: see `headwater status` for its state")
            yield dg.MaterializeResult(asset_key=key, metadata=account_metadata(account), data_version=VERSION)
