"""`make demo` ends with the one command that puts its images on the screen: it is run, and an image comes."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from dicom_assets_tests.pictures import FOLDER, HEIGHT, MOST_BYTES, PICTURES, WIDTH, take
from dicom_assets_tests.support.browser import needs_browser
from dicom_assets_tests.support.commands import clean_environment, wait_for
from dicom_assets_tests.support.pages import PAGES, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("make") is None, reason="apt-get install make")]

CT = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
"""A study of the demo."""


def script(path: Path, text: str) -> Path:
    """A program of the shell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def project(folder: Path) -> Path:
    """A folder in which `make demo` runs the code of this test, without installing anything."""
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "dagster.yaml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "data" / "queries", folder / "data" / "queries")
    code = "import sys; from dicom_assets.cli.main import main; sys.exit(main())"
    script(
        folder / ".venv/bin/dicom-assets",
        f"PYTHONPATH={shlex.quote(str(ROOT))} exec {sys.executable} -c '{code}' \"$@\"",
    )
    (folder / ".venv/installed").touch()
    return folder


def as_first_make() -> dict[str, str]:
    """The environment of a user's shell: a make within a make, as in `make test-all`, says which folder it leaves."""
    return {
        name: value for name, value in clean_environment().items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the demo was made, and the last line that it printed."""
    folder = project(tmp_path_factory.mktemp("demo") / "project")
    done = subprocess.run(
        ["make", "demo"], cwd=folder, env=as_first_make(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout.strip().splitlines()[-1]


def test_the_last_line_of_the_demo_is_a_command_that_shows_its_images_in_the_browser(made, tmp_path: Path):
    folder, line = made
    assert line == ".venv/bin/dicom-assets serve --landing data/landing --lake data/lake --open"
    opened, log = tmp_path / "opened", tmp_path / "log"
    browser = script(tmp_path / "browser", f'printf %s "$1" > {shlex.quote(str(opened))}')
    with log.open("wb") as sink:
        served = subprocess.Popen(
            [*shlex.split(line), "--port", "0"],
            cwd=folder,
            env=clean_environment(BROWSER=f"{browser} %s"),
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
        try:
            wait_for("the browser", lambda: opened.exists() and opened.stat().st_size > 0, 90, log)
            address = opened.read_text()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address) and f"Its pages: {address}" in log.read_text()
            page = httpx.get(address, headers={"Accept": "text/html"}, timeout=60)
            assert page.status_code == 200 and "CompressedSamples" in page.text
            drawn = httpx.get(f"{address}dicom-web/studies/{CT}/thumbnail", timeout=60)
            assert np.asarray(Image.open(io.BytesIO(drawn.content)).convert("L"), float).std() > 10
        finally:
            os.killpg(served.pid, signal.SIGKILL)
            served.wait(30)


@needs_browser
def test_every_picture_of_the_pages_can_be_made_anew_is_small_and_stands_on_a_page(made, tmp_path: Path):
    folder, _ = made
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for path in take(folder, tmp_path / "pictures"):
        assert path.stat().st_size <= MOST_BYTES
        found = np.asarray(Image.open(path).convert("L"), float)
        assert found.shape == (HEIGHT, WIDTH) and found.std() > 10
        kept = FOLDER / path.name
        assert kept.stat().st_size <= MOST_BYTES and Image.open(kept).size == (WIDTH, HEIGHT)
        assert f"pictures/{path.name}" in pages, path.name
    made_now = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert made_now >= {f"{one.name}.png" for one in PICTURES if not one.is_extra}
    assert {path.name for path in FOLDER.iterdir()} <= {f"{one.name}.png" for one in PICTURES}
