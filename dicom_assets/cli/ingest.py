"""The commands `ingest` and `status`: run what is open, and show the books."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets.cli.monitoring import tell_people
from dicom_assets.cli.options import Format, FormatOption, LakeOption, Landing, clear_errors, load_settings, print_rows
from dicom_assets.cli.sources import tell_doubts
from dicom_assets.collector import held_back, keep_what_is_there
from dicom_assets.printing import counted, say
from dicom_assets.settings import Settings

if TYPE_CHECKING:
    from dicom_assets.batch.books import Books
    from dicom_assets.batch.waits import Command
    from dicom_assets.defs.runner import Ended
    from dicom_assets.landing.returns import Waiting


def ingest(
    landing: Landing = None,
    lake: LakeOption = None,
    quarantined_share: Annotated[
        float | None,
        typer.Option(
            "--quarantined-share",
            min=0,
            max=1,
            help="Pause a batch above this share of quarantined objects, this time. Default: that of the settings.",
        ),
    ] = None,
) -> None:
    """Claim what is new and run every open batch now, until the books close."""
    with clear_errors():
        settings = load_settings(landing, lake)
        if quarantined_share is not None:
            gate = settings.gate.model_copy(update={"quarantined_share": quarantined_share})
            settings = settings.model_copy(update={"gate": gate})
        try:
            ended = ingest_now(settings)
        finally:
            tell_people(settings)
    print_ended(ended, settings)
    raise typer.Exit(0 if ended.closed else 1)


def print_ended(ended: Ended, settings: Settings) -> None:
    """Shows the books of what was run, and says what is left and why."""
    if ended.books:
        print_books(ended.books)
    elif not (ended.troubles or ended.waiting or ended.unread):
        typer.echo("Nothing new: every object of the landing zone is accounted for.")
    for trouble in ended.troubles:
        say(trouble, err=True)
    tell_waiting(ended.books, settings)
    if ended.waiting:
        still = "still changes and was left" if ended.waiting == 1 else "still change and were left"
        typer.echo(f"{counted(ended.waiting, 'object')} {still}.", err=True)
    _say_what_waits(ended.unread)


def ingest_now(settings: Settings) -> Ended:
    """Runs an ingest and shows how far it is."""
    with held_back():
        from dicom_assets.batch.first_delivery import first_delivery
        from dicom_assets.cli.progress import Reporter
        from dicom_assets.defs.state_folder import dagster_home
        from dicom_assets.lake.query import has_lake
        from dicom_assets.landing.opening import require_one
    keep_what_is_there()
    if not has_lake(settings.lake):
        require_one(settings.sources)
    with suppress(OSError):  # said where it is opened
        dagster_home(settings)  # before anything is claimed it is seen whose state it is

    with Reporter() as reporter, first_delivery(settings, reporter.say, reporter.show) as first:
        with held_back():  # while the first batch is read
            from dicom_assets.defs.instance import open_instance
            from dicom_assets.defs.runner import run_deliveries
        keep_what_is_there()
        with open_instance(settings) as instance:
            return run_deliveries(first, instance)


_BOOKS = ("batch", "source", "status", "seen", "ingested", "quarantined", "ignored", "deleted")


def print_books(books: Sequence[Books]) -> None:
    """The books of some batches, as a table."""
    print_rows(_BOOKS, [_counts(one) for one in books], Format.TABLE)


def _counts(books: Books) -> tuple[object, ...]:
    counts = (books.seen, books.ingested, books.quarantined, books.ignored, books.deleted)
    return books.batch_id, books.source, books.status, *counts


_CLOSED_SHOWN = 50


def newest_closed(books: Sequence[Books], most: int | None) -> list[Books]:
    """The books without those of closed batches that are not among the newest."""
    from dicom_assets.batch.books import Status

    closed = [one.batch_id for one in books if one.status == Status.CLOSED]
    hidden = set() if most is None else set(closed[:-most])
    return [one for one in books if one.batch_id not in hidden]


def _print_status(books: Sequence[Books], form: Format) -> None:
    """The books with their times; why a batch waits is told below a table, in full."""
    names = [*_BOOKS, "started", "ended"]
    rows = [[*_counts(one), _time(one.started_at), _time(one.closed_at)] for one in books]
    if form is not Format.TABLE:
        names.append("reason")
        rows = [[*row, one.reason or ""] for row, one in zip(rows, books, strict=True)]
    print_rows(names, rows, form)


def _age(moment: datetime) -> str:
    """How long ago something was, in the largest unit of which there are at least two."""
    seconds = max((datetime.now(UTC) - moment).total_seconds(), 0)
    units = (("days", 86_400), ("h", 3_600), ("min", 60))
    return next((f"{seconds / of:.0f} {unit}" for unit, of in units if seconds >= 2 * of), f"{seconds:.0f} s")


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def tell_waiting(books: Sequence[Books], settings: Settings) -> None:
    """Why batches wait for a person, and the commands that can be run, for the lake of these settings."""
    from dicom_assets.batch.waits import commands

    for one in books:
        if one.status != "closed" and one.reason:
            say(f"Batch {one.batch_id} is {one.status}: {one.reason}", err=True)
            tell_commands(commands(one.batch_id, one.status, one.reason), settings, err=True)


def tell_commands(found: Sequence[Command], settings: Settings, *, err: bool) -> None:
    """Commands that can be run, each with the places that this one was given, and below it what it does."""
    from dicom_assets.catalogue.matters import complete

    for one in found:
        say(f"  {complete(one.text, settings.given)}\n    {one.what}", err=err)


def _say_what_waits(unread: Sequence[Waiting]) -> None:
    """Which objects could not be read, source by source, and when they are read again."""
    for one in unread:
        why = ", ".join(f"{code} {count}" for code, count in sorted(one.codes.items()))
        typer.echo(
            f"Source '{one.source}': {counted(one.objects, 'object')} could not be read and will be read again ({why}) "
            f"at {one.next_at:%Y-%m-%dT%H:%M:%SZ}, or by the next `dicom-assets ingest`.",
            err=True,
        )


def status(
    lake: LakeOption = None,
    form: FormatOption = Format.TABLE,
    most: Annotated[
        int | None, typer.Option("--limit", min=1, help="So many closed batches at most, the newest; all that wait.")
    ] = None,
) -> None:
    """Show the batches and their books, what waits, and why.

    A table has the newest 50 closed batches unless --limit says otherwise, CSV and JSON have all of them. Ends with 1
    when something waits: a batch that is paused or failed, a source that looks emptied, or objects that are to be read
    again; else with 0.
    """
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.batch.books import Books, Status, all_books
        from dicom_assets.batch.selftest.diary import sentences
        from dicom_assets.batch.waits import is_waiting
        from dicom_assets.curation.following import behind
        from dicom_assets.lake.query import existing
        from dicom_assets.landing.claims import ClaimLog
        from dicom_assets.landing.returns import waiting

        found = existing(settings.lake)
        known = {b.batch_id: b for b in all_books(found)}
        log = ClaimLog(found.files)
        claimed = [
            known.get(claim.batch_id) or Books(claim.batch_id, claim.source, "claimed", seen=claim.objects)
            for claim in log.claims()
        ]
        doubts = tell_doubts(found)
        unread = waiting(log.returned())
        of_tests = list(sentences(found.files))
        lag = behind(found)
    most = most or (_CLOSED_SHOWN if form is Format.TABLE else None)
    shown = newest_closed(claimed, most)
    listed = [*shown, *(Books("", one.source, "waiting", seen=one.objects) for one in unread)]
    waits = [one for one in claimed if is_waiting(one)]
    if listed or form is not Format.TABLE:
        _print_status(listed, form)
    else:
        typer.echo("No batches yet. Run `dicom-assets ingest`.")
    if len(shown) < len(claimed):
        older = counted(len(claimed) - len(shown), "older closed batch", "older closed batches")
        typer.echo(f"Not shown: {older}; see --limit.", err=True)
    closed = [one.closed_at for one in claimed if one.status == Status.CLOSED and one.closed_at]
    if closed:
        typer.echo(f"The last batch to close did so {_age(max(closed))} ago.", err=True)
    tell_waiting(waits, settings)
    _say_what_waits(unread)
    for sentence in of_tests:
        say(sentence, err=True)
    if lag:
        batches = counted(lag, "closed batch", "closed batches")
        say(f"tag_profile and phi_risk are {batches} behind; `dicom-assets curate` brings them up to date.", err=True)
    raise typer.Exit(1 if waits or doubts or unread else 0)


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.command()(ingest)
    app.command()(status)
