"""`headwater verify`: is the log whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.options import JsonOption, ProjectOption
from headwater.cli.progress import bytes_bar

if TYPE_CHECKING:
    from headwater.config import Project
    from headwater.log.verify import Report

FINDINGS_SHOWN = 20
"""In text; --json has all of them."""


def verify(
    project: ProjectOption = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read every byte of every live file, and fold every base again.")
    ] = False,
    chain: Annotated[
        bool, typer.Option("--chain", help="Also recompute the hash chain, and compare it with `chain_witness`.")
    ] = False,
    source: Annotated[
        bool, typer.Option("--source", help="Instead compare every captured table with its source, row for row.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that commits and offsets have no gap and every file is there; with --deep, that no byte changed.

    With --source every captured table is compared with its source at one position, by check sums of key ranges
    and, where those differ, row by row.

    Partitions with damaged records are put in quarantine, and leave it once their bytes are right again. Exits 1
    when anything is wrong. Runs beside everything else.
    """
    from headwater.config import load
    from headwater.log import chain_witness, open_log, proof
    from headwater.log.verify import verify as check

    found = load(project)
    if source:
        raise typer.Exit(_verify_sources(found, as_json=as_json))
    with open_log(found.lake_dir) as log:
        with bytes_bar("verifying") as progress:
            report = check(log, deep=deep, on_progress=progress)
        proved = proof.prove(log, chain_witness.read(found.settings.chain_witness)) if chain else None
    findings = [{"what": each.what, "where": each.where} for each in report.findings]
    if proved is not None:
        findings += [{"what": what, "where": "chain"} for what in proved.findings]
    if as_json:
        facts: dict[str, Any] = {"ok": not findings, "deep": deep, **_facts(report), "findings": findings}
        if proved is not None:
            facts["chain"] = {"entries": proved.entries, "root": proved.root}
        typer.echo(json.dumps(facts, indent=2))
    else:
        typer.echo(_summary(report, len(findings), deep))
        if proved is not None:
            typer.echo(f"chain of {proved.entries:,} entries, root {proved.root}")
        for each in findings[:FINDINGS_SHOWN]:
            typer.echo(f"{each['where']}: {each['what']}")
        if len(findings) > FINDINGS_SHOWN:
            typer.echo(f"... and {len(findings) - FINDINGS_SHOWN:,} more: --json has all of them")
    raise typer.Exit(1 if findings else 0)


def _verify_sources(project: Project, *, as_json: bool) -> int:
    """Compare every source's tables with it; the exit code: 1 when a row differs."""
    from headwater.cli.progress import status_line
    from headwater.log import open_log
    from headwater.service.compared import compare_source

    found: dict[str, list[dict[str, Any]]] = {}
    with open_log(project.lake_dir) as log, status_line() as say:
        for name in project.sources:
            found[name] = compare_source(project, log, name, say)
    differences = sum(each["differences"] for tables in found.values() for each in tables)
    if as_json:
        typer.echo(json.dumps({"ok": differences == 0, "sources": found}, indent=2))
        return 1 if differences else 0
    for tables in found.values():
        for each in tables:
            typer.echo(_compared(each))
            for row in each["examples"]:
                typer.echo(f"    {row}")
    left = sum(bool(each["skipped"]) for tables in found.values() for each in tables)
    typer.echo(f"{differences or 'no'} differences" + (f"; not compared: {left} tables" if left else ""))
    return 1 if differences else 0


def _compared(found: dict[str, Any]) -> str:
    if found["skipped"]:
        return f"{found['table']}: not compared, {found['skipped']}"
    changing = f", {found['changing']:,} changed meanwhile and were left out" if found["changing"] else ""
    return f"{found['table']}: {found['rows']:,} rows, {found['differences'] or 'no'} differences{changing}"


def _facts(report: Report) -> dict[str, int]:
    return {
        "commits": report.commits,
        "files": report.files,
        "records": report.records,
        "bytes": report.bytes,
        "released": report.released,
    }


def _summary(report: Report, findings: int, deep: bool) -> str:
    released = f"; {report.released} damaged parts are right again" if report.released else ""
    return (
        f"checked {report.commits:,} commits, {report.records:,} records, {report.files:,} files"
        f" ({report.bytes:,} bytes){' and every byte' if deep else ''}: {findings or 'no'} findings{released}"
    )
