"""Headwater in Dagster: topics and views as assets, lag as checks, upkeep as runs."""
