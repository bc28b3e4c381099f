"""OHIF, as it is published, in a browser: it lists, filters and draws what the lake has."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from dicom_assets_tests.serve import ohif
from dicom_assets_tests.serve.client_lake import CT, US, client_lake, pydicom_file, zipped_files
from dicom_assets_tests.support.browser import PATIENCE, SHOTS, chromium, needs_browser, shot
from dicom_assets_tests.support.commands import free_port

NAMES = ["PLA", "CompressedSamples, MR1", "CompressedSamples, CT1", "Doe, Peter"]
"""The studies as the viewer lists them, the newest first."""

_DRAWN = """() => {
    const viewport = window.cornerstone?.getEnabledElements()[0]?.viewport;
    const image = viewport?.getCornerstoneImage?.();
    const id = viewport?.getCurrentImageId?.();
    if (!image || !id) return null;
    return {
        uid: id.match(/instances\\/([0-9.]+)/)[1],
        shape: [image.rows, image.columns, image.numberOfComponents ?? 1],
        frames: viewport.getImageIds().length,
        at: viewport.getCurrentImageIdIndex(),
        values: Array.from(image.voxelManager.getScalarData()),
    };
}"""

_LISTED = """() => [...document.querySelectorAll("tbody tr")]
    .map((row) => [...row.children].map((cell) => cell.innerText.trim()))
    .filter((cells) => cells.length > 2 && /^[A-Z]{2}$/.test(cells[2]))
    .map((cells) => cells[0])
"""

pytestmark = [
    pytest.mark.slow,
    needs_browser,
    pytest.mark.skipif(not ohif.PAGES.is_dir(), reason=ohif.HOW),
]


class Viewer:
    """The viewer in a browser. asked: paths and queries that it has sent to the server since `forget`."""

    def __init__(self, page: Any, address: str, url: str) -> None:
        self.page, self.address = page, address
        self.asked: list[str] = []
        self.failed: list[tuple[int, str]] = []
        page.on("response", self._note)
        self._url = url

    def _note(self, answer: Any) -> None:
        if answer.url.startswith(self._url):
            self.asked.append(answer.url.removeprefix(self._url))
            if answer.status >= 400:
                self.failed.append((answer.status, answer.url))

    def open_list(self, query: str = "") -> None:
        self.asked = []
        self.page.goto(f"{self.address}/{query}")

    def rows(self, expected: int) -> list[str]:
        """Names in the list, once it has so many."""
        self.page.wait_for_function(f"({_LISTED})().length === {expected}", timeout=PATIENCE)
        return list(self.page.evaluate(_LISTED))

    def draw(self, study: str) -> dict[str, Any]:
        """Opens a study; what is drawn of it, once it is."""
        self.page.goto(f"{self.address}/viewer?StudyInstanceUIDs={study}")
        self.page.wait_for_function(f"({_DRAWN})() !== null", timeout=PATIENCE)
        tour = self.page.get_by_text("Skip all")
        if tour.is_visible():
            tour.click()
        self.page.wait_for_load_state("networkidle")
        return self.drawn()

    def drawn(self) -> dict[str, Any]:
        found = self.page.evaluate(_DRAWN)
        shape = [one for one in found["shape"] if one != 1 or found["shape"].index(one) < 2]
        found["values"] = np.array(found["values"]).reshape(shape)
        return found

    def contrast(self, name: str, above: float) -> float:
        """How much light and dark the largest canvas has, 0 for a black one; waits until it is above a bound."""
        until = time.monotonic() + PATIENCE / 1_000
        while (found := self._contrast_now(name)) <= above and time.monotonic() < until:
            self.page.wait_for_timeout(250)
        return found

    def _contrast_now(self, name: str) -> float:
        drawn = self.page.locator("canvas").first.screenshot(path=SHOTS and Path(SHOTS) / f"{name}.png")
        return float(np.asarray(Image.open(io.BytesIO(drawn)).convert("L"), float).std())


@pytest.fixture(scope="module")
def viewer(tmp_path_factory) -> Iterator[Viewer]:
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    with (
        client_lake(tmp_path_factory.mktemp("viewer"), origin) as here,
        ohif.pages(port, here.url) as address,
        chromium() as browser,
    ):
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(PATIENCE)
        yield Viewer(page, address, here.url)


def study_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)


def stored_values(path: Path) -> np.ndarray:
    """What a viewer shows of an image: its pixels by pydicom, with the rescale of the modality (PS3.3 C.11.1)."""
    found = pydicom.dcmread(path)
    return found.pixel_array * float(found.get("RescaleSlope", 1)) + float(found.get("RescaleIntercept", 0))


def test_the_studies_are_listed(viewer):
    viewer.open_list()
    assert viewer.rows(4) == NAMES
    shot(viewer.page, "list")
    assert viewer.failed == []


@pytest.mark.parametrize(
    ("query", "sent", "names"),
    [
        ("?patientName=oe", "PatientName=*oe*", ["Doe, Peter"]),
        ("?mrn=77", "00100020=*77*", []),
        ("?mrn=4MR", "00100020=*4MR*", ["CompressedSamples, MR1"]),
        ("?description=e%2B1", "StudyDescription=*e%2B1*", ["CompressedSamples, CT1"]),
        ("?accession=2", "AccessionNumber=*2*", ["Doe, Peter"]),
        ("?modalities=MR,US", "ModalitiesInStudy=MR", ["PLA", "CompressedSamples, MR1"]),
        ("?startDate=20010101&endDate=20031231", "StudyDate=20010101-20031231", ["Doe, Peter"]),
    ],
    ids=["name", "no such id", "id", "description", "accession number", "modalities", "dates"],
)
def test_each_filter_of_the_list_finds_what_it_says(viewer, query, sent, names):
    viewer.open_list(query)
    if not names:
        viewer.page.wait_for_load_state("networkidle")
    assert viewer.rows(len(names)) == names
    assert any(sent in one for one in viewer.asked), viewer.asked
    assert viewer.failed == []


def test_what_is_typed_into_the_list_filters_it(viewer):
    viewer.open_list()
    viewer.rows(4)
    viewer.page.locator("input").first.fill("pla")
    assert viewer.rows(1) == ["PLA"]


def test_an_image_is_drawn_with_the_values_that_pydicom_reads(viewer):
    drawn = viewer.draw(study_of(pydicom_file(CT)))
    assert drawn["uid"] == pydicom.dcmread(pydicom_file(CT)).SOPInstanceUID
    assert np.array_equal(drawn["values"], stored_values(pydicom_file(CT)))
    assert viewer.contrast("CT", 10) > 10 and viewer.failed == []


def test_frames_of_a_multi_frame_ultrasound_are_drawn(viewer):
    path = pydicom_file(US)
    drawn = viewer.draw(study_of(path))
    assert (drawn["frames"], drawn["shape"][:2]) == (30, [240, 320])
    assert viewer.contrast("US-first", 10) > 10
    wanted = pydicom.dcmread(path).pixel_array
    for number in (0, 29):
        viewer.page.evaluate(f"window.cornerstone.getEnabledElements()[0].viewport.setImageIdIndex({number})")
        viewer.page.wait_for_function(f"({_DRAWN})()?.at === {number}", timeout=PATIENCE)
        values = viewer.drawn()["values"][..., :3].astype(float)
        # Decoders of JPEG differ by roundings; another frame differs by far more.
        assert abs(values - wanted[number]).mean() < 3, number
    assert viewer.contrast("US-last", 10) > 10 and viewer.failed == []


def test_a_study_out_of_an_archive_is_drawn(viewer):
    wanted = {pydicom.dcmread(path).SOPInstanceUID: path for path in zipped_files()}
    drawn = viewer.draw(study_of(zipped_files()[0]))
    assert np.array_equal(drawn["values"], stored_values(wanted[drawn["uid"]]))
    assert viewer.contrast("from-a-zip", 5) > 5 and viewer.failed == []
