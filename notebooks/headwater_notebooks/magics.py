"""The magics: ``%%hw`` (``%%sql``), ``%%hwview`` (``%%view``), ``%hwexplain``, ``%headwater``, ``%hwstatus``."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

from IPython.core.magic import Magics, cell_magic, line_cell_magic, line_magic, magics_class

from headwater import Lake, Result, Watch
from headwater.errors import (
    DuplicateName,
    HeadwaterError,
    NameNotFound,
    NotYet,
    PipelineError,
    SchemaError,
    UsageError,
)
from headwater.lake.html import render
from headwater.lake.params import now
from headwater.lake.plain import plain_table
from headwater.log.names import near
from headwater_notebooks import cell as cells
from headwater_notebooks.failure import with_sql
from headwater_notebooks.session import Session
from headwater_pipelines import api

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from headwater_notebooks.completion import Completion
    from headwater_pipelines.compiler.explain import Explain

WAIT_LIVE_S: Final = 10.0
"""How long ``%%view`` waits for the first rows: a small view takes a second, a large one goes on by itself."""
_WORKER_FRESH_S: Final = 5.0
_MEND: Final = (
    "Mend the rows, or the SELECT and run the cell with --replace;"
    " `WITH (on_error = 'null') AS` before it takes what fails as NULL, 'dead_letter' sets the row aside."
)
_VIEW_LINE: Final = re.compile(r"\s*(?P<name>[^\W\d]\w*)?\s*(?P<replace>--replace)?\s*")


@magics_class
class HeadwaterMagics(Magics):
    """SQL over a headwater lake in notebook cells."""

    completion: Completion
    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell, session: Session) -> None:
        super().__init__(shell)
        self.session = session

    @line_cell_magic
    def hw(self, line: str, cell: str | None = None) -> Result | Watch | None:
        """Run one SELECT over the lake: ``%%hw [NAME <<] [--at POSITION] [--limit ROWS | --live]``, the SQL below.

        ``NAME <<`` keeps the result in a variable instead of showing it. ``:name`` in the SQL is the value of
        the notebook's variable, bound and never pasted; of an ipywidgets control, what it is set to. ``--at`` takes
        commit:N, a timestamp, "5 minutes ago", lsn:X/Y, tag:NAME or latest. ``--limit`` says how many rows to show
        (20); the result has them all: ``.pl()``, ``.df()``, ``.arrow()``. ``--live`` shows a table that follows the
        lake, and controls that are turned.
        """
        namespace = self.shell.user_ns
        sql = cell if cell is not None else line
        try:
            asked = cells.read(line, cell, namespace)
            sql = asked.sql if not asked.params else sql
            result = self._ask(asked)
        except HeadwaterError as error:
            raise with_sql(error, sql)  # noqa: B904 (the same error: its cause says where in the SQL)
        if asked.assign is None:
            return result
        self.shell.push({asked.assign: result})
        return None

    def _ask(self, asked: cells.Cell) -> Result | Watch:
        lake = self.session.lake
        result = lake.sql(asked.sql, at=_position(asked.at), params=now(asked.params) or None)  # a mistake shows here
        if asked.live:
            place = lake if asked.at is None else lake.at(_position(asked.at))
            return place.watch(asked.sql, params=asked.params)
        if asked.limit is not None:
            result.shown_rows = asked.limit
        return result

    @cell_magic
    def hwview(self, line: str, cell: str) -> Created:
        """Create a materialized view: ``%%hwview NAME [--replace]``, its SELECT below; ``%%view`` is the same.

        The SQL is checked first; what cannot be maintained is refused and nothing is created. The answer shows
        how each part is maintained. Running the same cell again changes nothing; ``--replace`` puts a changed
        definition in place of the old one.
        """
        options = _VIEW_LINE.fullmatch(line)
        if options is None:
            raise UsageError(
                f"{line.strip()!r} was not understood", todo="Write %%view NAME, and --replace if need be."
            )
        lake = self.session.lake
        name = options["name"] or ""
        if not name and not cell.lstrip().upper().startswith("CREATE"):
            raise UsageError("the view has no name", todo="Write it behind the magic, as in %%view big_orders.")
        try:
            plan = api.explain(lake, cell, name=name)
            made = _replace(lake, cell, plan.name) if options["replace"] else _create(lake, cell, name)
        except HeadwaterError as error:
            raise with_sql(error, cell)  # noqa: B904
        return Created(name=made, plan=plan, state=_wait_live(lake, made))

    @line_cell_magic
    def hwexplain(self, line: str, cell: str | None = None) -> Explain:
        """How a view is maintained, as a diagram: ``%hwexplain NAME``, or ``%%hwexplain`` and a SELECT below.

        Of a view that runs, each stored node says how many rows it holds and what the last step spent on it.
        Nothing is created.
        """
        if cell is not None and line.strip():
            raise UsageError(f"{line.strip()!r} was not understood", todo="The SELECT begins in the next line.")
        sql = line.strip() if cell is None else cell
        if not sql.strip():
            raise UsageError(
                "nothing to explain", todo="Write %hwexplain and a view's name, or %%hwexplain and a SELECT."
            )
        lake = self.session.lake
        if cell is None and not any(view.name == sql for view in lake.views()):
            raise NameNotFound(f"there is no view {sql}", suggestions=near(sql, [view.name for view in lake.views()]))
        try:
            return api.explain(lake, sql)
        except HeadwaterError as error:
            raise with_sql(error, sql)  # noqa: B904

    @line_magic
    def headwater(self, line: str) -> Lake:
        """Choose the lake for the magics and return it: ``lake = %headwater [PATH]``.

        PATH is a project (a folder with headwater.toml) or a lake folder. Without one: the chosen lake, else
        HEADWATER_PROJECT, else the nearest headwater.toml upwards.
        """
        path = line.strip().strip("\"'")
        return self.session.choose(path) if path else self.session.lake

    @line_magic
    def hwstatus(self, line: str) -> Status:
        """What runs and how far it is: sources and views with position, lag and rate."""
        if line.strip():
            raise UsageError("%hwstatus takes nothing", todo="Choose a lake with %headwater PATH.")
        return Status.of(self.session.lake)


@dataclass(frozen=True)
class Created:
    """What ``%%view`` did: the plan as a diagram, or as text, and the view's state below."""

    name: str
    plan: Explain
    state: str

    def __repr__(self) -> str:
        return f"{str(self.plan).rstrip()}\n\nview {self.name}: {self.state}"

    def _repr_html_(self) -> str:
        said = f"view {escape(self.name)}: {escape(self.state)}"
        return f'{self.plan._repr_html_()}<div style="font-size: 13px; padding-top: 6px">{said}</div>'


@dataclass(frozen=True)
class Status:
    """Sources and views of a lake, as a table."""

    columns: Sequence[str]
    rows: Sequence[tuple[str | None, ...]]
    position: int

    @classmethod
    def of(cls, lake: Lake) -> Status:
        found = lake.status()
        rows = [_status_row("source", each, each["position"]) for each in found["sources"]]
        rows += [_status_row("view", each, each["input_commit"]) for each in found["views"]]
        return cls(("what", "name", "state", "position", "lag ms", "rows", "rows/s"), rows, int(found["position"]))

    @property
    def types(self) -> list[str]:
        return ["VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", "BIGINT", "BIGINT", "BIGINT"]

    def __repr__(self) -> str:
        return plain_table(self.columns, self.types, self.rows, len(self.rows), self.position)

    def _repr_html_(self) -> str:
        return render(self.columns, self.types, self.rows, len(self.rows), len(self.rows), self.position)


def _status_row(what: str, found: dict[str, Any], position: object) -> tuple[str | None, ...]:
    values = (found["name"], found["state"], position, found["lag_ms"], found["rows"], found["rows_per_s"])
    return (
        what,
        *(None if value is None else str(round(value)) if isinstance(value, float) else str(value) for value in values),
    )


def _position(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.isdigit() else text


def _create(lake: Lake, sql: str, name: str) -> str:
    """Create the view, or find that it is there already with this very SQL."""
    try:
        return api.create_view(lake, sql, name=name).name
    except DuplicateName as error:
        from headwater_pipelines.compiler import parse

        definition = parse(sql, name=name)
        if {view.name: view.sql for view in lake.views()}.get(definition.name) == definition.query:
            return definition.name
        error.todo = f"Write %%view {definition.name} --replace to put this definition in its place."
        raise


def _replace(lake: Lake, sql: str, name: str) -> str:
    """Put the definition in the view's place. With other columns that is a new view, unless others read it."""
    if name not in {view.name for view in lake.views()}:
        return _create(lake, sql, name)
    try:
        return api.replace_view(lake, sql, name=name).name
    except SchemaError:
        if api.dependents(lake, name):
            raise
        api.drop_view(lake, name)
        return _create(lake, sql, name)


def _wait_live(lake: Lake, name: str) -> str:
    """Wait for the view's first rows as long as a worker is there to make them; what to say about it."""
    live = lake.log.live.read().get("pipeline:main")
    if live is None or time.time() - live.beat_at > _WORKER_FRESH_S:
        return (
            "created; it fills once a worker runs: `headwater up`, or in the demo Dagster, which takes a while to start"
        )
    try:
        lake.wait(f"views.{name}", seconds=WAIT_LIVE_S)
    except PipelineError:
        view = next((new for new in lake.log.replacements() if new.name == name), lake.log.view(name))
        return f"{view.state}: {view.reason}. {_MEND}"
    except (NotYet, KeyboardInterrupt):  # whoever is impatient ends the waiting, not the view
        return "being filled; `%hwstatus` shows how far it is"
    rows = lake.view(name).rows
    return f"live, {rows:,} {'row' if rows == 1 else 'rows'} at position {lake.position():,}"
