"""The commands `dicom-assets cohort …`: frozen selections of objects. They join the others in `cli`.

Belongs here: options, printing, exit codes. Does not belong here: what is done (`curation.cohorts`). Objects are named
by object_id alone; a query is printed only where it is asked for, since it may name a patient.
"""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets.cli.options import Format, FormatOption, LakeOption, Landing, clear_errors, load_settings, print_rows
from dicom_assets.printing import counted, say

if TYPE_CHECKING:
    from dicom_assets.curation.cohorts.frozen import Cohort, Entry

NewName = Annotated[
    str, typer.Argument(metavar="NAME", help="Of the cohort; it stands in logs, so let it name no patient.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the cohort, as `dicom-assets cohort list` has it.")]
By = Annotated[str | None, typer.Option("--by", help="Who does it; the account that runs this by default.")]

cohorts = typer.Typer(
    name="cohort", help="Frozen selections of objects: made, verified, exported.", no_args_is_help=True
)


@cohorts.callback()
def cohort() -> None:
    """Frozen selections of objects: made, verified, exported."""


@cohorts.command("create")
def create(
    name: NewName,
    sql: Annotated[
        str,
        typer.Option(
            "--sql",
            help="One SELECT that gives StudyInstanceUID, SeriesInstanceUID or SOPInstanceUID; - reads stdin.",
        ),
    ],
    by: By = None,
    lake: LakeOption = None,
) -> None:
    """Freeze what a query selects: every current object of the studies, series or instances that it names."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.curation.cohorts.selection import create_cohort
        from dicom_assets.lake.query import existing

        text = sys.stdin.read() if sql == "-" else sql
        made = create_cohort(existing(settings.lake), name, sql=text, by=by or getpass.getuser())
    say(
        f"Cohort {made.name}: {counted(made.objects, 'object')}, {made.series} series, "
        f"{counted(made.studies, 'study', 'studies')}, {made.size / 1e6:,.1f} MB."
    )


@cohorts.command("list")
def list_cohorts(lake: LakeOption = None, form: FormatOption = Format.TABLE) -> None:
    """List the cohorts of the lake."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.curation.cohorts import frozen
        from dicom_assets.lake.query import existing

        files = existing(settings.lake).files
        found = [frozen.read(files, name) for name in frozen.names(files)]
        rows = [
            (one.name, _utc(one.created_at), one.objects, one.studies, one.objects - frozen.left(files, one.name))
            for one in found
        ]
    if not rows and form is Format.TABLE:
        typer.echo("No cohorts. `dicom-assets cohort create` makes one.")
        return
    print_rows(("cohort", "created at", "objects", "studies", "erased"), rows, form)


@cohorts.command("show")
def show(
    name: Name,
    query: Annotated[bool, typer.Option("--query", help="Print the query instead, as it was given.")] = False,
    lake: LakeOption = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Show what a cohort was made from, and what was done with it."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.curation.cohorts import frozen
        from dicom_assets.lake.query import existing

        files = existing(settings.lake).files
        found = frozen.read(files, name)
        if query:
            typer.echo(found.query or "(made from UIDs of studies, without a query)")
            return
        rows = _facts(found, found.objects - frozen.left(files, name))
        done = frozen.log(files, name)
    print_rows(("what", "value"), [*rows, *(_done(one) for one in done)], form, ("value",))


def _utc(time: str) -> str:
    """A time as the other commands print it."""
    return time.replace("+00:00", "Z")


def _facts(found: Cohort, erased: int) -> list[tuple[str, object]]:
    versions = ", ".join(f"{table} {version}" for table, version in sorted(found.versions.items()) if version)
    return [
        ("cohort", found.name),
        ("created at", _utc(found.created_at)),
        ("created by", found.created_by),
        ("release", found.release),
        ("objects", str(found.objects)),
        ("erased since", str(erased)),
        ("series", str(found.series)),
        ("studies", str(found.studies)),
        ("bytes", str(found.size)),
        ("made from", "a query (--query prints it)" if found.query else "UIDs of studies"),
        ("versions of tables", versions),
    ]


def _done(entry: Entry) -> tuple[str, str]:
    """A line of a cohort's log."""
    told = [_utc(entry.at), f"by {entry.by}"]
    told += [f"to {entry.destination}"] if entry.destination else []
    told += [entry.form] if entry.form else []
    told += [f"despite its risk: {entry.reason}"] if entry.reason else []
    told += [", ".join(f"{number} {what}" for what, number in entry.counts.items())] if entry.counts else []
    return entry.what, "; ".join(told)


@cohorts.command("verify")
def verify(
    name: Name,
    at_source: Annotated[
        bool, typer.Option("--at-source", help="Also ask the sources whether each file is there as it was.")
    ] = False,
    objects: Annotated[bool, typer.Option("--objects", help="One row for each object that differs.")] = False,
    landing: Landing = None,
    lake: LakeOption = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Compare a cohort with what the lake has now: what changed, is gone, or was erased; exit 1 if something was."""
    with clear_errors():
        settings = load_settings(landing, lake)
        from dicom_assets.curation.cohorts.changes import verify_cohort
        from dicom_assets.lake.query import existing

        found = verify_cohort(existing(settings.lake), settings, name, at_source=at_source)
    if objects:
        print_rows(("object_id", "what"), found.differing, form)
    else:
        rows = [("unchanged", found.unchanged), *((str(what), number) for what, number in sorted(found.counts.items()))]
        print_rows(("what", "objects"), rows, form)
    raise typer.Exit(0 if found.is_unchanged else 1)


@cohorts.command("export")
def export(
    name: Name,
    dest: Annotated[str, typer.Argument(metavar="DEST", help="Empty folder, or az:// address, or one to go on with.")],
    layout: Annotated[
        str, typer.Option("--as", help="Folders and name: study/series/instance, series/instance, or instance.")
    ] = "study/series/instance",
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Take identifiers out (PS3.15 Basic Profile, dates shifted).")
    ] = False,
    despite_risk: Annotated[
        str | None, typer.Option("--despite-risk", metavar="REASON", help="Why, though phi_risk is high or unknown.")
    ] = None,
    s3: Annotated[str, typer.Option("--s3", help="Bucket that s5cmd.txt copies to.")] = "s3://BUCKET",
    by: By = None,
    landing: Landing = None,
    lake: LakeOption = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Write a cohort's objects into a folder or container, or go on with it; exit 1 if some are missing."""
    with clear_errors():
        settings = load_settings(landing, lake)
        from dicom_assets.cli.progress import Reporter
        from dicom_assets.curation.cohorts.export import Wish, export_cohort
        from dicom_assets.lake.query import existing

        if despite_risk is not None and not despite_risk.strip():
            raise typer.BadParameter("give the reason", param_hint="--despite-risk")
        wish = Wish(dest, by or getpass.getuser(), layout, deidentify, despite_risk, s3)
        with Reporter() as reporter:
            done = export_cohort(existing(settings.lake), settings, name, wish, reporter.say)
    print_rows(("what", "objects"), [*done.counts.items()], form)
    if done.erased:
        say(
            f"Erased since the cohort was made: {counted(done.erased, 'object')}. Earlier exports may still have them: "
            f"see `dicom-assets cohort show {name}`.",
            err=True,
        )
    if done.missing:
        missing = counted(sum(done.missing.values()), "object")
        say(f"Not there: {missing}; missing.csv says which and why.", err=True)
    raise typer.Exit(1 if done.missing else 0)


@cohorts.command("remove")
def remove(
    name: Name,
    keys: Annotated[
        bool, typer.Option("--keys", help="Also the key of its de-identification: nothing leads back then.")
    ] = False,
    lake: LakeOption = None,
) -> None:
    """Remove a cohort and its log from the lake; what was exported stays where it is."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.curation.cohorts import frozen, mapping_keys
        from dicom_assets.lake.query import existing

        gone = frozen.remove(existing(settings.lake).files, name)
        is_keyed = keys and mapping_keys.remove(settings, name)
    say(f"Cohort {gone.name} is removed{', and its key' if is_keyed else ''}.")


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.add_typer(cohorts)
