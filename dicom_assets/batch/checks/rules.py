"""Every rule that a batch must keep, put together from the modules that hold them, and what they look at.

Belongs here: the one list that the graph makes its checks of. Does not belong here: any rule.
"""

from __future__ import annotations

from dicom_assets.batch.checks.archive_checks import ARCHIVE_RULES
from dicom_assets.batch.checks.claim_checks import CLAIM_RULES
from dicom_assets.batch.checks.conflict_checks import CONFLICT_RULES
from dicom_assets.batch.checks.contract import CheckContext, NamedRule
from dicom_assets.batch.checks.correction_checks import CORRECTION_RULES
from dicom_assets.batch.checks.duplicate_checks import DUPLICATE_RULES
from dicom_assets.batch.checks.geometry_checks import GEOMETRY_RULES
from dicom_assets.batch.checks.hierarchy_checks import HIERARCHY_RULES
from dicom_assets.batch.checks.house_checks import HOUSE_RULES
from dicom_assets.batch.checks.parity_checks import RULES
from dicom_assets.batch.checks.promoted_checks import PROMOTED_RULES
from dicom_assets.batch.checks.published_checks import PUBLISHED_RULES
from dicom_assets.batch.checks.record_checks import RECORD_RULES
from dicom_assets.batch.checks.same_uid_checks import SAME_UID_RULES
from dicom_assets.batch.checks.sample_checks import SAMPLE_RULES
from dicom_assets.batch.checks.standard_checks import STANDARD_RULES
from dicom_assets.batch.checks.version_checks import VERSION_RULES
from dicom_assets.batch.checks.warning_checks import WARNING_RULES
from dicom_assets.batch.context import OpenBatch
from dicom_assets.settings import GateSettings

ALL_RULES: tuple[NamedRule, ...] = (
    *RULES,
    *VERSION_RULES,
    *CORRECTION_RULES,
    *CLAIM_RULES,
    *ARCHIVE_RULES,
    *RECORD_RULES,
    *HOUSE_RULES,
    *SAMPLE_RULES,
    *PROMOTED_RULES,
    *HIERARCHY_RULES,
    *GEOMETRY_RULES,
    *CONFLICT_RULES,
    *STANDARD_RULES,
    *PUBLISHED_RULES,
    *SAME_UID_RULES,
    *DUPLICATE_RULES,
    *WARNING_RULES,
)
"""Every rule; those of one table are looked at in this order."""


def judged(batch: OpenBatch, gate: GateSettings | None = None) -> CheckContext:
    """What the rules of one batch look at. gate: bounds instead of those of the settings."""
    settings = batch.work.settings
    return CheckContext(
        batch.lake,
        batch.staging,
        gate or settings.gate,
        settings.omop,
        settings=settings,
        log=batch.work.log,
        kind=batch.kind,
        said=batch.said,
    )
