"""Landing and ingest killed for real, between any two writes: the next ones end in what the service holds."""

from __future__ import annotations

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dicom_assets.batch.books import all_books
from dicom_assets.cli.main import app
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect
from dicom_assets_tests.service.feed_server import running
from dicom_assets_tests.service.service_model import DEFAULT, metadata
from dicom_assets_tests.support.commands import command
from dicom_assets_tests.support.crashing import STATUS
from dicom_assets_tests.support.projects import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_dagster", "as_far_as_hierarchy")]
"""What is killed is the whole program, with its graph; what comes next is not about that."""

SPAN = ("--from", "2026-03-01T08:00:00Z", "--to", "2026-03-01T12:00:00Z")


def test_a_landing_and_an_ingest_that_were_killed_are_finished_by_the_next_ones(tmp_path, monkeypatch):
    with running() as server:
        for number in range(20):
            server.model.store(metadata(f"1.{number % 2}", f"1.{number % 2}.1", f"1.{number % 2}.1.{number}"))
        for number in (4, 5):
            server.model.delete((DEFAULT, f"1.{number % 2}", f"1.{number % 2}.1", f"1.{number % 2}.1.{number}"))
        config = tmp_path / "dicom-assets.toml"
        config.write_text(
            f'lake = "{tmp_path / "lake"}"\n[claiming]\nquiet_seconds = 0\n[reading]\nworkers = 1\n'
            f'[[services]]\nname = "pacs"\nurl = "{server.url}"\nlanding = "{tmp_path / "changes"}"\n'
        )

        monkeypatch.setenv("DICOM_ASSETS_CONFIG", str(config))
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))

        def killed(place: str, method: str, call: int, *arguments: str) -> bool:
            """Whether a command of its own was killed at that call of a method."""
            program = ["python", "-m", "dicom_assets_tests.support.crashing", place, method, str(call)]
            return command(*program, *arguments, cwd=tmp_path, environment=environment).returncode == STATUS

        def run(*arguments: str) -> Result:
            return CliRunner().invoke(app, arguments)

        environment = {"PYTHONPATH": str(REPOSITORY), "DICOM_ASSETS_CONFIG": str(config)}
        assert killed("storage.files:LakeFiles", "put", 1, "changes", "pacs", *SPAN)
        assert run("changes", "pacs", *SPAN).exit_code == 0
        assert killed("lake.delta:Lake", "replace", 6, "ingest")
        # Another change while the batch lies half done: its window is read again before the batch is finished.
        server.model.delete(next(iter(server.model.current)))
        assert run("changes", "pacs", *SPAN).exit_code == 0
        first = run("ingest")
        assert first.exit_code in (0, 1), first.output
        lake = Lake(str(tmp_path / "lake"))
        with connect(lake, ["instance"]) as connection:
            held = connection.execute("SELECT SOPInstanceUID FROM instance").fetchall()
        assert {uid for (uid,) in held} == {key[3] for key in server.model.current}
        assert all(books.balance == 0 for books in all_books(lake) if books.status == "closed")
        assert any(books.status == "closed" for books in all_books(lake))
