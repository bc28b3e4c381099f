"""Swapping whole files of a table: the rows of some studies replaced, small files merged, in one commit each.

Belongs here: writing Parquet files of a table and committing which files come and which go. Does not belong here: when
files are worth merging (`maintenance`), and replacing by batch, which delta-rs does itself (`delta`).

A commit names the files that it takes away, so a commit of somebody else that took one of them away first makes it
fail, and it is worked out anew. Files that a failed commit has written are nobody's; vacuum deletes them.
"""

from __future__ import annotations

import io
import json
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake._internal import RemoveAction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction

from dicom_assets.lake.delta import COMMIT_TRIES, Lake, bloom_columns, statistics_columns
from dicom_assets.lake.extents import Extents, extents
from dicom_assets.lake.files import LakeError
from dicom_assets.lake.query import connected, scan
from dicom_assets.lake.registry import TABLES, Table

STUDY_FILE_ROWS = 8_192
"""Rows of a file of a table that is replaced by study: what one touched study makes a publication rewrite."""

ROW_GROUP = 10_000
"""Rows of a row group: a header of 10 KB in each keeps it at 100 MB in memory."""


def replace_keys(lake: Lake, name: str, keys: Sequence[str], rows: pa.Table) -> None:
    """Replaces, in one commit, the rows of some studies in a table that is replaced by study.

    keys: values of the table's `replaced_by` column, mostly study_keys; `rows` has rows of these alone. Each file that
    holds one of them is rewritten in its place, with the new rows of its studies; studies that are new to the table
    come into files of their own. So files keep the narrow ranges that maintenance gave them. Raises LakeError.
    """
    if not keys:
        return
    column = TABLES[name].replaced_by
    rows = rows.sort_by(column)

    def change(table: DeltaTable, now: Extents) -> tuple[npt.NDArray[np.int64], list[AddAction]]:
        candidates = np.flatnonzero(now.may_hold(column, keys))
        found = _holding(lake, name, now, candidates, keys)
        homes = dict(reversed(found))  # a study that stands in several files goes into the first of them
        holding = np.array(sorted({index for _, index in found}), dtype=np.int64)
        adds: list[AddAction] = []
        placed = pa.array([homes.get(key, -1) for key in rows[column].to_pylist()], pa.int64())
        with connected(lake) as connection:
            connection.register("gone", pa.table({column: pa.array(keys, pa.string())}))
            for index in holding:
                own = rows.filter(pc.equal(placed, int(index)))
                merged = _merged(connection, scan(lake, name, paths=[str(now.paths[index])]), own, column)
                adds += [put_file(lake, TABLES[name], part) for part in split(merged, column, STUDY_FILE_ROWS)]
        fresh = rows.filter(pc.equal(placed, -1))
        adds += [put_file(lake, TABLES[name], part) for part in split(fresh, column, STUDY_FILE_ROWS)]
        return holding, adds

    swap(lake, name, change, data_change=True)


Change = Callable[[DeltaTable, Extents], tuple[npt.NDArray[np.int64], list[AddAction]]]
"""Takes a table and its extents, returns which files go (indexes) and which come, written already."""


def swap(lake: Lake, name: str, change: Change, *, data_change: bool) -> None:
    """Commits a change of files; works it out anew when somebody else committed. data_change: False when rows stay."""
    for attempt in range(1, COMMIT_TRIES + 1):
        table = lake.table(name)
        now = extents(table)
        gone, adds = change(table, now)
        if not len(gone) and not adds:
            return
        stamp = int(time.time() * 1000)
        removes = [RemoveAction(str(now.paths[i]), data_change, stamp, int(now.bytes[i])) for i in gone]
        for add in adds:
            add.data_change = data_change
        lake.check_right(name)
        try:
            table.create_write_transaction(
                [*adds, *removes],
                mode="append",
                schema=TABLES[name].schema,
                commit_properties=CommitProperties(max_commit_retries=0),
            )
            return
        except CommitFailedError:
            if attempt == COMMIT_TRIES:
                raise LakeError(f"Table {name}: somebody else commits all the time. Run the batch again.") from None
            time.sleep(random.uniform(0, 0.1 * 2**attempt))
        except (DeltaError, OSError) as error:
            raise LakeError(f"Table {name} cannot be written: {type(error).__name__}.") from None


def put_file(lake: Lake, table: Table, rows: pa.Table | Iterable[pa.RecordBatch]) -> AddAction:
    """Writes one Parquet file of a table, row group by row group, and says what it holds."""
    sink = io.BytesIO()
    schema = table.schema
    keys = statistics_columns(table)
    low: dict[str, str] = {}
    high: dict[str, str] = {}
    count = 0
    looked_up = {column: {"ndv": ROW_GROUP, "fpp": 0.01} for column in bloom_columns(table)}
    batches = rows.to_batches(ROW_GROUP) if isinstance(rows, pa.Table) else rows
    # A footer names every column of every row group, and a query opens them all: statistics of columns that nothing is
    # sorted by would only make it longer.
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=3,
        write_statistics=[*dict.fromkeys([*keys, *looked_up])],
        bloom_filter_options=looked_up or None,
        store_schema=False,
    ) as writer:
        for batch in batches:
            count += len(batch)
            for column in keys:
                ends = pc.min_max(batch[column]).as_py()
                if ends["min"] is not None:
                    low[column] = min(low.get(column, ends["min"]), ends["min"])
                    high[column] = max(high.get(column, ends["max"]), ends["max"])
            writer.write_batch(batch.cast(schema) if batch.schema != schema else batch, ROW_GROUP)
    data = sink.getvalue()
    path = f"part-{uuid.uuid4()}.zstd.parquet"
    lake.files.put(f"{table.name}/{path}", data)
    stats = {"numRecords": count, "minValues": low, "maxValues": high, "nullCount": dict.fromkeys(low, 0)}
    return AddAction(path, len(data), {}, int(time.time() * 1000), True, json.dumps(stats))


def split(rows: pa.Table, column: str, bound: int) -> Iterator[pa.Table]:
    """Cuts rows sorted by a column into even parts of about `bound` rows; equal values stay in one part."""
    if not len(rows):
        return
    parts = -(-len(rows) // bound)
    keys = np.asarray(rows[column].to_pylist(), dtype=object)
    start = 0
    for part in range(1, parts + 1):
        end = len(rows) if part == parts else len(rows) * part // parts
        while 0 < end < len(rows) and keys[end] == keys[end - 1]:
            end += 1
        if end > start:
            yield rows.slice(start, end - start)
            start = end


def read_files(lake: Lake, name: str, paths: Iterable[str], order: str = "") -> pa.RecordBatchReader:
    """Rows of some files of a table, in order of the files unless told otherwise, as bounded batches."""
    columns = ", ".join(f'"{column.name}"' for column in TABLES[name].columns)
    connection = connected(lake)
    source = scan(lake, name, paths=list(paths))
    return connection.sql(f"SELECT {columns} FROM {source} {order}").to_arrow_reader(ROW_GROUP)


def _holding(
    lake: Lake, name: str, now: Extents, candidates: npt.NDArray[np.int64], keys: Sequence[str]
) -> list[tuple[str, int]]:
    """The studies that the table holds, each with the index of a file that it stands in, in order of the files."""
    if not len(candidates):
        return []
    index, column = _by_file_name(now, candidates), TABLES[name].replaced_by
    source = scan(lake, name, paths=now.paths[candidates].tolist(), filename=True)
    with connected(lake) as connection:
        connection.register("wanted", pa.table({column: pa.array(keys, pa.string())}))
        found = connection.execute(
            f"SELECT DISTINCT {column}, parse_filename(filename) FROM {source} SEMI JOIN wanted USING ({column})"
        ).fetchall()
    return sorted(((key, index[file]) for key, file in found), key=lambda pair: (pair[1], pair[0]))


def _by_file_name(now: Extents, indexes: npt.NDArray[np.int64]) -> dict[str, int]:
    return {str(now.paths[i]).rsplit("/", 1)[-1]: int(i) for i in indexes}


def _merged(connection: duckdb.DuckDBPyConnection, source: str, own: pa.Table, column: str) -> pa.Table:
    """The rows of a file without those that are in the table `gone`, and `own` ones, sorted by a column."""
    columns = ", ".join(f'"{name}"' for name in own.schema.names)
    connection.register("own", own)
    found = connection.sql(
        f"SELECT * FROM (SELECT {columns} FROM {source} ANTI JOIN gone USING ({column}) UNION ALL SELECT * FROM own) "
        f"ORDER BY {column}"
    )
    return found.to_arrow_table().cast(own.schema)
