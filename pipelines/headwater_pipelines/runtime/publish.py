"""A step's outbox as one commit of the log: new changelogs, output deltas, the step's record.

In the outbox a view's late rows have the negative of its id: they go to its side topic. So have its dead letters.

Safe to repeat: the caller compares step numbers first, and the transaction fails when another process has
published in between (epoch) or this one has moved on (position).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pyarrow as pa
from sqlalchemy import Connection

from headwater.catalog.records import CommitInfo, Step, View
from headwater.log import Log, dead_letters, views
from headwater.log.staging import Kept
from headwater_pipelines.runtime import letters
from headwater_pipelines.runtime.journal import Built, Progress
from headwater_pipelines.runtime.outbox import is_letters
from headwater_pipelines.runtime.watermark import late_schema

PRODUCER = "pipeline:main"


class Publisher:
    """Publishes steps one after the other, each beside the work on the next.

    A step's transaction must not be committed before ``wait`` has returned: until then the state holds the output of
    the step before, which would be lost with it if this process ended.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "publish")
        self._begun: Future[CommitInfo] | None = None

    def start(self, call: Callable[[], CommitInfo]) -> None:
        self.wait()
        self._begun = self._pool.submit(call)

    def wait(self) -> None:
        """Until what was started is published; raises what that raised."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.result()

    def close(self) -> None:
        """End the thread, after what it does."""
        self._pool.shutdown()


def publish(
    log: Log,
    epoch: int,
    progress: Progress,
    built: Mapping[int, Built],
    outbox: Iterable[tuple[int, pa.Table]],
    spilled: Kept | None = None,
) -> CommitInfo:
    """Publish one step, its output being ``outbox`` and what was ``spilled`` of it.

    A replacement among ``built`` takes its view's place with it.

    Fenced, PositionConflict, TopicChanged (a replacement was taken back this moment), DiskFull and StorageError as
    ``Transaction.commit``.
    """
    existing = {view.id: view for view in log.views()}
    taking = [view for view in log.replacements() if view.id in built] if built.keys() - existing.keys() else []
    topics = {topic.name for topic in log.topics(hidden=True)}
    # A view dropped since the step was applied has no changelog any more; its rows go nowhere.
    known = existing | {view.id: view for view in taking}
    names = {view: f"views.{entry.name}" for view, entry in built.items() if view in known}
    late = {-view: f"{name}.late" for view, name in names.items() if built[view].late not in ("", letters.MARK)}
    with log.transaction(PRODUCER, epoch, log.producer(PRODUCER).position) as tx:
        for new in taking:
            tx.inside(partial(_take_place, new))
            old = existing[new.replaces or 0]
            if old.name != new.name and old.topic is not None:
                for name in {old.topic, f"{old.topic}.late"} & topics:
                    tx.drop_topic(name)
        for view, name in names.items():
            if name not in topics:
                tx.create_topic(name, "changelog", built[view].schema)
        for view, name in late.items():
            if name not in topics:
                tx.create_topic(name, "event", late_schema(built[-view].late))
        names.update(late)
        if spilled is not None:
            mine = tuple(batch for batch in spilled.batches if batch.topic in names.values())
            tx.adopt(replace(spilled, batches=mine))
        for view, table in outbox:
            if -view in names and is_letters(built, view):
                dead_letters.append(tx, names[-view], table)
            elif view in names:
                tx.append(names[view], table)
        step = Step(
            number=progress.number,
            input_commit=progress.input_commit,
            instant=progress.instant,
            views=progress.views,
            watermarks=progress.watermarks,
        )
        tx.record_step(step)
        tx.position = str(progress.input_commit)
        return tx.commit()


def _take_place(new: View, connection: Connection, info: CommitInfo) -> None:
    views.take_place(connection, new, info.number)
