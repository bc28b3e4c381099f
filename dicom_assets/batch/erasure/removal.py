"""Erasing from its beginning to its end, in an order that a kill cannot harm.

Belongs here: the order, the locks, and finishing what was broken off. Does not belong here: what is found (`target`)
and each kind of place (`out_of_tables`, `out_of_files`).

The record first, which names all that goes; then the digests by which it is recognised, so that nothing comes back
while it goes; then tables, then files; then what the tables were; then the table of erasures, and the record is
forgotten. Whoever finds a record does all of it again.

Nobody works on a batch meanwhile. The record is written first and then each batch's lock is tried, while whoever takes
such a lock then looks for a record (`RunContext.batch`): one of the two sees the other.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pyarrow as pa

from dicom_assets.batch.erasure import out_of_files, out_of_tables
from dicom_assets.batch.erasure.record import SELFTEST, ErasureRefused, Record, finish, under_way, write
from dicom_assets.batch.erasure.search import sweep
from dicom_assets.batch.erasure.target import Target, recognised_by
from dicom_assets.curation.cohorts.frozen import LOCK as COHORT_LOCK
from dicom_assets.lake.column_list import READY
from dicom_assets.lake.database import clear_left_over
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.history import forget
from dicom_assets.landing.refusals import make_key, remember
from dicom_assets.schema.registry import ERASURE, TABLES
from dicom_assets.settings import Settings
from dicom_assets.storage import locks
from dicom_assets.storage.files import LakeFiles
from dicom_assets.storage.traces import Terms

_HELD = {"batch-": "Batch {} is being run", COHORT_LOCK: "Cohort {} is being worked on"}
"""By what the name of a lock begins with, what that means."""


def begin(lake: Lake, target: Target, record: Record) -> Record:
    """Writes down an erasure, for whoever holds the right to claim; with what it will be recognised by.

    Raises ErasureRefused when a batch is under way, or a promoted column is being filled.
    """
    lake.know_columns()
    if any(one.stage != READY for one in lake.columns):
        raise ErasureRefused(
            "A promoted column is being filled or removed. Let it end (`dicom-assets ingest` goes on with it), then "
            "erase. Nothing was changed."
        )
    record = recognised_by(record, target, make_key(lake.files))
    write(lake.files, record)
    busy = _busy(lake.files)
    if busy:
        finish(lake.files)
        raise ErasureRefused(f"{busy[0]}. Wait until it has ended, then erase. Nothing was changed.")
    return record


def _busy(files: LakeFiles) -> list[str]:
    """Which batches and cohorts somebody holds, in words."""
    found = []
    for path in files.names(locks.FOLDER):
        name = path.rsplit("/", 1)[1].removesuffix(".lock")
        kind = next((kind for kind in _HELD if name.startswith(kind)), None)
        if kind is None:
            continue
        try:
            with locks.held(files, name, 0, once=True):
                pass
        except locks.LockBusy:
            found.append(_HELD[kind].format(name.removeprefix(kind)))
    return found


def carry_out(lake: Lake, settings: Settings, record: Record, say: Callable[[str], None] = lambda _: None) -> None:
    """Does all that a record says, again what was done already. Raises LakeError, MappingError."""
    say("Keeping what it is recognised by.")
    remember(lake.files, record.erasure_id, record.identities, record.digests)
    say("Taking rows out of the tables.")
    out_of_tables.take_out(lake, record, settings)
    say("Taking it out of claims and other files.")
    out_of_files.take_out(lake, record, settings)
    if record.scope == SELFTEST:
        return  # what it was may be remembered: older versions of tables stay, and no steward asked for it
    clear_left_over(lake.files)
    sweep(lake.files, Terms.of(record.terms))
    say("Forgetting what the tables were.")
    _enter(lake, record)
    for name in TABLES:
        forget(lake, name)


def resume(lake: Lake, settings: Settings, say: Callable[[str], None] = lambda _: None) -> Record | None:
    """Finishes an erasure that was broken off, for whoever holds the right to claim; which one, if any."""
    record = under_way(lake.files)
    if record is not None:
        say(f"Erasure {record.erasure_id} was broken off and is finished now.")
        carry_out(lake, settings, record, say)
        finish(lake.files)
    return record


def _enter(lake: Lake, record: Record) -> None:
    """Enters an erasure in the table of erasures."""
    row = {
        "erasure_id": record.erasure_id,
        "scope": record.scope,
        "erased_by": record.by,
        "erased_at": datetime.fromisoformat(record.at),
        "finished_at": datetime.now(UTC),
        **out_of_tables.counts(record),
    }
    with lake.committing(ERASURE.name):
        lake.replace(ERASURE.name, [record.erasure_id], pa.Table.from_pylist([row], schema=ERASURE.schema))
