"""Whether the log is its source: a comparison of the captured tables, and what the last one found.

What was found is kept by source, table by table, so that ``headwater status --json`` and the checks in Dagster tell it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any

from headwater.config import Project
from headwater.lake.status import COMPARED
from headwater.log import Log
from headwater.service.caught_up import require_dsn, source_kind

_KEPT = ("rows", "differences", "changing", "skipped")


def compare_source(
    project: Project, log: Log, name: str, on_table: Callable[[str], None], *, only: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Compare a source's tables with it, row for row at one position; ``only`` those, by ``namespace.table``.

    Each with ``table``, ``rows``, ``differences``, ``changing``, ``examples``, ``skipped`` (see ``SourceKind.verify``).
    SourceUnreachable, SourceGap.
    """
    source = project.source(name)
    require_dsn(source)
    found = [asdict(each) for each in source_kind(source.kind).verify(source, log, on_table, only)]
    now, known = time.time(), json.loads(log.setting(f"{COMPARED}{name}") or "{}")
    known |= {each["table"]: {"at": now} | {key: each[key] for key in _KEPT} for each in found}
    log.set_setting(f"{COMPARED}{name}", json.dumps(known))
    return found
