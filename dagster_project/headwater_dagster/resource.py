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
