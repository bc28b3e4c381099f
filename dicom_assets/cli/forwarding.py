"""The command `forward`. It joins the others in `cli`.

Belongs here: options, printing, exit codes. Does not belong here: what is sent (`batch.forwarding`). Objects are named
by object_id alone.
"""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_assets.cli.options import Format, FormatOption, LakeOption, clear_errors, load_settings, print_rows


def forward(
    batch: Annotated[
        list[str] | None, typer.Option("--batch", help="This batch, again too; without it, all that wait.")
    ] = None,
    lake: LakeOption = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Store what batches have ingested at the service that their source names (forward_to); exit 1 if some is left."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.batch import forwarding
        from dicom_assets.lake.query import existing

        forwarding.require_forwarding(settings)
        found = existing(settings.lake)
        rows, left = [], []
        for name in batch or forwarding.waiting(found, settings):
            done = forwarding.forward(found, settings, name)
            rows.append((name, done.service, done.ingested, *(done.counts.get(fate, 0) for fate in forwarding.Fate)))
            left += [(name, one, why) for one, why in done.left]
    if not rows and form is Format.TABLE:
        typer.echo("Nothing waits to be forwarded.")
        return
    print_rows(("batch", "service", "ingested", *map(str, forwarding.Fate)), rows, form)
    for name, one, why in left:
        typer.echo(f"{name} {one}: {why}", err=True)
    raise typer.Exit(1 if left else 0)


def add_to(app: typer.Typer) -> None:
    """Adds this command to the command line."""
    app.command()(forward)
