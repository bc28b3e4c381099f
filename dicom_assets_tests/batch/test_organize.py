"""Mode organize: what goes where, that the lake follows, and that a kill at any step loses and doubles nothing."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from starlette.testclient import TestClient

from dicom_assets.batch.books import Status
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.organize import Judged, Organizing, fit_name, plan, unfinished
from dicom_assets.batch.verification.verify import verify
from dicom_assets.curation.cohorts.export import Wish, export_cohort
from dicom_assets.curation.cohorts.selection import create_cohort
from dicom_assets.defs import runner
from dicom_assets.defs.runner import ingest
from dicom_assets.landing.file_uris import path_of
from dicom_assets.landing.folder_moves import FolderMover
from dicom_assets.landing.moves import target
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.serve.app import make_app
from dicom_assets.settings import Settings
from dicom_assets_tests.support.corrections import correction, table
from dicom_assets_tests.support.dicoms import dicom, uid, without_identity
from dicom_assets_tests.support.lakes import Graph, contents
from dicom_assets_tests.support.landings import CLINICAL_CSV, LandingFolder, zipped
from dicom_assets_tests.support.steps import Stepped, without_graph

STAMP = 1_795_161_600_000  # 2026-11-20T08:00:00Z


@pytest.fixture
def graph(stepped: Stepped) -> Stepped:
    """These tests are about what is in the tables."""
    return stepped


class TestNames:
    def test_places_say_what_it_was_whose_and_when_and_begin_with_the_stamp(self) -> None:
        folder = "Imaging/DICOM/pacs/2026/11/20"
        assert target("ingested", "dicom", "pacs", STAMP, "a/b/IM1.dcm") == f"Process/{folder}/{STAMP}_IM1.dcm"
        assert target("quarantined", "dicom", "pacs", STAMP, "IM1") == f"Failed/{folder}/{STAMP}_IM1"
        assert target("ingested", "clinical", "pacs", STAMP, "x.csv").startswith("Process/Clinical/pacs/2026/")
        assert target("ignored", "other", "pacs", STAMP, "x.txt").startswith("Process/Other/pacs/2026/")

    @pytest.mark.parametrize(
        ("name", "fit"),
        [("../../etc/passwd", "passwd"), ("C:\\x\\y.dcm", "y.dcm"), ("outer.zip!inner.dcm", "inner.dcm"), ("..", ".."),
         ("a\x00b\n.dcm", "a_b_.dcm"), ("", "object"), ("x" * 500, "x" * 120), ("影" * 99 + ".dcm", "影" * 65 + ".dcm"),
         ("caf\udce9.dcm", "caf_.dcm")],
    )  # fmt: skip
    def test_names_from_archives_are_made_fit(self, name: str, fit: str) -> None:
        assert fit_name(name) == fit


def row(name: str, member: str | None = None, container: str | None = None) -> dict[str, Any]:
    return {"object_id": name, "uri": f"file:///{container or name}", "member": member, "container_id": container}


class TestPlan:
    def steps(self, ledger: dict[str, Judged], rows: list[dict[str, Any]]) -> dict[str, str | None]:
        return {r["object_id"]: r["action"] for r in plan(rows, ledger, "s", STAMP, compress=False)}

    def test_what_was_ingested_or_quarantined_moves_and_the_rest_stays(self) -> None:
        ledger = {
            "a": Judged("ingested", "dicom", None),
            "b": Judged("quarantined", "dicom", "MISSING_IDENTITY"),
            "c": Judged("ignored", "other", "NOT_DICOM"),
            "d": Judged("ignored", "other", "SYSTEM_FILE"),
            "e": Judged("quarantined", "dicom", "OBJECT_GONE"),
            "f": Judged("quarantined", "dicom", "CHANGED_DURING_READ"),
        }
        assert self.steps(ledger, [row(name) for name in ledger]) == {
            "a": "move", "b": "move", "c": None, "d": None, "e": None, "f": None}  # fmt: skip

    @pytest.mark.parametrize(
        ("code", "archive", "members"),
        [(None, "unpack", "extract"), ("MISSING_IDENTITY", "unpack", "extract"), ("NOT_DICOM", "unpack", "extract"),
         ("ARCHIVE_MEMBER_UNSAFE", "move", None), ("ARCHIVE_ENCRYPTED", "move", None), ("SYSTEM_FILE", "move", None)],
    )  # fmt: skip
    def test_a_zip_is_unpacked_only_when_every_member_can_come_out(
        self, code: str | None, archive: str, members: str | None
    ) -> None:
        ledger = {
            "z": Judged("ignored", "archive", "ARCHIVE_EXPANDED"),
            "m": Judged("ingested", "dicom", None),
            "n": Judged("quarantined" if code else "ingested", "dicom", code),
        }
        rows = [row("z"), row("m", "m.dcm", "z"), row("n", "n.dcm", "z")]
        assert self.steps(ledger, rows) == {"z": archive, "m": members, "n": members}

    def test_a_window_of_changes_is_never_touched(self) -> None:
        ledger = {"z": Judged("ignored", "archive", "ARCHIVE_EXPANDED"), "m": Judged("ingested", "change", None)}
        assert self.steps(ledger, [row("z"), row("m", "1", "z")]) == {"z": None, "m": None}

    def test_targets_are_all_different(self) -> None:
        ledger = {str(n): Judged("ingested", "dicom", None) for n in range(50)}
        rows = [row(name) | {"uri": f"file:///{name}/IM0001"} for name in ledger]
        assert len({r["target"] for r in plan(rows, ledger, "s", STAMP, compress=False)}) == 50


def fill(landing: LandingFolder) -> None:
    """Objects of every fate, each with bytes of its own."""
    landing.put("Ingest/ct/1.dcm", dicom(1, 1, 1))
    landing.put("Ingest/other pacs/1.dcm", dicom(1, 1, 2))
    landing.put("Ingest/bad.dcm", without_identity(9))
    landing.put("Ingest/notes.txt", "nothing that is read here")
    landing.put("Ingest/.hidden", "hidden")
    landing.put("Ingest/patients.csv", CLINICAL_CSV)
    inner = zipped({"deep.dcm": dicom(2, 1, 3), "same.dcm": dicom(2, 1, 4)})
    landing.put_zip("Ingest/a.zip", {"x/same.dcm": dicom(2, 1, 1), "bad.dcm": without_identity(8), "in.zip": inner,
                                     "readme.txt": b"a text"})  # fmt: skip
    landing.put_zip("Ingest/unsafe.zip", {"../up.dcm": dicom(3, 1, 1), "ok.dcm": dicom(3, 1, 2)})
    broken = bytearray(zipped({"whole.dcm": dicom(4, 1, 1), "torn.dcm": os.urandom(100_000)}))
    broken[-200_00] ^= 0xFF  # damages what no header reading comes to
    landing.put("Ingest/broken.zip", bytes(broken))


def settings_of(root: Path, landing: Path, **source: Any) -> Settings:
    return Settings.model_validate(
        {
            "lake": str(root / "lake"),
            "sources": [{"name": "pacs", "root": str(landing), "mode": "organize", **source}],
            "gate": {"quarantined_share": 1.0},
        }
    )


def found(root: Path) -> Counter[str]:
    """How often each object's bytes are there, archives looked into; `bytes of archives` themselves are not counted."""
    counts: Counter[str] = Counter()

    def look(data: bytes) -> None:
        if data[:2] == b"PK":
            try:
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    for name in archive.namelist():
                        look(archive.read(name))
                return
            except zipfile.BadZipFile:
                pass
        counts[hashlib.sha256(data).hexdigest()] += 1

    for path in root.rglob("*"):
        if path.is_file() and not path.name.endswith(".part"):
            look(path.read_bytes())
    return counts


def below(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def every_uri_leads_to_its_object(graph: Graph) -> None:
    """Each row of raw_files that is no unpacked archive names a file that is there."""
    for one in graph.rows("SELECT r.uri, r.member, v.code FROM raw_files r JOIN validated_batch v USING (object_id)"):
        path = Path(path_of(one["uri"]))
        if one["code"] == "ARCHIVE_EXPANDED":
            continue
        assert path.is_file(), path.name
        if one["member"] and "!" not in one["member"]:
            assert one["member"] in zipfile.ZipFile(path).namelist()


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Graph, str, Path]]:
    """A batch whose books are closed and whose objects have not moved yet, as a kill leaves it; with a copy of it."""
    root = tmp_path_factory.mktemp("organize")
    (root / "state" / "landing").mkdir(parents=True)
    landing = LandingFolder(root / "state" / "landing")
    fill(landing)
    with dg.DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as patch:
        graph = Stepped(settings_of(root / "state", landing.root), instance)
        with patch.context() as inner:
            inner.setattr(Organizing, "finish", lambda self: None)
            (batch,) = graph.ingest()
        assert graph.books(batch).status == Status.CLOSED
        shutil.copytree(root / "state", root / "copy")
        yield graph, batch, root


@pytest.fixture
def fresh(closed: tuple[Graph, str, Path]) -> tuple[Graph, str, Path]:
    """The same state, restored."""
    graph, batch, root = closed
    shutil.rmtree(root / "state")
    shutil.copytree(root / "copy", root / "state")
    return graph, batch, root / "state" / "landing"


def finish(graph: Graph) -> list[str]:
    with RunContext(graph.settings) as work:
        return work.organize_left()


@pytest.mark.slow
def test_everything_comes_to_its_place_once_and_the_lake_follows(fresh: tuple[Graph, str, Path]) -> None:
    graph, batch, landing = fresh
    before = found(landing)
    identity = graph.rows("SELECT object_id, SOPInstanceUID, version_at FROM instance ORDER BY ALL")
    assert finish(graph) == [batch]
    assert found(landing) == before
    every_uri_leads_to_its_object(graph)
    left = [path for path in below(landing) if path.startswith("Ingest/")]
    assert left == ["Ingest/.hidden", "Ingest/notes.txt"]
    names = Counter(path.rsplit("_", 1)[-1] for path in below(landing) if path.startswith("Process/Imaging"))
    assert names == {"1.dcm": 2, "same.dcm": 2, "deep.dcm": 1, "unsafe.zip": 1}
    assert any(path.startswith("Process/Clinical/pacs/") for path in below(landing))
    assert any(path.startswith("Failed/Imaging/DICOM/pacs/") and path.endswith("broken.zip") for path in below(landing))
    assert graph.rows("SELECT object_id, SOPInstanceUID, version_at FROM instance ORDER BY ALL") == identity
    assert {one["uri"].startswith(landing.as_uri()) for one in graph.rows("SELECT uri FROM instance")} == {True}
    assert "Ingest" not in " ".join(one["uri"] for one in graph.rows("SELECT uri FROM instance"))
    with graph.work() as work:
        assert unfinished(work.lake.files) == []
    assert graph.claim() == []

    after = contents(graph.lake)
    assert graph.run(batch).success, "a batch that is run again reads its objects at their new places"
    assert contents(graph.lake) == after
    assert found(landing) == before


class Killed(BaseException):
    """What a kill looks like from inside."""


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_no_object_in_neither_place_and_in_the_end_one(
    closed: tuple[Graph, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after the first and the last call of each thing that moving does."""
    graph, batch, root = closed
    steps: list[tuple[str, str]] = []

    def counted(name: str, method: Any) -> Any:
        def call(self: Any, *arguments: Any) -> Any:
            step("before", name)
            result = method(self, *arguments)
            step("after", name)
            return result

        return call

    def step(*what: str) -> None:
        steps.append(what)  # type: ignore[arg-type]
        if len(steps) == kill_at:
            raise Killed

    kill_at = -1
    for name in ("copy", "write", "remove", "discard"):
        monkeypatch.setattr(FolderMover, name, counted(name, getattr(FolderMover, name)))
    monkeypatch.setattr(Organizing, "_rewrite", counted("rewrite", lambda self, done: None))
    landing = root / "state" / "landing"

    def anew() -> Counter[str]:
        shutil.rmtree(root / "state")
        shutil.copytree(root / "copy", root / "state")
        steps.clear()
        return found(landing)

    anew()
    finish(graph)
    places = {what: [number for number, one in enumerate(steps, 1) if one == what] for what in steps}
    moments = sorted({place for numbers in places.values() for place in (numbers[0], numbers[-1])})
    assert len(places) >= 8
    for moment in moments:
        before = anew()
        kill_at = moment
        with pytest.raises(Killed):
            finish(graph)
        assert set(found(landing)) == set(before), f"killed at step {moment}"
        kill_at = -1
        assert finish(graph) == [batch]
        assert found(landing) == before, f"killed at step {moment}"
        assert not [path for path in below(landing) if path.endswith(".part")]


def test_an_object_replaced_meanwhile_stays_and_is_claimed_anew(fresh: tuple[Graph, str, Path]) -> None:
    graph, _, landing = fresh
    (landing / "Ingest/ct/1.dcm").write_bytes(dicom(1, 1, 77))
    finish(graph)
    assert (landing / "Ingest/ct/1.dcm").read_bytes() == dicom(1, 1, 77)
    os.utime(landing / "Ingest/ct/1.dcm", (1, 1))
    (again,) = graph.claim()
    assert len(open_batch(graph, again)) == 1


def open_batch(graph: Graph, batch: str) -> list[str]:
    with graph.work() as work:
        found_uris: list[str] = work.log.manifest(batch)["uri"].to_pylist()
        return found_uris


def test_where_links_are_not_possible_bytes_are_copied(
    fresh: tuple[Graph, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, _, landing = fresh
    before = found(landing)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(18, "cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Organizing, "_rewrite", lambda self, done: None)
    finish(graph)
    assert found(landing) == before
    assert [path for path in below(landing) if path.startswith("Ingest/")] == ["Ingest/.hidden", "Ingest/notes.txt"]


@pytest.mark.slow
def test_an_object_that_a_correction_moves_to_another_study_is_current_at_its_new_place(
    tmp_path: Path, landing: LandingFolder
) -> None:
    landing.put("corrections.csv", table(correction("study", uid(1), StudyInstanceUID=uid(2))))
    landing.put("1.dcm", dicom(1, 1, 1))
    told = settings_of(tmp_path, landing.root).model_dump() | {"corrections": {"files": ["*.csv"]}}
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(Settings.model_validate(told), instance, judges=False)
        graph.ingest()
        (row,) = graph.rows(f"SELECT uri FROM instance WHERE StudyInstanceUID = '{uid(2)}'")
    assert Path(path_of(row["uri"])).is_file()


@pytest.mark.slow
def test_compressed_objects_are_zips_of_their_own_that_are_read_again(tmp_path: Path, landing: LandingFolder) -> None:
    landing.put("1.dcm", dicom(1, 1, 1))
    landing.put_zip("a.zip", {"2.dcm": dicom(1, 1, 2)})
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings_of(tmp_path, landing.root, compress=True), instance, judges=False)
        (batch,) = graph.ingest()
        assert {path.rsplit(".dcm", 1)[1] for path in below(landing.root)} == {".zip"}
        assert [one["member"] for one in graph.rows("SELECT member FROM instance ORDER BY ALL")] == ["1.dcm", "2.dcm"]
        every_uri_leads_to_its_object(graph)
        assert sum(found(landing.root).values()) == 2
        after = contents(graph.lake)
        assert graph.run(batch).success
        assert contents(graph.lake) == after
        assert [one.rule for one in verify(graph.lake, graph.settings).findings if not one.holds] == []
        create_cohort(graph.lake, "all", sql="FROM instance", by="me")
        exported = export_cohort(
            graph.lake, graph.settings, "all", Wish(str(tmp_path / "out"), by="me", despite_risk="of a test")
        )
        assert (exported.written, dict(exported.missing)) == (2, {})
        client = TestClient(make_app(graph.settings), base_url="http://localhost")
        address = f"/dicom-web/studies/{uid(1)}/series/{uid(1, 1)}/instances/"
        for number in (1, 2):
            answer = client.get(f"{address}{uid(1, 1, number)}", headers={"accept": "application/dicom"})
            assert answer.content == dicom(1, 1, number)


@pytest.mark.slow
@pytest.mark.usefixtures("as_far_as_hierarchy")
def test_an_archive_behind_other_bytes_is_moved_whole_with_them(tmp_path: Path, landing: LandingFolder) -> None:
    data = b"MZ" + bytes(99) + zipped({"1.dcm": dicom(1, 1, 1), "2.dcm": dicom(1, 1, 2)})
    landing.put("sfx.exe", data)
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings_of(tmp_path, landing.root), instance, judges=False)
        (batch,) = graph.ingest()
        (path,) = below(landing.root)
        assert path.startswith("Process/")
        assert (landing.root / path).read_bytes() == data
        assert [one["member"] for one in graph.rows("SELECT member FROM instance ORDER BY ALL")] == ["1.dcm", "2.dcm"]
        every_uri_leads_to_its_object(graph)
        assert graph.run(batch).success


@pytest.mark.slow
@pytest.mark.usefixtures("as_far_as_hierarchy")
def test_a_source_that_cannot_be_written_is_told_and_nothing_is_lost(
    tmp_path: Path, landing: LandingFolder, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.put("1.dcm", dicom(1, 1, 1))
    settings = settings_of(tmp_path, landing.root)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "no")

    with monkeypatch.context() as patch:
        patch.setattr(FolderMover, "_make_folder", refuse)
        ended = ingest(settings, instance)
        assert not ended.closed
        assert any("cannot be organized" in trouble and "write there" in trouble for trouble in ended.troubles)
        assert below(landing.root) == ["1.dcm"]
    without_graph(monkeypatch, runner)
    assert ingest(settings, instance).closed
    assert [path.split("/")[0] for path in below(landing.root)] == ["Process"]


@pytest.mark.slow
@pytest.mark.usefixtures("without_dagster", "as_far_as_hierarchy")
@pytest.mark.parametrize("compress", [False, True])
def test_names_of_many_long_characters_come_to_their_place(
    tmp_path: Path, landing: LandingFolder, instance: dg.DagsterInstance, compress: bool
) -> None:
    landing.put("影" * 80 + ".dcm", dicom(1, 1, 1))
    landing.put_zip("a.zip", {"影" * 100 + ".dcm": dicom(1, 1, 2), "b.dcm": dicom(1, 1, 3)})
    settings = settings_of(tmp_path, landing.root, compress=compress)
    assert ingest(settings, instance).closed
    assert [path.split("/")[0] for path in below(landing.root)] == ["Process"] * 3
    assert ingest(settings, instance).troubles == ()


@pytest.mark.slow
@pytest.mark.usefixtures("without_dagster", "as_far_as_hierarchy")
@pytest.mark.parametrize("name", ["1.dcm", "a.zip"])
def test_an_object_that_cannot_be_moved_stays_and_is_told_while_the_rest_is_moved(
    tmp_path: Path,
    landing: LandingFolder,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    landing.put("1.dcm", dicom(1, 1, 1))
    landing.put("2.dcm", dicom(1, 1, 2))
    landing.put_zip("a.zip", {"c.dcm": dicom(1, 1, 3)})
    make = FolderMover._make_folder
    unfit = {"1.dcm": ("_1.dcm",), "a.zip": ("_a.zip", "_c.dcm")}[name]

    def refuse(self: FolderMover, path: str) -> None:
        if path.endswith(unfit):
            raise OSError(36, "File name too long")
        make(self, path)

    monkeypatch.setattr(FolderMover, "_make_folder", refuse)
    graph = Stepped(settings_of(tmp_path, landing.root), instance, judges=False)
    assert ingest(graph.settings, instance).closed
    assert [path for path in below(landing.root) if not path.startswith("Process/")] == [name]
    assert graph.rows("SELECT code, detail FROM ingestion_errors WHERE stage = 'organize'") == [
        {"code": "NOT_MOVED", "detail": "File name too long"}
    ]
    every_uri_leads_to_its_object(graph)


@pytest.mark.slow
@pytest.mark.usefixtures("as_far_as_hierarchy")
def test_a_batch_that_cannot_be_moved_ends_no_later_ingest(
    tmp_path: Path, landing: LandingFolder, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.put("1.dcm", dicom(1, 1, 1))
    settings = settings_of(tmp_path, landing.root)
    link = FolderMover.copy

    def refuse(self: FolderMover, claimed: Any, path: str) -> Any:
        if path.endswith("_1.dcm"):
            raise SourceUnavailable("no")
        return link(self, claimed, path)

    monkeypatch.setattr(FolderMover, "copy", refuse)
    ingest(settings, instance)
    without_graph(monkeypatch, runner)
    landing.put("2.dcm", dicom(1, 1, 2))
    ended = ingest(settings, instance)
    assert [one.status for one in ended.books] == [Status.CLOSED]
    assert len(ended.troubles) == 1
    assert [path.split("/")[0] for path in below(landing.root)] == ["1.dcm", "Process"]
