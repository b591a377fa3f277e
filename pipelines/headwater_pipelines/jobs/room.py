"""The room that a job has: a memory limit for each of its DuckDBs, and a folder for what does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from headwater import duck
from headwater.config import MIB, Settings


@dataclass(frozen=True, kw_only=True)
class Room:
    """``folder`` is the caller's to remove; nobody else spills there."""

    folder: Path
    memory_limit: str

    @classmethod
    def of(cls, folder: Path, settings: Settings) -> Room:
        return cls(folder=folder, memory_limit=f"{settings.job_memory_bytes_max // MIB}MiB")

    def connect(self, use: str, timezone: str) -> duckdb.DuckDBPyConnection:
        """A DuckDB in memory that spills to a folder of its own, named after what it is for."""
        spill = self.folder / use
        self.folder.mkdir(parents=True, exist_ok=True)  # DuckDB makes the last one itself, and removes it
        return duck.connect(timezone=timezone, memory_limit=self.memory_limit, temp_directory=spill, for_files=True)
