"""Which lake a notebook's magics read: the one chosen with ``%headwater``, else the nearest project's."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from headwater import Lake, config
from headwater.lake import open_lake
from headwater_notebooks.names import functions

VARIABLE = "HEADWATER_PROJECT"
"""Names the project when no folder from the notebook's upwards is one."""


class Session:
    """The lake of one shell, opened when it is first needed and kept."""

    def __init__(self) -> None:
        self._lake: Lake | None = None
        self.folder: Path | None = None

    @property
    def opened(self) -> bool:
        return self._lake is not None

    @property
    def lake(self) -> Lake:
        """The lake. ConfigError that says how to choose one when there is none."""
        return self._lake or self.choose(None)

    def choose(self, path: str | None) -> Lake:
        """Open the lake of ``path``; without one ``HEADWATER_PROJECT``, then the nearest headwater.toml upwards."""
        folder = Path(path).expanduser() if path else default_folder()
        lake = open_lake(folder)
        self.close()
        self._lake, self.folder = lake, folder.resolve()
        # The first key press in an SQL cell would wait for them.
        threading.Thread(target=functions, name="headwater functions", daemon=True).start()
        return lake

    def close(self) -> None:
        """Close the lake; the next use opens it again."""
        if self._lake is not None:
            self._lake.close()
            self._lake = None


def default_folder() -> Path:
    """HEADWATER_PROJECT, else the nearest folder upwards with a headwater.toml; ConfigError without either."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else config.find()
