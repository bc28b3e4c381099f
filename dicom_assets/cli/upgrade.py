"""The command `upgrade`. It joins the others in `cli`.

Belongs here: options, printing, exit codes. Does not belong here: what changes (`batch.upgrade`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_assets.cli.options import Format, FormatOption, LakeOption, clear_errors, load_settings, print_rows

WAIT_SECONDS = 60.0
"""How long it waits for an ingest that claims or starts batches."""


def upgrade(
    lake: LakeOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would change.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Bring a lake of an earlier release up to date: columns are added, what rests on old rules is redone."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.batch import upgrade as upgrading
        from dicom_assets.batch.context import RunContext
        from dicom_assets.cli.progress import Reporter
        from dicom_assets.lake.query import existing
        from dicom_assets.settings import UserError
        from dicom_assets.storage.locks import LockBusy

        changes = upgrading.plan(existing(settings.lake))
        if not plan and changes:
            with Reporter() as reporter, RunContext(settings, say=reporter.say, migrates=True) as work:
                try:
                    with work.claiming(WAIT_SECONDS):
                        upgrading.perform(work, reporter.say)
                except LockBusy:
                    raise UserError(
                        "An ingest is claiming or starting batches in this lake. Nothing was migrated. Wait for it, "
                        "then run `dicom-assets upgrade` again."
                    ) from None
    if changes or form is not Format.TABLE:
        rows = [(change.kind, change.name, change.count, change.text) for change in changes]
        print_rows(("what", "name", "count", "would change" if plan else "changed"), rows, form)
    else:
        typer.echo("The lake is up to date.")


def add_to(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(upgrade)
