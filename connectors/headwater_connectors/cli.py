"""The commands of this package: ``headwater source ...``, ``headwater capture``, ``headwater demo``.

Only light imports at the top: the command line's help loads this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.options import JsonOption, ProjectOption

if TYPE_CHECKING:
    from headwater.config import Project, SourceConfig
    from headwater_connectors.postgres.session import Connection

SourceName = Annotated[str, typer.Argument(metavar="NAME", help="The source, as in [source.NAME].")]

source = typer.Typer(no_args_is_help=True, add_completion=False, help="Check, prepare or drop a source.")


@source.command("check")
def check_source(name: SourceName, project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Say what is wrong on the server's side and the SQL that mends it. Changes nothing."""
    import json

    from headwater.log import open_log
    from headwater_connectors.postgres import check

    loaded, config = _source(name, project)
    log = open_log(loaded.lake_dir) if (loaded.lake_dir / "catalog.sqlite").exists() else None
    with _connected(config) as connection:
        found = check.source(config, connection, log)
    if as_json:
        listed = [{"what": each.what, "sql": each.sql, "fatal": each.fatal} for each in found]
        typer.echo(json.dumps({"source": name, "ready": not any(f.fatal for f in found), "findings": listed}))
    else:
        for each in found:
            typer.echo(f"{'error' if each.fatal else 'note'}: {each.what}")
            for line in each.sql.splitlines():
                typer.echo(f"    {line}")
        fatal = any(each.fatal for each in found)
        typer.echo(f"{name}: " + ("not ready" if fatal else "ready"))
    raise typer.Exit(1 if any(each.fatal for each in found) else 0)


@source.command("prepare")
def prepare_source(name: SourceName, project: ProjectOption = None) -> None:
    """Create the source's publications and event trigger. Capture does it by itself where its role may."""
    from headwater_connectors.postgres import source as postgres

    _, config = _source(name, project)
    with _connected(config) as connection:
        tables = postgres.prepare(config, connection)
    words = {"table": "by key", "multiset": "as whole rows", "insert_only": "inserts only"}
    for table in tables:
        typer.echo(f"{table.full_name}: {words[table.kind]}")
    typer.echo(f"{name}: {len(tables)} tables published; `headwater capture {name}` copies them and follows")


@source.command("drop")
def drop_source(name: SourceName, project: ProjectOption = None) -> None:
    """Remove the slot, the publications, the event trigger and the source's topics. Older positions stay readable."""
    from headwater.log import open_log
    from headwater.ownership import own
    from headwater_connectors.postgres import source as postgres

    loaded, config = _source(name, project)
    with (
        open_log(loaded.lake_dir, create=True) as log,
        own(log, postgres.owner_name(name)) as owner,
        _connected(config) as connection,
    ):
        postgres.drop(config, log, owner.epoch, connection)
    typer.echo(f"{name}: dropped")


@source.command("recopy")
def recopy_table(
    name: SourceName,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="The table, as namespace.table.")],
    project: ProjectOption = None,
    where: Annotated[
        str, typer.Option("--where", metavar="SQL", help="Compare only the rows that this condition selects.")
    ] = "",
) -> None:
    """Copy one table again beside everything else, and append what differs. Also takes up one in quarantine.

    The capture that runs does it, or the next one that starts. `headwater status` shows how far it is.
    """
    from headwater.log import open_log
    from headwater_connectors.postgres import requests

    loaded, _ = _source(name, project)
    with open_log(loaded.lake_dir) as log:
        requests.ask_copy(log, name, table, where)
    typer.echo(f"{table}: asked for; `headwater status` shows the copy")


@source.command("repair")
def repair_source(name: SourceName, project: ProjectOption = None) -> None:
    """After lost changes: make a new slot, compare every table with the server, append what differs.

    The capture that runs does it, or the next one that starts. `headwater status` shows how far it is.
    """
    from headwater.log import open_log
    from headwater_connectors.postgres import requests

    loaded, _ = _source(name, project)
    with open_log(loaded.lake_dir) as log:
        requests.ask_repair(log, name)
    typer.echo(f"{name}: asked for; the capture that runs, or the next `headwater capture {name}`, repairs it")


@source.command("guard")
def guard_source(name: SourceName, project: ProjectOption = None) -> None:
    """Watch the WAL that the server keeps for the slot, and drop the slot beyond `wal_drop_bytes`. `up` runs it."""
    from headwater.log import open_log
    from headwater.service.signals import stop_signals
    from headwater_connectors.postgres.guard import Guard

    loaded, config = _source(name, project)
    with stop_signals() as stop, open_log(loaded.lake_dir, create=True) as log:
        Guard(config, log).run(stop)


def capture(
    name: SourceName,
    project: ProjectOption = None,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="Stop once everything committed until now is captured.")
    ] = False,
) -> None:
    """Copy a source's tables once, then follow its changes. `headwater up` runs this for every source."""
    from headwater import logs
    from headwater.log import open_log
    from headwater.service.signals import check_not_cut_short, stop_signals
    from headwater_connectors.postgres.capture import Capture
    from headwater_connectors.postgres.catalog import parse_lsn
    from headwater_connectors.postgres.source import PostgresSource

    loaded, config = _source(name, project)
    with stop_signals() as stop, open_log(loaded.lake_dir, create=True) as log:
        until = parse_lsn(PostgresSource().current_end(config.dsn)) if until_caught_up else None
        Capture(config, loaded.settings, log, stop, waits=logs.supervised()).run(until=until)
        if until_caught_up:
            check_not_cut_short(stop)


def __getattr__(name: str) -> Any:
    """``demo`` belongs to the demo's own module; it is imported when the command is used."""
    if name != "demo":
        raise AttributeError(name)
    from headwater_connectors.demo.command import demo

    return demo


def _source(name: str, project: Any) -> tuple[Project, SourceConfig]:
    from headwater.config import load
    from headwater.errors import ConfigError

    loaded = load(project)
    config = loaded.source(name)
    if not config.dsn:
        raise ConfigError(
            f"source {name} has no dsn",
            where=str(loaded.file),
            todo=f"Set HEADWATER_SOURCE_{name.upper()}_DSN, or dsn under [source.{name}].",
        )
    return loaded, config


@contextmanager
def _connected(config: SourceConfig) -> Iterator[Connection]:
    """A session whose errors are ours."""
    import psycopg

    from headwater_connectors.postgres import session

    connection = session.connect(config.dsn, config.name)
    try:
        yield connection
    except psycopg.Error as error:
        raise session.translate(error, config.name) from error
    finally:
        connection.close()
