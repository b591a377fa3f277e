"""One maintained view in a person's hand: what it is, how far it is, and what can be done with it.

Definitions are the pipelines package's, which gives its functions by the entry point ``headwater.views``; without it
views can be read, and not changed.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from headwater.errors import HeadwaterError, NameNotFound, NotYet, UsageError
from headwater.lake import waiting
from headwater.lake.html import render_table
from headwater.lake.plain import lines
from headwater.types import quote

if TYPE_CHECKING:
    from headwater.catalog.records import View
    from headwater.lake.lake import Lake
    from headwater.lake.result import Result
    from headwater.lake.watch import Watch
    from headwater.position import Position
    from headwater.schema import Schema


class Definitions(Protocol):
    """What the pipelines package can do with definitions; each takes the lake first."""

    def create_view(self, lake: Lake, sql: str, *, name: str = "") -> View: ...
    def replace_view(self, lake: Lake, sql: str, *, name: str = "") -> View: ...
    def rename_view(self, lake: Lake, name: str, to: str) -> View: ...
    def drop_view(self, lake: Lake, name: str, *, cascade: bool = False) -> list[str]: ...
    def pause_view(self, lake: Lake, name: str, reason: str = "paused by hand") -> None: ...
    def resume_view(self, lake: Lake, name: str) -> None: ...
    def refresh_view(self, lake: Lake, name: str) -> None: ...
    def explain(self, lake: Lake, sql: str, *, name: str = "") -> Any: ...
    def column_lineage(self, lake: Lake) -> dict[str, dict[str, list[str]]]: ...


def api() -> Definitions:
    """The pipelines package's functions. HeadwaterError where it is not installed."""
    for entry in entry_points(group="headwater.views"):
        found: Definitions = entry.load()
        return found
    raise HeadwaterError("views cannot be defined here", todo="Install headwater with its pipelines package.")


class ViewHandle:
    """A view by its name. Everything is asked anew each time; NameNotFound once it is dropped.

    ``status`` is its object in ``headwater status --json``: state, rows written, lag, state size, step times.
    """

    def __init__(self, lake: Lake, name: str) -> None:
        self.lake = lake
        self.name = name

    # ---- what it is

    @property
    def record(self) -> View:
        """The definition as the catalog holds it."""
        return self.lake.log.view(self.name)

    @property
    def sql(self) -> str:
        """Its SELECT."""
        return self.record.sql

    @property
    def state(self) -> str:
        """creating, live, waiting, paused, failed; stopped where nothing runs that maintains it."""
        return str(self.status["state"])

    @property
    def reason(self) -> str | None:
        """Why it is paused, waiting or failed."""
        return self.record.reason or None

    @property
    def schema(self) -> Schema:
        """Its columns, their types and its key. NotYet before its first step."""
        if self.record.topic is None:
            raise NotYet(f"view {self.name} has not been published yet", todo="Wait for it: `view.wait()`.")
        return self.lake.describe(f"views.{self.name}")

    @property
    def status(self) -> dict[str, Any]:
        """What its worker said of it last."""
        for row in self.lake.status()["views"]:
            if row["name"] == self.name:
                return dict(row)
        raise NameNotFound(f"there is no view {self.name}")

    @property
    def lag_s(self) -> float | None:
        """How many seconds it is behind what was captured; None where that is not known."""
        lag = self.status["lag_ms"]
        return None if lag is None else float(lag) / 1e3

    @property
    def rows(self) -> int:
        """How many rows it has now."""
        return int(self.lake.sql(f"SELECT count(*) FROM {self._quoted}").scalar())

    @property
    def reads(self) -> list[str]:
        """Full names of the topics and views that its definition reads."""
        return self.lake.lineage().get(self.name, [])

    @property
    def columns_read(self) -> dict[str, list[str]]:
        """Topic → the columns of it that the view depends on, through other views as well."""
        return api().column_lineage(self.lake).get(self.name, {})

    def explain(self) -> Any:
        """How it is maintained, node by node, with what each costs: a diagram in a notebook."""
        return api().explain(self.lake, self.name)

    # ---- its rows

    def result(self, *, at: Position = None) -> Result:
        """Its rows, now or at a position."""
        return self.lake.sql(f"SELECT * FROM {self._quoted}", at=at)

    def watch(self, *, interval: float = 0.5) -> Watch:
        """Its rows again whenever they change: in a notebook, a live table."""
        return self.lake.watch(f"SELECT * FROM {self._quoted}", interval=interval)

    def history(self, key: Any) -> Result:
        """All versions of one row, by its key (see ``Lake.history``)."""
        return self.lake.history(f"views.{self.name}", key)

    # ---- what can be done with it; each returns the handle, so that they can be chained

    def pause(self, reason: str = "paused by hand") -> ViewHandle:
        """Stop maintaining it; its rows stay readable."""
        api().pause_view(self.lake, self.name, reason)
        return self

    def resume(self) -> ViewHandle:
        """Maintain it again: it is rebuilt, and its changelog receives the difference."""
        api().resume_view(self.lake, self.name)
        return self

    def refresh(self) -> ViewHandle:
        """Bring a view with ``refresh = 'manual'`` or ``'every ...'`` up to date now. UsageError for others."""
        api().refresh_view(self.lake, self.name)
        return self

    def replace(self, sql: str) -> ViewHandle:
        """Build another definition with the same columns beside it, then put it in its place, in one commit."""
        api().replace_view(self.lake, sql, name=self.name)
        return self

    def rename(self, to: str) -> ViewHandle:
        """Give it another name with the next step; the handle goes with it."""
        api().rename_view(self.lake, self.name, to)
        return ViewHandle(self.lake, to)

    def drop(self, *, cascade: bool = False) -> list[str]:
        """End it, and with ``cascade`` the views that read it; what was dropped. Older positions stay readable."""
        return api().drop_view(self.lake, self.name, cascade=cascade)

    def wait(self, seconds: float = waiting.WAIT_S) -> ViewHandle:
        """Return once its rows can be read; a progress bar meanwhile, and an interrupt only ends the waiting.

        NotYet after ``seconds``; PipelineError when it failed or is paused.
        """
        waiting.wait(self.lake, f"views.{self.name}", seconds)
        return self

    # ---- for people

    @property
    def _quoted(self) -> str:
        return f"views.{quote(self.name)}"

    def _shown(self) -> tuple[list[str], list[str], list[tuple[str | None, ...]], str]:
        now = self.status
        facts = {
            "state": now["state"] + (f": {now['reason']}" if now["reason"] else ""),
            "behind": None if now["lag_ms"] is None else f"{now['lag_ms'] / 1e3:,.2f} s",
            "changes": f"{now['rows']:,}",
            "refresh": now["refresh"],
            "reads": ", ".join(self.reads) or None,
            "sql": " ".join(self.sql.split()),
        }
        return [f"view {self.name}", ""], ["VARCHAR", "VARCHAR"], list(facts.items()), ""

    def __repr__(self) -> str:
        heads, types, rows, _ = self._shown()
        reason = self.reason  # whole: what to do stands in it
        return "\n".join([*lines(heads, types, rows, typed=False), *([reason] if reason else [])])

    def _repr_html_(self) -> str:
        return render_table(*self._shown(), typed=False)


def handle(lake: Lake, name: str) -> ViewHandle:
    """The view of this name. NameNotFound with near names; UsageError on a lake of a past position."""
    if lake.is_pinned:
        raise UsageError(
            "a lake at a past position has no views to handle",
            todo="Take the view of the lake that `at` was called on.",
        )
    return ViewHandle(lake, lake.log.view(name.removeprefix("views.")).name)
