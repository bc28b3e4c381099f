"""The index of studies: which batches hold rows of a study in flat_metadata, so that nothing is scanned for them.

Belongs here: entering what a batch touches, and looking studies up. Does not belong here: which studies a batch
touches (`batch.publish`).

A batch is entered before its rows are published and never taken out again: the index may name a batch too many, whose
rows are then looked for in vain, and never one too few.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.extents import Within
from dicom_assets.lake.query import connect, records_of
from dicom_assets.schema.registry import BATCH_STUDY, TABLES


def enter(lake: Lake, batch_id: str, keys: Sequence[str]) -> None:
    """Enters the studies that a batch touches. Raises LakeError."""
    rows = pa.table(
        {"batch_id": pa.array([batch_id] * len(keys), pa.string()), "study_key": pa.array(sorted(keys), pa.string())},
        schema=BATCH_STUDY.schema,
    )
    with lake.committing(BATCH_STUDY.name):
        lake.replace(BATCH_STUDY.name, [batch_id], rows)


def batches_of(lake: Lake, keys: Iterable[str]) -> list[str]:
    """The batches that may hold rows of some studies. The last answer is kept: a batch asks a dozen times."""
    wanted, now = frozenset(keys), lake.extents(BATCH_STUDY.name)
    last = lake.batches_of_studies
    if last is None or last[0] is not now or last[1] != wanted:
        found = records_of(lake, BATCH_STUDY.name, {"study_key": wanted}, "DISTINCT batch_id")
        last = lake.batches_of_studies = now, wanted, [row["batch_id"] for row in found]
    return list(last[2])


def study_scope(lake: Lake, tables: Iterable[str], keys: Iterable[str]) -> Mapping[str, Within]:
    """What to open of some tables to see some studies whole; for `query.connect`."""
    studies = set(keys)
    scope: dict[str, Within] = {}
    for name in tables:
        if name == "flat_metadata":
            scope[name] = {"batch_id": batches_of(lake, studies), "study_key": studies}
        elif TABLES[name].replaced_by == "study_key":
            scope[name] = {"study_key": studies}
    return scope


def build(lake: Lake) -> None:
    """Makes the index of a lake that has none yet though it holds metadata."""
    if len(lake.extents(BATCH_STUDY.name)):
        return
    with lake.committing("flat_metadata"), lake.committing(BATCH_STUDY.name):
        if not len(lake.extents("flat_metadata")) or len(lake.extents(BATCH_STUDY.name)):
            return
        with connect(lake, ["flat_metadata"]) as connection:
            found = connection.sql(
                "SELECT DISTINCT batch_id, study_key FROM flat_metadata ORDER BY ALL"
            ).to_arrow_table()
        batches = found["batch_id"].unique().to_pylist()
        lake.replace(BATCH_STUDY.name, batches, found.cast(BATCH_STUDY.schema))
