"""Types of extensions from the wire, found by name, as their oids differ from database to database.

hstore                pairs, as a JSON object          int4 pairs; each: key and value as elements
vector, halfvec       FLOAT[] (pgvector)               int2 dimensions, int2 0; float4 or float2 numbers
sparsevec             its text                         int4 dimensions, numbers, 0; int4 places; float4 numbers
geometry, geography   BLOB, extended WKB (PostGIS)     those bytes; their text is hexadecimal
ltree and its queries their text                       a version, one byte; the text
citext                its text                         the text
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from headwater_connectors.postgres import arrays
from headwater_connectors.postgres.cells import Cells, Int64s, offsets_of, places_of, read
from headwater_connectors.postgres.containers import Print, walk
from headwater_connectors.postgres.floats import texts_of
from headwater_connectors.postgres.spelling import escaped, holding, joined, nulled, numbers, per_row

_CONTROL = [chr(code) for code in range(32)]
_KEY_END = ord("=")


@dataclass(frozen=True)
class Pairs:
    """The pairs of all rows one after another, ``counts[i]`` of row i."""

    keys: pa.Array
    values: pa.Array
    counts: Int64s

    @classmethod
    def of_binary(cls, cells: Cells) -> Pairs:
        counts = cells.counts()
        texts = walk(cells.buffer, cells.start + 4, 2 * counts).cells.bytes(pa.string())
        return cls(_every(texts, 0), _every(texts, 1), counts)

    @classmethod
    def of_text(cls, cells: Cells) -> Pairs:
        """From ``"k"=>"v", "n"=>NULL``: a quoted text before ``=`` is a key, any other a value."""
        found, rows, after = arrays.quoted(cells)
        is_key = after == _KEY_END
        texts = found.bytes(pa.string())
        keys = np.flatnonzero(is_key)
        has_value = np.append(~is_key, False)[keys + 1]
        values = texts.take(pa.array(keys + 1, mask=~has_value))
        return cls(texts.take(pa.array(keys)), values, np.bincount(rows[keys], minlength=len(cells)).astype(np.int64))

    def json(self) -> pa.Array:
        value = pc.fill_null(joined('"', _json_escaped(self.values), '"'), "null")
        pairs = joined('"', _json_escaped(self.keys), '": ', value)
        return joined("{", per_row(pairs, offsets_of(self.counts), ", "), "}")

    def texts(self) -> pa.Array:
        value = pc.fill_null(joined('"', _escaped(self.values), '"'), "NULL")
        return per_row(joined('"', _escaped(self.keys), '"=>', value), offsets_of(self.counts), ", ")


def _every(texts: pa.Array, first: int) -> pa.Array:
    return texts.take(pa.array(np.arange(first, len(texts), 2)))


def _escaped(texts: pa.Array) -> pa.Array:
    return escaped(texts, b'"\\', "\\")


def _json_escaped(texts: pa.Array) -> pa.Array:
    text = _escaped(texts)
    if not holding(text, bytes(range(32))).any():
        return text
    series = pl.Series(text, dtype=pl.String)
    return series.str.replace_many(_CONTROL, [f"\\u{ord(each):04x}" for each in _CONTROL]).to_arrow().cast(pa.string())


def hstore_texts(cells: Cells) -> pa.Array:
    return nulled(Pairs.of_binary(cells).texts(), cells)


def hstore_binary(cells: Cells) -> pa.Array:
    return nulled(Pairs.of_binary(cells).json(), cells)


def hstore_text(cells: Cells) -> pa.Array:
    return nulled(Pairs.of_text(cells).json(), cells)


@dataclass(frozen=True)
class Vectors:
    """vector (``f4``) and halfvec (``f2``): lists of float32."""

    kind: str

    def binary(self, cells: Cells) -> pa.Array:
        counts, values = self._numbers(cells)
        return arrays.list_array(pa.array(values), offsets_of(counts), cells.valid)

    def texts(self, cells: Cells) -> pa.Array:
        counts, values = self._numbers(cells)
        return nulled(joined("[", per_row(texts_of(values), offsets_of(counts), ","), "]"), cells)

    def _numbers(self, cells: Cells) -> tuple[Int64s, np.ndarray]:
        counts = cells.integers("u2").astype(np.int64)
        if cells.valid is not None:
            counts = np.where(cells.valid, counts, 0)
        at = np.repeat(cells.start + 4, counts) + int(self.kind[1:]) * places_of(counts)
        return counts, read(cells.buffer, self.kind, at).astype(np.float32)


def vector_text(cells: Cells) -> pa.Array:
    """``[1,2,3]`` to a list of float32."""
    return pc.cast(pc.split_pattern(cells.shifted(1, 1).bytes(pa.string()), ","), pa.list_(pa.float32()))


def sparse_texts(cells: Cells) -> pa.Array:
    """``{1:1.5,3:2}/5``, places counted from 1."""
    counts = cells.counts(4)
    at = np.repeat(cells.start + 12, counts) + 4 * places_of(counts)
    values = read(cells.buffer, "f4", at + 4 * np.repeat(counts, counts))
    each = joined(numbers(read(cells.buffer, "i4", at).astype(np.int64) + 1), ":", texts_of(values))
    return nulled(joined("{", per_row(each, offsets_of(counts), ","), "}/", numbers(cells.counts())), cells)


def _text(cells: Cells) -> pa.Array:
    return cells.bytes(pa.string())


def _versioned(cells: Cells) -> pa.Array:
    return cells.shifted(1).bytes(pa.string())


def hexadecimal(cells: Cells) -> pa.Array:
    """Upper case, as PostGIS prints."""
    return pc.utf8_upper(pl.Series(cells.bytes()).bin.encode("hex").to_arrow().cast(pa.string()))


def unhexed(cells: Cells) -> pa.Array:
    return pl.Series(_text(cells)).str.decode("hex").to_arrow().cast(pa.binary())


VECTOR, HALF_VECTOR = Vectors("f4"), Vectors("f2")
PRINTERS: dict[tuple[str, str], Print] = {
    ("citext", "citext"): _text,
    **{("ltree", name): _versioned for name in ("ltree", "lquery", "ltxtquery")},
    ("hstore", "hstore"): hstore_texts,
    ("vector", "vector"): VECTOR.texts,
    ("vector", "halfvec"): HALF_VECTOR.texts,
    ("vector", "sparsevec"): sparse_texts,
    **{("postgis", name): hexadecimal for name in ("geometry", "geography")},
}
"""By extension and name, as ``printing`` has them for built-in types."""
