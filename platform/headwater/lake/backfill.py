"""``lake.replay(view)``: a view made anew beside the live one, followed from a notebook or a program, never held by it.

    plan ─▶ begin: a process of its own ─▶ making ─▶ comparing ─▶ done ─▶ promote: the same once more, and the switch
                      │ cancel, at any time: the live view is as it was

The process outlives who began it; a handle of the same view, also in another kernel, sees the same run. What it does
is ``headwater replay``. Nothing here keeps a thread, a timer or a row.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from headwater.config import Project
from headwater.errors import HeadwaterError, PipelineError, UsageError
from headwater.lake.backfill_run import Journal, Run, as_text, duration, process_of
from headwater.lake.html import render
from headwater.lake.shown import panel_of
from headwater.position import Position, resolve
from headwater.progress import bar

if TYPE_CHECKING:
    from headwater.lake.lake import Lake

ROWS_PER_S: Final = 5_000_000
"""What is expected of a view that was never replayed: below what filters, aggregates and joins do on two cores."""
TELLING_ROWS: Final = 1_000_000
"""An earlier run of fewer records says nothing about the rate: it was over too soon."""
START_S: Final = 1.5
"""Of a process, until it reads."""
LOOK_S: Final = 0.2
KEPT: Final = "replays"
"""The project's folder for rows that are kept."""
_children: Final[list[subprocess.Popen[bytes]]] = []
"""Begun here; looked at when another begins, so that none stays as a zombie for long."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a replay would read: ``rows`` records, about, in ``files`` of ``bytes``. ``after``, ``upto``: commits."""

    after: int
    upto: int
    rows: int
    files: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        files = f"{self.files:,} {'file' if self.files == 1 else 'files'} ({_size(self.bytes)})"
        range_ = f"commits {self.after:,} to {self.upto:,}"
        rows = f"about {self.rows:,} {'record' if self.rows == 1 else 'records'}"
        return f"{range_}: {rows} in {files}, about {duration(self.seconds)}"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is. ``fraction``: of the records to be read, None where that is not known; ``left_s``: about."""

    phase: str
    fraction: float | None
    done: int
    rows: int
    rows_per_s: float | None
    left_s: float | None
    seconds: float


class Backfill:
    """A replay of one view over (``start``, ``stop``], as it is planned, running or done.

    ``run()`` blocks with a progress bar; ``begin()`` does not, and ``follow()`` waits for what runs: interrupting
    either leaves the replay alone, ``cancel()`` ends it. In a notebook the object shows itself as a panel.
    """

    def __init__(
        self, lake: Lake, view: str, start: Position = None, stop: Position = None, *, promote: bool = False
    ) -> None:
        self.lake = lake
        self.view = lake.log.view(view).name
        self.start, self.stop, self.promotes = start, stop, promote
        self._journal = Journal.of(lake.log, self.view)
        self._panel: Any = None
        self._child: subprocess.Popen[bytes] | None = None
        self.plan()  # a beginning that is gone, or a view without rows, is said at once

    def plan(self) -> Plan:
        """What it would read now. NotYet, UsageError for an empty range; Expired, with the oldest position there is."""
        found: dict[str, int] = _planner()(self.lake.log, self.view, self.start, self.stop)
        before = self.state
        known = before.rows_per_s if before and before.phase == "done" and before.rows >= TELLING_ROWS else None
        rate = known or ROWS_PER_S
        return Plan(**found, seconds=START_S + found["rows"] / rate)

    @property
    def state(self) -> Run | None:
        """The newest run of this view, whoever began it; None before the first. One whose process is gone failed."""
        run = self._journal.read()
        if run is not None and not run.pid and not run.ended and self._child and self._child.poll() is not None:
            run = self._journal.read()  # it may have written between the two looks
            if run is not None and not run.pid and not run.ended:
                words = self._journal.said.read_text(errors="replace").strip()[-500:]
                return Run(**{**vars(run), "phase": "failed", "error": words or "its process did not start"})
        return run

    @property
    def progress(self) -> Progress | None:
        """How far the newest run is; None before the first."""
        run = self.state
        return None if run is None else progress_of(run)

    # ---- doing

    def begin(self, *, promote: bool | None = None, keep: bool = False, seen: str | None = None) -> Run:
        """Have a process of its own make the rows and compare them; returns at once.

        ``promote``: then put what was made in the live view's place. ``keep``: write the rows to
        ``replays/VIEW.parquet`` in the project. ``seen``: the id of the run that was known, "" for none: where another
        was begun since, that one is returned and nothing begins. UsageError while one is running.
        """
        project = self._project()
        plan = self.plan()
        kept = project.root / KEPT / f"{self._journal.path.stem}.parquet" if keep else None
        wanted = Run(
            id="",
            view=self.view,
            after=plan.after,
            upto=plan.upto,
            rows=plan.rows,
            asked=self.asked,
            promote=self.promotes if promote is None else promote,
            keep="" if kept is None else str(kept),
        )
        run, is_new = self._journal.claim(wanted, seen)
        if is_new:
            self._spawn(project, run)
        return run

    def follow(self) -> Run:
        """Wait for the run that there is, with a progress bar; an interrupt detaches, and the replay goes on.

        PipelineError, with its reason, when it fails or is cancelled. UsageError when none was begun.
        """
        run = self.state
        if run is None:
            raise UsageError(f"no replay of view {self.view} was begun", todo="Use run(), or begin().")
        try:
            with bar(f"replay of {self.view}") as shown:
                while not run.ended:
                    self.lake.log.wait(self.lake.log.newest_commit(), LOOK_S)
                    run = self.state or run
                    now = progress_of(run)
                    shown.to(now.fraction or 0.0, _said(now, run))
        except KeyboardInterrupt:
            again = f"lake.replay({self.view!r})"
            sys.stderr.write(f"The replay of {self.view} goes on: {again}.follow() waits for it, .cancel() ends it.\n")
            return run
        if run.phase != "done":
            raise PipelineError(
                f"the replay of view {self.view} {'was cancelled' if run.phase == 'cancelled' else 'failed'}"
                + (f": {run.error}" if run.error else ""),
                todo="The live view is as it was." if not run.commit else "",
            )
        return run

    def run(self, *, promote: bool | None = None, keep: bool = False) -> Run:
        """``begin`` and ``follow``."""
        self.begin(promote=promote, keep=keep)
        return self.follow()

    def promote(self) -> Run:
        """Make it once more and put it in the live view's place, in one commit that holds the difference; blocks."""
        return self.run(promote=True)

    def cancel(self, run_id: str | None = None) -> Run | None:
        """Have the process of a run end (the newest one without ``run_id``); the live view stays as it is.

        Nothing happens where that run has ended. What comes of it is seen in ``state``: a switch that was under way
        may have been first.
        """
        run = self.state
        if run is None or run.ended or (run_id is not None and run.id != run_id):
            return run
        if (process := process_of(run)) is not None:
            process.send_signal(signal.SIGINT)
        return run

    @property
    def asked(self) -> tuple[str, str]:
        """The range as it was given."""
        return "" if self.start is None else str(self.start), "" if self.stop is None else str(self.stop)

    def _project(self) -> Project:
        project = self.lake.project
        if project is None:
            raise UsageError("a replay takes its limits from headwater.toml", todo="Open the lake by its project.")
        return project

    def _spawn(self, project: Project, run: Run) -> None:
        command = [sys.executable, "-m", "headwater", "replay", run.view, "--project", str(project.root)]
        for option, at in (("--from", self.start), ("--to", self.stop)):
            command += [] if at is None else [option, f"commit:{resolve(self.lake.log, at)}"]
        command += ["--promote"] if run.promote else []
        command += ["--keep", run.keep] if run.keep else []
        command += ["--journal", str(self._journal.path)]
        _children[:] = [each for each in _children if each.poll() is None]
        with self._journal.said.open("wb") as said:
            # A session of its own: an interrupt of the cell, or the end of the kernel, is not its end.
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=project.root,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        self._child = child
        _children.append(child)

    # ---- showing

    def __str__(self) -> str:
        return as_text(self.view, self.lines())

    def __repr__(self) -> str:
        return str(self)

    def lines(self) -> Iterator[tuple[str, str]]:
        """What there is to say, a line each: the plan, and the newest run."""
        try:
            yield "plan", str(self.plan())
        except HeadwaterError as error:
            yield "plan", str(error)
        if (run := self.state) is not None:
            yield from run.lines()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """The panel where the notebook package is present, else a static table."""
        if (panel := panel_of(self, "backfill")) is not None:
            return panel._repr_mimebundle_(include=include, exclude=exclude)
        return {"text/plain": str(self), "text/html": self.static_html()}

    def static_html(self) -> str:
        """The plan and the newest run as HTML, readable without JavaScript."""
        rows = [(name, value) for name, value in self.lines()]
        return render(("replay", self.view), ("", ""), rows, len(rows), len(rows), self.lake.position())


def progress_of(run: Run) -> Progress:
    """How far a run is, by what it wrote last."""
    known = run.rows and (run.done or run.phase not in ("starting", "making"))
    done = run.rows if run.phase in ("comparing", "promoting", "done") else min(run.done, run.rows)
    fraction = done / run.rows if known else 1.0 if run.phase == "done" else None
    rate = run.rows_per_s
    left = None
    if run.phase == "making" and rate:
        left = (run.rows - done) / rate
    return Progress(
        phase=run.phase,
        fraction=fraction,
        done=done,
        rows=run.rows,
        rows_per_s=rate,
        left_s=left,
        seconds=run.seconds,
    )


def _planner() -> Any:
    for entry in entry_points(group="headwater.replay", name="plan"):
        return entry.load()
    raise UsageError("nothing here replays views", todo="Install headwater whole: its pipelines do.")


def _said(now: Progress, run: Run) -> str:
    rate = f", {now.rows_per_s:,.0f} a second" if now.rows_per_s else ""
    left = f", {duration(now.left_s)} left" if now.left_s is not None else ""
    return f"{now.phase}, {now.done:,} of about {now.rows:,} records{rate}{left}, commits {run.after:,} to {run.upto:,}"


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"
