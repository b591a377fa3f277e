"""A project: its folder, read from ``headwater.toml`` and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from headwater.config import document, source_table
from headwater.config.settings import Settings
from headwater.config.slo import Slo
from headwater.config.source import SourceConfig
from headwater.errors import ConfigError

FILE = "headwater.toml"


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project folder: where it is, what it captures, its limits."""

    root: Path
    name: str
    lake_dir: Path
    sources: Mapping[str, SourceConfig]
    settings: Settings = field(default_factory=Settings)
    slos: Mapping[str, Slo] = field(default_factory=lambda: MappingProxyType({"": Slo()}))
    """By the name of what they hold for; "" for everything else."""

    def slo(self, name: str) -> Slo:
        """What is promised of a source, a topic, ``views.NAME`` or ``jobs.NAME``."""
        return self.slos.get(name) or self.slos[""]

    @property
    def file(self) -> Path:
        return self.root / FILE

    @property
    def views_dir(self) -> Path:
        return self.root / "views"

    @property
    def jobs_dir(self) -> Path:
        return self.root / "jobs"

    def job_files(self) -> list[Path]:
        """The files that may declare jobs; what begins with _ is there for the others to import."""
        return sorted(path for path in self.jobs_dir.glob("*.py") if not path.name.startswith("_"))

    def source(self, name: str) -> SourceConfig:
        """The source of that name. Raises ConfigError with the nearest declared name."""
        if name in self.sources:
            return self.sources[name]
        raise ConfigError(
            f"no source named {name!r} is declared",
            where=str(self.file),
            todo=document.nearest(name, self.sources) or f"Declared sources: {', '.join(self.sources) or 'none'}.",
        )


def find(start: Path | None = None) -> Path:
    """The nearest folder from ``start`` (the working directory) upwards that holds a headwater.toml."""
    origin = (start or Path.cwd()).resolve()
    for folder in (origin, *origin.parents):
        if (folder / FILE).is_file():
            return folder
    raise ConfigError(
        f"no {FILE} here or in any folder above",
        where=str(origin),
        todo="Make a project with `headwater init DIR`, or name one with --project DIR.",
    )


def load(project_dir: Path | str | None = None, environ: Mapping[str, str] | None = None) -> Project:
    """Read a project. ``None`` takes the nearest headwater.toml upwards; a folder must hold one itself.

    Raises ConfigError naming the file, the key and the nearest known key.
    """
    environ = os.environ if environ is None else environ
    if project_dir is None:
        root = find()
    else:
        root = Path(project_dir).expanduser().resolve()
        if not (root / FILE).is_file():
            raise ConfigError(
                f"no {FILE} in this folder",
                where=str(root),
                todo=f"Make a project with `headwater init {root}`.",
            )
    path = root / FILE
    written = document.parse(path)
    document.known(written, ("project", "source", "settings", "slo"), path, "")
    project = document.table(written, "project", path)
    document.known(project, ("name", "lake"), path, "project")
    sources = document.table(written, "source", path)
    return Project(
        root=root,
        name=str(project.get("name", root.name)),
        lake_dir=(root / Path(str(project.get("lake", "lake"))).expanduser()).resolve(),
        sources=MappingProxyType(
            {name: source_table.source(name, document.table(sources, name, path), path, environ) for name in sources}
        ),
        settings=_settings(document.table(written, "settings", path), path, environ),
        slos=MappingProxyType(_slos(document.table(written, "slo", path), path)),
    )


def _settings(table: dict[str, Any], path: Path, environ: Mapping[str, str]) -> Settings:
    kinds = get_type_hints(Settings)
    document.known(table, kinds, path, "settings")
    values = {key: document.typed(value, kinds[key], key, str(path)) for key, value in table.items()}
    for key, kind in kinds.items():
        variable = f"HEADWATER_{key.upper()}"
        if variable in environ:
            values[key] = document.typed(environ[variable], kind, variable, "environment")
    return Settings(**values)


def _slos(table: dict[str, Any], path: Path) -> dict[str, Slo]:
    """Those for everything, and by name what differs from them."""
    named = {name: value for name, value in table.items() if isinstance(value, dict)}
    common = _slo({key: value for key, value in table.items() if key not in named}, path, "slo")
    return {"": Slo(**common)} | {
        name: Slo(**{**common, **_slo(value, path, f'slo."{name}"')}) for name, value in named.items()
    }


def _slo(table: dict[str, Any], path: Path, section: str) -> dict[str, Any]:
    kinds = get_type_hints(Slo)
    document.known(table, kinds, path, section)
    return {key: document.typed(value, kinds[key], key, str(path)) for key, value in table.items()}
