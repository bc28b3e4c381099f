"""The commands that read a lake: `sql`, `errors`, `omop`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets.cli.options import (
    Format,
    FormatOption,
    LakeOption,
    clear_errors,
    load_settings,
    print_rows,
    require_known,
)
from dicom_assets.printing import counted, say
from dicom_assets.settings import UserError

if TYPE_CHECKING:
    import duckdb


def errors(
    lake: LakeOption = None,
    batch: Annotated[str | None, typer.Option("--batch", help="Only this batch.")] = None,
    code: Annotated[
        str | None, typer.Option("--code", help="Each error of this reason code, with its object and its detail.")
    ] = None,
    most: Annotated[int, typer.Option("--limit", min=1, help="With --code: so many at most, the newest first.")] = 100,
    form: FormatOption = Format.TABLE,
) -> None:
    """Show what was found wrong or left out, grouped by reason, and what to do about it; what is open comes first."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.lake.query import connect, existing
        from dicom_assets.lake.resolutions import RESOLUTIONS_NEED
        from dicom_assets.landing.claims import ClaimLog
        from dicom_assets.schema.codes import CODES

        if code is not None and code not in CODES:
            near = get_close_matches(code.upper(), CODES, 1)
            raise UserError(
                f"There is no reason code '{code}'" + (f"; did you mean {near[0]}?" if near else ".")
                + " `dicom-assets errors` lists those of this lake, docs/reason-codes.md all of them."
            )  # fmt: skip
        found = existing(settings.lake)
        if batch is not None:
            require_known(ClaimLog(found.files), batch)
        with connect(found, RESOLUTIONS_NEED) as connection:
            if code is not None:
                _print_each(connection, code, batch, most, form)
                return
            rows = connection.execute(_ERRORS, [batch]).fetchall()
    rows = [(*row[:-1], _few(row[-1]), CODES[row[2]].meaning, CODES[row[2]].remedy) for row in rows]
    if not rows and form is Format.TABLE:
        typer.echo("No errors.")
        return
    names = ("state", "severity", "code", "rule", "objects", "rows", "resolved by", "meaning", "what to do")
    if form is Format.TABLE:
        says = {"state": any(row[0] != "open" for row in rows), "rule": any(row[3] for row in rows)}
        says["resolved by"] = says["state"]
        shown = [place for place, name in enumerate(names) if says.get(name, True)]
        print_rows([names[place] for place in shown], [[row[place] for place in shown] for row in rows], form)
        typer.echo("The detail of each: `dicom-assets errors --code CODE`.", err=True)
        return
    print_rows(names, rows, form)


def _print_each(connection: duckdb.DuckDBPyConnection, code: str, batch: str | None, most: int, form: Format) -> None:
    """Each error of one code; neither uri nor member is among the columns, which may name a patient."""
    rows = connection.execute(_EACH, [code, batch, most]).fetchall()
    names = ("batch", "object_id", "record", "state", "occurred_at", "detail")
    if form is Format.TABLE and not rows:
        typer.echo(f"No errors with code {code}.")
        return
    print_rows(names, [row[:-1] for row in rows], form)
    if rows and rows[0][-1] > len(rows):
        typer.echo(f"{len(rows)} of {rows[0][-1]}; `--limit` shows more.", err=True)


_EACH = """
SELECT
    batch_id, object_id, record, coalesce(resolution, 'open'),
    strftime(occurred_at AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%SZ'), detail, count(*) OVER ()
FROM ingestion_error_states
WHERE code = $1 AND ($2 IS NULL OR batch_id = $2)
ORDER BY occurred_at DESC, batch_id DESC, object_id, record
LIMIT $3
"""

_ERRORS = """
SELECT
    coalesce(resolution, 'open') AS state, severity, code, rule, count(DISTINCT object_id), count(*),
    list(DISTINCT resolved_by ORDER BY resolved_by) FILTER (resolved_by IS NOT NULL)
FROM (
    SELECT *, unnest(CASE WHEN len(rules) > 0 THEN rules ELSE [NULL] END) AS rule FROM ingestion_error_states
)
WHERE $1 IS NULL OR batch_id = $1
GROUP BY state, severity, code, rule
ORDER BY state <> 'open', array_position(['error', 'warning', 'info'], severity), 6 DESC, code, rule, state
"""

_BATCHES = 3
"""Batches that resolved errors, as many as are named."""


def _few(batches: Sequence[str] | None) -> str:
    named = list(batches or ())
    return " ".join([*named[-_BATCHES:], "…"] if len(named) > _BATCHES else named)


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT over the lake's tables, in DuckDB's SQL; - reads stdin.")],
    lake: LakeOption = None,
    form: FormatOption = Format.TABLE,
    at: Annotated[
        str | None, typer.Option("--at", help="The tables as they were: a time in UTC, or a version.")
    ] = None,
) -> None:
    """Run read-only SQL over the lake's tables."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.lake.query import existing, moment, rows, run_read_only

        text = sys.stdin.read() if query == "-" else query
        names, found = rows(run_read_only(existing(settings.lake), text, moment(at) if at else None))
        print_rows(names, found, form, prose=())


def omop(folder: Annotated[Path, typer.Argument(help="Where the files are written.")], lake: LakeOption = None) -> None:
    """Write image_occurrence for an OMOP database: its DDL, the parents it refers to, and CSV for COPY."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.lake.query import arrow, connect, existing
        from dicom_assets.omop.ddl import export
        from dicom_assets.schema.registry import IMAGE_OCCURRENCE

        with connect(existing(settings.lake), [IMAGE_OCCURRENCE.name]) as connection:
            rows = arrow(connection, "SELECT * FROM image_occurrence ORDER BY image_occurrence_id")
    try:
        written = export(rows.cast(IMAGE_OCCURRENCE.schema), folder)
    except OSError as error:
        say(f"dicom-assets: cannot write to {folder}: {error.strerror}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{counted(len(rows), 'row')} in {', '.join(str(path) for path in written)}")


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    for command in (errors, sql, omop):
        app.command()(command)
