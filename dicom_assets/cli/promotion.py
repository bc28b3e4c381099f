"""The commands `dicom-assets columns …`. They join the others in `cli`.

Belongs here: options, printing, exit codes. Does not belong here: what a column is (`schema.promoted`), filling it
(`batch.promotion`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_assets.cli.options import Format, FormatOption, LakeOption, clear_errors, load_settings, print_rows

columns = typer.Typer(name="columns", help="Attributes that are promoted to columns.", no_args_is_help=True)


@columns.callback()
def group() -> None:
    """Attributes that are promoted to columns."""


@columns.command("add")
def add(
    path: Annotated[str, typer.Argument(help="Keyword, tag, (GGGG,creator,EE), or several with dots into sequences.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the column; by default the path's keywords.")] = None,
    level: Annotated[str, typer.Option("--level", help="instance, series or study.")] = "instance",
    vr: Annotated[str | None, typer.Option("--vr", help="Of an element that no dictionary knows.")] = None,
    lake: LakeOption = None,
) -> None:
    """Promote an attribute: a column for what comes, filled from the headers for what is there."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.batch.context import RunContext
        from dicom_assets.batch.promotion import column_of, declare, fill, require_new
        from dicom_assets.cli.progress import Reporter
        from dicom_assets.lake.query import is_there, sql_type
        from dicom_assets.settings import ColumnSettings, UserError

        if not path.strip():
            raise UserError(
                "Give a path: a keyword, a tag, (GGGG,creator,EE), or several with dots. Nothing was changed."
            )
        column = column_of(ColumnSettings(path=path, name=name, level=level, vr=vr))
        is_there(settings.lake)
        with Reporter() as reporter, RunContext(settings, say=reporter.say) as work:
            require_new(work.lake, column)
            declare(work.lake, [column])
            filled = fill(work.lake, lambda table, done, of: reporter.say(f"{table}: {done} of {of} files"))
    for one in filled:
        typer.echo(f"{one.sentence} Its type is {sql_type(one.column.type)}.")


@columns.command("list")
def show(lake: LakeOption = None, form: FormatOption = Format.TABLE) -> None:
    """Show the promoted columns of a lake."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.lake.query import existing, sql_type

        listed = existing(settings.lake).columns
    rows = [
        (one.column.name, one.column.path, str(one.column.level), sql_type(one.column.type), one.stage, one.misfits)
        for one in listed
    ]
    if not rows and form is Format.TABLE:
        typer.echo("No promoted columns. `dicom-assets columns add PATH` adds one.")
        return
    print_rows(("column", "path", "level", "type", "state", "misfits"), rows, form)


@columns.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Name of the column.")],
    lake: LakeOption = None,
) -> None:
    """Take a promoted column away again; headers keep its values."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.batch import promotion
        from dicom_assets.batch.context import RunContext
        from dicom_assets.cli.progress import Reporter
        from dicom_assets.lake.query import is_there

        if any(promotion.column_of(one).name == name for one in settings.columns):
            raise promotion.ColumnError(f"[[columns]] of the settings names {name}: take it out there first.")
        is_there(settings.lake)
        with Reporter() as reporter, RunContext(settings, say=reporter.say) as work:
            promotion.remove(work.lake, name, lambda table, done, of: reporter.say(f"{table}: {done} of {of} tables"))
    typer.echo(f"Column {name} is removed.")


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.add_typer(columns)
