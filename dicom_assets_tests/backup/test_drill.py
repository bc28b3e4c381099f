"""A restore drill: taken while a batch is in the middle, put back elsewhere, found sound, and nothing lost or new."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from dicom_assets.batch.backup import copy_out
from dicom_assets.batch.backup.agreement import Agreement, agree
from dicom_assets.batch.backup.copy_in import RestoreRefused, put_back
from dicom_assets.batch.backup.copy_out import BackupRefused, take
from dicom_assets.batch.backup.manifest import Manifest
from dicom_assets.batch.backup.sqlite_state import StateUnreadable
from dicom_assets.batch.backup.sqlite_state import copy_in as state_in
from dicom_assets.batch.backup.sqlite_state import copy_out as state_out
from dicom_assets.batch.backup.vault import NoBackup, Vault
from dicom_assets.batch.books import Status, all_books
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.erasure.record import PATH as UNDER_WAY
from dicom_assets.batch.verification.verify import verify
from dicom_assets.cli.main import app
from dicom_assets.defs.unfinished_runs import forget_unfinished
from dicom_assets.lake.delta import Lake
from dicom_assets.landing import claims
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeFiles
from dicom_assets.storage.traces import Terms, places
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import contents, settings_for
from dicom_assets_tests.support.landings import CLINICAL_CSV, LandingFolder
from dicom_assets_tests.support.steps import Stepped, step_through, steps

MADE = ("instance", "series", "study", "clinical", "imaging_study", "image_occurrence", "diagnostic_report")
"""Tables that are to be the same, whoever made them; the others name batches."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stepped]:
    """A lake of two closed batches."""
    folder = tmp_path_factory.mktemp("original")
    landing = LandingFolder(folder / "landing")
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings_for(folder / "lake", landing.root), instance, judges=False)
        landing.put_series(1, 1, 2)
        step_through(graph, judges=False)
        landing.put_series(2, 1, 1)
        landing.put("clinical.csv", CLINICAL_CSV)
        step_through(graph, judges=False)
        yield graph


@pytest.fixture
def graph(original: Stepped, tmp_path: Path) -> Stepped:
    """A copy of it that may be changed, with its own landing folder's name kept: uris stay what they were."""
    lake = tmp_path / "lake"
    shutil.copytree(original.settings.lake, lake)
    return Stepped(original.settings.model_copy(update={"lake": str(lake)}), original.instance, judges=False)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(LakeFiles(str(tmp_path / "backups")))


def elsewhere(graph: Stepped, folder: Path) -> Stepped:
    """The same sources, with a lake of another place."""
    return Stepped(graph.settings.model_copy(update={"lake": str(folder)}), graph.instance, judges=False)


def restored(graph: Stepped, vault: Vault, manifest: Manifest, folder: Path) -> tuple[Stepped, Agreement]:
    other = elsewhere(graph, folder)
    return other, put_back(vault, manifest, other.settings)


def is_sound(graph: Stepped) -> bool:
    return all(one.holds for one in verify(graph.lake, graph.settings).findings)


def rerun(graph: Stepped) -> list[str]:
    """Runs what is not closed, as an ingest does; what it claims as new."""
    fresh = graph.claim()
    with RunContext(graph.settings) as work:
        left = work.unclosed()
    for batch in left:
        graph.run(batch)
    return fresh


def take_as_far_as(graph: Stepped, landing: LandingFolder, study: int, upto: str) -> str:
    """Claims a series of a study, and takes it as far as a table; its batch."""
    landing.put_series(study, 1, 2)
    (batch,) = graph.claim()
    with RunContext(graph.settings, shared_engine=InlineEngine()) as work:
        for tables, make in steps(work.batch(batch)):
            make()
            if upto in tables:
                break
    return batch


@pytest.fixture
def landing(original: Stepped) -> Iterator[LandingFolder]:
    """The folder that the lake came from; what arrives there goes again."""
    root = Path(original.settings.sources[0].root)
    before = {*root.iterdir()}
    yield LandingFolder(root)
    for path in {*root.iterdir()} - before:
        shutil.rmtree(path)


MOMENTS = {"batches": 3, "instance": 4, "_claims": 5}
"""Behind a table, or before a folder, that is copied: the study that is claimed and closed then."""


class TestADrill:
    @pytest.mark.slow
    def test_a_quiet_lake_comes_back_as_it_was(self, graph: Stepped, vault: Vault, tmp_path: Path) -> None:
        manifest = take(graph.lake, vault, ())
        other, found = restored(graph, vault, manifest, tmp_path / "other")
        assert found == Agreement()
        assert contents(other.lake) == contents(graph.lake)
        assert is_sound(other)
        assert rerun(other) == []

    @pytest.mark.slow
    def test_no_address_of_the_old_place_is_left(self, graph: Stepped, vault: Vault, tmp_path: Path) -> None:
        other, _ = restored(graph, vault, take(graph.lake, vault, ()), tmp_path / "other")
        terms = Terms.of([graph.settings.lake])
        files = other.lake.files
        assert [path for path in files.every_name("") if any(places(files.get(path), terms))] == []

    @pytest.mark.slow
    def test_batches_in_the_middle_are_run_again(
        self, graph: Stepped, landing: LandingFolder, vault: Vault, tmp_path: Path
    ) -> None:
        for study, moment in ((3, "raw_files"), (4, "study")):
            take_as_far_as(graph, landing, study, moment)
        other, found = restored(graph, vault, take(graph.lake, vault, ()), tmp_path / "other")
        assert len(found.to_run) == 2
        assert rerun(other) == []
        assert is_sound(other)
        assert {one.status for one in all_books(other.lake)} == {Status.CLOSED}
        assert len(other.rows("SELECT * FROM instance")) == 7

    @pytest.mark.slow
    def test_batches_that_are_claimed_and_closed_while_tables_are_copied(
        self, graph: Stepped, landing: LandingFolder, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At each moment of the copy: the copy is what a kill could have left."""
        real_table, real_folder = copy_out._table, copy_out._Copying.folder

        def whole(moment: str) -> None:
            if moment in MOMENTS:
                landing.put_series(MOMENTS[moment], 1, 2)
                step_through(graph, judges=False)

        def table(lake: Lake, copying: Any, name: str) -> Any:
            found = real_table(lake, copying, name)
            whole(name)
            return found

        def folder(copying: Any, name: str) -> Any:
            whole(name)
            return real_folder(copying, name)

        monkeypatch.setattr(copy_out, "_table", table)
        monkeypatch.setattr(copy_out._Copying, "folder", folder)
        other, found = restored(graph, vault, take(graph.lake, vault, ()), tmp_path / "other")
        assert (len(found.to_run), found.claimed) == (len(MOMENTS), ())
        assert rerun(other) == []
        assert is_sound(other)
        assert contents(other.lake, MADE) == contents(graph.lake, MADE)

    @pytest.mark.slow
    def test_a_paused_batch_waits_as_it_did(
        self, graph: Stepped, landing: LandingFolder, vault: Vault, tmp_path: Path
    ) -> None:
        batch = take_as_far_as(graph, landing, 3, "validated_batch")
        with RunContext(graph.settings) as work:
            work.batch(batch).stop(Status.PAUSED, "a rule", "run")
        other, found = restored(graph, vault, take(graph.lake, vault, ()), tmp_path / "other")
        assert found == Agreement()
        assert other.books(batch).reason == "a rule"
        assert other.lake.files.listed(f"_staging/{batch}")


class TestClaimsAndTables:
    @pytest.mark.slow
    def test_claims_that_are_older_are_made_good_from_the_tables(
        self, graph: Stepped, vault: Vault, tmp_path: Path
    ) -> None:
        manifest = take(graph.lake, vault, ())
        newest = max(file.path for file in manifest.files if file.path.startswith("_claims/"))
        older = replace(manifest, files=tuple(file for file in manifest.files if file.path != newest))
        other, found = restored(graph, vault, older, tmp_path / "other")
        assert (len(found.claimed), found.to_run) == (1, ())
        assert rerun(other) == []
        assert is_sound(other)
        assert contents(other.lake, MADE) == contents(graph.lake, MADE)

    def test_all_claims_may_be_missing(self, graph: Stepped, vault: Vault, tmp_path: Path) -> None:
        graph.lake.files.delete(claims.FOLDER)
        found = agree(graph.lake)
        assert len(found.claimed) == 2
        assert rerun(graph) == [] and is_sound(graph)
        assert agree(graph.lake) == Agreement()


class TestTaking:
    def test_the_second_one_reads_only_what_is_new(
        self, graph: Stepped, vault: Vault, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = take(graph.lake, vault, ())
        read: list[str] = []
        real = LakeFiles.get

        def counted(files: LakeFiles, path: str) -> bytes:
            read.append(path)
            return real(files, path)

        lake = graph.lake
        monkeypatch.setattr(LakeFiles, "get", counted)
        second = take(lake, vault, ())
        assert second.tables == first.tables
        assert [path for path in read if path.endswith(".parquet") and "_delta_log" not in path] == []
        assert [file.digest for file in second.files] == [file.digest for file in first.files]

    @pytest.mark.slow
    def test_a_table_that_is_merged_meanwhile_is_begun_anew(
        self, graph: Stepped, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from dicom_assets.lake.history import forget

        real, once = copy_out._log, []

        def log(lake: Lake, name: str, version: int) -> list[str]:
            if name == "flat_metadata" and not once:
                once.append(1)
                forget(Lake(lake.uri), name)
            return real(lake, name, version)

        monkeypatch.setattr(copy_out, "_log", log)
        other, _ = restored(graph, vault, take(graph.lake, vault, ()), tmp_path / "other")
        assert once and is_sound(other)

    def test_while_something_is_erased_none_is_taken(self, graph: Stepped, vault: Vault) -> None:
        graph.lake.files.put(UNDER_WAY, b"{}")
        with pytest.raises(BackupRefused, match="erasure"):
            take(graph.lake, vault, ())
        assert vault.ids() == []

    def test_older_ones_go_with_what_only_they_have(self, graph: Stepped, vault: Vault, tmp_path: Path) -> None:
        take(graph.lake, vault, ())
        graph.lake.files.put("_datasets/one.json", b"1")
        take(graph.lake, vault, ())
        graph.lake.files.put("_datasets/one.json", b"2")
        newest = take(graph.lake, vault, ())
        before = len(LakeFiles(vault.uri).names("objects"))
        assert vault.keep_newest(1) == 2
        assert vault.ids() == [newest.backup_id]
        assert len(LakeFiles(vault.uri).names("objects")) < before
        assert vault.faults(newest) == []


class TestRefusals:
    @pytest.mark.slow
    def test_a_lake_that_is_not_empty_is_left_as_it_is(self, graph: Stepped, vault: Vault) -> None:
        manifest = take(graph.lake, vault, ())
        before = contents(graph.lake)
        with pytest.raises(RestoreRefused, match="not empty"):
            put_back(vault, manifest, graph.settings)
        assert contents(graph.lake) == before
        put_back(vault, manifest, graph.settings, over=True)
        assert contents(graph.lake) == before

    @pytest.mark.parametrize("harm", ["missing", "changed", "short"])
    def test_a_backup_that_is_not_whole_is_told_and_deletes_nothing(
        self, graph: Stepped, vault: Vault, harm: str
    ) -> None:
        manifest = take(graph.lake, vault, ())
        path = Path(vault.uri) / sorted(LakeFiles(vault.uri).names("objects"))[3]
        data = path.read_bytes()
        path.unlink()
        if harm != "missing":
            path.write_bytes(data[:-1] if harm == "short" else bytes([data[0] ^ 1]) + data[1:])
        assert {fault.what for fault in vault.faults(manifest)} == {harm}
        with pytest.raises(RestoreRefused, match="not whole"):
            put_back(vault, manifest, graph.settings, over=True)
        assert is_sound(graph)

    def test_a_manifest_that_was_changed_is_not_believed(self, graph: Stepped, vault: Vault) -> None:
        manifest = take(graph.lake, vault, ())
        path = Path(vault.uri) / "backups" / f"{manifest.backup_id}.json"
        path.write_bytes(path.read_bytes().replace(b'"claims": 2', b'"claims": 3'))
        with pytest.raises(NoBackup, match="not what it was"):
            vault.manifest()

    def test_a_manifest_of_a_later_release_is_told(self, graph: Stepped, vault: Vault) -> None:
        manifest = take(graph.lake, vault, ())
        path = Path(vault.uri) / "backups" / f"{manifest.backup_id}.json"
        data = path.read_bytes().replace(b'"format": 1', b'"format": 2')
        path.write_bytes(data)
        path.with_suffix(".sha256").write_text(hashlib.sha256(data).hexdigest())
        with pytest.raises(NoBackup, match="another release"):
            vault.manifest()

    def test_one_without_any_backup_is_told(self, vault: Vault) -> None:
        with pytest.raises(NoBackup, match="There is no backup"):
            vault.manifest()


class TestDagstersState:
    def test_a_database_is_copied_with_what_stands_in_its_log(self, vault: Vault, tmp_path: Path) -> None:
        path = tmp_path / "home #1 ?mode=rw" / ".dagster" / "runs.db"
        path.parent.mkdir(parents=True)
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("PRAGMA journal_mode=WAL")
            writer.execute("CREATE TABLE t (n INTEGER)")
            writer.execute("INSERT INTO t VALUES (7)")
            writer.commit()
            files = state_out(tmp_path / "home #1 ?mode=rw", [path.parent], vault)
        manifest = Manifest("1", "", "", "", 1, {}, 0, (), "sqlite", tuple(files))
        assert state_in(tmp_path / "new", vault, manifest) == 1
        with closing(sqlite3.connect(tmp_path / "new" / ".dagster" / "runs.db")) as reader:
            assert reader.execute("SELECT n FROM t").fetchall() == [(7,)]
        with pytest.raises(StateUnreadable, match="--over"):
            state_in(tmp_path / "new", vault, manifest)

    def test_runs_that_were_under_way_are_forgotten(self) -> None:
        @dg.job
        def one() -> None: ...

        with dg.DagsterInstance.ephemeral() as instance:
            for status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS):
                instance.create_run_for_job(one, status=status)
            assert forget_unfinished(instance) == 1
            assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS]


class TestCommands:
    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, list(arguments))

    @pytest.mark.slow
    @pytest.mark.usefixtures("without_dagster")
    def test_a_drill_by_commands(self, graph: Stepped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        landing, lake = graph.settings.sources[0].root, graph.settings.lake
        monkeypatch.setenv("DICOM_ASSETS_LANDING", landing)
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        assert self.run("ingest", "--lake", lake).exit_code == 0
        taken = self.run("backup", "backups", "--lake", lake, "--keep", "3")
        assert taken.exit_code == 0, taken.output
        assert "claims: 2" in taken.stdout
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        assert self.run("backup", "backups", "--verify", "--lake", lake).exit_code == 0
        back = self.run("restore", "backups", "--lake", str(tmp_path / "new"))
        assert back.exit_code == 0, back.output
        assert "Databases of Dagster's state" in back.stdout
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        assert self.run("verify", "--lake", str(tmp_path / "new")).exit_code == 0
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        again = self.run("ingest", "--lake", str(tmp_path / "new"))
        assert again.exit_code == 0, again.output
        assert len(all_books(Lake(str(tmp_path / "new")))) == 2
        assert self.run("restore", "backups", "--lake", str(tmp_path / "new")).exit_code == 2

    def test_backups_inside_the_lake_or_a_source_are_refused(
        self, graph: Stepped, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings: Settings = graph.settings
        monkeypatch.setenv("DICOM_ASSETS_LANDING", settings.sources[0].root)
        for place in (f"{settings.lake}/b", f"{settings.sources[0].root}/b"):
            done = self.run("backup", place, "--lake", settings.lake)
            assert done.exit_code == 2
            assert not Path(place).exists()
