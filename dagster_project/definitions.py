from headwater_dagster.definitions import defs  # noqa: D100, F401
