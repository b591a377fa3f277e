"""Every guide runs from top to bottom as a newcomer runs it, and what is stored of it reads without a kernel.

All run on one shop, as under ``headwater demo``, and leave it as they found it. ``HEADWATER_STORE_GUIDES=1`` writes the
outputs of a run into the guides (``make guides``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from headwater_notebooks import guide

FOLDER = Path(__file__).parents[2] / "notebooks"
GUIDES = sorted(FOLDER.glob("*.ipynb"))
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
BYTES_MAX = 60_000
REFUSAL = "raises-exception"
"""The tag of a cell that shows an error on purpose; notebooks go on behind it when all cells are run."""
MACHINE_PATH = re.compile(r"/(tmp|home|root|Users|work|var|private|mnt|opt)/")


@pytest.fixture(scope="module")
def shop() -> Iterator[guide.Shop]:
    """One shop for all guides, found by them as they find a running demo."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HEADWATER_PROJECT", raising=False)
        patch.chdir("/")
        opened = guide.open_shop()
        yield opened
        opened.stop()


def execute(path: Path, folder: Path) -> Any:
    """The guide with the outputs of its cells; CellExecutionError for an error that was not meant."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=100,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    return notebook


def outputs(notebook: Any, beginning: str) -> list[Any]:
    """Outputs of the one code cell whose source holds ``beginning``, but for progress bars that were taken away."""
    (found,) = [cell for cell in notebook.cells if cell.cell_type == "code" and beginning in cell.source]
    return [output for output in found.outputs if not is_gone(output)]


def is_gone(output: Any) -> bool:
    """Whether nothing is left of an output: a progress bar leaves an empty text, or a line that was wiped."""
    if output.output_type == "stream":
        return output.name == "stderr" and not output.text.split("\r")[-1].strip()
    return output.output_type == "display_data" and not any(output.data.values())


def store(notebook: Any, path: Path) -> None:
    """Keep what reads everywhere: no widget, which nobody could show without the kernel, and no run times."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not is_gone(output)]
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}  # not the version of whoever ran it last
    nbformat.write(notebook, path)


def what_there_is(shop: guide.Shop) -> tuple[list[str], ...]:
    """Views, topics, tags and groups: what a guide may make, and has to take away."""
    lake = shop.lake
    return (
        [view.name for view in lake.views()],
        [topic.name for topic in lake.topics() if not topic.name.endswith(".dlq")],  # dead letters outlive a view
        [tag.name for tag in lake.tags()],
        [group.name for group in lake.groups()],
    )


@pytest.mark.timeout(240)
@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_a_guide_runs_and_leaves_nothing_behind(
    path: Path, shop: guide.Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_PROJECT", str(shop.folder))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    before = what_there_is(shop)
    notebook = execute(path, tmp_path)
    assert what_there_is(shop) == before
    for cell in notebook.cells:
        failed = any(output.output_type == "error" for output in cell.get("outputs", []))
        assert failed == (REFUSAL in cell.metadata.get("tags", [])), f"a cell that is to be refused: {cell.source}"
    if says := SAYS.get(path.stem):
        says(notebook)
    if os.environ.get("HEADWATER_STORE_GUIDES"):
        store(notebook, path)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_all_guides_run_again_in_another_order(
    shop: guide.Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_PROJECT", str(shop.folder))
    for path in [*reversed(GUIDES), *GUIDES]:
        execute(path, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_a_guide_runs_alone(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a demo it starts a shop of its own."""
    monkeypatch.delenv("HEADWATER_PROJECT", raising=False)
    execute(path, tmp_path)


# ---- what a guide's prose promises of its cells


def first_look(notebook: Any) -> None:
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
    assert past != now


def defining_views(notebook: Any) -> None:
    assert "GROUP_WHOLE" in outputs(notebook, "%%hwexplain")[0]["data"]["text/plain"]
    assert "0 rows" in outputs(notebook, "EXCEPT ALL")[0]["data"]["text/html"]
    assert "Did you mean" in "".join(outputs(notebook, "sum(totl)")[0]["traceback"])
    assert "['spent_by_country', 'spent_by_customer']" in outputs(notebook, "cascade=True")[0]["data"]["text/plain"]


def windows(notebook: Any) -> None:
    late = outputs(notebook, "FROM clicks_closed.late")[0]["data"]["text/plain"]
    assert "behind the watermark by 00:00:11" in late
    assert "(1 row," in late
    both = outputs(notebook, "AS in_time")[0]["data"]["text/plain"].splitlines()
    assert [line.split() for line in both[3:7]] == [
        ["10:00:00", "2", "2"],
        ["10:00:10", "1", "NULL"],
        ["10:00:30", "1", "1"],
        ["10:00:40", "1", "NULL"],
    ]


def time_travel(notebook: Any) -> None:
    def said(part: str) -> str:
        text: str = outputs(notebook, part)[-1]["data"]["text/plain"]
        return text

    assert said("lake.history(").count("false") == 3
    assert said("AS was").splitlines()[3].split()[:2] == ["80.00", "60.00"]
    assert "placed           80.00" in said("%%sql --at {placed}")
    assert "placed           80.00" in said("--at tag:guide.ordered")
    assert "shape: (1, 4)" in said("lake.at(placed)")


def features(notebook: Any) -> None:
    assert outputs(notebook, "one_by_one =")[0]["data"]["text/plain"] == "True"
    assert outputs(notebook, "again =")[0]["data"]["text/plain"] == "'the same training set'"
    for leak in ("learn from their own future", "have a late page view"):
        assert not outputs(notebook, leak)[0]["data"]["text/plain"].startswith("'0")


def polars(notebook: Any) -> None:
    assert "cancelled" in outputs(notebook, "moved =")[0]["data"]["text/plain"]
    assert "4000" in outputs(notebook, "lake.consumer(")[0]["data"]["text/plain"]


def producer(notebook: Any) -> None:
    def said(part: str) -> str:
        return "".join(output.get("text", "") for output in outputs(notebook, part))

    assert said("receipt.duplicates") == "1 written, 0 dropped\n0 written, 1 dropped\n"
    assert said("load_of_today =") == "known already: False\nknown already: True\n"
    assert "redriven=1" in outputs(notebook, "redrive(")[0]["data"]["text/plain"]
    assert outputs(notebook, "producer.transaction()")[-1]["data"]["text/plain"] == "0"


def replays(notebook: Any) -> None:
    def said(part: str) -> str:
        text: str = outputs(notebook, part)[-1]["data"]["text/plain"]
        return text

    assert "'paused'" in said("stock.state, stock.reason")
    assert "many" in said("letter[")
    assert said("run = replay.run()").endswith("'missing in the live view': 0, 'not to be there': 0}")
    assert said("promoted = replay.promote()") == "('done', True)"


def monitoring(notebook: Any) -> None:
    assert "headwater resume orders_per_customer" in outputs(notebook, "to look at something")[-1]["data"]["text/plain"]
    assert outputs(notebook, "view.resume()")[-1]["data"]["text/plain"] == "[]"
    assert {"text/html", WIDGET_VIEW} <= set(outputs(notebook, "lake.pipeline()")[0]["data"])
    assert "page views" in outputs(notebook, "lake.chart(")[0]["data"]["text/html"]
    assert "true" in outputs(notebook, "half_within_5s")[0]["data"]["text/plain"]


SAYS = {
    "01_first_look": first_look,
    "02_defining_views": defining_views,
    "03_windows_and_late_data": windows,
    "04_time_travel_and_audit": time_travel,
    "05_replay_and_promote": replays,
    "06_features_for_models": features,
    "07_monitoring": monitoring,
    "08_polars": polars,
    "09_your_own_producer": producer,
}


# ---- what is stored


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_a_stored_guide_reads_without_a_kernel(path: Path) -> None:
    text = path.read_text()
    assert len(text.encode()) < BYTES_MAX
    assert not MACHINE_PATH.search(text)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    assert notebook.cells[0].source.startswith("# ")
    shown = [(cell, output) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("text/html" in output.get("data", {}) for _, output in shown)
    assert not any(WIDGET_VIEW in output.get("data", {}) for _, output in shown)
    failed = [REFUSAL in cell.metadata.get("tags", []) for cell, output in shown if output.output_type == "error"]
    assert all(failed), "an error that was not meant"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "stored as it was before it ran"
