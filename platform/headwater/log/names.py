"""From what a person types to a topic: full names, and short ones when they are unique.

``source.namespace.table`` is the full name. ``orders``, ``public.orders`` resolve when exactly one topic
ends so. A changelog's topic ``views.<name>`` answers to the view's name.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from headwater.catalog.records import Topic
from headwater.errors import AmbiguousName, NameNotFound


def resolve(name: str, topics: Sequence[Topic]) -> Topic:
    """The one topic that ``name`` means; NameNotFound with near names, AmbiguousName with the candidates."""
    folded = name.lower()
    exact = [topic for topic in topics if topic.name.lower() == folded]
    found = exact or [topic for topic in topics if topic.name.lower().endswith("." + folded)]
    if len(found) > 1:
        raise AmbiguousName(f"{name} is not unique", candidates=sorted(topic.name for topic in found))
    if not found:
        raise NameNotFound(f"there is no table or view {name}", suggestions=near(name, [t.name for t in topics]))
    return found[0]


def near(name: str, known: Sequence[str]) -> tuple[str, ...]:
    """Up to three known names that look like ``name``, compared by their last part as well."""
    last = {full.rpartition(".")[2].lower(): full for full in known} | {full.lower(): full for full in known}
    return tuple(dict.fromkeys(last[hit] for hit in difflib.get_close_matches(name.lower(), list(last), 3, 0.6)))
