"""The command `verify`. It joins the others in `cli`.

Belongs here: options, printing, exit codes. Nothing that is printed names a file of the landing zone or a patient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets.cli.options import Format, LakeOption, clear_errors, load_settings, print_rows
from dicom_assets.settings import Settings

if TYPE_CHECKING:
    from dicom_assets.batch.verification.verify import Verified
    from dicom_assets.cli.progress import Reporter


def verify(
    lake: LakeOption = None,
    landing: Annotated[str | None, typer.Option("--landing", help="Folder or URL where objects arrived.")] = None,
    batch: Annotated[list[str] | None, typer.Option("--batch", help="Only this batch; may be given again.")] = None,
    digests: Annotated[
        bool, typer.Option("--digests", help="Also read the objects at their sources again and compare headers.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Make again what differs, from staging or by reading the sources again.")
    ] = False,
) -> None:
    """Compare all books with all tables and files; exit 1 when something differs."""
    with clear_errors():
        settings = load_settings(landing, lake)
        from dicom_assets.cli.progress import Reporter

        with Reporter() as reporter:
            if fix:
                from dicom_assets.defs.mending import open_again
                from dicom_assets.lake.query import is_there

                is_there(settings.lake)
                open_again(settings)
            found = _look(settings, batch or [], digests, fix, reporter)
    _print(found)
    raise typer.Exit(0 if found.holds else 1)


def _look(settings: Settings, batches: list[str], digests: bool, fix: bool, reporter: Reporter) -> Verified:
    from dicom_assets.batch.verification.verify import verify as compare
    from dicom_assets.lake.query import existing

    found = compare(existing(settings.lake), settings, batches, reporter.say)
    if digests:
        found = _with_digests(found, settings, batches, reporter)
    if fix and not found.holds:
        found = _mend(found, settings, batches, digests, reporter)
    return found


def _with_digests(found: Verified, settings: Settings, batches: list[str], reporter: Reporter) -> Verified:
    from dataclasses import replace

    from dicom_assets.batch.books import Status, all_books
    from dicom_assets.batch.context import RunContext
    from dicom_assets.batch.verification.digests import compare

    with RunContext(settings) as work:
        closed = [row.batch_id for row in all_books(work.lake) if row.status == Status.CLOSED]
        read = compare(work, [one for one in closed if not batches or one in batches], reporter.show)
        return replace(found, findings=(*found.findings, *read))


def _mend(found: Verified, settings: Settings, batches: list[str], digests: bool, reporter: Reporter) -> Verified:
    from dicom_assets.batch.context import RunContext
    from dicom_assets.defs.instance import open_instance
    from dicom_assets.defs.mending import mend
    from dicom_assets.storage.files import LakeError
    from dicom_assets.storage.locks import LockBusy

    with RunContext(settings, reporter.show, say=reporter.say) as work, open_instance(settings) as instance:
        try:
            with work.claiming(wait_seconds=5):
                mended = mend(work, instance, batches, found, reporter.say)
        except LockBusy:
            raise LakeError(
                "An ingest is at work on this lake: wait until it has ended, then run `verify --fix` again."
            ) from None
    return _with_digests(mended, settings, batches, reporter) if digests else mended


def _print(found: Verified) -> None:
    rows = []
    for one in found.findings:
        result = "ok" if one.holds and not (one.is_note and one.differing) else "note" if one.holds else "DIFFERS"
        names = " ".join([*list(one.batches)[:3], *(name for name in one.shown if name not in one.batches)][:6])
        rows.append((one.rule, result, one.differing, one.description, f"{one.told} {names}".strip()))
    print_rows(("rule", "result", "differ", "what must hold", "which"), rows, Format.TABLE)
    if not found.holds:
        typer.echo("Run `dicom-assets verify --fix` to make again what differs.", err=True)


def add_to(app: typer.Typer) -> None:
    """Adds this command to the command line."""
    app.command()(verify)
