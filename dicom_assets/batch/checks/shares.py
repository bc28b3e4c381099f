"""The shares beyond which a batch pauses besides the quarantined one: lost whole, ignored, record errors.

Belongs here: pure functions over the staged ledger, records and errors. Does not belong here: the gate that asks them
(`checks`), the bounds (`settings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.settings import GateSettings

OF_THEIR_OWN = (
    *("OBJECT_GONE", "CHANGED_DURING_READ", "EMPTY_FILE", "CONTAINER_UNSUPPORTED", "CLINICAL_UNREADABLE"),
    *("COMPRESSED_FILE_UNSUPPORTED", "SPREADSHEET_UNSUPPORTED", "HL7_UNSUPPORTED"),
)
"""Codes that say nothing of a batch: what is not there any more, and what only looks like data from afar."""

_DICOM = pa.array(["dicom", "change"])
_OTHER = pa.array(["NOT_DICOM", "DOCUMENT"])

_ACCEPT = "Remove the cause and run it again, or raise {} for that run"


def opened(limits: GateSettings) -> GateSettings:
    """Bounds that no share is beyond."""
    return limits.model_copy(update=dict.fromkeys(("quarantined_share", "ignored_share", "record_error_share"), 1.0))


@dataclass(frozen=True, slots=True)
class Excess:
    """A share above its bound. objects: object_ids; explanation: what was counted."""

    bound: float
    actual: float
    objects: Sequence[str]
    explanation: str


def excess(ledger: pa.Table, records: pa.Table, errors: pa.Table, limits: GateSettings) -> Excess | None:
    """The first share that is above its bound, None when all are within.

    ledger: object_id, outcome, code, kind. records: object_id of each staged clinical record. errors: object_id, code.
    """
    return (
        _nothing_ingested(ledger, limits) or _ignored(ledger, limits) or _record_errors(ledger, records, errors, limits)
    )


def _nothing_ingested(ledger: pa.Table, limits: GateSettings) -> Excess | None:
    """A batch too small for a share that has lost all that looked like data, or all that looked like DICOM.

    One broken file is that file's fault, and says nothing of the others; where three of three are broken, it is more
    likely that something else is.
    """
    if limits.quarantined_share >= 1:
        return None
    for rows, what in ((ledger.filter(pc.is_in(ledger["kind"], _DICOM)), "DICOM"), (ledger, "data")):
        alone = pc.fill_null(pc.is_in(rows["code"], pa.array(OF_THEIR_OWN)), False)
        refused = rows.filter(pc.and_(pc.equal(rows["outcome"], "quarantined"), pc.invert(alone)))["object_id"]
        taken = pc.sum(pc.is_in(rows["outcome"], pa.array(["ingested", "deleted"]))).as_py() or 0
        if not taken and len(refused) >= limits.none_ingested:
            words = f"Nothing is ingested of what looked like {what}: all {len(refused)} objects are quarantined. "
            words += _ACCEPT.format("quarantined_share to 1")
            return Excess(limits.quarantined_share, 1.0, refused.to_pylist(), words)
    return None


def _ignored(ledger: pa.Table, limits: GateSettings) -> Excess | None:
    total = pc.sum(pc.not_equal(ledger["kind"], "archive")).as_py() or 0
    ignored = ledger.filter(pc.fill_null(pc.is_in(ledger["code"], _OTHER), False))["object_id"]
    share = len(ignored) / total if total else 0.0
    if len(ignored) < limits.minimum or share <= limits.ignored_share:
        return None
    words = (
        f"{len(ignored)} of {total} objects are nothing that is read here ({share:.0%}); the batch pauses above "
        f"{limits.ignored_share:.0%}. "
    )
    return Excess(limits.ignored_share, round(share, 4), ignored.to_pylist(), words + _ACCEPT.format("ignored_share"))


def _record_errors(ledger: pa.Table, records: pa.Table, errors: pa.Table, limits: GateSettings) -> Excess | None:
    """Of the records of files that are ingested; a file without a single sound record is quarantined as a whole."""
    ingested = ledger.filter(pc.equal(ledger["outcome"], "ingested"))["object_id"].combine_chunks()
    wrong = errors.filter(pc.equal(errors["code"], "RECORD_INVALID"))["object_id"]
    wrong = wrong.filter(pc.is_in(wrong, ingested))
    total = len(records) + len(wrong)
    share = len(wrong) / total if total else 0.0
    if len(wrong) < limits.minimum or share <= limits.record_error_share:
        return None
    words = (
        f"{len(wrong)} of {total} clinical records cannot be read ({share:.0%}); the batch pauses above "
        f"{limits.record_error_share:.0%}. "
    )
    objects = wrong.unique().to_pylist()
    return Excess(limits.record_error_share, round(share, 4), objects, words + _ACCEPT.format("record_error_share"))
