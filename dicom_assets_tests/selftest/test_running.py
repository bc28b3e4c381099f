"""A self-test of what runs: `dagster dev` with its sensors on a folder, the daemon on containers of Azurite."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_assets_tests.azure import azurite
from dicom_assets_tests.azure.conftest import emulator
from dicom_assets_tests.support import commands
from dicom_assets_tests.support.commands import wait_for
from dicom_assets_tests.support.projects import Project

pytestmark = pytest.mark.slow
__all__ = ["emulator"]

CONFIG = """
{places}
[claiming]
quiet_seconds = 0
longest_wait_seconds = 0
[reading]
workers = 1
"""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A self-test is several stages, each of which a slow machine takes a minute for."""
    monkeypatch.setattr(commands, "SECONDS", 1_200.0)


def project_of(folder: Path, places: str = "") -> Project:
    project = Project.make(folder)
    (project.folder / "dicom-assets.toml").write_text(CONFIG.format(places=places))
    return project


@pytest.mark.timeout(1_500)
def test_a_folder_that_dagster_dev_watches(tmp_path: Path) -> None:
    project = project_of(tmp_path / "clone")
    project.landing.put_series(1, 1, 2)
    lake = project.folder / "data" / "lake"
    with project.ui():
        wait_for("the lake", lambda: (lake / "batches" / "_delta_log").is_dir())
        done = project.run("dicom-assets", "selftest", "--timeout", "400")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "The self-test passed." in done.stdout
        assert len(list((project.folder / "data" / "landing").rglob("*.dcm"))) == 2
        assert not list((project.folder / "data" / "landing").glob("selftest-*"))
        assert project.run("dagster", "sensor", "stop", "new_files").returncode == 0
        late = project.run("dicom-assets", "selftest", "--timeout", "1")
        assert late.returncode == 1
        assert "The sensor new_files is stopped" in late.stdout
    late = project.run("dicom-assets", "selftest", "--timeout", "1")
    assert "no sensor claimed the files within 1 s." in late.stdout
    assert project.run("dicom-assets", "verify").returncode == 0


@pytest.mark.timeout(1_500)
def test_containers_that_the_daemon_watches(emulator: dict[str, str], tmp_path: Path) -> None:
    landing, lake = azurite.new_container(), azurite.new_container()
    places = f'lake = "{lake.url}"\n[[sources]]\nname = "ct"\nroot = "{landing.url}/in"\n'
    project = project_of(tmp_path / "clone", places)
    with project.daemon() as log:
        wait_for("the lake", lambda: any(name.startswith("batches/_delta_log/") for name in lake.names()), log=log)
        done = project.run("dicom-assets", "selftest", "--landing", f"{landing.url}/in", "--timeout", "400")
        assert done.returncode == 0, done.stdout + done.stderr + log.read_text()[-2_000:]
    assert landing.names() == []
