"""validated_batch: every object of a batch read once, judged, and staged.

Belongs here: cutting a batch into chunks in folder order, giving them to a reading engine, staging what comes back.
Does not belong here: what is done with an object (`judge`), how processes are kept (`engine`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, fields

from dicom_assets.lake.staging import RAW_STAGED, Part, Staging
from dicom_assets.landing.refusals import refusals
from dicom_assets.reading.engine import ReadingEngine, worker_count
from dicom_assets.reading.judge import judge_chunk
from dicom_assets.reading.tasks import Chunk, ObjectTask
from dicom_assets.schema.codes import Kind
from dicom_assets.settings import Settings, SourceSettings
from dicom_assets.storage.files import arrow_rows

MEMBERS_PER_FILE = 4
"""A chunk of members is this much longer than one of files: each chunk opens its archive anew."""

SHARES = 2
"""Of what is left, a chunk has at most one of so many shares for each process, so that the processes have finished at
about the same time: what lies together is alike, and a structure set takes a hundred times as long as a slice."""
SHORTEST = 16
"""Objects of the last chunks of a batch: shorter ones take longer to stage than to read."""
SHORTEST_OF_FEW = 63
"""The same for a batch that would fit into one chunk: what it stages is small, and each file of it a request."""

CLINICAL_BYTES = 16 << 20
"""Bytes of the clinical files of a chunk, unless one alone has more: its rows are in memory until it is staged, and
an hour's delivery of tables is some dozen files for several processes."""

_TASK_COLUMNS = [one.name for one in fields(ObjectTask) if one.name in RAW_STAGED.names]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the reading of a batch is. rate: objects a second since it began."""

    batch_id: str
    done: int
    total: int
    rate: float

    @property
    def seconds_left(self) -> float:
        """Seconds to the end at this rate."""
        return (self.total - self.done) / self.rate if self.rate else 0.0


def tasks(staging: Staging) -> Iterator[ObjectTask]:
    """The staged objects of a batch in their order."""
    for batch in staging.batches(Part.RAW, [*_TASK_COLUMNS]):
        for row in batch.to_pylist():
            row["entry"] = tuple(row["entry"] or ())
            yield ObjectTask(**row)


def chunks(staging: Staging, settings: Settings, source: SourceSettings, run_id: str) -> Iterator[Chunk]:
    """Cuts a batch into chunks; members of one archive stay together up to a bound."""
    claimed_at = next((batch["claimed_at"][0].as_py() for batch in staging.batches(Part.RAW, ["claimed_at"])
                       if len(batch)), None)  # fmt: skip
    if claimed_at is None:
        return  # everything has left the batch
    left = sum(len(batch) for batch in staging.batches(Part.RAW, ["object_id"]))
    whole = settings.reading.chunk_objects
    shares = SHARES * worker_count(settings.reading)
    shortest = SHORTEST if left > whole else SHORTEST_OF_FEW
    erased = refusals(staging.files, admits=settings.erase.re_arrival == "admit").for_reading()
    held: list[ObjectTask] = []
    number = clinical = 0

    def chunk() -> Chunk:
        return Chunk(
            number,
            staging.batch_id,
            run_id,
            claimed_at,
            source,
            settings.reading,
            settings.archives,
            settings.clinical,
            settings.fhir,
            tuple(held),
            refusals=erased,
        )

    for task in tasks(staging):
        members = bool(held) and held[-1].member is not None
        changes = bool(held) and members and (task.member is None or task.uri != held[-1].uri)
        longer = MEMBERS_PER_FILE if members else 1
        share = -(-(left + len(held)) // shares)
        bound = min(whole * longer, max(shortest * longer, share))
        own = task.size if task.kind in (Kind.CLINICAL, Kind.CORRECTION) else 0
        full = len(held) >= bound or (changes and len(held) >= bound // (2 * longer))
        if full or (clinical and clinical + own > CLINICAL_BYTES):
            yield chunk()
            number += 1
            held, clinical = [], 0
        held.append(task)
        clinical += own
        left -= 1
    if held:
        yield chunk()


def read_batch(
    staging: Staging,
    settings: Settings,
    source: SourceSettings,
    engine: ReadingEngine,
    run_id: str,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Mapping[str, int]:
    """Reads and judges the staged objects of a batch; stages ledger, rows and errors; counts outcomes.

    At most the engine's chunks in flight are in memory. Raises StagingMissing when the batch was not expanded,
    LakeError when staging cannot be written.
    """
    total = staging.require_all(Part.RAW, "object_id")
    read = (Part.LEDGER, Part.FLAT, Part.CLINICAL, Part.CORRECTION, Part.ERRORS)
    staging.clear(*read)
    outcomes: Counter[str] = Counter()
    rows: Counter[Part] = Counter()
    done, started = 0, time.monotonic()
    with closing(engine.run(judge_chunk, chunks(staging, settings, source, run_id))) as results:
        for number, judged in enumerate(results):  # not a chunk's own number: one that was divided comes in parts
            for part, arrow in judged.parts.items():
                staging.put_bytes(part, number, arrow)
                rows[part] += arrow_rows(arrow)
            outcomes.update(judged.outcomes)
            done += judged.objects
            progress(Progress(staging.batch_id, done, total, done / max(time.monotonic() - started, 1e-6)))
    for part in read:
        staging.complete(part, rows[part])
    return outcomes
