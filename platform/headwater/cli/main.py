"""The command line's frame: finds commands, shows errors as one paragraph, sets exit codes.

Exit codes: 0 done, 1 the check or command failed, 2 usage, 130 interrupted. Under a supervisor, a failure
that trying again cannot mend is ``EXIT_NOT_RETRYABLE`` instead of 1.

Commands are names for "module:object", ours and those of other packages alike (entry-point group
``headwater.command``); only the one that is run is imported. An object is a function with typer's
annotations or a ``typer.Typer``.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import TracebackType
from typing import Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command

from headwater import logs
from headwater.cli.options import EXIT_INTERRUPTED
from headwater.config import mask
from headwater.errors import HeadwaterError, Retryable
from headwater.service.component import EXIT_NOT_RETRYABLE

GROUP = "headwater.command"
HELP_MARKUP: Literal["markdown"] = "markdown"
"""`code` is shown as such; square brackets, which rich's own markup would swallow, stay."""
BUILT_IN = {
    "init": "headwater.cli.init:init",
    "up": "headwater.cli.up:up",
    "status": "headwater.cli.status:status",
    "sql": "headwater.cli.sql:sql",
    "topic": "headwater.cli.topic:topic",
    "schema": "headwater.cli.schema:schema",
    "group": "headwater.cli.group:group",
    "dlq": "headwater.cli.dlq:dlq",
    "verify": "headwater.cli.verify:verify",
    "backup": "headwater.cli.backup:backup",
    "restore": "headwater.cli.backup:restore",
    "seal": "headwater.cli.seal:seal",
    "retain": "headwater.cli.seal:retain",
    "compact": "headwater.cli.seal:compact",
    "maintain": "headwater.cli.seal:maintain",
    "tag": "headwater.cli.tag:tag",
}


class CommandGroup(TyperGroup):
    """Commands by name, imported when they are used."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 -- typer's signature
        return [*BUILT_IN, *sorted(plug_ins())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 -- typer's signature
        if cmd_name not in self.commands:
            target = load_target(cmd_name)
            if target is None:
                return None
            self.commands[cmd_name] = as_command(cmd_name, target)
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            for name in self.list_commands(ctx):  # typer suggests among the commands it has seen
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


@cache
def plug_ins() -> dict[str, EntryPoint]:
    """Commands of other installed packages, read once: every package's metadata is looked at.

    A built-in name cannot be taken.
    """
    return {each.name: each for each in entry_points(group=GROUP) if each.name not in BUILT_IN}


def load_target(name: str) -> Any:
    """The object behind a command's name, or None."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(import_module(module), attribute)
    entry = plug_ins().get(name)
    if entry is None:
        return None
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:  # one broken package must not take the others' help away
        return _broken(name, entry, error)


def _broken(name: str, entry: EntryPoint, error: Exception) -> Any:
    def command() -> None:
        raise HeadwaterError(
            f"the command {name} cannot be loaded: {error}", where=entry.value, todo="Reinstall its package."
        ) from error

    command.__doc__ = f"Cannot be loaded: {error}."
    return command


def as_command(name: str, target: Any) -> Any:
    """A typer application or an annotated function as a command called ``name``."""
    if not isinstance(target, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(target)
        target = single
    target.rich_markup_mode = HELP_MARKUP
    command = get_command(target)
    command.name = name
    return command


app = typer.Typer(
    cls=CommandGroup,
    name="headwater",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=HELP_MARKUP,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"headwater {version('headwater')}")
        raise typer.Exit


@app.callback()
def headwater(
    debug: Annotated[bool, typer.Option("--debug", help="With any command: show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """PostgreSQL changes in, live SQL-defined analytics out, on one machine."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    args, debug = _take_debug(sys.argv[1:] if argv is None else argv)
    logs.configure_from_environment()
    if not debug:
        sys.excepthook = _report_defect
    sys.exit(_run(args, debug))


def _take_debug(argv: list[str]) -> tuple[list[str], bool]:
    """``--debug`` may stand anywhere before a ``--``: no command has to declare it."""
    end = argv.index("--") if "--" in argv else len(argv)
    options = [each for each in argv[:end] if each != "--debug"]
    return options + argv[end:], len(options) < end


def _run(args: list[str], debug: bool) -> int:
    try:
        code = get_command(app).main(args=args, prog_name="headwater", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except HeadwaterError as error:
        if debug:
            raise
        return _report(error)
    except typer.Abort:
        return EXIT_INTERRUPTED
    except typer.TyperException as error:  # wrong usage: typer's own words, its exit code 2
        show = getattr(error, "show", None)
        if show is None or not error.format_message():
            typer.echo(error.format_message(), err=True)
        else:
            show()
        return error.exit_code


def _report(error: HeadwaterError) -> int:
    """One paragraph on stderr; as a log line where a supervisor reads it."""
    supervised = logs.supervised()
    if supervised:
        logs.logger().error(str(error), extra={"error": type(error).__name__})
    else:
        typer.echo(f"error: {mask(str(error))}", err=True)
    if supervised and not isinstance(error, Retryable):
        return EXIT_NOT_RETRYABLE
    return error.exit_code


def _report_defect(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """What escapes the error tree is our defect; say so instead of printing a traceback at the user."""
    if logs.supervised():
        logs.logger().critical(f"defect in headwater: {kind.__name__}: {error}", exc_info=(kind, error, traceback))
        return
    typer.echo(
        f"error: this is a defect in headwater, not in what you did: {kind.__name__}: {mask(str(error))}"
        " Please report it with the output of the same command and --debug added.",
        err=True,
    )
