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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

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
from dicom_assets.lake.keys import HASHED, place
from dicom_assets.lake.query import connected, scan
from dicom_assets.lake.registry import TABLES, Table

_FILE_ROWS = {"instance": 8_192, "series": 2_048, "study": 1_024, "imaging_study": 64}
_OTHER_FILE_ROWS = 2_048

_FILES_AT_ONCE = 4
"""Files of a table that are rewritten side by side: on Azure most of it is waiting."""

ROW_GROUP = 10_000
"""Rows of a row group: a header of 10 KB in each keeps it at 100 MB in memory."""


def file_rows(name: str) -> int:
    """Rows of a file of a table that is replaced by study.

    It is what one touched study makes a publication rewrite, and the table has one file for so many rows to be opened
    by a query over all of it: less of the one is more of the other.
    """
    return _FILE_ROWS.get(name, _OTHER_FILE_ROWS)


def replace_keys(lake: Lake, name: str, keys: Sequence[str], rows: pa.Table) -> None:
    """Replaces, in one commit, the rows of some studies in a table that is replaced by study.

    keys: values of the table's `replaced_by` column, mostly study_keys; `rows` has rows of these alone. Each file that
    holds one of them is rewritten in its place, with the new rows of its studies; studies that are new to the table
    come into files of their own. So files keep the narrow ranges that maintenance gave them. Raises LakeError.
    """
    if not keys:
        return
    column = TABLES[name].replaced_by
    rows = in_order(rows, column)

    def change(table: DeltaTable, now: Extents) -> tuple[npt.NDArray[np.int64], list[AddAction]]:
        candidates = np.flatnonzero(now.may_hold(column, keys))
        found = _holding(lake, name, now, candidates, keys)
        homes = dict(reversed(found))  # a study that stands in several files goes into the first of them
        holding = np.array(sorted({index for _, index in found}), dtype=np.int64)
        placed = pa.array([homes.get(key, -1) for key in rows[column].to_pylist()], pa.int64())

        def rewritten(index: int) -> list[AddAction]:
            own = rows.filter(pc.equal(placed, index))
            kept = rows.slice(0, 0)
            if index >= 0:
                kept = _without(get_file(lake, TABLES[name], str(now.paths[index])), column, keys)
            merged = _spliced(kept, own, column)
            return [put_file(lake, TABLES[name], part) for part in split(merged, column, file_rows(name))]

        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            found_adds = pool.map(rewritten, [*holding.tolist(), -1])
            return holding, [add for adds in found_adds for add in adds]

    swap(lake, name, change, data_change=True)


def replace_batches(
    lake: Lake, name: str, batches: Sequence[str], rows: Callable[[], Iterator[pa.RecordBatch]]
) -> None:
    """Replaces, in one commit, the rows of some batches in a table that is replaced by batch, for rows that are large.

    rows: begins the stream of new rows anew for each try. A few thousand rows are in memory at a time, where delta-rs
    holds a hundred megabytes. Raises LakeError.
    """
    column, table = TABLES[name].replaced_by, TABLES[name]

    def change(_: DeltaTable, now: Extents) -> tuple[npt.NDArray[np.int64], list[AddAction]]:
        candidates = np.flatnonzero(now.may_hold(column, batches))
        holding = np.array(sorted({index for _, index in _holding(lake, name, now, candidates, batches)}), np.int64)
        adds: list[AddAction] = []
        for index in holding:
            whole = (pa.Table.from_batches([part]) for part in _stream(lake, table, [str(now.paths[index])]))
            kept = (batch for part in whole for batch in _without(part, column, batches).to_batches())
            adds += _put_stream(lake, table, kept)
        return holding, adds + _put_stream(lake, table, rows())

    swap(lake, name, change, data_change=True)


def _put_stream(lake: Lake, table: Table, rows: Iterator[pa.RecordBatch]) -> list[AddAction]:
    """A file of these rows; none when there are no rows."""
    filled = (batch for batch in rows if len(batch))
    first = next(filled, None)
    return [] if first is None else [put_file(lake, table, chain([first], filled))]


@dataclass(frozen=True)
class Merge:
    """Files to merge (indexes), and the values at which new files begin."""

    files: npt.NDArray[np.int64]
    edges: Sequence[str] = ()


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
    spread = table.replaced_by not in (*HASHED, "batch_id")
    first: str | None = None
    last: str | None = None
    looked_up = {column: {"ndv": ROW_GROUP, "fpp": 0.01} for column in bloom_columns(table)}
    batches = rows.combine_chunks().to_batches(ROW_GROUP) if isinstance(rows, pa.Table) else rows
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
            if spread and len(batch):
                places = _places(batch[table.replaced_by], table.replaced_by)
                first, last = min([*filter(None, [first]), *places]), max([*filter(None, [last]), *places])
            for column in keys:
                ends = pc.min_max(batch[column]).as_py()
                if ends["min"] is not None:
                    low[column] = min(low.get(column, ends["min"]), ends["min"])
                    high[column] = max(high.get(column, ends["max"]), ends["max"])
            writer.write_batch(batch.cast(schema) if batch.schema != schema else batch, ROW_GROUP)
    data = sink.getvalue()
    range_of_places = f"{first}-{last}-" if first is not None else ""
    path = f"part-{range_of_places}{uuid.uuid4()}.zstd.parquet"
    lake.files.put(f"{table.name}/{path}", data)
    stats = {"numRecords": count, "minValues": low, "maxValues": high, "nullCount": dict.fromkeys(low, 0)}
    return AddAction(path, len(data), {}, int(time.time() * 1000), True, json.dumps(stats))


def _places(values: pa.Array | pa.ChunkedArray, column: str) -> npt.NDArray[np.object_]:
    """The places of rows by the column that their table is replaced by."""
    return np.array([place(column, value) for value in values.to_pylist()], dtype=object)


def in_order(rows: pa.Table, column: str) -> pa.Table:
    """Rows in the order of their places, in which a table that is replaced by this column keeps them."""
    if column in HASHED:
        return rows.sort_by(column)
    return rows.take(pa.array(np.argsort(_places(rows[column], column), kind="stable")))


def split(rows: pa.Table, column: str, bound: int) -> Iterator[pa.Table]:
    """Cuts rows that are in order into even parts of about `bound` rows; equal values stay in one part."""
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


def get_file(lake: Lake, table: Table, path: str) -> pa.Table:
    """The rows of one Parquet file of a table."""
    return lake.files.get_parquet(f"{table.name}/{path}", table.schema.names).cast(table.schema)


def merge_studies(lake: Lake, name: str, merges: Callable[[Extents], Merge | None]) -> bool:
    """Merges some files of a table that is replaced by study; whether there was anything to merge.

    merges: takes the extents and names the files, and the values below which the new files are to end.
    """
    column, table, done = TABLES[name].replaced_by, TABLES[name], False

    def change(_: DeltaTable, now: Extents) -> tuple[npt.NDArray[np.int64], list[AddAction]]:
        nonlocal done
        merge = merges(now)
        done = merge is not None
        if merge is None:
            return np.empty(0, np.int64), []
        rows = in_order(pa.concat_tables([get_file(lake, table, str(now.paths[i])) for i in merge.files]), column)
        edges = np.searchsorted(_places(rows[column], column), list(merge.edges)).tolist()
        adds = [
            put_file(lake, table, part)
            for start, end in zip([0, *edges], [*edges, len(rows)], strict=True)
            for part in split(rows.slice(start, end - start), column, file_rows(name))
        ]
        return merge.files, adds

    swap(lake, name, change, data_change=False)
    return done


def merge_batches(lake: Lake, name: str, merges: Callable[[Extents], Sequence[npt.NDArray[np.int64]]]) -> bool:
    """Merges some files of a table that is replaced by batch, in their order; whether there was anything to merge.

    merges: takes the extents and names the files of each new file. One file and one row group are in memory at a time.
    """
    done = False

    def change(_: DeltaTable, now: Extents) -> tuple[npt.NDArray[np.int64], list[AddAction]]:
        nonlocal done
        groups = [group for group in merges(now) if len(group) > 1]
        done = bool(groups)
        adds = [
            put_file(lake, TABLES[name], _stream(lake, TABLES[name], now.paths[group].tolist())) for group in groups
        ]
        return np.concatenate(groups) if groups else np.empty(0, np.int64), adds

    swap(lake, name, change, data_change=False)
    return done


def _stream(lake: Lake, table: Table, paths: Iterable[str]) -> Iterator[pa.RecordBatch]:
    """Rows of some files one after the other, cut into full row groups."""
    held: list[pa.RecordBatch] = []
    for path in paths:
        file = pq.ParquetFile(io.BytesIO(lake.files.get(f"{table.name}/{path}")))
        for batch in file.iter_batches(ROW_GROUP, columns=table.schema.names):
            held.append(batch)
            while sum(map(len, held)) >= ROW_GROUP:
                whole = pa.Table.from_batches(held).combine_chunks()
                yield from whole.slice(0, ROW_GROUP).combine_chunks().to_batches()
                held = whole.slice(ROW_GROUP).to_batches()
    if held:
        yield from pa.Table.from_batches(held).combine_chunks().to_batches()


def _without(rows: pa.Table, column: str, keys: Sequence[str]) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows[column], pa.array(keys, pa.string()))))


def _spliced(rows: pa.Table, more: pa.Table, column: str) -> pa.Table:
    """Rows of a file and more, which are in order, as one table in order, without moving single rows."""
    held = _places(rows[column], column)
    if (held[1:] < held[:-1]).any():  # a file that another writer made
        return in_order(pa.concat_tables([rows, more]), column)
    values = _places(more[column], column).tolist()
    places = np.searchsorted(held, np.array(values, dtype=object))
    parts: list[pa.Table] = []
    taken = 0
    for start, end in _runs(values):
        parts += [rows.slice(taken, int(places[start]) - taken), more.slice(start, end - start)]
        taken = int(places[start])
    return pa.concat_tables([*parts, rows.slice(taken)]).combine_chunks()


def _runs(values: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start and end of each run of equal values."""
    start = 0
    for end in range(1, len(values) + 1):
        if end == len(values) or values[end] != values[start]:
            yield start, end
            start = end
