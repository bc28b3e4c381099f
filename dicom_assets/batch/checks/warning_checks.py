"""Rules that warn and never pause a batch: flaws of what arrived, which are nobody's fault here.

Belongs here: shares and conflicts that a person should know of. Does not belong here: rules that block (`checks`).
"""

from __future__ import annotations

from dicom_assets.batch.checks.contract import SHOWN, CheckContext, CheckResult, NamedRule
from dicom_assets.batch.publish import touched_studies
from dicom_assets.lake.query import connect
from dicom_assets.lake.studies import study_scope


def few_warnings(context: CheckContext) -> CheckResult:
    """Not too many of the ingested objects carry a warning."""
    with connect(context.lake, ["validated_batch"], within=context.staging.scope("validated_batch")) as connection:
        total, flawed, names = connection.execute(
            f"SELECT count(*), count(code), min(object_id, {SHOWN}) FILTER (code IS NOT NULL) FROM validated_batch "
            f"WHERE batch_id = {context.batch} AND outcome = 'ingested'"
        ).fetchall()[0]
    share = flawed / total if total else 0.0
    passed = share <= context.gate.warning_share
    return CheckResult(passed, context.gate.warning_share, round(share, 4), () if passed else names)


def one_patient_a_study(context: CheckContext) -> CheckResult:
    """No touched study has instances of two patients."""
    touched = touched_studies(context.staging)
    scope = study_scope(context.lake, ["study"], touched["study_key"].to_pylist())
    with connect(context.lake, ["study"], within=scope) as connection:
        connection.register("touched", touched)
        found = connection.execute(
            f"SELECT study_key FROM study SEMI JOIN touched USING (study_key) WHERE patient_count > 1 "
            f"ORDER BY study_key LIMIT {SHOWN}"
        ).fetchall()
    return CheckResult(not found, 0, len(found), [str(key) for (key,) in found])


WARNING_RULES: tuple[NamedRule, ...] = (
    NamedRule("validated_batch", "few_warnings", "Share of objects with warnings", few_warnings, blocking=False),
    NamedRule("study", "one_patient_a_study", "No study with conflicting patients", one_patient_a_study,
              blocking=False),
)  # fmt: skip
"""Every rule of this module."""
