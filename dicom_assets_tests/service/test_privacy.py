"""Nothing that Dagster keeps of a service, its windows, its failures and its audits says who a patient is."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from dicom_assets.cli.main import app
from dicom_assets.defs.assets import dicom_changes as module
from dicom_assets.defs.graph import build_defs
from dicom_assets.settings import Settings
from dicom_assets_tests.service.feed_server import Fault, running
from dicom_assets_tests.service.service_model import ServiceModel, metadata
from dicom_assets_tests.support.lakes import QUIET, Graph

pytestmark = pytest.mark.slow

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
SILENT = {"telemetry": {"enabled": False}, "nux": {"enabled": False}}
UID = "1.2.826.0.1.3680043.8.498.77441122"
SECRETS = (UID, "Quisling", "QUISLING", "MRN-778899", "ACC-445566", "19610417", "top-secret")


def patient(number: int) -> dict:
    found = metadata(
        UID,
        f"{UID}.1",
        f"{UID}.1.{number}",
        PatientID="MRN-778899",
        AccessionNumber="ACC-445566",
        PatientBirthDate="19610417",
        StudyDescription="of Quisling, see 19610417",
    )
    found["00100010"] = {"vr": "PN", "Value": [{"Alphabetic": "Quisling^Vera"}]}
    return found


def held(folder: Path) -> list[str]:
    """Which of the secrets stand in a file below a folder, or in its name."""
    found = []
    for path in folder.rglob("*"):
        text = path.read_bytes() if path.is_file() else b""
        found += [f"{secret} in {path.name}" for secret in SECRETS if secret.encode() in text or secret in str(path)]
    return found


def test_dagsters_state_logs_and_the_commands_output_hold_no_patient(tmp_path, monkeypatch, capfd, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "ONCE_MORE", None)
    monkeypatch.setenv("PACS_TOKEN", "top-secret")
    said = f'{{"message": "Study {UID} of QUISLING^VERA, also Quisling, born 19610417, is not valid."}}'.encode()
    home = tmp_path / "home"
    home.mkdir()
    with running(ServiceModel.at(START)) as server, dg.DagsterInstance.local_temp(str(home), SILENT) as instance:
        for number in range(3):
            server.model.store(patient(number))
        service = server.settings(landing=str(tmp_path / "changes"), auth="bearer", token_variable="PACS_TOKEN")
        settings = Settings.model_validate(
            {
                "lake": str(tmp_path / "lake"),
                "services": [service.model_dump()],
                "changes": {"start": START},
                "claiming": {"quiet_seconds": 0},
                "reading": {"workers": 1},
            }
        )

        def run(job: str, key: str | None = None) -> bool:
            definition = build_defs(settings).resolve_job_def(job)
            return definition.execute_in_process(
                partition_key=key, instance=instance, raise_on_error=False, run_config=QUIET
            ).success

        for fault in (
            Fault(400, {"content-type": "application/json"}, said),
            Fault(500, {}, said),
            Fault(403, {}, said),
        ):
            server.before = lambda _, fault=fault: server.faults.append(fault)
            monkeypatch.setattr("dicom_assets.service.client._FIRST_WAIT", 0.0)
            assert not run("sync_dicom_changes", "2026-03-01-08:00")
            assert not run("audit_dicom_services")
        server.before = lambda _: None
        server.faults.clear()
        assert run("sync_dicom_changes", "2026-03-01-08:00")
        graph = Graph(settings, instance)
        (batch,) = graph.ingest()
        assert graph.books(batch).ingested == 3
        server.model.advance(-3_600)
        server.model.store(patient(4))
        assert run("audit_dicom_services")
        config = tmp_path / "dicom-assets.toml"
        config.write_text(
            f'lake = "{settings.lake}"\n[[services]]\nname = "pacs"\nurl = "{server.url}"\n'
            f'landing = "{service.landing}"\nauth = "bearer"\ntoken_variable = "PACS_TOKEN"\n'
        )
        monkeypatch.setenv("DICOM_ASSETS_CONFIG", str(config))
        printed = [CliRunner().invoke(app, [command, "pacs"]) for command in ("audit", "repair")]
        assert [one.exit_code for one in printed] == [1, 0]
    assert held(home) == []
    out, err = capfd.readouterr()
    words = out + err + caplog.text + "".join(one.output for one in printed)
    assert [secret for secret in SECRETS if secret in words] == []
    assert len(list((tmp_path / "changes" / "repairs").iterdir())) == 1


@pytest.mark.parametrize("secret", SECRETS[:3])
def test_the_search_finds_what_is_there(tmp_path, secret):
    (tmp_path / "log").write_text(f"before {secret} after")
    assert held(tmp_path)
