"""The command `curate`. It joins the others in `cli`.

Belongs here: options, printing, exit codes. Does not belong here: what it brings up to date (`curation`).
"""

from __future__ import annotations

import typer

from dicom_assets.cli.options import Format, FormatOption, LakeOption, clear_errors, load_settings, print_rows

_NAMES = ("table", "what", "count")


def curate(lake: LakeOption = None, form: FormatOption = Format.TABLE) -> None:
    """Bring tag_profile and phi_risk up to date with the batches that have closed; for whoever runs no daemon."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.batch.context import RunContext
        from dicom_assets.cli.progress import Reporter
        from dicom_assets.curation.following import follow
        from dicom_assets.curation.parity import every_series_is_judged, profiles_hold_every_object, risks
        from dicom_assets.lake.query import is_there

        is_there(settings.lake)
        with Reporter() as reporter, RunContext(settings, say=reporter.say) as work:
            done = follow(work.lake, reporter.say)
            parity = {
                "tag_profile": profiles_hold_every_object(work.lake, done.versions),
                "phi_risk": every_series_is_judged(work.lake, done.versions),
            }
            found = risks(work.lake)
    rows: list[tuple[str, str, int]] = [
        ("tag_profile", "batches counted", done.batches),
        ("tag_profile", "profiles added up", done.profiles),
        ("phi_risk", "series judged", done.series),
        *(("phi_risk", name.replace("_", " "), count) for name, count in found.counts.items()),
    ]
    rows += [
        (name, what.replace("_", " "), count)
        for name, one in parity.items() if not one.passed
        for what, count in {**one.counts, "expected": one.expected, "found": one.actual}.items()
    ]  # fmt: skip
    print_rows(_NAMES, rows, form)
    raise typer.Exit(0 if all(one.passed for one in parity.values()) else 1)


def add_to(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(curate)
