"""A replay as a person or Dagster asks for it: plan, build beside, compare with the live view, promote or keep.

    plan ─▶ its rows, made anew ─▶ compare at one position ─▶ promote: the worker switches ─▶ compare again, there

Until the worker switches nothing of the live view has changed, and the switch is one commit that holds the difference.
So a replay can end at any time, in any way, without a trace but its folder, which the next one removes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from headwater.catalog.records import Step, View
from headwater.config import Settings
from headwater.errors import Expired, HeadwaterError, NotYet, OwnedElsewhere, PipelineError, UsageError
from headwater.failpoint import hit
from headwater.lake import Lake
from headwater.log import Log, base, leases, open_log, read
from headwater.ownership import holder_pid
from headwater_pipelines import api
from headwater_pipelines.compiler import CompiledView
from headwater_pipelines.compiler.plan import Base
from headwater_pipelines.replay.comparison import Comparison, compare
from headwater_pipelines.replay.rows import Rows
from headwater_pipelines.runtime import registry, worker
from headwater_pipelines.runtime.fill import rows_at
from headwater_pipelines.runtime.publish import PRODUCER

Say = Callable[[str], None]
Tell = Callable[[str, int], None]
"""Hears of each phase (making, comparing, promoting) and of the records that were read so far."""
FOLDER = "replays"
STEPS = 20
DRIFT_S = 60.0
"""A process's beginning is told by the time since boot, a file's by the clock, which may have been set meanwhile."""
WAIT_S = 0.25
"""Between two looks at whether the worker has switched."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a replay would read. ``start``, ``stop``: input commits; ``step``: the live view's, to compare with."""

    view: View
    compiled: CompiledView
    start: int
    stop: int
    step: Step
    rows: int

    @property
    def text(self) -> str:
        return f"view {self.view.name}, commits {self.start} to {self.stop}: about {self.rows:,} records to read"


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """``seconds``: until its rows were made. ``commit``: of the switch, 0 where nothing was promoted."""

    view: str
    start: int
    stop: int
    rows: int
    seconds: float
    comparison: Comparison
    commit: int = 0


Compiled = tuple[Mapping[int, CompiledView], Mapping[int, HeadwaterError]]


def plan(log: Log, name: str, start: int | None, stop: int, compiled: Compiled | None = None) -> Plan:
    """What it takes to replay a view over the input commits (start, stop], and whether it can be done at all.

    Without ``start``: from the rows at the end. ``stop`` becomes the newest input commit at which the view was
    published then, by the definition that it had; ``compiled`` is what ``compile_all`` gave for the views at ``stop``.
    NameNotFound, NotYet, UsageError for an empty range; Expired beyond retention, with the oldest position that can be
    replayed from.
    """
    view = {each.name: each for each in log.views(stop)}.get(log.view(name).name)
    step = log.newest_common_step(frozenset({view.id}), stop) if view else None
    if view is None or step is None:
        raise NotYet(f"view {name} has published nothing at or before commit {stop}", todo="Choose a later position.")
    found, errors = compiled or registry.compile_all(log, log.views(stop))
    if view.id in errors:
        raise errors[view.id]
    start = step.input_commit if start is None else start
    if start > step.input_commit:
        raise UsageError(
            f"the replay would begin at commit {start}, behind its end: view {name} stands at {step.input_commit}",
            todo="Give an earlier --from, or a later --to.",
        )
    rows = _rows(log, found[view.id], start, step.input_commit)
    return Plan(view=view, compiled=found[view.id], start=start, stop=step.input_commit, step=step, rows=rows)


def replay(
    log: Log,
    wanted: Plan,
    settings: Settings,
    say: Say,
    *,
    promote: bool = False,
    keep: Path | None = None,
    tell: Tell = lambda *_: None,
) -> Replayed:
    """Make a view anew beside the live one, compare both at ``wanted.stop``; with ``promote`` have the worker switch.

    Promoted is the same definition built once more by the worker, at the position where it then stands; the replay is
    brought there, too, and compared with what was published. Blocks until that has happened. PipelineError when the
    promoted view is not what was replayed, or is paused by the worker; the errors of ``Rows`` before that.
    ``keep``: a Parquet file to be written with the rows that were made, and in ``_weight`` how often each stands.
    """
    began = time.monotonic()
    with (
        workplace(log) as folder,
        leases.Lease(log, wanted.start, expires_s=settings.reader_expiry_s),
        Lake(log) as lake,
    ):
        said = _counting(wanted, say, tell)
        rows = Rows(log, lake, wanted.view, wanted.compiled, folder, settings, said, total=wanted.rows)
        try:
            tell("making", 0)
            made = rows.make(wanted.start, wanted.step)
            seconds = time.monotonic() - began
            hit("replay.make:after")
            tell("comparing", wanted.rows)
            found = compare(lake, wanted.compiled, made, wanted.step.publish_commit)
            say(str(found))
            if keep is not None:
                _keep(made, keep)
                say(f"kept in {keep}")
            if promote:
                tell("promoting", wanted.rows)
            commit = _promote(log, wanted, rows, lake, settings, say) if promote else 0
        finally:
            rows.close()
    return Replayed(
        view=wanted.view.name,
        start=wanted.start,
        stop=wanted.stop,
        rows=wanted.rows,
        seconds=seconds,
        comparison=found,
        commit=commit,
    )


def _keep(made: Path, target: Path) -> None:
    """Copy a file to where somebody wants to look at it; it appears whole or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        shutil.copyfile(made, part)
        part.replace(target)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}", todo="Give another file.") from error


def _counting(wanted: Plan, say: Say, tell: Tell) -> Callable[[int], None]:
    """Progress a step at a time: some twenty lines, however long it takes, for a run's log keeps them all."""
    done, said = 0, 0

    def read(more: int) -> None:
        nonlocal done, said
        done += more
        tell("making", min(done, wanted.rows))
        if (reached := STEPS * done // max(1, wanted.rows)) > said:
            said = reached
            say(f"{done:,} of about {wanted.rows:,} records")

    return read


def _promote(log: Log, wanted: Plan, rows: Rows, lake: Lake, settings: Settings, say: Say) -> int:
    """Have the worker put the same definition, built anew, in the view's place; the commit of the switch."""
    view = log.view(wanted.view.name)
    if (view.sql, view.options) != (wanted.view.sql, wanted.view.options):
        raise PipelineError(f"view {view.name} has another definition now", todo="Replay it to a later position.")
    if (by := api.paused_by(log)) is not None:
        raise PipelineError(f"the pipeline is paused by {by}", todo="`headwater resume`, then promote.")
    new = log.replace_view(view, view.name, view.sql, dict(view.options))
    try:
        hit("replay.ask:after")
        say("the pipeline builds it and switches")
        with _working(log, settings) as failed:
            step = _switched(log, new, failed)
    except BaseException:
        log.withdraw_replacement(new)
        raise
    hit("replay.switch:after")
    made = rows.make(wanted.start, step)
    found = compare(lake, wanted.compiled, made, step.publish_commit)
    if not found.is_same:
        raise PipelineError(
            f"what was promoted is not what was replayed: {found}",
            todo="Replay it again without --promote, and see which rows differ.",
        )
    say(f"promoted at commit {step.publish_commit}; {found}")
    return step.publish_commit


@contextmanager
def _working(log: Log, settings: Settings) -> Iterator[list[BaseException]]:
    """The pipeline's worker, in a thread of this process while no other runs it; what ended it comes into the list."""
    failed = list[BaseException]()
    if holder_pid(log, PRODUCER) is not None:
        yield failed
        return
    stop = threading.Event()

    def work() -> None:
        try:
            with open_log(log.folder) as own:
                worker.run(own, settings, stop)
        except OwnedElsewhere:
            pass  # another process has begun to run it meanwhile
        except BaseException as error:  # noqa: BLE001 -- raised by who waits for it
            failed.append(error)

    thread = threading.Thread(target=work, name="pipeline", daemon=True)
    thread.start()
    try:
        yield failed
    finally:
        stop.set()
        thread.join()


def _switched(log: Log, new: View, failed: list[BaseException]) -> Step:
    """The step that published a replacement. PipelineError when it never will."""
    while True:
        if failed:
            raise failed[0]
        waiting = {each.id: each for each in log.replacements()}.get(new.id)  # before: it may switch at any time
        seen = log.newest_commit()
        if log.newest_common_step(frozenset({new.id}), seen) is not None:
            return next(each for each in log.steps() if new.id in each.views)
        if waiting is None or waiting.state in ("paused", "failed"):
            why = waiting.reason if waiting else "somebody has replaced or dropped the view meanwhile"
            raise PipelineError(f"view {new.name} was not promoted: {why}", todo="The live view is as it was.")
        log.wait(seen, WAIT_S)


@contextmanager
def workplace(log: Log) -> Iterator[Path]:
    """A folder of its own on the lake's disk; those of processes that were killed are removed."""
    parent = log.folder / "state" / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.iterdir():
        if not _is_used(old):
            shutil.rmtree(old, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _is_used(folder: Path) -> bool:
    """Whether the process lives that made this folder; one that began after it only has its number."""
    try:
        maker = psutil.Process(int(folder.name.split("-")[0]))
        return maker.status() != psutil.STATUS_ZOMBIE and maker.create_time() <= folder.stat().st_mtime + DRIFT_S
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False


def files(log: Log, wanted: Plan) -> dict[str, int]:
    """Bytes by path of the files that a replay reads; records that are not in one of their own yet count by theirs."""
    found: dict[str, int] = {}
    for each in wanted.compiled.used:
        topic = log.topic(each.name)
        rows = base.newest(log, topic, wanted.start)
        if rows is not None:
            found[rows.path] = rows.bytes
        later = read.plan(log, topic, rows.commit if rows is not None else 0, wanted.stop)
        found |= {segment.path: segment.bytes for segment in later.segments}
        for batch in later.batches:
            found[batch.path] = found.get(batch.path, 0) + batch.byte_length
    return found


def _rows(log: Log, compiled: CompiledView, start: int, stop: int) -> int:
    """Records to be read. Expired says from where on a replay can begin."""
    try:
        return sum(_records(log, each, start, stop) for each in compiled.used)
    except Expired as error:
        oldest = max(_oldest(log, each, stop) for each in compiled.used)
        todo = f"The oldest position that it can be replayed from is commit:{oldest}."
        raise Expired(f"{error.what}: view {compiled.name} cannot be replayed from there", todo=todo) from error


def _records(log: Log, each: Base, start: int, stop: int) -> int:
    """Those of a topic's rows at the beginning, and of its changes after it; Expired where some are gone."""
    later = read.plan(log, log.topic(each.name), start, stop, whole=True)
    return rows_at(log, each, start, whole=True) + later.rows


def _oldest(log: Log, each: Base, stop: int) -> int:
    """The oldest commit at which a topic's rows can be read, and all that came after it."""
    low, high = 0, stop
    while low < high:  # what is kept is kept from some commit on
        middle = (low + high) // 2
        try:
            _records(log, each, middle, stop)
            high = middle
        except Expired:
            low = middle + 1
    return low
