"""What of a cohort lies at a destination: written down as it goes on, so that an export that was killed goes on.

Belongs here: lines of what was written, in files that are written once, and folding them together. Does not belong
here: writing objects (`export`).

A line is written behind its object. A kill loses the lines of at most LINES_AT_ONCE objects, which are written again,
to the same bytes. Of an object with several lines the last one counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import duckdb
import pyarrow as pa

from dicom_assets.storage.files import LakeFiles

LINES_AT_ONCE = 100
SECONDS_AT_ONCE = 5.0
_FOLDED = 50_000

LINE = pa.schema(
    [
        pa.field("object_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("mark", pa.string()),
        *(pa.field(name, pa.string()) for name in ("study", "series", "instance", "patient")),
        *(pa.field(f"former_{name}", pa.string()) for name in ("study", "series", "instance", "patient", "issuer")),
        pa.field("left", pa.list_(pa.string())),
        pa.field("why", pa.string()),
    ]
)
"""One line for each object and try.

path, sha256, size, mark: of the file, of which a line that says `why` has none. study to patient: identifiers as they
were exported; former: as they were before, and left: as of `deidentification.Deidentified`, both only of what was
de-identified.
"""


class Journal:
    """The lines of one export."""

    def __init__(self, files: LakeFiles, folder: str) -> None:
        """files, folder: where they lie."""
        self._files, self._folder = files, folder
        self._waiting: list[Mapping[str, Any]] = []
        self._since = time.monotonic()
        self._number = self._next()

    def _next(self) -> int:
        names = self._files.names(self._folder)
        return 1 + max((int(name.rpartition("/")[2].removesuffix(".parquet")) for name in names), default=-1)

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever written down."""
        return not self._files.names(self._folder)

    def begin(self) -> None:
        """Writes down that an export has begun, before its first object."""
        if self.is_new:
            self._put([])

    def add(self, line: Mapping[str, Any]) -> None:
        """Takes a line, and writes those that wait when they are many or have waited long. Raises LakeError."""
        self._waiting.append(line)
        if len(self._waiting) >= LINES_AT_ONCE or time.monotonic() - self._since >= SECONDS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Writes the lines that wait. Raises LakeError."""
        if self._waiting:
            self._put(self._waiting)
        self._waiting, self._since = [], time.monotonic()

    def _put(self, lines: Iterable[Mapping[str, Any]]) -> None:
        rows = pa.Table.from_pylist(list(lines), schema=LINE)
        self._files.put_parquet(f"{self._folder}/{self._number:08d}.parquet", rows)
        self._number += 1

    def load(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Makes table `lines` of a connection: the last line of each object. Raises LakeError."""
        connection.register("no_lines", LINE.empty_table().append_column("number", pa.array([], pa.int64())))
        connection.execute("CREATE OR REPLACE TEMP TABLE all_lines AS FROM no_lines")
        at = 0
        for rows in self._rows():
            connection.register(
                "some_lines", rows.append_column("number", pa.array(range(at, at + len(rows)), pa.int64()))
            )
            connection.execute("INSERT INTO all_lines FROM some_lines")
            connection.unregister("some_lines")
            at += len(rows)
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE lines AS SELECT * EXCLUDE (number) FROM all_lines "
            "QUALIFY row_number() OVER (PARTITION BY object_id ORDER BY number DESC) = 1"
        )
        connection.execute("DROP TABLE all_lines")

    def fold(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Writes table `lines` in few files in place of the many that it came from. Raises LakeError."""
        before = self._files.names(self._folder)
        if len(before) < 2:
            return
        for batch in connection.sql("FROM lines ORDER BY object_id").to_arrow_reader(_FOLDED):
            rows = pa.Table.from_batches([batch]).select(LINE.names).cast(LINE)
            self._files.put_parquet(f"{self._folder}/{self._number:08d}.parquet", rows)
            self._number += 1
        for name in before:  # behind the new ones, whose lines are the last
            self._files.remove(name)

    def _rows(self) -> Iterator[pa.Table]:
        for name in self._files.names(self._folder):
            yield self._files.get_parquet(name).cast(LINE)
