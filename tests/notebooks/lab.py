"""One real JupyterLab on loopback, with JupyterLab's own test configuration."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def jupyterlab(folder: Path, home: Path, cells: Sequence[str], name: str = "live.ipynb") -> Iterator[str]:
    """A JupyterLab of ``folder`` with a notebook of these cells; its own things go to ``home``. Gives the address."""
    port = free_port()
    home.mkdir(exist_ok=True)
    (home / "jupyter_server_config.py").write_text(
        "from jupyterlab.galata import configure_jupyter_server\n"
        "configure_jupyter_server(c)\n"
        f"c.ServerApp.ip = '127.0.0.1'\nc.ServerApp.port = {port}\nc.ServerApp.allow_root = True\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / name)
    environment = os.environ | {
        "JUPYTERLAB_GALATA_ROOT_DIR": str(folder),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    with (home / "jupyterlab.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--config", str(home / "jupyter_server_config.py")],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for_server(address, process, home / "jupyterlab.log")
            yield address
        finally:
            process.terminate()  # the server ends its kernels
            process.wait(20)


def wait_for_server(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 40
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/status", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError):
            threading.Event().wait(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


def run_all(page: Page) -> None:
    page.wait_for_function("() => window.jupyterapp && window.jupyterapp.shell.currentWidget?.sessionContext")
    page.evaluate(
        """async () => { const panel = window.jupyterapp.shell.currentWidget;
        await panel.context.ready; await panel.sessionContext.ready;
        window.jupyterapp.commands.execute("notebook:run-all-cells"); }"""
    )
