"""A lake in which something is wrong between objects, of every kind that reports and panels tell of.

Belongs here: the lake, made once for a session. Does not belong here: what is asserted.
"""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from dicom_assets.curation.following import follow
from dicom_assets_tests.catalogue.shown_lake import Shown
from dicom_assets_tests.curation.series import volume
from dicom_assets_tests.support.dicoms import dicom, without_identity
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import DAY, LandingFolder
from dicom_assets_tests.support.steps import Stepped

GAP, TWINS, CLAIMED, ELSEWHERE = 1, 2, 3, 4
"""Studies: with a gap among its slices; of two patients, and delivered twice; that claims to name nobody; of another
source, with another patient of a study of the first one."""

_PIXELS = {"PixelData": bytes(2 * 16 * 16), "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
           "PixelRepresentation": 0, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}  # fmt: skip

NAME, PATIENT = "Canary^Rosamunde<script>", "CANARY-7"


def wrong_lake(root: Path) -> Shown:
    """Makes the lake: source `landing` with everything, `landing2` with a copy and a study of its own."""
    first, second = LandingFolder(root / "landing"), LandingFolder(root / "landing2")
    who = {"PatientName": NAME, "PatientID": PATIENT, "Manufacturer": "ACME", "ManufacturerModelName": "One"}
    for at, slices in enumerate(volume(6)):
        if at != 3:
            first.put(f"gap/{at}.dcm", dicom(GAP, 1, at + 1, **(who | slices | _PIXELS | {"SoftwareVersions": "1"})))
    twin = dicom(TWINS, 1, 1, **who)
    first.put("twins/1.dcm", twin)
    first.put("twins/again.dcm", twin)
    first.put("twins/2.dcm", dicom(TWINS, 1, 2, PatientID="P9999", PatientName="Roe^Ann"))
    claims = {"PatientIdentityRemoved": "YES", "BurnedInAnnotation": "YES", "SoftwareVersions": "2"}
    first.put("claimed/1.dcm", dicom(CLAIMED, 1, 1, **(who | claims)))
    first.put("broken/1.dcm", without_identity(1))
    second.put("copy/1.dcm", twin, age_seconds=3 * DAY)
    second.put("own/1.dcm", dicom(ELSEWHERE, 1, 1, StudyDescription="Own", PatientID="P0004"))
    settings = settings_for(root / "lake", first.root, second.root)
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings, instance, judges=False)
        graph.ingest()
        follow(graph.lake)
    return Shown(settings, graph)
