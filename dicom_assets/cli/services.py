"""Commands about DICOM services: `push`, `changes`, `audit`, `repair`. They join the others in `cli`.

Belongs here: options, printing, exit codes. Nothing that is printed names a file, a study or a patient; the report of a
push is a file of its own, beside what was pushed.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from dicom_assets.cli.options import LakeOption, clear_errors, load_settings
from dicom_assets.printing import counted, say
from dicom_assets.settings import ServiceSettings, Settings, SettingsError

ServiceArgument = Annotated[str, typer.Argument(help="Name of a configured DICOM service.")]

_TIMES = ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"]
_LIKE = "2026-11-01 or 2026-11-01T06:00:00Z"


def _target(settings: Settings, to: str) -> ServiceSettings:
    """The service of this name, or the DICOMweb server at this URL, without credentials."""
    if "://" not in to:
        return settings.service(to)
    for service in settings.services:
        if service.url == to.rstrip("/"):
            return service
    try:
        return ServiceSettings(name="target", url=to, kind="dicomweb")
    except ValueError:
        raise SettingsError("--to is neither a configured service nor the http or https URL of one.") from None


def push(
    folder: Annotated[Path, typer.Argument(help="Folder with DICOM files.", exists=True, file_okay=False)],
    to: Annotated[str, typer.Option("--to", help="A configured service, or the URL of a DICOMweb server.")],
    report: Annotated[
        Path | None, typer.Option("--report", help="CSV with one line per file. Default: push-report.csv, here.")
    ] = None,
    partition: Annotated[
        str | None, typer.Option("--partition", help="Data partition, where the service has several.")
    ] = None,
) -> None:
    """Store DICOM files at a service (STOW-RS), with a report on each file."""
    from dicom_assets.cli.progress import Reporter
    from dicom_assets.service.client import ServiceClient
    from dicom_assets.service.push import Outcome, Pushed, write_report
    from dicom_assets.service.push import push as push_all

    target = report or Path("push-report.csv")
    done: list[Pushed] = []
    with clear_errors():
        service = _target(load_settings(), to)
        try:
            with ServiceClient(service) as client, Reporter() as reporter:
                for one in push_all(client, folder, partition):
                    done.append(one)
                    reporter.count("files", len(done))
        finally:
            write_report(target, done)
    counts = Counter((str(one.outcome), one.words) for one in done)
    for (outcome, words), number in sorted(counts.items()):
        say(f"{number:8d} {outcome}{': ' + words if words else ''}")
    say(f"Report on each file: {target.name}", err=True)
    raise typer.Exit(1 if any(one.outcome is Outcome.FAILED for one in done) else 0)


def changes(
    name: ServiceArgument,
    since: Annotated[datetime, typer.Option("--from", formats=_TIMES, metavar="TIME", help=f"Start, in UTC: {_LIKE}.")],
    until: Annotated[
        datetime, typer.Option("--to", formats=_TIMES, metavar="TIME", help="End, in UTC, in the same form.")
    ],
) -> None:
    """Land the changes of any span of time by hand, a file for each day; `ingest` takes them from there."""
    from dicom_assets.service.client import ServiceClient
    from dicom_assets.service.feed import Window
    from dicom_assets.service.sync import sync_window

    with clear_errors():
        settings = load_settings()
        service = settings.service(name)
        try:
            span = Window(since.replace(tzinfo=UTC), until.replace(tzinfo=UTC))
        except ValueError as error:
            raise SettingsError(f"--from and --to: {error}.") from None
        entries = files = 0
        with ServiceClient(service) as client:
            for window in span.by_day():
                synced = sync_window(client, window, timedelta(minutes=settings.changes.delay_minutes))
                entries, files = entries + synced.entries, files + synced.files
                typer.echo(f"{window}: {counted(synced.entries, 'entry', 'entries')}", err=True)
    typer.echo(f"{counted(entries, 'entry', 'entries')}; {counted(files, 'file')} written")


def audit(name: ServiceArgument, lake: LakeOption = None) -> None:
    """Compare a service with the lake, study by study; exit 1 when they differ."""
    from dicom_assets.lake.query import existing
    from dicom_assets.service.audit_lake import audit as compare
    from dicom_assets.service.client import ServiceClient

    with clear_errors():
        settings = load_settings(None, lake)
        service = settings.service(name)
        due = datetime.now(UTC) - timedelta(
            minutes=settings.changes.delay_minutes + 2 * settings.changes.window_minutes
        )
        with ServiceClient(service) as client:
            found = compare(client, existing(settings.lake), due)
    studies, left_out = (counted(number, "study", "studies") for number in (found.studies, found.left_out))
    typer.echo(f"Compared: {studies}, {counted(found.instances, 'instance')}. Left out, since under way: {left_out}.")
    for kind, number in found.counts().items():
        typer.echo(f"{number:8d} {kind}")
    if found.findings:
        say(f"The studies are in table dicom_service_audit. To repair exactly these: {found.command}", err=True)
    raise typer.Exit(1 if found.findings else 0)


def repair(name: ServiceArgument, lake: LakeOption = None) -> None:
    """Land what makes the lake agree with a service in the studies of its last audit; then run `ingest`."""
    from dicom_assets.lake.query import existing
    from dicom_assets.service.audit_lake import last_findings
    from dicom_assets.service.audit_lake import repair as mend
    from dicom_assets.service.client import ServiceClient

    with clear_errors():
        settings = load_settings(None, lake)
        service = settings.service(name)
        found = existing(settings.lake)
        audit_id, findings = last_findings(found, name)
        if audit_id is None:
            typer.echo("The last audit found nothing to repair.")
            return
        with ServiceClient(service) as client:
            landed = mend(client, found, findings, audit_id)
    studies = counted(len(findings), "study", "studies")
    typer.echo(f"{counted(landed.entries, 'entry', 'entries')} landed, for {studies}. Run `dicom-assets ingest`.")


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    for command in (push, changes, audit, repair):
        app.command()(command)
