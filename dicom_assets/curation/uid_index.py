"""The index of UIDs: which studies may hold a UID, whatever batch or source brought it.

Belongs here: entering what a batch has brought, and looking UIDs up. Does not belong here: what it means that a UID
stands in two studies (`conflicts`).

The index is of flat_metadata, as received: it may name a study too many (of what was deleted, or moved by a
correction), and never one too few. It is looked through whole, in one narrow column: it is the one cost of a batch here
that grows with the lake.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from dicom_assets.lake import moved_studies
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect, scan
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.schema.keys import uid_numbers
from dicom_assets.schema.registry import UID_INDEX

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def entries(batch_id: str, objects: pa.Table) -> pa.Table:
    """Rows of the index for objects of a batch, in the order of the table. objects: study_key and the three UIDs."""
    pairs = [objects.select(["study_key", name]).rename_columns(["study_key", "uid"]) for name in UIDS]
    found = pa.concat_tables(pairs).group_by(["study_key", "uid"]).aggregate([])
    found = found.filter(found["uid"].is_valid())
    numbers = pa.array(uid_numbers(found["uid"].to_pylist()))
    ordered = pa.table({"study_key": found["study_key"], "uid": numbers}).sort_by(
        [("study_key", "ascending"), ("uid", "ascending")]
    )
    return ordered.add_column(0, "batch_id", [pa.array([batch_id] * len(ordered), pa.string())]).cast(UID_INDEX.schema)


def enter(lake: Lake, staging: Staging) -> None:
    """Enters the UIDs of a batch's rows of flat_metadata, in place of those that it had entered.

    Raises StagingMissing when nothing is staged, as of a batch that is closed, and LakeError. After the batch's
    instances are published, so that whoever finds an entry finds the instances as well.
    """
    rows = entries(staging.batch_id, staging.read_whole(Part.FLAT, ["study_key", *UIDS]))
    with lake.committing(UID_INDEX.name):
        lake.replace(UID_INDEX.name, [staging.batch_id], rows)


def enter_again(lake: Lake, batches: Sequence[str]) -> None:
    """Enters some batches anew, from what flat_metadata has of them. Raises LakeError."""
    with lake.committing(UID_INDEX.name):
        within = {"flat_metadata": {"batch_id": batches}}
        rows = [UID_INDEX.schema.empty_table()]
        with connect(lake, ["flat_metadata"], within=within) as connection:
            for batch in sorted(set(batches)):
                own = connection.sql(
                    f"SELECT study_key, {', '.join(UIDS)} FROM flat_metadata WHERE batch_id = $batch",
                    params={"batch": batch},
                )
                rows.append(entries(batch, own.to_arrow_table()))
        lake.replace(UID_INDEX.name, batches, pa.concat_tables(rows))


@dataclass(frozen=True)
class Holders:
    """Which studies one version of the index names for some UIDs: looked for once, for the step and for its rules."""

    version: int
    uids: frozenset[str]
    studies: frozenset[str]


def find_holders(lake: Lake, uids: Iterable[str]) -> Holders:
    """What the index says of some UIDs. Raises LakeError."""
    wanted = frozenset(uids)
    version, source = lake.extents(UID_INDEX.name).version, scan(lake, UID_INDEX.name)
    with lake.cursor() as connection:
        connection.register("wanted", pa.table({"uid": pa.array(uid_numbers(wanted))}))
        found = connection.execute(f"SELECT DISTINCT study_key FROM {source} SEMI JOIN wanted USING (uid)").fetchall()
    return Holders(version, wanted, frozenset(key for (key,) in found))


def other_studies(lake: Lake, found: Holders, studies: Sequence[str]) -> set[str]:
    """Keys of studies beside some that may hold one of the UIDs that `found` is about. Raises LakeError."""
    keys = found.studies - set(studies)
    return {*keys, *(moved_studies.targets_of(lake, keys) if keys else ())}
