"""README and docs are true: code blocks are executed, commands documented, links lead somewhere.

What a fence's language means:

- ``console``: lines after ``$`` are run by bash in the page's own directory (``>`` continues a command), the
  project's commands on the path; the lines below are what it prints, ``...`` standing for anything.
- ``python``: executed; with ``>>>`` its results are compared. The blocks of a page share their names.
- ``sh``: what a person types at a terminal that stays busy (``make demo``); the targets must exist.
- ``toml``, ``yaml``, ``sql``: must parse. ``text``: a picture or a listing.

A page that uses ``DSN`` gets the address of a fresh database there.
"""

from __future__ import annotations

import contextlib
import doctest
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import sqlglot
import yaml  # type: ignore[import-untyped]

from headwater.cli.main import BUILT_IN, plug_ins
from headwater.lake import Lake
from headwater_connectors.postgres.embedded import EmbeddedPostgres

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<language>\S*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
WILD = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
COMMAND_SECONDS = 90
FALSE = (AssertionError, ValueError, doctest.DocTestFailure, sqlglot.errors.ParseError, pytest.fail.Exception)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block and where it stands."""

    language: str
    body: str
    place: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            language=match["language"],
            body=match["body"],
            place=f"{page.name}:{text.count(chr(10), 0, match.start()) + 1}",
        )
        for match in FENCE.finditer(text)
    ]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass
class Reader:
    """A person who follows one page from top to bottom in an empty directory."""

    directory: Path
    environment: dict[str, str]
    names: dict[str, object]

    def follow(self, block: Block) -> None:
        match block.language:
            case "console":
                self.run_console(block)
            case "python":
                self.run_python(block)
            case "sh":
                self.look_up(block)
            case "toml":
                tomllib.loads(block.body)
            case "yaml":
                yaml.safe_load(block.body)
            case "sql":
                assert sqlglot.parse(block.body, dialect="duckdb"), block.place
            case "text":
                pass
            case other:
                pytest.fail(f"{block.place}: what is a block in {other!r}? see tests/test_docs.py")

    def run_console(self, block: Block) -> None:
        for command, expected in sessions(block.body):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
            said = f"{block.place}: $ {command}\n{done.stdout}"
            assert done.returncode == 0, said
            if expected.strip():
                assert doctest.OutputChecker().check_output(expected, done.stdout, WILD), said

    def run_python(self, block: Block) -> None:
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            with contextlib.chdir(self.directory):
                if ">>>" in block.body:
                    example = doctest.DocTestParser().get_doctest(block.body, {}, block.place, block.place, 0)
                    example.globs = self.names
                    doctest.DebugRunner(optionflags=WILD).run(example, clear_globs=False)
                else:
                    exec(compile(block.body, block.place, "exec"), self.names)
        finally:
            os.environ.clear()
            os.environ.update(before)

    def look_up(self, block: Block) -> None:
        for line in block.body.splitlines():
            words = line.partition("#")[0].split()
            known = {"make": make_targets(), "headwater": set(commands())}
            if not words or words[0] in {"git", "cd", "export"}:
                continue
            if words[0] in known:
                assert words[1] in known[words[0]], f"{block.place}: there is no {line}"
            else:
                assert shutil.which(words[0], path=str(Path(sys.executable).parent)), f"{block.place}: {line}"


def sessions(body: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output written below it."""
    command, expected = "", ""
    for line in body.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, expected
            command, expected = line[2:], ""
        elif command and line.startswith("> ") and not expected:
            command += "\n" + line[2:]
        else:
            assert command, f"output without a command: {line!r}"
            expected += line + "\n"
    if command:
        yield command, expected


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands() -> list[str]:
    return [*BUILT_IN, *plug_ins()]


@pytest.fixture
def reader(page: Path, command: Path, tmp_path: Path) -> Iterator[Reader]:
    path = os.pathsep.join((str(command.parent), str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "COLUMNS": "110", "NO_COLOR": "1"}
    with contextlib.ExitStack() as stack:
        if any("DSN" in block.body for block in blocks(page) if block.language in {"console", "python"}):
            server = stack.enter_context(EmbeddedPostgres(fsync=False))
            environment["DSN"] = server.create_database("shop")
        reader = Reader(directory=tmp_path, environment=environment, names={"__name__": "__page__"})
        yield reader
        for value in list(reader.names.values()):  # a page does not close what its reader would go on using
            if isinstance(value, Lake | psycopg.Connection):
                value.close()


@pytest.mark.timeout(300)  # a page may start a whole project several times
@pytest.mark.parametrize(("reader", "page"), [(page, page) for page in PAGES], indirect=["reader"], ids=page_id)
def test_page_can_be_followed(reader: Reader, page: Path) -> None:
    for block in blocks(page):
        reader.follow(block)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_make_targets_named_in_prose_exist(page: Path) -> None:
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8")))
    assert named <= make_targets()


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [name for name in commands() if f"headwater {name}" not in page] == []


def test_every_make_target_is_explained() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert {line.split()[1] for line in shown.splitlines()} == set(phony[1].split())


@pytest.mark.parametrize(
    ("language", "body"),
    [
        ("console", "$ false\n"),
        ("console", "$ echo one\ntwo\n"),
        ("python", "assert 1 == 2\n"),
        ("python", ">>> 1 + 1\n3\n"),
        ("sh", "make nothing\n"),
        ("toml", "a = \n"),
        ("sql", "SELECT FROM WHERE\n"),
        ("py", "1 / 0\n"),
    ],
)
def test_a_false_block_is_caught(language: str, body: str, tmp_path: Path) -> None:
    follower = Reader(directory=tmp_path, environment=dict(os.environ), names={})
    with pytest.raises(FALSE):
        follower.follow(Block(language=language, body=body, place="here"))
