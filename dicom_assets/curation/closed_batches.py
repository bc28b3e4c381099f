"""What is current of closed batches, and whether it is still what somebody has counted.

Belongs here: which closed batches there are and which objects of theirs are current, with a fingerprint of each batch
and of each series. Does not belong here: what is made of them (`tag_profile`, `phi_risk`).

A table that follows closed batches keeps the fingerprint of what it has counted beside what it has made of it. So it
needs no list of what has happened since: whatever a batch, a rerun, a delete, a correction or an erasure has changed
has another fingerprint, or none. To find out it reads names and keys of all current objects, which grows with the lake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect

FORM = "2"
"""Form of what follows closed batches: raised when headers are counted or judged otherwise, so that all are anew."""
CLOSED = "closed"
_NAME = ["batch_id", "object_id"]

_CURRENT = f"""
-- current objects of closed batches, with the run that closed each of these
CREATE TEMP VIEW current_object AS
SELECT instance.batch_id, instance.object_id, source, study_key, StudyInstanceUID, SeriesInstanceUID, closed.run_id
FROM instance JOIN (SELECT batch_id, run_id FROM batches WHERE status = '{CLOSED}') AS closed USING (batch_id)
"""

_BATCHES = f"""
-- every closed batch: its run, and number and sum of the names of its current objects
SELECT closed.batch_id, concat_ws('-', coalesce(closed.run_id, ''), count(own.object_id),
    coalesce(bit_xor(md5_number_lower(own.object_id)), 0)) AS made_from, count(own.object_id) AS objects
FROM (SELECT batch_id, run_id FROM batches WHERE status = '{CLOSED}') AS closed
LEFT JOIN current_object AS own USING (batch_id)
GROUP BY closed.batch_id, closed.run_id
ORDER BY closed.batch_id
"""

_SERIES = """
-- every series with current objects in closed batches
SELECT source, StudyInstanceUID, SeriesInstanceUID, study_key, count(*) AS objects,
    concat_ws('-', count(*), bit_xor(md5_number_lower(concat_ws('/', batch_id, object_id, run_id)))) AS made_from
FROM current_object
GROUP BY ALL
"""


class ClosedBatches:
    """Closed batches and their current objects as they are when it is made. A context manager.

    versions: of the tables that were read.
    """

    def __init__(self, lake: Lake) -> None:
        """Reads nothing of objects yet. Raises LakeError."""
        tables = ("batches", "instance")
        with lake.look_once(tables):
            self.connection: duckdb.DuckDBPyConnection = connect(lake, tables)
            self.versions: Mapping[str, int] = {name: lake.extents(name).version for name in tables}
        self.connection.execute(_CURRENT)

    def __enter__(self) -> ClosedBatches:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go of what was read."""
        self.connection.close()

    def batches(self) -> pa.Table:
        """Every closed batch: batch_id, made_from, objects."""
        return arrow(self.connection, _BATCHES)

    def series(self) -> pa.Table:
        """Every series with current objects in closed batches: its keys, study_key, objects, made_from."""
        return arrow(self.connection, _SERIES)

    def objects(self, where: str, params: Mapping[str, object]) -> pa.Table:
        """Current objects by batch: batch_id, object_id, keys of study and series. where: SQL with these parameters."""
        sql = f"SELECT * EXCLUDE (run_id) FROM current_object WHERE {where} ORDER BY batch_id"
        return self.connection.sql(sql, params=dict(params)).to_arrow_table()


def rows_of(lake: Lake, objects: pa.Table, columns: Sequence[str]) -> Iterator[tuple[pa.Table, pa.Array]]:
    """Rows of flat_metadata of some objects, a row group at a time, each with the place of its object in `objects`.

    objects: batch_id and object_id, in the order of batches. Raises LakeError.
    """
    wanted, places = _names(objects), _places(objects["batch_id"])
    known = lake.extents("flat_metadata")
    held = known.within({"batch_id": [*places]})
    for path in known.paths[held].tolist():
        file = lake.files.open_parquet(f"flat_metadata/{path}")
        there = [name for name in columns if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            named = file.read_row_group(group, columns=_NAME)
            own = [places[batch] for batch in named["batch_id"].unique().to_pylist() if batch in places]
            if not own:
                continue
            begin, end = min(start for start, _ in own), max(stop for _, stop in own)
            found = pc.index_in(_names(named), wanted.slice(begin, end - begin))
            at = np.flatnonzero(np.asarray(found.is_valid()))
            if len(at):
                yield file.read_row_group(group, columns=there).take(at), pc.add(found.take(at), begin)


def _places(batches: pa.ChunkedArray) -> dict[str, tuple[int, int]]:
    """Where the rows of each batch begin and end, of rows in the order of batches."""
    places, begin = {}, 0
    for one in pc.value_counts(batches.combine_chunks()).to_pylist():
        places[one["values"]] = (begin, begin + one["counts"])
        begin += one["counts"]
    return places


def _names(rows: pa.Table) -> pa.Array:
    """Batch and object as one text each."""
    texts = [rows[name].cast(pa.string()) for name in _NAME]
    return pc.binary_join_element_wise(*texts, "/").combine_chunks()
