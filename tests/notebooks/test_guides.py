"""Every guide runs from top to bottom as a newcomer runs it, and what is stored of it reads without a kernel.

``HEADWATER_STORE_GUIDES=1`` writes the outputs of this run into the guides.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
GUIDES = sorted(FOLDER.glob("*.ipynb"))
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def outputs(notebook: Any, beginning: str) -> list[Any]:
    """Outputs of the one code cell whose source holds ``beginning``."""
    (found,) = [cell for cell in notebook.cells if cell.cell_type == "code" and beginning in cell.source]
    result: list[Any] = found.outputs
    return result


def store(notebook: Any, path: Path) -> None:
    """Keep what reads everywhere: no widget, which nobody could show without the kernel, and no run times."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, path)


@pytest.mark.timeout(240)
def test_the_first_look_runs_and_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWATER_PROJECT", raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    path = FOLDER / "01_first_look.ipynb"
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=100,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    view = outputs(notebook, "%%view orders_by_status")[0]["data"]["text/plain"]
    assert "ADDITIVE_STATE" in view
    assert "view orders_by_status: live" in view
    panel = outputs(notebook, "lake.watch(")[0]["data"]
    assert set(panel) == {"text/plain", "text/html", WIDGET_VIEW}
    assert "shipped" in panel["text/html"]
    assert "0 rows" in outputs(notebook, "EXCEPT ALL")[0]["data"]["text/html"], "the view equals its query"
    history = outputs(notebook, "FROM history.orders")[0]["data"]["text/plain"].splitlines()
    assert [line.split()[-1] for line in history[3:5]] == ["false", "true"]
    past = outputs(notebook, "%%sql --at {before}")[0]["data"]["text/plain"]
    now = outputs(notebook, "%%sql\nSELECT status, orders")[0]["data"]["text/plain"]
    assert "placed" not in past
    assert "placed" in now
    if os.environ.get("HEADWATER_STORE_GUIDES"):
        store(notebook, path)


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_a_stored_guide_reads_without_a_kernel(path: Path) -> None:
    assert path.stat().st_size < 100_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("text/html" in output.get("data", {}) for output in shown)
    assert not any(WIDGET_VIEW in output.get("data", {}) or output.output_type == "error" for output in shown)
    assert "widgets" not in notebook.metadata
