"""Where `dagster dev` in this folder finds the definitions."""

from headwater_dagster.definitions import defs

__all__ = ["defs"]
