"""`headwater verify`: is the log whole."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from headwater.cli.options import JsonOption, ProjectOption

FINDINGS_SHOWN = 20
"""In text; --json has all of them."""


def verify(
    project: ProjectOption = None,
    deep: Annotated[bool, typer.Option("--deep", help="Also read every byte of every live file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that commits and offsets have no gap and every file is there; with --deep, that no byte changed.

    Exits 1 when anything is wrong. Runs beside everything else.
    """
    from headwater.config import load
    from headwater.log import open_log
    from headwater.log.verify import verify as check

    with open_log(load(project).lake_dir) as log:
        report = check(log, deep=deep)
    facts = {"commits": report.commits, "files": report.files, "records": report.records, "bytes": report.bytes}
    if as_json:
        findings = [{"what": each.what, "where": each.where} for each in report.findings]
        typer.echo(json.dumps({"ok": not findings, "deep": deep, **facts, "findings": findings}, indent=2))
    else:
        shape = " and every byte" if deep else ""
        typer.echo(
            f"checked {report.commits:,} commits, {report.records:,} records, {report.files:,} files"
            f" ({report.bytes:,} bytes){shape}: {len(report.findings) or 'no'} findings"
        )
        for each in report.findings[:FINDINGS_SHOWN]:
            typer.echo(f"{each.where}: {each.what}")
        if len(report.findings) > FINDINGS_SHOWN:
            typer.echo(f"... and {len(report.findings) - FINDINGS_SHOWN:,} more: --json has all of them")
    raise typer.Exit(1 if report.findings else 0)
