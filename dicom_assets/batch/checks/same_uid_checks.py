"""The rule of SOP Instance UIDs: what claims one with different contents is told, and nothing else is.

Belongs here: the same answer as `same_uids` gives, by SQL of its own: elements of headers instead of their text, what
arrived instead of the table overwritten. Does not belong here: `verify`, which looks at all batches at once.
"""

from __future__ import annotations

from dicom_assets.batch.checks.arrivals import arrivals
from dicom_assets.batch.checks.contract import SHOWN, CheckContext, CheckResult, NamedRule, own_rows
from dicom_assets.batch.publish import touched_studies
from dicom_assets.lake.query import arrow, readable, scan, where
from dicom_assets.lake.studies import study_scope

_BULK = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")
_IN_ITEMS = '"[[:xdigit:]]{8}":[{]"vr":"(' + "|".join(_BULK) + ')"[^}]*[}],?'
_VALUE = f"""regexp_replace(
    replace(regexp_replace(one.value::VARCHAR, '{_IN_ITEMS}', '', 'g'), ',}}', '}}'),
    'offset=[0-9]+&length=[0-9]+', '', 'g'
)"""
SAID = f"""(
    SELECT hash(list((one.key, replace({_VALUE}, ',"BulkDataURI":"?"', '')) ORDER BY one.key, one.value::VARCHAR))
    FROM json_each(header) AS one
    WHERE NOT starts_with(one.key, '0002') AND one.value ->> 'vr' NOT IN {_BULK}
)"""
"""SQL for what a header says without File Meta Information, bulk values, and the places of values in the object."""

_CLAIMS = """
-- files of the touched studies with a SOP Instance UID for which there are several contents, and what was told of them
SELECT
    study_key, batch_id, object_id, SOPInstanceUID, source, uri, coalesce(member, '') AS member, said, counts, is_told
FROM (
    SELECT flat.*, {said} AS said,
        last.batch_id IS NULL OR last.claimed_at <= flat.ingested_at AS counts,
        told.object_id IS NOT NULL AS is_told
    FROM {flat} AS flat
    SEMI JOIN (
        SELECT source, SOPInstanceUID FROM {flat}
        WHERE operation <> 'delete' AND version_text IS NULL
        GROUP BY ALL HAVING min(content_digest) <> max(content_digest)
    ) AS doubtful USING (source, SOPInstanceUID)
    LEFT JOIN {arrived} AS last
        ON last.source = flat.source AND last.uri = flat.uri AND coalesce(last.member, '') = coalesce(flat.member, '')
    LEFT JOIN (SELECT DISTINCT batch_id, object_id FROM {errors} WHERE code = 'SOP_INSTANCE_CONFLICT') AS told
        ON told.batch_id = flat.batch_id AND told.object_id = flat.object_id
    WHERE operation <> 'delete' AND version_text IS NULL
)
"""

_WRONG = """
-- objects of the batch that should have been told and were not, the other side neither; and told ones without reason
SELECT object_id FROM (
    SELECT
        batch_id, object_id,
        min(said) OVER one <> max(said) OVER one
            AND min((uri, member)) OVER one <> max((uri, member)) OVER one AS differ
    FROM claims
    WHERE counts AND NOT is_told AND (batch_id = $batch OR batch_id IN (SELECT batch_id FROM closed))
    WINDOW one AS (PARTITION BY source, study_key, SOPInstanceUID)
)
WHERE differ AND batch_id = $batch
UNION
SELECT object_id FROM told
WHERE object_id NOT IN (
    SELECT own.object_id FROM claims AS own JOIN (
        SELECT source, SOPInstanceUID FROM claims GROUP BY ALL
        HAVING min(said) <> max(said) AND min((uri, member)) <> max((uri, member))
    ) USING (source, SOPInstanceUID)
    WHERE own.batch_id = $batch
)
ORDER BY object_id
"""


def same_uids_are_told(context: CheckContext) -> CheckResult:
    """Objects of different content with one SOP Instance UID in one study are told by one of their batches.

    Another batch that is open tells of its own objects when it publishes them.
    """
    keys: list[str] = touched_studies(context.staging)["study_key"].to_pylist()
    with readable("ingestion_errors"), context.lake.cursor() as connection:
        told = arrow(
            connection,
            f"SELECT object_id FROM {own_rows(context, 'ingestion_errors')} WHERE code = 'SOP_INSTANCE_CONFLICT'",
        )
    flat = study_scope(context.lake, ["flat_metadata"], keys)["flat_metadata"]
    closed = scan(context.lake, "batches")
    rows, few = (
        f"(SELECT {columns} FROM {scan(context.lake, 'flat_metadata', within=flat)}{where(flat)})"
        for columns in ("*", "source, SOPInstanceUID, content_digest, operation, version_text")
    )
    with context.lake.cursor() as connection:
        connection.register("told", told)
        (doubtful,) = connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {few} WHERE operation <> 'delete' AND version_text IS NULL "
            "GROUP BY source, SOPInstanceUID HAVING min(content_digest) <> max(content_digest))"
        ).fetchall()[0]
        if not doubtful and not len(told):
            return CheckResult(True, 0, 0)
        errors = {"batch_id": flat["batch_id"]}
        found = _CLAIMS.format(
            said=SAID,
            flat=rows,
            arrived=arrivals(context.lake, flat, keys),
            errors=f"(SELECT * FROM {scan(context.lake, 'ingestion_errors', within=errors)}{where(errors)})",
        )
        connection.execute(f"CREATE TEMP TABLE claims AS {found}")
        connection.execute(f"CREATE TEMP TABLE closed AS SELECT batch_id FROM {closed} WHERE status = 'closed'")
        wrong = [str(name) for (name,) in connection.execute(_WRONG.replace("$batch", context.batch)).fetchall()]
    return CheckResult(not wrong, len(told) + len(wrong), len(told), wrong[:SHOWN])


SAME_UID_RULES: tuple[NamedRule, ...] = (
    NamedRule("ingestion_errors", "same_uids_are_told", "Objects of different content with one UID are told",
              same_uids_are_told),
)  # fmt: skip
"""Every rule of this module."""
