"""Floats as PostgreSQL prints them (extra_float_digits = 1): the shortest digits that lie strictly nearest.

Arrow finds the shortest digits too, and writes them otherwise; and it takes digits that lie in the very middle between
two floats, which PostgreSQL does not (1e23 prints as 9.999999999999999e+22). Those are only found beyond ``exact``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from headwater_connectors.postgres.cells import Cells
from headwater_connectors.postgres.spelling import nulled

_PARTS = r"^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$"


@dataclass(frozen=True)
class _Width:
    """``fixed``: numbers with this decimal exponent, and larger ones, are printed with an exponent."""

    kind: str
    fixed: int
    exact: float
    digits: range


_SINGLE = _Width("f4", 6, 2.0**22, range(5, 9))
_DOUBLE = _Width("f8", 15, 2.0**52, range(14, 17))


def single_texts(cells: Cells) -> pa.Array:
    return nulled(_texts(cells.integers("f4"), _SINGLE), cells)


def double_texts(cells: Cells, offset: int = 0) -> pa.Array:
    return nulled(_texts(cells.integers("f8", offset), _DOUBLE), cells)


def texts_of(values: npt.NDArray[Any]) -> pa.Array:
    """Of float32 or float64 values."""
    return _texts(values, _SINGLE if values.dtype.itemsize == 4 else _DOUBLE)


def _texts(values: npt.NDArray[Any], width: _Width) -> pa.Array:
    size = np.abs(values)
    text = pc.cast(pa.array(values, from_pandas=False), pa.string())
    plain = ((size >= 1e-4) & (size < (1e6 if width.fixed == 6 else 1e9))) | (size == 0)
    rows = np.flatnonzero(~plain)
    if not len(rows):
        return text
    rest = pl.Series(text.take(pa.array(rows)))
    middle = np.flatnonzero((size[rows] >= width.exact) & np.isfinite(size[rows]))
    if len(middle):
        rest = rest.scatter(middle.tolist(), [_strict(values[rows[at]], rest[at], width) for at in middle.tolist()])
    mended = _spelled(rest, width).to_arrow().cast(pa.string())
    return pc.replace_with_mask(text, pa.array(~plain), mended)


def _strict(value: Any, text: str, width: _Width) -> str:
    """The text, or the next longer one where its number is as near to a neighbour of ``value``."""
    exact = Fraction(float(value))
    for digits in width.digits:
        neighbour = np.nextafter(value, value.dtype.type(np.inf if Fraction(text) > exact else -np.inf))
        if not np.isfinite(neighbour) or abs(Fraction(text) - exact) < abs(Fraction(text) - Fraction(float(neighbour))):
            break
        text = f"{float(value):.{digits}e}"
    return text


def _spelled(texts: pl.Series, width: _Width) -> pl.Series:
    """Arrow's notation as PostgreSQL's."""
    part = pl.col("text").str.extract_groups(_PARTS).struct
    sign, whole = part.field("1"), part.field("2").str.strip_chars_start("0")
    fraction = part.field("3").fill_null("")
    zeros = fraction.str.len_bytes() - fraction.str.strip_chars_start("0").str.len_bytes()
    exponent = part.field("4").cast(pl.Int64).fill_null(0) + pl.when(whole != "").then(
        whole.str.len_bytes().cast(pl.Int64) - 1
    ).otherwise(-zeros.cast(pl.Int64) - 1)
    digits = (whole + fraction).str.strip_chars_start("0").str.strip_chars_end("0")
    tail = digits.str.slice(1)
    scientific = (
        digits.str.slice(0, 1)
        + pl.when(tail != "").then("." + tail).otherwise(pl.lit(""))
        + pl.when(exponent < 0).then(pl.lit("e-")).otherwise(pl.lit("e+"))
        + exponent.abs().cast(pl.String).str.zfill(2)
    )
    count = exponent + 1
    above = digits.str.slice(0, count.clip(0)).str.pad_end(width.fixed, "0").str.slice(0, count.clip(0))
    below = digits.str.slice(count.clip(0))
    fixed = above + pl.when(below != "").then("." + below).otherwise(pl.lit(""))
    spelled = sign + pl.when((exponent < -4) | (exponent >= width.fixed)).then(scientific).otherwise(fixed)
    word = pl.col("text").replace_strict(
        {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}, default=None, return_dtype=pl.String
    )
    return pl.DataFrame({"text": texts}).select(pl.coalesce(word, spelled)).to_series()
