"""What has become of a cohort's objects since it was made: in the tables, and where they lie.

Belongs here: comparing. Does not belong here: what a cohort is (`frozen`), reading whole objects (`objects_in_place`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any

from dicom_assets.curation.cohorts import frozen
from dicom_assets.curation.cohorts.frozen import ROWS
from dicom_assets.curation.cohorts.objects_in_place import Stores, Withheld, place_of, why_of
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import scan
from dicom_assets.landing.retrieval import OpenPlace
from dicom_assets.landing.store import LandingStore, ObjectError
from dicom_assets.settings import Settings


class Change(StrEnum):
    """What has become of an object in the tables, the first that holds.

    MOVED: it is current with other UIDs, by a correction. READ_AGAIN: it is current and its header says something else,
    as another release or other settings read it. REPLACED: another object is current under its UIDs, in its source.
    GONE: nothing is. ERASED: it was erased, and nothing of it is known any more.
    """

    MOVED = "moved"
    READ_AGAIN = "read again"
    REPLACED = "replaced"
    GONE = "gone"
    ERASED = "erased"


@dataclass(frozen=True)
class Verified:
    """What a cohort has come to. counts: by change, or what keeps an object from being read; differing: by object_id.

    unchanged: objects of which nothing differs.
    """

    objects: int
    counts: Mapping[str, int]
    differing: tuple[tuple[str, str], ...]

    @property
    def unchanged(self) -> int:
        """Objects of which nothing differs."""
        return self.objects - sum(self.counts.values())

    @property
    def is_unchanged(self) -> bool:
        """Whether the cohort is what it was."""
        return not any(self.counts.values())


_COMPARED = """
-- one row per object of the cohort that is not what it was, with what it is now
SELECT cohort.object_id,
    CASE
        WHEN here.object_id IS NULL AND other.SOPInstanceUID IS NULL THEN 'gone'
        WHEN here.object_id IS NULL THEN 'replaced'
        WHEN (here.StudyInstanceUID, here.SeriesInstanceUID, here.SOPInstanceUID)
            <> (cohort.StudyInstanceUID, cohort.SeriesInstanceUID, cohort.SOPInstanceUID) THEN 'moved'
        WHEN flat.content_digest IS DISTINCT FROM cohort.content_digest
            OR here.version_at IS DISTINCT FROM cohort.version_at THEN 'read again'
    END AS change
FROM cohort
LEFT JOIN now AS here ON here.source = cohort.source AND here.object_id = cohort.object_id
LEFT JOIN (
    SELECT DISTINCT source, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID FROM now
) AS other ON other.source = cohort.source AND other.StudyInstanceUID = cohort.StudyInstanceUID
    AND other.SeriesInstanceUID = cohort.SeriesInstanceUID AND other.SOPInstanceUID = cohort.SOPInstanceUID
LEFT JOIN {flat} AS flat ON flat.batch_id = here.batch_id AND flat.object_id = here.object_id
WHERE change IS NOT NULL
ORDER BY change, cohort.object_id
"""

_NOW = """
CREATE TEMP TABLE now AS
SELECT source, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, object_id, batch_id, version_at
FROM {instance} AS instance
WHERE object_id IN (SELECT object_id FROM cohort) OR (source, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID) IN (
    SELECT (source, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID) FROM cohort
)
"""


def verify_cohort(lake: Lake, settings: Settings, name: str, *, at_source: bool = False) -> Verified:
    """Compares a cohort with what is current in the tables.

    at_source: also whether each object lies where it lay, in the version that it had; files are asked, not read.
    Raises CohortError, LakeError, SettingsError when a source is not configured, SourceUnavailable.
    """
    cohort = frozen.read(lake.files, name)
    differing = list(_in_tables(lake, name))
    if at_source:
        known = {one for one, _ in differing}
        differing += [(one, why) for one, why in _at_source(lake, settings, name) if one not in known]
    counts = Counter(what for _, what in differing)
    erased = cohort.objects - frozen.left(lake.files, name)
    if erased:
        counts[Change.ERASED] = erased
    return Verified(cohort.objects, counts, tuple(differing))


def _in_tables(lake: Lake, name: str) -> Iterator[tuple[str, str]]:
    with lake.look_once(("instance", "flat_metadata")), lake.cursor() as connection:
        connection.register("no_rows", ROWS.empty_table())
        connection.execute("CREATE TEMP TABLE cohort AS FROM no_rows")
        for rows in frozen.rows(lake.files, name):
            connection.register("some_rows", rows)
            connection.execute("INSERT INTO cohort FROM some_rows")
            connection.unregister("some_rows")
        connection.execute(_NOW.format(instance=scan(lake, "instance")))
        batches = [one for (one,) in connection.execute("SELECT DISTINCT batch_id FROM now ORDER BY 1").fetchall()]
        flat = scan(lake, "flat_metadata", within={"batch_id": batches})
        yield from connection.execute(_COMPARED.format(flat=flat)).fetchall()


def _at_source(lake: Lake, settings: Settings, name: str) -> Iterator[tuple[str, str]]:
    """Objects that cannot be read as they were claimed, with why."""
    stores = Stores(settings)
    for rows in frozen.rows(lake.files, name):
        stores.open_those_of(rows)
        ordered = rows.sort_by([("source", "ascending"), ("uri", "ascending"), ("object_id", "ascending")])
        for (source, _), group in groupby(ordered.to_pylist(), key=lambda row: (row["source"], row["uri"])):
            own = list(group)
            why = _why_away(stores.of(source), own[0], settings)
            if why is not None:
                yield from ((row["object_id"], why) for row in own)


def _why_away(store: LandingStore, row: Mapping[str, Any], settings: Settings) -> str | None:
    """Why the file of an object cannot be read as it was claimed; None where it can."""
    place = place_of(row)
    if place is None:
        return Withheld.ELSEWHERE
    try:
        with closing(OpenPlace(store, place._replace(member=None), settings.archives)) as opened:
            opened.source.read(0, 1)
            opened.verify()
    except ObjectError as error:
        return why_of(error)
    return None
