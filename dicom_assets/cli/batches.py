"""The commands `dicom-assets batch …`. They join the others in `cli`.

Belongs here: options, printing, exit codes. Does not belong here: what happens to a batch (`batch`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_assets.cli.options import LakeOption, clear_errors
from dicom_assets.settings import load

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
        settings = load(None, lake)
        from dicom_assets.defs.instance import open_instance
        from dicom_assets.defs.jobs import register
        from dicom_assets.lake.query import existing
        from dicom_assets.landing.claims import ClaimLog, UnknownBatch
        from dicom_assets.settings import UserError

        log = ClaimLog(existing(settings.lake).files)
        for name in names:
            try:
                log.manifest(name)
            except UnknownBatch as error:
                raise UserError(str(error)) from None
        with open_instance(settings) as instance:
            fresh = register(instance, list(dict.fromkeys(names)))
    typer.echo(f"{len(fresh)} batches registered, {len(set(names)) - len(fresh)} were known.")


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.add_typer(batches)
