"""What the commands share: options, settings, how rows are printed, how errors that a user can mend end a command."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets import printing
from dicom_assets.printing import say
from dicom_assets.settings import Settings, UserError, load

if TYPE_CHECKING:
    from dicom_assets.landing.claims import ClaimLog

Landing = Annotated[
    str | None,
    typer.Option(
        "--landing", help="Folder or URL where objects arrive. Default: what the settings say, else data/landing."
    ),
]
LakeOption = Annotated[
    str | None,
    typer.Option("--lake", help="Folder or URL of the lake. Default: what the settings say, else data/lake."),
]


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How rows are printed.")]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Prints the errors that a user can do something about, and ends with 2."""
    try:
        yield
    except UserError as error:
        say(f"dicom-assets: {error}", err=True)
        raise typer.Exit(2) from None


def load_settings(landing: str | None = None, lake: str | None = None) -> Settings:
    """The settings of a command; what this process writes from here on is for those to read whom they name."""
    settings = load(landing, lake)
    os.umask(settings.storage.umask)
    return settings


PROSE = ("meaning", "what to do", "detail", "what must hold", "which", "object_ids", "some object_ids", "resolved by")
"""Columns of sentences and of lists of ids, which a table may break between words."""


def print_rows(
    names: Sequence[str], rows: Sequence[Sequence[object]], form: Format, prose: Sequence[str] = PROSE
) -> None:
    """Prints rows on stdout. prose: columns that a table may break between words."""
    if form is Format.CSV:
        typer.echo(printing.csv_text(names, rows), nl=False)
    elif form is Format.JSON:
        typer.echo(printing.json_text(names, rows))
    else:
        from dicom_assets.cli.progress import print_table

        print_table(names, rows, prose)


def require_known(log: ClaimLog, batch_id: str) -> None:
    """Raises UserError when nobody claimed a batch."""
    from dicom_assets.landing.claims import UnknownBatch

    try:
        log.manifest(batch_id)
    except UnknownBatch as error:
        raise UserError(str(error)) from None
