"""The commands `dicom-assets rules …`. They join the others in `cli`.

Belongs here: options, printing, exit codes. Does not belong here: what a rule is (`batch.house_rules`), trying it
(`batch.rule_trials`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dicom_assets.cli.options import Format, FormatOption, LakeOption, clear_errors, load_settings, print_rows
from dicom_assets.printing import say

rules = typer.Typer(name="rules", help="Rules of the house: what must hold of what arrives.", no_args_is_help=True)


class Level(StrEnum):
    """What a condition is asked of."""

    OBJECT = "object"
    STUDY = "study"
    BATCH = "batch"


_UNITS = {"object": "objects", "study": "studies", "batch": "batches"}


@rules.callback()
def group() -> None:
    """Rules of the house: what must hold of what arrives."""


@rules.command("try")
def try_rules(
    name: Annotated[str | None, typer.Argument(help="One rule of the settings; without it, all.")] = None,
    sql: Annotated[str | None, typer.Option("--sql", help="A condition to try that is in no settings yet.")] = None,
    level: Annotated[Level, typer.Option("--level", help="What that condition is asked of.")] = Level.OBJECT,
    lake: LakeOption = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Ask rules of what is in the lake: how many objects break each, by source and modality; nothing is changed."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.batch import rule_trials
        from dicom_assets.lake.query import existing

        chosen = rule_trials.chosen(settings, name, sql, str(level))
        trials = rule_trials.try_rules(existing(settings.lake), chosen)
    if not trials and form is Format.TABLE:
        typer.echo('No rules are configured. To try a condition: dicom-assets rules try --sql "PatientID IS NOT NULL"')
        return
    for trial in trials:
        units = _UNITS[trial.rule.settings.level]
        if form is Format.TABLE:
            words = f"{trial.broken} of {trial.groups} {units} break it"
            say(f"Rule {trial.rule.name} ({trial.rule.settings.effect}): {words}.", err=True)
    rows = [
        (one.rule.name, count.source, count.modality, count.asked, count.broken, count.unknown, " ".join(count.few))
        for one in trials
        for count in one.counts
        if count.broken or count.unknown or form is not Format.TABLE
    ]
    if rows or form is not Format.TABLE:
        print_rows(("rule", "source", "modality", "objects", "break it", "not known", "some object_ids"), rows, form)


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.add_typer(rules)
