"""Headers to Arrow: the DICOM columns of `flat_metadata`, typed as the registry says.

Belongs here: from many columns-by-name to one batch. Does not belong here: the project's own columns (batch, object,
version), which whoever judges an object adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import pyarrow as pa

from dicom_assets.dicom.header import Header
from dicom_assets.schema.attributes import ATTRIBUTES, CODE_PARTS
from dicom_assets.schema.registry import FLAT_METADATA

_NAMES = [
    *(a.keyword for a in ATTRIBUTES),
    *(c.column for c in CODE_PARTS),
    "patient_family_name",
    "patient_given_name",
    "patient_ideographic_name",
    "patient_phonetic_name",
]
SCHEMA = pa.schema([pa.field(name, FLAT_METADATA.column(name).type) for name in _NAMES])
"""The columns that come from the object itself; all may be NULL, since rows without a header are NULL throughout."""


_NOTHING: dict[str, Any] = dict.fromkeys(_NAMES)
_PIXELS = {name: name.removeprefix("pixel_") for name in ("pixel_offset", "pixel_length")} | {
    name: name for name in ("frame_offsets", "frame_lengths")
}
"""Columns by fields of `header.Pixels`."""


def dicom_columns(headers: Sequence[Header | None]) -> pa.RecordBatch:
    """One row per header in this order; a row of NULLs where there is none."""
    rows = [_NOTHING | header.columns if header is not None else _NOTHING for header in headers]
    columns = zip(*(row.values() for row in rows), strict=False) if rows else repeat(())
    # each row has the columns in order, and perhaps what is no column behind them
    arrays = [pa.array(values, field.type) for field, values in zip(SCHEMA, columns, strict=False)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def header_texts(headers: Sequence[Header | None]) -> pa.Array:
    """The column `header`: DICOM JSON as text, NULL where there is none."""
    texts = pa.array([header.json or None if header is not None else None for header in headers], pa.binary())
    return texts.cast(pa.string())


def pixel_columns(headers: Sequence[Header | None]) -> dict[str, pa.Array]:
    """The columns of where pixel data lie, NULL where there are none."""
    places = [header.pixels if header is not None else None for header in headers]
    return {
        name: pa.array(
            [None if place is None else getattr(place, field) for place in places], FLAT_METADATA.column(name).type
        )
        for name, field in _PIXELS.items()
    }


def issue_lists(headers: Sequence[Header | None]) -> pa.Array:
    """The column `issues`: codes in the registry's order, an empty list for a sound object."""
    return pa.array(
        [list(header.issues) if header is not None else [] for header in headers], FLAT_METADATA.column("issues").type
    )
