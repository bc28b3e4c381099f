"""The command `source test`.

Belongs here: options, printing, the exit code. Does not belong here: what is tried (`batch.reach`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets.cli.options import Format, FormatOption, LakeOption, clear_errors, load_settings, print_rows
from dicom_assets.printing import say

if TYPE_CHECKING:
    from dicom_assets.batch.reach.trial import Step


def try_sources(
    name: Annotated[str | None, typer.Argument(help="Name of a source or service; all of them by default.")] = None,
    landing: Annotated[str | None, typer.Option("--landing", help="Folder or URL where objects arrive.")] = None,
    lake: LakeOption = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Try what a source, its queue or service, and the lake let us do, right by right; exit 1 when something fails."""
    with clear_errors():
        settings = load_settings(landing, lake)
        from dicom_assets.batch.reach.rights import all_ok, try_places
        from dicom_assets.batch.reach.trial import say_nothing

        steps = try_places(settings, name, _tell if form is Format.TABLE else say_nothing)
    if form is not Format.TABLE:
        rows = [(one.subject, one.name, str(one.result), _rounded(one.seconds), one.detail) for one in steps]
        print_rows(("subject", "step", "result", "seconds", "detail"), rows, form)
    raise typer.Exit(0 if all_ok(steps) else 1)


def _tell(step: Step) -> None:
    seconds = "" if step.seconds is None else f"{step.seconds:.1f} s"
    say(f"{step.subject:24} {step.name:17} {step.result:9} {seconds:>7}  {step.detail}")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
