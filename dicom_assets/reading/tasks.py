"""What a reading process is given to judge, and what it gives back.

Belongs here: plain values that can be pickled. Does not belong here: cutting a batch into chunks (`batch.validate`),
what is done with them (`judge`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from dicom_assets.lake.staging import Part
from dicom_assets.landing.refusals import NOTHING_REFUSED, Refusals
from dicom_assets.settings import ArchiveLimits, ClinicalSettings, FhirSettings, ReadingLimits, SourceSettings


@dataclass(frozen=True)  # slots would double what it costs to pickle one
class ObjectTask:
    """One row of staged raw_files, as the reading needs it; see `staging.RAW_STAGED`."""

    object_id: str
    source: str
    uri: str
    member: str | None
    etag: str
    size: int
    modified_at: datetime | None
    kind: str
    entry: tuple[int, ...]
    container_size: int | None
    verdict: str | None
    detail: str | None
    at: Mapping[str, Any] | None = None

    @property
    def located(self) -> ObjectTask:
        """The task as it must be opened: at the place where the object lies now."""
        if self.at is None:
            return self
        place = {name: self.at[name] for name in ("uri", "etag", "member", "container_size")}
        return replace(self, **place, entry=tuple(self.at["entry"] or ()), at=None)


@dataclass(frozen=True)
class Chunk:
    """Some hundred objects in the order of their folders, with all that a worker needs to judge them.

    poison: object_ids that broke a worker before, with the code they end in. refusals: what was erased and is not to
    come in.
    """

    number: int
    batch_id: str
    run_id: str
    claimed_at: datetime
    settings: SourceSettings
    reading: ReadingLimits
    archives: ArchiveLimits
    clinical: ClinicalSettings
    fhir: FhirSettings
    objects: tuple[ObjectTask, ...]
    poison: dict[str, str] = field(default_factory=dict)
    refusals: Refusals = NOTHING_REFUSED


@dataclass(frozen=True)
class JudgedChunk:
    """What came of a chunk: an Arrow file by part (none for parts without rows), and objects by outcome."""

    number: int
    parts: Mapping[Part, bytes]
    outcomes: Mapping[str, int]
    objects: int
