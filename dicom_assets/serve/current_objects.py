"""What the lake has of the studies that objects are stored into: the current object of each instance, and its bytes.

Belongs here: looking a study's objects up, once for a request, and comparing bytes. Does not belong here: what was
stored and is not in the lake yet (`submissions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dicom_assets.landing.retrieval import Place, open_object
from dicom_assets.landing.store import LandingStore, ObjectError
from dicom_assets.schema.keys import study_key
from dicom_assets.serve.places import claimed_files
from dicom_assets.serve.served import Snapshot
from dicom_assets.serve.submissions import Identity
from dicom_assets.settings import ArchiveLimits
from dicom_assets.storage.byte_ranges import ByteSource

_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class Current:
    """The current object of an instance. version_at: with time zone. size: of the object itself, in bytes."""

    batch_id: str
    version_at: datetime | None
    size: int | None
    uri: str
    member: str | None


class CurrentObjects:
    """What one version of the lake has, study by study as it is asked for."""

    def __init__(self, snapshot: Snapshot, source: str, archives: ArchiveLimits) -> None:
        """source: as rows have it."""
        self._snapshot, self._source, self._archives = snapshot, source, archives
        self._studies: dict[str, dict[tuple[str, str], Current]] = {}

    @property
    def is_all(self) -> bool:
        """Whether nothing of the source is kept from the caller, who may then be told what else lies there."""
        scope = self._snapshot.scope
        return scope.condition is None and (scope.sources is None or self._source in scope.sources)

    def get(self, identity: Identity) -> Current | None:
        """The current object of an instance; None where the lake has none, or none that may be seen."""
        study, series, instance = identity
        if study not in self._studies:
            self._studies[study] = self._of_study(study)
        return self._studies[study].get((series, instance))

    def _of_study(self, study: str) -> dict[tuple[str, str], Current]:
        within = {"study_key": [study_key(self._source, study)]}
        with self._snapshot.cursor() as cursor:
            rows = cursor.execute(
                "SELECT SeriesInstanceUID, SOPInstanceUID, batch_id, epoch_us(version_at), size, uri, member "
                f"FROM {self._snapshot.scan('instance', within)}"
            ).fetchall()
        return {
            (series, instance): Current(batch, None if at is None else _moment(at), *rest)
            for series, instance, batch, at, *rest in rows
        }

    def is_same(self, current: Current, spool: ByteSource, store: LandingStore) -> bool | None:
        """Whether an object has these bytes; None where it cannot be read any more."""
        if current.size != spool.size:
            return False
        place = self._place(current)
        if place is None:
            return None
        try:
            with open_object(store, place, self._archives) as source:
                same = source.size == spool.size and all(
                    source.read(at, _PIECE) == spool.read(at, _PIECE) for at in range(0, spool.size, _PIECE)
                )
        except ObjectError:
            return None
        return same

    def _place(self, current: Current) -> Place | None:
        files = claimed_files(self._snapshot, [current.batch_id])
        with self._snapshot.cursor() as cursor:
            row = cursor.execute(
                f"SELECT etag, if(member IS NULL, size, NULL) FROM {files} WHERE uri = $1 "
                "ORDER BY member NULLS FIRST LIMIT 1",
                [current.uri],
            ).fetchone()
        return None if row is None or row[0] is None else Place(current.uri, row[0], row[1], current.member)


def _moment(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
