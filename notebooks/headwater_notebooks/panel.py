"""Live panels: one widget class per panel, a hand-written ES module beside it, and a kernel that only answers.

The page in the browser asks, one request at a time; a panel never sends by itself, holds no thread and no
rows. So it works while a cell runs (JupyterLab hands requests to another thread), pauses by not being asked,
and ends with the page that asks.
"""

from __future__ import annotations

import base64
import importlib.resources
import json
import uuid
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import anywidget
import duckdb
import traitlets

from headwater import Lake
from headwater import position as positions
from headwater.errors import HeadwaterError, UsageError
from headwater.position import Position

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_UNEXPECTED = {"what": "The panel failed to answer.", "todo": "The kernel's log has the reason."}


_PACKED = """// Packed: what the page unpacks here is plain text, pull.js, frame.js and the panel's own module.
const bytes = Uint8Array.from(atob("{packed}"), (letter) => letter.charCodeAt(0));
const text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
const address = URL.createObjectURL(new Blob([text], {{ type: "text/javascript" }}));
const module = await import(address);
URL.revokeObjectURL(address);
export default module.default;
"""


def _packed(text: str) -> str:
    """A module of a third of the size: every panel brings its own to the page, and a saved widget state keeps it."""
    lines = (line.strip() for line in text.splitlines())
    bare = "\n".join(line for line in lines if line and not line.startswith("//"))
    return _PACKED.format(packed=base64.b64encode(zlib.compress(bare.encode(), 9)).decode())


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
    query = ""
    """The SELECT that is answered, if it is one."""
    _shipped: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        if "module" in cls.__dict__:  # not for the class that anywidget makes of each instance: its are traits
            cls._esm = _text("pull.js") + _text("frame.js") + _text(f"{cls.module}.js")
            cls._shipped = _packed(cls._esm)
            cls._css = _text("frame.css") + _text(f"{cls.module}.css")
        super().__init_subclass__(**options)

    closed = False

    def __init__(self, **traits: Any) -> None:
        super().__init__(_esm=self._shipped, **traits)
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
            if self.lake is not None and self.query and request.get("newest"):
                self.lake.seen(self.query)  # refuses what asking without a position would: a view that stands still
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
            bundle[WIDGET_VIEW] = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return bundle, {}


def linked(panels: Sequence[Panel]) -> None:
    """Let these turn together, with what the first link among them holds already."""
    name = next((panel._link for panel in panels if panel._link), "") or uuid.uuid4().hex
    for panel in panels:
        panel._link = name


def _asked_position(request: Mapping[str, Any]) -> dict[str, str]:
    """Of an answer at ``commit:42`` the position is 42, also where the newest step of a view was published before."""
    kind, _, number = str(request.get("at")).partition(":")
    return {"position": number} if kind == "commit" and number.isdigit() else {}


def _sentence(error: HeadwaterError) -> str:
    place = f" ({error.where})" if error.where else ""
    text = f"{error.what}{place}"
    return text if text.endswith((".", "?", "!")) else f"{text}."
