"""raw_files: a batch's manifest, with every archive opened up into its members.

Belongs here: giving a manifest to a reading engine in chunks, leaving out what earlier batches have accounted for, and
staging what comes back. Does not belong here: what an object is and what it holds (`listing`), judging it (`judge`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.known import Known
from dicom_assets.lake.staging import RAW_STAGED, Part, Staging
from dicom_assets.landing.opening import open_store
from dicom_assets.reading.engine import ReadingEngine, worker_count
from dicom_assets.reading.listing import ROWS, ClaimedObject, Listed, ListingChunk, cut, list_chunk
from dicom_assets.settings import Settings, SourceSettings

SHARES = 2
"""Chunks for each process at least, so that all of them have finished at about the same time."""


class _Parts:
    """Collects rows and stages them in files of a bounded number of rows."""

    def __init__(self, staging: Staging) -> None:
        self._staging, self._number = staging, 0
        self._held: list[pa.Table] = []
        self._rows = self.total = 0

    def add(self, rows: pa.Table) -> None:
        self.total, self._rows = self.total + len(rows), self._rows + len(rows)
        self._held.append(rows)
        if self._rows >= ROWS:
            whole = pa.concat_tables(self._held)
            for start in range(0, self._rows - ROWS + 1, ROWS):
                self._put(whole.slice(start, ROWS))
            self._held = [whole.slice(self._rows // ROWS * ROWS)]
            self._rows %= ROWS

    def close(self) -> None:
        if self._rows or not self._number:  # a batch that everything has left has a file without rows
            self._put(pa.concat_tables([RAW_STAGED.empty_table(), *self._held]))

    def _put(self, rows: pa.Table) -> None:
        self._staging.put(Part.RAW, self._number, rows.combine_chunks())
        self._number += 1


def nothing_known(uri: str) -> frozenset[str]:
    """No entry of a window file is accounted for."""
    return frozenset()


def expand(
    manifest: pa.Table,
    source: SourceSettings,
    settings: Settings,
    staging: Staging,
    engine: ReadingEngine,
    known: Known = nothing_known,
    settled: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Stages one row for each object of a manifest and each member of each archive in it; how many there are.

    An object that cannot be opened, or at which reading processes end, keeps its row, with the code that it will end
    in. known: entries of a window file that earlier batches have accounted for; they are not claimed again. settled:
    codes of objects that are not opened. Of a manifest without objects a file without rows is
    staged. Raises EngineFailed, SettingsError,
    LakeError.
    """
    staging.clear(Part.RAW)
    open_store(source)  # says what is wrong with the settings, which a reading process cannot
    parts = _Parts(staging)
    with closing(engine.run(list_chunk, _chunks(manifest, source, settings, staging.batch_id, settled))) as results:
        for listed in results:
            parts.add(_unaccounted(listed, known))
    parts.close()
    return parts.total


def _chunks(
    manifest: pa.Table, source: SourceSettings, settings: Settings, batch_id: str, settled: Mapping[str, str]
) -> Iterator[ListingChunk]:
    columns = manifest.select(["object_id", "uri", "etag", "size", "modified_at"])
    objects = [ClaimedObject(**row, verdict=settled.get(row["object_id"])) for row in columns.to_pylist()]
    shares = SHARES * worker_count(settings.reading)
    for some in cut(objects, settings.reading.chunk_objects, shares):
        claimed_at = manifest["claimed_at"][0].as_py()
        believed = settings.corrections.patterns_of(source.name)
        yield ListingChunk(batch_id, claimed_at, source, settings.archives, some, settings.clinical, believed)


def _unaccounted(listed: Listed, known: Known) -> pa.Table:
    """The rows but for entries of window files that earlier batches have accounted for."""
    rows = pa.ipc.open_file(pa.BufferReader(listed.rows)).read_all()
    for uri in listed.revised:
        entries = pc.and_(pc.equal(rows["uri"], uri), pc.is_valid(rows["member"]))
        accounted = pa.array(sorted(known(uri)), pa.string())
        rows = rows.filter(pc.invert(pc.and_(entries, pc.is_in(rows["object_id"], value_set=accounted))))
    return rows
