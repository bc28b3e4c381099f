"""Rows of flat_metadata made up for tests of the hierarchy, and an oracle that says in plain Python what comes of them.

Belongs here: versions of instances as hypothesis draws them. Does not belong here: files (`dicoms`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from dicom_assets.batch.publish import publish_flat, publish_hierarchy
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.schema.keys import study_key
from dicom_assets.schema.registry import FLAT_METADATA
from dicom_assets_tests.support.dicoms import uid

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Version:
    """One row of flat_metadata: which instance, when, what it says; number makes its object_id."""

    study: int
    series: int
    instance: int
    minute: int
    sequence: int
    deletes: bool
    description: str | None
    patient: str | None
    number: int = 0
    batch: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """Study, Series and SOP Instance UID."""
        return uid(self.study), uid(self.study, self.series), uid(self.study, self.series, self.instance)

    @property
    def age(self) -> tuple[int, int, str]:
        """What orders versions: time, sequence, object_id."""
        return self.minute, self.sequence, self.object_id

    @property
    def object_id(self) -> str:
        """Name of the version."""
        return f"{self.number:020x}"


def versions() -> st.SearchStrategy[list[list[Version]]]:
    """Batches of versions of few instances of few studies, so that they meet."""
    one = st.builds(
        Version,
        study=st.integers(1, 2),
        series=st.integers(1, 2),
        instance=st.integers(1, 2),
        minute=st.integers(0, 2),
        sequence=st.integers(0, 1),
        deletes=st.sampled_from([False, False, False, True]),
        description=st.sampled_from([None, "a", "b"]),
        patient=st.sampled_from([None, "", "P1", "P2"]),
    )
    batches = st.lists(st.lists(one, min_size=1, max_size=5), min_size=1, max_size=3)
    return st.builds(_numbered, batches, st.randoms(use_true_random=False))


def _numbered(batches: list[list[Version]], chance: Any) -> list[list[Version]]:
    numbers = list(range(1, sum(map(len, batches)) + 1))
    chance.shuffle(numbers)
    remaining = iter(numbers)
    return [
        [Version(**{**_fields(version), "number": next(remaining), "batch": place}) for version in batch]
        for place, batch in enumerate(batches)
    ]


def _fields(version: Version) -> dict[str, Any]:
    return {name: getattr(version, name) for name in Version.__dataclass_fields__}


def batch_name(number: int) -> str:
    """Id of batch `number`."""
    return f"20261120T12{number:02d}00Z-{number:08x}"


def flat_rows(batch: Iterable[Version]) -> pa.Table:
    """Versions as rows of flat_metadata."""
    rows = []
    for version in batch:
        study, series, instance = version.key
        says: dict[str, Any] = {}
        if not version.deletes:
            says = {
                "SeriesDescription": version.description,
                "StudyDescription": version.description,
                "PatientID": version.patient,
                "Modality": "CT" if version.series == 1 else "MR",
                "size": 100 + version.number,
                "header": "{}",
            }
        rows.append(
            {
                "batch_id": batch_name(version.batch),
                "object_id": version.object_id,
                "source": "landing",
                "operation": "delete" if version.deletes else "upsert",
                "version_at": NOON + timedelta(minutes=version.minute),
                "sequence": version.sequence,
                "study_key": study_key("landing", study),
                "issues": [],
                "ingested_at": NOON + timedelta(hours=version.batch),
                "StudyInstanceUID": study,
                "SeriesInstanceUID": series,
                "SOPInstanceUID": instance,
                **says,
            }
        )
    return pa.Table.from_pylist(rows, schema=FLAT_METADATA.schema)


LEVELS = ("instance", "series", "study")


def stage(lake: Lake, batch: Sequence[Version]) -> Staging:
    """Stages the rows of one batch."""
    staging = Staging(lake.files, batch_name(batch[0].batch))
    staging.stage(Part.FLAT, flat_rows(batch))
    return staging


def publish(lake: Lake, batch: Sequence[Version]) -> Staging:
    """Publishes one batch the way that a run does."""
    staging = stage(lake, batch)
    publish_flat(lake, staging)
    for level in LEVELS:
        publish_hierarchy(lake, staging, level)
    return staging


def expected_instances(batches: Iterable[Sequence[Version]]) -> dict[tuple[str, str, str], Version]:
    """The current version of each instance, by the rules: the newest wins, and a delete leaves nothing."""
    by_key: dict[tuple[str, str, str], list[Version]] = defaultdict(list)
    for batch in batches:
        for version in batch:
            by_key[version.key].append(version)
    newest = {key: max(found, key=lambda version: version.age) for key, found in by_key.items()}
    return {key: version for key, version in newest.items() if not version.deletes}
