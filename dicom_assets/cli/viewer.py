"""The commands `viewer …`: OHIF fetched and put where `dicom-assets serve` finds it.

Belongs here: options and printing. Does not belong here: what is done (`serve.viewing.ohif_package`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_assets.cli.options import clear_errors, load_settings
from dicom_assets.printing import say

viewer = typer.Typer(
    no_args_is_help=True,
    help="Install the viewer OHIF, which `dicom-assets serve` then gives at /ohif/.",
)

File = Annotated[
    Path | None, typer.Option("--from", help="The package's file, fetched elsewhere.", exists=True, dir_okay=False)
]
Registry = Annotated[
    str | None, typer.Option(help="Address of a registry of npm; without it the `npm` command knows one.")
]


@viewer.command("install")
def install(file: File = None, registry: Registry = None) -> None:
    """Fetch npm's package @ohif/app (50 MB), verify it, and unpack it for the server."""
    with clear_errors():
        settings = load_settings()
        from dicom_assets.serve.viewing import ohif_package as package

        if file is not None:
            found = package.install(settings, file)
        else:
            say(f"Fetching {package.PACKAGE} {package.VERSION} …", err=True)
            with package.fetched(registry) as archive:
                found = package.install(settings, archive)
    say(f"OHIF {found.version} lies in {package.folder_of(settings)}. `dicom-assets serve` gives it at /ohif/.")


@viewer.command("status")
def status() -> None:
    """Say whether OHIF is installed, and where."""
    with clear_errors():
        settings = load_settings()
        from dicom_assets.serve.viewing import ohif_package as package

        found, folder = package.installed(settings), package.folder_of(settings)
    if found is None:
        say(f"OHIF is not installed; it would lie in {folder}. `dicom-assets viewer install` puts it there.")
        raise typer.Exit(1)
    newer = "" if found.version == package.VERSION else f" This release has {package.VERSION}: install it again."
    say(f"OHIF {found.version} lies in {folder}, {found.size / 2**20:.0f} MB.{newer}")


@viewer.command("remove")
def remove() -> None:
    """Take OHIF away again."""
    with clear_errors():
        settings = load_settings()
        from dicom_assets.serve.viewing import ohif_package as package

        was_there, folder = package.remove(settings), package.folder_of(settings)
    say(f"OHIF is removed from {folder}." if was_there else f"OHIF was not installed in {folder}.")


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.add_typer(viewer, name="viewer")
