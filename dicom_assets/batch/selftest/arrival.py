"""How far what a self-test delivered has come: claimed, read, published, closed; and what the tables hold of it.

Belongs here: looking, at claims, books and tables. Nothing is written. Does not belong here: waiting (`rehearsal`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.books import Books, Status, all_books
from dicom_assets.batch.selftest.reference_set import EXPECTED, REPORTS, Names
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect
from dicom_assets.lake.staging import Part, Staging, StagingMissing
from dicom_assets.landing.claims import ClaimLog

_TABLES = (
    "raw_files", "validated_batch", "flat_metadata", "instance", "series", "study", "imaging_study",
    "image_occurrence_origin", "image_occurrence", "diagnostic_report", "ingestion_errors",
)  # fmt: skip
_OWN_STUDY = "StudyInstanceUID IN (SELECT uid FROM own_studies)"
_COUNTS = {
    **{
        name: f"SELECT count(*) FROM {name} WHERE {_OWN_STUDY}"
        for name in ("flat_metadata", "instance", "series", "study", "imaging_study")
    },
    "image_occurrence": "SELECT count(*) FROM image_occurrence SEMI JOIN "
    f"(SELECT image_occurrence_id FROM image_occurrence_origin WHERE {_OWN_STUDY}) USING (image_occurrence_id)",
    "diagnostic_report": "SELECT count(*) FROM diagnostic_report WHERE id IN (SELECT id FROM own_reports)",
    "linked reports": "SELECT count(*) FROM diagnostic_report WHERE id IN (SELECT id FROM own_reports) "
    "AND link_state = 'linked'",
    "ingestion_errors that are errors": "SELECT count(*) FROM ingestion_errors WHERE severity = 'error' AND "
    "(object_id IN (SELECT object_id FROM own_objects) OR (object_id = '' AND batch_id IN (SELECT batch_id FROM "
    "own_batches)))",
}


@dataclass(frozen=True)
class Claimed:
    """What is claimed of a delivery: object_ids by batch, and the sources that claimed them."""

    by_batch: Mapping[str, tuple[str, ...]]
    sources: tuple[str, ...] = ()

    @property
    def batches(self) -> tuple[str, ...]:
        """The batches, oldest first."""
        return tuple(sorted(self.by_batch))

    @property
    def objects(self) -> tuple[str, ...]:
        """The object_ids."""
        return tuple(sorted({one for ids in self.by_batch.values() for one in ids}))


class Arrivals:
    """The delivery of one self-test as it arrives in a lake. Looks anew each time it is asked."""

    def __init__(self, lake: Lake, names: Names, uri_prefix: str, since: int) -> None:
        """uri_prefix: what the uris of its objects begin with. since: claims that there were before."""
        self._lake, self._names, self._prefix = lake, names, uri_prefix
        self._seen: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._since = since
        self._log = ClaimLog(lake.files)

    def claimed(self) -> Claimed:
        """Which of its objects are claimed."""
        for claim in self._log.claims()[self._since :]:
            if claim.batch_id not in self._seen:
                rows = self._log.manifest(claim.batch_id)
                own = rows.filter(pc.starts_with(rows["uri"], self._prefix))
                self._seen[claim.batch_id] = (claim.source, tuple(own["object_id"].to_pylist()))
        mine = {batch: found for batch, found in self._seen.items() if found[1]}
        sources = tuple(sorted({source for source, _ in mine.values()}))
        return Claimed({batch: ids for batch, (_, ids) in mine.items()}, sources)

    def books(self, batches: Sequence[str]) -> dict[str, Books]:
        """The books of some batches; of those that were started."""
        return {books.batch_id: books for books in all_books(self._lake) if books.batch_id in batches}

    def read(self, batches: Sequence[str]) -> int:
        """How many of some batches are read."""
        closed = {name for name, books in self.books(batches).items() if books.status == Status.CLOSED}
        return sum(name in closed or self._is_staged(name) for name in batches)

    def _is_staged(self, batch: str) -> bool:
        try:
            Staging(self._lake.files, batch).rows(Part.LEDGER)
        except StagingMissing:
            return False
        return True

    def published(self) -> int:
        """How many of its studies the tables have."""
        with connect(self._lake, ["study"]) as connection:
            found = connection.execute(
                "SELECT count(*) FROM study WHERE list_contains($1, StudyInstanceUID)", [self._names.studies]
            ).fetchone()
        return int(found[0]) if found else 0

    def counts(self, claimed: Claimed) -> dict[str, int]:
        """What the tables hold of everything in EXPECTED."""
        scope = {"batch_id": list(claimed.batches)}
        within = dict.fromkeys(("raw_files", "validated_batch", "flat_metadata", "ingestion_errors"), scope)
        with connect(self._lake, _TABLES, within=within) as connection:
            reports = [self._names.report_id(number) for number in range(1, REPORTS + 1)]
            for name, column, values in (
                ("own_studies", "uid", self._names.studies),
                ("own_reports", "id", reports),
                ("own_delivered", "object_id", list(claimed.objects)),
                ("own_batches", "batch_id", list(claimed.batches)),
            ):
                connection.register(name, pa.table({column: pa.array(values, pa.string())}))
            connection.execute(
                "CREATE TEMP TABLE own_objects AS SELECT object_id FROM own_delivered UNION SELECT object_id FROM "
                "raw_files WHERE container_id IN (SELECT object_id FROM own_delivered)"
            )
            return {name: int(connection.execute(_COUNTS[name]).fetchall()[0][0]) for name in EXPECTED}

    def places(self, claimed: Claimed) -> tuple[tuple[str, str, int], ...]:
        """Where its objects lie that were moved: uri, etag, size."""
        if not claimed.batches:
            return ()
        with connect(
            self._lake, ["raw_files"], within={"raw_files": {"batch_id": list(claimed.batches)}}
        ) as connection:
            connection.register("own", pa.table({"object_id": pa.array(claimed.objects, pa.string())}))
            rows = connection.execute(
                "SELECT DISTINCT uri, etag, size FROM raw_files WHERE (object_id IN (FROM own) OR container_id IN "
                "(FROM own)) AND NOT starts_with(uri, $1) AND NOT starts_with(uri, 'erased:') ORDER BY ALL",
                [self._prefix],
            ).fetchall()
        return tuple((uri, etag, int(size)) for uri, etag, size in rows)
