"""Views and pipeline steps in the catalog."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from headwater.catalog import tables
from headwater.catalog.records import MAX_COMMIT, Step, View, to_datetime
from headwater.errors import DuplicateName, TopicChanged
from headwater.log import topics

# Built once: every read of a view asks for the last step.
_STEPS = select(tables.step, tables.view_set.c.views).join(
    tables.view_set, tables.step.c.view_set == tables.view_set.c.id
)
_LAST_STEP = (
    _STEPS.where(tables.step.c.publish_commit <= bindparam("at")).order_by(tables.step.c.publish_commit.desc()).limit(1)
)


def read(connection: Connection, at: int | None = None) -> list[View]:
    """Views at a commit; a view's changelog is the topic ``views.<name>`` created after it."""
    view = tables.view
    query = select(view)
    if at is None:
        query = query.where(view.c.dropped.is_(None), view.c.created < MAX_COMMIT)
    else:
        query = query.where(view.c.created <= at, view.c.dropped.is_(None) | (view.c.dropped > at))
    known = {topic.name for topic in topics.read(connection, at)}
    return [_view(row, known) for row in connection.execute(query.order_by(view.c.id))]


def replacements(connection: Connection) -> list[View]:
    """Definitions that have not taken the place of their views yet; of each view at most one."""
    view = tables.view
    query = select(view).where(view.c.dropped.is_(None), view.c.created == MAX_COMMIT)
    return [_view(row, set()) for row in connection.execute(query.order_by(view.c.id))]


def create(connection: Connection, name: str, sql: str, options: dict[str, Any]) -> View:
    _require_free(connection, name)
    return _insert(connection, name, sql, options, created=_newest(connection))


def replace(connection: Connection, old: View, name: str, sql: str, options: dict[str, Any]) -> View:
    """Register what shall take the place of ``old``, under its name or another; one registered before is forgotten.

    It becomes visible, and ``old`` ends, in the commit that publishes its rows (see ``take_place``).
    """
    if name != old.name:
        _require_free(connection, name)
    _forget_replacements(connection, old)
    return _insert(connection, name, sql, options, created=MAX_COMMIT, replaces=old.id)


def take_place(connection: Connection, new: View, commit: int) -> None:
    """The replaced view ends and its replacement begins with ``commit``.

    TopicChanged when the replacement was forgotten meanwhile: its rows must not be published.
    """
    view = tables.view
    waiting = (view.c.id == new.id) & view.c.dropped.is_(None) & (view.c.created == MAX_COMMIT)
    begun = update(view).where(waiting).values(created=commit, state="live", reason="")
    if connection.execute(begun).rowcount != 1:
        raise TopicChanged(f"the replacement of view {new.name} was taken back", todo="It is left out when repeated.")
    connection.execute(update(view).where(view.c.id == new.replaces).values(dropped=commit))
    topics.bump_generation(connection, commit)


def _require_free(connection: Connection, name: str) -> None:
    view = tables.view
    taken = select(view.c.id).where(view.c.name == name, view.c.dropped.is_(None))
    if connection.execute(taken).first() is not None:
        raise DuplicateName(
            f"view {name} exists already",
            todo="Replace it with `headwater view replace`, drop it first, or choose another name.",
        )


def _insert(connection: Connection, name: str, sql: str, options: dict[str, Any], **values: int) -> View:
    view = tables.view
    said = {"name": name, "sql": sql, "options": json.dumps(options), "state": "creating"}
    row = connection.execute(view.insert().values(**said, **values).returning(*view.c)).one()
    topics.bump_generation(connection, _newest(connection))
    return _view(row, set())


def _forget_replacements(connection: Connection, old: View) -> None:
    """The rows stay, so that their ids are never given again; no position shows them."""
    view = tables.view
    mine = (view.c.replaces == old.id) & (view.c.created == MAX_COMMIT) & view.c.dropped.is_(None)
    connection.execute(update(view).where(mine).values(dropped=_newest(connection)))


def withdraw(connection: Connection, new: View) -> None:
    """Forget a replacement that has not taken its place yet; one that has stays."""
    view = tables.view
    mine = (view.c.id == new.id) & (view.c.created == MAX_COMMIT)
    connection.execute(update(view).where(mine).values(dropped=_newest(connection)))
    topics.bump_generation(connection, _newest(connection))


def drop(connection: Connection, view: View) -> None:
    newest = _newest(connection)
    _forget_replacements(connection, view)
    mine = tables.view.c.id == view.id
    connection.execute(update(tables.view).where(mine).values(dropped=newest + 1))
    own = tables.topic.c.name.in_([f"views.{view.name}", f"views.{view.name}.late"]) & tables.topic.c.dropped.is_(None)
    connection.execute(update(tables.topic).where(own).values(dropped=newest + 1))
    topics.bump_generation(connection, newest)


def set_state(connection: Connection, view: View, state: str, reason: str) -> None:
    connection.execute(update(tables.view).where(tables.view.c.id == view.id).values(state=state, reason=reason))
    topics.bump_generation(connection, _newest(connection))


def set_options(connection: Connection, view: View, options: dict[str, Any]) -> None:
    changed = update(tables.view).where(tables.view.c.id == view.id).values(options=json.dumps(options))
    connection.execute(changed)
    topics.bump_generation(connection, _newest(connection))


def steps(connection: Connection, after: int = 0, upto: int | None = None) -> list[Step]:
    query = _STEPS.where(tables.step.c.number > after)
    if upto is not None:
        query = query.where(tables.step.c.number <= upto)
    return [_step(row) for row in connection.execute(query.order_by(tables.step.c.number))]


def last_step(connection: Connection, at: int | None = None) -> Step | None:
    row = connection.execute(_LAST_STEP, {"at": MAX_COMMIT if at is None else at}).one_or_none()
    return None if row is None else _step(row)


def newest_common_step(connection: Connection, views: frozenset[int], at: int) -> Step | None:
    """The newest step published at or before ``at`` that refreshed all of ``views``."""
    last = last_step(connection, at)
    if last is None or views <= last.views:  # nearly always: only a view that stands still is not in it
        return last
    sets = connection.execute(select(tables.view_set)).all()
    wanted = [row.id for row in sets if views <= _ids(row.views)]
    query = _STEPS.where(tables.step.c.view_set.in_(wanted), tables.step.c.publish_commit <= at)
    row = connection.execute(query.order_by(tables.step.c.publish_commit.desc()).limit(1)).one_or_none()
    return None if row is None else _step(row)


def _step(row: Any) -> Step:
    return Step(
        number=row.number,
        input_commit=row.input_commit,
        publish_commit=row.publish_commit,
        instant=to_datetime(row.instant),
        views=_ids(row.views),
        watermarks=Step.watermarks_of(row.watermarks),
    )


def _view(row: Any, known: set[str]) -> View:
    changelog = f"views.{row.name}"
    return View(
        id=row.id,
        name=row.name,
        sql=row.sql,
        options=json.loads(row.options),
        state=row.state,
        reason=row.reason,
        topic=changelog if changelog in known else None,
        created=row.created,
        dropped=row.dropped,
        replaces=row.replaces if row.created == MAX_COMMIT else None,
    )


def _ids(text: str) -> frozenset[int]:
    return frozenset(int(part) for part in text.split(",") if part)


def _newest(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(tables.commit.c.number), 0))).scalar_one())
