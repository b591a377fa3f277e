"""Options that several commands share, plug-in commands included, so that they read and mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXIT_INTERRUPTED = 130
"""By Ctrl-C, as shells have it: 128 and the number of SIGINT."""

ProjectOption = Annotated[
    Path | None,
    typer.Option(
        "--project",
        metavar="DIR",
        help="The project's folder. Default: the nearest headwater.toml upwards.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
AtOption = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="POSITION",
        help='Read as of this position: commit:N, a timestamp, "5 minutes ago", lsn:X/Y, tag:NAME or latest.',
        show_default=False,
    ),
]
