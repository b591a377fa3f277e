"""A job's steps done again beside it: the same changes, state and instant, and what came of it compared with the log.

Nothing is published. Where it differs, the code has changed, or the function asks for more than it is given: the
clock, chance, the network.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from headwater import duck, record, types
from headwater.config import Settings
from headwater.errors import UsageError
from headwater.jobs import Job
from headwater.log import Log, dead_letters, jobs
from headwater_pipelines.jobs.calls import Calls
from headwater_pipelines.jobs.intake import Intake
from headwater_pipelines.jobs.room import Room
from headwater_pipelines.jobs.runner import inputs_of, open_state


@dataclass(frozen=True, kw_only=True)
class Step:
    """A published step: commits in (after, upto] taken in, ``before`` the commit that published the one before it."""

    after: int
    upto: int
    commit: int
    before: int
    first: bool


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Records of a topic that the log's step has and the replayed one has not, and the other way round."""

    commit: int
    topic: str
    missing: int
    extra: int


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What a replay found; ``rows`` were taken in again."""

    steps: int
    rows: int
    differences: tuple[Difference, ...]


def steps(log: Log, name: str) -> list[Step]:
    """The published steps of a job since it last began anew, oldest first."""
    mine = [each for each in log.commits(limit=2**31) if each.producer == jobs.PREFIX + name]
    begins = max((place + 1 for place, each in enumerate(mine) if each.position is None), default=0)
    found: list[Step] = []
    for each in mine[begins:]:
        last = found[-1] if found else None
        found.append(
            Step(
                after=last.upto if last else 0,
                upto=int(each.position or 0),
                commit=each.number,
                before=last.commit if last else 0,
                first=last is None,
            )
        )
    return found


def replay(log: Log, job: Job, settings: Settings, after: int, upto: int) -> Replayed:
    """Do the steps again whose input commits are in (after, upto].

    UsageError when there is none; JobFailed, Expired and CorruptFile as in a step.
    """
    chosen = [step for step in steps(log, job.name) if after < step.upto <= upto]
    if not chosen:
        todo = "Choose a range that holds input commits of its steps: see `headwater job list`."
        raise UsageError(f"job {job.name} has no step between commits {after} and {upto}", todo=todo)
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        room = Room.of(Path(folder), settings)
        state = open_state(log, job, room, chosen[0].before)
        intake, calls = Intake(log, job.batch_rows, room), Calls(log, job, state)
        rows, differences = 0, []
        try:
            for step in chosen:
                taken, made = _again(log, calls, intake, step)
                rows += taken
                differences += _compare(log, job, step, made)
        finally:
            if state is not None:
                state.close()
    return Replayed(steps=len(chosen), rows=rows, differences=tuple(differences))


def _again(log: Log, calls: Calls, intake: Intake, step: Step) -> tuple[int, dict[str, list[pa.Table]]]:
    """Rows taken in by one step, and the records that came of it by topic."""
    made: dict[str, list[pa.Table]] = defaultdict(list)
    inputs = inputs_of(log, calls.job)
    begins = step.first and calls.job.start == "rows"
    frames = intake.current(inputs, step.upto) if begins else intake.changes(inputs, step.after, step.upto)
    with log.transaction(f"replay:{calls.job.name}", 0, "replay") as tx:  # for its topics; it is never committed
        done = calls.make(tx, lambda name, table: made[name].append(table), step.after, step.upto, frames)
    if done.letters is not None:
        made[dead_letters.name_of(calls.job.topic)].append(done.letters)
    if calls.state is not None:
        calls.state.commit()
    return done.rows, made


def _compare(log: Log, job: Job, step: Step, made: dict[str, list[pa.Table]]) -> list[Difference]:
    """Of output, state and dead letters, the records that are not the same."""
    found = []
    known = {topic.name for topic in log.topics(hidden=True)}
    letters = [dead_letters.name_of(job.topic)] if job.on_error == "dead_letter" else []
    for name in [job.topic, *([job.state_topic] if job.state else []), *letters]:
        stored = log.read_changes(name, step.commit - 1, step.commit) if name in known else None
        missing, extra = _differing(stored, made.get(name, []))
        if missing or extra:
            found.append(Difference(commit=step.commit, topic=name, missing=missing, extra=extra))
    return found


def _differing(stored: pa.Table | None, made: Sequence[pa.Table]) -> tuple[int, int]:
    """Rows that only the first has, and only the second."""
    if stored is None or not made:
        return stored.num_rows if stored is not None else 0, sum(table.num_rows for table in made)
    again = pa.concat_tables(made)
    names = [name for name in again.column_names if name not in record.IMPLICIT]
    columns = ", ".join(types.quote(name) for name in names)
    with duck.connect(for_files=True) as own:
        own.register("stored", stored.select(names))
        own.register("again", again.select(names))
        ((missing, extra),) = own.execute(
            f"SELECT (SELECT count(*) FROM (SELECT {columns} FROM stored EXCEPT ALL SELECT {columns} FROM again)),"
            f" (SELECT count(*) FROM (SELECT {columns} FROM again EXCEPT ALL SELECT {columns} FROM stored))"
        ).fetchall()
    return int(missing), int(extra)
