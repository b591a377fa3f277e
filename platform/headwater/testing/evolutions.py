"""Random schema evolutions, and a plain model of who can read what: the registry's rules from the other side.

The model knows nothing of rules. A type is a set of values, given by its extremes; a reader can read a record when
every column it has gets a value from that type's set. So "can version j read all records of version i" is asked of
values, where ``headwater.registry`` asks it of types.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from headwater.registry import Mode, Proposal
from headwater.schema import Field, Schema

_naive = datetime.fromisoformat
NAMES = ("a", "b", "c", "d", "e", "f", "g")
_SAMPLES: dict[str, tuple[Any, ...]] = {
    "TINYINT": (-128, 0, 127),
    "SMALLINT": (-(2**15), 5, 2**15 - 1),
    "INTEGER": (-(2**31), 5, 2**31 - 1),
    "BIGINT": (-(2**63), 5, 2**63 - 1),
    "UTINYINT": (0, 255),
    "USMALLINT": (0, 2**16 - 1),
    "UINTEGER": (0, 2**32 - 1),
    "FLOAT": (-1.5, 0.10000000149011612, 3.4028234663852886e38),
    "DOUBLE": (-1.5, 0.1, 1.7976931348623157e308),
    "DECIMAL(4,2)": (Decimal("-99.99"), Decimal("0.50"), Decimal("99.99")),
    "DECIMAL(9,2)": (Decimal("-9999999.99"), Decimal("0.50"), Decimal("9999999.99")),
    "DECIMAL(9,3)": (Decimal("-999999.999"), Decimal("0.125"), Decimal("999999.999")),
    "DATE": (date(1, 1, 1), date(2024, 2, 29), date(9999, 12, 31)),
    "TIMESTAMP": (_naive("0001-01-01"), _naive("2024-02-29 12:30:00.000001"), _naive("9999-12-31")),
    "VARCHAR": ("", "5", "x'y\"z"),
    "BOOLEAN": (False, True),
    "BLOB": (b"", b"\x00\xff"),
    "INTEGER[]": ([], [1, None], [2**31 - 1]),
    "BIGINT[]": ([], [2**63 - 1]),
}
TYPES = tuple(_SAMPLES)
_FAMILIES = (
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT"),
    ("UTINYINT", "USMALLINT", "UINTEGER"),
    ("FLOAT", "DOUBLE"),
    ("DECIMAL(4,2)", "DECIMAL(9,2)"),
    ("DATE", "TIMESTAMP"),
    ("INTEGER[]", "BIGINT[]"),
)
_DEFAULTS = {
    "FLOAT": "0.1", "DOUBLE": "0.1", "DECIMAL(4,2)": "0.50", "DECIMAL(9,2)": "0.50", "DECIMAL(9,3)": "0.125",
    "DATE": "2024-02-29", "TIMESTAMP": "2024-02-29 12:30:00.000001", "VARCHAR": "x'y\"z", "BOOLEAN": "true",
    "BLOB": "00ff", "INTEGER[]": "[1, NULL]", "BIGINT[]": "[7]",
}  # fmt: skip
"""Numbers beside these default to 5."""
_DEFAULT_VALUES: dict[str, Any] = {
    "FLOAT": 0.10000000149011612, "DOUBLE": 0.1, "DECIMAL(4,2)": Decimal("0.50"), "DECIMAL(9,2)": Decimal("0.50"),
    "DECIMAL(9,3)": Decimal("0.125"), "DATE": date(2024, 2, 29), "TIMESTAMP": _naive("2024-02-29 12:30:00.000001"),
    "VARCHAR": "x'y\"z", "BOOLEAN": True, "BLOB": b"\x00\xff", "INTEGER[]": [1, None], "BIGINT[]": [7],
}  # fmt: skip


def default_of(kind: str) -> str:
    """The default text that evolutions use for a type."""
    return _DEFAULTS.get(kind, "5")


def default_value(kind: str) -> Any:
    """The value that ``default_of`` stands for."""
    return _DEFAULT_VALUES.get(kind, 5)


def start(rng: random.Random) -> Schema:
    """A first version: a key and one to four columns."""
    names = rng.sample(NAMES, rng.randint(1, 4))
    fields = [Field(id=1, name="k", type="BIGINT", nullable=False)]
    fields += [replace(_column(rng, name), id=place) for place, name in enumerate(names, start=2)]
    return Schema(fields=tuple(fields), key=("k",))


def evolve(rng: random.Random, schema: Schema) -> Proposal:
    """One to two random changes of a version, as somebody would propose them: by name, with renames."""
    columns = [replace(field, id=0, type=field.declared_type, write_type="") for field in schema.fields]
    renames: dict[str, str] = {}
    for _ in range(rng.choice((1, 1, 1, 2))):
        change = rng.choice((_add, _add, _drop, _rename, _retype, _widen, _nullability, _default, _reorder))
        columns, renames = change(rng, columns, renames)
    known = {new: old for new, old in renames.items() if old in schema.names}  # what was added here has no old name
    return Proposal(fields=tuple(columns), key=None, renames=known)


def allowed(new: Schema, versions: Sequence[Schema], mode: Mode) -> bool:
    """Whether the model lets ``new`` follow ``versions`` (oldest first) under ``mode``."""
    if mode == "NONE":
        return True
    for old in versions if mode.endswith("TRANSITIVE") else versions[-1:]:
        if _reuses_a_name(new, old):
            return False
        if mode.startswith(("BACKWARD", "FULL")) and not readable(new, old, older=True):
            return False
        if mode.startswith(("FORWARD", "FULL")) and not readable(old, new, older=False):
            return False
    return True


def readable(reader: Schema, writer: Schema, *, older: bool) -> bool:
    """Whether every record of ``writer`` gives every column of ``reader`` a value; ``older``: they came before it."""
    written = {field.id: field for field in writer.fields}
    for field in reader.fields:
        source = written.get(field.id)
        if source is None:
            if not _has_default(field, older=older):
                return False
        elif not all(_holds(field, value, source) for value in values(source)):
            return False
    return True


def values(field: Field) -> list[Any]:
    """Values that a producer may write: the type's extremes, and NULL where it may."""
    return [*_SAMPLES[field.declared_type], *([None] if field.nullable else [])]


def as_read(value: Any, kind: str) -> Any:
    """A value as a column of ``kind`` shows it; a DATE read as TIMESTAMP is its midnight."""
    if kind == "TIMESTAMP" and type(value) is date:
        return _naive(value.isoformat())
    return value


def random_row(rng: random.Random, schema: Schema, key: int) -> dict[int, Any]:
    """A record by field id."""
    return {field.id: key if field.name == "k" else rng.choice(values(field)) for field in schema.fields}


def _holds(reader: Field, value: Any, source: Field) -> bool:
    if value is None:
        return reader.nullable
    target, kind = reader.declared_type, source.declared_type
    if kind == target:
        return True
    family = next((each for each in _FAMILIES if kind in each), (kind,))
    if target not in family:
        return False
    extremes = [abs(each) for each in _numbers(_SAMPLES[target])]
    return all(abs(each) <= max(extremes) for each in _numbers((value,))) if extremes else True


def _numbers(samples: Sequence[Any]) -> list[Any]:
    flat = [each for sample in samples for each in (sample if isinstance(sample, list) else [sample])]
    if any(type(each) is datetime for each in flat):  # a TIMESTAMP says more than any DATE
        return [2]
    return [1 if isinstance(each, date) else each for each in flat if each is not None]


def _has_default(field: Field, *, older: bool) -> bool:
    if not older:
        return bool(field.optional or field.fills_older)
    if not field.nullable:
        return field.initial_default is not None and field.write_default is not None
    return field.initial_default is not None or field.null_initial


def _reuses_a_name(new: Schema, old: Schema) -> bool:
    meant = {field.name: field.id for field in old.fields}
    return any(meant.get(field.name, field.id) != field.id for field in new.fields)


_Columns = tuple[list[Field], dict[str, str]]


def _column(rng: random.Random, name: str) -> Field:
    kind = rng.choice(TYPES)
    return _with_default(rng, Field(id=0, name=name, type=kind, nullable=rng.random() < 0.7))


def _with_default(rng: random.Random, field: Field) -> Field:
    chosen = rng.choice(("none", "value", "null"))
    return replace(
        field,
        write_default=default_of(field.type) if chosen == "value" else None,
        null_default=chosen == "null" and field.nullable,
    )


def _add(rng: random.Random, columns: list[Field], renames: dict[str, str]) -> _Columns:
    free = [name for name in NAMES if all(field.name != name for field in columns)]
    if not free or len(columns) > 6:
        return columns, renames
    place = rng.randint(1, len(columns))
    return [*columns[:place], _column(rng, rng.choice(free)), *columns[place:]], renames


def _drop(rng: random.Random, columns: list[Field], renames: dict[str, str]) -> _Columns:
    place = _some(rng, columns)
    if place is None or columns[place].name in renames:
        return columns, renames
    return columns[:place] + columns[place + 1 :], renames


def _rename(rng: random.Random, columns: list[Field], renames: dict[str, str]) -> _Columns:
    place = _some(rng, columns)
    free = [name for name in NAMES if all(field.name != name for field in columns)]
    if place is None or not free or columns[place].name in renames:
        return columns, renames
    new = rng.choice(free)
    changed = replace(columns[place], name=new)
    return _put(columns, place, changed), renames | {new: columns[place].name}


def _retype(rng: random.Random, columns: list[Field], renames: dict[str, str]) -> _Columns:
    place = _some(rng, columns)
    return (
        (columns, renames)
        if place is None
        else (_put(columns, place, _typed(columns[place], rng.choice(TYPES))), renames)
    )


def _widen(rng: random.Random, columns: list[Field], renames: dict[str, str]) -> _Columns:
    place = _some(rng, columns)
    family = () if place is None else next((each for each in _FAMILIES if columns[place].type in each), ())
    return (
        (_put(columns, place, _typed(columns[place], rng.choice(family))), renames)
        if place and family
        else (columns, renames)
    )


def _typed(field: Field, kind: str) -> Field:
    text = default_of(kind) if field.write_default is not None else None
    return replace(field, type=kind, write_default=text)


def _nullability(rng: random.Random, columns: list[Field], renames: dict[str, str]) -> _Columns:
    place = _some(rng, columns)
    if place is None:
        return columns, renames
    nullable = not columns[place].nullable
    changed = replace(columns[place], nullable=nullable, null_default=columns[place].null_default and nullable)
    return _put(columns, place, changed), renames


def _default(rng: random.Random, columns: list[Field], renames: dict[str, str]) -> _Columns:
    place = _some(rng, columns)
    return (columns, renames) if place is None else (_put(columns, place, _with_default(rng, columns[place])), renames)


def _reorder(rng: random.Random, columns: list[Field], renames: dict[str, str]) -> _Columns:
    return rng.sample(columns, len(columns)), renames


def _some(rng: random.Random, columns: list[Field]) -> int | None:
    places = [place for place, field in enumerate(columns) if field.name != "k"]
    return rng.choice(places) if places else None


def _put(columns: list[Field], place: int, field: Field) -> list[Field]:
    return [*columns[:place], field, *columns[place + 1 :]]
