"""The commands `dicom-assets batch …`: what a person can do about a batch. They join the others in `cli`.

Belongs here: options, printing, exit codes. Does not belong here: what happens to a batch (`batch`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_assets.cli.ingest import print_books, tell_commands, tell_waiting
from dicom_assets.cli.options import (
    Format,
    FormatOption,
    LakeOption,
    Landing,
    clear_errors,
    load_settings,
    print_rows,
    require_known,
)
from dicom_assets.printing import counted, say

if TYPE_CHECKING:
    from dicom_assets.batch.books import Books

BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="Its id, as `dicom-assets status` lists it.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stays in the books, so let it name no patient.")]
By = Annotated[str | None, typer.Option("--by", help="Who decides; the account that runs this by default.")]
QuarantinedShare = Annotated[
    float | None, typer.Option(min=0, max=1, help="Pause above this share of quarantined objects, for this run only.")
]
IgnoredShare = Annotated[float | None, typer.Option(min=0, max=1, help="The same for objects that are ignored.")]
RecordErrorShare = Annotated[
    float | None, typer.Option(min=0, max=1, help="The same for clinical records that are errors.")
]

_IDS = 5
"""object_ids of a code that are shown in a table; other formats have all of them."""

batches = typer.Typer(name="batch", help="Single batches.", no_args_is_help=True)


@batches.callback()
def batch() -> None:
    """Single batches."""


@batches.command("register")
def register_batches(
    names: Annotated[list[str], typer.Argument(help="Ids of batches, as `dicom-assets status` lists them.")],
    lake: LakeOption = None,
) -> None:
    """Make batches known to Dagster again whose partitions were taken away, so that a backfill can run them."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.defs.instance import open_instance
        from dicom_assets.defs.jobs import register
        from dicom_assets.lake.query import existing
        from dicom_assets.landing.claims import ClaimLog

        log = ClaimLog(existing(settings.lake).files)
        for name in names:
            require_known(log, name)
        with open_instance(settings) as instance:
            fresh = register(instance, list(dict.fromkeys(names)))
    known = len(set(names)) - len(fresh)
    typer.echo(f"{counted(len(fresh), 'batch', 'batches')} registered; known before: {known}.")


@batches.command("show")
def show_batch(batch_id: BatchId, lake: LakeOption = None, form: FormatOption = Format.TABLE) -> None:
    """Show what waits of a batch and why, its objects by reason code, and what can be done."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.batch.waits import commands, decided, look_at
        from dicom_assets.lake.query import existing
        from dicom_assets.landing.claims import ClaimLog
        from dicom_assets.schema.codes import CODES

        found = existing(settings.lake)
        log = ClaimLog(found.files)
        require_known(log, batch_id)
        waits = look_at(found, log, batch_id)
    books = waits.books
    shown = [_some(one.objects) if form is Format.TABLE else list(one.objects) for one in waits.codes]
    rows = [
        (one.code, len(one.objects), ids, CODES[one.code].meaning, CODES[one.code].remedy)
        for one, ids in zip(waits.codes, shown, strict=True)
    ]
    if form is Format.TABLE:
        since = f" since {waits.stopped_at:%Y-%m-%dT%H:%M:%SZ}" if waits.stopped_at else ""
        say(
            f"Batch {batch_id} of source {books.source} is {books.status}{since}; claimed: "
            f"{counted(waits.claimed, 'object')}."
        )
        for words in (books.reason, decided(books)):
            if words:
                say(words)
        others = [one for one in commands(batch_id, books.status, books.reason) if " show " not in one.text]
        tell_commands(others, settings, err=False)
    if rows or form is not Format.TABLE:
        print_rows(("code", "objects", "object_ids", "meaning", "what to do"), rows, form)


def _some(ids: Any) -> str:
    return " ".join([*ids[:_IDS], "…"] if len(ids) > _IDS else ids)


@batches.command("retry")
def retry_batch(
    batch_id: BatchId,
    landing: Landing = None,
    lake: LakeOption = None,
    quarantined_share: QuarantinedShare = None,
    ignored_share: IgnoredShare = None,
    record_error_share: RecordErrorShare = None,
) -> None:
    """Run a batch again now that is not closed, with other thresholds for this run if you like."""
    shares = {
        name: share
        for name, share in (
            ("quarantined_share", quarantined_share),
            ("ignored_share", ignored_share),
            ("record_error_share", record_error_share),
        )
        if share is not None
    }
    _run((landing, lake), "retry", batch_id=batch_id, shares=shares)


@batches.command("accept")
def accept_batch(
    batch_id: BatchId, reason: Reason, landing: Landing = None, lake: LakeOption = None, by: By = None
) -> None:
    """Publish what is good of a paused batch; the rest stays quarantined. Checks of integrity still block."""
    _run((landing, lake), "accept", batch_id=batch_id, decided_by=by, reason=reason)


@batches.command("dismiss")
def dismiss_batch(batch_id: BatchId, reason: Reason, lake: LakeOption = None, by: By = None) -> None:
    """Close a batch with all of its objects quarantined; nothing of it stays in the lake."""
    _run((None, lake), "dismiss", batch_id=batch_id, decided_by=by, reason=reason)


def _run(places: tuple[str | None, str | None], what: str, **given: Any) -> None:
    """Runs one batch in this process, and ends with 0 when its books closed, with 1 when they did not."""
    with clear_errors():
        settings = load_settings(*places)
        from dicom_assets.batch.context import RunContext
        from dicom_assets.cli.progress import Reporter
        from dicom_assets.defs import decision_jobs, single_batches
        from dicom_assets.defs.instance import open_instance
        from dicom_assets.lake.query import is_there

        is_there(settings.lake)
        if "decided_by" in given:
            given["decided_by"] = given["decided_by"] or decision_jobs.account()
        calls: Mapping[str, Callable[..., Books]] = {
            "retry": single_batches.retry,
            "accept": single_batches.accept,
            "dismiss": single_batches.dismiss,
        }
        with Reporter() as reporter, RunContext(settings, reporter.show, say=reporter.say) as work:
            require_known(work.log, given["batch_id"])  # before Dagster's state is made
            with open_instance(settings) as instance:
                books = calls[what](work, instance, **given)
    print_books([books])
    tell_waiting([books], settings)
    raise typer.Exit(0 if books.status == "closed" else 1)


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.add_typer(batches)
