"""What the help of each command shows besides its options: examples to copy, and the title that it stands under.

Belongs here: EXAMPLES and TITLES. A test parses every example with the command that it is about, and finds commands
that have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import getdoc

import typer

EXAMPLES: Mapping[str, Sequence[str]] = {
    "demo": ["dicom-assets demo data/landing"],
    "ingest": [
        "dicom-assets ingest",
        "dicom-assets ingest --landing /mnt/pacs-export --lake /srv/lake",
        "dicom-assets ingest --landing az://account/incoming --lake az://account/lake",
    ],
    "status": ["dicom-assets status", "dicom-assets status --limit 5", "dicom-assets status --format json"],
    "errors": ["dicom-assets errors", "dicom-assets errors --code MISSING_IDENTITY --limit 20"],
    "sql": [
        'dicom-assets sql "SELECT Modality, count(*) FROM series GROUP BY ALL"',
        "dicom-assets sql - --format csv < query.sql > rows.csv",
        'dicom-assets sql --at 2026-11-20T08:00Z "SELECT count(*) FROM study"',
    ],
    "omop": ["dicom-assets omop omop-files"],
    "verify": ["dicom-assets verify", "dicom-assets verify --fix"],
    "reread": ["dicom-assets reread --plan --code UNPARSEABLE"],
    "upgrade": ["dicom-assets upgrade --plan", "dicom-assets upgrade"],
    "erase": ["dicom-assets erase --patient 4711 --plan"],
    "push": ["dicom-assets push folder --to pacs"],
    "changes": ["dicom-assets changes pacs --from 2026-11-01 --to 2026-11-08"],
    "audit": ["dicom-assets audit pacs"],
    "repair": ["dicom-assets repair pacs"],
    "forward": ["dicom-assets forward"],
    "serve": ["dicom-assets serve", "dicom-assets serve --lake /srv/lake --port 8080"],
    "ui": ["dicom-assets ui", "dicom-assets ui --lake /srv/lake --landing /mnt/pacs-export"],
    "viewer install": ["dicom-assets viewer install", "dicom-assets viewer install --from ohif-app-3.13.2.tgz"],
    "viewer status": ["dicom-assets viewer status"],
    "viewer remove": ["dicom-assets viewer remove"],
    "curate": ["dicom-assets curate"],
    "cohort create": ['dicom-assets cohort create trial --sql "SELECT StudyInstanceUID FROM study"'],
    "cohort list": ["dicom-assets cohort list"],
    "cohort show": ["dicom-assets cohort show trial"],
    "cohort verify": ["dicom-assets cohort verify trial"],
    "cohort export": [
        "dicom-assets cohort export trial /data/trial --deidentify",
        "dicom-assets cohort export trial az://account/trial --despite-risk 'agreed'",
    ],
    "cohort remove": ["dicom-assets cohort remove trial"],
    "who-saw": ["dicom-assets who-saw --patient 4711"],
    "selftest": ["dicom-assets selftest"],
    "metrics": ["dicom-assets metrics --output /var/lib/node_exporter/dicom_assets.prom"],
    "backup": ["dicom-assets backup /srv/backup"],
    "restore": ["dicom-assets restore /srv/backup --lake /srv/restored"],
    "batch show": ["dicom-assets batch show 20261120T143000Z-1f3a9c2e"],
    "batch retry": ["dicom-assets batch retry 20261120T143000Z-1f3a9c2e --quarantined-share 0.6"],
    "batch accept": ["dicom-assets batch accept 20261120T143000Z-1f3a9c2e --reason 'scanner fault'"],
    "batch dismiss": ["dicom-assets batch dismiss 20261120T143000Z-1f3a9c2e --reason 'a mistake'"],
    "batch register": ["dicom-assets batch register 20261120T143000Z-1f3a9c2e"],
    "rules try": ["dicom-assets rules try", 'dicom-assets rules try --sql "PatientID IS NOT NULL"'],
    "source test": ["dicom-assets source test"],
    "source confirm": ["dicom-assets source confirm landing"],
    "source audit": ["dicom-assets source audit"],
    "columns add": ["dicom-assets columns add PatientOrientation --level series"],
    "columns list": ["dicom-assets columns list"],
    "columns remove": ["dicom-assets columns remove PatientOrientation"],
    "alerts test": ["dicom-assets alerts test"],
    "alerts send": ["dicom-assets alerts send"],
    "engines synapse": ["dicom-assets engines synapse --database imaging > views.sql"],
    "engines fabric": ["dicom-assets engines fabric --database imaging > views.sql"],
    "engines databricks": ["dicom-assets engines databricks --database imaging > views.sql"],
    "engines adx": ["dicom-assets engines adx > tables.kql"],
    "engines spark": ["dicom-assets engines spark > tables.sql"],
    "engines duckdb": ["dicom-assets engines duckdb > views.sql"],
    "engines contract": ["dicom-assets engines contract > contract.yaml"],
}
"""Examples of every command, by its name. Each fits into a line of 80 columns, where help is folded."""

TITLES: Mapping[str, Sequence[str]] = {
    "Bring data in": ("demo", "ingest", "push", "changes", "forward"),
    "Look": ("status", "errors", "sql", "serve", "viewer", "ui", "omop", "engines", "metrics"),
    "Decide": ("batch", "source", "rules", "columns", "cohort", "reread", "erase", "who-saw", "alerts"),
    "Keep it true": ("verify", "curate", "audit", "repair", "upgrade", "backup", "restore", "selftest"),
}
"""The titles of `dicom-assets --help`, with the commands and groups below each."""

EXIT_CODES = (
    "Exit codes: 0 done; 1 something waits or differs (a batch did not close, a comparison found a difference); 2 "
    "wrong input, or a place that cannot be reached, and a sentence says what to do; 3 a fault that nobody foresaw. "
    "Settings: dicom-assets.toml in the current folder, or the file that DICOM_ASSETS_CONFIG names."
)


def add_to(app: typer.Typer) -> None:
    """Gives every command and group its examples, and puts it below its title."""
    titles = {name: title for title, names in TITLES.items() for name in names}
    for name, command in commands_of(app):
        command.epilog = _epilog(EXAMPLES.get(name, ()))
        command.help = _unwrapped(command.help or getdoc(command.callback) or "")
    for command in app.registered_commands:
        command.rich_help_panel = titles.get(_name(command))
    for group in app.registered_groups:
        name = str(group.name or _of(group).info.name)
        group.rich_help_panel = titles.get(name)
        inner = [EXAMPLES.get(one, ()) for one, _ in commands_of(_of(group), f"{name} ")]
        group.epilog = _epilog([examples[0] for examples in inner if examples])
    app.info.epilog = EXIT_CODES


def _epilog(examples: Sequence[str]) -> str:
    return "\n\n".join(["Examples:", *examples])


def _unwrapped(text: str) -> str:
    """A text with each paragraph in one line, for help to fold at its own width."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def commands_of(app: typer.Typer, prefix: str = "") -> Iterator[tuple[str, typer.models.CommandInfo]]:
    """Every command with its whole name, groups before commands of a group."""
    for command in app.registered_commands:
        yield prefix + _name(command), command
    for group in app.registered_groups:
        yield from commands_of(_of(group), f"{prefix}{group.name or _of(group).info.name} ")


def _of(group: typer.models.TyperInfo) -> typer.Typer:
    assert group.typer_instance is not None, "a group is made of a Typer"
    return group.typer_instance


def _name(command: typer.models.CommandInfo) -> str:
    return command.name or getattr(command.callback, "__name__", "").replace("_", "-")
