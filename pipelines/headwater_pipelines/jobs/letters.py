"""The dead letters of a job with ``on_error = 'dead_letter'``: rows of its inputs for which its function fails alone.

They are letters of the job's output, in ``<output>.dlq`` like those of any topic, written in the commit that publishes
the step in which the row came. Which rows they are follows from the function and the log, so a replay finds the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from headwater import duck, record
from headwater.jobs import Job
from headwater.log import Log
from headwater_pipelines.jobs.failure import JobFailed
from headwater_pipelines.runtime.letters import LETTERS_MAX


class Letters:
    """Of one step of a job; JobFailed where there would be more than anybody looks at."""

    def __init__(self, log: Log, job: Job) -> None:
        self._log = log
        self._job = job
        self._found: list[tuple[int, pl.DataFrame, JobFailed]] = []

    def add(self, frames: Sequence[pl.DataFrame], error: JobFailed) -> None:
        """The one row of these frames, and why it failed."""
        (place,) = (place for place, frame in enumerate(frames) if frame.height)
        self._found.append((place, frames[place], error))
        if len(self._found) > LETTERS_MAX:
            raise JobFailed(f"more than {LETTERS_MAX:,} rows fail at once, the first with {self._found[0][2].what}")

    def table(self) -> pa.Table | None:
        """The letters as the log takes them, in the order in which they were found; None where there is none."""
        if not self._found:
            return None
        originals: list[bytes] = [b""] * len(self._found)
        for place in {each for each, _, _ in self._found}:
            mine = [(at, frame) for at, (each, frame, _) in enumerate(self._found) if each == place]
            for (at, _), text in zip(mine, _as_json(pl.concat(frame for _, frame in mine)), strict=True):
                originals[at] = text
        names = [self._log.topic(name).name for name in self._job.inputs]
        known = [(frame[record.PARTITION][0], frame[record.OFFSET][0]) for _, frame, _ in self._found]
        return pa.table(
            {
                "original": pa.array(originals, pa.binary()),
                "format": pa.repeat("json", len(originals)),
                "topic": pa.array([names[place] for place, _, _ in self._found]),
                "partition": pa.array([None if at is None else partition for partition, at in known], pa.int32()),
                "offset": pa.array([at for _, at in known], pa.int64()),
                "error_class": pa.array([type(error.__cause__).__name__ for _, _, error in self._found]),
                "error_message": pa.array([error.what for _, _, error in self._found]),
            }
        )


def _as_json(rows: pl.DataFrame) -> list[bytes]:
    """Each row as an object with everything that the function was given of it."""
    with duck.connect(for_files=True) as own:
        own.register("failing", rows.select(pl.struct(pl.all()).alias("row")).with_row_index("place").to_arrow())
        found = own.execute("SELECT encode(to_json(row)::VARCHAR) FROM failing ORDER BY place").fetchall()
    return [text for (text,) in found]
