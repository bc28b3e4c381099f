"""`source test`: each right is tried, what is missing is named, nothing is left behind, and no object is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from dicom_assets.batch.reach.rights import all_ok, try_places
from dicom_assets.batch.reach.trial import Result, Step
from dicom_assets.batch.verification.file_rules import opened as looked_at
from dicom_assets.cli.main import app
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import existing, readable
from dicom_assets.settings import Settings, SettingsError
from dicom_assets.storage.files import LakeError
from dicom_assets_tests.service import feed_server
from dicom_assets_tests.service.service_model import ServiceModel
from dicom_assets_tests.support.commands import free_port

NOBODY = 65_534
CANARY = "Musterfrau"


def settings(lake: Path, *sources: dict[str, Any], services: tuple[dict[str, Any], ...] = ()) -> Settings:
    return Settings.model_validate({"lake": str(lake), "sources": sources, "services": services})


def outcomes(steps: list[Step], subject: str = "source ct") -> dict[str, Result]:
    return {step.name: step.result for step in steps if step.subject == subject}


def detail(steps: list[Step], name: str, subject: str = "source ct") -> str:
    return next(step.detail for step in steps if (step.subject, step.name) == (subject, name))


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextmanager
def unprivileged() -> Iterator[None]:
    """The rights of somebody who may nothing; root, who may everything, gives them up for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    (folder / CANARY).mkdir(parents=True)
    (folder / CANARY / f"{CANARY}.dcm").write_bytes(b"x" * 200)
    return folder


class TestFolders:
    def test_a_folder_that_may_be_read_is_reached_listed_and_read(self, tmp_path: Path, landing: Path) -> None:
        steps = try_places(settings(tmp_path / "lake", {"name": "ct", "root": str(landing)}), "ct")
        assert outcomes(steps) == dict.fromkeys(("reach", "list", "read"), Result.OK)
        assert outcomes(steps, "lake") == dict.fromkeys(("reach", "write", "lock"), Result.OK)
        assert all(step.seconds is not None for step in steps)

    def test_no_object_and_no_folder_is_named(self, tmp_path: Path, landing: Path) -> None:
        source = {"name": "ct", "root": str(landing), "mode": "organize"}
        for step in try_places(settings(tmp_path / "lake", source), None):
            assert CANARY not in step.detail

    def test_a_missing_folder_fails_and_the_rest_is_not_tried(self, tmp_path: Path) -> None:
        steps = try_places(settings(tmp_path / "lake", {"name": "ct", "root": str(tmp_path / "gone")}), "ct")
        assert outcomes(steps) == {"reach": Result.FAILS, "list": Result.NOT_TRIED, "read": Result.NOT_TRIED}
        assert not all_ok(steps)

    def test_a_folder_that_may_not_be_read_says_so(self, tmp_path: Path, landing: Path) -> None:
        landing.chmod(0)
        try:
            with unprivileged():
                steps = try_places(settings(tmp_path / "lake", {"name": "ct", "root": str(landing)}), "ct")
        finally:
            landing.chmod(0o755)
        failed = [step for step in steps if step.subject == "source ct" and step.result is Result.FAILS]
        assert failed and "Permission denied" in failed[0].detail
        assert "read and enter" in failed[0].detail

    def test_a_folder_below_that_cannot_be_listed_is_counted(
        self, tmp_path: Path, landing: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.scandir

        def refusing(path: Any) -> Any:
            if os.fsencode(path).endswith(CANARY.encode()):
                raise PermissionError(13, "Permission denied", path)
            return real(path)

        monkeypatch.setattr(os, "scandir", refusing)
        steps = try_places(settings(tmp_path / "lake", {"name": "ct", "root": str(landing)}), "ct")
        assert outcomes(steps)["list"] is Result.FAILS
        assert "1 folders" in detail(steps, "list")

    @pytest.mark.parametrize(
        "more", [{"mode": "organize"}, {"store": "by_date"}, {"mode": "organize", "store": "tree"}]
    )
    def test_a_source_that_is_written_to_is_written_to_and_is_as_it_was(
        self, tmp_path: Path, landing: Path, more: dict[str, str]
    ) -> None:
        before = everything(tmp_path)
        steps = try_places(settings(tmp_path / "lake", {"name": "ct", "root": str(landing), **more}), "ct")
        assert outcomes(steps)["write"] is Result.OK
        assert ("move" in outcomes(steps)) == (more.get("mode") == "organize")
        assert everything(tmp_path) == before

    def test_a_source_that_may_not_be_written_to_says_so(
        self, tmp_path: Path, landing: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        source = {"name": "ct", "root": str(landing), "mode": "organize"}
        steps = try_places(settings(tmp_path / "lake", source), "ct")
        assert (outcomes(steps)["write"], outcomes(steps)["move"]) == (Result.FAILS, Result.FAILS)
        assert "write there" in detail(steps, "write")
        assert outcomes(steps, "lake")["write"] is Result.FAILS

    def test_a_lake_that_is_there_is_written_to_and_is_as_it_was(self, tmp_path: Path, landing: Path) -> None:
        (tmp_path / "lake").mkdir()
        steps = try_places(settings(tmp_path / "lake", {"name": "ct", "root": str(landing)}), "ct")
        assert "written" in detail(steps, "write", "lake")
        assert everything(tmp_path / "lake") == []


class TestServices:
    @pytest.fixture
    def service(self, tmp_path: Path) -> Iterator[tuple[feed_server.FeedServer, Settings]]:
        with feed_server.running() as server:
            told = server.settings(landing=str(tmp_path / "windows"), auth="bearer", token_variable="PACS_TOKEN")
            yield server, settings(tmp_path / "lake", services=(told.model_dump(),))

    def test_one_that_answers_is_asked_for_changes_a_search_and_an_instance(
        self, service: tuple[feed_server.FeedServer, Settings], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server, known = service
        assert isinstance(server.model, ServiceModel)
        monkeypatch.setenv("PACS_TOKEN", "t")
        steps = try_places(known, "pacs")
        names = ("service: reach", "service: sign in", "service: changes")
        assert {name: outcomes(steps, "source pacs")[name] for name in names} == dict.fromkeys(names, Result.OK)
        assert outcomes(steps, "source pacs")["write"] is Result.OK  # where its windows are landed

    def test_one_that_wants_a_token_and_gets_none_names_the_variable(
        self, service: tuple[feed_server.FeedServer, Settings], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PACS_TOKEN", raising=False)
        steps = try_places(service[1], "pacs")
        assert outcomes(steps, "source pacs")["service: reach"] is Result.OK
        assert outcomes(steps, "source pacs")["service: sign in"] is Result.FAILS
        assert "PACS_TOKEN" in detail(steps, "service: sign in", "source pacs")
        assert outcomes(steps, "source pacs")["service: list"] is Result.NOT_TRIED

    def test_one_that_refuses_the_token_names_the_role(
        self, service: tuple[feed_server.FeedServer, Settings], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server, known = service
        server.tokens = {"other": 1e12}
        monkeypatch.setenv("PACS_TOKEN", "secret-token")
        steps = try_places(known, "pacs")
        assert outcomes(steps, "source pacs")["service: changes"] is Result.FAILS
        assert "DICOM Data Reader" in detail(steps, "service: changes", "source pacs")
        assert not any("secret-token" in step.detail for step in steps)

    def test_one_that_is_dead_fails_at_once(self, tmp_path: Path) -> None:
        dead = {"name": "pacs", "url": f"http://127.0.0.1:{free_port()}", "landing": str(tmp_path / "windows")}
        steps = try_places(settings(tmp_path / "lake", services=(dead,)), "pacs")
        assert "nobody listens" in detail(steps, "service: reach", "source pacs")
        assert outcomes(steps, "source pacs")["service: changes"] is Result.NOT_TRIED
        assert sum(step.seconds or 0 for step in steps) < 30


class TestLakeThatMayNotBeRead:
    """Its files are there: nothing is called missing or torn, which would let `verify --fix` take them out."""

    @pytest.fixture(scope="class")
    def lake(self) -> Iterator[Path]:
        with TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            lake = Path(folder) / "lake"
            Lake(str(lake))
            write_deltalake(lake / "batch_study", pa.table({"batch_id": ["b"], "study_key": ["k"]}), mode="append")
            for path in (lake, *lake.rglob("*")):
                path.chmod(0o755)
            yield lake

    @contextmanager
    def closed(self, path: Path) -> Iterator[None]:
        path.chmod(0)
        try:
            with unprivileged(), pytest.raises(LakeError, match=r"Let .* read"):
                yield
        finally:
            path.chmod(0o755)

    def test_its_folder(self, lake: Path) -> None:
        with self.closed(lake):
            existing(str(lake))

    def test_the_log_of_a_table(self, lake: Path) -> None:
        with self.closed(lake / "batch_study" / "_delta_log"):
            existing(str(lake)).extents("batch_study")

    def test_a_data_file(self, lake: Path) -> None:
        (file,) = (lake / "batch_study").glob("*.parquet")
        with self.closed(file):
            looked_at(existing(str(lake)))
        with self.closed(file), readable("batch_study"):
            duckdb.sql(f"FROM read_parquet('{file}')")


class TestCommand:
    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, ["source", "test", *arguments])

    def test_lines_and_exit_codes(self, tmp_path: Path, landing: Path) -> None:
        lake = str(tmp_path / "lake")
        good = self.run("--landing", str(landing), "--lake", lake)
        assert good.exit_code == 0, good.output
        assert [line.split()[2] for line in good.stdout.splitlines()] == ["reach", "list", "read"] + ["ok"] * 3
        shutil.rmtree(landing)
        bad = self.run("landing", "--landing", str(landing), "--lake", lake)
        assert bad.exit_code == 1
        assert "FAILS" in bad.stdout and "not tried" in bad.stdout

    def test_json_has_the_same(self, tmp_path: Path, landing: Path) -> None:
        done = self.run("--landing", str(landing), "--lake", str(tmp_path / "lake"), "-f", "json")
        rows = json.loads(done.stdout)
        assert [row["step"] for row in rows] == ["reach", "list", "read", "reach", "write", "lock"]
        assert {row["result"] for row in rows} == {"ok"}

    def test_a_name_that_is_not_configured_is_wrong_input(self, tmp_path: Path, landing: Path) -> None:
        done = self.run("nobody", "--landing", str(landing), "--lake", str(tmp_path / "lake"))
        assert done.exit_code == 2

    def test_what_is_set_wrong_is_said_before_anything_is_tried(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError):
            try_places(settings(tmp_path / "lake", {"name": "ct", "root": "s3://bucket"}), None)
