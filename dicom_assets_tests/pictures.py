"""The pictures of README and docs, made from the demo's own data: `python -m dicom_assets_tests.pictures [NAME …]`.

Belongs here: which pages are pictured, and how. Does not belong here: what the pages have to show (`catalogue/`).

Sizes and times in them change with each making; what is compared by the test is that each can be made, shows something,
and is shown somewhere.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dicom_assets.settings import Settings
from dicom_assets_tests.serve.serving import START, serving
from dicom_assets_tests.support.browser import chromium
from dicom_assets_tests.support.commands import clean_environment
from dicom_assets_tests.support.dicoms import without_identity
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.pages import ROOT

FOLDER = ROOT / "docs" / "pictures"
WIDTH, HEIGHT = 1200, 760
MOST_BYTES = 150_000
_COLOURS = 128
_PATIENCE = 90_000

CT, CT_SERIES = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322", "1.3.6.1.4.1.5962.1.3.1.1.20040119072730.12322"
"""A study of the demo, and its series."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture. is_extra: of a page that is there only where something more is installed.

    drawn: JavaScript that holds once the page shows what it is to show, beside its images. clicks: what is clicked
    then, where it is there, such as what lies over a page at first.
    """

    name: str
    path: str
    drawn: str = "true"
    is_extra: bool = False
    clicks: tuple[str, ...] = ()


PICTURES = (
    Picture("studies", "/"),
    Picture("study", f"/studies/{CT}"),
    Picture("batches", "/batches"),
    Picture("overview", "/overview"),
    Picture(
        "viewer",
        f"/view/{CT}/{CT_SERIES}",
        "document.querySelector('canvas')?.width > 1",
    ),
    Picture(
        "ohif",
        f"/ohif/viewer?StudyInstanceUIDs={CT}",
        "window.cornerstone?.getEnabledElements()[0]?.viewport?.getCornerstoneImage?.() !== undefined",
        is_extra=True,
        clicks=("Skip all", "Confirm and hide"),
    ),
)

_IMAGES = "[...document.images].every((one) => one.complete && one.naturalWidth > 0 || one.offsetParent === null)"


def demo(folder: Path) -> Settings:
    """The demo's lake in a folder, made where it is not there yet, with a batch that waits for a person."""
    landing = folder / "data" / "landing"
    if not (folder / "data" / "lake").is_dir():
        _command(folder, "demo", str(landing))
        _command(folder, "ingest")
    waiting = LandingFolder(landing / "from-a-new-scanner")
    for number in range(12):
        waiting.put(f"{number}.dcm", without_identity(number))
    _command(folder, "ingest", ends_with=1)
    sources = ({"name": "landing", "root": str(landing)},)
    return Settings.model_validate({"lake": str(folder / "data" / "lake"), "sources": sources})


def _command(folder: Path, *words: str, ends_with: int = 0) -> None:
    done = subprocess.run(
        [*START, *words], cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == ends_with, done.stderr


def take(folder: Path, into: Path, names: Collection[str] = ()) -> Iterator[Path]:
    """Makes pictures over the demo in a folder, and tells each of them; an extra one only where its page is.

    names: those that are made; all without any.
    """
    into.mkdir(parents=True, exist_ok=True)
    with serving(demo(folder), folder / "server", by_file=True) as server, chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.set_default_timeout(_PATIENCE)
        for picture in (one for one in PICTURES if not names or one.name in names):
            answer = page.goto(server.url + picture.path, wait_until="networkidle")
            if picture.is_extra and (answer is None or answer.status >= 400):
                continue
            assert answer is not None and answer.ok, f"{picture.path}: {answer and answer.status}"
            page.wait_for_function(f"() => ({_IMAGES}) && ({picture.drawn})")
            for text in picture.clicks:
                _click(page, text)
            path = into / f"{picture.name}.png"
            path.write_bytes(_small(page.screenshot()))
            yield path


def _click(page: Any, text: str) -> None:
    found = page.get_by_text(text, exact=True)
    if found.is_visible():
        found.click()
        found.wait_for(state="hidden")


def _small(data: bytes) -> bytes:
    """A picture with few colours, which pages have anyway."""
    sink = io.BytesIO()
    found: Any = Image.open(io.BytesIO(data)).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    found.save(sink, "PNG", optimize=True)
    return sink.getvalue()


def main() -> None:
    """Makes the pictures anew where they lie."""
    with tempfile.TemporaryDirectory() as folder:
        for path in take(Path(folder), FOLDER, sys.argv[1:]):
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
