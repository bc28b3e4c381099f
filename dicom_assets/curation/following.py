"""Bringing the tables up to date that follow closed batches: tag_profile and phi_risk.

Belongs here: the order, and how far they are behind. Does not belong here: what they hold (`tag_profile`, `phi_risk`).

They are no steps of a batch, which would wait for them: whoever runs this takes in all that has changed since, at any
later time. phi_risk comes first and a batch's part of tag_profile, which says that the batch was taken in, behind it:
so a batch that is not told to be behind is in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dicom_assets.curation.closed_batches import ClosedBatches
from dicom_assets.curation.marks import marker
from dicom_assets.curation.phi_risk import compare_texts, judge_series
from dicom_assets.curation.tag_profile import add_up, count_batches, lagging, stale_profiles
from dicom_assets.lake.delta import Lake
from dicom_assets.settings import UserError
from dicom_assets.storage import locks

LOCK = "curation"
WAIT_SECONDS = 5.0


class CurationBusy(UserError):
    """Another process brings the tables up to date."""


@dataclass(frozen=True)
class Followed:
    """What was done. texts: series of which other texts are like patients'. versions: of tables that were read."""

    batches: int
    profiles: int
    series: int
    texts: int
    versions: Mapping[str, int]


def follow(lake: Lake, say: Callable[[str], None] = lambda _: None) -> Followed:
    """Brings both tables up to date. say: is told how far it is.

    Raises CurationBusy, LakeError.
    """
    try:
        with locks.held(lake.files, LOCK, WAIT_SECONDS):
            return _follow(lake, say)
    except locks.LockBusy:
        raise CurationBusy(
            "Another process brings tag_profile and phi_risk up to date. Wait until it has ended; nothing is lost."
        ) from None


def _follow(lake: Lake, say: Callable[[str], None]) -> Followed:
    own = marker(lake.files)
    with ClosedBatches(lake) as closed:
        series = judge_series(lake, closed, own)
        say(f"Series judged: {series}")
        texts = compare_texts(lake, own)
        batches = count_batches(lake, closed, own)
        say(f"Batches counted: {batches}")
    return Followed(batches, add_up(lake), series, texts, closed.versions)


def behind(lake: Lake) -> int:
    """How many closed batches the tables are behind; 1 when all are counted and not added up yet. Raises LakeError."""
    return len(lagging(lake)) or int(bool(stale_profiles(lake)))
