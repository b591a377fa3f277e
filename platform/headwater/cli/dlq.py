"""`headwater dlq`: records that were refused or given up, why, and what becomes of them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headwater.cli.options import JsonOption, ProjectOption

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.lake import Lake

dlq = typer.Typer(no_args_is_help=True, help="See dead letters, give them back to their topic, or give them up.")
TopicArgument = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic that the records were meant for.")]
IdOption = Annotated[
    list[int] | None,
    typer.Option("--id", metavar="ID", help="Only this letter; as often as needed. Default: all.", show_default=False),
]
SHOWN_MAX = 100
"""Letters that `show TOPIC` prints unless told otherwise: a screen or two."""


@dlq.command("list")
def list_causes(
    topic: Annotated[
        str | None, typer.Argument(metavar="[TOPIC]", help="Only this topic's.", show_default=False)
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count dead letters by topic and cause: open, redriven, discarded, and when the first and last of them failed."""
    with _lake(project) as lake:
        causes = [vars(cause) for cause in lake.dlq.causes(topic)]
    if as_json:
        typer.echo(json.dumps({"causes": causes}, indent=2, ensure_ascii=False, default=str))
        return
    from rich.table import Table

    from headwater.service.display import console, number

    shown = Table("topic", "cause", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("open", "redriven", "discarded"):
        shown.add_column(column, justify="right")
    for column in ("first", "last"):
        shown.add_column(column)
    for each in causes:
        figures = (number(each[state]) for state in ("open", "redriven", "discarded"))
        times = (each[name].isoformat(sep=" ", timespec="seconds") for name in ("first", "last"))
        shown.add_row(each["topic"], each["cause"], *figures, *times)
    console().print(shown if causes else "no dead letters")


@dlq.command("show")
def show(
    what: Annotated[
        str, typer.Argument(metavar="TOPIC|ID", help="A topic for its open letters, a number for one letter.")
    ],
    state: Annotated[
        Literal["open", "redriven", "discarded"], typer.Option(help="Of a topic: which letters.")
    ] = "open",
    count: Annotated[int, typer.Option("-n", min=1, help="Of a topic: at most N letters.")] = SHOWN_MAX,
    after: Annotated[int, typer.Option(min=0, metavar="ID", help="Of a topic: only letters after this one.")] = 0,
    project: ProjectOption = None,
) -> None:
    """Print letters as JSON lines, oldest first: the reason, where the record was, and the record as `row`, decoded."""
    with _lake(project) as lake:
        if what.isdigit():
            found = [lake.dlq.show(int(what))]
        else:
            found = lake.dlq.letters(what, state, after=after, limit=count).to_pylist()
    for letter in found:
        typer.echo(json.dumps(_document(letter), ensure_ascii=False, default=_text))


@dlq.command("redrive")
def redrive(
    topic: TopicArgument,
    ids: IdOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the records of open letters into their topic, those that may enter now; the others stay open.

    Exit code 1 when any stays. Killed at any moment, nothing is lost and nothing written twice: run it again.
    """
    with _lake(project) as lake, _progress(lake, topic, ids) as advance:
        done = lake.dlq.redrive(topic, ids, on_progress=advance)
    document = {"redriven": done.redriven, "failed": done.failed}
    typer.echo(json.dumps(document) if as_json else f"{done.redriven:,} redriven, {done.failed:,} still bad")
    if done.failed:
        raise typer.Exit(1)


@dlq.command("discard")
def discard(
    topic: TopicArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why these records are not needed; it is kept.")],
    ids: IdOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give open letters up. Their bytes stay until the retention of the dead letter topic."""
    with _lake(project) as lake:
        done = lake.dlq.discard(topic, ids, reason=reason)
    typer.echo(json.dumps({"discarded": done}) if as_json else f"{done:,} discarded")


def _document(letter: dict[str, Any]) -> dict[str, Any]:
    from headwater.client.letters import decoded

    kept = {name: value for name, value in letter.items() if name not in ("original", "_headers")}
    return {**kept, "headers": dict(letter["_headers"] or ()), "row": decoded(letter)}


def _text(value: Any) -> str:
    """What JSON has no form for: bytes as hexadecimal, the rest as its text."""
    return value.hex() if isinstance(value, bytes) else value.isoformat() if isinstance(value, datetime) else str(value)


def _progress(lake: Lake, topic: str, ids: list[int] | None) -> Any:
    """A bar on stderr where there is a terminal; the block's value takes how many letters are done."""
    from contextlib import contextmanager

    @contextmanager
    def bar() -> Any:
        from rich.console import Console
        from rich.progress import Progress

        total = sum(cause.open for cause in lake.dlq.causes(topic)) if ids is None else len(ids)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("redriving", total=total)
            yield lambda done: progress.update(task, completed=done)

    return bar()


def _lake(project: Path | None) -> Lake:
    from headwater.config import load
    from headwater.lake import open_lake

    return open_lake(load(project).lake_dir)
