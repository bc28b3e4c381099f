"""Counts over a whole table, put together from what each of its files counts: a file never changes, so it is read once.

Belongs here: counts by file, kept in the lake beside the tables, and their sums. Does not belong here: what is counted
(`dicom_assets.omop.coverage`).

What is kept is a cache: without it, when a power cut has torn it, or when it belongs to another version of the
question, files are read again. Two processes that write it at once leave one of their answers, which the next one
completes.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, scan
from dicom_assets.storage.files import TornFile, arrow_bytes

FOLDER = "_summaries"

COUNTS = pa.schema(
    [
        pa.field("measure", pa.string()),
        pa.field("value", pa.string()),
        pa.field("mapped", pa.bool_()),
        pa.field("rows", pa.int64()),
    ]
)
"""How many rows have a value in a measure, and whether that value is mapped."""

_FILE = pa.field("file", pa.string())


def counts(lake: Lake, name: str, measures: str) -> pa.Table:
    """COUNTS of a table as it is now, a row for each measure, value and mapped.

    measures: SQL for the list of structs (measure, value, mapped) that one row of the table counts for. Raises
    LakeError.
    """
    sql = (
        "SELECT parse_filename(filename) AS file, one.measure, one.value, one.mapped, count(*) AS rows "
        f"FROM (SELECT filename, unnest({measures}) AS one FROM {{source}}) GROUP BY ALL ORDER BY ALL"
    )
    kept = of_files(lake, name, measures, sql, COUNTS)
    with lake.cursor() as connection:  # Arrow's own grouping would load its data sets, 40 MB of memory
        connection.register("kept", kept)
        sql = "SELECT measure, value, mapped, sum(rows)::BIGINT AS rows FROM kept WHERE rows > 0 GROUP BY ALL"
        return arrow(connection, f"{sql} ORDER BY ALL").cast(COUNTS)


def of_files(lake: Lake, name: str, question: str, sql: str, columns: pa.Schema) -> pa.Table:
    """What SQL says of each file that a table has now: file, which is its path, and other columns. Raises LakeError.

    question: what tells the SQL from others about the table. sql: of {source}, rows with `filename`; gives as file its
    name alone. A file of which it gives nothing has a row of NULL.
    """
    schema = pa.schema([_FILE, *columns])
    now = lake.extents(name).paths.tolist()
    place = f"{FOLDER}/{name}-{hashlib.sha256(question.encode()).hexdigest()[:16]}.arrow"
    kept = _kept(lake, place, schema)
    known = set(kept["file"].unique().to_pylist())
    fresh = [path for path in now if path not in known]
    if fresh or len(known) > len(now) - len(fresh):
        present = kept.filter(pc.is_in(kept["file"], pa.array(now, pa.string())))
        kept = pa.concat_tables([present, _read(lake, name, fresh, sql, schema)])
        lake.files.put(place, arrow_bytes(kept), durable=False)
    return kept


def _kept(lake: Lake, place: str, schema: pa.Schema) -> pa.Table:
    try:
        return pa.Table.from_batches(lake.files.arrow_batches(place), schema)
    except (FileNotFoundError, TornFile):
        return schema.empty_table()


def _read(lake: Lake, name: str, paths: list[str], sql: str, schema: pa.Schema) -> pa.Table:
    if not paths:
        return schema.empty_table()
    with lake.cursor() as connection:
        found = arrow(connection, sql.replace("{source}", scan(lake, name, paths=paths, filename=True)))
    by_name = {path.rsplit("/", 1)[-1]: path for path in paths}
    files = pa.array([by_name[file] for file in found["file"].to_pylist()], pa.string())
    silent = sorted(set(paths) - set(files.to_pylist()))  # these count for nothing, which is to be known as well
    nothing = pa.Table.from_pylist([{"file": path} for path in silent], schema=schema)
    return pa.concat_tables([found.set_column(0, "file", files).cast(schema), nothing])
