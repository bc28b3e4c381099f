"""A lake with something of everything that is watched, made once for a module, and canaries of patients all over it.

Belongs here: the lake and its landing folder. Does not belong here: what is asserted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from dicom_assets.batch.books import Status
from dicom_assets.batch.claim_rounds import claim_everywhere
from dicom_assets.batch.context import RunContext
from dicom_assets.settings import Settings
from dicom_assets.storage.traces import Terms
from dicom_assets_tests.support.canaries import PATIENT, SAYS, TERMS
from dicom_assets_tests.support.dicoms import dicom, uid, without_identity
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder, put_mixed
from dicom_assets_tests.support.steps import Stepped

FOLDER = "CANARYFOLDER"
DESCRIPTION = "CANARY-DESCRIPTION"
SECRETS = Terms.of([FOLDER, DESCRIPTION, PATIENT, "CANARYBIRD", "ACC-CANARY", "SECRET-DIAGNOSIS", uid(9), uid(9, 1, 1)])
"""What nothing that leaves the lake may say; those of `support.canaries` among them."""

assert TERMS is not None


@dataclass(frozen=True)
class Watched:
    """A lake. closed, paused, claimed: its three batches."""

    settings: Settings
    closed: str
    paused: str
    claimed: str


def watched_lake(root: Path) -> Watched:
    """Three batches: 14 objects of which the books closed, 12 that paused it, 1 claimed; and a file still written."""
    landing = LandingFolder(root / "landing")
    put_mixed(landing)
    landing.put(f"{FOLDER}/{PATIENT}.dcm", dicom(9, 1, 1, StudyDescription=DESCRIPTION, **SAYS))
    landing.put(f"{FOLDER}/of-{PATIENT}.csv", f"PatientID;diagnosis\n{PATIENT};SECRET-DIAGNOSIS\n")
    settings = settings_for(root / "lake", landing.root)
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings, instance, judges=False)
        (closed,) = graph.ingest()
        for number in range(12):
            landing.put(f"{FOLDER}/{number}.dcm", without_identity(number))
        (paused,) = graph.ingest()
        assert graph.books(paused).status == Status.PAUSED
    landing.put(f"{FOLDER}/late.dcm", dicom(9, 2, 1, **SAYS))
    landing.put(f"{FOLDER}/later.dcm", dicom(9, 2, 2, **SAYS), age_seconds=0)
    with RunContext(settings) as work:
        (claimed,) = (claim.batch_id for found in claim_everywhere(work) for claim in found.claims)
    return Watched(settings, closed, paused, claimed)
