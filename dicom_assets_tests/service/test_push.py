"""Files stored at a service, each with its own report."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pydicom.data
import pytest
from typer.testing import CliRunner

from dicom_assets.cli.main import app
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.errors import ServiceRefused, ServiceUnavailable, ServiceUnreachable
from dicom_assets.service.push import Outcome, _report, push, write_report
from dicom_assets_tests.service.feed_server import Fault, running
from dicom_assets_tests.service.service_model import metadata

FILES = Path(pydicom.data.__file__).parent / "test_files"


@pytest.fixture
def server():
    with running() as server:
        yield server


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "files"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(FILES / "CT_small.dcm", folder / "a.dcm")
    shutil.copy(FILES / "MR_small.dcm", folder / "deep" / "b")
    shutil.copy(FILES / "CT_small.dcm", folder / "z_again.dcm")
    (folder / "notes.txt").write_text("not DICOM")
    (folder / "m_cut.dcm").write_bytes((FILES / "CT_small.dcm").read_bytes()[:300])
    return folder


def pushed(server, folder) -> dict[str, tuple[str, int | None]]:
    with ServiceClient(server.settings(), sleep=lambda _: None) as client:
        reports = list(push(client, folder))
    return {Path(one.path).name: (str(one.outcome), one.reason) for one in reports}


def test_each_file_is_stored_present_failed_or_skipped(server, folder):
    found = pushed(server, folder)
    assert sorted(found) == ["a.dcm", "b", "m_cut.dcm", "notes.txt", "z_again.dcm"]
    # Which of two copies comes first is the threads' matter.
    assert sorted([found["a.dcm"], found["z_again.dcm"]], key=str) == [("present", 45070), ("stored", None)]
    assert found["b"] == ("stored", None)
    assert found["m_cut.dcm"] == ("failed", 43264)
    assert found["notes.txt"] == ("skipped", None)
    assert len(server.model.current) == 2


def test_a_server_that_is_busy_is_waited_for(server, folder):
    server.faults += [Fault(503, {"retry-after": "0"}), Fault(429)]
    assert pushed(server, folder)["b"] == ("stored", None)


def test_credentials_that_are_not_accepted_end_the_push(server, folder):
    server.before = lambda _: server.faults.append(Fault(403))
    with pytest.raises(ServiceRefused):
        pushed(server, folder)


def test_a_server_that_is_not_there_ends_the_push_without_a_second_try(server, folder):
    nobody = server.settings().model_copy(update={"url": "http://127.0.0.1:9/dicom-web"})
    pauses: list[float] = []
    with ServiceClient(nobody, sleep=pauses.append) as client, pytest.raises(ServiceUnreachable, match="refused"):
        list(push(client, folder))
    assert pauses == []


def test_a_server_that_goes_away_ends_the_push(server, folder, monkeypatch):
    with ServiceClient(server.settings(), sleep=lambda _: None) as client:
        monkeypatch.setattr(client, "reach", server.stop)  # it was there a moment ago
        with pytest.raises(ServiceUnavailable, match="no answer"):
            list(push(client, folder))


def test_warnings_and_reasons_are_said_in_words():
    item = {"00081199": {"vr": "SQ", "Value": [{"00081196": {"vr": "US", "Value": [45063]}}]}}
    warned = _report("x", 202, item)
    assert (warned.outcome, warned.reason) == (Outcome.WARNING, 45063)
    assert "SOP class" in warned.words
    assert _report("x", 415, {}).words == "the server answered 415 Unsupported Media Type"


def test_the_report_has_a_line_for_each_file(server, folder, tmp_path):
    with ServiceClient(server.settings(), sleep=lambda _: None) as client:
        reports = list(push(client, folder))
    write_report(tmp_path / "report.csv", reports)
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [one.path for one in reports]


def test_the_command_prints_counts_and_no_name_of_a_file(server, folder, tmp_path, monkeypatch):
    config = tmp_path / "dicom-assets.toml"
    config.write_text(f'[[services]]\nname = "pacs"\nurl = "{server.url}"\n')
    monkeypatch.setenv("DICOM_ASSETS_CONFIG", str(config))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["push", str(folder), "--to", "pacs"])
    assert done.exit_code == 1
    assert "2 stored" in done.output
    assert "1 present: the server has the instance already" in done.output
    assert "a.dcm" not in done.output and str(folder) not in done.output
    assert (tmp_path / "push-report.csv").is_file()
    unknown = CliRunner().invoke(app, ["push", str(folder), "--to", "nobody"])
    assert unknown.exit_code == 2
    assert "not configured" in unknown.output


def test_a_span_of_time_is_landed_by_hand_day_by_day(server, tmp_path, monkeypatch):
    for _ in range(3):
        server.model.store(metadata("1.1", "1.1.1", f"1.1.1.{server.model.sequence}"))
        server.model.advance(86_400)
    config = tmp_path / "dicom-assets.toml"
    config.write_text(
        f'[[services]]\nname = "pacs"\nurl = "{server.url}"\nlanding = "{tmp_path / "changes"}"\n'
        "[changes]\nstart = 2026-03-01T00:00:00Z\n"
    )
    monkeypatch.setenv("DICOM_ASSETS_CONFIG", str(config))
    span = ["--from", "2026-03-01T00:00:00Z", "--to", "2026-03-03T12:00:00Z"]
    done = CliRunner().invoke(app, ["changes", "pacs", *span])
    assert done.exit_code == 0, done.output
    assert "3 entries; 3 files written" in done.output
    wrong = CliRunner().invoke(app, ["changes", "pacs", "--from", span[3], "--to", span[1]])
    assert wrong.exit_code == 2
    assert "ends after it starts" in wrong.output
