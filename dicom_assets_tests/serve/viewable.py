"""A small lake of what people open in a viewer: series out of order, frames, reports, a PDF, what nothing decodes.

Belongs here: what lies in it. Does not belong here: how it is asked.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import (
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RTStructureSetStorage,
)

from dicom_assets_tests.serve.retrievable import Lake, image, jpeg
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import step_through

CT, MR, CINE, REPORT, PDF, STRUCTURES, VIDEO = range(1, 8)
"""Series of study 1. Of CT eight slices lie in space the other way round than they are numbered; MR says no window."""
PLAIN = 2
"""A study without pictures."""
NAME = "Canary^<b onmouseover=alert(1)>Bird"
SIZE = 64
SPACING = 2.5
WINDOWS = ((40.0, 400.0), (-600.0, 1500.0))
CINE_FRAMES = 5
MPEG2 = "1.2.840.10008.1.2.4.100"
DOCUMENT = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n%%EOF\n"


def stored(number: int) -> np.ndarray:
    """What is stored of a slice, by its number in space from 1: values that are different in each."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return ((x * 37 + y * 23 + number * 111) % 2048).astype(np.uint16)


def ct(place: int, count: int) -> bytes:
    """A slice. place: in space from 1, numbered the other way round."""
    return image(
        (1, CT, place),
        ExplicitVRLittleEndian,
        stored(place).astype("<u2").tobytes(),
        (SIZE, SIZE),
        PatientName=NAME,
        PatientID="CANARY-4711",
        StudyDescription="Canary <i>study</i>",
        SeriesDescription="Thorax",
        InstanceNumber=count + 1 - place,
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        ImagePositionPatient=[-80, -80, SPACING * place],
        PixelSpacing=[SPACING, SPACING],
        RescaleIntercept=-1024,
        RescaleSlope=1,
        WindowCenter=[one for one, _ in WINDOWS],
        WindowWidth=[one for _, one in WINDOWS],
        WindowCenterWidthExplanation=["SOFT", "LUNG"],
    )


def code(meaning: str) -> Sequence:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = "99", "99TEST", meaning
    return Sequence([made])


def content(kind: str, concept: str, **more: Any) -> Dataset:
    made = Dataset()
    made.RelationshipType, made.ValueType, made.ConceptNameCodeSequence = "CONTAINS", kind, code(concept)
    for keyword, value in more.items():
        setattr(made, keyword, value)
    return made


def report() -> bytes:
    """A report with a container, a text with markup, a measurement and a code."""
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "12.5", code("millimeter")
    measured.MeasurementUnitsCodeSequence[0].CodeValue = "mm"
    items = [
        content("TEXT", "Finding", TextValue="<script>alert(1)</script> round"),
        content("NUM", "Diameter", MeasuredValueSequence=Sequence([measured])),
        content("CODE", "Site", ConceptCodeSequence=code("Lung")),
    ]
    return dicom(
        *(1, REPORT, 1),
        SOPClassUID=BasicTextSRStorage,
        Modality="SR",
        ValueType="CONTAINER",
        ConceptNameCodeSequence=code("Radiology report"),
        CompletionFlag="COMPLETE",
        VerificationFlag="UNVERIFIED",
        ContentSequence=Sequence([content("CONTAINER", "Findings", ContentSequence=Sequence(items))]),
    )


def files() -> Mapping[str, bytes]:
    """Everything, by name."""
    made = {f"ct/{place}.dcm": ct(place, 8) for place in range(1, 9)}
    plain = stored(1).astype("<u2").tobytes()
    made["mr.dcm"] = image((1, MR, 1), ExplicitVRLittleEndian, plain, (SIZE, SIZE), Modality="MR")
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "YBR_FULL_422"}
    made["cine.dcm"] = image(
        (1, CINE, 1),
        JPEGBaseline8Bit,
        encapsulate([jpeg((32, 48))] * CINE_FRAMES),
        (32, 48),
        BitsAllocated=8,
        Modality="US",
        NumberOfFrames=CINE_FRAMES,
        FrameTime=100,
        **colour,
    )
    made["report.dcm"] = report()
    made["pdf.dcm"] = dicom(
        *(1, PDF, 1),
        SOPClassUID=EncapsulatedPDFStorage,
        Modality="DOC",
        MIMETypeOfEncapsulatedDocument="application/pdf",
        EncapsulatedDocument=DOCUMENT + b"\0" * (len(DOCUMENT) % 2),
    )
    made["structures.dcm"] = dicom(1, STRUCTURES, 1, SOPClassUID=RTStructureSetStorage, Modality="RTSTRUCT")
    made["video.dcm"] = video()
    made["plain.dcm"] = dicom(PLAIN, 1, 1)
    return made


def video() -> bytes:
    """A video, of which nothing decodes a frame."""
    told = dcmread(io.BytesIO(image((1, VIDEO, 1), JPEGBaseline8Bit, encapsulate([b"\0" * 64]), (32, 48))))
    told.Modality = "ES"
    told.file_meta.TransferSyntaxUID = MPEG2
    sink = io.BytesIO()
    dcmwrite(sink, told, enforce_file_format=True)
    return sink.getvalue()


def make(folder: Path) -> Lake:
    """A lake in a folder that it has for itself."""
    root = folder / "landing"
    root.mkdir(parents=True)
    lake = Lake(settings_for(folder / "lake", root), LandingFolder(root))
    for name, data in files().items():
        lake.landing.put(name, data)
    with dg.DagsterInstance.ephemeral() as instance:
        step_through(Graph(lake.settings, instance), judges=False)
    return lake


def view(study: int, series: int | None = None, instance: int | None = None, what: str = "") -> str:
    """An address below /view."""
    names = [uid(study), *([uid(study, series)] if series is not None else [])]
    names += [uid(study, series, instance)] if series is not None and instance is not None else []
    return "/view/" + "/".join([*names, *([what] if what else [])])
