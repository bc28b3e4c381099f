"""A small lake of images in every form for the tests of retrieving, made once.

Belongs here: what lies in it and at its source. Does not belong here: how it is asked.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)
from starlette.testclient import TestClient

from dicom_assets.serve.app import make_app
from dicom_assets.settings import Settings
from dicom_assets_tests.support.corrections import correction, table
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder, zipped
from dicom_assets_tests.support.steps import step_through

PRIVATE = bytes(range(200))
NATIVE, RLE, BIG, DEFLATED, BITS, BROKEN, BIG_BYTES, IMPLICIT = range(1, 9)
"""Series of study 1."""
PLAIN, ZIPPED, CORRECTED, COLOUR, MIDDLE, CHANGING, LARGE = range(2, 9)
"""Studies: without pixels, in an archive, corrected, JPEG, five images of which the middle one is light; one whose
objects tests may change or take away, each instance in one test; one of an object of 32 MB."""

LARGE_FRAME = 2000 * 2000 * 2

PIXELS = np.arange(3 * 4 * 6, dtype=np.uint16).reshape(3, 4, 6) * 700
"""Three frames of four rows and six columns."""


@dataclass
class Lake:
    """A lake, its source, and what was put there. files: bytes by (study, series, instance)."""

    settings: Settings
    landing: LandingFolder
    files: dict[tuple[int, int, int], bytes] = field(default_factory=dict)

    def file(self, study: int, series: int, instance: int) -> Path:
        """Where an object lies that is a file of its own."""
        return self.landing.root / f"{study} ä/{series}-{instance}.dcm"

    def client(self, **more: Any) -> TestClient:
        """A client of a server over it."""
        return TestClient(make_app(self.settings), base_url="http://localhost", **more)


def image(where: tuple[int, int, int], syntax: str, pixels: bytes, frame: tuple[int, int], **more: Any) -> bytes:
    """An object with pixels. frame: rows and columns."""
    dataset = Dataset()
    study, series, instance = where
    bits = more.pop("BitsAllocated", 16)
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": uid(*where),
        "StudyInstanceUID": uid(study),
        "SeriesInstanceUID": uid(study, series),
        "PatientID": f"P{study}",
        "PatientName": "Test^Pixels",
        "Modality": "CT",
        "SeriesNumber": series,
        "InstanceNumber": instance,
        "Rows": frame[0],
        "Columns": frame[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        **more,
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = pixels
    encapsulated = syntax in (RLELossless, JPEGBaseline8Bit)
    dataset["PixelData"].VR = "OB" if encapsulated or bits == 1 else "OW"
    dataset["PixelData"].is_undefined_length = encapsulated
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        syntax,
        CTImageStorage,
        uid(*where),
    )
    dataset.file_meta = meta
    sink = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(sink, dataset, enforce_file_format=True)
    return sink.getvalue()


def with_private(frames: np.ndarray) -> Mapping[str, Any]:
    """Attributes with a bulk value of their own, and one within a sequence."""
    inner = Dataset()
    inner.add_new(0x00420011, "OB", PRIVATE + b"in")
    return {
        "NumberOfFrames": len(frames),
        "EncapsulatedDocument": PRIVATE,
        "ConceptNameCodeSequence": Sequence([inner]),
    }


def run_length(frame: np.ndarray) -> bytes:
    """A frame in RLE (PS3.5 G), literal runs alone."""
    segments = []
    for plane in (frame >> 8, frame & 0xFF):
        raw = plane.astype(np.uint8).tobytes()
        packed = b"".join(bytes([len(raw[at : at + 128]) - 1]) + raw[at : at + 128] for at in range(0, len(raw), 128))
        segments.append(packed + b"\0" * (len(packed) % 2))
    head = np.array([2, 64, 64 + len(segments[0]), *[0] * 13], dtype="<u4").tobytes()
    return head + b"".join(segments)


def jpeg(shape: tuple[int, int]) -> bytes:
    """A JPEG in colour."""
    values = np.zeros((*shape, 3), np.uint8)
    values[:, : shape[1] // 2] = (255, 0, 0)
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, "JPEG", quality=95)
    return sink.getvalue()


def fill(lake: Lake) -> None:
    """Puts everything into the landing folder."""
    files, words = lake.files, PIXELS.astype("<u2").tobytes()
    more = with_private(PIXELS)
    files[1, NATIVE, 1] = image((1, NATIVE, 1), ExplicitVRLittleEndian, words, (4, 6), **more)
    files[1, IMPLICIT, 1] = image((1, IMPLICIT, 1), ImplicitVRLittleEndian, words, (4, 6), NumberOfFrames=3)
    frames = [run_length(one) for one in PIXELS]
    files[1, RLE, 1] = image((1, RLE, 1), RLELossless, encapsulate(frames, has_bot=False), (4, 6), NumberOfFrames=3)
    frames[1] = b"\x02" + bytes(63) + b"no image"
    files[1, BROKEN, 1] = image((1, BROKEN, 1), RLELossless, encapsulate(frames), (4, 6), NumberOfFrames=3)
    swapped = PIXELS.astype(">u2").tobytes()
    files[1, BIG, 1] = image((1, BIG, 1), ExplicitVRBigEndian, swapped, (4, 6), NumberOfFrames=3)
    odd = np.arange(3 * 15, dtype=np.uint8)
    as_words = np.append(odd, np.uint8(0)).view(">u2").astype("<u2").tobytes()
    files[1, BIG_BYTES, 1] = image(
        (1, BIG_BYTES, 1), ExplicitVRBigEndian, as_words, (3, 5), NumberOfFrames=3, BitsAllocated=8
    )
    files[1, DEFLATED, 1] = image((1, DEFLATED, 1), DeflatedExplicitVRLittleEndian, words, (4, 6), **more)
    bits = np.packbits(one_bit().ravel(), bitorder="little").tobytes()
    files[1, BITS, 1] = image((1, BITS, 1), ExplicitVRLittleEndian, bits, (3, 5), NumberOfFrames=3, BitsAllocated=1)
    files[PLAIN, 1, 1] = dicom(PLAIN, 1, 1)
    files[CORRECTED, 1, 1] = dicom(CORRECTED, 1, 1)
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "YBR_FULL_422"}
    files[COLOUR, 1, 1] = image(
        (COLOUR, 1, 1), JPEGBaseline8Bit, encapsulate([jpeg((32, 48))]), (32, 48), BitsAllocated=8, **colour
    )
    for number in range(1, 6):
        light = np.full((8, 8), 65535 if number == 3 else 0, np.uint16)
        files[MIDDLE, 1, number] = image(
            (MIDDLE, 1, number), ExplicitVRLittleEndian, light.tobytes(), (8, 8), WindowCenter=32768, WindowWidth=65536
        )
    pixels = np.arange(LARGE_FRAME, dtype="<u2").tobytes() * 2
    files[LARGE, 1, 1] = image((LARGE, 1, 1), ExplicitVRLittleEndian, pixels, (2000, 2000), NumberOfFrames=4)
    for number in range(1, 9):
        files[CHANGING, 1, number] = image(
            (CHANGING, 1, number), ExplicitVRLittleEndian, words, (4, 6), NumberOfFrames=3
        )
    members = {}
    for number in (1, 2):
        files[ZIPPED, 1, number] = image((ZIPPED, 1, number), ExplicitVRLittleEndian, words, (4, 6), NumberOfFrames=3)
        members[f"a/{number}.dcm"] = files[ZIPPED, 1, number]
    files[ZIPPED, 1, 3] = image((ZIPPED, 1, 3), ExplicitVRLittleEndian, words, (4, 6), NumberOfFrames=3)
    gone = image((CHANGING, 2, 1), ExplicitVRLittleEndian, words, (4, 6), NumberOfFrames=3)
    files[CHANGING, 2, 1] = gone
    lake.landing.put_zip("changing.zip", {"1.dcm": gone})
    lake.landing.put_zip("all.zip", {**members, "inner.zip": zipped({"3.dcm": files[ZIPPED, 1, 3]})})
    for (study, series, instance), data in files.items():
        if study != ZIPPED and (study, series) != (CHANGING, 2):
            lake.landing.put(str(lake.file(study, series, instance)), data)
    said = correction("study", uid(CORRECTED), PatientID="TRUE", AccessionNumber="A-9")
    lake.landing.put("corrections/one.csv", table(said))


def one_bit() -> np.ndarray:
    """Three frames of 15 single bits."""
    return np.random.default_rng(7).integers(0, 2, (3, 15)).astype(np.uint8)


def make(folder: Path) -> Lake:
    """A lake in a folder that it has for itself."""
    root = folder / "landing"
    root.mkdir(parents=True)
    settings = settings_for(folder / "lake", root, corrections={"source": "landing", "files": ["corrections/**"]})
    lake = Lake(settings, LandingFolder(root))
    fill(lake)
    with dg.DagsterInstance.ephemeral() as instance:
        step_through(Graph(settings, instance), judges=False)
    return lake


@pytest.fixture(scope="session")
def retrievable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """The lake; nothing of it may be changed."""
    yield make(tmp_path_factory.mktemp("retrievable"))


def path(study: int, series: int | None = None, instance: int | None = None) -> str:
    """Where something is."""
    found = f"/dicom-web/studies/{uid(study)}"
    found += f"/series/{uid(study, series)}" if series is not None else ""
    return found + (f"/instances/{uid(study, series, instance)}" if instance is not None else "")
