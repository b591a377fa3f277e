"""The process of a run: it gives way to everybody else's. No Dagster in here."""

from __future__ import annotations

import multiprocessing


def give_way() -> None:
    """Leave the cores to others, in a process that does nothing but this run: niceness has no way back.

    Dagster's launcher starts one for each run, as a child by multiprocessing. A run that somebody executes in a
    process of theirs (a test, a notebook) leaves that as it is.
    """
    if multiprocessing.parent_process() is not None:
        from headwater.service import maintenance

        maintenance.give_way()
