"""The command `dicom-assets`: options, printing, exit codes. Everything it does is done elsewhere.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 a batch did not close, 2 wrong input, 3 a
fault that nobody foresaw.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets import faults, printing
from dicom_assets import settings as settings_module
from dicom_assets.cli import services as cli_services
from dicom_assets.cli import sources as cli_sources
from dicom_assets.cli import verify as cli_verify
from dicom_assets.cli.services import loaded, told
from dicom_assets.collector import held_back, keep_what_is_there
from dicom_assets.printing import say
from dicom_assets.settings import Settings

if TYPE_CHECKING:
    from dicom_assets.defs.runner import Ended
    from dicom_assets.landing.returns import Waiting

app = typer.Typer(
    name="dicom-assets",
    help="The open lake for medical-imaging metadata.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Landing = Annotated[str | None, typer.Option("--landing", help="Folder or URL where objects arrive.")]
LakeOption = Annotated[str | None, typer.Option("--lake", help="Folder or URL of the lake.")]


UNFORESEEN = 3
"""Exit code when something broke that no error of ours describes."""


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How rows are printed.")]


@app.command()
def ingest(
    landing: Landing = None,
    lake: LakeOption = None,
    quarantined_share: Annotated[
        float | None,
        typer.Option("--quarantined-share", min=0, max=1, help="Pause a batch above this share, for this time only."),
    ] = None,
) -> None:
    """Claim what is new and run every open batch now, until the books close."""
    with told():
        settings = loaded(landing, lake)
        if quarantined_share is not None:
            gate = settings.gate.model_copy(update={"quarantined_share": quarantined_share})
            settings = settings.model_copy(update={"gate": gate})
        ended = ingest_now(settings)
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
    raise typer.Exit(0 if ended.closed else 1)


def ingest_now(settings: Settings) -> Ended:
    """Runs an ingest and shows how far it is."""
    with held_back():
        from dicom_assets.cli.progress import Reporter
        from dicom_assets.defs.instance import opened_instance
        from dicom_assets.defs.runner import ingest as run_ingest
    keep_what_is_there()

    with Reporter() as reporter, opened_instance(settings) as instance:
        return run_ingest(settings, instance, reporter.say, reporter.show)


_BOOKS = ("batch", "source", "status", "seen", "ingested", "quarantined", "ignored", "deleted")


def _print_books(rows: Sequence[tuple[object, ...]], form: Format = Format.TABLE) -> None:
    if not rows and form is Format.TABLE:
        typer.echo("Nothing new: every object of the landing zone is accounted for.")
        return
    _print(_BOOKS, rows, form)


def _say_what_waits(unread: Sequence[Waiting]) -> None:
    """Which objects could not be read, source by source, and when they are read again."""
    for one in unread:
        why = ", ".join(f"{code} {count}" for code, count in sorted(one.codes.items()))
        typer.echo(
            f"Source {one.source}: {one.objects} objects could not be read and wait to be read again ({why}); the next "
            f"attempt is at {one.next_at:%Y-%m-%dT%H:%M:%SZ}, or with the next `dicom-assets ingest`.",
            err=True,
        )


@app.command()
def status(lake: LakeOption = None, form: FormatOption = Format.TABLE) -> None:
    """Show the batches and their books, and what waits to be read again."""
    with told():
        settings = loaded(None, lake)
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
        cli_sources.tell_doubts(found)
        unread = waiting(log.returned())
        rows += [("", one.source, "waiting", one.objects, 0, 0, 0, 0) for one in unread]
        if not rows and form is Format.TABLE:
            typer.echo("No batches yet. Run `dicom-assets ingest`.")
            return
        _print(_BOOKS, rows, form)
        for b in books.values():
            if b.reason:
                say(f"Batch {b.batch_id} is {b.status}: {b.reason}", err=True)
        _say_what_waits(unread)


@app.command()
def errors(
    lake: LakeOption = None,
    batch: Annotated[str | None, typer.Option("--batch", help="Only this batch.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Show what was found wrong or left out, grouped by reason, and what to do about it."""
    with told():
        settings = loaded(None, lake)
        from dicom_assets.lake.query import connect, existing
        from dicom_assets.schema.codes import CODES

        with connect(existing(settings.lake), ["ingestion_errors"]) as connection:
            found = connection.execute(
                "SELECT severity, code, count(DISTINCT object_id), count(*) FROM ingestion_errors "
                "WHERE $1 IS NULL OR batch_id = $1 GROUP BY severity, code "
                "ORDER BY array_position(['error', 'warning', 'info'], severity), 4 DESC, code",
                [batch],
            ).fetchall()
    rows = [(*row, CODES[row[1]].meaning, CODES[row[1]].remedy) for row in found]
    if not rows and form is Format.TABLE:
        typer.echo("No errors.")
        return
    _print(("severity", "code", "objects", "rows", "meaning", "what to do"), rows, form)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT over the lake's tables, in DuckDB's SQL; - reads stdin.")],
    lake: LakeOption = None,
    form: FormatOption = Format.TABLE,
    at: Annotated[str | None, typer.Option("--at", help="The tables as they were at a time, or in a version.")] = None,
) -> None:
    """Run read-only SQL over the lake's tables."""
    with told():
        settings = loaded(None, lake)
        from dicom_assets.lake.query import existing, moment, rows, run_read_only

        text = sys.stdin.read() if query == "-" else query
        names, found = rows(run_read_only(existing(settings.lake), text, moment(at) if at else None))
        _print(names, found, form)


@app.command()
def omop(folder: Annotated[Path, typer.Argument(help="Where the files are written.")], lake: LakeOption = None) -> None:
    """Write image_occurrence for an OMOP database: its DDL, the parents it refers to, and CSV for COPY."""
    with told():
        settings = loaded(None, lake)
        from dicom_assets.lake.query import arrow, connect, existing
        from dicom_assets.omop.ddl import export
        from dicom_assets.schema.registry import IMAGE_OCCURRENCE

        with connect(existing(settings.lake), [IMAGE_OCCURRENCE.name]) as connection:
            rows = arrow(connection, "SELECT * FROM image_occurrence ORDER BY image_occurrence_id")
    try:
        written = export(rows.cast(IMAGE_OCCURRENCE.schema), folder)
    except OSError as error:
        say(f"dicom-assets: cannot write to {folder}: {error.strerror}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{len(rows)} rows in {', '.join(str(path) for path in written)}")


@app.command()
def demo(folder: Annotated[Path, typer.Argument(help="Where the sample input is written.")]) -> None:
    """Write sample input: the DICOM files that pydicom carries, a zip of some, and a small clinical table."""
    from dicom_assets.cli.demo import write_demo

    try:
        written = write_demo(folder)
    except OSError as error:
        say(f"dicom-assets: cannot write sample input to {folder}: {error.strerror}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{written} files in {folder}")


def _print(names: Sequence[str], rows: Sequence[Sequence[object]], form: Format) -> None:
    if form is Format.CSV:
        typer.echo(printing.csv_text(names, rows), nl=False)
    elif form is Format.JSON:
        typer.echo(printing.json_text(names, rows))
    else:
        from dicom_assets.cli.progress import print_table

        print_table(names, rows)


cli_services.add_to(app)
cli_sources.add_to(app)
cli_verify.add_to(app)


def leave(status: int) -> None:
    """Ends the process at once: taking the modules of Dagster apart one by one costs 0.8 s of processor time.

    Whoever calls this has closed what must be closed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Entry point."""
    faults.hush()
    settings_module.tell_file = lambda path: say(f"Settings: {path}", err=True)
    try:
        app()
    except Exception as error:  # noqa: BLE001 - the way out: what it says may hold patient data
        faults.show(error)
        typer.echo(f"dicom-assets: {faults.sentence(error)}", err=True)
        leave(UNFORESEEN)
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        leave(ended.code or 0)
