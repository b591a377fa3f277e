"""Where notebooks are read: a terminal, exported pages, VS Code. Everything must be told without JavaScript, too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter
from nbclient import NotebookClient
from nbconvert import HTMLExporter, MarkdownExporter
from playwright.sync_api import Browser

from headwater import Lake
from headwater.lake.html import render

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PANELS = (
    "lake.watch('SELECT id, customer FROM orders')",
    "lake.pipeline()",
    "lake.chart('SELECT id, total FROM orders WHERE id < 10', kind='bar', x='id', y='total')",
    "lake.schema()",
    "lake.dlq",
)
STATIC = (
    "lake.sql('SELECT * FROM orders ORDER BY id')",
    "lake.topics()",
    "lake.views()",
    "lake.view('v')",
    "lake.health()",
    "lake.sql('SELECT id FROM orders').lineage()",
    "lake.sql('SELECT id FROM orders').explain()",
)
CELLS = (
    "%load_ext headwater\nlake = %headwater",
    "%%sql\nSELECT *, 170141183460469231731687303715884105727::HUGEINT AS huge FROM orders ORDER BY id",
    "%%view v\nSELECT customer, count(*) AS n FROM orders GROUP BY customer",
    *STATIC,
    *PANELS,
    "%%sql --live\nSELECT id FROM orders",
    "%hwstatus",
    "%hwexplain v",
    "%%sql\nSELECT custmer FROM orders",
    "lake",
)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory, shop_class: type[Shop]) -> Any:
    """A notebook with every kind of output, as it is after its run in a kernel."""
    folder = tmp_path_factory.mktemp("hosts")
    shop = shop_class(folder / "shop")
    shop.commit(
        "c", (1, "Ada", "12.50"), (2, None, None), (9_007_199_254_740_993, "<img src=x onerror=hacked>", "1.00")
    )
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    before = os.environ.get("IPYTHONDIR")
    os.environ["IPYTHONDIR"] = str(folder / "ipython")
    try:
        NotebookClient(
            made,
            timeout=100,
            kernel_name="python3",
            allow_errors=True,
            store_widget_state=False,
            resources={"metadata": {"path": str(shop.folder)}},
        ).execute()
    finally:
        os.environ.pop("IPYTHONDIR")
        if before is not None:
            os.environ["IPYTHONDIR"] = before
    shop.log.close()
    return made


class Text(HTMLParser):
    """What a page says, without its styles and scripts; ``tags``: what it is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self._mute = "", [], 0  # type: ignore[var-annotated]
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._mute += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._mute -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._mute:
            self.text += data


def outputs(notebook: Any) -> list[tuple[str, Any]]:
    return [(cell.source, output) for cell in notebook.cells for output in cell.outputs]


def test_every_output_has_a_form_for_every_host(notebook: Any) -> None:
    """JupyterLab and VS Code take the widget where they can; whoever cannot, the HTML; a terminal, the text."""
    shown = {source: output for source, output in outputs(notebook) if output.output_type == "execute_result"}
    assert set(shown) == set(CELLS[1:]) - {"%%sql\nSELECT custmer FROM orders"}
    for source, output in shown.items():
        assert len(output.data["text/plain"]) > 10
        assert (WIDGET_VIEW in output.data) == (source in PANELS or "--live" in source)
        if source != "lake":
            page = Text(output.data["text/html"])
            assert page.text.strip()
            assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "img"}
            assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    (error,) = [output for _, output in outputs(notebook) if output.output_type == "error"]
    assert len(error.traceback) <= 8


def test_an_exported_page_is_read_without_javascript(notebook: Any, browser: Browser, tmp_path: Path) -> None:
    page, _ = HTMLExporter(theme="dark").from_notebook_node(notebook)  # type: ignore[no-untyped-call]
    assert WIDGET_VIEW not in page
    path = tmp_path / "page.html"
    path.write_text(page)
    context = browser.new_context(java_script_enabled=False)
    try:
        shown = context.new_page()
        shown.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
        shown.goto(path.as_uri())
        text = shown.locator("body").inner_text()
        huge, markup = "170141183460469231731687303715884105727", "<img src=x onerror=hacked>"
        for said in ("9007199254740993", huge, markup, "3 rows", "Did you mean"):
            assert said in text
        assert not re.search("Loading widget|A Jupyter Widget|Error displaying", text)
        assert shown.locator("svg").count() >= 3
        cell = shown.locator("td", has_text="12.50").first
        assert cell.evaluate("cell => getComputedStyle(cell).textAlign") == "right"
        ink = cell.evaluate("cell => getComputedStyle(cell).color")
        assert min(map(int, re.findall(r"\d+", ink)[:3])) > 128, "light letters on the dark page"
    finally:
        context.close()


def test_an_exported_markdown_has_the_tables(notebook: Any) -> None:
    text, _ = MarkdownExporter().from_notebook_node(notebook)  # type: ignore[no-untyped-call]
    assert "9007199254740993" in text
    assert "12.50" in text
    assert "Did you mean" in text
    assert "model_id" not in text
    assert "\x1b[" not in text.split("UnknownColumn")[0]


def test_a_result_is_set_like_numbers_are_read() -> None:
    html = render(["n", "t"], ["DECIMAL(20,2)", "VARCHAR"], [("-1.50", "x"), (None, None)], 2, 2, 1)
    assert re.findall(r"text-align: (\w+)", html) == ["right", "left", "right", "left", "right", "left"]
    assert "tabular-nums" in html
    assert html.count(">NULL<") == 2


def test_vscode_and_jupyter_give_the_colours() -> None:
    """Variables of the hosts, each with something that suits any page behind it; no colour of our own for letters."""
    html = render(["n"], ["BIGINT"], [("1",), (None,)], 2, 2, 1)
    for name in re.findall(r"var\((--[\w-]+)", html):
        assert name.startswith(("--jp-", "--vscode-"))
    assert "--vscode-panel-border" in html
    assert not re.search(r"(?<!-)color: *(#|rgb|black|white)", html)


@pytest.mark.parametrize("theme", ["vscode-dark", "vscode-light"])
def test_a_table_is_read_in_vscodes_page(lake: Lake, browser: Browser, theme: str) -> None:
    """VS Code shows HTML in a page whose body has the theme's class and variables."""
    dark = theme == "vscode-dark"
    ink, ground = ("rgb(204, 204, 204)", "rgb(31, 31, 31)") if dark else ("rgb(59, 59, 59)", "rgb(255, 255, 255)")
    variables = "--vscode-descriptionForeground: rgb(157, 157, 157); --vscode-panel-border: rgb(43, 43, 43)"
    page = browser.new_page()
    try:
        page.set_content(
            f'<body class="{theme}" style="color: {ink}; background: {ground}; {variables}">'
            f"{lake.sql('SELECT * FROM orders')._repr_html_()}</body>"
        )
        look = "cell => [getComputedStyle(cell).color, getComputedStyle(cell).backgroundColor]"
        assert page.locator("td").first.evaluate(look) == [ink, "rgba(0, 0, 0, 0)"]
        foot = page.locator(".headwater-result > div").first
        assert foot.evaluate("each => getComputedStyle(each).color") == "rgb(157, 157, 157)"
    finally:
        page.close()


@pytest.mark.long
def test_a_terminal_shows_text(shop: Shop, tmp_path: Path) -> None:
    """A real IPython in a terminal's manner: everything by its text, errors short, no HTML and no bars."""
    lines = [*CELLS[:1], "%sql SELECT * FROM orders ORDER BY id", *PANELS, "lake.topics()", "%hwstatus", "lake"]
    script = tmp_path / "session.ipy"
    script.write_text(
        "\n".join(f"print('>>>', {line!r})\n" + shown(line) for line in [*lines, "%sql SELECT x FROM orders"])
    )
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", str(script)],
        cwd=shop.folder,
        env=os.environ | {"IPYTHONDIR": str(tmp_path / "ipython"), "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    said = done.stdout + done.stderr
    parts = said.split(">>> ")[1:]
    assert len(parts) == len(lines) + 1, said
    assert "9007199254740993" in parts[1]
    assert all(len(part.splitlines()) > 1 for part in parts[1:]), said
    assert "UnknownColumn" in parts[-1]
    assert "Traceback" not in said
    assert not re.search(r"<table|<svg|<div|model_id|\d%\|", said)


def shown(line: str) -> str:
    """A line of a script that displays what the same line would in a session."""
    return f"_ = {line}\ndisplay(_)" if not line.startswith("%load_ext") else line


def test_text_has_no_markup_for_any_panel(lake: Lake) -> None:
    lake.create_view("v", "SELECT id FROM orders")
    formatter = DisplayFormatter()
    for source in (*PANELS, *STATIC):
        data, _ = formatter.format(eval(source, {"lake": lake}))  # noqa: S307 -- the list above
        assert "<div" not in data["text/plain"]
        assert "<" in data["text/html"]
