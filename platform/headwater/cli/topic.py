"""`headwater topic`: the named logs of a lake."""

from __future__ import annotations

import typer

topic = typer.Typer(no_args_is_help=True, help="List, describe and follow topics.")
