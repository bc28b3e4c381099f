"""What generated lakes call their source, batches and studies, and how many objects these have.

Belongs here: names and numbers that makers and measurers of such lakes share. Does not belong here: making one
(`scale_lake`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

SOURCE = "landing"
PER_STUDY, PER_SERIES, PER_BATCH = 100, 25, 5_000
FIRST = datetime(2020, 1, 1, tzinfo=UTC)
STUDY_ROOT = "1.2.826.0.1.3680043.10.99"


def batch_name(number: int) -> str:
    """The id of a generated batch."""
    return f"{FIRST + timedelta(minutes=number):%Y%m%dT%H%M%SZ}-{number:08x}"


def study_uid(number: int) -> str:
    """The UID of a generated study."""
    return f"{STUDY_ROOT}.{number}"
