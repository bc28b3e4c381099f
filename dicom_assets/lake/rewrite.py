"""Swapping whole files of a table: rows of some studies or batches replaced, small files merged, in one commit each.

Belongs here: which rows come into which files, and committing which files come and which go. Does not belong here: how
a file is packed (`pack`), when files are worth merging (`maintenance`).

A commit names the files that it takes away, so a commit of somebody else that took one of them away first makes it
fail, and it is worked out anew. Files that a failed commit has written are nobody's; vacuum deletes them.
"""

from __future__ import annotations

import io
import random
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction, RemoveAction

from dicom_assets.lake.column_list import ColumnsChanged
from dicom_assets.lake.extents import Extents
from dicom_assets.lake.pack import pack, pack_rows, row_groups
from dicom_assets.lake.positions import add_positions, is_sorted, order_of, positions, range_in_name, sort_rows
from dicom_assets.lake.table_form import conform, described
from dicom_assets.lake.tables import COMMIT_TRIES, Tables
from dicom_assets.schema.table import Table
from dicom_assets.storage.files import LakeError

_FILE_ROWS = {
    "instance": 16_384,
    "series": 4_096,
    "study": 2_048,
    "series_geometry": 4_096,
    "imaging_study": 64,  # a resource names every instance of its study
    "image_occurrence": 2_048,
    "image_occurrence_origin": 2_048,
}
_OTHER_FILE_ROWS = 2_048
_LEAF_FILES = {"imaging_study": 8}
LEAF_ROWS = 262_144

_AT_ONCE = 2
"""Files that are rewritten side by side."""

_MANY = {"instance": 5}
"""Two files of instance at once take 45 MB more than one, so fewer files than this are rewritten one by one."""

_READ_ROWS = 1_000


def file_rows(name: str) -> int:
    """Rows of a file of a table that is replaced by study.

    It is what one touched study makes a publication rewrite, and the table has one file for so many rows to be opened
    by a query over all of it: less of the one is more of the other.
    """
    return _FILE_ROWS.get(name, _OTHER_FILE_ROWS)


def leaf_rows(name: str) -> int:
    """Rows of a full leaf of the tree that a table by study is: a merge has half as many again in memory at most.

    Larger leaves make for fewer files.
    """
    return min(_LEAF_FILES.get(name, 64) * file_rows(name), LEAF_ROWS)


def replace_keys(lake: Tables, name: str, keys: Sequence[str], rows: pa.Table) -> None:
    """Replaces, in one commit, the rows of some studies in a table that is replaced by study.

    keys: values of the table's `replaced_by` column, mostly study_keys. Each file that holds one of them is rewritten
    in its place, with the new rows of its studies; studies that are new to the table come into files of their own. So
    files keep the narrow ranges that maintenance gave them. Rows of other studies are added to those that the table
    has, in files of their own as well. Raises LakeError.
    """
    if not keys and not len(rows):
        return
    column, order = lake.tables[name].replaced_by, order_of(name)
    rows, places = sort_rows(name, rows), positions(name, keys)

    def change(now: Extents) -> tuple[npt.NDArray[np.int64], list[AddAction]]:
        lacking = {*lake.tables[name].schema.names} - {*rows.schema.names}
        if lacking & {one.column.name for one in lake.columns}:
            raise ColumnsChanged(f"Table {name} has got columns while its rows were made. Run the batch again.")
        candidates = np.flatnonzero(add_positions(name, now).may_hold(order, places))
        held = lake.file_keys.holders(name, now.paths[candidates].tolist(), keys)
        # A study that stands in several files goes into the first of them.
        homes = {
            keys[at]: int(index)
            for index, own in reversed(list(zip(candidates, held, strict=True)))
            for at in np.flatnonzero(own).tolist()
        }
        holding = np.array([i for i, own in zip(candidates, held, strict=True) if own.any()], dtype=np.int64)
        homed = pa.array([homes.get(key, -1) for key in rows[column].to_pylist()], pa.int64())

        def rewritten(index: int) -> list[AddAction]:
            own = rows.filter(pc.equal(homed, index))
            held = get_file(lake, lake.tables[name], str(now.paths[index]))
            if order != column or not is_sorted(held, order):  # or a file that another writer made
                held = sort_rows(name, held)
            return put_files(lake, name, _spliced(held, own, order, places))

        with ThreadPoolExecutor(_AT_ONCE if len(holding) >= _MANY.get(name, 0) else 1) as pool:
            adds = [add for some in pool.map(rewritten, holding.tolist()) for add in some]
        return holding, adds + put_files(lake, name, rows.filter(pc.equal(homed, -1)))

    swap(lake, name, change, data_change=True)


NewFiles = list[AddAction]
"""Files of a table that are written and that no commit names yet."""


def write_rows(lake: Tables, name: str, rows: Iterable[pa.RecordBatch]) -> NewFiles:
    """Writes rows of a table that is replaced by batch, for `replace_batches` to commit. Raises LakeError."""
    return pack_rows(lake.files, lake.tables[name], (lake.complete(name, batch) for batch in rows))


def replace_batches(
    lake: Tables, name: str, batches: Sequence[str], rows: Callable[[], Iterable[pa.RecordBatch]] | NewFiles
) -> None:
    """Replaces, in one commit, the rows of some batches in a table that is replaced by batch.

    rows: begins the stream of new rows anew for each try, or is written already. A file that holds rows of one of these
    batches alone goes as a whole, any other one that holds some is rewritten; one row group is in memory at a time.
    Raises LakeError.
    """
    if not batches:
        return
    column, replaced = lake.tables[name].replaced_by, pa.array(batches, pa.string())

    def change(now: Extents) -> tuple[npt.NDArray[np.int64], list[AddAction]]:
        gone: list[int] = []
        adds: list[AddAction] = []
        for index in np.flatnonzero(now.may_hold(column, batches)).tolist():
            path = str(now.paths[index])
            if column in now.low and now.low[column][index] == now.high[column][index] is not None:
                gone.append(index)
                continue
            there = lake.files.get_parquet(f"{name}/{path}", [column])[column].cast(
                pa.string()
            )  # of other writers, too
            of = pc.is_in(there, replaced)
            if pc.any(of).as_py():
                gone.append(index)
                kept = (
                    batch
                    for group in _stream(lake, lake.tables[name], [path])
                    for batch in _without(group, column, batches).to_batches()
                )
                adds += write_rows(lake, name, kept)
        new = write_rows(lake, name, rows()) if callable(rows) else rows
        return np.array(gone, dtype=np.int64), adds + new

    swap(lake, name, change, data_change=True)


@dataclass(frozen=True)
class Merge:
    """Files to merge (indexes), and the values at which new files begin."""

    files: npt.NDArray[np.int64]
    edges: Sequence[str] = ()


Change = Callable[[Extents], tuple[npt.NDArray[np.int64], list[AddAction]]]
"""Takes the extents of a table, returns which files go (indexes) and which come, written already."""


def swap(lake: Tables, name: str, change: Change, *, data_change: bool) -> None:
    """Commits a change of files; works it out anew when somebody else committed. data_change: False when rows stay."""
    for attempt in range(1, COMMIT_TRIES + 1):
        lake.check_right(name)
        now = lake.extents(name)
        lake.keep_up_with_columns(name)
        gone, adds = change(now)
        if not len(gone) and not adds:
            return
        stamp = int(time.time() * 1000)
        removes = [RemoveAction(str(now.paths[i]), data_change, stamp, int(now.bytes[i])) for i in gone]
        for add in adds:
            add.data_change = data_change
        lake.check_right(name)
        if lake.commit(name, now, [*adds, *removes]):
            return
        if attempt < COMMIT_TRIES:
            time.sleep(random.uniform(0, 0.1 * 2**attempt))
    raise LakeError(f"Table {name}: somebody else commits all the time. Run the batch again.")


def put_files(lake: Tables, name: str, rows: pa.Table) -> list[AddAction]:
    """Writes rows that `positions.ordered` has put in order as files of about `file_rows` rows each."""
    adds: list[AddAction] = []
    for part in split(rows, order_of(name), file_rows(name)):
        adds.append(put_file(lake, lake.tables[name], part))
        lake.file_keys.enter(adds[-1].path, part[order_of(name)].unique().to_pylist())
    return adds


def put_file(lake: Tables, table: Table, rows: pa.Table | Iterable[pa.Table]) -> AddAction:
    """Writes one Parquet file of a table, of rows or of one row group after the other, and says what it holds."""
    label = range_in_name(rows) if isinstance(rows, pa.Table) else ""
    groups = row_groups(table, rows.to_batches()) if isinstance(rows, pa.Table) else rows
    return pack(lake.files, table, groups, label)


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


def get_file(lake: Tables, table: Table, path: str) -> pa.Table:
    """The rows of one Parquet file of a table."""
    held: pa.Table = conform(lake.files.get_parquet(f"{table.name}/{path}"), table.schema)
    return held


def merge_studies(lake: Tables, name: str, merges: Callable[[Extents], Merge | None]) -> bool:
    """Merges some files of a table that is replaced by study; whether there was anything to merge.

    merges: takes the extents and names the files, and the values below which the new files are to end.
    """
    order, table, done = order_of(name), lake.tables[name], False

    def change(now: Extents) -> tuple[npt.NDArray[np.int64], list[AddAction]]:
        nonlocal done
        merge = merges(add_positions(name, now))
        done = merge is not None
        if merge is None:
            return np.empty(0, np.int64), []
        rows = sort_rows(name, pa.concat_tables([get_file(lake, table, str(now.paths[i])) for i in merge.files]))
        edges = np.searchsorted(np.asarray(rows[order].to_pylist(), dtype=object), list(merge.edges)).tolist()
        adds = [
            add
            for start, end in zip([0, *edges], [*edges, len(rows)], strict=True)
            for add in put_files(lake, name, rows.slice(start, end - start))
        ]
        return merge.files, adds

    swap(lake, name, change, data_change=False)
    return done


def merge_batches(lake: Tables, name: str, merges: Callable[[Extents], Sequence[npt.NDArray[np.int64]]]) -> bool:
    """Merges some files of a table that is replaced by batch, in their order; whether there was anything to merge.

    merges: takes the extents and names the files of each new file. One file and one row group are in memory at a time.
    """
    done = False

    def change(now: Extents) -> tuple[npt.NDArray[np.int64], list[AddAction]]:
        nonlocal done
        groups = [group for group in merges(now) if len(group) > 1]
        done = bool(groups)
        adds = [
            put_file(lake, lake.tables[name], _stream(lake, lake.tables[name], now.paths[group].tolist()))
            for group in groups
        ]
        return np.concatenate(groups) if groups else np.empty(0, np.int64), adds

    swap(lake, name, change, data_change=False)
    return done


def rewrite_files(
    lake: Tables, name: str, paths: Sequence[str], change: Callable[[pa.Table], pa.Table], *, data_change: bool
) -> int:
    """Writes some files of a table anew, with as many rows in the same order, in one commit; how many were still there.

    change: takes rows and returns them as they are to be; called for one row group after the other. Not for tables
    whose files say in their names what they hold (`positions`). Raises LakeError.
    """
    done = 0

    def swapped(now: Extents) -> tuple[npt.NDArray[np.int64], list[AddAction]]:
        nonlocal done
        table, wanted = lake.tables[name], {*paths}
        gone = np.array([at for at, path in enumerate(now.paths.tolist()) if path in wanted], dtype=np.int64)
        done = len(gone)
        return gone, [put_file(lake, table, map(change, _stream(lake, table, [str(now.paths[at])]))) for at in gone]

    swap(lake, name, swapped, data_change=data_change)
    return done


def drop_column(lake: Tables, name: str, column: str) -> None:
    """Writes all files of a table anew without a column that its list has no more, in one commit with its log.

    For whoever holds the right to commit. Raises LakeError.
    """
    for _ in range(COMMIT_TRIES):
        now = lake.extents(name)
        kept = [field for field in lake.schema(name) if field.name != column]
        if len(kept) == len(lake.schema(name)):
            return
        table = lake.tables[name]
        adds = [put_file(lake, table, _stream(lake, table, [str(path)])) for path in now.paths]
        anew = described(table.column(field.name) for field in kept if field.name in table)
        columns = [anew.field(field.name) if field.name in table else field for field in kept]
        if lake.commit(name, now, adds, pa.schema(columns)):
            return
    raise LakeError(f"Table {name}: somebody else commits all the time. Run it again.")


def _stream(lake: Tables, table: Table, paths: Iterable[str]) -> Iterator[pa.Table]:
    """Rows of some files one after the other, cut into full row groups."""

    def rows() -> Iterator[pa.RecordBatch]:
        for path in paths:
            file = pq.ParquetFile(io.BytesIO(lake.files.get(f"{table.name}/{path}")))
            for batch in file.iter_batches(_READ_ROWS):
                yield lake.complete(table.name, batch)

    return row_groups(table, rows())


def _without(rows: pa.Table, column: str, keys: Sequence[str]) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows[column], pa.array(keys, pa.string()))))


def _spliced(rows: pa.Table, more: pa.Table, column: str, places: Sequence[str]) -> pa.Table:
    """Sorted rows, with those at some places replaced by more, in one piece: what is cut into many is slow to write.

    Rows of one place lie together, so whole runs are taken: picking row by row takes six times as long.
    """
    held, new = (_runs(one, column) for one in (rows, more))
    parts, done = [], 0
    for place in sorted({*places} & {*held[0], *new[0]}):
        (begin, end), (first, last) = _run_of(held, place), _run_of(new, place)
        parts += [rows.slice(done, begin - done), more.slice(first, last - first)]
        done = end
    return pa.concat_tables([*parts, rows.slice(done)]).combine_chunks()


_Runs = tuple[list[str], list[int]]
"""The different values of sorted rows, and where each begins, with where the last one ends."""


def _runs(rows: pa.Table, column: str) -> _Runs:
    counted = pc.value_counts(rows[column].combine_chunks())
    return counted.field("values").to_pylist(), [0, *np.cumsum(counted.field("counts")).tolist()]


def _run_of(runs: _Runs, value: str) -> tuple[int, int]:
    """Where rows with a value begin and end, or would."""
    values, begins = runs
    at = bisect_left(values, value)
    return begins[at], begins[at + (at < len(values) and values[at] == value)]
