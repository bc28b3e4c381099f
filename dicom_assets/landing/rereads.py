"""Claiming again what the lake has: batches of kind `reread`.

Belongs here: manifests of objects that are to be read once more, in the claim log. Does not belong here: choosing them
(`batch.reread`), what is new (`claims.plan`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.landing.claims import BatchKind, Claim, ClaimLog, stamp
from dicom_assets.settings import ClaimingSettings


def claim_again(log: ClaimLog, objects: pa.Table, settings: ClaimingSettings) -> Iterator[Claim]:
    """Claims objects of the lake once more, batch by batch, each claim durable before the next.

    objects: source, object_id, uri, etag, size, modified_at, as they lie now, and read_in. Call it with the right to
    claim. What was claimed stays claimed when it is broken off. Raises LakeError.
    """
    attempts = log.attempts()
    for source in sorted(objects["source"].unique().to_pylist()):
        rows = objects.filter(pc.equal(objects["source"], source)).sort_by("uri")
        times = pa.array([attempts.get(one, 1) for one in rows["object_id"].to_pylist()], pa.int64())
        rows = rows.append_column("attempt", times)
        for start in range(0, len(rows), settings.batch_objects):
            part = rows.slice(start, settings.batch_objects)
            claim = None
            while claim is None:
                claim = log.append(stamp(part, source, datetime.now(UTC), BatchKind.REREAD), len(log))
            yield claim
    log.summarise()
