"""`deploy/azure/copy-share.sh`: a mounted file share copied into a container by AzCopy itself, into Azurite."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import generate_container_sas

from dicom_assets_tests.azure import azurite

pytestmark = pytest.mark.slow

SCRIPT = azurite.REPOSITORY / "deploy" / "azure" / "copy-share.sh"
NAMES = ["top.dcm", "Müller #1/a.dcm", "Müller #1/b.dcm", "Müller #1/deep/50%/c.dcm"]


def azcopy() -> str | None:
    """AzCopy's executable: AZCOPY, else on PATH, else of the npm package that `make node` installs."""
    nodes = Path(os.environ.get("DICOM_ASSETS_NODE_MODULES", azurite.REPOSITORY / "node_modules"))
    package = nodes / "@azure-tools" / "azcopy-linux" / "dist" / "bin" / "azcopy_linux_amd64"
    return os.environ.get("AZCOPY") or shutil.which("azcopy") or (str(package) if package.exists() else None)


@pytest.fixture(scope="module")
def needs_azcopy() -> None:
    """Skips where AzCopy is not there, or does not run."""
    found = azcopy()
    if found is None or subprocess.run([found, "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("AzCopy is not installed: run `make node`, or set AZCOPY")


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A share with files at its top and in folders whose names an address has to encode."""
    for name in NAMES:
        path = tmp_path / "share" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        # A blob says when to the second: a file as old as its blob would be copied once more.
        os.utime(path, (path.stat().st_mtime - 3_600,) * 2)
    return tmp_path / "share"


def run(share: Path, address: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "AZCOPY": azcopy() or "azcopy", "AZCOPY_LOG_LOCATION": str(home / "logs")}
    environment |= {"AZCOPY_JOB_PLAN_LOCATION": str(home / "plans"), "HOME": str(home)}
    command = ["bash", str(SCRIPT), str(share), address]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.usefixtures("needs_azcopy")
class TestIntoAContainer:
    @staticmethod
    def address(container: azurite.Container, host: str, permission: str = "rwlc") -> str:
        client = container.client
        key = client.credential.account_key
        name, account = client.container_name, str(client.account_name)
        expiry = datetime.now(UTC) + timedelta(hours=1)
        signature = generate_container_sas(account, name, account_key=key, permission=permission, expiry=expiry)
        return f"{host}/{account}/{name}?{signature}"

    def test_it_copies_every_file_under_its_name_and_the_next_time_what_is_new_or_newer(
        self, share: Path, container: azurite.Container, emulator: dict[str, str], tmp_path: Path
    ) -> None:
        with azurite.proxy(emulator["AZURITE_BLOB_STORAGE_URL"]) as proxy:
            address = self.address(container, proxy.url)
            done = run(share, address, tmp_path)
            assert done.returncode == 0, done.stderr
            assert {name: container.client.download_blob(name).readall() for name in container.names()} == {
                name: name.encode() for name in NAMES
            }
            assert "folder 1 of 1: complete" in done.stdout
            assert not any(part in done.stdout + done.stderr for part in ("Müller", ".dcm"))
            assert (tmp_path / "logs").stat().st_mode & 0o077 == 0

            proxy.seen.clear()
            changed = share / NAMES[2]
            changed.write_bytes(b"a second version")
            later = datetime.now(UTC).timestamp() + 60
            os.utime(changed, (later, later))
            (share / NAMES[1]).unlink()
            (share / "Müller #1" / "new.dcm").write_bytes(b"new")
            assert run(share, address, tmp_path).returncode == 0
            assert len([path for method, path, _ in proxy.seen if method == "PUT"]) == 2
        assert container.names() == sorted([*NAMES, "Müller #1/new.dcm"])
        assert container.client.download_blob(NAMES[2]).readall() == b"a second version"

    def test_what_the_account_refuses_is_an_exit_of_1_that_says_what_to_do(
        self, share: Path, container: azurite.Container, emulator: dict[str, str], tmp_path: Path
    ) -> None:
        done = run(share, self.address(container, emulator["AZURITE_BLOB_STORAGE_URL"], "rl"), tmp_path)
        assert done.returncode == 1
        assert "2 of 2 jobs are not complete" in done.stderr
        assert "run this again" in done.stderr
        assert "Müller" not in done.stdout + done.stderr

    def test_a_share_of_many_folders_is_one_job(
        self, container: azurite.Container, emulator: dict[str, str], tmp_path: Path
    ) -> None:
        names = [f"{number:03}/a.dcm" for number in range(101)]
        for name in names:
            (tmp_path / "share" / name).parent.mkdir(parents=True)
            (tmp_path / "share" / name).write_bytes(b"a")
        done = run(tmp_path / "share", self.address(container, emulator["AZURITE_BLOB_STORAGE_URL"]), tmp_path)
        assert (done.returncode, container.names()) == (0, names)
        assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_share_that_is_not_mounted_is_refused(tmp_path: Path, left: str) -> None:
    if left != "nothing":
        (tmp_path / "share").mkdir()
    environment = {**os.environ, "AZCOPY": "true"}
    command = ["bash", str(SCRIPT), str(tmp_path / "share"), "https://imaginglake.blob.core.windows.net/incoming"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is it mounted?" in done.stderr
