"""The notebooks' part of ``headwater demo``: JupyterLab on loopback, with the guides in the project's folder."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
from pathlib import Path

from headwater.config import Project
from headwater.service.component import Component

PAGES = 4
"""Stage: pages stay open until the end."""
PORT = 8888
FIRST = "01_first_look.ipynb"
"""What the page opens with: whoever comes for the first time need not look for where to begin."""


def components(project: Project) -> list[Component]:
    """One JupyterLab, behind a token of this run; guides that the folder has already are left as they are."""
    folder = project.root / "notebooks"
    folder.mkdir(exist_ok=True)
    for guide in sorted(Path(__file__).resolve().parents[1].glob("*.ipynb")):
        if not (folder / guide.name).exists():
            shutil.copyfile(guide, folder / guide.name)
    port, token = _free(PORT), secrets.token_hex(16)
    # The token goes by the environment: command lines are visible to every user of the machine.
    argv = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    argv += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"]
    argv += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # no network
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        argv.append("--allow-root")
    env = {"JUPYTER_TOKEN": token, "HEADWATER_PROJECT": str(project.root)}
    url = f"http://127.0.0.1:{port}/lab/tree/{FIRST}?token={token}"
    return [Component(name="jupyterlab", argv=argv, stage=PAGES, env=env, url=url)]


def _free(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise AssertionError("a system that has no free port at all")
