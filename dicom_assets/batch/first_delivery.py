"""An ingest up to its first run: leftovers put in order, what is new claimed, the first batch being read.

Belongs here: what an ingest does before it needs Dagster, whose import and state take a second and a half of one core:
meanwhile the first batch is read. Does not belong here: runs, and what comes after the first of them (`defs.runner`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from dicom_assets.batch.claim_rounds import Delivery, next_delivery, only_ingest
from dicom_assets.batch.context import BatchBusy, RunContext
from dicom_assets.batch.promotion import promote
from dicom_assets.batch.validate import Progress
from dicom_assets.landing.claims import Haste
from dicom_assets.settings import Settings, SettingsError


@dataclass
class RunIds:
    """The ids that the next runs of batches have: what is read ahead of a run names it already."""

    _of: dict[str, str] = field(default_factory=dict)

    def of(self, batch: str) -> str:
        """The id of the next run of a batch."""
        return self._of.setdefault(batch, str(uuid.uuid4()))


@dataclass(frozen=True)
class FirstDelivery:
    """What an ingest has claimed first; its first batch is being read."""

    work: RunContext
    found: Delivery
    run_ids: RunIds


@contextmanager
def first_delivery(
    settings: Settings, say: Callable[[str], None], progress: Callable[[Progress], None]
) -> Iterator[FirstDelivery]:
    """Begins an ingest, and holds the right to claim until the block ends.

    say: called with a sentence about what happens. progress: called while a batch is read, from another thread. Raises
    SourceUnavailable, LakeError, SettingsError.
    """
    with RunContext(settings, progress, say=say) as work, only_ingest(work):
        work.clear_left_staging()
        for filled in promote(work.lake, settings, lambda table, done, of: say(f"{table}: {done} of {of} files")):
            say(filled.sentence)
        for batch in work.organize_left():
            say(f"Batch {batch}: the moving of its objects was broken off and is finished now.")
        # whoever asks has perhaps just mended what kept objects from being read
        first = FirstDelivery(work, next_delivery(work, {}, Haste(waiting=True, absent=True)), RunIds())
        for batch in first.found.batches[:1]:
            read_ahead(work, batch, first.run_ids)
        yield first


def read_ahead(work: RunContext, batch: str, run_ids: RunIds) -> None:
    """Begins to read a batch, unless somebody else holds it, or its run will say what is wrong."""
    with suppress(BatchBusy, SettingsError):
        work.read_ahead(batch, run_ids.of(batch))
