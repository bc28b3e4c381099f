"""The commands `metrics` and `alerts …`: the numbers of a lake, and telling people. They join the others in `cli`.

Belongs here: options, printing, exit codes. Does not belong here: the numbers, and what is told (`monitoring`).
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets.cli.options import LakeOption, clear_errors, load_settings
from dicom_assets.printing import say

if TYPE_CHECKING:
    from dicom_assets.settings import Settings


class TextFormat(StrEnum):
    """How numbers are written."""

    PROMETHEUS = "prometheus"
    OPENMETRICS = "openmetrics"


def metrics(
    lake: LakeOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="File for node_exporter's textfile collector (*.prom)."),
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


alerts = typer.Typer(name="alerts", help="Telling people what waits for them.", no_args_is_help=True)


@alerts.callback()
def alert() -> None:
    """Telling people what waits for them."""


@alerts.command("send")
def send_alerts(lake: LakeOption = None) -> None:
    """Tell every receiver what it was not told yet; exit 1 when one is away."""
    with clear_errors():
        settings = load_settings(None, lake)
        if not settings.alerts:
            raise _nobody()
        from dicom_assets.lake.query import existing
        from dicom_assets.monitoring.outbox import tell
        from dicom_assets.settings import UserError
        from dicom_assets.storage.locks import LockBusy

        try:
            told = tell(existing(settings.lake), settings)
        except LockBusy:
            raise UserError("Another process is telling people of this lake right now.") from None
    typer.echo(f"{told.sent} messages sent.")
    for sentence in told.away:
        say(f"{sentence} It is told again.", err=True)
    raise typer.Exit(1 if told.away else 0)


@alerts.command("test")
def test_alerts(
    name: Annotated[str | None, typer.Argument(help="Name of one receiver; all of them without it.")] = None,
) -> None:
    """Send a message to receivers to see that it arrives; exit 1 when one does not take it."""
    with clear_errors():
        settings = load_settings()
        chosen = [one for one in settings.alerts if name in (None, one.name)]
        if not settings.alerts:
            raise _nobody()
        from dicom_assets.monitoring.messages import of_test
        from dicom_assets.monitoring.receivers import ReceiverAway, send
        from dicom_assets.settings import SettingsError

        if not chosen:
            known = ", ".join(one.name for one in settings.alerts)
            raise SettingsError(f"No alert is called '{name}'. Configured: {known}.")
        away = 0
        for one in chosen:
            try:
                send(of_test(), one, os.environ)
            except (ReceiverAway, SettingsError) as error:
                say(str(error), err=True)
                away += 1
            else:
                typer.echo(f"Alert '{one.name}': the receiver has taken a message.")
    raise typer.Exit(1 if away else 0)


def _nobody() -> Exception:
    from dicom_assets.settings import CONFIG_FILE, SettingsError

    return SettingsError(f"No receiver is configured: add [[alerts]] to {CONFIG_FILE}, see docs/monitoring.md.")


def tell_people(settings: Settings) -> None:
    """Behind a command that ran batches: tells whom the settings name. Whatever comes of it fails nothing."""
    if not settings.alerts:
        return
    from dicom_assets.lake.query import existing
    from dicom_assets.monitoring.outbox import tell
    from dicom_assets.storage.files import LakeError
    from dicom_assets.storage.locks import LockBusy

    try:
        for sentence in tell(existing(settings.lake), settings).away:
            say(f"{sentence} It is told again with the next `dicom-assets ingest` or `alerts send`.", err=True)
    except LockBusy:
        return  # whoever holds it tells the same
    except LakeError as error:
        say(f"Nobody was told: {error}", err=True)


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.command()(metrics)
    app.add_typer(alerts)
