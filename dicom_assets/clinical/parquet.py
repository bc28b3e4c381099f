"""Records of a Parquet file as frames of text.

Belongs here: row groups read one after the other, values of any type as text. Does not belong here: which column is
what (`tabular`).

Texts stay as they are. Whole numbers are written without a point, also where they are stored as floating point
numbers, as pandas does with identifiers among which one is missing; NaN is null. Dates and times are written in ISO
form, bytes as UTF-8 or else in hexadecimal, lists and structures as JSON.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from dicom_assets.clinical.chunks import UNREADABLE, ClinicalUnreadable
from dicom_assets.clinical.delimited import CHUNK_RECORDS, Frame, distinct
from dicom_assets.storage.byte_file import ByteFile
from dicom_assets.storage.byte_ranges import ByteSource

MAGIC = b"PAR1"
_BUFFER = 1024 * 1024
_EXACT = 2.0**53
"""Whole floating point numbers below it are exact."""


def parquet_frames(source: ByteSource) -> Iterator[Frame]:
    """Frames of at most CHUNK_RECORDS records.

    Raises ClinicalUnreadable, also after some frames; storage errors as they come.
    """
    raw = ByteFile(source)
    try:
        with pq.ParquetFile(io.BufferedReader(raw, _BUFFER), buffer_size=_BUFFER, pre_buffer=False) as file:
            names = tuple(distinct(file.schema_arrow.names))
            number = 1
            for batch in file.iter_batches(CHUNK_RECORDS, use_threads=False):
                rows = list(zip(*(as_text(values) for values in batch.columns), strict=True))
                yield Frame(names, rows, range(number, number + len(batch)))
                number += len(batch)
    except (pa.ArrowException, OSError, UnicodeError, OverflowError) as error:
        # Arrow raises OSError for broken files, too.
        if raw.failure is not None:
            raise raw.failure from None
        kind = "it is encrypted or damaged" if isinstance(error, OSError) else "it is damaged"
        raise ClinicalUnreadable(UNREADABLE, f"The Parquet file cannot be read: {kind}.") from None


def as_text(values: pa.Array) -> list[str | None]:
    """Each value as text, None for what is missing."""
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        return as_text(values.storage)
    if pt.is_dictionary(kind):
        return as_text(values.dictionary_decode())
    if pt.is_floating(kind):
        return _floats(values)
    if pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind):
        return [None if v is None else _bytes(v) for v in values.to_pylist()]
    if pt.is_nested(kind) or pt.is_duration(kind) or pt.is_interval(kind):
        return [
            None if v is None else orjson.dumps(v, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
            for v in values.to_pylist()
        ]
    texts: list[str | None] = pc.cast(values, pa.string()).to_pylist()
    return texts


def _floats(values: pa.Array) -> list[str | None]:
    numbers = values.cast(pa.float64())
    plain = np.asarray(numbers.to_numpy(zero_copy_only=False))
    with np.errstate(invalid="ignore"):
        whole = (np.trunc(plain) == plain) & (np.abs(plain) < _EXACT)
    texts = pc.cast(values, pa.string()).to_pylist()
    return [
        None if number != number else str(int(number)) if is_whole else text
        for number, is_whole, text in zip(plain.tolist(), whole.tolist(), texts, strict=True)
    ]


def _bytes(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.hex()
