"""flat_metadata of a batch as files that a commit can name: packed by a reading process that has nothing to read.

Belongs here: the job of packing, on both sides. Headers are most of what a lake holds, and packing them in this process
would hold up its threads, which share its memory. Like `judge` it imports neither Dagster nor DuckDB nor delta-rs.
Does not belong here: how a file is packed (`lake.pack`), and the commit (`publish`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from dicom_assets.lake.pack import PackedFile, pack_rows
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.reading.engine import EngineFailed, ReadingEngine
from dicom_assets.schema.registry import FLAT_METADATA
from dicom_assets.storage.files import LakeFiles


@dataclass(frozen=True)
class StagedRows:
    """A batch's staged rows of flat_metadata as a chunk for an engine: no object of it is opened, so it names none."""

    uri: str
    batch_id: str
    objects: tuple[()] = ()
    poison: Mapping[str, str] = field(default_factory=dict)


def pack_staged(chunk: StagedRows, beat: Callable[[int], None]) -> PackedFile | None:
    """Packs a batch's staged rows, a row group in memory at a time; None when there are none. Raises LakeError."""
    return _packed(Staging(LakeFiles(chunk.uri), chunk.batch_id), beat)


def pack_flat(staging: Staging, engine: ReadingEngine | None) -> PackedFile | None:
    """Packs a batch's staged rows of flat_metadata, for `publish_flat` to commit; None when there are none.

    engine: does it, where it has nothing else to do and can reach the lake; without it this process does. Raises
    LakeError.
    """
    if engine is not None:
        try:
            (packed,) = engine.run(pack_staged, [StagedRows(staging.files.uri, staging.batch_id)])
            return packed
        except EngineFailed:
            pass  # whatever was wrong there is told by doing it here
    return _packed(staging, lambda _: None)


def _packed(staging: Staging, beat: Callable[[int], None]) -> PackedFile | None:
    return pack_rows(staging.files, FLAT_METADATA, _alive(staging.batches(Part.FLAT), beat))


def _alive(rows: Iterator[pa.RecordBatch], beat: Callable[[int], None]) -> Iterator[pa.RecordBatch]:
    """Tells whoever watches the process that it goes on, however much there is to pack."""
    for number, batch in enumerate(rows):
        beat(number)
        yield batch
