"""``headwater demo``: the command. Only light imports at the top: the command line's help loads this module."""

from __future__ import annotations

import re
import secrets
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.options import EXIT_INTERRUPTED

DEFAULT_CHECK_S = 30.0
SHOWN = 10
"""Differences printed; the summary counts them all."""
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> float:
    """Seconds of '30s', '2m', '1h', '500ms' or a bare number."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|)\s*", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a duration; write 30s, 2m or 500ms")
    return float(found[1]) * _UNITS[found[2]]


def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR",
            help="Keep the demo here and go on with it next time. Default: a temporary folder, removed at the end.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="No pages: run under load with readers, prove everything, exit 0 or 1.")
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for",
            parser=duration,
            metavar="DURATION",
            help="How long, such as 30s or 2m. Default: until Ctrl-C; 30s with --check, where 0s only proves DIR.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", min=1, max=50_000, metavar="N", help="Row changes per second in the shop.")
    ] = 2_000,
    readers: Annotated[
        int, typer.Option("--readers", min=1, max=64, metavar="N", help="Reader processes of --check.")
    ] = 8,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open JupyterLab when it is up.")] = True,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Repeat a run: the same shop, the same draws.", show_default=False)
    ] = None,
) -> None:
    """A web shop under live load in a PostgreSQL of its own, views over it, JupyterLab and Dagster to look at.

    Everything listens on this machine only. Ctrl-C ends all of it, in order.
    """
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    # SIGTERM unwinds as Ctrl-C does, so that nothing that was started is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _place(folder) as place:
            if check:
                raise typer.Exit(_check(place, DEFAULT_CHECK_S if seconds is None else seconds, rate, readers, seed))
            from headwater_connectors.demo.show import show

            raise typer.Exit(show(place, seconds=seconds, rate=rate, seed=seed, browser=browser))
    except KeyboardInterrupt:
        typer.echo("interrupted; everything is stopped", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _check(place: Path, seconds: float, rate: float, readers: int, seed: int) -> int:
    from headwater_connectors.demo.check import check

    typer.echo(f"seed {seed}", err=True)
    outcome = check(place, seconds=seconds, rate=rate, readers=readers, seed=seed, say=partial(typer.echo, err=True))
    for difference in outcome.differences[:SHOWN]:
        typer.echo(f"difference: {difference}")
    typer.echo(outcome.summary())
    return 1 if outcome.differences else 0


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="headwater-demo-", ignore_cleanup_errors=True) as temporary:
        # The database may run as another user, who has to get through.
        Path(temporary).chmod(0o755)
        yield Path(temporary) / "shop"
