"""The command `dicom-assets ui`: Dagster's own pages on the state of a lake, wherever it lies.

Belongs here: where the state is, and starting `dagster dev` there. Does not belong here: the state (`defs.instance`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dicom_assets.cli.options import LakeOption, Landing, clear_errors, load_settings
from dicom_assets.printing import say
from dicom_assets.settings import file_name


def ui(
    lake: LakeOption = None,
    landing: Landing = None,
    host: Annotated[str, typer.Option(help="Address to listen on. There is no sign-in: keep it this machine's.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65_535)] = 3000,
) -> None:
    """Open Dagster's UI on the lake and its state, with sensors and schedules, until Ctrl+C."""
    with clear_errors():
        settings = load_settings(landing, lake)
        from dicom_assets.defs.instance import open_instance
        from dicom_assets.defs.state_folder import WORKSPACE, dagster_home
        from dicom_assets.storage.files import LakeFiles

        if "://" in settings.lake:
            LakeFiles(settings.lake)  # an address that no lake can have is refused here, and not by each sensor
        home = dagster_home(settings).absolute()
        with open_instance(settings):
            pass  # makes its databases, so that no two programs do
    workspace = home / "workspace.yaml"
    if not workspace.exists():
        workspace.write_text(WORKSPACE, encoding="utf-8")
    environment = {**os.environ, "DAGSTER_HOME": str(home), "DICOM_ASSETS_LAKE": settings.lake}
    if landing:
        environment["DICOM_ASSETS_LANDING"] = settings.source("landing").root
    if Path(file_name()).exists():
        environment["DICOM_ASSETS_CONFIG"] = str(Path(file_name()).absolute())
    say(f"Dagster's UI comes up at http://{host}:{port}; its state is in {home}.", err=True)
    sys.stderr.flush()
    program = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "-h", host, "-p", str(port)]
    os.execve(sys.executable, program, environment)  # noqa: S606 - this process becomes it, and gets its Ctrl+C


def add_to(app: typer.Typer) -> None:
    """Adds this command to the command line."""
    app.command()(ui)
