"""A lake of real images and a server over it in a process of its own, for clients that other people wrote.

Belongs here: what lies in it, starting and ending the server. Does not belong here: the clients.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pydicom
from pydicom.data import get_testdata_file

from dicom_assets import settings as settings_module
from dicom_assets.serve.served import LOOK_SECONDS
from dicom_assets_tests.serve.storing_service import publish
from dicom_assets_tests.support.children import ended_behind

MR, CT, US = "MR_small.dcm", "CT_small.dcm", "examples_ybr_color.dcm"
"""Files of pydicom: one frame of 64 x 64, one of 128 x 128, 30 frames of 240 x 320 in JPEG."""
ZIPPED = "dicomdirtests/98892001"
"""A folder of pydicom's: two series of CT, seven images of 16 x 16, of a study that comes in an archive."""
_SETTINGS = """
lake = "lake"
[[sources]]
name = "landing"
root = "landing"
store = "by_date"
[claiming]
quiet_seconds = 0
[reading]
workers = 1
[serve]
access_log = ""
origins = [{origins}]
"""


@dataclass
class ClientLake:
    """The lake and where its server answers."""

    folder: Path
    url: str = ""

    @property
    def landing(self) -> Path:
        return self.folder / "landing"

    def ingest(self) -> None:
        """Takes what is new into the lake; a server over it knows of that when this returns."""
        with dg.DagsterInstance.ephemeral() as instance:
            publish(_settings(self.folder), instance)
        if self.url:
            time.sleep(LOOK_SECONDS + 0.1)


def _settings(folder: Path) -> settings_module.Settings:
    return settings_module.load(environment={"DICOM_ASSETS_CONFIG": str(folder / "dicom-assets.toml")})


def pydicom_file(name: str) -> Path:
    """A file that comes with pydicom."""
    return Path(str(get_testdata_file(name)))


def zipped_files() -> list[Path]:
    """The files of the study that comes in an archive."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files" / ZIPPED
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextmanager
def client_lake(folder: Path, *origins: str) -> Iterator[ClientLake]:
    """Makes the lake and serves it. origins: of pages that may ask."""
    landing = folder / "landing"
    landing.mkdir(parents=True)
    for name in (MR, CT, US):
        shutil.copy(pydicom_file(name), landing / name)
    with zipfile.ZipFile(landing / "elsewhere.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, path in enumerate(zipped_files()):
            archive.write(path, f"study/{number}.dcm")
    quoted = ", ".join(f'"{one}"' for one in origins)
    text = _SETTINGS.format(origins=quoted).replace('"lake"', f'"{folder / "lake"}"', 1)
    (folder / "dicom-assets.toml").write_text(text.replace('"landing"\nstore', f'"{landing}"\nstore'))
    one = ClientLake(folder)
    one.ingest()
    with serving(folder / "dicom-assets.toml", folder / "log") as one.url:
        yield one


@contextmanager
def serving(config: Path, log: Path) -> Iterator[str]:
    """`dicom-assets serve` with some settings, until the block ends; its address."""
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    environment["DICOM_ASSETS_CONFIG"] = str(config)
    code = "import sys; from dicom_assets.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-W", "ignore", "-c", code, "serve", "--port", "0"]
    with log.open("w") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment)
    with ended_behind(process):
        yield _address(process, log)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(600):
        found = re.search(r"answers at (http://\S+)", log.read_text())
        if found:
            return found[1].rstrip("/")
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"the server did not start: {log.read_text()[-2_000:]}")
