"""The command `dicom-assets who-saw`: which requests of the audit log asked for, or were shown, a patient or a study.

Belongs here: options and printing. Does not belong here: the log (`serve.audit_log`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dicom_assets.cli.options import Format, FormatOption, clear_errors, load_settings, print_rows

COLUMNS = ("at", "who", "kind", "method", "what", "source", "status", "broken", "request")

_Files = Annotated[
    list[Path] | None,
    typer.Argument(help="Audit logs, older ones too; by default the file of the settings.", show_default=False),
]


def who_saw(
    files: _Files = None,
    patient: Annotated[str | None, typer.Option("--patient", help="Patient ID.")] = None,
    study: Annotated[list[str] | None, typer.Option("--study", help="Study Instance UID; may be given again.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Say who asked for a patient's studies, or was shown them, by the digests of the audit log."""
    with clear_errors():
        from dicom_assets.sections import SettingsError
        from dicom_assets.serve.audit_log import digest, key_of, lines_about

        serve = load_settings().serve
        key = key_of(serve, os.environ)
        if key is None:
            raise SettingsError(
                "serve.audit.key_variable is not set, so the log does not tell whose data were asked for. See "
                "docs/dicomweb.md."
            )
        place = serve.audit.file or ""
        logs = files or ([Path(place)] if place not in ("", "-") else [])
        if not logs:
            raise SettingsError("serve.audit.file names no file. Give the files that hold the log.")
        wanted = {digest(key, "study", one) for one in study or ()}
        wanted |= {digest(key, "patient", patient)} if patient else set()
        if not wanted:
            raise SettingsError("Give --patient or --study.")
        rows = [[line.get(one) for one in COLUMNS] for line in lines_about(logs, wanted)]
        print_rows(COLUMNS, rows, form)


def add_to(app: typer.Typer) -> None:
    """Adds this command to the command line."""
    app.command("who-saw")(who_saw)
