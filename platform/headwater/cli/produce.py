"""`headwater topic produce`: records from a file or stdin into a topic, resumable, in bounded memory."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer

from headwater.cli.options import JsonOption, ProjectOption

if TYPE_CHECKING:
    from headwater.client.delivery import Delivery, Receipt
    from headwater.client.frames import Frame
    from headwater.client.producer import Producer

BATCH_ROWS = 10_000
"""Rows of one batch: a commit of a few milliseconds, and what one refusal takes with it."""

ON_THE_WAY_MAX = 8
"""Batches that were sent and whose receipts are awaited; the buffer bounds their bytes."""


@dataclass(kw_only=True)
class Produced:
    """What a run did; ``--json`` prints it. ``repeated``: batches that an earlier run had stored."""

    topic: str
    rows: int = 0
    batches: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    repeated: int = 0
    commit: int | None = None

    def add(self, receipt: Receipt) -> None:
        """Count a batch that is in the log."""
        if receipt.repeated:
            self.repeated += 1
            return
        self.batches += 1
        self.rows += receipt.rows
        self.duplicates += receipt.duplicates
        self.dead_letters += receipt.dead_letters
        self.commit = receipt.commit or self.commit


def produce(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A topic's full name, or a short one if unique.")],
    file: Annotated[Path, typer.Argument(metavar="[FILE|-]", help="What to read; - is stdin.", allow_dash=True)] = Path(
        "-"
    ),
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="csv|jsonl|parquet", help="Default: by the file's name.", show_default=False),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="COLUMN=VALUE", help="A column that is not in the file, the same in every row."),
    ] = None,
    batch_rows: Annotated[int, typer.Option("--batch-rows", min=1, help="Rows of one batch, which is one commit.")] = (
        BATCH_ROWS
    ),
    on_error: Annotated[
        Literal["raise", "dead-letter"],
        typer.Option("--on-error", help="A bad row refuses its batch and ends the run, or goes to the dead letters."),
    ] = "raise",
    producer_id: Annotated[
        str | None,
        typer.Option("--id", metavar="NAME", help="Number the batches under this name.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last batch that --id has stored.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the records of a file, or of stdin, to a topic, in batches that are each one durable commit.

    A run that was killed goes on with the same command, the same file and `--resume`: nothing is written twice.
    """
    from headwater.client import files
    from headwater.client.producer import Producer
    from headwater.config import load
    from headwater.errors import UsageError
    from headwater.log import open_log

    if resume and producer_id is None:
        raise UsageError("--resume needs the name that the batches are numbered under", todo="Add --id NAME.")
    path = None if str(file) == "-" else file
    form = files.format_of(path, form)
    with open_log(load(project).lake_dir) as log:
        topic = log.topic(name)
        done = Produced(topic=topic.name)
        with (
            _source(path) as stream,
            Producer(log, producer_id, on_error="raise" if on_error == "raise" else "dead_letter") as producer,
            _progress(path, stream) as advance,
        ):
            numbered = _numbered(producer, producer_id is not None, resume)
            frames = (_with_keys(frame, key or []) for frame in files.pieces(stream, form, topic, batch_rows))
            _send(producer, frames, numbered, done, advance)
    _report(done, as_json)


def _send(
    producer: Producer,
    frames: Iterator[Frame],
    start: int | None,
    done: Produced,
    advance: Callable[[Produced], None],
) -> None:
    """Send every piece. ``start``: the first batch number that is sent; earlier ones are in the log."""
    from headwater.errors import HeadwaterError, ProducerConflict

    waiting: deque[Delivery] = deque()
    number = -1
    try:
        for number, frame in enumerate(frames):
            if start is not None and number < start:
                done.repeated += 1
            else:
                sequence = None if start is None else number
                waiting.append(producer.send(done.topic, frame, sequence=sequence))
            while len(waiting) > ON_THE_WAY_MAX or (waiting and waiting[0].done()):
                done.add(waiting.popleft().result())
            advance(done)
        while waiting:
            done.add(waiting.popleft().result())
        if start is not None and number < start:
            stored = f"{producer.name} has stored {start + 1} batches, and the file has only {number + 1}"
            raise ProducerConflict(stored, stored=start, todo="Give the same file and --batch-rows as before.")
    except HeadwaterError as error:
        for delivery in waiting:  # what was on its way before the refusal stays
            if delivery.wait() is None:
                done.add(delivery.result())
        again = " Go on with --resume once it is mended." if start is not None else ""
        error.todo = f"{error.todo} {done.rows:,} rows before it are in the log and stay.{again}".strip()
        raise


def _numbered(producer: Producer, named: bool, resume: bool) -> int | None:
    """The number of the first batch to send: the last stored one, which is compared; None without a name."""
    from headwater.errors import UsageError

    if not named:
        return None
    stored = producer.next_sequence
    if stored and not resume:
        raise UsageError(
            f"{stored} batches are stored under this name",
            where=producer.name,
            todo="Add --resume to go on after them, or choose another --id.",
        )
    return max(0, stored - 1)


def _with_keys(frame: Frame, keys: list[str]) -> Frame:
    import pyarrow as pa

    from headwater.client.text import Text
    from headwater.errors import UsageError

    more = {}
    for each in keys:
        column, equals, value = each.partition("=")
        if not equals or not column:
            raise UsageError(f"--key {each} is no COLUMN=VALUE")
        if column in frame.columns:
            raise UsageError(f"the file has a column {column} itself", where=f"--key {each}")
        more[column] = Text(pa.chunked_array([pa.repeat(value, frame.rows)]))
    return frame.with_columns(more) if more else frame


@contextmanager
def _source(path: Path | None) -> Iterator[IO[bytes]]:
    from headwater.client import files

    if path is None:
        yield sys.stdin.buffer
        return
    with files.opened(path) as stream:
        yield stream


@contextmanager
def _progress(path: Path | None, stream: IO[bytes]) -> Iterator[Callable[[Produced], None]]:
    """A bar on stderr while it is a terminal: bytes of the file, or only rows for a pipe."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    whole = path.stat().st_size if path is not None and path.suffix != ".gz" else None
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]:,} rows"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("producing", total=whole, rows=0)

        def advance(done: Produced) -> None:
            bar.update(task, completed=stream.tell() if whole is not None else None, rows=done.rows)

        yield advance


def _report(done: Produced, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    parts = [f"{_count(done.rows, 'row')} to {done.topic} in {_count(done.batches, 'batch', 'batches')}"]
    if done.repeated:
        parts.append(f"{_count(done.repeated, 'batch', 'batches')} there already")
    if done.duplicates:
        parts.append(f"{_count(done.duplicates, 'duplicate')} dropped")
    if done.dead_letters:
        parts.append(_count(done.dead_letters, "dead letter"))
    typer.echo(", ".join(parts) + ".")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
