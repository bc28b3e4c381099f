"""Where rows stand in the tree that a table replaced by study is: by study_key, or by the hash of another key.

Belongs here: the order of rows, and which range of it a file holds. Does not belong here: the tree (`maintenance`), the
writing of files (`rewrite`).

A study_key is a hash already, and the log tells each file's range of it. Other keys, such as UIDs, share long
beginnings and come in runs, so that no fixed branches fit them: their rows are ordered by a hash of the key, and a file
says in its name which range of hashes it holds. A name that says nothing stands for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.lake.extents import Extents
from dicom_assets.schema.keys import position
from dicom_assets.schema.registry import TABLES

POSITION = "#position"
"""Column that rows have on their way into files, where the key itself is no hash."""

STUDY_KEY = "study_key"
_RANGE = re.compile(r"-([0-9a-f]{16})-([0-9a-f]{16})\.").search


def order_of(name: str) -> str:
    """The column by which a table's rows are ordered."""
    return STUDY_KEY if TABLES[name].replaced_by == STUDY_KEY else POSITION


def positions(name: str, keys: Iterable[str]) -> list[str]:
    """The places of some keys in the order of a table."""
    return list(keys) if TABLES[name].replaced_by == STUDY_KEY else [position(key) for key in keys]


def sort_rows(name: str, rows: pa.Table) -> pa.Table:
    """Rows in the order of their table, with the column that it goes by."""
    order = order_of(name)
    if order == POSITION:
        keys = rows[TABLES[name].replaced_by].combine_chunks().dictionary_encode()
        places = pa.array(positions(name, keys.dictionary.to_pylist()), pa.string())
        rows = rows.append_column(POSITION, places.take(keys.indices))
    return rows if is_sorted(rows, order) else rows.sort_by(order)


def is_sorted(rows: pa.Table, column: str) -> bool:
    """Whether rows are in the order of a column of text."""
    values = rows[column].combine_chunks()
    return not pc.any(pc.less(values[1:], values[:-1])).as_py()


def range_in_name(rows: pa.Table) -> str:
    """What the name of a file of these ordered rows says; nothing where the log tells it."""
    if POSITION not in rows.column_names or not len(rows):
        return ""
    return f"-{rows[POSITION][0].as_py()}-{rows[POSITION][-1].as_py()}"


def add_positions(name: str, known: Extents) -> Extents:
    """Extents of a table's files, with their ranges of the column that it is ordered by."""
    if order_of(name) == STUDY_KEY:
        return known
    found = [_RANGE(str(path)) for path in known.paths]
    low = np.array([one[1] if one else None for one in found], dtype=object)
    high = np.array([one[2] if one else None for one in found], dtype=object)
    return replace(known, low={**known.low, POSITION: low}, high={**known.high, POSITION: high})
