"""The command `dicom-assets serve`: options, and starting the server.

Belongs here: options, the address, exit codes. Does not belong here: what is answered (`serve`).
"""

from __future__ import annotations

import threading
import webbrowser
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
    opens: Annotated[bool, typer.Option("--open", help="Open the pages in the browser of this machine.")] = False,
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
            if opens:
                here = "127.0.0.1" if host in _EVERYWHERE else host
                browse(server.address_of(here, opened).removesuffix(BASE) + "/")

        server.serve(settings, host, opened, workers, ready, (add_catalogue,))


_EVERYWHERE = ("0.0.0.0", "::", "[::]")  # noqa: S104 - addresses that no browser is sent to


def browse(address: str) -> None:
    """Opens a page in the browser of this machine, in a thread: some come back only when they are closed."""

    def show() -> None:
        if not webbrowser.open(address):
            say(f"There is no browser here that can be opened: go to {address} yourself.", err=True)

    threading.Thread(target=show, daemon=True).start()


def add_to(app: typer.Typer) -> None:
    """Adds this command to the command line."""
    app.command()(serve)
