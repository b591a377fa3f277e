"""``headwater demo --check``: the whole product under load, then the proofs.

    database + load ─▶ `headwater up` ◀─ readers          real processes, started as a user starts them
    load ends ─▶ `up --until-caught-up` ─▶ `seal` ─▶ every proof of ``proof``

Everything runs in processes of its own; what goes wrong in any of them is a difference.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import headwater as hw
from headwater.catalog.records import Step
from headwater.errors import HeadwaterError
from headwater.service import status
from headwater_connectors.demo import proof
from headwater_connectors.demo.project import SOURCE, Demo, opened, view_queries
from headwater_connectors.demo.proof import Difference, Latency
from headwater_connectors.demo.shop import PARTITIONED, PARTITIONS, TABLES

STEPS_COMPARED = 5
"""Steps at which every view is compared: the last, and others spread over the run."""
POSITIONS_READ = 10
"""Commits at which the balances are also read as a user reads them (the set-based proof covers all)."""
SEALED_MIN = 0.9
_LIVE_S = 90.0
"""From starting `up` to live views: initial copy and first fill, on a busy machine."""
_END_S = 90.0
"""What any process gets to end after it was asked to."""

HEADWATER = (sys.executable, "-m", "headwater.cli")
Say = Callable[[str], None]


@dataclass
class Outcome:
    """What a check found. ``rows``: row changes in the log; ``compared``: rows compared, all proofs together."""

    rows: int = 0
    commits: int = 0
    views: int = 0
    compared: int = 0
    latency: Latency | None = None
    differences: list[Difference] = field(default_factory=list)

    def summary(self) -> str:
        """The one line."""
        parts = [
            f"rows {self.rows:,}",
            f"commits {self.commits:,}",
            f"views {self.views}",
            f"compared {self.compared:,}",
            f"differences {len(self.differences)}",
        ]
        if self.latency is not None and self.latency.transactions:
            of = self.latency
            parts.append(f"source commit to view p50 {of.p50:.0f} ms, p95 {of.p95:.0f} ms, p99 {of.p99:.0f} ms")
        return "demo check: " + "  ".join(parts)


def check(folder: Path, *, seconds: float, rate: float, readers: int, seed: int, say: Say) -> Outcome:
    """Run the demo for ``seconds`` of load and prove it; 0 seconds only catch up and prove what is there."""
    outcome = Outcome()
    with opened(folder, seed) as demo:
        say(f"PostgreSQL at {demo.dsn}: {demo.shop.rows:,} rows, balances {demo.shop.balance}")
        after = 0
        if seconds > 0:
            after = _under_load(demo, seconds, rate, readers, seed, say, outcome)
        say("catching up with the source, then sealing")
        for arguments in (["up", "--until-caught-up", "--log-format", "text"], ["seal"]):
            _finish(demo, arguments, outcome)
        try:
            _prove(demo, after, say, outcome)
        except HeadwaterError as error:  # a corrupt file is found by reading it: that is what a check is for
            outcome.differences.append(Difference(place="reading the lake", text=str(error)))
    return outcome


def _under_load(demo: Demo, seconds: float, rate: float, count: int, seed: int, say: Say, outcome: Outcome) -> int:
    """Everything at once for ``seconds``; returns the newest commit when the load began."""
    root = str(demo.project.root)
    python = (sys.executable, "-m")
    with ExitStack() as stack:
        say("starting `headwater up`")
        up = stack.enter_context(_started(demo, "up", [*HEADWATER, "up", "--project", root, "--log-format", "text"]))
        _await((demo.project.lake_dir / "live.sqlite").exists, up, "a lake")
        with hw.open(demo.project.lake_dir) as lake:
            _await_views(demo, up, lake)
            after = lake.position()
        reading = [*python, "headwater_connectors.demo.readers", root, "--balance", str(demo.shop.balance)]
        reading += ["--count", str(count), "--seed", str(seed)]
        readers = stack.enter_context(_started(demo, "readers", reading))
        _await(lambda: readers.lines() == ["reading"] or readers.process.poll() is not None, up, "readers")
        say(f"views are live; {rate:,.0f} row changes/s and {count} readers for {seconds:g} s")
        load = [*python, "headwater_connectors.demo.load", demo.dsn, "--rate", str(rate), "--for", str(seconds)]
        loading = stack.enter_context(_started(demo, "load", [*load, "--seed", str(seed)]))
        if loading.process.wait(seconds + _END_S) != 0:
            outcome.differences.append(Difference(place="load", text=loading.tail()))
        else:
            done = json.loads(loading.last_line())
            say(f"the load made {done['rows']:,} row changes in {done['transactions']:,} transactions")
        _collect_readers(readers, count, say, outcome)
        if (code := up.stop()) != 0:
            outcome.differences.append(Difference(place="up", text=f"exit code {code}: {up.tail()}"))
    return after


def _collect_readers(readers: Started, count: int, say: Say, outcome: Outcome) -> None:
    code = readers.stop()
    try:
        found = [json.loads(line) for line in readers.lines()[1:]]
    except ValueError:
        found = []
    if len(found) != count or (code != 0 and not any(each["errors"] for each in found)):
        outcome.differences.append(Difference(place="readers", text=f"exit code {code}: {readers.tail()}"))
    for number, each in enumerate(found):
        outcome.differences += [Difference(place=f"reader-{number}", text=text) for text in each["errors"]]
        if not each["queries"]:
            outcome.differences.append(Difference(place=f"reader-{number}", text="made no query"))
    say(f"{len(found)} readers made {sum(each['queries'] for each in found):,} queries")


def _finish(demo: Demo, arguments: list[str], outcome: Outcome) -> None:
    """Run a headwater command to its end; anything but exit code 0 is a difference."""
    command = [*HEADWATER, *arguments, "--project", str(demo.project.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * _END_S)
    if done.returncode != 0:
        text = f"exit code {done.returncode}: {done.stderr.strip()[-600:]}"
        outcome.differences.append(Difference(place=f"headwater {arguments[0]}", text=text))


def _prove(demo: Demo, after: int, say: Say, outcome: Outcome) -> None:
    queries = view_queries(demo.project)
    with hw.open(demo.project.lake_dir) as lake:
        position = lake.position()
        outcome.commits, outcome.views = position, len(queries)
        say(f"comparing {len(TABLES)} tables with PostgreSQL")
        rows, found = proof.tables_equal_source(lake, demo.dsn, SOURCE, TABLES, position)
        outcome.compared += rows
        outcome.differences += found
        views = {view.id for view in lake.log.views() if view.name in queries}
        steps = [each for each in lake.log.steps() if each.input_commit > after and views <= each.views]
        steps = _spread(steps, STEPS_COMPARED)
        if not steps:
            outcome.differences.append(Difference(place="views", text="no step was published"))
        say(f"comparing {len(queries)} views with their SQL run from scratch, at {len(steps)} steps")
        rows, found = proof.views_equal_queries(lake, queries, TABLES, steps)
        outcome.compared += rows
        outcome.differences += found
        outcome.differences += _balances(demo, lake, say)
        outcome.differences += _files(demo, lake, outcome, say)
        outcome.latency = proof.latency(lake, SOURCE, after) if after else None


def _balances(demo: Demo, lake: hw.Lake, say: Say) -> list[Difference]:
    topic, expected = f"{SOURCE}.public.accounts", demo.shop.balance
    commits, found = proof.sums_kept(lake, topic, "id", "balance", expected)
    say(f"the sum of balances was proved at each of {commits:,} commits that touched them")
    first = lake.log.topic(topic).created
    span = lake.position() - first
    for number in sorted({first + span * n // POSITIONS_READ for n in range(POSITIONS_READ + 1)}):
        total = lake.sql("SELECT sum(balance) FROM accounts", at=number).scalar()
        if total != expected:
            found.append(Difference(place=topic, text=f"read at commit {number}, the balances sum to {total}"))
    return found


def _files(demo: Demo, lake: hw.Lake, outcome: Outcome, say: Say) -> list[Difference]:
    """Partitions, what is sealed, and what a plain DuckDB makes of the sealed files."""
    found = []
    for table in PARTITIONED:
        found += proof.partitions_used(lake, f"{SOURCE}.public.{table}", PARTITIONS)
    topics = status.collect(lake.log, demo.project)["topics"]
    records, sealed = (sum(each[name] for each in topics) for name in ("records", "sealed"))
    outcome.rows = sum(each["records"] for each in topics if each["name"].startswith(f"{SOURCE}.public."))
    if sealed < records * SEALED_MIN:
        found.append(Difference(place="seal", text=f"only {sealed:,} of {records:,} records are sealed"))
    say(f"{sealed:,} of {records:,} records are sealed; counting them with a plain DuckDB")
    return found + proof.manifests_count(lake, [each["name"] for each in topics if each["sealed"]])


def _spread(steps: Sequence[Step], count: int) -> list[Step]:
    """``count`` of the steps, the first and the last among them."""
    last = len(steps) - 1
    return [steps[place] for place in sorted({last * n // max(1, count - 1) for n in range(count)})] if steps else []


@dataclass(frozen=True, kw_only=True)
class Started:
    """A process of the check, its output in files."""

    name: str
    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def stop(self) -> int:
        """SIGTERM if it still runs; its exit code. Killed, and so no 0, when it does not end in time."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def last_line(self) -> str:
        return (self.lines() or [""])[-1]

    def lines(self) -> list[str]:
        return self.out.read_text(encoding="utf-8").splitlines()

    def tail(self) -> str:
        return self.err.read_text(encoding="utf-8", errors="replace").strip()[-600:]


@contextmanager
def _started(demo: Demo, name: str, argv: Sequence[str]) -> Iterator[Started]:
    """Run a process for the block, in a session of its own: a Ctrl-C in the terminal reaches only the check."""
    folder = demo.project.root / "logs"
    folder.mkdir(exist_ok=True)
    out, err = folder / f"{name}.out", folder / f"{name}.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            list(argv), cwd=demo.project.root, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            start_new_session=True,
        )  # fmt: skip
    started = Started(name=name, process=process, out=out, err=err)
    try:
        yield started
    finally:
        started.stop()


def _await_views(demo: Demo, up: Started, lake: hw.Lake) -> None:
    """Until every view is live and has published."""
    names = set(view_queries(demo.project))

    def live() -> bool:
        views = {view.name: view for view in lake.log.views()}
        step = lake.log.last_step()
        ready = {name for name, view in views.items() if view.state == "live" and step and view.id in step.views}
        return names <= ready

    _await(live, up, "live views")


def _await(condition: Callable[[], bool], up: Started, what: str) -> None:
    deadline = time.monotonic() + _LIVE_S
    while not condition():
        if up.process.poll() is not None:
            raise HeadwaterError(f"`headwater up` ended before there were {what}: {up.tail()}", where=str(up.err))
        if "is given up" in up.tail():
            raise HeadwaterError(f"no {what}, a component of `headwater up` failed: {up.tail()}", where=str(up.err))
        if time.monotonic() > deadline:
            raise HeadwaterError(f"no {what} after {_LIVE_S:.0f} s: {up.tail()}", where=str(up.err))
        time.sleep(0.1)
