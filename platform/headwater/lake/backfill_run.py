"""One run of a backfill, as a file beside the lake's state tells it: written by its process, read by whoever looks.

A notebook's kernel may go meanwhile; the file stays, and with it what the run found. Per view there is one, the newest.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import psutil

from headwater.errors import UsageError
from headwater.log import Log

Phase = Literal["starting", "making", "comparing", "promoting", "done", "failed", "cancelled"]
FOLDER: Final = "backfills"
STARTS_WITHIN_S: Final = 60.0
"""A process that has not written by then will not any more."""
TOLD_S: Final = 0.2
"""Between two notes of how far it is."""
_ENDED: Final = ("done", "failed", "cancelled")


@dataclass(frozen=True, kw_only=True, repr=False)
class Run:
    """``after``, ``upto``: the input commits of its range; ``rows``: records to read, about, of which ``done`` are.

    Times are Unix seconds. ``found``: what the comparison came to (``replayed``, ``live``, ``missing``, ``extra``,
    ``sample``); ``commit``: of the switch, 0 where nothing was promoted.
    """

    id: str
    view: str
    after: int
    upto: int
    rows: int
    asked: tuple[str, str]
    promote: bool = False
    keep: str = ""
    phase: Phase = "starting"
    done: int = 0
    began: float = 0.0
    told: float = 0.0
    made_s: float | None = None
    found: dict[str, Any] | None = None
    commit: int = 0
    error: str = ""
    pid: int = 0
    process: float = 0.0
    """When the process was created: another one may have its number later."""

    @property
    def ended(self) -> bool:
        return self.phase in _ENDED

    @property
    def is_same(self) -> bool | None:
        """Whether the replay's rows are the live view's; None while they are not compared."""
        return None if self.found is None else not self.found["missing"] and not self.found["extra"]

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        return (self.told if self.ended else time.time()) - self.began

    @property
    def rows_per_s(self) -> float | None:
        """Records a second while rows are made; of all of it once they are."""
        spent = self.made_s if self.made_s is not None else self.seconds
        count = self.rows if self.made_s is not None else self.done
        return count / spent if spent > 0 and count else None

    def lines(self) -> Iterator[tuple[str, str]]:
        """What there is to say of it, a line each."""
        yield "run", f"{self.phase}, commits {self.after:,} to {self.upto:,}, {duration(self.seconds)}"
        if self.rows_per_s:
            yield "records", f"{self.rows:,}, {self.rows_per_s:,.0f} a second"
        if self.found is not None:
            replayed, live = self.found["replayed"], self.found["live"]
            yield "rows", f"{replayed['rows']:,} replayed, {live['rows']:,} live"
            yield "checksum", f"{replayed['checksum']} replayed, {live['checksum']} live"
            yield "differing", f"{self.found['missing']:,} missing in the live view, {self.found['extra']:,} too many"
        if self.keep and self.phase == "done":
            yield "kept", self.keep
        if self.commit:
            yield "promoted", f"at commit {self.commit:,}"
        if self.error:
            yield "reason", self.error

    def __repr__(self) -> str:
        return as_text(self.view, self.lines())


def as_text(view: str, lines: Iterable[tuple[str, str]]) -> str:
    """What there is to say of a view's replay, for a terminal."""
    return "\n".join([f"replay of view {view}", *(f"  {name:<9}  {value}" for name, value in lines)])


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5_400 else f"{seconds / 3_600:,.1f} h"


@dataclass
class Journal:
    """The file of one view's newest run."""

    path: Path
    _last: float = field(default=0.0, repr=False)

    @classmethod
    def of(cls, log: Log, view: str) -> Journal:
        folder = log.folder / "state" / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder / f"{quote(view, safe='')}.json")

    @property
    def said(self) -> Path:
        """What the process printed, for when it ends without a word."""
        return self.path.with_suffix(".log")

    def read(self) -> Run | None:
        """The newest run; one whose process is gone has failed. None before the first."""
        try:
            found = json.loads(self.path.read_text())
        except FileNotFoundError:
            return None
        run = Run(**{**found, "asked": tuple(found["asked"])})
        if run.ended or _lives(run):
            return run
        again = json.loads(self.path.read_text())  # it may have ended between the two looks
        if again["phase"] in _ENDED:
            return Run(**{**again, "asked": tuple(again["asked"])})
        return replace(run, phase="failed", error=f"its process ended without a word{self._last_words()}")

    def claim(self, run: Run, seen: str | None) -> tuple[Run, bool]:
        """Write down a new run, unless another than ``seen`` (an id; "" for none, None for any) was begun meanwhile.

        Returns the run that there is then, and whether it is the new one, which is to be begun. UsageError while one
        is running.
        """
        with self._alone():
            now = self.read()
            if seen is not None and (now.id if now else "") != seen:
                assert now is not None
                return now, False
            if now is not None and not now.ended:
                since = time.strftime("%H:%M:%S", time.localtime(now.began))
                what = f"a replay of view {run.view} is running since {since}"
                raise UsageError(what, todo="Wait for it, or cancel it.")
            made = replace(run, id=secrets.token_hex(8), began=time.time(), told=time.time())
            self._put(made)
            return made, True

    def tell(self, run: Run, *, at_once: bool = True) -> Run:
        """Write down how far it is; between two notes that need not be at once lies some time."""
        now = time.time()
        if at_once or now - self._last >= TOLD_S:
            self._last = now
            self._put(replace(run, told=now))
        return replace(run, told=now)

    def _put(self, run: Run) -> None:
        part = self.path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(asdict(run), default=str))
        part.replace(self.path)

    def _last_words(self) -> str:
        lines = self.said.read_text(errors="replace").strip().splitlines() if self.said.exists() else []
        return f": {lines[-1][:500]}" if lines else ""

    @contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def process_of(run: Run) -> psutil.Process | None:
    """The process of a run, while it lives."""
    try:
        found = psutil.Process(run.pid) if run.pid else None
        if found is None or found.status() == psutil.STATUS_ZOMBIE or abs(found.create_time() - run.process) >= 1:
            return None
    except psutil.NoSuchProcess:
        return None
    return found


def _lives(run: Run) -> bool:
    if not run.pid:
        return time.time() - run.began < STARTS_WITHIN_S
    return process_of(run) is not None
