"""What is said about a thing, in the forms that Dagster takes: owners, tags, groups, freshness, links to files.

What Dagster would refuse must not keep the definitions from loading: it becomes metadata.
"""

from __future__ import annotations

import re
import warnings
from datetime import timedelta

import dagster as dg
from dagster._core.definitions.utils import is_valid_owner  # no public name; what loading would refuse

from headwater_dagster.files import Place

FRESH_MIN_S = 60.0
"""Dagster refuses narrower windows, and no view reports more often."""
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{1,63}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_]")


def group(topic: str) -> str:
    """The group of a topic that belongs to no source: the first part of its name."""
    return _NOT_IN_NAMES.sub("_", topic.partition(".")[0])


def owned(owner: str | None) -> tuple[list[str], dict[str, object]]:
    """Owners as Dagster takes them, an e-mail address or team:NAME; any other text is metadata."""
    if not owner:
        return [], {}
    return ([owner], {}) if is_valid_owner(owner) else ([], {"owner": owner})


def tagged(values: dict[str, str | None]) -> tuple[dict[str, str], dict[str, object]]:
    """Tags, and as metadata the values that Dagster would refuse as tags."""
    said = {name: value for name, value in values.items() if value}
    tags = {name: value for name, value in said.items() if _TAG_VALUE.fullmatch(value)}
    return tags, {name: value for name, value in said.items() if name not in tags}


def freshness(seconds: float | None) -> dg.FreshnessPolicy | None:
    """None unless asked for: only a view that moved reports a materialization, and a quiet source is no defect."""
    if seconds is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(seconds=max(seconds, FRESH_MIN_S)))


def code(place: Place | None) -> dict[str, object]:
    """Metadata: the link to a file of the project."""
    if place is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # the only form in which Dagster links to a file
        file = dg.LocalFileCodeReference(file_path=str(place.path), line_number=place.line, label=place.path.name)
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[file])}
