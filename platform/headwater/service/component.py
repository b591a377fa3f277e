"""What ``headwater up`` runs: named command lines that packages declare by entry point.

A function in the group ``headwater.component`` takes the Project and returns its components. Each is run
as a process of its own, in the project's folder, and meets the others only in the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from headwater.config import Project
from headwater.errors import ConfigError

GROUP = "headwater.component"
PREPARE_GROUP = "headwater.prepare"
"""Functions (project, log) -> lines to log, called before the components start and when views/ changes."""
HOUSEKEEPING_GROUP = "headwater.housekeeping"
"""Functions (project, log) -> counts of what was done, called by maintenance every ``housekeeping_s``; each bounds its
own time, for sealing waits for it."""

EXIT_STOPPED = 0
"""It was asked to stop (SIGTERM), or has nothing more to do."""
EXIT_NOT_RETRYABLE = 78
"""It failed in a way that trying again cannot mend (sysexits' EX_CONFIG); its last log line says why."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One process of a project.

    ``name`` is the name it beats and owns under ('source:shop', 'pipeline:main'). ``argv`` is what to run;
    a first word 'headwater' stands for this interpreter's own command, so that no PATH is searched.
    Components start in the order of ``stage`` and stop in the same order: what produces stops first, and
    what consumes gets to see it.
    """

    name: str
    argv: Sequence[str]
    stage: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment it runs in."""
    url: str = ""
    """What to open in a browser, for a component that serves pages."""


def plugged_in(group: str) -> list[Any]:
    """The objects that installed packages give under an entry-point group, by name.

    Raises ConfigError naming the package that cannot be loaded: `up` must not run a project by half.
    """
    found = []
    for entry in sorted(entry_points(group=group), key=lambda each: each.name):
        try:
            found.append(entry.load())
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{entry.name} cannot be loaded: {error}",
                where=f"{group} = {entry.value}",
                todo="Reinstall the package that it belongs to.",
            ) from error
    return found


def declared(project: Project) -> list[Component]:
    """Every component that the installed packages declare for ``project``, in the order they start."""
    found: list[Component] = []
    for components in plugged_in(GROUP):
        found.extend(components(project))
    return sorted(found, key=lambda each: (each.stage, not each.name.startswith("source:"), each.name))
