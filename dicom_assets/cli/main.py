"""The command `dicom-assets`: options, printing, exit codes. Everything it does is done elsewhere.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 a batch did not close, 2 wrong input, 3 a
fault that nobody foresaw.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from platform import python_version
from typing import Annotated

import typer

from dicom_assets import faults
from dicom_assets import settings as settings_module
from dicom_assets.cli import (
    backup,
    batches,
    cohorts,
    curation,
    engines,
    erase,
    examples,
    forwarding,
    house_rules,
    ingest,
    monitoring,
    promotion,
    queries,
    reread,
    selftest,
    serve,
    services,
    sources,
    ui,
    upgrade,
    verify,
    viewer,
    who_saw,
)
from dicom_assets.printing import say

app = typer.Typer(
    name="dicom-assets",
    help="The open lake for medical-imaging metadata.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


UNFORESEEN = 3
"""Exit code when something broke that no error of ours describes."""


def _print_version(asked: bool) -> None:
    if asked:
        from dicom_assets.lake.form import FORMAT, release

        typer.echo(f"dicom-assets {release()} (lakes of format {FORMAT}), Python {python_version()}")
        raise typer.Exit


@app.callback()
def dicom_assets(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the release and exit.")
    ] = False,
) -> None:
    """The open lake for medical-imaging metadata."""


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


for group in (
    ingest,
    queries,
    batches,
    reread,
    house_rules,
    sources,
    services,
    forwarding,
    verify,
    upgrade,
    promotion,
    curation,
    erase,
    serve,
    ui,
    viewer,
    who_saw,
    selftest,
    monitoring,
    backup,
    cohorts,
    engines,
    examples,
):
    group.add_to(app)


def leave(status: int) -> None:
    """Ends the process at once: taking the modules of Dagster apart one by one costs 0.8 s of processor time.

    Whoever calls this has closed what must be closed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _of_state(error: Exception) -> str | None:
    """What is said when Dagster's storage fails in the middle of a command; None for anything else."""
    if type(error).__module__ != "sqlalchemy.exc":
        return None
    from dicom_assets.defs.instance import fault_of_state

    return fault_of_state(error)


def main() -> None:
    """Entry point."""
    faults.hush()
    settings_module.tell_file = lambda path: say(f"Settings: {path}", err=True)
    try:
        app()
    except Exception as error:  # noqa: BLE001 - the way out: what it says may hold patient data
        of_state = _of_state(error)
        if of_state is not None:
            say(f"dicom-assets: {of_state}", err=True)
            leave(2)
        faults.show(error)
        typer.echo(f"dicom-assets: {faults.sentence(error)}", err=True)
        leave(UNFORESEEN)
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        leave(ended.code or 0)
