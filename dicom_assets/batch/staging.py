"""Where a batch's rows wait until its checks have passed: `{lake}/_staging/{batch_id}/{part}/…arrow`.

Belongs here: the parts and their schemas, writing, reading, clearing. Staged rows are as the tables will have them,
without batch_id where a part says so. Does not belong here: what the rows mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from dicom_assets.lake.files import LakeError, LakeFiles, arrow_bytes
from dicom_assets.lake.registry import (
    CLINICAL,
    FLAT_METADATA,
    INGESTION_ERRORS,
    RAW_FILES,
    VALIDATED_BATCH,
)

FOLDER = "_staging"


class Part(StrEnum):
    """One kind of staged rows."""

    RAW = "raw_files"
    LEDGER = "validated_batch"
    FLAT = "flat_metadata"
    CLINICAL = "clinical"
    ERRORS = "ingestion_errors"
    TOUCHED = "touched_studies"


LOCATION = pa.struct(
    [
        pa.field("uri", pa.string()),
        pa.field("etag", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("member", pa.string()),
        pa.field("entry", pa.list_(pa.int64())),
        pa.field("container_size", pa.int64()),
    ]
)
"""Where an object lies; member, entry and container_size where that is in an archive."""

RAW_STAGED = pa.schema(
    [
        *RAW_FILES.schema,
        pa.field("entry", pa.list_(pa.int64())),
        pa.field("container_size", pa.int64()),
        pa.field("verdict", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("at", LOCATION),
    ]
)
"""raw_files with what reading needs besides.

entry, container_size: place in the container, and its size. verdict: a code that is settled already. at: where the
object lies now, if it was moved since it was claimed.
"""

SCHEMAS: dict[Part, pa.Schema] = {
    Part.RAW: RAW_STAGED,
    Part.LEDGER: VALIDATED_BATCH.schema,
    Part.FLAT: FLAT_METADATA.schema,
    Part.CLINICAL: CLINICAL.schema,
    Part.ERRORS: INGESTION_ERRORS.schema,
    Part.TOUCHED: pa.schema([pa.field("study_key", pa.string())]),
}


class StagingMissing(LakeError):
    """An asset was run alone, and what it needs is not staged any more."""


@dataclass(frozen=True)
class Staging:
    """The staged rows of one batch."""

    files: LakeFiles
    batch_id: str

    @property
    def folder(self) -> str:
        """The batch's own prefix; nothing else is ever deleted."""
        return f"{FOLDER}/{self.batch_id}"

    def scope(self, *tables: str) -> dict[str, dict[str, list[str]]]:
        """What to open of some tables to see the batch's own rows; for `lake.query.connect`."""
        return {name: {"batch_id": [self.batch_id]} for name in tables}

    def put(self, part: Part, number: int, table: pa.Table) -> None:
        """Stages rows as file `number` of a part, whole or not at all."""
        self.put_bytes(part, number, arrow_bytes(table))

    def put_bytes(self, part: Part, number: int, arrow: bytes) -> None:
        """Stages rows that are an Arrow file already."""
        self.files.put(f"{self.folder}/{part}/{number:06d}.arrow", arrow)

    def batches(self, part: Part, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The staged rows of a part, `lake.files.ARROW_ROWS` in memory at a time."""
        for name in self.files.names(f"{self.folder}/{part}"):
            yield from self.files.arrow_batches(name, columns)

    def read(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        """All rows of a part; not for parts that hold headers."""
        schema = SCHEMAS[part]
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        return pa.Table.from_batches(self.batches(part, columns), schema)

    def clear(self, *parts: Part) -> None:
        """Deletes parts, so that a rerun starts anew."""
        for part in parts:
            self.files.delete(f"{self.folder}/{part}")

    def require(self, part: Part) -> None:
        """Raises StagingMissing when nothing of a part is staged."""
        if not self.files.names(f"{self.folder}/{part}"):
            raise StagingMissing(
                f"Batch {self.batch_id} has no staged {part}: its staging is gone since it closed. "
                "Run the whole job: dagster job backfill -j ingest_batch --partitions "
                f"{self.batch_id} --noprompt"
            )

    def remove(self) -> int:
        """Deletes the batch's staging; how many files there were."""
        return self.files.delete(self.folder)

    def left(self) -> int:
        """How many staged files there are."""
        return len(self.files.names(self.folder))
