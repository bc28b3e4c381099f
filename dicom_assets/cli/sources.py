"""The commands `dicom-assets source …`, and what `status` says about sources. They join the others in `cli`.

Belongs here: options, printing, exit codes. Does not belong here: what a look is (`landing.looks`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets.cli.options import LakeOption, clear_errors, load_settings
from dicom_assets.cli.source_trials import try_sources
from dicom_assets.printing import counted, say

if TYPE_CHECKING:
    from dicom_assets.lake.delta import Lake

sources = typer.Typer(name="source", help="The landing sources.", no_args_is_help=True)


@sources.callback()
def source() -> None:
    """The landing sources."""


@sources.command("confirm")
def confirm_source(
    name: Annotated[str, typer.Argument(help="Name of a configured source.")],
    landing: Annotated[str | None, typer.Option("--landing", help="Folder or URL where objects arrive.")] = None,
    lake: LakeOption = None,
) -> None:
    """Take what a source holds now as what it is to hold; what it held before is gone."""
    with clear_errors():
        settings = load_settings(landing, lake)
        chosen = settings.source(name)
        from dicom_assets.batch.presence import confirm
        from dicom_assets.lake.query import existing
        from dicom_assets.landing.looks import Looks

        looks = Looks(existing(settings.lake).files)
        before = looks.memory(name).believed
        found = confirm(looks, settings, chosen)
    typer.echo(
        f"Source '{name}': {counted(found.objects, 'object')} now, {before.objects if before else 0} before. "
        "What was claimed and is not there is called gone by the next `dicom-assets ingest`."
    )


@sources.command("audit")
def audit_sources(
    name: Annotated[str | None, typer.Argument(help="Name of a source; all that do not ignore what is gone.")] = None,
    landing: Annotated[str | None, typer.Option("--landing", help="Folder or URL where objects arrive.")] = None,
    lake: LakeOption = None,
) -> None:
    """Look for what is gone at a source; exit 1 when something is and nothing follows from it."""
    with clear_errors():
        settings = load_settings(landing, lake)
        from dicom_assets.batch.context import RunContext
        from dicom_assets.batch.source_audits import audits
        from dicom_assets.lake.query import is_there
        from dicom_assets.settings import UserError
        from dicom_assets.storage.locks import LockBusy

        is_there(settings.lake)
        try:
            with RunContext(settings, say=lambda text: say(text, err=True)) as work:
                found = list(audits(work, name))
        except LockBusy:
            raise UserError("An ingest is at work on this lake: wait until it has ended, then audit.") from None
    if not found:
        say("Nothing to look at: every source ignores what is deleted there. Name one to look at it all the same.")
    for one in found:
        if one.trouble:
            say(one.trouble, err=True)
            continue
        more = f"; batches of deletes: {', '.join(one.claimed)}" if one.claimed else ""
        say(
            f"Source '{one.source}': {counted(one.listed, 'object')}; {one.files} gone, with "
            f"{counted(one.instances, 'instance')}{more}"
        )
    if any(one.claimed for one in found):
        say("Run `dicom-assets ingest` to take them out of the current tables.", err=True)
    raise typer.Exit(0 if all(one.is_settled for one in found) else 1)


def tell_doubts(lake: Lake) -> bool:
    """Says on stderr which sources look emptied (whether any does), and which have folders that cannot be listed."""
    from dicom_assets.batch.presence import doubts
    from dicom_assets.landing.looks import Looks

    looks = Looks(lake.files)
    names = looks.sources()
    emptied = doubts(looks, names)
    for sentence in emptied.values():
        typer.echo(sentence, err=True)
    for name in names:
        unread = looks.memory(name).unread
        if unread:
            typer.echo(
                f"Source '{name}': {counted(unread, 'folder')} could not be read; see `dicom-assets errors`.",
                err=True,
            )
    return bool(emptied)


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    sources.command("test")(try_sources)
    app.add_typer(sources)
