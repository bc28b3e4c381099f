"""Landing folders made on the spot.

Belongs here: putting files, archives and tables into a folder, with the times that a test needs. Does not belong
here: what a DICOM object looks like (`dicoms`).
"""

from __future__ import annotations

import io
import os
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dicom_assets_tests.support.dicoms import dicom, without_identity

DAY = 86_400.0


@dataclass(frozen=True)
class LandingFolder:
    """A folder where objects arrive. Everything put into it is a day old unless the test says otherwise."""

    root: Path

    def put(self, path: str, data: bytes | str, *, age_seconds: float = DAY) -> Path:
        """Writes a file below the root, as old as said."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
        moment = time.time() - age_seconds
        os.utime(target, (moment, moment))
        return target

    def put_zip(self, path: str, members: Mapping[str, bytes], *, age_seconds: float = DAY) -> Path:
        """Writes an archive with these members."""
        return self.put(path, zipped(members), age_seconds=age_seconds)

    def put_series(self, study: int, series: int, instances: int, *, folder: str | None = None) -> list[Path]:
        """Writes a series of so many instances into a folder of its own."""
        folder = folder or f"study{study}/series{series}"
        return [
            self.put(f"{folder}/{number:04d}.dcm", dicom(study, series, number)) for number in range(1, instances + 1)
        ]


def zipped(members: Mapping[str, bytes]) -> bytes:
    """An archive in memory."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sink.getvalue()


CLINICAL_CSV = "PatientID;diagnosis\nP0001;R91.8\n0007;M54.5\n;Z00.0\n"
"""Three records: of a patient with images, of one with leading zeros and none, and of nobody."""


def put_mixed(landing: LandingFolder) -> None:
    """Everything that a landing zone may hold: 7 DICOM objects kept, 1 table, 1 quarantined, 3 ignored; 12 seen."""
    landing.put_series(1, 1, 3)
    landing.put_series(1, 2, 1)
    landing.put_series(2, 1, 1)
    landing.put_zip("other-site.zip", {"a/1.dcm": dicom(3, 1, 1), "a/2.dcm": dicom(3, 1, 2), "a/notes.txt": b"notes"})
    landing.put("clinical/diagnoses.csv", CLINICAL_CSV)
    landing.put("odd/no-identity.dcm", without_identity())
    landing.put("odd/readme.txt", "nothing to see here\n")
