"""The index of the Imaging Data Commons as a lake: 168,507 studies, a million series, what real archives are like.

    pip install idc-index-data
    python -m bench.idc_lake FOLDER [--index FILE]

`study` and `series` are filled, as clean-up leaves them; `instance` is not: the index has a row for each series. An
index has few attributes, so names and accession numbers are the identifiers of patients and studies, as they often are
in public collections.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.positions import sort_rows
from dicom_assets.lake.rewrite import put_files, swap
from dicom_assets.schema.keys import study_key
from dicom_assets.schema.registry import TABLES

SOURCE = "landing"
STAMP = "TIMESTAMPTZ '2026-01-01T00:00:00Z'"
_PART = 250_000

_OWN = {
    "source": f"'{SOURCE}'",
    "study_key": "study_key",
    "object_id": "substr(md5(StudyInstanceUID), 1, 20)",
    "version_at": STAMP,
    "first_seen_at": STAMP,
    "updated_at": STAMP,
    "patient_count": "1",
    "StudyInstanceUID": "StudyInstanceUID",
    "StudyDate": "any_value(try_cast(StudyDate AS DATE))",
    "StudyDescription": "any_value(StudyDescription)",
    "StudyID": "right(StudyInstanceUID, 8)",
    "AccessionNumber": "right(StudyInstanceUID, 16)",
    "PatientID": "any_value(PatientID)",
    "PatientName": "any_value(PatientID)",
    "PatientSex": "any_value(PatientSex)",
    "PatientAge": "any_value(PatientAge)",
    "instance_count": "sum(instanceCount)::BIGINT",
    "size": "sum(series_size_MB * 1e6)::BIGINT",
}
_VALUES = {
    "study": {
        **_OWN,
        "series_count": "count(*)",
        "ModalitiesInStudy": "list_sort(list(DISTINCT Modality) FILTER (Modality IS NOT NULL))",
    },
    "series": {
        **_OWN,
        "SeriesInstanceUID": "SeriesInstanceUID",
        "SeriesNumber": "any_value(try_cast(SeriesNumber AS BIGINT))",
        "SeriesDate": "any_value(try_cast(SeriesDate AS DATE))",
        **{name: f"any_value({name})" for name in ("Modality", "SeriesDescription", "BodyPartExamined")},
        **{name: f"any_value({name})" for name in ("Manufacturer", "ManufacturerModelName")},
    },
}
"""By table, the values of its columns in a query that is grouped by its key."""


def make(uri: str, index: Path) -> Lake:
    """Makes the lake from the index, a Parquet file."""
    lake = Lake(uri)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        uids = [
            uid
            for (uid,) in connection.execute(
                "SELECT DISTINCT StudyInstanceUID FROM read_parquet(?)", [str(index)]
            ).fetchall()
        ]
        keys = pa.table({"StudyInstanceUID": uids, "study_key": [study_key(SOURCE, uid) for uid in uids]})
        connection.register("keys", keys)
        for name, values in _VALUES.items():
            _fill(lake, connection, name, values, index)
    return lake


def _fill(lake: Lake, connection: duckdb.DuckDBPyConnection, name: str, values: dict[str, str], index: Path) -> None:
    table = TABLES[name]
    columns = ", ".join(f'{values.get(c.name, "NULL")} AS "{c.name}"' for c in table.columns)
    grain = ", ".join(["study_key", *(c for c in table.key if c.endswith("InstanceUID"))])
    rows = connection.sql(
        f"-- one row per {name}\n"
        f"SELECT {columns} FROM read_parquet(?) JOIN keys USING (StudyInstanceUID) GROUP BY {grain} ORDER BY study_key",
        params=[str(index)],
    ).to_arrow_table()
    adds = []
    for start in range(0, len(rows), _PART):
        adds += put_files(lake, name, sort_rows(name, rows.slice(start, _PART).cast(table.schema)))
    swap(lake, name, lambda *_: (np.empty(0, np.int64), adds), data_change=True)


def installed_index() -> Path | None:
    """The index of the package idc-index-data, where it is installed."""
    found = importlib.util.find_spec("idc_index_data")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / "idc_index.parquet"


def main() -> None:
    """Makes a lake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--index", type=Path, default=installed_index(), help="its Parquet file")
    arguments = parser.parse_args()
    if arguments.index is None:
        parser.error("Install idc-index-data, or give --index.")
    lake = make(arguments.folder, arguments.index)
    print({name: lake.row_count(name) for name in _VALUES})


if __name__ == "__main__":
    main()
