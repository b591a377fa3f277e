"""What `import headwater` and `headwater --help` must not load: a person waits for it every time."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("polars", "duckdb", "pyarrow", "sqlalchemy", "sqlglot", "psycopg", "dagster", "ipywidgets", "pandas", "numpy")


def loaded_after(code: str) -> set[str]:
    """Top-level modules that are loaded when ``code`` has run in a fresh interpreter."""
    script = f"import sys\n{code}\nprint('loaded', *sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.splitlines()[-1].split())


RUN = """
from headwater.cli.main import main
try:
    main({args})
except SystemExit as ended:
    assert ended.code in (0, None), ended.code
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import headwater", id="import headwater"),
        pytest.param(RUN.format(args=["--help"]), id="headwater --help"),
        pytest.param(RUN.format(args=["--version"]), id="headwater --version"),
        pytest.param(RUN.format(args=["sql", "--help"]), id="headwater sql --help"),
        pytest.param(RUN.format(args=["up", "--help"]), id="headwater up --help"),
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert loaded_after(code) & set(HEAVY) == set()


def test_the_check_sees_a_heavy_import() -> None:
    assert "duckdb" in loaded_after("import headwater; headwater.open")


def test_import_headwater_loads_no_command_line() -> None:
    assert loaded_after("import headwater") & {"typer", "rich", "pydantic", "prometheus_client"} == set()
