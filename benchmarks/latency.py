"""From a commit in PostgreSQL to an answer that holds its rows, of one of ten views, as a reader elsewhere gets it.

    writer ──▶ PostgreSQL ──▶ `headwater up` ──▶ lake ◀── reader: at each new step of the views, a query of the next

Everything shares this machine's cores. The writer changes 5,000 rows per second in transactions of 50 to 100,
inserts, updates and deletes, at times that were fixed before it began: it waits for nobody. PostgreSQL says when
each transaction committed (track_commit_timestamp). All views are published in the same step; as soon as there is
a new one the reader asks one of the ten views, in turn, and notes when the answer came and which commit of the
tables it is of. The latency of a transaction is from its commit to the first such answer that holds it: decoding,
fsync, catalog, view step, publishing, the reader's noticing and its query are all in it. The first seconds, in which
caches fill, do not count. At the end all ten views are compared with what DuckDB says about the tables.

    python -m benchmarks.latency [--quick] [--json] [--seconds S] [--rate ROWS_PER_S]
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import psycopg

import headwater as hw
from benchmarks import latency_load as load
from benchmarks.harness import Report, parse, percentile, say
from benchmarks.processes import Costs, slope
from headwater.service.signals import stop_signals
from headwater_connectors.postgres.embedded import EmbeddedPostgres
from headwater_pipelines.compiler import compile_view
from headwater_pipelines.compiler import parse as parse_view
from headwater_pipelines.runtime import registry

SECONDS, QUICK_SECONDS = 600.0, 20.0
WARM_UP_S = 5.0
ROWS_PER_S = 5_000
P95_MS, P99_MS = 250, 500
GROWTH_SHARE = 0.05
"""So much may the processes' memory grow in the second half of the time, which is flat for a machine that measures
pages; a run of less than ``FLAT_S`` is still filling caches."""
FLAT_S = 300.0
_LIVE_S = 120.0
_COMPONENTS = {"capture": "source:bench", "views": "pipeline:main", "maintenance": "maintenance"}


@dataclass(frozen=True)
class Transaction:
    """When it committed (seconds since 1970), the commit of the log that holds it, and the number of its last order."""

    committed: float
    commit: int
    newest: int


@dataclass(frozen=True)
class Answer:
    """When it came (seconds since 1970), of which commit of the tables it is, the view that was asked, its number."""

    came: float
    input_position: int
    view: str
    value: int


def main() -> int:
    options = parse("latency", __doc__.splitlines()[0], _more)
    if options.writer:
        print(json.dumps(asdict(load.write(options.writer, options.seconds, options.rate))))
        return 0
    if options.reader:
        return _read(options.reader)
    report = Report("latency", quick=options.quick)
    measure(report, options.seconds or (QUICK_SECONDS if options.quick else SECONDS), options.rate)
    return report.finish(as_json=options.json)


def measure(report: Report, seconds: float, rate: float = ROWS_PER_S) -> None:
    """One run; fills the report."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-latency-")))
        postgres = stack.enter_context(EmbeddedPostgres(settings={"track_commit_timestamp": "on"}))
        dsn = postgres.create_database("latency")
        with psycopg.connect(dsn) as connection:
            connection.execute(load.SCHEMA)
        _write_project(root, dsn)
        up = stack.enter_context(_process(root / "up.log", _headwater("up", "--log-format", "text"), root))
        say("waiting for the views")
        pids = {"up": up.pid, "postgres": _server(dsn), **_await_views(root, up)}
        reader_out, writer_out = root / "reader.json", root / "writer.json"
        this = (sys.executable, "-m", "benchmarks.latency")
        with _process(reader_out, (*this, "--reader", str(root))) as reader:
            say(f"{rate:g} row changes per second for {seconds:g} s")
            load_s = ("--seconds", str(seconds + WARM_UP_S), "--rate", str(rate))
            with _process(writer_out, (*this, "--writer", dsn, *load_s)) as writer:
                time.sleep(WARM_UP_S)
                pids |= {"reader": reader.pid, "writer": writer.pid}
                with Costs(pids, whole=frozenset({"postgres"})) as costs:
                    if writer.wait(seconds * 2 + 60) != 0:
                        raise RuntimeError("the writer failed")
            _await_reached(root, dsn)
        written = load.Written(**json.loads(writer_out.read_text()))
        answers = [Answer(*each) for each in json.loads(reader_out.read_text())]
        with hw.open(root) as lake:
            transactions = _transactions(dsn, lake)
            _fill(report, written, transactions, answers, rate)
            _explain(report, lake, transactions, answers)
            _compare(lake)
    _costs(report, costs, seconds)


def latencies(transactions: Sequence[Transaction], answers: Sequence[Answer]) -> list[float]:
    """Milliseconds from each commit to the first answer that holds it; infinite where none does."""
    found = []
    for transaction, answer in zip(transactions, _first_answers(transactions, answers), strict=True):
        found.append((answer.came - transaction.committed) * 1e3 if answer else float("inf"))
    return found


def check(transactions: Sequence[Transaction], answers: Sequence[Answer]) -> None:
    """Positions grow, and where an answer says how far its view is, its position says the same. RuntimeError."""
    if any(later.input_position < earlier.input_position for earlier, later in itertools.pairwise(answers)):
        raise RuntimeError("an answer was older than the one before")
    commits = [transaction.commit for transaction in transactions]
    for answer in answers:
        place = bisect.bisect_right(commits, answer.input_position)
        newest = transactions[place - 1].newest if place else load.ORDERS
        if answer.view == load.MARKED and answer.value != newest:
            raise RuntimeError(f"{answer} holds other orders than were placed until then: {newest}")


def _first_answers(transactions: Sequence[Transaction], answers: Sequence[Answer]) -> list[Answer | None]:
    reached = [answer.input_position for answer in answers]
    places = [bisect.bisect_left(reached, transaction.commit) for transaction in transactions]
    return [answers[place] if place < len(answers) else None for place in places]


def _counted(transactions: Sequence[Transaction]) -> list[Transaction]:
    """Those after the warm-up."""
    return [each for each in transactions if each.committed >= transactions[0].committed + WARM_UP_S]


def _fill(
    report: Report,
    written: load.Written,
    transactions: Sequence[Transaction],
    answers: Sequence[Answer],
    rate: float,
) -> None:
    check(transactions, answers)
    counted = _counted(transactions)
    took = latencies(counted, answers)
    report.figure("seconds", written.seconds - WARM_UP_S)
    report.figure("transactions", len(counted))
    report.goal("row_changes_per_s", written.rows / written.seconds, at_least=0.98 * rate)
    report.figure("writer_behind_p99_ms", percentile(written.behind_ms, 0.99))
    report.figure("answers_per_s", len(answers) / written.seconds)
    report.figure("p50_ms", percentile(took, 0.5))
    report.goal("p95_ms", percentile(took, 0.95), at_most=P95_MS)
    report.goal("p99_ms", percentile(took, 0.99), at_most=P99_MS)
    report.figure("max_ms", max(took))
    # State and history grow during the run; latency must not grow with them.
    third = len(took) // 3
    report.figure("first_third_p95_ms", percentile(took[:third], 0.95))
    report.figure("last_third_p95_ms", percentile(took[-third:], 0.95))


def _explain(report: Report, lake: hw.Lake, transactions: Sequence[Transaction], answers: Sequence[Answer]) -> None:
    """Where the time goes: until a transaction is in the log, until its step is published, until it is read."""
    times = {info.number: info.time.timestamp() for info in lake.log.commits()}
    steps = lake.log.steps()
    inputs = [step.input_commit for step in steps]
    stages: dict[str, list[float]] = {"to_log": [], "to_publish": [], "to_answer": []}
    counted = _counted(transactions)
    for transaction, answer in zip(counted, _first_answers(counted, answers), strict=True):
        published = times[steps[bisect.bisect_left(inputs, transaction.commit)].publish_commit]
        stages["to_log"].append(times[transaction.commit] - transaction.committed)
        stages["to_publish"].append(published - times[transaction.commit])
        if answer is not None:
            stages["to_answer"].append(answer.came - published)
    for name, took in stages.items():
        for share in (0.5, 0.95, 0.99):
            report.figure(f"{name}_p{share * 100:.0f}_ms", percentile(took, share) * 1e3)
    first, seconds = counted[0].commit, counted[-1].committed - counted[0].committed
    report.figure("steps_per_s", sum(each >= first for each in inputs) / seconds)
    report.figure("source_commits_per_s", len({each.commit for each in counted}) / seconds)


def _costs(report: Report, costs: Costs, seconds: float) -> None:
    grown = held = 0.0
    for role, points in costs.memory.items():
        report.figure(f"{role}_cores", costs.cpu_s(role) / seconds)
        if role in ("postgres", "writer"):
            continue
        half = [point for point in points if point[0] >= (points[0][0] + points[-1][0]) / 2]
        growth = slope(half) * (half[-1][0] - half[0][0])
        report.figure(f"{role}_mb", points[-1][1])
        report.figure(f"{role}_growth_mb_per_min", slope(half) * 60)
        grown, held = grown + growth, held + points[-1][1]
    report.figure("cores", sum(costs.cpu_s(role) for role in costs.memory) / seconds)
    if seconds >= FLAT_S:
        report.goal("memory_growth_share", grown / held, at_most=GROWTH_SHARE)
    else:
        report.figure("memory_growth_share", grown / held)
        report.note(f"memory is held to be flat only by runs of {FLAT_S:g} s or more")


def _compare(lake: hw.Lake) -> None:
    """All ten views with their queries, both ways, at the last position."""
    known = registry.relations(lake.log)
    for name, query in load.VIEWS.items():
        plain = compile_view(parse_view(query, name=name), known).query
        for one, other in ((f"FROM {name}", plain), (plain, f"FROM {name}")):
            if differing := lake.sql(f"SELECT count(*) FROM (({one}) EXCEPT ALL ({other}))").scalar():
                raise RuntimeError(f"{differing} rows of {name} are not its query's")


def _transactions(dsn: str, lake: hw.Lake) -> list[Transaction]:
    logged = lake.sql('SELECT xid % 4294967296 AS xid, _commit FROM log."bench.transactions"').arrow()
    commits = dict(zip(logged.column("xid").to_pylist(), logged.column("_commit").to_pylist(), strict=True))
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8, xmin::text::bigint, newest"
            " FROM bench.done ORDER BY n"
        ).fetchall()
    return [Transaction(committed, commits[xid], newest) for committed, xid, newest in rows]


def _read(root: str) -> int:
    """The reader's process: asks at each new step until SIGTERM; prints when it got which answer."""
    answers: list[tuple[float, int, str, int]] = []
    views = itertools.cycle(load.READS.items())
    newest, last = 0, 0
    with stop_signals() as stop, hw.open(root) as lake:
        while not stop.is_set():
            newest = lake.log.wait(newest, 0.1)
            step = lake.log.last_step()
            if step is None or step.number == last:
                continue
            last = step.number
            view, query = next(views)
            answer = lake.sql(query)
            answers.append((time.time(), answer.input_position, view, answer.scalar()))
    print(json.dumps(answers))
    return 0


def _await_views(root: Path, up: subprocess.Popen[bytes]) -> dict[str, int]:
    """Until all are live; the pids of the components."""
    deadline = time.monotonic() + _LIVE_S
    while up.poll() is None and time.monotonic() < deadline:
        if (root / "lake" / "live.sqlite").exists():
            with hw.open(root) as lake:
                step = lake.log.last_step()
                live = {view.id for view in lake.log.views() if view.state == "live"}
                rows = lake.log.live.read()
                pids = {role: rows[name].pid for role, name in _COMPONENTS.items() if name in rows}
                if step is not None and len(live) == len(load.VIEWS) and live <= step.views and len(pids) == 3:
                    return pids
        time.sleep(0.2)
    raise RuntimeError(f"no live views: {(root / 'up.log').read_text()[-2000:]}")


def _await_reached(root: Path, dsn: str) -> None:
    """Until the last transaction is in the views; the reader, still running, sees it at the same time."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT max(newest) FROM bench.done").fetchone()
    deadline = time.monotonic() + _LIVE_S
    with hw.open(root) as lake:
        while row is not None and lake.sql(load.READS[load.MARKED]).scalar() != row[0]:
            if time.monotonic() > deadline:
                raise RuntimeError("the views did not reach the last transaction")
            time.sleep(0.2)
    time.sleep(1)  # the reader's own last answer


def _write_project(root: Path, dsn: str) -> None:
    (root / "views").mkdir()
    for name, query in load.VIEWS.items():
        (root / "views" / f"{name}.sql").write_text(f"CREATE MATERIALIZED VIEW {name} AS\n{query};\n")
    tables = json.dumps(load.TABLES)
    text = f'[project]\nname = "latency"\n[source.bench]\ndsn = "{dsn}"\ntables = {tables}\n[settings]\nhttp_port = 0\n'
    (root / "headwater.toml").write_text(text)


def _server(dsn: str) -> int:
    """The pid of the process that all of the server's are children of."""
    with psycopg.connect(dsn) as connection:
        return psutil.Process(connection.info.backend_pid).ppid()


def _headwater(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "headwater.cli", *arguments)


@contextmanager
def _process(output: Path, argv: Sequence[str], folder: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the block, its standard output in a file; ended by SIGTERM."""
    with output.open("wb") as out:
        errors = subprocess.STDOUT if output.suffix == ".log" else None
        process = subprocess.Popen(argv, cwd=folder, stdout=out, stderr=errors, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_LIVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _more(parser: argparse.ArgumentParser) -> None:
    """The processes of a run are this module again."""
    for name in ("--writer", "--reader"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=f"how long; {SECONDS:g} when left out")
    parser.add_argument("--rate", type=float, default=ROWS_PER_S, help="row changes per second")


if __name__ == "__main__":
    sys.exit(main())
