"""What is current of closed batches, and whether it is still what somebody has counted.

Belongs here: which closed batches there are and which objects of theirs are current, with a fingerprint of each batch
and of each series. Does not belong here: what is made of them (`tag_profile`, `phi_risk`).

A table that follows closed batches keeps the fingerprint of what it has counted beside what it has made of it. So it
needs no list of what has happened since: whatever a batch, a rerun, a delete, a correction or an erasure has changed
has another fingerprint, or none. To find out it reads names and keys of all current objects, which grows with the lake.
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import pyarrow as pa

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect

FORM = "2"
"""Form of what follows closed batches: raised when headers are counted or judged otherwise, so that all are anew."""
CLOSED = "closed"

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
