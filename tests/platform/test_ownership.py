"""One owner at a time, gone with its process, and an epoch that outlives it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from headwater import ownership
from headwater.errors import Fenced, OwnedElsewhere
from headwater.log import Log, open_log
from headwater.ownership import holder_pid, own
from headwater.testing.forks import FORKS

NAME = "source:shop"


def hold(folder: Path, answer: Connection, beat: bool) -> None:
    """Own the name until killed."""
    with open_log(folder) as log, own(log, NAME) as owner:
        if beat:
            log.live.beat(NAME)
        answer.send(owner.epoch)
        signal.pause()


def started(log: Log, *, beat: bool = False) -> tuple[multiprocessing.process.BaseProcess, int]:
    mine, theirs = FORKS.Pipe()
    process = FORKS.Process(target=hold, args=(log.folder, theirs, beat), daemon=True)
    process.start()
    assert mine.poll(60)
    return process, mine.recv()


def test_a_second_owner_is_told_who_has_it_and_gets_it_when_that_one_is_killed(log: Log) -> None:
    process, epoch = started(log)
    assert holder_pid(log, NAME) == process.pid
    with pytest.raises(OwnedElsewhere, match=f"already running as process {process.pid}"), own(log, NAME):
        pass
    assert log.producer(NAME).epoch == epoch, "a refused owner must not fence the one that runs"
    process.kill()
    process.join(60)
    with own(log, NAME) as owner:
        assert owner.epoch == epoch + 1
        assert holder_pid(log, NAME) == os.getpid()
    assert holder_pid(log, NAME) is None


def test_an_owner_of_an_earlier_epoch_cannot_commit(log: Log) -> None:
    with own(log, NAME) as first:
        pass
    with own(log, NAME), pytest.raises(Fenced), log.transaction(NAME, first.epoch) as tx:
        tx.commit()


def test_a_waiting_successor_kills_an_owner_that_hangs(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is set to nothing here; the holder beat once and never again."""
    process, epoch = started(log, beat=True)
    monkeypatch.setattr(ownership, "HEARTBEAT_MAX_S", 0.0)
    with own(log, NAME, wait=True) as owner:
        assert owner.epoch == epoch + 1
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def test_different_names_do_not_exclude_each_other(log: Log) -> None:
    with own(log, "source:a"), own(log, "source:b"), own(log, "maintenance"):
        assert holder_pid(log, "source:a") == os.getpid()
