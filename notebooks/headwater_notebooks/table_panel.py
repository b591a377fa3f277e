"""The live table of a query: its answer or what changed in it, page by page, sorted, filtered and searched."""

from __future__ import annotations

import html
import json
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

import traitlets

from headwater import Watch
from headwater.errors import HeadwaterError, UsageError
from headwater.lake.filters import COMPARISONS
from headwater.lake.html import render
from headwater.lake.params import is_control
from headwater_notebooks.page_plan import Wish
from headwater_notebooks.pages import Pages, PageSource
from headwater_notebooks.panel import Panel

STATIC_ROWS: Final = 20
"""Rows of the form without JavaScript, which a saved notebook keeps."""
SELECTED_MAX: Final = 100
"""Rows that can be chosen at once: they travel with every change of the choice."""
_OPERATORS: Final = ("contains", "null", "not null", *COMPARISONS)


class TablePanel(Panel):
    """A table of a query's answer that follows the lake: page, sort, filter, search, pause.

    ``filters`` (``{"column", "op", "value"}`` each), ``sort`` (``{"column", "descending"}`` each), ``search`` and
    ``show`` (``state`` or ``log``) work both ways: set them, and the page shows it; what a person does is in them.
    ``selection`` is the chosen rows, of each its cells as text (None is NULL) by column, as they were when it was
    chosen; set it, and rows with that key, or without a key with those cells, are marked.

    Args:
        pages: where rows come from.
        sql: shown to the reader, never run from here.
        interval: seconds between two requests while something changes.
        page_rows: rows of one page.
        params: the query's parameters; of those that are ipywidgets controls each turn asks anew.
    """

    module = "table_panel"

    filters = traitlets.List(traitlets.Dict()).tag(sync=True)
    sort = traitlets.List(traitlets.Dict()).tag(sync=True)
    search = traitlets.Unicode("").tag(sync=True)
    show = traitlets.Enum(["state", "log"], "state").tag(sync=True)
    selection = traitlets.List(traitlets.Dict(), maxlen=SELECTED_MAX).tag(sync=True)
    _turned = traitlets.Int(0).tag(sync=True)
    _sql = traitlets.Unicode().tag(sync=True)
    _interval_ms = traitlets.Int(500).tag(sync=True)
    _page_rows = traitlets.Int(50).tag(sync=True)

    def __init__(
        self,
        pages: PageSource,
        *,
        sql: str = "",
        interval: float = 0.5,
        page_rows: int = 50,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self.pages = pages
        self.lake = getattr(pages, "lake", None)
        self.query = getattr(pages, "query", "")
        super().__init__(_sql=sql, _interval_ms=max(100, round(interval * 1000)), _page_rows=page_rows)
        for control in filter(is_control, (params or {}).values()):
            _follow(control, self)

    @traitlets.validate("filters")
    def _check_filters(self, proposal: Mapping[str, Any]) -> list[dict[str, str]]:
        for each in proposal["value"]:
            if each.keys() - {"column", "op", "value"} or each.get("op") not in _OPERATORS or "column" not in each:
                raise traitlets.TraitError(
                    f"{json.dumps(each, default=str)[:80]} is no filter; write as"
                    f" {{'column': 'id', 'op': '>', 'value': '10'}}, op one of {', '.join(_OPERATORS)}"
                )
        return [{name: str(value) for name, value in each.items()} for each in proposal["value"]]

    @traitlets.validate("sort")
    def _check_sort(self, proposal: Mapping[str, Any]) -> list[dict[str, Any]]:
        for each in proposal["value"]:
            if each.keys() - {"column", "descending"} or "column" not in each:
                raise traitlets.TraitError(
                    f"{json.dumps(each, default=str)[:80]} is no sort column; write as"
                    " {'column': 'id', 'descending': True}"
                )
        return [
            {"column": str(each["column"]), "descending": bool(each.get("descending"))} for each in proposal["value"]
        ]

    def answer(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if op not in ("page", "sql"):
            return super().answer(op, request)
        show, of = str(request.get("show") or "state"), _texts(request, "of")
        wish = _wish(request, self._page_rows)
        if op == "sql":
            return {"sql": self.pages.text(wish, show=show, of=of, at=self.at), "version": "", "unchanged": True}
        since = request.get("since_version")
        version = since if isinstance(since, str) else None
        return self.pages.page(wish, show=show, of=of, since_version=version, at=self.where(request))

    def static_html(self) -> str:
        wish = Wish(filters=self.filters, sort=self.sort, search=self.search, limit=STATIC_ROWS)
        try:
            page = self.pages.page(wish, show=self.show, at=self.at or None)
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
        pages = Pages(watch.lake, watch.query, watch.params)
        super().__init__(pages, sql=watch.query, interval=watch.interval, params=watch.params)

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


def _follow(control: Any, panel: TablePanel) -> None:
    """Tell the page whenever the control is turned. The control does not keep the panel alive."""
    known = weakref.ref(panel)

    def turned(_: object) -> None:
        panel = known()
        if panel is not None:
            panel._turned += 1

    control.observe(turned, "value")
    weakref.finalize(panel, control.unobserve, turned, "value").atexit = False


def _wish(request: Mapping[str, Any], page_rows: int) -> Wish:
    key = request.get("key")
    search = request.get("search", "")
    if key is not None and not isinstance(key, Mapping):
        raise UsageError(f"key is an object or null, not {_told(key)}")
    if not isinstance(search, str):
        raise UsageError(f"search is a text, not {_told(search)}")
    return Wish(
        sort=_objects(request, "sort"),
        filters=_objects(request, "filters"),
        search=search,
        key=key,
        backwards=bool(request.get("backwards")),
        limit=_whole(request, "limit", page_rows),
    )


def _objects(request: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = request.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise UsageError(f"{name} is a list of objects, not {_told(value)}")
    return value


def _texts(request: Mapping[str, Any], name: str) -> Sequence[str | None] | None:
    value = request.get(name)
    if value is not None and not (isinstance(value, list) and all(isinstance(each, str | None) for each in value)):
        raise UsageError(f"{name} is a list of texts or null, not {_told(value)}")
    return value


def _whole(request: Mapping[str, Any], name: str, default: int) -> int:
    value = request.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{name} is a whole number, not {_told(value)}")
    return value


def _told(value: object) -> str:
    return json.dumps(value, default=str)[:80]
