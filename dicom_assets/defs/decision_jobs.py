"""Jobs for batches that wait for a person: show, retry, accept, dismiss; Dagster's Launchpad scaffolds their config.

Belongs here: config and metadata. Does not belong here: what they do (`single_batches`), the command (`cli.batches`).
"""

import getpass
from collections.abc import Callable
from typing import Any

import dagster as dg
from pydantic import Field

from dicom_assets.batch.books import Books, Status
from dicom_assets.batch.waits import decided, look_at, markdown
from dicom_assets.defs import single_batches
from dicom_assets.defs.reporting import WHAT_TO_DO, clear_failures, fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.settings import Settings

BATCH_ID = "Id of the batch, as `dicom-assets status` and the partitions `batch` list it"
_SHOWN = 20


class BatchConfig(dg.Config):
    """Which batch."""

    batch_id: str = Field(description=BATCH_ID)


class RetryConfig(dg.Config):
    """Which batch, and bounds for this run alone."""

    batch_id: str = Field(description=BATCH_ID)
    quarantined_share: float | None = Field(None, description="Pause above this share, for this run only", ge=0, le=1)


class DecisionConfig(dg.Config):
    """Which batch, and why. It stays in the books, so it must name no patient."""

    batch_id: str = Field(description=BATCH_ID)
    reason: str = Field(description="Why, for the books; name no patient here")
    decided_by: str | None = Field(None, description="Who decides; the account of this process when it is not given")


def account() -> str:
    """The name of the account that this process runs as."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an id without a name, as containers have
        return "unknown"


@dg.op(name="show_batch_op", description="Shows what waits of a batch, why, and what to do.")
@fail_clearly
def show(context: dg.OpExecutionContext, config: BatchConfig, work: RunContextParam) -> None:
    """Nothing is changed."""
    with clear_failures():
        found = look_at(work.lake, work.log, config.batch_id)
    lines = ["| code | objects | object_ids |", "|---|---|---|"]
    lines += [f"| {one.code} | {len(one.objects)} | {' '.join(one.objects[:_SHOWN])} |" for one in found.codes]
    context.add_output_metadata({**_metadata(found.books), "objects": dg.MetadataValue.md("\n".join(lines))})


@dg.op(name="retry_batch_op", description="Runs a batch again that is not closed.")
@fail_clearly
def retry(context: dg.OpExecutionContext, config: RetryConfig, work: RunContextParam) -> None:
    """Ends with the books of the batch; fails when they did not close."""
    shares = {} if config.quarantined_share is None else {"quarantined_share": config.quarantined_share}
    _ended(context, lambda: single_batches.retry(work, context.instance, config.batch_id, shares))


@dg.op(name="accept_batch_op", description="Publishes the good part of a paused batch.")
@fail_clearly
def accept(context: dg.OpExecutionContext, config: DecisionConfig, work: RunContextParam) -> None:
    """Ends with the books of the batch; fails when it cannot be accepted."""
    who = config.decided_by or account()
    _ended(context, lambda: single_batches.accept(work, context.instance, config.batch_id, who, config.reason))


@dg.op(name="dismiss_batch_op", description="Closes a batch with its objects quarantined.")
@fail_clearly
def dismiss(context: dg.OpExecutionContext, config: DecisionConfig, work: RunContextParam) -> None:
    """Ends with the books of the batch; fails when it cannot be dismissed."""
    who = config.decided_by or account()
    _ended(context, lambda: single_batches.dismiss(work, context.instance, config.batch_id, who, config.reason))


def _ended(context: dg.OpExecutionContext, run: Callable[[], Books]) -> None:
    with clear_failures():
        books = run()
    if books.status != Status.CLOSED:
        raise dg.Failure(f"Batch {books.batch_id} is {books.status}: {books.reason}", _metadata(books), False)
    context.add_output_metadata(_metadata(books))


def _metadata(books: Books) -> dict[str, Any]:
    counts = {name: getattr(books, name) for name in ("seen", "ingested", "quarantined", "ignored", "deleted")}
    words = {
        "batch_id": books.batch_id,
        "status": str(books.status),
        "reason": books.reason,
        "decision": decided(books),
    }
    metadata: dict[str, Any] = {**counts, **{name: text for name, text in words.items() if text}}
    if books.status != Status.CLOSED:
        metadata[WHAT_TO_DO] = dg.MetadataValue.md(markdown(books.batch_id, books.status, books.reason))
    return metadata


@dg.job(
    description="Shows what waits of a batch, why, which objects, and what can be done.",
    executor_def=dg.in_process_executor,
)
def show_batch() -> None:
    """Shows a batch."""
    show()


@dg.job(
    description="Runs a batch again that is not closed, optionally with another threshold for that run.",
    executor_def=dg.in_process_executor,
)
def retry_batch() -> None:
    """Runs a batch again."""
    retry()


@dg.job(
    description="Publishes the good part of a paused batch; checks of integrity still block.",
    executor_def=dg.in_process_executor,
)
def accept_batch() -> None:
    """Accepts a batch."""
    accept()


@dg.job(
    description="Closes a batch with all of its objects quarantined; nothing of it stays in the lake.",
    executor_def=dg.in_process_executor,
)
def dismiss_batch() -> None:
    """Dismisses a batch."""
    dismiss()


def definitions(_: Settings) -> dg.Definitions:
    """The jobs."""
    return dg.Definitions(jobs=[show_batch, retry_batch, accept_batch, dismiss_batch])
