"""`headwater init`: a new project, from nothing or from a database."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater import config
from headwater.errors import UsageError

if TYPE_CHECKING:
    from headwater.service.caught_up import Finding

_VIEW_README = """\
One view per file: CREATE MATERIALIZED VIEW name AS SELECT ... in DuckDB's dialect.
`headwater up` creates the views of these files at its start, and when a file is added while it runs.
"""


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The project's folder; made if it is not there.")],
    dsn: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DSN",
            help="A PostgreSQL database to capture: lists its tables, and the SQL for what it lacks.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="The source's name in queries. Default: the database's.", show_default=False),
    ] = None,
) -> None:
    """Make a project: headwater.toml, views/ and notebooks/.

    An existing headwater.toml is never overwritten. The password of DSN is not written to the file.
    """
    path = folder / config.FILE
    if path.exists():
        raise UsageError(f"{path} is already there", todo="Edit it, or choose another folder; init never overwrites.")
    tables: Sequence[Mapping[str, Any]] = []
    findings: Sequence[Finding] = []
    source = name or _source_name(dsn, folder)
    config.check_source_name(source, "--name")
    if dsn is not None:
        from headwater.service.caught_up import source_kind

        kind = source_kind("postgres")
        tables, findings = kind.describe(dsn), kind.check(dsn)
    folder.mkdir(parents=True, exist_ok=True)
    for each in ("views", "notebooks"):
        (folder / each).mkdir(exist_ok=True)
    (folder / "views" / "README").write_text(_VIEW_README, encoding="utf-8")
    shown, secret = _without_password(dsn or "postgresql://localhost/postgres")
    namespaces = sorted({str(each["table"]).partition(".")[0] for each in tables}) or ["public"]
    path.write_text(_toml(folder.resolve().name, source, shown, secret, namespaces), encoding="utf-8")
    _report(path, source, tables, findings, secret=secret, described=dsn is not None)


def _source_name(dsn: str | None, folder: Path) -> str:
    """The database's name, or the folder's, as a source may be called."""
    text = folder.resolve().name
    if dsn is not None:
        found = re.search(r"\bdbname\s*=\s*'?([^\s']+)", dsn) or re.search(r"://[^/]*/([^?]+)", dsn)
        text = found[1] if found else text
    name = re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_")
    if not name or not name[0].isalpha() or name in config.REFUSED_SOURCE_NAMES:
        name = f"db_{name}".rstrip("_")
    return name[:63]


def _without_password(dsn: str) -> tuple[str, bool]:
    """The connection string as it may stand in a file, and whether it had a password."""
    shown = re.sub(r"(\w+://[^:/@\s]*):[^@\s]*@", r"\1@", dsn)
    shown = re.sub(r"[?&]password=[^&]*", "", shown)
    shown = re.sub(r"\bpassword\s*=\s*('(?:\\.|[^'\\])*'|\S+)\s*", "", shown, flags=re.IGNORECASE).strip()
    return shown, shown != dsn.strip()


def _toml(project: str, source: str, dsn: str, secret: bool, namespaces: Sequence[str]) -> str:
    tables = ", ".join(_text(f"{each}.*") for each in namespaces)
    note = f"          # the password: HEADWATER_SOURCE_{source.upper()}_DSN, PGPASSWORD or ~/.pgpass"
    return (
        f"[project]\nname = {_text(project)}\n\n[source.{source}]\n"
        f'kind = "postgres"\ndsn = {_text(dsn)}{note if secret else ""}\ntables = [{tables}]\n'
    )


def _text(value: str) -> str:
    """A TOML basic string."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _report(
    path: Path,
    source: str,
    tables: Sequence[Mapping[str, Any]],
    findings: Sequence[Finding],
    *,
    secret: bool,
    described: bool,
) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    console.print(f"wrote {path}")
    if described:
        console.print(_tables(tables))
    if secret and f"HEADWATER_SOURCE_{source.upper()}_DSN" not in os.environ:
        console.print(
            f"The password was not written: set HEADWATER_SOURCE_{source.upper()}_DSN or PGPASSWORD, or use ~/.pgpass."
        )
    if findings:
        console.print("\nWhat the server lacks, and the SQL that mends it:")
        for each in findings:
            console.print(f"{'error' if each.fatal else 'note'}: {each.what}", markup=False)
            for line in each.sql.splitlines():
                console.print(f"    {line}", markup=False)
    elif described:
        console.print("The server has everything that capture needs.")
    console.print(f"\nNext: headwater source prepare {source} --project {path.parent}, then headwater up.")


def _tables(found: Sequence[Mapping[str, Any]]) -> Any:
    from rich.table import Table

    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("table", "rows", "bytes", "key", "identity"):
        shown.add_column(column, justify="right" if column in ("rows", "bytes") else "left")
    for each in found:
        key = each["key"] if isinstance(each["key"], str) else ", ".join(each["key"] or ())
        figures = (f"{each[name]:,}" if each[name] is not None else "-" for name in ("rows", "bytes"))
        shown.add_row(str(each["table"]), *figures, key or "none", str(each["identity"]))
    return shown
