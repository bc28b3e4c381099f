"""The commands `backup` and `restore`. They join the others in `cli`.

Belongs here: options, printing, exit codes, where Dagster's state lies. Does not belong here: what is copied
(`batch.backup`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_assets.cli.options import Format, FormatOption, LakeOption, clear_errors, load_settings, print_rows
from dicom_assets.printing import counted, say
from dicom_assets.settings import Settings, SettingsError

if TYPE_CHECKING:
    from dicom_assets.batch.backup.agreement import Agreement
    from dicom_assets.batch.backup.manifest import File, Manifest
    from dicom_assets.batch.backup.vault import Vault

NOT_IN_FILES = (
    "Dagster's state is not in SQLite files here. If it lies in PostgreSQL, pg_dump copies it; the lake goes on "
    "without it, and only the history of runs would be lost."
)
Which = Annotated[str | None, typer.Option("--backup", help="Id of a backup; the newest by default.")]


def backup(
    dest: Annotated[str, typer.Argument(metavar="DEST", help="Folder or az:// address that the backups lie in.")],
    lake: LakeOption = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read a backup and compare digests; take none.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the backups; take none.")] = False,
    which: Which = None,
    keep: Annotated[int | None, typer.Option("--keep", min=1, help="Delete all backups but so many newest.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Back the lake, its claims and Dagster's state up, while batches run; what the last backup has is not read again.

    With --verify exit 1 when files are missing or are not what they were.
    """
    with clear_errors():
        settings = load_settings(None, lake)
        vault = _vault(dest, settings)
        if listed:
            _list(vault, form)
            return
        if verify:
            _verify(vault, which)
            return
        manifest = _take(vault, settings)
        gone = 0 if keep is None else vault.keep_newest(keep)
    say(
        f"Backup {manifest.backup_id}: {len(manifest.files)} files, {manifest.bytes / 1e6:,.1f} MB; claims: "
        f"{manifest.claims}; batches that are not closed: {len(manifest.open)}."
    )
    if gone:
        say(f"Older backups deleted: {gone}.")


def restore(
    src: Annotated[str, typer.Argument(metavar="SRC", help="Folder or az:// address that the backups lie in.")],
    lake: LakeOption = None,
    which: Which = None,
    over: Annotated[bool, typer.Option("--over", help="Delete the lake that is there, and Dagster's state.")] = False,
    without_state: Annotated[bool, typer.Option("--without-state", help="Leave Dagster's state as it is.")] = False,
) -> None:
    """Put a backup back into a new place, and mend what its claims and tables do not agree on."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.batch.backup.copy_in import put_back

        vault = _vault(src, settings)
        manifest = vault.manifest(which)
        found = put_back(vault, manifest, settings, over=over, say=lambda text: say(text, err=True))
        state = "" if without_state else _put_state_back(vault, manifest, settings, over=over)
    say(f"Backup {manifest.backup_id} of {manifest.made_at[:19]}Z is put back.")
    _tell(found)
    if state:
        say(state)
    say("Now run `dicom-assets verify`, and then `dicom-assets ingest`, which brings what has arrived since.", err=True)


def _vault(address: str, settings: Settings) -> Vault:
    """The backups at an address. Raises SettingsError for one within the lake or a source."""
    from dicom_assets.batch.backup.vault import Vault
    from dicom_assets.storage.files import LakeFiles

    place = address if "://" in address else str(Path(address).expanduser().absolute())
    for what, root in (("the lake", settings.lake), *((f"source '{s.name}'", s.root) for s in settings.sources)):
        if f"{place.rstrip('/')}/".startswith(f"{root.removeprefix('file://').rstrip('/')}/"):
            raise SettingsError(f"Backups must not lie inside {what}: give another place. Nothing was changed.")
    return Vault(LakeFiles(place, synced=settings.storage.survive_power_cuts))


def _take(vault: Vault, settings: Settings) -> Manifest:
    from dicom_assets.batch.backup.copy_out import take
    from dicom_assets.lake.query import existing

    found = existing(settings.lake)
    return take(found, vault, _state(vault, settings), lambda text: say(text, err=True))


def _state(vault: Vault, settings: Settings) -> list[File]:
    """Dagster's state, before anything else is copied."""
    from dicom_assets.batch.backup.sqlite_state import copy_out
    from dicom_assets.defs.state_folder import dagster_home, state_folders

    say("Copying Dagster's state.", err=True)
    files = copy_out(dagster_home(settings), state_folders(settings), vault)
    if not files:
        say(NOT_IN_FILES, err=True)
    return files


def _put_state_back(vault: Vault, manifest: Manifest, settings: Settings, *, over: bool) -> str:
    """Puts Dagster's state back where this lake's is looked for; what became of it."""
    from dicom_assets.batch.backup.manifest import STATE
    from dicom_assets.batch.backup.sqlite_state import StateUnreadable, copy_in
    from dicom_assets.defs.instance import open_instance
    from dicom_assets.defs.state_folder import dagster_home
    from dicom_assets.defs.unfinished_runs import forget_unfinished

    if manifest.state != "sqlite":
        return NOT_IN_FILES
    home = dagster_home(settings)
    if ((home / "workspace.yaml").is_file()) != any(
        file.path.startswith(f"{STATE}/.dagster/") for file in manifest.files
    ):
        return (
            "Dagster's state is left out: a project's folder keeps it in .dagster, elsewhere it lies beside the lake, "
            "and the backup has it of the other kind. The lake does not need it."
        )
    try:
        copied = copy_in(home, vault, manifest, over=over)
    except StateUnreadable as error:
        return str(error)
    with open_instance(settings) as instance:
        runs = forget_unfinished(instance)
    return f"Databases of Dagster's state: {copied}; runs that were under way and are forgotten: {runs}."


def _list(vault: Vault, form: Format) -> None:
    rows = []
    if not vault.ids() and form is Format.TABLE:
        say("There is no backup there.")
        return
    for one in vault.ids():
        found = vault.manifest(one)
        rows.append((one, found.lake, len(found.files), found.bytes, found.claims, len(found.open), found.made_by))
    print_rows(("backup", "lake", "files", "bytes", "claims", "open batches", "made by"), rows, form)


def _verify(vault: Vault, which: str | None) -> None:
    manifest = vault.manifest(which)
    faults = vault.faults(manifest)
    for what in sorted({fault.what for fault in faults}):
        say(f"{what.capitalize()}: {counted(sum(fault.what == what for fault in faults), 'file')}.", err=True)
    if faults:
        say(f"Backup {manifest.backup_id} is not whole: take another one.", err=True)
        raise typer.Exit(1)
    say(f"Backup {manifest.backup_id} is whole: {len(manifest.files)} files, {manifest.bytes / 1e6:,.1f} MB.")


def _tell(found: Agreement) -> None:
    lines = (
        (len(found.to_run), "claimed and not closed: `dicom-assets ingest` runs them again"),
        (len(found.begun), "of these were at work when the backup was taken"),
        (len(found.claimed), "in the tables and not claimed: claimed now, so that nothing of them is new"),
        (len(found.forgotten), "in the books with neither claim nor rows: taken out of the books"),
        (found.returns, "returned objects of batches that nobody claimed: new again"),
    )
    for number, words in lines:
        if number:
            say(f"{number:8d} {words}")


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.command()(backup)
    app.command()(restore)
