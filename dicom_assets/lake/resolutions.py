"""Errors whose cause is gone: SQL that says of each row of ingestion_errors what resolved it.

Belongs here: when an error counts as resolved. Does not belong here: printing (`cli.queries`).

Nothing is ever written into the rows of a closed batch. Whether an error is open follows from what came later, so it is
asked when it is looked at. An error is resolved when

- its object was taken in by a later batch, which read the same bytes again (`read again`);
- something newer was claimed at its object's place, or at that of the archive that holds it (`replaced`): what is wrong
  with that is told of that;
- a person has dismissed its batch (`dismissed`).

The first two count when that batch has closed. `superseded_by` in the ledger is no short way to the first: it names the
next reading, which may have refused the object too, while a later one took it in.

The ledger has a row for every object of the lake, so it is held against the objects that have errors first, and only
what is left of it, readings later than the first error, against anything else.
"""

from __future__ import annotations

RESOLUTIONS_NEED = ("ingestion_errors", "validated_batch", "overwritten", "batches")

RESOLUTIONS = """
-- one row per row of ingestion_errors, with what resolved it: how, when, by which batch; NULL while it is open
WITH closed AS (
    SELECT batch_id, closed_at FROM batches WHERE status = 'closed'
),
failed AS (
    SELECT object_id, min(batch_id) AS batch_id FROM ingestion_errors GROUP BY object_id
),
again AS (
    SELECT ledger.object_id, max(ledger.batch_id) AS batch_id
    FROM validated_batch AS ledger
    JOIN failed ON failed.object_id = ledger.object_id AND failed.batch_id < ledger.batch_id
    JOIN closed ON closed.batch_id = ledger.batch_id
    WHERE outcome <> 'quarantined'
    GROUP BY ledger.object_id
),
replaced AS (
    SELECT source, uri, batch_id, object_id, closed_at
    FROM overwritten JOIN closed USING (batch_id)
    WHERE member IS NULL
)
SELECT
    error.*,
    CASE
        WHEN error.code = 'DISMISSED' AND own.decision = 'dismissed' THEN 'dismissed'
        WHEN again.batch_id IS NOT NULL THEN 'read again'
        WHEN replaced.batch_id IS NOT NULL THEN 'replaced'
    END AS resolution,
    CASE resolution
        WHEN 'dismissed' THEN own.decided_at WHEN 'read again' THEN reader.closed_at ELSE replaced.closed_at
    END AS resolved_at,
    CASE resolution
        WHEN 'dismissed' THEN own.batch_id WHEN 'read again' THEN again.batch_id ELSE replaced.batch_id
    END AS resolved_by
FROM ingestion_errors AS error
LEFT JOIN batches AS own ON own.batch_id = error.batch_id
LEFT JOIN again ON again.object_id = error.object_id AND again.batch_id > error.batch_id
LEFT JOIN closed AS reader ON reader.batch_id = again.batch_id
LEFT JOIN replaced
    ON replaced.source = own.source AND replaced.uri = error.uri AND replaced.batch_id > error.batch_id
"""
