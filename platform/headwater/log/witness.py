"""What was true of the catalog, kept beside it: an older catalog copied over a newer one is seen when it is opened.

    run/witness.json    incarnation, newest commit, sum of all epochs, as of the last seal or the end of a writer

A catalog is never behind its witness: the witness is written after what it tells is durable. A whole folder that
was copied back by hand has its old witness in it: only a root kept elsewhere tells (see ``chain_witness``).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import bindparam, func, select

from headwater.catalog import tables
from headwater.catalog.catalog import Catalog
from headwater.catalog.prepared import Prepared
from headwater.errors import CatalogError
from headwater.storage.local import put_durably

FILE = "run/witness.json"

_TRUE = Prepared(
    select(
        select(tables.setting.c.value)
        .where(tables.setting.c.name == bindparam("setting"))
        .scalar_subquery()
        .label("name"),
        select(func.max(tables.commit.c.number)).scalar_subquery().label("newest"),
        select(func.sum(tables.producer.c.epoch)).scalar_subquery().label("epochs"),
    )
)


@dataclass(frozen=True, kw_only=True)
class Witness:
    incarnation: str
    commit: int
    epochs: int


def of(catalog: Catalog) -> Witness:
    """What is true now."""
    with catalog.read() as connection:
        found = _TRUE.first(connection, {"setting": "incarnation"})
    return Witness(incarnation=found.name or "", commit=found.newest or 0, epochs=found.epochs or 0)


def write(catalog: Catalog) -> None:
    """Durable when this returns."""
    put_durably(catalog.folder / FILE, json.dumps(asdict(of(catalog))).encode())


def read(folder: Path) -> Witness | None:
    """The stored one; None where there is none, or none that can be read: it is a helper, not a truth."""
    try:
        return Witness(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def require_newer(catalog: Catalog) -> None:
    """CatalogError when the catalog is behind its witness, or of another incarnation."""
    stored = read(catalog.folder)  # first: the catalog only grows meanwhile
    if stored is None:
        return
    found = of(catalog)
    if found.incarnation == stored.incarnation and found.commit >= stored.commit and found.epochs >= stored.epochs:
        return
    what = f"it ends at commit {found.commit}, and commit {stored.commit} was here"
    if found.incarnation != stored.incarnation:
        what = "it belongs to another copy of this lake"
    elif found.commit >= stored.commit:
        what = "writers were here that it does not know"
    raise CatalogError(
        f"the catalog is older than this folder: {what}",
        where=str(catalog.folder),
        todo="Put the right catalog.sqlite and its -wal back, or restore a backup into a new folder. To go on from "
        "the older one, and lose what came after it, run `headwater restore --accept-older`.",
    )
