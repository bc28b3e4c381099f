"""Makes the lake of an earlier release that is a fixture here, with that release's own code.

    git worktree add --detach /tmp/earlier 257874f
    python dicom_assets_tests/upgrade/make_lake.py /tmp/earlier format1

Belongs here: what lies in the landing zone, and packing it with the lake that the release's command makes of it, into
`fixtures/{name}.tar.xz`. Does not belong here: this release's code, of which nothing is imported.

A lake names its objects by absolute URIs, so the landing zone must lie where it lay: below PLACE, which tests unpack.
Everything in it is made up.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

PLACE = "/tmp/dicom-assets-lake-of-{name}"
"""Where landing zone and lake of a fixture lie."""

FIXTURES = Path(__file__).parent / "fixtures"
ROOT = "1.2.826.0.1.3680043.8.498.257"
NOON = 1_769_860_800
"""2026-01-31T12:00Z; times are whole seconds, which every archive keeps."""


def image(study: int, series: int, number: int, **more: Any) -> bytes:
    """One MR instance with pixels, a sequence, a private element and one with several values."""
    one = Dataset()
    one.SOPClassUID = MRImageStorage
    one.SOPInstanceUID = f"{ROOT}.{study}.{series}.{number}"
    one.StudyInstanceUID = f"{ROOT}.{study}"
    one.SeriesInstanceUID = f"{ROOT}.{study}.{series}"
    one.PatientID = f"P{study:04d}"
    one.PatientName = f"Invented^Patient {study}"
    one.StudyDate, one.StudyTime = "20240131", "101500"
    one.AccessionNumber = f"A{study}"
    one.StudyDescription = f"Study {study}"
    one.Modality = "MR"
    one.SeriesNumber, one.InstanceNumber = series, number
    one.SliceThickness = "1.5"
    one.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    one.ImagePositionPatient = [0, 0, number]
    step = Dataset()
    step.ScheduledProcedureStepID = f"STEP{study}"
    one.RequestAttributesSequence = [step]
    private = one.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    private.add_new(0x0C, "IS", str(1000 * study))
    one.Rows = one.Columns = 4
    one.BitsAllocated = one.BitsStored = 8
    one.HighBit, one.PixelRepresentation, one.SamplesPerPixel = 7, 0, 1
    one.PhotometricInterpretation = "MONOCHROME2"
    one.PixelData = bytes(range(16))
    for keyword, value in more.items():
        if value is None:
            delattr(one, keyword)
        else:
            setattr(one, keyword, value)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    one.file_meta = meta
    sink = io.BytesIO()
    dcmwrite(sink, one, enforce_file_format=True)
    return sink.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    """A zip with these members."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 31, 12, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return sink.getvalue()


def fhir() -> str:
    """A patient, a report on study 1, and a condition, as NDJSON."""
    accession = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]}
    return "\n".join(
        json.dumps(one)
        for one in (
            {"resourceType": "Patient", "id": "one", "identifier": [{"type": {"text": "MRN"}, "value": "P0001"}]},
            {
                "resourceType": "Condition",
                "id": "condition",
                "subject": {"reference": "Patient/one"},
                "code": {"coding": [{"system": "http://snomed.info/sct", "code": "37796009", "display": "Migraine"}]},
                "onsetDateTime": "2023-04-28",
            },
            {
                "resourceType": "DiagnosticReport",
                "id": "report",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "24590-2", "display": "MR Brain"}]},
                "subject": {"reference": "Patient/one"},
                "identifier": [{"type": accession, "value": "A1"}],
                "effectiveDateTime": "2024-01-31",
                "conclusion": "No focal lesion.",
            },
        )
    )


def first() -> dict[str, bytes | str]:
    """What arrives first."""
    return {
        **{f"study1/{number}.dcm": image(1, 1, number) for number in range(1, 4)},
        "study1/4.dcm": image(1, 2, 1),
        "study2/1.dcm": image(2, 1, 1),
        "study2/2.dcm": image(2, 1, 2),
        "other-site.zip": zipped({"a/1.dcm": image(3, 1, 1), "a/2.dcm": image(3, 1, 2), "a/notes.txt": b"notes"}),
        "clinical/diagnoses.csv": "PatientID;diagnosis;seen_on\n"
        "P0001;R91.8;2024-01-12\n0007;M54.5;2024-02-01\n;Z00.0;\n",
        "clinical/resources.ndjson": fhir(),
        "labs/labs_1.csv": "Pat No,lab_id,taken,value\nP0001,1,2024-01-12,4.5\nP0002,2,2024-01-13,5.5\n",
        "clinical/gone.csv": "PatientID;diagnosis\nP0001;G43.9\n",
        "other/copy.dcm": image(2, 1, 1, StudyDescription="Study 2, told otherwise"),
        "odd/no-identity.dcm": image(9, 1, 1, StudyInstanceUID=None),
        "odd/readme.txt": "nothing to see here\n",
    }


def second() -> dict[str, bytes | str]:
    """What arrives in place of something, or beside it: study 1 grows, an image and two tables are replaced."""
    return {
        "study1/3.dcm": image(1, 1, 3, StudyDescription="Study 1, corrected", SliceThickness="2.0"),
        "study1/5.dcm": image(1, 1, 5),
        "clinical/diagnoses.csv": "PatientID;diagnosis;seen_on\nP0001;R91.1;2024-01-12\n",
        "clinical/gone.csv": "no table any more\n",
        "labs/labs_2.csv": "Pat No,lab_id,taken,value\nP0002,2,2024-01-13,6.5\n",
    }


def third() -> dict[str, bytes | str]:
    """A batch that pauses: nothing of it has an identity."""
    return {f"refused/{number}.dcm": image(8, 1, number, StudyInstanceUID=None) for number in range(1, 13)}


def last() -> dict[str, bytes | str]:
    """What is claimed, and not run any more."""
    return {"study4/1.dcm": image(4, 1, 1), "study4/2.dcm": image(4, 1, 2)}


CONFIG = """\
lake = "{place}/lake"

[[sources]]
name = "landing"
root = "{place}/landing"

[reading]
workers = 1

[[clinical.datasets]]
name = "labs"
files = ["labs/**"]
patient_id_column = "Pat No"
date_column = "taken"
key_columns = ["lab_id"]
"""

CLAIM = """\
from datetime import UTC, datetime
from dicom_assets.{work} import {Work} as Work
from dicom_assets.landing.claims import claim_new
from dicom_assets.settings import load

settings = load()
with Work(settings) as work:
    for store in work.stores():
        print([claim.batch_id for claim in claim_new(store, work.log, settings.claiming, datetime.now(UTC)).claims])
"""
"""Claims what is new, as a tick of the sensor does, and runs nothing."""


def put(landing: Path, files: dict[str, bytes | str], hour: int) -> None:
    """Writes files as they were at an hour."""
    for name, data in files.items():
        target = landing / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
        os.utime(target, (NOON + 3600 * hour, NOON + 3600 * hour))


def make(release: Path, name: str) -> Path:
    """Makes landing zone and lake at their place, and packs both."""
    place = Path(PLACE.format(name=name))
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "dicom-assets.toml").write_text(CONFIG.format(place=place))
    environment = {**os.environ, "PYTHONPATH": str(release), "TZ": "UTC"}

    def run(*words: str, expected: int = 0) -> None:
        done = subprocess.run([sys.executable, *words], cwd=place, env=environment, text=True, capture_output=True)
        print(done.stdout, done.stderr[-2000:])
        if done.returncode != expected:
            raise SystemExit(f"{words[0]} ended with {done.returncode}")

    old = (release / "dicom_assets" / "cli.py").exists()
    command = "import sys; from dicom_assets.cli{} import main; sys.exit(main())".format("" if old else ".main")
    for hour, files in enumerate((first(), second())):
        put(place / "landing", files, hour)
        run("-c", command, "ingest")
    put(place / "landing", third(), 2)
    run("-c", command, "ingest", expected=1)
    put(place / "landing", last(), 3)
    work, kind = ("batch.work", "Work") if old else ("batch.context", "RunContext")
    run("-c", CLAIM.replace("{work}", work).replace("{Work}", kind))
    return pack(place, name)


def pack(place: Path, name: str) -> Path:
    """Packs landing zone, configuration and lake; Dagster's state beside the lake is no part of it."""
    target = FIXTURES / f"{name}.tar.xz"
    FIXTURES.mkdir(exist_ok=True)

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = int(entry.mtime)
        return entry

    with tarfile.open(target, "w:xz", preset=9) as archive:
        for part in ("dicom-assets.toml", "landing", "lake"):
            archive.add(place / part, part, filter=anonymous)
    return target


if __name__ == "__main__":
    written = make(Path(sys.argv[1]).resolve(), sys.argv[2])
    print(written, written.stat().st_size)
