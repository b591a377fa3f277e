"""Eight live panels in a real JupyterLab: what they cost the kernel over time, while nobody looks, and in the file.

    python -m benchmarks.notebook_panels [--quick] [--json] [--seconds N]

A notebook with eight panels, all in view, four of them linked, in a headless chromium, while another process commits
all the time (updates, so that the tables keep their size). The memory that is the kernel's own is sampled, without the
pages of files that it has mapped; flat is when the last quarter of the time is like the second. Every widget message
that reaches the kernel is counted, in both pauses as well: with all panels paused, and with the page hidden. Then the
notebook is saved, and what each panel adds to it is measured: its output, and its widget state where a tool stores that
(``nbclient`` does, JupyterLab when told to).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import nbformat
import psutil
import pyarrow as pa
from playwright.sync_api import Page, sync_playwright

from benchmarks.harness import Report, parse, say
from benchmarks.processes import own_mb
from headwater import maintenance
from headwater.config import Settings
from headwater.log import Log, open_log
from headwater.ownership import own
from headwater.schema import Schema

SECONDS, QUICK_SECONDS = 1800.0, 40.0
IDLE_S, QUICK_IDLE_S = 60.0, 5.0
ROWS = 1_000
COMMITS_PER_S = 5.0
SEALED_COMMITS = 300
GROWTH_GOAL = 1.05
FILE_GOAL = 30_000
TOPIC = "shop.public.orders"
COLUMNS = Schema.of({"id": "BIGINT", "customer": "VARCHAR", "total": "DECIMAL(20,2)"}, key=["id"])
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
]

OPENING = """%load_ext headwater
lake = %headwater
import json, os
from ipywidgets import Widget
from headwater_notebooks import panels
arrived = open("messages", "ab", buffering=0)
handle = Widget._handle_msg
def counted(self, message):
    arrived.write(b".")
    return handle(self, message)
Widget._handle_msg = counted
open("kernel.pid", "w").write(str(os.getpid()))"""

PANELS = (
    'lake.watch("SELECT * FROM orders ORDER BY id")',
    'lake.watch("SELECT customer, count(*) AS orders, sum(total) AS total FROM orders GROUP BY customer")',
    'lake.watch("SELECT count(*) AS orders, sum(total) AS total, max(id) AS newest FROM orders")',
    'lake.watch("SELECT * FROM orders WHERE total > 900 ORDER BY total DESC")',
    'lake.watch("SELECT id % 10 AS last_digit, avg(total) AS mean FROM orders GROUP BY ALL ORDER BY ALL")',
    'lake.chart("SELECT customer, sum(total) AS total FROM orders GROUP BY customer")',
    'lake.chart("SELECT id, total FROM orders", kind="line")',
    "lake.pipeline()",
)
CLOSING = """shown = [panels.of(each) for each in (p0, p1, p2, p3, p4, p5, p6, p7)]
json.dump([len(json.dumps(each.get_state())) for each in shown], open("states.json", "w"))"""


class Shop:
    """One table of a thousand orders, and the hand that updates them."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.position: str | None = None
        self.commits = 0

    def commit(self, op: str, ids: list[int]) -> None:
        rows = {
            "id": pa.array(ids, pa.int64()),
            "customer": pa.array([f"customer {number % 12}" for number in ids], pa.string()),
            "total": pa.array([Decimal(random.randrange(100_000)).scaleb(-2) for _ in ids], pa.decimal128(20, 2)),
            "_op": pa.array([op] * len(ids), pa.string()),
        }
        position = f"0/{self.commits + 1:X}"
        with (
            own(self.log, "source:shop") as owner,
            self.log.transaction("source:shop", owner.epoch, self.position) as transaction,
        ):
            if self.position is None:
                transaction.create_topic(TOPIC, "table", COLUMNS, source="shop")
            transaction.append(TOPIC, pa.table(rows))
            transaction.position = position
            transaction.commit()
        self.position, self.commits = position, self.commits + 1


@contextmanager
def updates(shop: Shop) -> Iterator[None]:
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(1 / COMMITS_PER_S):
            shop.commit("u", random.sample(range(ROWS), 10))
            if (
                shop.commits % SEALED_COMMITS == 0
            ):  # as a running project does, else a reader keeps all that is unsealed
                maintenance.run_once(shop.log, Settings(), force=True)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


@contextmanager
def jupyterlab(folder: Path, project: Path) -> Iterator[str]:
    """A JupyterLab with JupyterLab's own test configuration, on loopback, in a folder of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config.py").write_text(
        "from jupyterlab.galata import configure_jupyter_server\n"
        "configure_jupyter_server(c)\n"
        f"c.ServerApp.ip = '127.0.0.1'\nc.ServerApp.port = {port}\nc.ServerApp.allow_root = True\n"
    )
    places = {f"JUPYTER_{each.upper()}_DIR": str(folder / each) for each in ("config", "data", "runtime")}
    environment = (
        os.environ | places | {"JUPYTERLAB_GALATA_ROOT_DIR": str(project), "IPYTHONDIR": str(folder / "ipython")}
    )
    with (folder / "jupyterlab.log").open("wb") as output:
        command = [sys.executable, "-m", "jupyterlab", "--config", str(folder / "config.py")]
        server = subprocess.Popen(command, cwd=project, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            _until_it_answers(address, server)
            yield address
        finally:
            server.terminate()  # it ends its kernels
            server.wait(20)


def _until_it_answers(address: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/status", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise RuntimeError("JupyterLab did not start")


def notebook(path: Path) -> None:
    shown = [f"p{number} = {made}\np{number}" for number, made in enumerate(PANELS)]
    link = "panels.link(p0, p1, p2, p5)"
    cells = [nbformat.v4.new_code_cell(source) for source in (OPENING, *shown, link + "\nNone", CLOSING)]
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, path)


def run_all(page: Page) -> None:
    page.wait_for_function("() => window.jupyterapp && window.jupyterapp.shell.currentWidget?.sessionContext")
    page.evaluate(
        """async () => { const panel = window.jupyterapp.shell.currentWidget;
        await panel.context.ready; await panel.sessionContext.ready;
        window.jupyterapp.commands.execute("notebook:run-all-cells"); }"""
    )
    page.wait_for_function(
        "(count) => document.querySelectorAll(\".hw-panel[data-ready='1'][data-state='live']\").length === count",
        arg=len(PANELS),
        timeout=120_000,
    )


class Bench:
    """The page with its eight panels, and what is read off it and off the kernel."""

    def __init__(self, page: Page, project: Path, report: Report) -> None:
        self.page, self.project, self.report = page, project, report
        self.kernel = psutil.Process(int((project / "kernel.pid").read_text()))

    def messages(self) -> int:
        return (self.project / "messages").stat().st_size

    def live(self, seconds: float) -> None:
        begun, before, cpu = time.monotonic(), self.messages(), self.kernel.cpu_times()
        samples: list[float] = []
        while (passed := time.monotonic() - begun) < seconds:
            samples.append(own_mb(self.kernel.pid))
            if len(samples) % 60 == 1:
                say(f"{passed:5.0f} s: kernel {samples[-1]:.0f} MB, {self.messages() - before} messages")
            self.page.wait_for_timeout(min(1000, seconds * 10))
        quarter = len(samples) // 4
        second, last = statistics.mean(samples[quarter : 2 * quarter]), statistics.mean(samples[-quarter:])
        spent = self.kernel.cpu_times()
        self.report.figure("kernel_first_mb", samples[0])
        self.report.figure("kernel_second_quarter_mb", second)
        self.report.figure("kernel_last_quarter_mb", last)
        self.report.figure("kernel_most_mb", max(samples))
        self.report.figure("kernel_cpu_percent", 100 * (spent.user + spent.system - cpu.user - cpu.system) / seconds)
        self.report.figure("messages_per_panel_per_s", (self.messages() - before) / seconds / len(PANELS))
        self.report.goal("kernel_growth", last / second, at_most=GROWTH_GOAL)

    def nobody_looks(self, seconds: float) -> None:
        self.page.evaluate(
            "document.querySelectorAll(\".hw-bar button[aria-pressed='false']\")"
            ".forEach((button) => { if (button.textContent === 'pause') button.click(); })"
        )
        self.report.goal("messages_while_paused", self._quiet("paused", seconds), at_most=0)
        self.page.evaluate(
            "document.querySelectorAll(\".hw-bar button[aria-pressed='true']\").forEach((b) => b.click())"
        )
        self._all("live")
        self.page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        self.report.goal("messages_while_hidden", self._quiet("hidden", seconds), at_most=0)

    def _all(self, state: str) -> None:
        self.page.wait_for_function(
            "([count, state]) => document.querySelectorAll(`.hw-panel[data-state='${state}']`).length === count",
            arg=[len(PANELS), state],
            timeout=60_000,
        )

    def _quiet(self, state: str, seconds: float) -> int:
        """Messages from when all panels have come to rest."""
        self._all(state)
        self.page.wait_for_timeout(2_000)  # what was under way
        before = self.messages()
        self.page.wait_for_timeout(seconds * 1000)
        return self.messages() - before

    def file(self) -> None:
        self.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
        path, until = self.project / "panels.ipynb", time.monotonic() + 30
        while not (outputs := _outputs(path)) and time.monotonic() < until:
            self.page.wait_for_timeout(200)
        states = json.loads((self.project / "states.json").read_text())
        self.report.figure("output_mean_bytes", statistics.mean(outputs))
        self.report.figure("state_mean_bytes", statistics.mean(states))
        self.report.goal("file_bytes_per_panel", max(outputs), at_most=FILE_GOAL)
        self.report.goal("state_bytes_per_panel", max(states), at_most=FILE_GOAL)


def _outputs(path: Path) -> list[int]:
    """Bytes of each panel's output in the saved notebook; empty when it was not saved yet."""
    cells = json.loads(path.read_text())["cells"][1 : 1 + len(PANELS)]
    return [len(json.dumps(cell["outputs"])) for cell in cells] if all(cell["outputs"] for cell in cells) else []


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, help=f"how long the panels are live (default {SECONDS:g})")


def main() -> int:
    options = parse("notebook_panels", "eight live panels in JupyterLab", _options)
    report = Report("notebook_panels", quick=options.quick)
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    with tempfile.TemporaryDirectory(prefix="headwater-panels-") as folder, sync_playwright() as playwright:
        project = Path(folder) / "shop"
        project.mkdir()
        (project / "headwater.toml").write_text('[project]\nname = "shop"\n')
        notebook(project / "panels.ipynb")
        with open_log(project / "lake", create=True) as log:
            shop = Shop(log)
            shop.commit("c", list(range(ROWS)))
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            with jupyterlab(Path(folder), project) as address:
                page = browser.new_page(viewport={"width": 1400, "height": 6000})
                page.goto(f"{address}/lab/tree/panels.ipynb?reset")
                run_all(page)
                bench = Bench(page, project, report)
                with updates(shop):
                    bench.live(seconds)
                    bench.nobody_looks(QUICK_IDLE_S if options.quick else IDLE_S)
                bench.file()
                report.figure("commits", shop.commits)
                page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")
            browser.close()
    return report.finish(as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
