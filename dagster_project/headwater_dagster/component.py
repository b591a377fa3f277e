"""A headwater project in a ``defs.yaml``, for Dagster projects that are made of components::

type: headwater_dagster.HeadwaterComponent
attributes:
  project_dir: ../../../shop
"""

from dataclasses import dataclass

import dagster as dg

from headwater_dagster.inventory import JobData, SourceData, TopicData, ViewData
from headwater_dagster.location import build_definitions
from headwater_dagster.translator import HeadwaterTranslator


@dataclass
class HeadwaterComponent(dg.Component, dg.Resolvable):
    """Everything of one project: assets, checks, jobs, sensors. Subclass it to change the specs.

    ``project_dir``: relative to the folder of the ``defs.yaml``, or absolute. ``lease_s``: as in ``build_definitions``.
    """

    project_dir: str
    lease_s: float | None = None

    def get_asset_spec(self, data: SourceData | TopicData | ViewData | JobData) -> dg.AssetSpec:
        """The spec of one thing; see ``HeadwaterTranslator``."""
        return HeadwaterTranslator().get_asset_spec(data)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Raises ConfigError without a project."""
        folder = (context.path / self.project_dir).resolve()
        return build_definitions(folder, translator=_Asking(self), lease_s=self.lease_s)


class _Asking(HeadwaterTranslator):
    """A translator whose specs are a component's."""

    def __init__(self, component: HeadwaterComponent) -> None:
        self._component = component

    def get_asset_spec(self, data: SourceData | TopicData | ViewData | JobData) -> dg.AssetSpec:
        return self._component.get_asset_spec(data)
