"""Taking out what a self-test brought: its files at the source, and its rows by the machinery of erasures.

Belongs here: the order, which a kill cannot harm, and waiting for the right to it. Does not belong here: which rows go
and how (`batch.erasure`), the files themselves (`delivery`).

Where moved objects lie is written down first, then the erasure's record, with which nobody claims or works on a batch.
Then the source is told to hold fewer objects, so that it does not look emptied; files go, then rows. Until all is gone,
its objects are known as erased, so that none of them is claimed anew. The books keep a row for each of them: the batch
closes as it did.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.erasure.record import SELFTEST, ErasureRefused, Record, finish, new_id
from dicom_assets.batch.erasure.removal import begin, carry_out
from dicom_assets.batch.erasure.target import Scope, Target, find
from dicom_assets.batch.selftest import diary
from dicom_assets.batch.selftest.arrival import Arrivals, Claimed
from dicom_assets.batch.selftest.delivery import Delivery
from dicom_assets.lake.delta import Lake
from dicom_assets.landing import refusals
from dicom_assets.settings import Settings, UserError
from dicom_assets.storage.locks import LockBusy

Wait = Callable[[float], None]
"""Lets a while pass, in seconds."""


class NotCleared(UserError):
    """What a self-test brought could not be taken out; the message says why, and what to do."""


@dataclass(frozen=True)
class Cleared:
    """What was taken out: files at the source, objects and studies of the lake."""

    files: int
    objects: int
    studies: int


def clear(
    settings: Settings,
    entry: diary.Entry,
    delivery: Delivery,
    arrivals: Arrivals,
    *,
    seconds: float,
    wait: Wait = time.sleep,
) -> Cleared:
    """Takes out everything of one self-test, as soon as no batch is at work. Raises NotCleared after so many seconds.

    Everything of it may be done again, by whoever finds the entry of a self-test that was killed.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return _clear(settings, entry, delivery, arrivals)
        except (ErasureRefused, LockBusy) as error:
            if time.monotonic() >= until:
                why = str(error) if isinstance(error, ErasureRefused) else "Others are at work on this lake."
                raise NotCleared(
                    f"{why} What the self-test left is taken out by `dicom-assets selftest --clean`."
                ) from None
        wait(1.0)


def _clear(settings: Settings, entry: diary.Entry, delivery: Delivery, arrivals: Arrivals) -> Cleared:
    with RunContext(settings) as work, ExitStack() as held:
        held.enter_context(work.claiming(wait_seconds=5.0))
        files = work.lake.files
        claimed = arrivals.claimed()
        places = tuple(sorted({*entry.elsewhere, *arrivals.places(claimed)}))
        entry = diary.write(files, replace(entry, elsewhere=places, batches=_all(entry, claimed)))
        if not claimed.objects:
            cleared = Cleared(_files(work, entry, delivery), 0, 0)
        else:
            target = Target(Scope.SELFTEST, entry.token, objects=claimed.objects)
            record = _record(work.lake, target, claimed)
            entry = diary.write(files, replace(entry, erasures=(*entry.erasures, record.erasure_id)))
            record = begin(work.lake, target, record)
            gone = _files(work, entry, delivery)
            carry_out(work.lake, settings, record)
            finish(files)
            cleared = Cleared(gone, len(record.objects), len(record.whole))
        for erasure in entry.erasures:
            refusals.forget(files, erasure)  # nothing of it lies anywhere
        return cleared


def _record(lake: Lake, target: Target, claimed: Claimed) -> Record:
    """What goes: what tables and staging have of it, and what is claimed and not looked into yet."""
    try:
        record = find(lake, target, SELFTEST)
    except ErasureRefused:  # neither has anything
        record = Record(new_id(), SELFTEST, SELFTEST, datetime.now(UTC).isoformat())
    objects = {one: list(batches) for one, batches in record.objects.items()}
    for batch, ids in claimed.by_batch.items():
        for one in ids:
            if batch not in objects.setdefault(one, []):
                objects[one].append(batch)
    return replace(record, objects=objects, terms=[])  # nothing is searched for afterwards


def _all(entry: diary.Entry, claimed: Claimed) -> tuple[str, ...]:
    return tuple(sorted({*entry.batches, *claimed.batches}))


def _files(work: RunContext, entry: diary.Entry, delivery: Delivery) -> int:
    """Deletes the files at the source, which is to hold fewer from now on. Raises SourceUnavailable."""
    source = entry.source
    memory = work.looks.memory(source)
    there = delivery.count()
    if memory.believed is not None and there:
        fewer = replace(memory.believed, objects=max(0, memory.believed.objects - there))
        work.looks.remember(source, replace(memory, believed=fewer))
    return delivery.clear(entry.elsewhere)
