"""What lies between a source and a view, as one graph: where each part stands, its lag, what went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headwater.config import Slo
from headwater.lake.html import render
from headwater.lake.plain import plain_table
from headwater.lake.shown import panel_of
from headwater.lake.status import status

if TYPE_CHECKING:
    from headwater.lake.lake import Lake

Level = Literal["good", "warn", "bad", "idle"]
_BAD = ("error", "failed", "stale")
_IDLE = ("stopped", "paused", "creating", "waiting", "copying", "filling", "dropped")
_LIMITS = Slo()
_COLUMNS = ("what", "name", "state", "position", "lag ms", "rows", "rows/s", "trouble")
_TYPES = ("VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", "BIGINT", "BIGINT", "BIGINT", "VARCHAR")


@dataclass(frozen=True, kw_only=True)
class Node:
    """A source, topic, view or job. ``reads``: ids of the nodes that feed it; ``unread``: of a source, its topics that
    no view or job reads, which are not drawn. ``position``: an LSN of a source, else an input commit."""

    kind: Literal["source", "topic", "view", "job"]
    name: str
    state: str
    level: Level
    reads: tuple[str, ...] = ()
    position: str | None = None
    lag_ms: float | None = None
    rows: int | None = None
    rows_per_s: float | None = None
    trouble: str | None = None
    unread: int = 0

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.name}"


class Pipeline:
    """The graph of a lake, read anew each time it is asked for. In a notebook it shows itself as a live panel."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._lineage: tuple[tuple[int, ...], dict[str, list[str]]] = ((), {})

    def nodes(self) -> list[Node]:
        """Sources, the topics that are read, views and jobs; what feeds another comes before it."""
        now = status(self.lake.log)
        reads = {f"view:{name}": each for name, each in self._read().items()}
        reads |= {f"job:{row['name']}": row["inputs"] for row in now["jobs"]}
        return list(_nodes(now, reads))

    def _read(self) -> dict[str, list[str]]:
        """What each view reads: asked again when the views are others, for that takes the compiler."""
        ids = tuple(view.id for view in self.lake.views())
        if self._lineage[0] != ids:
            self._lineage = (ids, self.lake.lineage())
        return self._lineage[1]

    def __str__(self) -> str:
        rows = [_row(node) for node in self.nodes()]
        return plain_table(_COLUMNS, _TYPES, rows, len(rows), self.lake.position())

    def __repr__(self) -> str:
        return str(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """The live panel where the notebook package is present, else a static table."""
        if (panel := panel_of(self, "pipeline")) is not None:
            return panel._repr_mimebundle_(include=include, exclude=exclude)
        return {"text/plain": str(self), "text/html": self.static_table(self.nodes())}

    def static_table(self, nodes: Sequence[Node]) -> str:
        """These nodes as HTML, readable without JavaScript."""
        rows = [_row(node) for node in nodes]
        return render(_COLUMNS, _TYPES, rows, len(rows), len(rows), self.lake.position())


def _nodes(now: Mapping[str, Any], reads: Mapping[str, Sequence[str]]) -> Iterator[Node]:
    views = {f"views.{row['name']}": f"view:{row['name']}" for row in now["views"]}
    outputs = {row["output"]: f"job:{row['name']}" for row in now["jobs"]}
    named = {**views, **outputs}
    read = {name for each in reads.values() for name in each}
    sources = {row["name"] for row in now["sources"]}
    plain = [row for row in now["topics"] if row["kind"] not in ("changelog", "system") and row["name"] not in named]
    shown = [row for row in plain if row["name"] in read or row["name"].split(".")[0] not in sources]
    for row in now["sources"]:
        unread = sum(each["name"].split(".")[0] == row["name"] and each not in shown for each in plain)
        yield _source(row, unread)
    for row in shown:
        source = row["name"].split(".")[0]
        yield _topic(row, (f"source:{source}",) if source in sources else ())
    ids = named | {row["name"]: f"topic:{row['name']}" for row in shown}
    for kind in ("view", "job"):
        for row in now[f"{kind}s"]:
            fed = tuple(dict.fromkeys(ids[each] for each in reads.get(f"{kind}:{row['name']}", ()) if each in ids))
            yield _worked(kind, row, fed)


def _source(row: Mapping[str, Any], unread: int) -> Node:
    return Node(
        kind="source",
        name=row["name"],
        state=row["state"],
        level=_level(row["state"], row["lag_ms"], row["error"] or row["slot_warning"]),
        position=row["confirmed_lsn"],
        lag_ms=row["lag_ms"] if row["state"] == "streaming" else None,
        rows=row["rows"],
        rows_per_s=row["rows_per_s"],
        trouble=row["error"] or row["slot_warning"],
        unread=unread,
    )


def _topic(row: Mapping[str, Any], reads: tuple[str, ...]) -> Node:
    letters = row["dead_letters"]["open"]
    trouble = row["reason"] or (f"{letters:,} dead letters" if letters else None)
    level: Level = "bad" if row["state"] != "live" else "warn" if letters else "good"
    return Node(
        kind="topic",
        name=row["name"],
        state=row["state"],
        level=level,
        reads=reads,
        rows=row["records"],
        trouble=trouble,
    )


def _worked(kind: Any, row: Mapping[str, Any], reads: tuple[str, ...]) -> Node:
    """A view or a job: both take commits in."""
    at = row["input_commit"]
    return Node(
        kind=kind,
        name=row["name"],
        state=row["state"],
        level=_level(row["state"], row["lag_ms"], row["reason"]),
        reads=reads,
        position=None if at is None else str(at),
        lag_ms=row["lag_ms"],
        rows=row["rows"],
        rows_per_s=row["rows_per_s"],
        trouble=row["reason"],
    )


def _level(state: str, lag_ms: float | None, trouble: str | None) -> Level:
    late = 0.0 if lag_ms is None else lag_ms / 1e3
    if state in _BAD or (state == "paused" and trouble and trouble != "paused by hand"):
        return "bad"
    if state in _IDLE:
        return "idle"
    if late > _LIMITS.lag_error_s:
        return "bad"
    return "warn" if trouble or late > _LIMITS.lag_warn_s else "good"


def _row(node: Node) -> tuple[str | None, ...]:
    numbers = (node.lag_ms, node.rows, node.rows_per_s)
    shown = (None if each is None else str(round(each)) for each in numbers)
    return (node.kind, node.name, node.state, node.position, *shown, node.trouble)
