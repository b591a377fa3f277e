"""What a job's function did wrong, as one paragraph: the error, and where in the user's own file it came from."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polars.exceptions import PanicException

from headwater.errors import HeadwaterError, PipelineError
from headwater.jobs import Job

TEXT_MAX = 400
"""Characters of an error's own words: some print the whole frame."""


class JobFailed(PipelineError):
    """A job's function raised, or returned what cannot be stored; it says which line of it."""


@contextmanager
def calling(job: Job) -> Iterator[None]:
    """Whatever the block raises as JobFailed; only a wish to end the process passes."""
    try:
        yield
    except (Exception, PanicException) as error:  # the function is the user's, and may raise anything
        raise JobFailed(_told(job, error)) from error


def _told(job: Job, error: BaseException) -> str:
    words = str(error) if isinstance(error, HeadwaterError) else f"{type(error).__name__}: {error}"
    short = " ".join(words.split())
    short = short if len(short) <= TEXT_MAX else short[:TEXT_MAX] + " ..."
    return f"{short.rstrip('.')} ({_place(job, error)})"


def _place(job: Job, error: BaseException) -> str:
    """The innermost line of the user's code: of the job's file, or of a module beside it."""
    folder = job.file.parent
    frames = traceback.extract_tb(error.__traceback__)
    mine = [each for each in frames if folder in Path(each.filename).parents]
    if not mine:
        return f"returned by {job.file.name}, line {job.line}, in {job.name}"
    last = mine[-1]
    return f"{Path(last.filename).name}, line {last.lineno}, in {last.name}: {last.line}"
