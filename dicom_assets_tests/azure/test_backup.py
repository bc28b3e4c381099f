"""A restore drill between containers of Azurite: taken, verified, put back under another address."""

from __future__ import annotations

import dagster as dg
import pytest
from typer.testing import CliRunner

from dicom_assets.batch.backup.agreement import Agreement
from dicom_assets.batch.backup.copy_in import RestoreRefused, put_back
from dicom_assets.batch.backup.copy_out import take
from dicom_assets.batch.backup.vault import Vault
from dicom_assets.batch.verification.verify import verify
from dicom_assets.cli.main import app
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeFiles
from dicom_assets_tests.azure.azurite import Container, new_container
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import contents
from dicom_assets_tests.support.steps import Stepped, step_through

pytestmark = pytest.mark.slow


def test_a_lake_in_a_container_comes_back_in_another(container: Container) -> None:
    landing, backups, other = container, new_container(), new_container()
    for number in range(1, 3):
        landing.put(f"in/{number}.dcm", dicom(1, 1, number))
    settings = Settings.model_validate(
        {
            "lake": f"{landing.url}/lake",
            "sources": [{"name": "landing", "root": f"{landing.url}/in"}],
            "claiming": {"quiet_seconds": 0},
        }
    )
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings, instance, judges=False)
        assert len(step_through(graph, judges=False)) == 1
        vault = Vault(LakeFiles(backups.url))
        manifest = take(graph.lake, vault, ())
        assert vault.faults(manifest) == []
        there = backups.names()
        take(graph.lake, Vault(LakeFiles(backups.url)), ())
        assert len(backups.names()) == len(there) + 2  # nothing new but a manifest and its digest
        drill = Stepped(settings.model_copy(update={"lake": f"{other.url}/drill"}), instance, judges=False)
        assert put_back(vault, manifest, drill.settings) == Agreement()
        assert contents(drill.lake) == contents(graph.lake)
        assert all(one.holds for one in verify(drill.lake, drill.settings).findings)
        assert step_through(drill, judges=False) == []
        with pytest.raises(RestoreRefused):
            put_back(vault, manifest, drill.settings)
    done = CliRunner().invoke(app, ["backup", backups.url, "--verify", "--lake", settings.lake])
    assert done.exit_code == 0, done.output
