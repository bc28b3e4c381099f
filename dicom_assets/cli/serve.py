"""The command `dicom-assets serve`: options, and starting the server.

Belongs here: options, the address, exit codes. Does not belong here: what is answered (`serve`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_assets.cli.options import LakeOption, Landing, clear_errors, load_settings
from dicom_assets.printing import say


def serve(
    lake: LakeOption = None,
    landing: Landing = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but this machine's own needs tokens.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65_535)] = 8050,
    workers: Annotated[int, typer.Option(help="Processes that answer.", min=1, max=256)] = 1,
) -> None:
    """Show the lake in a browser and answer DICOMweb over it, in place, until Ctrl+C.

    docs/catalogue.md tells of the pages, docs/dicomweb.md of who may see what.
    """
    with clear_errors():
        settings = load_settings(landing, lake)
        from dicom_assets.catalogue.pages import add_catalogue
        from dicom_assets.lake.query import is_there
        from dicom_assets.serve import server
        from dicom_assets.serve.app import BASE

        is_there(settings.lake)
        opened = server.listen(host, port)
        address = server.address_of(host, opened)

        def ready() -> None:
            say(f"The lake answers at {address}", err=True)
            say(f"Its pages: {address.removesuffix(BASE)}/", err=True)

        server.serve(settings, host, opened, workers, ready, (add_catalogue,))


def add_to(app: typer.Typer) -> None:
    """Adds this command to the command line."""
    app.command()(serve)
