"""The command `dicom-assets serve`: options, and starting the server.

Belongs here: options, the address, exit codes. Does not belong here: what is answered (`serve`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_assets.cli.options import LakeOption, Landing, clear_errors, load_settings


def serve(
    lake: LakeOption = None,
    landing: Landing = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8050,
) -> None:
    """Answer DICOMweb over the lake, in place."""
    with clear_errors():
        settings = load_settings(landing, lake)
        from dicom_assets.serve.app import make_app

        app = make_app(settings)
    import uvicorn

    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False)


def add_to(app: typer.Typer) -> None:
    """Adds this command to the command line."""
    app.command()(serve)
