"""What ``headwater up`` runs for PostgreSQL: a capture process per source, and one that guards its slot where asked.

Light imports only.
"""

from __future__ import annotations

from headwater.config import Project
from headwater.service.component import Component


def components(project: Project) -> list[Component]:
    sources = [source for source in project.sources.values() if source.kind == "postgres"]
    guarded = [source.name for source in sources if source.wal_drop_bytes]
    return [
        *(Component(name=f"source:{each.name}", argv=["headwater", "capture", each.name]) for each in sources),
        *(Component(name=f"guard:{name}", argv=["headwater", "source", "guard", name]) for name in guarded),
    ]
