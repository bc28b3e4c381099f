"""Reading closed batches again: what lies at its source as it was claimed must still say what the lake says.

Belongs here: finding objects that were overwritten by bytes of the same size and time, which no listing tells. Does not
belong here: how an object is read (`reading.judge`).

Each batch is expanded and read as it was, into a staging of its own that nobody publishes; of what comes back only
digests are kept. Objects that are not there as claimed any more cannot be compared.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pyarrow as pa

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.expand import expand
from dicom_assets.batch.known import known_before
from dicom_assets.batch.leaving import own_manifest
from dicom_assets.batch.organize import Organizing
from dicom_assets.batch.validate import Progress, chunks
from dicom_assets.batch.verification.findings import SHOWN, Finding
from dicom_assets.lake.query import connect
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.landing.opening import open_store
from dicom_assets.reading.judge import judge_chunk
from dicom_assets.schema.codes import WAITING

_AWAY = f"(coalesce(again.outcome, '{WAITING}') = '{WAITING}' OR again.code IN ('OBJECT_GONE', 'CHANGED_DURING_READ'))"
"""SQL: an object is not there as claimed, or cannot be read now."""

_OTHER_FORM = "digests.content_digest IS NOT NULL AND digests.header_form IS DISTINCT FROM flat.header_form"

_COMPARED = f"""
-- objects of one batch by what reading them again gave; NULL digests are those of change entries and other kinds;
-- headers of another form than today's have other digests for the same object
SELECT
    count(*) FILTER ({_AWAY}),
    count(*) FILTER ({_OTHER_FORM}),
    list(object_id ORDER BY object_id) FILTER (
        NOT coalesce({_AWAY}, false)
        AND digests.content_digest IS DISTINCT FROM flat.content_digest AND NOT ({_OTHER_FORM})
    )
FROM flat_metadata AS flat
LEFT JOIN again USING (object_id)
LEFT JOIN digests USING (object_id)
WHERE flat.batch_id = $1
"""


def compare(
    work: RunContext, batches: Sequence[str], progress: Callable[[Progress], None] = lambda _: None
) -> Iterator[Finding]:
    """Reads closed batches again. Raises SettingsError for a source that is not configured, SourceUnavailable."""
    differing: list[str] = []
    of: list[str] = []
    away = older = 0
    for batch in batches:
        gone, old, changed = _compared(work, batch, progress)
        away, older = away + gone, older + old
        differing += changed
        of += [batch] if changed else []
    told = [f"{away} objects are not there as claimed and were not compared"] if away else []
    told += [f"{older} objects have headers of an older form and were not compared"] if older else []
    yield Finding(
        "digests",
        "Objects at their source = their headers in the lake",
        len(differing),
        of,
        shown=differing[:SHOWN],
        told="; ".join(told),
    )


def _compared(work: RunContext, batch_id: str, progress: Callable[[Progress], None]) -> tuple[int, int, list[str]]:
    """How many objects of a batch are away, how many have a header of an older form, and which say something else."""
    manifest = work.log.manifest(batch_id)
    source = work.settings.source(manifest["source"][0].as_py())
    store = open_store(source)
    scratch = Staging(work.lake.files, f"verify-{uuid.uuid4().hex[:12]}")
    try:
        own, settled = own_manifest(manifest, work.log.returns)
        organizing = Organizing(work.lake, store, batch_id, work.settings)
        if organizing.is_placed:
            total = organizing.stage(scratch, settled)
        else:
            known = known_before(work.lake, batch_id)
            total = expand(own, source, work.settings, scratch, work.engine, known, settled)
            scratch.complete(Part.RAW, total)
        again: list[pa.RecordBatch] = []
        digests: list[pa.RecordBatch] = []
        done = 0
        with closing(work.engine.run(judge_chunk, chunks(scratch, work.settings, source, batch_id))) as results:
            for judged in results:
                for part, kept in ((Part.LEDGER, again), (Part.FLAT, digests)):
                    if part in judged.parts:
                        names = _KEPT[part].names
                        kept += work.lake.files.arrow_batches("", names, judged.parts[part])
                done += judged.objects
                progress(Progress(batch_id, done, total, 0.0))
    finally:
        scratch.remove()
    within = {"flat_metadata": {"batch_id": [batch_id]}}
    with connect(work.lake, ["flat_metadata"], within=within) as connection:
        connection.register("again", pa.Table.from_batches(again, _KEPT[Part.LEDGER]))
        connection.register("digests", pa.Table.from_batches(digests, _KEPT[Part.FLAT]))
        gone, older, changed = connection.execute(_COMPARED, [batch_id]).fetchall()[0]
    return int(gone), int(older), list(changed or ())


_KEPT = {
    part: pa.schema([SCHEMAS[part].field(name) for name in names])
    for part, names in (
        (Part.LEDGER, ("object_id", "outcome", "code")),
        (Part.FLAT, ("object_id", "header_form", "content_digest")),
    )
}
"""What is kept of what comes back."""
