"""Live panels: one widget class per panel, a hand-written ES module beside it, and a kernel that only answers.

The page in the browser asks, one request at a time; a panel never sends by itself, holds no thread and no
rows. So it works while a cell runs (JupyterLab hands requests to another thread), pauses by not being asked,
and ends with the page that asks.
"""

from __future__ import annotations

import html
import importlib.resources
import json
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar

import anywidget
import duckdb
import traitlets

from headwater import Lake, Watch
from headwater import position as positions
from headwater.errors import HeadwaterError, UsageError
from headwater.lake.html import render
from headwater.position import Position
from headwater_notebooks.pages import Pages, PageSource

STATIC_ROWS = 20
"""Rows of the form without JavaScript, which a saved notebook keeps."""
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_UNEXPECTED = {"what": "The panel failed to answer.", "todo": "The kernel's log has the reason."}


def _text(name: str) -> str:
    return (importlib.resources.files("headwater_notebooks") / name).read_text(encoding="utf-8")


class Panel(anywidget.AnyWidget):
    """A widget that answers requests; subclasses name their module and write ``answer``.

    A module is text that follows ``pull.js`` and ``frame.js``, which have what panels share: the part that asks, and
    the frame. ``lake``: what the panel reads; with it a position is resolved once, for all that the panel then asks.
    ``_esm`` and ``_css`` are texts and not paths: for a path anywidget keeps every instance alive.
    """

    module: ClassVar[str]

    at = traitlets.Unicode("").tag(sync=True)
    """The position to show, as ``lake.at`` takes it: ``commit:42``, a timestamp, ``tag:x``. Empty: the newest."""
    position = traitlets.Unicode("").tag(sync=True, echo_update=False)
    """The position that is shown now; written by the page, empty before its first answer."""
    _link = traitlets.Unicode("").tag(sync=True)
    """Name of a group of panels that turn to a new position together."""
    paused = traitlets.Bool(False).tag(sync=True)
    """Whether the page asks no more, until it is False again."""

    lake: Lake | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        if "module" in cls.__dict__:  # not for the class that anywidget makes of each instance: its are traits
            cls._esm = _text("pull.js") + _text("frame.js") + _text(f"{cls.module}.js")
            cls._css = _text("frame.css") + _text(f"{cls.module}.css")
        super().__init_subclass__(**options)

    closed = False

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.on_msg(self._receive)

    def open(self) -> None:
        super().open()
        self._route_by_sender()

    def _send(self, msg: Any, buffers: Any = None) -> None:
        super()._send(msg, buffers)
        self._route_by_sender()

    def _route_by_sender(self) -> None:
        """Let requests run in the subshell that the page addressed, beside a running cell.

        ipykernel 7.4 notes with each message a comm sends from which shell it came, and hands everything that
        arrives for the comm to that one: after the opening, to the main shell, which may be busy for hours.
        """
        getattr(self.comm, "__dict__", {}).pop("_reply_subshell_id", None)

    def answer(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to one request, without its id. May raise HeadwaterErrors; runs in any thread."""
        raise UsageError(f"this panel has no operation {op!r}", todo=f"Request {request.get('id')!r} was not answered.")

    def where(self, request: Mapping[str, Any]) -> Position:
        """Where this request wants to read, for ``lake.sql(..., at=)``; None is the newest position."""
        at = request.get("at")
        if at is not None and not isinstance(at, str):
            raise UsageError(f"at is a text, not {json.dumps(at, default=str)[:80]}")
        return at or None

    def static_html(self) -> str:
        """What is shown where no JavaScript runs: GitHub, a saved notebook, an e-mail."""
        raise NotImplementedError

    def handle(self, request: object) -> dict[str, Any]:
        """One request, one reply with the same id; a mistake in it becomes an ``error`` in the reply."""
        if not isinstance(request, Mapping):
            return {"id": None, "error": {"what": "A request is an object with id and op.", "todo": ""}}
        reply: dict[str, Any] = {"id": request.get("id")}
        if self.closed:
            return reply | {"closed": True}
        try:
            placed = self._resolved(request)
            return reply | self.answer(str(request.get("op")), placed) | _asked_position(placed)
        except HeadwaterError as error:
            return reply | {"error": {"what": _sentence(error), "todo": error.todo}}
        except duckdb.Error as error:
            return reply | {"error": {"what": str(error).split("\n\nLINE ")[0], "todo": ""}}

    def _resolved(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The request with its position as a commit, so that it means the same to each query of the answer."""
        at = self.where(request)
        if at is None or self.lake is None:
            return request
        commit = self.lake.position() if at == "latest" else positions.resolve(self.lake.log, at)
        return {**request, "at": f"commit:{commit}"}

    def _receive(self, _: Any, request: object, __: object) -> None:
        reply = {"id": request.get("id") if isinstance(request, dict) else None, "error": _UNEXPECTED}
        try:
            reply = self.handle(request)
        finally:  # a reply goes out in any case, else the page would wait for ever; our bug still reaches the log
            self.send(reply)

    def close(self) -> None:
        """End the panel: the page keeps what it shows, says so, and asks no more.

        The channel to the page stays: closing it would take the table off the page.
        """
        if not self.closed:
            self.closed = True
            self.send({"closed": True})

    def __enter__(self) -> Panel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget for a live kernel, a static table for everything else, in one output."""
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": self.static_html()}
        if not self.closed:
            bundle[_WIDGET_VIEW] = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return bundle, {}


class TablePanel(Panel):
    """A table of a query's answer that follows the lake: page, sort, filter, pause.

    Args:
        pages: where rows come from.
        sql: shown to the reader, never run from here.
        interval: seconds between two requests while something changes.
        page_rows: rows of one page.
    """

    module = "table_panel"

    _sql = traitlets.Unicode().tag(sync=True)
    _interval_ms = traitlets.Int(500).tag(sync=True)
    _page_rows = traitlets.Int(50).tag(sync=True)

    def __init__(self, pages: PageSource, *, sql: str = "", interval: float = 0.5, page_rows: int = 50) -> None:
        self.pages = pages
        self.lake = getattr(pages, "lake", None)
        super().__init__(_sql=sql, _interval_ms=max(100, round(interval * 1000)), _page_rows=page_rows)

    def answer(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if op != "page":
            return super().answer(op, request)
        since = request.get("since_version")
        return self.pages.page(
            sort=_objects(request, "sort"),
            filters=_objects(request, "filters"),
            after_key=_object(request, "after_key"),
            limit=_whole(request, "limit", self._page_rows),
            since_version=since if isinstance(since, str) else None,
            at=self.where(request),
        )

    def static_html(self) -> str:
        try:
            page = self.pages.page(limit=STATIC_ROWS, at=self.at or None)
        except HeadwaterError as error:
            return f"<div>{html.escape(str(error))}</div>"
        return render(
            columns=[column["name"] for column in page["columns"]],
            types=[column["type"] for column in page["columns"]],
            rows=[tuple(row) for row in page["rows"]],
            total=int(page["total"]),
            shown=len(page["rows"]),
            position=int(page["position"]),
        )

    def __repr__(self) -> str:
        return f"<live table of {' '.join(self._sql.split())!r}>"


class WatchPanel(TablePanel):
    """The panel of one ``lake.watch(...)``; closed with it."""

    def __init__(self, watch: Watch) -> None:
        # Weak: the panel lives as long as the page shows it, the watch as long as somebody holds it.
        self._watch = weakref.ref(watch)
        super().__init__(Pages(watch.lake, watch.query), sql=watch.query, interval=watch.interval)

    def answer(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        watch = self._watch()
        if watch is not None and watch.closed:
            self.closed = True
            return {"closed": True}
        return super().answer(op, request)


_panels: weakref.WeakKeyDictionary[Watch, WatchPanel] = weakref.WeakKeyDictionary()


def for_watch(watch: Watch) -> WatchPanel:
    """The panel that shows a ``lake.watch(...)``: made once, however often the watch is shown."""
    panel = _panels.get(watch)
    if panel is None:
        panel = _panels[watch] = WatchPanel(watch)
    return panel


def _asked_position(request: Mapping[str, Any]) -> dict[str, str]:
    """Of an answer at ``commit:42`` the position is 42, also where the newest step of a view was published before."""
    kind, _, number = str(request.get("at")).partition(":")
    return {"position": number} if kind == "commit" and number.isdigit() else {}


def _objects(request: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = request.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise UsageError(f"{name} is a list of objects, not {json.dumps(value, default=str)[:80]}")
    return value


def _object(request: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = request.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise UsageError(f"{name} is an object or null, not {json.dumps(value, default=str)[:80]}")
    return value


def _whole(request: Mapping[str, Any], name: str, default: int) -> int:
    value = request.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{name} is a whole number, not {json.dumps(value, default=str)[:80]}")
    return value


def _sentence(error: HeadwaterError) -> str:
    place = f" ({error.where})" if error.where else ""
    text = f"{error.what}{place}"
    return text if text.endswith((".", "?", "!")) else f"{text}."
