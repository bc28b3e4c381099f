"""What must be in the tables before the books of a batch close: each table counted by itself, not the ledger alone.

Belongs here: which tables are compared with what, and the sentence that says what differs. Does not belong here: the
rules themselves (`checks`, `standard_checks`), entering the batch as closed (`books`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from dicom_assets.batch.books import Books, Status, counted, known_books
from dicom_assets.batch.checks.conflict_checks import conflicts_hold_the_batch
from dicom_assets.batch.checks.contract import CheckContext, Rule, judge_unless_same, own_rows
from dicom_assets.batch.checks.duplicate_checks import groups_hold_the_batch
from dicom_assets.batch.checks.geometry_checks import geometry_equals_series
from dicom_assets.batch.checks.parity_checks import (
    clinical_records_accounted,
    hierarchy_equals_metadata,
    metadata_equals_ledger,
    studies_are_indexed,
)
from dicom_assets.batch.checks.standard_checks import (
    imaging_studies_equal_studies,
    occurrences_equal_series,
    reports_equal_records,
)
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import readable
from dicom_assets.lake.staging import OPTIONAL, Part, Staging, again
from dicom_assets.storage.files import LakeError

_MADE_FROM_OTHERS: dict[str, Rule] = {
    "flat_metadata": metadata_equals_ledger,
    "batch_study": studies_are_indexed,
    "clinical": clinical_records_accounted,
    **{name: partial(hierarchy_equals_metadata, name) for name in ("instance", "series", "study")},
    "series_geometry": geometry_equals_series,
    "conflict": conflicts_hold_the_batch,
    "imaging_study": imaging_studies_equal_studies,
    "image_occurrence_origin": occurrences_equal_series,
    "diagnostic_report": reports_equal_records,
    "duplicate": groups_hold_the_batch,
}
"""By table, the rule that compares it with the tables that it is made from."""


class BooksDiffer(LakeError):
    """The tables are not what the books of a batch would say of them, so that these do not close."""


@dataclass(frozen=True, slots=True)
class _Difference:
    table: str
    expected: int | float | str
    there: int | float | str

    def __str__(self) -> str:
        return f"{self.table} {self.there} instead of {self.expected}"


def unchanged(lake: Lake, staging: Staging) -> Books | None:
    """The books of a batch that is closed and has nothing staged, when its tables still are as they say; None if open.

    Raises BooksDiffer when they are not, UnknownBatch, LakeError.
    """
    known = known_books(lake, staging.batch_id)
    if known.status != Status.CLOSED or staging.left():
        return None
    row = counted(lake, staging.batch_id)
    names = ("seen", "ingested", "quarantined", "ignored", "deleted")
    found = [_Difference(name, getattr(known, name), row[name]) for name in names if row[name] != getattr(known, name)]
    metadata = metadata_equals_ledger(CheckContext(lake, staging))
    if not metadata.passed:
        found.append(_Difference("flat_metadata", metadata.expected, metadata.actual))
    if found:
        raise _refusal(staging.batch_id, found)
    return known


def compare(context: CheckContext) -> None:
    """Raises BooksDiffer when a table does not hold what the batch brings, StagingMissing when that is not staged."""
    context.staging.require(*(part for part in Part if part not in OPTIONAL))
    found = [*_of_staged(context), *_of_others(context)]
    if found:
        raise _refusal(context.staging.batch_id, found)


def _of_staged(context: CheckContext) -> Iterator[_Difference]:
    """Tables that hold the staged rows as they are."""
    parts = (Part.RAW, Part.LEDGER, Part.ERRORS)
    for part in parts:
        with readable(part), context.lake.cursor() as connection:
            ((there,),) = connection.execute(f"SELECT count(*) FROM {own_rows(context, part)}").fetchall()
            if there != context.staging.rows(part):
                yield _Difference(part, context.staging.rows(part), there)


def _of_others(context: CheckContext) -> Iterator[_Difference]:
    for table, rule in _MADE_FROM_OTHERS.items():
        result = judge_unless_same(context, rule)
        if not result.passed:
            yield _Difference(table, result.expected, result.actual)


def _refusal(batch_id: str, found: list[_Difference]) -> BooksDiffer:
    listed = "; ".join(map(str, found))
    return BooksDiffer(f"The books of batch {batch_id} do not close, the tables hold: {listed}. {again(batch_id)}")
