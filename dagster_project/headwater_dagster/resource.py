"""The project as a Dagster resource."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from headwater.config import Project, load
from headwater.log import Log, open_log
from headwater_dagster.beats import beating
from headwater_dagster.inventory import lake_exists


class HeadwaterResource(dg.ConfigurableResource[None]):
    """A headwater project by its folder. Ops of your own read it with ``headwater.open(resource.project_dir)``.

    A run that uses it shows signs of life in the lake as long as it works (see ``beats``).
    """

    project_dir: str

    @contextmanager
    def yield_for_execution(  # type: ignore[override]  # Dagster's own yields the resource, too, and hides it
        self, context: dg.InitResourceContext
    ) -> Iterator[HeadwaterResource]:
        run, lake_dir = context.run, self.project.lake_dir
        if run is None or context.instance is None or not lake_exists(lake_dir):
            yield self
            return
        with self.log() as log, beating(log, context.instance, run.run_id):
            yield self

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

        Those that are refreshed by hand or from time to time are refreshed once. A paused view fails the run.
        An asset's view is the one that its metadata ``dagster/table_name`` says. Raises Failure with the reason.
        """
        from headwater_dagster.provenance import VERSION
        from headwater_dagster.stream import account_metadata, held

        metadata = context.assets_def.metadata_by_key
        names = {key: str(metadata[key]["dagster/table_name"]) for key in sorted(context.selected_asset_keys)}
        with self.log() as log:
            found = held(context, log, self, seconds, list(names.values()))
        accounts = {each.name: each for each in found if each.namespace == "views"}
        for key, name in names.items():
            account = accounts.get(name)
            if account is None:
                raise dg.Failure(f"view {name} has no step yet: see `headwater status` for its state")
            yield dg.MaterializeResult(asset_key=key, metadata=account_metadata(account), data_version=VERSION)
