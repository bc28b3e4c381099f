"""The commands `ingest` and `status`: run what is open, and show the books."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets.cli.options import Format, FormatOption, LakeOption, Landing, clear_errors, load_settings, print_rows
from dicom_assets.cli.sources import tell_doubts
from dicom_assets.collector import held_back, keep_what_is_there
from dicom_assets.printing import say
from dicom_assets.settings import Settings

if TYPE_CHECKING:
    from dicom_assets.defs.runner import Ended
    from dicom_assets.landing.returns import Waiting


def ingest(
    landing: Landing = None,
    lake: LakeOption = None,
    quarantined_share: Annotated[
        float | None,
        typer.Option("--quarantined-share", min=0, max=1, help="Pause a batch above this share, for this time only."),
    ] = None,
) -> None:
    """Claim what is new and run every open batch now, until the books close."""
    with clear_errors():
        settings = load_settings(landing, lake)
        if quarantined_share is not None:
            gate = settings.gate.model_copy(update={"quarantined_share": quarantined_share})
            settings = settings.model_copy(update={"gate": gate})
        ended = ingest_now(settings)
    print_ended(ended)
    raise typer.Exit(0 if ended.closed else 1)


def print_ended(ended: Ended) -> None:
    """Shows the books of what was run, and says what is left and why."""
    rows = [(b.batch_id, b.source, b.status, b.seen, b.ingested, b.quarantined, b.ignored, b.deleted)
            for b in ended.books]  # fmt: skip
    if rows or not (ended.troubles or ended.waiting or ended.unread):
        _print_books(rows)
    for trouble in ended.troubles:
        say(trouble, err=True)
    for books in ended.books:
        if books.status != "closed":
            say(f"Batch {books.batch_id} is {books.status}: {books.reason}", err=True)
    if ended.waiting:
        typer.echo(f"{ended.waiting} objects still change and were left.", err=True)
    _say_what_waits(ended.unread)


def ingest_now(settings: Settings) -> Ended:
    """Runs an ingest and shows how far it is."""
    with held_back():
        from dicom_assets.cli.progress import Reporter
        from dicom_assets.defs.instance import open_instance
        from dicom_assets.defs.runner import ingest as run_ingest
    keep_what_is_there()

    with Reporter() as reporter, open_instance(settings) as instance:
        return run_ingest(settings, instance, reporter.say, reporter.show)


_BOOKS = ("batch", "source", "status", "seen", "ingested", "quarantined", "ignored", "deleted")


def _print_books(rows: Sequence[tuple[object, ...]], form: Format = Format.TABLE) -> None:
    if not rows and form is Format.TABLE:
        typer.echo("Nothing new: every object of the landing zone is accounted for.")
        return
    print_rows(_BOOKS, rows, form)


def _say_what_waits(unread: Sequence[Waiting]) -> None:
    """Which objects could not be read, source by source, and when they are read again."""
    for one in unread:
        why = ", ".join(f"{code} {count}" for code, count in sorted(one.codes.items()))
        typer.echo(
            f"Source {one.source}: {one.objects} objects could not be read and wait to be read again ({why}); the next "
            f"attempt is at {one.next_at:%Y-%m-%dT%H:%M:%SZ}, or with the next `dicom-assets ingest`.",
            err=True,
        )


def status(lake: LakeOption = None, form: FormatOption = Format.TABLE) -> None:
    """Show the batches and their books, and what waits to be read again."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.batch.books import all_books
        from dicom_assets.lake.query import existing
        from dicom_assets.landing.claims import ClaimLog
        from dicom_assets.landing.returns import waiting

        found = existing(settings.lake)
        books = {b.batch_id: b for b in all_books(found)}
        rows: list[tuple[object, ...]] = []
        log = ClaimLog(found.files)
        for claim in log.claims():
            b = books.get(claim.batch_id)
            if b is None:
                rows.append((claim.batch_id, claim.source, "claimed", claim.objects, 0, 0, 0, 0))
            else:
                rows.append((b.batch_id, b.source, b.status, b.seen, b.ingested, b.quarantined, b.ignored, b.deleted))
        tell_doubts(found)
        unread = waiting(log.returned())
        rows += [("", one.source, "waiting", one.objects, 0, 0, 0, 0) for one in unread]
        if not rows and form is Format.TABLE:
            typer.echo("No batches yet. Run `dicom-assets ingest`.")
            return
        print_rows(_BOOKS, rows, form)
        for b in books.values():
            if b.reason:
                say(f"Batch {b.batch_id} is {b.status}: {b.reason}", err=True)
        _say_what_waits(unread)


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.command()(ingest)
    app.command()(status)
