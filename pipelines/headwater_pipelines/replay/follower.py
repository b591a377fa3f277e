"""What a replay tells those who began it and follow it by its journal (``headwater.lake.backfill_run``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from headwater.errors import HeadwaterError, UsageError
from headwater.lake.backfill_run import Journal, Phase, Run
from headwater.log import Log
from headwater_pipelines.replay.replay import Replayed


class Follower:
    """Writes down what ``tell`` hears; ``found`` is set to what came of it. Without a journal it does nothing."""

    def __init__(self, journal: Journal | None, run: Run | None) -> None:
        self._journal, self._run = journal, run
        self.found: Replayed | None = None

    def tell(self, phase: Any, done: int) -> None:
        if self._run is None:
            return
        made = {"made_s": self._run.seconds} if phase == "comparing" else {}
        self._write(phase != self._run.phase, phase=phase, done=done, **made)

    def end(self, phase: Phase, **more: Any) -> None:
        self._write(True, phase=phase, **more)

    def _write(self, at_once: bool, **changed: Any) -> None:
        if self._journal is not None and self._run is not None:
            self._run = self._journal.tell(replace(self._run, **changed), at_once=at_once)


@contextmanager
def journalled(log: Log, path: Path | None) -> Iterator[Follower]:
    """The block's replay, followed by the journal of this path: how it goes and how it ends, in whatever way."""
    journal = None if path is None else Journal(path)
    run = None if journal is None else journal.read()
    if journal is not None and (run is None or run.ended):
        raise UsageError(f"{path} waits for no replay", todo="Begin it by lake.replay(VIEW).")
    follower = Follower(journal, run)
    if run is not None:
        view = log.view(run.view)
        me = psutil.Process()
        follower.end("starting", pid=os.getpid(), process=me.create_time())
    try:
        yield follower
    except HeadwaterError as error:
        follower.end("failed", error=str(error))
        raise
    except KeyboardInterrupt:
        # The worker may have been quicker than who cancelled.
        switched = run is not None and run.promote and log.view(run.view).id != view.id
        follower.end("cancelled", error="the worker had switched already: it is promoted" if switched else "")
        raise
    except BaseException as error:
        follower.end("failed", error=f"{type(error).__name__}: {error}")
        raise
    if follower.found is not None:
        found = follower.found
        follower.end("done", made_s=found.seconds, rows=found.rows, found=asdict(found.comparison), commit=found.commit)
