"""Making studies again from all their rows, in the hierarchy and in what follows from it, without a batch.

Belongs here: taking the steps of a batch for studies alone. Does not belong here: which studies (`verification`,
`migrations`), the steps themselves (`steps`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pyarrow as pa

from dicom_assets.batch.context import OpenBatch, RunContext
from dicom_assets.batch.steps import STEPS, Run
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.landing.claims import MANIFEST


def rebuild(work: RunContext, studies: Sequence[str]) -> None:
    """Makes studies again, by their study_key, and what follows from them. Raises LakeError."""
    staging = Staging(work.lake.files, f"verify-{uuid.uuid4().hex[:12]}")
    touched = pa.table({"study_key": pa.array(sorted(studies), pa.string())}, schema=SCHEMAS[Part.TOUCHED])
    batch = OpenBatch(work, MANIFEST.empty_table(), staging)
    try:
        staging.stage(Part.TOUCHED, touched)
        for part in (Part.FLAT, Part.CLINICAL, Part.ALIKE):  # no objects, records, or what is alike come with studies
            staging.stage(part, SCHEMAS[part].empty_table())
        for step in STEPS:
            if step.group in ("hierarchy", "curation", "standards"):
                for _, make in step.tables.values():
                    make(batch, Run(run_id=staging.batch_id))
    finally:
        staging.remove()
