"""The event log: topics of partitions of records, published by commits.

General layout, in reading order: ``log`` (the handle: what exists, where it stands, waiting), ``transaction``
(the only way in), ``read`` (records of a commit range), ``fold`` (from changes to current rows), ``seal`` and
``base`` (hot batches to Parquet segments, history to compacted rows), ``recovery``, ``verify``.
"""

from __future__ import annotations

from headwater.catalog.records import CommitInfo, ProducerState, Step, Topic, View
from headwater.log.log import Log, open_log
from headwater.log.transaction import Transaction

__all__ = ["CommitInfo", "Log", "ProducerState", "Step", "Topic", "Transaction", "View", "open_log"]
