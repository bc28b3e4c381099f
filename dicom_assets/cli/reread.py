"""The command `reread`. It joins the others in `cli`.

Belongs here: options, printing, exit codes. Does not belong here: choosing objects (`batch.reread`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets.cli.ingest import print_ended
from dicom_assets.cli.options import Format, LakeOption, Landing, clear_errors, load_settings, print_rows
from dicom_assets.printing import counted

if TYPE_CHECKING:
    from dicom_assets.batch.reread import Choice, Chosen
    from dicom_assets.defs.runner import Ended
    from dicom_assets.settings import Settings


def reread(
    landing: Landing = None,
    lake: LakeOption = None,
    batch: Annotated[list[str] | None, typer.Option("--batch", help="Objects of this batch; may be repeated.")] = None,
    code: Annotated[
        list[str] | None, typer.Option("--code", help="Objects with this reason or warning; may be repeated.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", help="Objects of this source.")] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where", help="Objects for which this SQL holds, over raw_files, validated_batch, flat_metadata."
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be read again.")] = False,
) -> None:
    """Read objects of the lake again with today's reader, where their source still holds the same bytes.

    All conditions that are given must hold. What is read again comes in batches of kind reread; the books of the
    batches that had brought it stay as they are.
    """
    with clear_errors():
        settings = load_settings(landing, lake)
        from dicom_assets.batch.reread import Choice

        choice = Choice(tuple(batch or ()), tuple(code or ()), source, where)
        chosen, ended = _reread(settings, choice, plan)
    _print_chosen(chosen)
    if ended is not None:
        print_ended(ended, settings)
        raise typer.Exit(0 if ended.closed else 1)


def _reread(settings: Settings, choice: Choice, plan: bool) -> tuple[Chosen, Ended | None]:
    """Chooses, and unless only asked for a plan claims and runs what was chosen."""
    from dicom_assets.batch.context import RunContext
    from dicom_assets.batch.reread import choose
    from dicom_assets.cli.progress import Reporter
    from dicom_assets.lake.query import is_there

    is_there(settings.lake)
    with Reporter() as reporter:
        if plan:
            with RunContext(settings, say=reporter.say) as work:
                return choose(work, choice), None
        from dicom_assets.defs.instance import open_instance
        from dicom_assets.defs.runner import reread as run_reread

        with open_instance(settings) as instance:
            return run_reread(settings, instance, choice, reporter.say, reporter.show)


def _print_chosen(chosen: Chosen) -> None:
    if not (chosen.members or chosen.left):
        typer.echo("No object of the lake meets these conditions.")
        return
    rows = [(outcome, code or "", count) for (outcome, code), count in chosen.by_reason.items()]
    if rows:
        print_rows(("outcome before", "code", "objects"), rows, Format.TABLE)
    typer.echo(f"{counted(chosen.members, 'object')}, in {counted(len(chosen.objects), 'file')} of the landing zone.")
    for why, count in chosen.left.items():
        typer.echo(f"Not read again: {counted(count, 'object')}, {why}.", err=True)


def add_to(app: typer.Typer) -> None:
    """Adds this command to the command line."""
    app.command()(reread)
