"""The instances of the studies that a batch touches, in the columns of geometry and conflicts: read once for both.

Belongs here: which columns, and reading them. Does not belong here: what follows from them.

Steps and rules of a batch look at the same files of `instance` one after the other, which are as many as studies were
rewritten by different batches; opening one that has 160 columns costs more than its rows. A rule has SQL of its own
over these rows: what lies in files is a fact for both.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from dicom_assets.curation import told
from dicom_assets.curation.series_images import INSTANCE_COLUMNS
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.file_answers import answer
from dicom_assets.lake.query import arrow, connect, scan, where
from dicom_assets.lake.staging import Staging
from dicom_assets.lake.studies import study_scope

ROWS_AT_ONCE = 20_000
"""Instances that are in memory together; where there are more, each reader takes them from the files."""

COLUMNS = tuple(dict.fromkeys([*INSTANCE_COLUMNS, *told.INSTANCE_COLUMNS]))


def read_instances(lake: Lake, staging: Staging | None, studies: Sequence[str]) -> pa.Table | None:
    """The current instances of some studies in COLUMNS; None where they are more than ROWS_AT_ONCE. Raises LakeError.

    staging: of the batch that is held, which keeps them as long as their files are the same.
    """
    scope = {"study_key": studies}
    listed = ", ".join(f'"{name}"' for name in COLUMNS)
    source = f"{scan(lake, 'instance', within=scope)}{where(scope)}"
    found = answer(lake, staging, f"SELECT {listed} FROM {source} LIMIT {ROWS_AT_ONCE + 1}", _few_enough)
    return found if len(found) <= ROWS_AT_ONCE else None


def _few_enough(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """Of too many rows one column alone is kept, which tells that they are."""
    found = arrow(connection, sql)
    return found if len(found) <= ROWS_AT_ONCE else found.select(["study_key"])


def open_instances(lake: Lake, staging: Staging | None, studies: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """A connection with the table `instance`, the current instances of some studies, in COLUMNS. Raises LakeError."""
    rows = read_instances(lake, staging, studies)
    if rows is None:
        return connect(lake, ["instance"], within=study_scope(lake, ["instance"], studies))
    connection = lake.cursor()
    connection.register("instance", rows)
    return connection
