"""A source that looks emptied: nothing of it is called gone, its batches wait, and it goes on by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_assets.batch.claim_rounds import claim_everywhere
from dicom_assets.batch.presence import confirm, doubts
from dicom_assets.cli.main import app
from dicom_assets.defs.jobs import register
from dicom_assets.defs.runner import Ended, ingest
from dicom_assets.landing.local import LocalFolder
from dicom_assets.landing.looks import SourceEmptied
from dicom_assets.settings import Settings
from dicom_assets_tests.defs.test_sensors import tick
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder

pytestmark = pytest.mark.usefixtures("without_dagster", "as_far_as_hierarchy")


def take_away(root: Path) -> Path:
    """What a mount that is away leaves: an empty folder. Where the files are meanwhile."""
    away = root.with_name(f"{root.name}-away")
    root.rename(away)
    root.mkdir()
    return away


def put_back(root: Path) -> None:
    root.rmdir()
    root.with_name(f"{root.name}-away").rename(root)


def run(graph: Graph) -> Ended:
    return ingest(graph.settings, graph.instance)


def claim(graph: Graph) -> None:
    with graph.work() as work:
        claim_everywhere(work)


def outcomes(graph: Graph) -> dict[str, int]:
    rows = graph.rows("SELECT outcome, count(*) AS n FROM validated_batch GROUP BY outcome")
    return {row["outcome"]: row["n"] for row in rows}


def said(graph: Graph) -> dict[str, str]:
    with graph.work() as work:
        return doubts(work.looks, work.looks.sources())


class TestAMountThatIsAway:
    @pytest.mark.slow
    def test_between_claim_and_reading_makes_its_batch_wait_and_goes_on_by_itself(self, graph, landing):
        landing.put_series(1, 1, 3)
        claim(graph)
        take_away(landing.root)
        ended = run(graph)
        assert not ended.closed
        assert ended.books == ()
        (sentence,) = ended.troubles
        assert "Source 'landing' looks emptied: 3 objects were found" in sentence
        assert "and 0 on" in sentence
        assert sentence.endswith("dicom-assets source confirm landing")
        assert outcomes(graph) == {}
        put_back(landing.root)
        assert run(graph).closed
        assert outcomes(graph) == {"ingested": 3}
        assert said(graph) == {}

    @pytest.mark.slow
    def test_is_told_by_the_commands_with_exit_code_1(self, tmp_path, landing, monkeypatch):
        monkeypatch.chdir(tmp_path)
        landing.put_series(1, 1, 2)
        places = ("--landing", str(landing.root), "--lake", str(tmp_path / "lake"))
        assert CliRunner().invoke(app, ["ingest", *places]).exit_code == 0
        landing.put_series(2, 1, 2)
        take_away(landing.root)
        done = CliRunner().invoke(app, ["ingest", *places])
        assert (done.exit_code, done.stdout) == (1, "")
        assert "looks emptied: 2 objects" in done.stderr
        told = CliRunner().invoke(app, ["status", "--lake", str(tmp_path / "lake")])
        assert "Source 'landing' looks emptied: 2 objects" in told.stderr
        assert "dicom-assets source confirm landing" in told.stderr
        confirmed = CliRunner().invoke(app, ["source", "confirm", "landing", *places])
        assert confirmed.exit_code == 0
        assert confirmed.stdout.startswith("Source 'landing': 0 objects now, 2 before.")
        assert "emptied" not in CliRunner().invoke(app, ["status", "--lake", str(tmp_path / "lake")]).stderr
        assert CliRunner().invoke(app, ["source", "confirm", "nosuch", *places]).exit_code == 2

    @pytest.mark.slow
    def test_after_the_claim_of_a_run_pauses_the_batch_and_the_sensor_runs_it_again(self, graph, landing):
        landing.put_series(1, 1, 3)
        (batch,) = [request.partition_key for request in tick(graph).run_requests]
        register(graph.instance, [batch])
        take_away(landing.root)
        assert not graph.run(batch).success
        books = graph.books(batch)
        assert (books.status, books.ignored, books.quarantined) == ("paused", 0, 0)
        assert "looks emptied" in books.reason
        assert graph.rows("SELECT DISTINCT code FROM ingestion_errors") == [{"code": "SOURCE_EMPTIED"}]
        with pytest.raises(Exception, match="looks emptied"):
            tick(graph)
        put_back(landing.root)
        (request,) = tick(graph).run_requests
        assert request.partition_key == batch
        assert request.run_key != batch
        assert graph.run(batch).success
        assert graph.books(batch).status == "closed"
        assert outcomes(graph) == {"ingested": 3}
        assert not tick(graph).run_requests

    @pytest.mark.slow
    def test_while_objects_are_read_calls_none_of_them_gone(self, graph, landing, monkeypatch):
        landing.put_series(1, 1, 6)
        claim(graph)
        with graph.work() as work:
            (batch,) = work.unclosed()
        register(graph.instance, [batch])
        opened = LocalFolder._open
        count = 0

        def opened_until_away(self, claimed):
            nonlocal count
            count += 1
            if count == 9:  # six were looked at, three are read
                take_away(landing.root)
            return opened(self, claimed)

        monkeypatch.setattr(LocalFolder, "_open", opened_until_away)
        assert not graph.run(batch).success
        assert graph.books(batch).status == "paused"
        assert outcomes(graph) == {}
        put_back(landing.root)
        assert graph.run(batch).success
        assert outcomes(graph) == {"ingested": 6}

    @pytest.mark.slow
    def test_keeps_no_other_source_from_being_ingested(self, tmp_path, landing, instance):
        other = LandingFolder(tmp_path / "other")
        other.put("a.dcm", dicom())
        landing.put("b.dcm", dicom(2))
        graph = Graph(settings_for(tmp_path / "lake", landing.root, other.root), instance)
        run(graph)
        other.put("c.dcm", dicom(3))
        take_away(landing.root)
        ended = run(graph)
        assert [one.status for one in ended.books] == ["closed"]
        assert len(ended.troubles) == 1

    @pytest.mark.slow
    def test_that_is_confirmed_is_empty_from_then_on(self, graph, landing):
        landing.put_series(1, 1, 3)
        claim(graph)
        take_away(landing.root)
        run(graph)
        with graph.work() as work:
            confirm(work.looks, work.settings, work.settings.source("landing"))
        assert run(graph).troubles == ()
        assert said(graph) == {}

    @pytest.mark.slow
    def test_is_noticed_by_another_file_system_although_it_holds_as_many_objects(self, graph, landing, monkeypatch):
        landing.put_series(1, 1, 3)
        run(graph)
        away = take_away(landing.root)
        landing.put_series(7, 1, 3, folder="of-the-mountpoint")
        monkeypatch.setattr(LocalFolder, "device", lambda self: 4711)
        assert "on another file system" in run(graph).troubles[0]
        shutil.rmtree(landing.root / "of-the-mountpoint")
        put_back(landing.root)
        assert not away.exists()
        assert run(graph).closed, "the same files under another number are mounted again"

    @pytest.mark.slow
    @pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting needs root: run as root")
    def test_is_noticed_with_a_real_mount(self, graph, landing, tmp_path):
        def mount(*arguments: str) -> bool:
            return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0

        if not mount("-t", "tmpfs", "none", str(landing.root)):
            pytest.skip("this sandbox mounts nothing: run where root may mount")
        try:
            landing.put_series(1, 1, 3)
            claim(graph)
            kept = tmp_path / "kept"
            kept.mkdir()
            assert mount("--bind", str(landing.root), str(kept))
            subprocess.run(["umount", str(landing.root)], check=True)
            (landing.root / "README").write_text("nothing is mounted here")
            assert "on another file system" in run(graph).troubles[0]
            assert mount("--bind", str(kept), str(landing.root))
            assert run(graph).closed
            assert outcomes(graph) == {"ingested": 3}
        finally:
            for place in (landing.root, tmp_path / "kept"):
                subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


class TestObjectsThatAreMissing:
    def put(self, landing: LandingFolder, count: int) -> list[Path]:
        return [landing.put(f"{number:03d}.txt", f"text {number}") for number in range(count)]

    def look(self, graph: Graph) -> None:
        with graph.work() as work:
            claim_everywhere(work)
            for sentence in work.looks.emptied.values():
                raise SourceEmptied(sentence)

    def test_more_than_half_of_many_are_not_believed_and_fewer_are(self, graph, landing):
        paths = self.put(landing, 40)
        self.look(graph)
        for path in paths[:20]:
            path.unlink()
        self.look(graph)
        for path in paths[20:31]:
            path.unlink()
        with pytest.raises(SourceEmptied, match=r"20 objects were found .* 9 on"):
            self.look(graph)

    def test_what_goes_bit_by_bit_is_believed_to_the_last_but_one(self, graph, landing):
        paths = self.put(landing, 40)
        self.look(graph)
        while len(paths) > 1:
            for _ in range(max(1, len(paths) // 3)):
                paths.pop().unlink()
            self.look(graph)

    def test_what_is_replaced_by_others_is_not_missing(self, graph, landing):
        paths = self.put(landing, 20)
        self.look(graph)
        for path in paths:
            path.rename(path.with_suffix(".old"))
        self.look(graph)

    def test_two_of_three_may_be_deleted_on_purpose(self, graph, landing):
        paths = self.put(landing, 3)
        self.look(graph)
        for path in paths[:2]:
            path.unlink()
        self.look(graph)

    def test_all_may_go_where_the_source_says_so(self, tmp_path, landing, instance):
        settings = settings_for(tmp_path / "lake", landing.root, claiming={"missing_share": 1.0})
        graph = Graph(settings, instance)
        for path in self.put(landing, 20):
            self.look(graph)
            path.unlink()
        self.look(graph)

    def test_other_patterns_are_no_loss(self, graph, landing, instance):
        self.put(landing, 40)
        self.look(graph)
        source = graph.settings.sources[0].model_copy(update={"exclude": ("*.txt",)})
        self.look(Graph(graph.settings.model_copy(update={"sources": (source,)}), instance))

    def test_below_a_folder_that_cannot_be_listed_nothing_is_missing(self, graph, landing, monkeypatch):
        for number in range(40):
            landing.put(f"sub/{number}.txt", f"text {number}")
        landing.put("a.txt", "text")
        self.look(graph)
        scandir = os.scandir

        def refuse(path):
            if os.fsencode(path).endswith(b"/sub"):
                raise PermissionError(13, "no")
            return scandir(path)

        monkeypatch.setattr("dicom_assets.landing.local.os.scandir", refuse)
        self.look(graph)
        monkeypatch.undo()
        self.look(graph)
        with graph.work() as work:
            assert work.looks.memory("landing").believed.objects == 41

    def test_a_listing_that_was_not_complete_says_nothing(self, tmp_path, landing, instance):
        few = settings_for(tmp_path / "lake", landing.root, claiming={"batch_objects": 1, "batches_per_tick": 2})
        graph = Graph(few, instance)
        for number in range(12):
            landing.put(f"{number:03d}/a.txt", f"text {number}")
        self.look(graph)
        with graph.work() as work:
            assert work.looks.memory("landing").believed is None


@pytest.mark.slow
def test_what_mode_organize_has_moved_is_not_missing(tmp_path, landing, instance):
    for number in range(1, 13):
        landing.put(f"in/{number}.dcm", dicom(1, 1, number))
    source = {"name": "pacs", "root": str(landing.root), "mode": "organize"}
    settings = Settings.model_validate({"lake": str(tmp_path / "lake"), "sources": [source]})
    graph = Graph(settings, instance)
    assert run(graph).closed
    assert list((landing.root / "in").iterdir()) == []
    assert run(graph).closed
    landing.put("in/new.dcm", dicom(2))
    assert run(graph).closed
    assert said(graph) == {}
