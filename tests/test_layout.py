"""The layout's rules that no linter keeps.

An ``__init__.py`` directly in ``platform/`` or under ``tests/`` would shadow the standard library's
``platform`` and break uuid, pytest and pip; the rest keeps the tree portable and its modules small.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "platform/headwater",
    "connectors/headwater_connectors",
    "pipelines/headwater_pipelines",
    "notebooks/headwater_notebooks",
    "dagster_project/headwater_dagster",
)
LINES_MAX = 600

# Written in pieces, so that this file does not hold what it forbids.
INDEX_ADDRESS = re.compile(
    r"pypi\."
    r"org|python"
    r"hosted|registry\.npm"
    r"js|deb\.debian"
    r"\.org|(?:index-url|find-links)[ =]+\S*:"
    r"//",
    re.IGNORECASE,
)
MACHINE_PATH = re.compile(r"(?<![\w.$}-])/(?:work|root|Users|opt/pypi|opt/wheels)/|/home/[a-z]")


def project_files() -> list[Path]:
    """Every file that is, or is about to be, in the repository."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [file for file in files if file.is_file()]


def modules() -> list[Path]:
    return [file for file in project_files() if file.suffix == ".py"]


def relative(files: list[Path]) -> list[str]:
    return [str(file.relative_to(ROOT)) for file in files]


def text_of(file: Path) -> str:
    return file.read_bytes().decode("utf-8", errors="replace")


def test_no_init_file_where_it_would_shadow_the_standard_library() -> None:
    roots = [ROOT / package.partition("/")[0] for package in PACKAGES]
    directly = [root / "__init__.py" for root in [ROOT, *roots] if (root / "__init__.py").exists()]
    assert relative(directly + list((ROOT / "tests").rglob("__init__.py"))) == []


@pytest.mark.parametrize("directory", [".", "tests"])
def test_the_standard_library_platform_is_found_from(directory: str) -> None:
    code = "import platform, uuid; uuid.uuid1(); print(platform.python_version())"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / directory, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout.strip()) == (0, sys.version.split()[0].rstrip("+")), run.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed_and_has_its_name(package: str) -> None:
    folder = ROOT / package
    assert (folder / "py.typed").is_file()
    assert (folder / "__init__.py").is_file()
    others = [entry.parent for entry in folder.parent.glob("*/__init__.py") if entry.parent != folder]
    assert relative(others) == [], "a source root holds one package"


def test_no_file_names_a_package_index_or_a_path_of_one_machine() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for file in project_files()
        for number, line in enumerate(text_of(file).splitlines(), 1)
        if INDEX_ADDRESS.search(line) or MACHINE_PATH.search(line)
    ]
    assert found == []


def test_the_rule_above_sees_what_it_must() -> None:
    assert INDEX_ADDRESS.search("--index-url https:/" + "/example.invalid/simple")
    assert INDEX_ADDRESS.search("https:/" + "/files.python" + "hosted.org/x")
    assert MACHINE_PATH.search('"/ro' + 'ot/.cache"')
    assert MACHINE_PATH.search("in /wo" + "rk/main")
    assert not MACHINE_PATH.search("see docs/work/notes and $HOME/work/x")


def test_every_locked_package_is_pinned_and_hashed() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    logical = [line for line in lock.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    assert len(logical) > 50
    assert [line[:60] for line in logical if not re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+ .*--hash=sha256:", line)] == []


def test_no_module_is_longer_than_one_can_read() -> None:
    sizes = {file: len(text_of(file).splitlines()) for file in project_files() if file.suffix in {".py", ".js", ".css"}}
    assert {str(file.relative_to(ROOT)): size for file, size in sizes.items() if size > LINES_MAX} == {}


def test_every_module_says_what_it_is() -> None:
    assert relative([file for file in modules() if not ast.get_docstring(ast.parse(text_of(file)))]) == []


def test_test_modules_have_unique_names() -> None:
    names = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
