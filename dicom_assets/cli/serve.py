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
    """Answer DICOMweb over the lake, in place, until Ctrl+C. docs/dicomweb.md says who may see what."""
    with clear_errors():
        settings = load_settings(landing, lake)
        from dicom_assets.lake.query import is_there
        from dicom_assets.serve import server

        is_there(settings.lake)
        opened = server.listen(host, port)
        address = server.address_of(host, opened)
        server.serve(settings, host, opened, workers, lambda: say(f"The lake answers at {address}", err=True))


def add_to(app: typer.Typer) -> None:
    """Adds this command to the command line."""
    app.command()(serve)
