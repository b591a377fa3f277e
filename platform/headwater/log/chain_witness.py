"""Roots of the chain, kept where whoever can write the lake cannot: without that, a rewritten chain is whole again.

``chain_witness`` is a file on another medium, or after ``|`` a command that gets the line on its standard input
(to mail it, print it, put it into an append-only store). A line is ``seq root time``; ``verify --chain`` compares
every line of a file with the chain.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.catalog.catalog import put_setting
from headwater.catalog.records import to_datetime
from headwater.errors import StorageError
from headwater.log import chain

if TYPE_CHECKING:
    from headwater.log.log import Log

COMMAND_S = 10.0
"""A command that takes longer is ended: maintenance waits for it."""

_TOLD = "chain_witnessed"


def tell(log: Log, witness: str) -> bool:
    """Export the newest root if it is not the last one told; whether it was. StorageError when it cannot be.

    The caller owns ``maintenance``.
    """
    if not witness:
        return False
    with log.catalog.read() as connection:
        seq, root = chain.head(connection)
    line = f"{seq} {root.hex()}"
    if seq == 0 or log.setting(_TOLD) == line:
        return False
    said = f"{line} {to_datetime(log.clock.now_us()).isoformat()}\n"
    try:
        _run(witness[1:], said) if witness.startswith("|") else _append(Path(witness), said)
    except (OSError, subprocess.SubprocessError) as error:
        raise StorageError(
            f"the chain's root cannot be exported: {error}", where=f"chain_witness = {witness}"
        ) from error
    with log.catalog.write() as connection:
        put_setting(connection, _TOLD, line)
    return True


def read(witness: str) -> Mapping[int, bytes]:
    """The roots of a witness file by entry; none for a command. StorageError for a line that is none of ours."""
    path = Path(witness)
    if not witness or witness.startswith("|") or not path.exists():
        return {}
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        return {int(seq): bytes.fromhex(root) for seq, root, *_ in lines}
    except ValueError as error:
        raise StorageError(f"not a witness file: {error}", where=witness) from error


def _append(path: Path, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _run(command: str, line: str) -> None:
    subprocess.run(shlex.split(command), input=line, text=True, timeout=COMMAND_S, check=True, capture_output=True)
