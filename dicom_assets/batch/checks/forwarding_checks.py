"""What a batch has ingested = what its service has stored, had already, or refused, object by object.

Belongs here: counting by SQL of its own over the ledger and the lines that were written down. Does not belong here:
sending (`forwarding`, which is judged here). These are no rules of a batch: its books are closed before.
"""

from __future__ import annotations

import pyarrow as pa

from dicom_assets.batch.checks.contract import SHOWN, CheckResult
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect

_ENDED = """
-- one row per object: its last line at the service
SELECT object_id, arg_max(outcome, "at") AS outcome FROM lines WHERE service = $service GROUP BY object_id
"""

_COUNTED = f"""
SELECT
    count(ledger.object_id), count(ended.object_id) FILTER (ledger.object_id IS NOT NULL),
    count(*) FILTER (ended.outcome NOT IN ('stored', 'present', 'refused', 'unread', 'kept')),
    min(ledger.object_id, {SHOWN}) FILTER (ended.object_id IS NULL),
    count(*) FILTER (ended.outcome IN ('refused', 'unread')),
    min(ledger.object_id, {SHOWN}) FILTER (ended.outcome IN ('refused', 'unread'))
FROM (SELECT object_id FROM validated_batch WHERE outcome = 'ingested' AND kind = 'dicom') AS ledger
LEFT JOIN ended USING (object_id)
"""


def forwarded_equals_ingested(lake: Lake, batch_id: str, service: str) -> tuple[CheckResult, CheckResult]:
    """Whether each ingested object has an outcome, and whether each is at the service."""
    lines = [lake.files.get_parquet(name, ["object_id", "service", "outcome", "at"])
             for name in lake.files.names(f"_forwarding/{batch_id}") if name.endswith(".parquet")]  # fmt: skip
    with connect(lake, ["validated_batch"], within={"validated_batch": {"batch_id": [batch_id]}}) as connection:
        connection.register("lines", pa.concat_tables(lines) if lines else _NOTHING)
        ended = connection.sql(_ENDED, params={"service": service}).to_arrow_table()
        connection.register("ended", ended)
        row = arrow(connection, _COUNTED).to_pylist()[0]
    ingested, known, strange, lost, left, few = row.values()
    words = f"{left} of {ingested} objects are not at service {service}"
    return (
        CheckResult(known == ingested and not strange, ingested, known, lost or ()),
        CheckResult(not left, 0, left, few or (), words if left else ""),
    )


_NOTHING = pa.table(
    {name: pa.array([], pa.string()) for name in ("object_id", "service", "outcome")}
    | {"at": pa.array([], pa.timestamp("us", tz="UTC"))}
)
