"""What a person decides about a batch that waits: it is entered in the books, and the next run of the batch acts on it.

Belongs here: which decision may be made about which batch. Does not belong here: running it (`defs.single_batches`),
what a dismissed batch becomes (`dismissal`), the gate that an accepted one passes (`checks.parity_checks`).

A decision stands in the row of the batch in `batches` from before the run until for ever, so that a run that is killed
is made good by any other one, and a later backfill of the batch ends in the same tables.
"""

from __future__ import annotations

from dicom_assets.batch import books
from dicom_assets.batch.books import Books, Decision, Status
from dicom_assets.batch.checks.parity_checks import not_read_whole
from dicom_assets.batch.checks.rules import judged
from dicom_assets.batch.context import OpenBatch
from dicom_assets.batch.waits import ACCEPTABLE, rule_of
from dicom_assets.lake.staging import StagingMissing
from dicom_assets.settings import UserError


class DecisionRefused(UserError):
    """A decision that cannot be made about a batch as it stands; the message says what to do instead."""


def retry(batch: OpenBatch) -> None:
    """Sees whether a batch can be run again. Raises DecisionRefused when it is closed, SettingsError."""
    require_open(batch)
    batch.require_place()


def require_open(batch: OpenBatch) -> Books | None:
    """The books of a batch that is not closed, None when it never started. Raises DecisionRefused when it is."""
    known = books.books_of(batch.lake, batch.batch_id)
    if known is not None and known.status == Status.CLOSED:
        raise DecisionRefused(
            f"Batch {batch.batch_id} is closed: nothing of it waits. What it left out, and why: dicom-assets errors "
            f"--batch {batch.batch_id}"
        )
    return known


def accept(batch: OpenBatch, decided_by: str, reason: str) -> Books:
    """Accepts a paused batch: what is good of it is published when it is run. Raises DecisionRefused.

    Shares, and rules of the house that pause, are no matter for it any more; checks of integrity block as before.
    Whoever calls it holds the batch.
    """
    _require_reason(reason)
    known = require_open(batch)
    if known is None or known.status != Status.PAUSED:
        status = "was never run" if known is None else f"is {known.status}"
        raise DecisionRefused(
            f"Batch {batch.batch_id} {status}, and only a paused one can be accepted. Run it first: dicom-assets batch "
            f"retry {batch.batch_id}"
        )
    if rule_of(known.reason) not in ACCEPTABLE:
        raise DecisionRefused(
            f"Batch {batch.batch_id} is not paused for the share of what is bad in it, nor by a rule of the house, "
            f"and nothing else can be accepted. It is paused because: {known.reason}"
        )
    try:
        found = not_read_whole(judged(batch))
    except StagingMissing:
        raise DecisionRefused(
            f"Batch {batch.batch_id} has nothing staged any more, so what is good of it is not known. Run it first: "
            f"dicom-assets batch retry {batch.batch_id}"
        ) from None
    if found is not None:
        raise DecisionRefused(
            f"Batch {batch.batch_id} cannot be accepted: {found.explanation} Run it again when the cause is removed: "
            f"dicom-assets batch retry {batch.batch_id}"
        )
    batch.require_place()
    return books.decide(batch.lake, batch.batch_id, Decision.ACCEPTED, decided_by, reason)


def dismiss(batch: OpenBatch, decided_by: str, reason: str) -> Books:
    """Dismisses a batch that is not closed: its next run closes it with all of its objects quarantined.

    Whoever calls it holds the batch. Raises DecisionRefused.
    """
    _require_reason(reason)
    if require_open(batch) is None:
        books.open_batch(batch.lake, batch.batch_id, batch.source_name, "", len(batch.manifest))
    return books.decide(batch.lake, batch.batch_id, Decision.DISMISSED, decided_by, reason)


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise DecisionRefused("Say why: --reason TEXT. It stays in the books, so let it name no patient.")
