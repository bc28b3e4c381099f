"""The gate of a batch that reads again: nothing that the lake had taken is refused now.

Belongs here: the comparison with what earlier batches said of the same objects. Does not belong here: shares, which say
nothing where somebody has chosen broken objects on purpose (`shares`).
"""

from __future__ import annotations

from dicom_assets.batch.checks.claim_checks import claim_of
from dicom_assets.batch.checks.contract import SHOWN, CheckContext, CheckResult
from dicom_assets.lake.query import connect
from dicom_assets.lake.staging import Part

_REFUSED = """
-- objects of the batch that are refused now, and were in the lake by what the batch before it says of them
WITH before AS (
    SELECT object_id, arg_max(outcome, batch_id) AS outcome
    FROM validated_batch SEMI JOIN staged USING (object_id)
    WHERE coalesce(code NOT IN ('OBJECT_GONE', 'CHANGED_DURING_READ'), true)
    GROUP BY object_id
)
SELECT count(*) FILTER (was_taken), count(*) FILTER (was_taken AND is_refused),
    min(object_id, $shown) FILTER (was_taken AND is_refused)
FROM (
    SELECT
        object_id,
        before.outcome IN ('ingested', 'deleted') AS was_taken,
        staged.outcome NOT IN ('ingested', 'deleted')
            AND coalesce(staged.code NOT IN ('OBJECT_GONE', 'CHANGED_DURING_READ'), true) AS is_refused
    FROM staged JOIN before USING (object_id)
)
"""


def refuses_nothing_anew(context: CheckContext) -> CheckResult:
    """What an earlier batch has ingested of the same bytes is ingested again."""
    earlier = set(claim_of(context)["read_in"].to_pylist()) - {None}
    with connect(context.lake, ["validated_batch"], within={"validated_batch": {"batch_id": earlier}}) as connection:
        connection.register("staged", context.staged(Part.LEDGER))
        taken, refused, shown = connection.execute(_REFUSED, {"shown": SHOWN}).fetchall()[0]
    words = f"{taken} of these objects were in the lake; {refused} of them are refused by this reading"
    if refused:
        words += ". They stay as they were until the batch is accepted, dismissed, or run by a reader that takes them"
    return CheckResult(not refused, taken, taken - refused, shown or (), words)
