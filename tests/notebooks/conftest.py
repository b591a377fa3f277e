"""A small shop in a lake, written through the log as a source writes it, and a browser to show it in."""

from __future__ import annotations

import http.server
import json
import signal
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from headwater import Lake, ownership
from headwater.lake import open_lake
from headwater.log import open_log
from headwater.schema import Schema
from headwater_notebooks.panel import Panel

expect.set_options(timeout=20_000)  # milliseconds: of a machine whose cores others use, too

ORDERS = "shop.public.orders"
COLUMNS = Schema.of({"id": "BIGINT", "customer": "VARCHAR", "total": "DECIMAL(20,2)"}, key=["id"])
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Shop:
    """A project folder with one table, and the hand that writes its commits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "headwater.toml").write_text('[project]\nname = "shop"\n')
        self.log = open_log(folder / "lake", create=True)
        self.position: str | None = None
        self.commits = 0
        self.lock = threading.Lock()

    def commit(self, op: str, *rows: tuple[int, str | None, str | None]) -> int:
        """One source transaction: ``op`` on each (id, customer, total); the commit's number."""
        table = pa.table(
            {
                "id": pa.array([row[0] for row in rows], pa.int64()),
                "customer": pa.array([row[1] for row in rows], pa.string()),
                "total": pa.array([row[2] and Decimal(row[2]) for row in rows], pa.decimal128(20, 2)),
                "_op": pa.array([op] * len(rows), pa.string()),
            }
        )
        with self.lock, ownership.own(self.log, "source:shop") as owner:
            position = f"0/{self.commits + 1:X}"
            with self.log.transaction(
                producer="source:shop", epoch=owner.epoch, expected_position=self.position
            ) as transaction:
                if self.position is None:
                    transaction.create_topic(ORDERS, "table", COLUMNS, source="shop")
                transaction.append(ORDERS, table)
                transaction.position = position
                number = transaction.commit().number
            self.position, self.commits = position, self.commits + 1
        return number


@pytest.fixture(scope="session")
def shop_class() -> type[Shop]:
    """For tests that keep one shop for a whole module."""
    return Shop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Three orders; the last holds what is easily got wrong: 2^53 + 1, markup, more digits than a double has."""
    made = Shop(tmp_path / "shop")
    made.commit(
        "c",
        (1, "Ada", "12.50"),
        (2, None, None),
        (9_007_199_254_740_993, "<img src=x onerror=window.hacked=1>", "99999999999999999.99"),
    )
    yield made
    made.log.close()


@pytest.fixture
def lake(shop: Shop) -> Iterator[Lake]:
    with open_lake(shop.folder) as opened:
        yield opened


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores SIGINT, these tests perhaps."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    """One headless browser for all tests."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield launched
        launched.close()


# The page holds what a notebook gives a widget: an element, and a model whose messages reach the kernel. Here
# the messages go through `window.kernel`, which is the real handler in this process.
_HOST = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/panel.css">
<body style="margin: 16px; background: Canvas; color-scheme: light dark">
<div id="host"></div><div style="height: 3000px"></div>
<script type="module">
const held = [], hosts = []; // of several panels, the globals below that name none mean the first
const heldBack = new Set(); // numbers of the panels whose answers do not arrive; `hold` is for all
Object.assign(window, { sent: [], answers: 0, hold: HOLD, heldBack, changed: [], positions: [], saved: 0 });
window.put = (name, value, at = 0) => hosts[at].put(name, value);
window.deliver = (reply, at = 0) => hosts[at].deliver(reply);
window.dispose = (at = 0) => hosts[at].dispose();
window.release = () => { window.hold = false; heldBack.clear(); held.splice(0).forEach((deliver) => deliver()); };
async function host(traits, number) {
  const listeners = new Map();
  let dirty = false; // `changed` and `saved` leave the trait `position` out, which every panel writes
  const heard = (event) => listeners.get(event) || listeners.set(event, new Set()).get(event);
  const put = (name, value) => {
    traits[name] = value;
    [...heard(`change:${name}`)].forEach((listener) => listener());
  };
  const deliver = (reply) => [...heard("msg:custom")].forEach((listener) => listener(reply));
  const model = {
    get: (name) => traits[name],
    set: (name, value) => {
      if (name === "position") window.positions.push(value);
      else dirty = window.changed.push([name, value]) > 0;
      put(name, value);
    },
    save_changes: () => { window.saved += Number(dirty); dirty = false; },
    on: (event, listener) => heard(event).add(listener),
    off: (event, listener) => heard(event).delete(listener),
    send: async (request) => {
      window.sent.push(number ? { ...request, panel: number } : request);
      const reply = await window.kernel(request, number);
      window.answers += 1;
      if (window.hold || heldBack.has(number)) held.push(() => deliver(reply)); else deliver(reply);
    },
  };
  const el = document.createElement("div");
  document.getElementById("host").append(el);
  hosts[number] = { put, deliver, model, traits };
  const { default: panel } = await import(`/panel.js?${number}`); // a module of its own each, as anywidget loads them
  hosts[number].dispose = panel.render({ model, el });
}
TRAITS.forEach(host);
</script>"""


_HOSTS_OWN = ("_esm", "_css", "_model", "_view", "_dom", "_anywidget", "layout", "tabbable", "tooltip", "comm")


class _Files(http.server.BaseHTTPRequestHandler):
    def __init__(self, files: dict[str, tuple[str, str]], *args: Any) -> None:
        self.files = files
        super().__init__(*args)

    def do_GET(self) -> None:
        place = self.path if self.path in self.files else self.path.partition("?")[0]
        kind, text = self.files.get(place, ("", ""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", f"{kind or 'text/plain'}; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Quiet: the access log is no part of a test's output."""


def _traits(panel: Panel) -> dict[str, Any]:
    own = {name: getattr(panel, name) for name in panel.keys if not name.startswith(_HOSTS_OWN)}
    return {name: value for name, value in own.items() if isinstance(value, str | int | list | dict)}


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Shows a panel, or several, in a page whose clock the test drives (``page.clock``); fails on any script error."""
    closing: list[Callable[[], None]] = []
    errors: list[str] = []

    def open_page(*panels: Panel, hold: bool = False) -> Page:
        traits = [_traits(panel) for panel in panels]
        files = {
            "/": ("text/html", _HOST.replace("TRAITS", json.dumps(traits)).replace("HOLD", json.dumps(hold))),
            **{f"/panel.js?{number}": ("text/javascript", panel._esm) for number, panel in enumerate(panels)},
            "/panel.css": ("text/css", "\n".join(dict.fromkeys(panel._css for panel in panels))),
            "/favicon.ico": ("image/x-icon", ""),
        }
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, files))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page(viewport={"width": 900, "height": 600})
        closing.extend([page.close, server.shutdown, server.server_close])
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.clock.install()
        page.expose_function("kernel", lambda request, number: panels[number].handle(request))
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        return page

    yield open_page
    for close in closing:
        close()
    assert errors == []
