"""A bounded lease on the pipeline: for its time a run keeps the worker alive, then says what came of it.

    begin ─▶ adopt or start the worker ─▶ once a second: alive? else start the next ─▶ deadline ─▶ account
                                                         └─ paused, or stopping ───────────────┘

The worker keeps running whatever ends the lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headwater.config import Project
from headwater.errors import PipelineError
from headwater.log import Log
from headwater.service.status import collect
from headwater_dagster import worker
from headwater_dagster.increments import Increments, reaches
from headwater_pipelines.api import paused_by

TAG = "stream.lease"
NAME = "main"
SECONDS = 600.0
"""Short enough that an upgrade or a new definition is taken up soon, long enough that runs are few."""
GUARD_S = 600
"""How much later than its deadline Dagster's own run monitoring ends a run that hangs."""
LOOK_S = 1.0
SOON_S = 0.2
"""Between two looks of a run that somebody waits for."""
REPORT_S = 30.0
"""Between two progress lines: the run's log has no retention, so they are few."""

Ending = Literal["deadline", "caught up", "paused", "stopping"]


@dataclass(frozen=True, kw_only=True)
class Account:
    """What happened to one view or job while the lease was held. ``rows``: records written."""

    name: str
    namespace: Literal["views", "jobs"] = "views"
    from_commit: int
    to_commit: int
    rows: int
    step_ms_p95: float | None
    lag_ms: float | None


@dataclass(kw_only=True)
class Lease:
    """Held by one run. ``seconds`` 0: until the pipeline has reached the commit that was newest at the start.

    ``refreshed``: views that it asks the pipeline to refresh, and waits for.
    """

    project: Project
    log: Log
    run_id: str
    seconds: float
    say: Callable[[str], None]
    refreshed: Sequence[str] = ()
    deadline: float = 0.0
    _starts: list[float] = field(default_factory=list)
    _sign: tuple[int, float, float] | None = None
    _sign_at: float = 0.0

    def hold(self) -> tuple[Ending, list[Account]]:
        """Block until the lease ends. PipelineError when no worker can be kept running, or a view is not refreshed."""
        before = collect(self.log, self.project)
        self.deadline = time.time() + (self.seconds or SECONDS)
        asked = Increments(self.log, self.refreshed, before["position"])
        asked.ask()
        ending = self._watch(asked)
        asked.require()
        return ending, _accounts(before, collect(self.log, self.project))

    def _watch(self, asked: Increments) -> Ending:
        next_report = 0.0
        known = None
        while True:
            ending = self._ending(asked)
            if ending is not None:
                return ending
            found, started = self._worker()
            self._kill_if_hung(found)
            if (found.pid, found.epoch) != known:
                known = (found.pid, found.epoch)
                self.say(f"{'started' if started else 'adopted'} worker {found.pid}, epoch {found.epoch}")
            if time.time() >= next_report:
                next_report = time.time() + REPORT_S
                self.say(progress(collect(self.log, self.project)))
            time.sleep(max(0.0, min(LOOK_S if self.seconds else SOON_S, self.deadline - time.time())))

    def _worker(self) -> tuple[worker.Worker, bool]:
        """The live worker; started again with backoff, as ``up`` would, and given up at the same limit."""
        limits = self.project.settings
        while True:
            try:
                found, started = worker.ensure(self.project, self.log, starter=f"dagster run {self.run_id}")
            except PipelineError as error:
                failure: PipelineError | None = error
            else:
                failure = None
                if not started:
                    return found, False
            now = time.monotonic()
            self._starts = [each for each in self._starts if now - each < limits.restart_window_s] + [now]
            if len(self._starts) > limits.restart_limit:
                raise failure or PipelineError(
                    f"the pipeline's worker ended {limits.restart_limit} times in {limits.restart_window_s:.0f} s",
                    where=str(worker.log_path(self.project)),
                    todo="Read its log, mend the cause, and launch the stream again.",
                )
            if failure is None:
                return found, True
            self.say(f"{failure.what}; trying again")
            backoff_ms = limits.restart_backoff_ms * 2 ** (len(self._starts) - 1)
            time.sleep(min(backoff_ms, limits.restart_backoff_max_ms) / 1000)

    def _kill_if_hung(self, found: worker.Worker) -> None:
        """SIGKILL a worker that has neither beaten nor computed for 15 s; one that fills a large view computes."""
        sign = (found.pid, found.beat_at, found.cpu_s)
        if sign != self._sign:
            self._sign, self._sign_at = sign, time.monotonic()
        elif time.monotonic() - self._sign_at > worker.HUNG_S:
            self.say(f"worker {found.pid} hangs: killed")
            worker.kill(found)

    def _ending(self, asked: Increments) -> Ending | None:
        if paused_by(self.log) is not None:
            return "paused"
        if self.log.setting(worker.STOPPING) is not None:
            return "stopping"
        if time.time() >= self.deadline:
            return "deadline"
        if asked.are_there() and not self.seconds and caught_up(self.log, asked.target):
            return "caught up"
        return None

    def cancelled(self) -> bool:
        """Whether a cancellation that arrives now is a person's wish to stop the pipeline.

        After the deadline it is Dagster's own guard, and while everything shuts down it is that.
        """
        return time.time() < self.deadline and self.log.setting(worker.STOPPING) is None


def caught_up(log: Log, target: int) -> bool:
    """Whether every view that is maintained stands at the newest input commit at or before ``target``."""
    step = log.last_step()
    views = [view for view in log.views() if view.state == "creating" or view.refresh == "continuous"]
    waiting = {view.id for view in views if view.state in ("creating", "live")}
    return not waiting or (step is not None and waiting <= step.views and reaches(log, step.input_commit, target))


def progress(now: Mapping[str, Any]) -> str:
    """One line: the newest commit, then what is said of views, and of which: most of the time of all the same."""
    said: dict[str, list[str]] = {}
    for row in now["views"]:
        at = "" if row["input_commit"] is None else f" at {row['input_commit']}, {row['lag_commits']} commits behind"
        said.setdefault(f"{row['state']}{at}", []).append(row["name"])
    views = [f"{how}: {', '.join(names)}" for how, names in said.items()]
    return f"commit {now['position']}; " + ("; ".join(views) or "no view yet")


def _accounts(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Account]:
    """Of every view, and of every job that has moved: they have a process of their own, and nothing waits for it."""
    views = {row["name"]: row for row in before["views"]}
    jobs = {row["name"]: row for row in before["jobs"]}
    found = [
        Account(
            name=row["name"],
            from_commit=(views.get(row["name"]) or {}).get("input_commit") or 0,
            to_commit=row["input_commit"],
            rows=max(0, row["rows"] - (views.get(row["name"]) or {"rows": 0})["rows"]),
            step_ms_p95=row["step_ms_p95"],
            lag_ms=row["lag_ms"],
        )
        for row in after["views"]
        if row["input_commit"] is not None
    ]
    accounts = [account_of(jobs.get(row["name"], {}), row) for row in after["jobs"]]
    return found + [each for each in accounts if each.to_commit > each.from_commit]


def account_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> Account:
    """What happened to a job between two entries of the status; the first is empty for one that was not there."""
    return Account(
        name=after["name"],
        namespace="jobs",
        from_commit=before.get("input_commit") or 0,
        to_commit=after["input_commit"] or 0,
        rows=max(0, after["rows_out"] - (before.get("rows_out") or 0)),
        step_ms_p95=after["step_ms_p95"],
        lag_ms=after["lag_ms"],
    )
