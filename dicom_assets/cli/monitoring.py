"""The command `dicom-assets metrics`: the numbers of a lake as text. It joins the others in `cli`.

Belongs here: options, where the text goes. Does not belong here: the numbers (`monitoring`).
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dicom_assets.cli.options import LakeOption, clear_errors, load_settings


class TextFormat(StrEnum):
    """How numbers are written."""

    PROMETHEUS = "prometheus"
    OPENMETRICS = "openmetrics"


def metrics(
    lake: LakeOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for node_exporter's textfile collector (*.prom).")
    ] = None,
    form: Annotated[
        TextFormat, typer.Option("--format", "-f", help="Prometheus' text format, or OpenMetrics.")
    ] = TextFormat.PROMETHEUS,
) -> None:
    """Print the numbers of a lake for Prometheus, or write them to a file, whole or not at all."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.lake.query import existing
        from dicom_assets.monitoring.exposition import openmetrics, prometheus
        from dicom_assets.monitoring.families import OF_THE_LAKE
        from dicom_assets.monitoring.numbers import Meter

        samples = Meter(existing(settings.lake), settings).measure()
        if form is TextFormat.PROMETHEUS:
            text = "\n".join([*prometheus(OF_THE_LAKE, samples), ""])
        else:
            text = "\n".join([*openmetrics(OF_THE_LAKE, samples), "# EOF", ""])
        if output is not None:
            _write(output, text)
    if output is None:
        typer.echo(text, nl=False)


def _write(target: Path, text: str) -> None:
    """Writes a file that its reader sees whole or not at all, readable by every user as a collector needs it."""
    from dicom_assets.settings import UserError

    # Its collector reads every `*.prom` of the folder, so what is not whole yet has another ending.
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.chmod(0o644)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"The numbers cannot be written to {target}: {error.strerror}.") from None


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.command()(metrics)
