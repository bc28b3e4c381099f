"""What was found wrong with objects: their rows of ingestion_errors, with what each code means.

Belongs here: errors of the objects of a page. Does not belong here: the errors of a lake.

Whoever may see an object may see its errors. So objects come from rows that the caller may see, and their errors from
the whole table, which tells of no source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicom_assets.catalogue.row_reading import Row, rows
from dicom_assets.lake.query import where
from dicom_assets.schema.codes import CODES
from dicom_assets.serve.newest import Rows
from dicom_assets.serve.served import Scope, Snapshot

_SEVERITIES = ("error", "warning", "info")
EXAMPLES = 5
"""Different details of a code that are shown."""


@dataclass(frozen=True)
class Finding:
    """One code. objects: that it was found in. details: some of the sentences, which hold no patient data."""

    code: str
    severity: str
    objects: int
    details: Sequence[str]

    @property
    def meaning(self) -> str:
        """What the code means."""
        return CODES[self.code].meaning if self.code in CODES else ""

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return CODES[self.code].remedy if self.code in CODES else ""


def findings(snapshot: Snapshot, objects: Rows, batches: Sequence[str]) -> list[Finding]:
    """What was found in some objects, the worst first.

    snapshot: with the table ingestion_errors. objects: a relation with batch_id and object_id that the caller may see.
    batches: theirs.
    """
    if "ingestion_errors" not in snapshot.extents or not batches:
        return []
    errors = snapshot.within(Scope()).scan("ingestion_errors", {"batch_id": batches})
    with snapshot.cursor() as connection:
        found = rows(
            connection,
            f"""
            -- one row per code and severity
            SELECT code, severity, count(DISTINCT object_id) AS objects,
                list_sort(list(DISTINCT detail) FILTER (detail IS NOT NULL))[:{EXAMPLES}] AS details
            FROM {errors} SEMI JOIN (SELECT batch_id, object_id FROM {objects.sql}) USING (batch_id, object_id)
            GROUP BY code, severity
            """,
            objects.parameters,
        )
    made = [Finding(one["code"], one["severity"], one["objects"], _telling(one)) for one in found]
    return sorted(made, key=lambda one: (_rank(one.severity), -one.objects, one.code))


def _telling(row: Row) -> list[str]:
    """The details of a code that say more than what it means."""
    meaning = CODES[row["code"]].meaning if row["code"] in CODES else None
    return [one for one in row["details"] or () if one != meaning]


def _rank(severity: str) -> int:
    return _SEVERITIES.index(severity) if severity in _SEVERITIES else len(_SEVERITIES)


def errors_of(snapshot: Snapshot, objects: Sequence[Row]) -> list[Row]:
    """Each error of a few objects. objects: rows with batch_id and object_id that the caller may see."""
    if "ingestion_errors" not in snapshot.extents or not objects:
        return []
    within = {name: sorted({row[name] for row in objects}) for name in ("batch_id", "object_id")}
    errors = snapshot.within(Scope()).scan("ingestion_errors", {"batch_id": within["batch_id"]})
    with snapshot.cursor() as connection:
        return rows(
            connection,
            "SELECT batch_id, object_id, code, severity, stage, detail, occurred_at, rules "
            f"FROM {errors}{where({'object_id': within['object_id']})} ORDER BY occurred_at DESC, code",
        )
