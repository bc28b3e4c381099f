"""The rule that guards what overwriting makes of versions: a place that is claimed again is known as such.

Belongs here: the rule's own way of finding such places. Does not belong here: the index that publishing finds them by
(`landing.uri_index`), what is current (`checks.hierarchy_equals_metadata`).
"""

from __future__ import annotations

from dicom_assets.batch.checks.contract import SHOWN, CheckContext, CheckResult, NamedRule
from dicom_assets.lake.overwritten import place_keys
from dicom_assets.lake.query import arrow, connect
from dicom_assets.schema.registry import OVERWRITTEN

BATCHES_LOOKED_AT = 8
"""Earlier batches that are compared with a batch, the newest ones: what is overwritten mostly came not long ago."""

_AGAIN = """
-- one row per object of the batch at a place that an object of one of the earlier batches had
SELECT DISTINCT own.object_id, own.source, own.uri, own.member, own.claimed_at
FROM raw_files AS own
JOIN raw_files AS earlier
    ON earlier.source = own.source AND earlier.uri = own.uri
    AND coalesce(earlier.member, '') = coalesce(own.member, '')
ANTI JOIN (
    FROM validated_batch
    WHERE batch_id = {mine} AND code IN ('OBJECT_GONE', 'CHANGED_DURING_READ', 'DISMISSED')
) AS absent ON absent.object_id = own.object_id
WHERE own.batch_id = {mine} AND own.kind <> 'change'
    AND earlier.batch_id <> {mine} AND earlier.claimed_at < own.claimed_at
"""

_NOT_ENTERED = """
SELECT object_id FROM again
WHERE NOT EXISTS (
    SELECT 1 FROM overwritten
    WHERE overwritten.source = again.source AND overwritten.uri = again.uri
        AND coalesce(overwritten.member, '') = coalesce(again.member, '')
        AND overwritten.claimed_at >= again.claimed_at
)
ORDER BY object_id
"""


def overwrites_are_entered(context: CheckContext) -> CheckResult:
    """Each object at a place that one of the last batches before had too stands in overwritten, or a later one does.

    What was not there as it was claimed did not come to its place.
    """
    mine = context.staging.batch_id
    with connect(context.lake, ["batches"]) as connection:
        found = connection.execute(
            "SELECT batch_id FROM batches WHERE batch_id < $1 ORDER BY batch_id DESC LIMIT $2",
            [mine, BATCHES_LOOKED_AT],
        ).fetchall()
    if not found:
        return CheckResult(True, 0, 0)
    within = {
        "raw_files": {"batch_id": [mine, *(batch for (batch,) in found)]},
        "validated_batch": {"batch_id": [mine]},
    }
    with connect(context.lake, ["raw_files", "validated_batch"], within=within) as connection:
        again = arrow(connection, _AGAIN.format(mine=context.batch))
    if not len(again):
        return CheckResult(True, 0, 0)
    places = {OVERWRITTEN.name: {"place_key": place_keys(again).to_pylist()}}
    with connect(context.lake, [OVERWRITTEN.name], within=places) as connection:
        connection.register("again", again)
        differing = [one for (one,) in connection.execute(_NOT_ENTERED).fetchall()]
    return CheckResult(not differing, len(again), len(again) - len(differing), differing[:SHOWN])


VERSION_RULES: tuple[NamedRule, ...] = (
    NamedRule(
        "flat_metadata",
        "overwrites_are_entered",
        "Places that the batch claimed again are known as overwritten",
        overwrites_are_entered,
    ),
)
"""The rules of versions."""
