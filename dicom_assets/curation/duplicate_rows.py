"""Duplicates of a lake that an earlier release made: digests of its headers, the index of them, and the groups.

Belongs here: the migration `duplicate_rows`, in steps that may be broken off anywhere. Does not belong here: the table
itself (`duplicates`), which lakes need it (`lake.form`).

A file of flat_metadata at a time is written anew with the digests of its headers, then its batches are entered into the
index: what is in the index is done. Then the groups are made, batch by batch. Objects are not opened, so there are no
digests of bytes and pixel data until they are read again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.curation.digest_index import OBJECTS, enter_anew, keys_of
from dicom_assets.curation.duplicates import make_again
from dicom_assets.dicom.stable import MOMENTS, PLACES, says_which, stable_digest_of
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, quoted, scan
from dicom_assets.lake.rewrite import rewrite_files
from dicom_assets.lake.tables import NoSuchVersion
from dicom_assets.schema.registry import BATCH_DIGEST, FLAT_METADATA

PROGRESS = "_upgrade/duplicates"
"""The last batch whose groups are made, while that is under way."""

Tell = Callable[[int, int], None]

_WHICH = [*MOMENTS, *PLACES, "InstanceNumber"]


def objects_left(lake: Lake) -> int:
    """How many objects lie in batches that the index does not know."""
    with lake.cursor() as connection:
        (count,) = connection.execute(
            f"SELECT count(*) FROM {_source(lake, FLAT_METADATA.name)} "
            f"ANTI JOIN {_source(lake, BATCH_DIGEST.name)} AS known USING (batch_id) WHERE {OBJECTS}"
        ).fetchall()[0]
    return int(count)


def make_rows(lake: Lake, tell: Tell) -> None:
    """Makes digests, index and groups. Raises LakeError. tell: is told how many batches are done, of how many."""
    waiting = _batches(lake, f"ANTI JOIN {_source(lake, BATCH_DIGEST.name)} AS known USING (batch_id)")
    all_batches = _batches(lake)
    while waiting:
        own = _together(lake, waiting)
        with lake.committing(FLAT_METADATA.name):
            known = lake.extents(FLAT_METADATA.name)
            held = known.paths[known.within({"batch_id": own})].tolist()
            for path in held:
                rewrite_files(lake, FLAT_METADATA.name, [path], _with_digests, data_change=True)
        enter_anew(lake, own)
        waiting = sorted({*waiting} - {*own})
        tell(len(all_batches) - len(waiting), 2 * len(all_batches))
    done = lake.files.get(PROGRESS).decode() if lake.files.exists(PROGRESS) else ""
    for number, batch in enumerate(all_batches):
        if batch > done:
            make_again(lake, _keys(lake, batch))
            lake.files.put(PROGRESS, batch.encode())
            tell(len(all_batches) + number + 1, 2 * len(all_batches))
    lake.files.remove(PROGRESS)


def _together(lake: Lake, waiting: list[str]) -> list[str]:
    """Of some batches those that lie in one file with the first of them."""
    known = lake.extents(FLAT_METADATA.name)
    paths = known.paths[np.flatnonzero(known.within({"batch_id": waiting[:1]}))].tolist()
    with lake.cursor() as connection:
        source = scan(lake, FLAT_METADATA.name, paths=paths)
        found = connection.execute(f"SELECT DISTINCT batch_id FROM {source}").fetchall()
    return sorted({batch for (batch,) in found} & {*waiting}) or waiting[:1]


def _with_digests(rows: pa.Table) -> pa.Table:
    """Rows of flat_metadata with the digests of what stays of their headers."""
    is_object = pc.and_(pc.equal(rows["operation"], "upsert"), pc.is_null(rows["version_text"])).to_pylist()
    which = rows.select(_WHICH).to_pylist()
    digests = [
        stable_digest_of(header.as_py().encode()) if own and header.is_valid and says_which(columns) else None
        for own, columns, header in zip(is_object, which, _each(rows["header"]), strict=True)
    ]
    at = rows.schema.get_field_index("stable_digest")
    return rows.set_column(at, rows.schema.field(at), pa.array(digests, pa.string()))


def _each(column: pa.ChunkedArray) -> list[pa.Scalar]:
    return [value for chunk in column.chunks for value in chunk]


def _keys(lake: Lake, batch: str) -> pa.ChunkedArray:
    """The keys of the objects of a batch."""
    source = scan(lake, FLAT_METADATA.name, within={"batch_id": [batch]})
    with lake.cursor() as connection:
        rows = f"(SELECT * FROM {source} WHERE batch_id = {quoted(batch)})"
        return arrow(connection, f"SELECT DISTINCT shared_key FROM ({keys_of(rows)})")["shared_key"]


def _batches(lake: Lake, more: str = "") -> list[str]:
    with lake.cursor() as connection:
        rows = f"{_source(lake, FLAT_METADATA.name)} AS flat {more}"
        found = connection.execute(f"SELECT DISTINCT batch_id FROM {rows} WHERE {OBJECTS} ORDER BY 1").fetchall()
    return [batch for (batch,) in found]


def _source(lake: Lake, name: str) -> str:
    """SQL for a table, an empty one where the lake does not have it yet."""
    try:
        return scan(lake, name)
    except NoSuchVersion:
        return scan(lake, name, paths=[])
