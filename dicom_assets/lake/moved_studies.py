"""The index of studies of which corrections move objects to another: moved_study.

Belongs here: entering moves, and looking studies up. Does not belong here: what is moved (`corrected_objects`), and
which studies a batch touches (`dicom_assets.batch.publish`).

Moves are entered before any row is published that rests on them, and never taken out: the index may name a study too
many, which is then made again in vain, and never one too few.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from dicom_assets.lake.corrected_objects import moves
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect
from dicom_assets.schema import keys
from dicom_assets.schema.registry import CORRECTION, MOVED_STUDY


def any_in(lake: Lake) -> bool:
    """Whether the lake has corrections or links, in force or not. Raises LakeError."""
    return len(lake.extents(CORRECTION.name)) > 0


def targets_of(lake: Lake, studies: Iterable[str]) -> set[str]:
    """Keys of the studies that objects of some studies are, or were, moved to. Raises LakeError."""
    return _moves(lake, "study_key", "target_key", studies)


def origins_of(lake: Lake, studies: Iterable[str]) -> set[str]:
    """Keys of some studies, and of those of which objects are, or were, moved to one of them. Raises LakeError."""
    wanted = set(studies)
    return wanted | _moves(lake, "target_key", "study_key", wanted)


def _moves(lake: Lake, known: str, wanted: str, studies: Iterable[str]) -> set[str]:
    if not len(lake.extents(MOVED_STUDY.name)):
        return set()
    with connect(lake, [MOVED_STUDY.name]) as connection:
        connection.register("asked", pa.table({known: pa.array(sorted(set(studies)), pa.string())}))
        found = connection.execute(
            f"SELECT DISTINCT {wanted} FROM {MOVED_STUDY.name} SEMI JOIN asked USING ({known})"
        ).fetchall()
    return {key for (key,) in found}


def enter_moves(lake: Lake, batch_id: str, moves: pa.Table) -> set[str]:
    """Enters moves beside those that the batch has entered before; keys of the studies that objects come to.

    moves: study_key, source, StudyInstanceUID. Raises LakeError.
    """
    if not len(moves):
        return set()
    pairs = zip(moves["source"].to_pylist(), moves["StudyInstanceUID"].to_pylist(), strict=True)
    targets = [keys.study_key(source, study) for source, study in pairs]
    fresh = moves.append_column("target_key", pa.array(targets, pa.string()))
    fresh = fresh.append_column("batch_id", pa.array([batch_id] * len(fresh), pa.string()))
    schema = MOVED_STUDY.schema
    with lake.committing(MOVED_STUDY.name):
        within = {MOVED_STUDY.name: {"batch_id": [batch_id]}}
        with connect(lake, [MOVED_STUDY.name], within=within) as connection:
            connection.register("fresh", fresh.select(schema.names))
            rows = arrow(connection, f"FROM {MOVED_STUDY.name} UNION FROM fresh ORDER BY ALL")
        lake.replace(MOVED_STUDY.name, [batch_id], rows.select(schema.names).cast(schema))
    return set(targets)


def moves_of(lake: Lake, objects: pa.Table) -> pa.Table:
    """Which of some objects, not published yet, corrections move to which studies: study_key, source, StudyInstanceUID.

    objects: columns as in `corrected_objects.moves`. Raises LakeError.
    """
    with connect(lake, [CORRECTION.name]) as connection:
        connection.register("arriving", objects)
        return arrow(connection, moves("arriving"))
