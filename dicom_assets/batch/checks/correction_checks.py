"""Rules of corrections: rows as read, which are in force, where links lead.

Belongs here: SQL of its own for what `batch.corrections` decides in Python. Does not belong here: what corrections make
of objects (`corrected`), the counting of rows in their files (`recount`).
"""

from __future__ import annotations

from dicom_assets.batch.checks.contract import SHOWN, CheckContext, CheckResult, NamedRule, compared
from dicom_assets.batch.checks.corrected import LINKED
from dicom_assets.batch.checks.hierarchy_checks import clean
from dicom_assets.lake.query import connect
from dicom_assets.lake.staging import Part
from dicom_assets.schema.registry import CORRECTION, PATIENT_LINK

_READ = ", ".join(f'"{name}"' for name in CORRECTION.schema.names if name != "state")


def corrections_equal_staged(context: CheckContext) -> CheckResult:
    """The batch's rows of correction say what was read, each of them."""
    with connect(context.lake, [CORRECTION.name], within=context.staging.scope(CORRECTION.name)) as connection:
        connection.register("staged", context.staging.read_whole(Part.CORRECTION))
        row = f"object_id, hash({_READ}) AS said"
        return compared(
            connection,
            f"SELECT {row} FROM staged",
            f"SELECT {row} FROM {CORRECTION.name} WHERE batch_id = {context.batch}",
        )


_SAYS_OTHER = """
    (one.PatientID, one.IssuerOfPatientID) <> (other.PatientID, other.IssuerOfPatientID)
        AND one.PatientID || one.IssuerOfPatientID <> '' AND other.PatientID || other.IssuerOfPatientID <> ''
    OR one.AccessionNumber <> other.AccessionNumber
    OR one.StudyInstanceUID <> other.StudyInstanceUID
"""

_WRONG = f"""
-- rows whose state does not follow from the others
WITH current_rows AS (
    SELECT
        correction.* REPLACE (
            coalesce(PatientID, '') AS PatientID, coalesce(IssuerOfPatientID, '') AS IssuerOfPatientID,
            coalesce(key_issuer, '') AS key_issuer, coalesce(object_source, '') AS object_source
        ),
        EXISTS (
            SELECT 1 FROM overwritten AS later
            WHERE later.place_key = correction.place_key AND later.claimed_at > correction.claimed_at
        ) AS is_gone
    FROM correction
),
pairs AS (
    SELECT
        one.correction_key, one.state, other.state AS other_state, other.corrected_at <= one.corrected_at AS is_before
    FROM current_rows AS one JOIN current_rows AS other USING (scope, object_source, key, key_issuer)
    WHERE NOT one.is_gone AND NOT other.is_gone AND ({_SAYS_OTHER})
)
SELECT correction_key FROM current_rows WHERE is_gone <> (state = 'replaced')
UNION
SELECT correction_key FROM pairs WHERE state = 'in_force' AND other_state = 'in_force'
UNION
SELECT correction_key FROM current_rows
WHERE state = 'contradicted' AND correction_key NOT IN (SELECT correction_key FROM pairs WHERE is_before)
UNION
SELECT correction_key FROM current_rows WHERE state = 'cyclic' AND scope <> 'patient_link'
"""


def states_follow(context: CheckContext) -> CheckResult:
    """What is in force contradicts nothing that is; what is not has a reason: its file, or what was said before it."""
    if not context.lake.row_count(CORRECTION.name):
        return CheckResult(True, 0, 0)
    with connect(context.lake, [CORRECTION.name, "overwritten"]) as connection:
        wrong = [name for (name,) in connection.execute(f"{_WRONG} ORDER BY ALL LIMIT {SHOWN}").fetchall()]
    return CheckResult(not wrong, 0, len(wrong), wrong)


_BROUGHT = """
-- corrections in force that no other batch has brought: those that are told once more change nothing
SELECT scope, key FROM correction
WHERE state = 'in_force' AND batch_id = {mine}
    AND correction_key NOT IN (SELECT correction_key FROM correction WHERE batch_id <> {mine})
"""

_CONCERNED = " UNION ".join(
    f"""
    SELECT DISTINCT study_key FROM there
    WHERE {sql} IN (SELECT key FROM brought WHERE scope IN ({scopes}))
    """
    for scopes, sql in (
        ("'instance'", "trim(SOPInstanceUID)"),
        ("'series'", "trim(SeriesInstanceUID)"),
        ("'study'", "trim(StudyInstanceUID)"),
        ("'accession'", clean("AccessionNumber")),
        ("'patient', 'patient_link'", clean("PatientID")),
    )
)

_THERE = """
-- rows of the batch, and of those that were closed when it began; what others publish meanwhile finds the corrections
SELECT flat.* FROM flat_metadata AS flat
WHERE batch_id = {mine} OR batch_id IN (
    SELECT earlier.batch_id FROM batches AS earlier, batches AS own
    WHERE own.batch_id = {mine} AND earlier.closed_at < own.started_at
)
"""


def studies_are_entered(context: CheckContext) -> CheckResult:
    """Every study with objects that corrections are about which the batch brings into force is one it makes again."""
    if not context.staging.rows(Part.CORRECTION):
        return CheckResult(True, 0, 0)
    with connect(context.lake, [CORRECTION.name, "flat_metadata", "batch_study", "batches"]) as connection:
        connection.execute(f"CREATE TEMP VIEW there AS {_THERE.format(mine=context.batch)}")
        connection.execute(f"CREATE TEMP TABLE brought AS {_BROUGHT.format(mine=context.batch)}")
        total, differing = connection.execute(
            f"""
            SELECT count(*), min(study_key, {SHOWN}) FILTER (study_key NOT IN (
                SELECT study_key FROM batch_study WHERE batch_id = {context.batch}
            ))
            FROM ({_CONCERNED})
            """
        ).fetchall()[0]
    return CheckResult(not differing, total, total - len(differing or ()), differing or ())


_STARTS = """
SELECT DISTINCT key AS id, key_issuer AS issuer FROM sayings WHERE scope = 'patient_link'
UNION
SELECT DISTINCT one.key, other.key_issuer FROM sayings AS one, sayings AS other
WHERE one.scope = 'patient_link' AND other.scope = 'patient_link' AND one.key_issuer IS NULL
"""


def links_are_followed(context: CheckContext) -> CheckResult:
    """Where patient_link says that an identifier ends is where its links lead, one after the other."""
    if not context.lake.row_count(CORRECTION.name):
        return CheckResult(True, 0, 0)
    with connect(context.lake, [CORRECTION.name, PATIENT_LINK.name]) as connection:
        connection.execute("CREATE TEMP TABLE sayings AS FROM correction WHERE state = 'in_force'")
        connection.execute(f"CREATE TEMP TABLE told AS {_STARTS}")
        connection.execute(f"CREATE TEMP TABLE linked AS {LINKED}")
        return compared(
            connection,
            "SELECT list_min(names) AS name, first_id, first_issuer, id, issuer FROM linked",
            """
            SELECT
                list_min(coalesce(own.corrections, anyone.corrections)) AS name, first_id, first_issuer,
                coalesce(own.surviving_patient_id, anyone.surviving_patient_id) AS id,
                coalesce(
                    if(own.PatientID IS NULL, anyone.surviving_patient_issuer, own.surviving_patient_issuer),
                    first_issuer
                ) AS issuer
            FROM (SELECT id AS first_id, issuer AS first_issuer FROM told)
            LEFT JOIN patient_link AS own ON own.PatientID = first_id AND own.IssuerOfPatientID = first_issuer
            LEFT JOIN patient_link AS anyone ON anyone.PatientID = first_id AND anyone.IssuerOfPatientID IS NULL
            """,
            "name",
        )


CORRECTION_RULES: tuple[NamedRule, ...] = (
    NamedRule("correction", "equals_staged", "Published corrections say what was read", corrections_equal_staged),
    NamedRule("correction", "states_follow", "What is in force contradicts nothing that is", states_follow),
    NamedRule("correction", "studies_are_entered", "Studies that corrections are about are made again",
              studies_are_entered),
    NamedRule("patient_link", "follows_links", "patient_link ends where links lead", links_are_followed),
)  # fmt: skip
"""Every rule of this module."""
