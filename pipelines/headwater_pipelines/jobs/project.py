"""The jobs that a project declares: every ``Job`` in ``jobs/*.py``, imported anew from its file."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from headwater.config import Project
from headwater.errors import ConfigError, NameNotFound
from headwater.jobs import Job
from headwater.log import Log
from headwater.log.jobs import JobRecord
from headwater.log.names import near

Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A job and the version of the code that it stands in."""

    job: Job
    version: str
    place: str


def stamp(project: Project) -> Stamp:
    """Changes when any file of the folder does."""
    found = []
    for path in sorted(project.jobs_dir.glob("*.py")):
        with suppress(FileNotFoundError):  # removed this moment
            facts = path.stat()
            found.append((path.name, facts.st_size, facts.st_mtime_ns))
    return tuple(found)


def load(project: Project) -> tuple[list[Declared], dict[str, ConfigError]]:
    """Every declared job by name; and what is wrong with files, by their names.

    A file that cannot be imported, or has a job whose name or output another file's job has, declares nothing.
    """
    found: dict[str, Declared] = {}
    errors: dict[str, ConfigError] = {}
    folder = str(project.jobs_dir)
    if folder not in sys.path:  # so that jobs share what stands beside them
        sys.path.insert(0, folder)
    for path in project.job_files():
        try:
            mine = _declared(project, path)
            _require_new(mine, [*found.values(), *mine])
        except ConfigError as error:
            errors[path.name] = error
        else:
            found |= {each.job.name: each for each in mine}
    return [found[name] for name in sorted(found)], errors


def _declared(project: Project, path: Path) -> list[Declared]:
    version = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    place = f"{project.jobs_dir.name}/{path.name}"
    return [Declared(job=job, version=version, place=f"{place}:{job.line}") for job in _jobs(_module(path))]


def choose(declared: Sequence[Declared], names: Sequence[str]) -> list[Declared]:
    """Those of these names, or all when none is given; NameNotFound."""
    by_name = {each.job.name: each for each in declared}
    for name in names:
        if name not in by_name:
            raise NameNotFound(f"jobs/ declares no job {name}", suggestions=near(name, list(by_name)))
    return [by_name[name] for name in names] if names else list(declared)


def record_of(log: Log, declared: Declared) -> JobRecord:
    """What the catalog is told of a job; inputs by their full names where they are there."""
    job = declared.job
    return JobRecord(
        name=job.name,
        inputs=tuple(full_name(log, name) for name in job.inputs),
        output=job.topic,
        state_topic=job.state_topic if job.state else "",
        description=job.description,
        file=declared.place,
        version=declared.version,
    )


def full_name(log: Log, name: str) -> str:
    try:
        return log.topic(name).name
    except NameNotFound:
        return name


def _module(path: Path) -> ModuleType:
    """The file as a module of its own; what an earlier version of it defined is gone."""
    module = ModuleType(f"headwater_project_jobs.{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        # Not by the import system: its cache of compiled files takes one that changed within a second for the same.
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except Exception as error:
        del sys.modules[module.__name__]
        what = f"{path.name} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigError(what, where=_place(path, error), todo="Mend the file.") from error
    return module


def _place(path: Path, error: BaseException) -> str:
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{path}, line {line}" if line else str(path)


def _jobs(module: ModuleType) -> Iterable[Job]:
    """Those declared in the module itself, not those that it imports."""
    values = {id(each): each for each in vars(module).values() if isinstance(each, Job)}
    return [each for each in values.values() if each.function.__module__ == module.__name__]


def _require_new(mine: Sequence[Declared], known: Sequence[Declared]) -> None:
    for new in mine:
        for old in known:
            same = "name" if old.job.name == new.job.name else "output" if old.job.topic == new.job.topic else ""
            if same and old is not new:
                what = f"{old.place} and {new.place} declare jobs of the same {same}"
                raise ConfigError(what, todo="Give each one of its own.")
