"""Parquet files of a table: how rows are packed, and what the Delta log is told of each file.

Belongs here: row groups, statistics, Bloom filters. Does not belong here: which rows come into which file (`rewrite`),
and the log (`tables`).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from dicom_assets.lake.table_form import conform, statistics_columns
from dicom_assets.schema.table import Table
from dicom_assets.storage.files import LakeFiles

ROW_GROUP = 10_000
"""Rows of a row group: a header of 10 KB in each keeps it at 100 MB in memory."""

_ROW_GROUPS = {"instance": 16_384}
"""One for each file, where a query for one row opens all files: DuckDB reads what a footer says of every column."""

ROW_GROUP_BYTES = 32 << 20
"""What a row group takes in memory at most, but for the last rows that it is given."""

ALONE = 4
"""Row groups behind which a second file is written beside the first: compressing takes one core for each file."""

_UNIQUE = {
    "header", "object_id", "uri", "content_digest", "stable_digest", "bytes_digest", "pixel_digest", "digest",
    "SOPInstanceUID", "resource",
}  # fmt: skip
"""Columns in which hardly a value stands twice: a dictionary of them is made in vain."""

_BLOOM = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


def group_rows(name: str) -> int:
    """Rows of a row group of a table."""
    return _ROW_GROUPS.get(name, ROW_GROUP)


def bloom_columns(table: Table) -> list[str]:
    """Columns by which single rows of large tables are looked up: their files carry Bloom filters for them."""
    return [column for column in _BLOOM if column in table] if table.name in ("flat_metadata", "instance") else []


def pack(files: LakeFiles, table: Table, groups: Iterable[pa.Table], label: str = "") -> AddAction:
    """Writes one Parquet file of one row group after the other; what a commit says of it. Raises LakeError.

    label: what its name says besides.
    """
    keys = statistics_columns(table)
    low: dict[str, str] = {}
    high: dict[str, str] = {}
    count = 0
    looked_up = {column: {"ndv": group_rows(table.name), "fpp": 0.01} for column in bloom_columns(table)}
    path = f"part-{uuid.uuid4()}{label}.zstd.parquet"
    # A footer names every column of every row group, and a query opens them all: statistics of columns that nothing is
    # sorted by would only make it longer.
    with files.writing(f"{table.name}/{path}") as sink:
        with pq.ParquetWriter(
            sink,
            table.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[name for name in table.schema.names if name not in _UNIQUE],
            write_statistics=[*dict.fromkeys([*keys, *looked_up])],
            bloom_filter_options=looked_up or None,
            store_schema=False,
        ) as writer:
            for group in groups:
                count += len(group)
                for column in keys:
                    ends = pc.min_max(group[column]).as_py()
                    if ends["min"] is not None:
                        low[column] = min(low.get(column, ends["min"]), ends["min"])
                        high[column] = max(high.get(column, ends["max"]), ends["max"])
                writer.write_table(group, len(group))
        size = sink.tell()
    stats = {"numRecords": count, "minValues": low, "maxValues": high, "nullCount": dict.fromkeys(low, 0)}
    return AddAction(path, size, {}, int(time.time() * 1000), True, json.dumps(stats))


def pack_rows(files: LakeFiles, table: Table, rows: Iterable[pa.RecordBatch]) -> list[AddAction]:
    """Writes rows as one Parquet file, or as two side by side where they are many; none without rows. Raises LakeError.

    A row group is in memory for each file. What is never committed is nobody's; vacuum deletes it.
    """
    groups, turn = row_groups(table, rows), Lock()

    def taken() -> Iterator[pa.Table]:
        while True:
            with turn:
                group = next(groups, None)
            if group is None:
                return
            yield group

    with ThreadPoolExecutor(1) as pool:
        beside: list[Future[AddAction]] = []

        def own() -> Iterator[pa.Table]:
            for number, group in enumerate(taken(), start=1):
                if number == ALONE and (other := next(taken(), None)) is not None:
                    beside.append(pool.submit(pack, files, table, chain([other], taken())))
                yield group

        mine = own()
        first = next(mine, None)
        packed = [] if first is None else [pack(files, table, chain([first], mine))]
        return [*packed, *(one.result() for one in beside)]


def row_groups(table: Table, rows: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows, cut into row groups: full ones as far as ROW_GROUP_BYTES allows. NULL in columns they lack."""
    schema, full = table.schema, group_rows(table.name)
    held: list[pa.RecordBatch] = []
    count = size = 0
    for batch in rows:
        held.append(conform(batch, schema))
        count, size = count + len(batch), size + held[-1].nbytes
        while count >= full or size >= ROW_GROUP_BYTES:
            whole = pa.Table.from_batches(held)
            yield whole.slice(0, full)
            held = whole.slice(full).to_batches()
            count, size = sum(map(len, held)), sum(part.nbytes for part in held)
    if count:
        yield pa.Table.from_batches(held)
