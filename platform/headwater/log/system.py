"""Transactions of the lake itself: what people change by hand, from any process, without owning anything.

Their producers have no position, and one epoch that all share: two such writers do not fence each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert

from headwater.catalog import tables
from headwater.log.transaction import Transaction

if TYPE_CHECKING:
    from headwater.log.log import Log


def transaction(log: Log, producer: str) -> Transaction:
    """Begin a transaction of a producer that every process may use."""
    name = tables.producer.c.name
    with log.catalog.write() as connection:
        connection.execute(insert(tables.producer).values(name=producer, epoch=1).on_conflict_do_nothing())
        epoch = connection.execute(select(tables.producer.c.epoch).where(name == producer)).scalar_one()
    return log.transaction(producer, epoch)
