"""Claims and tables that were copied at different moments: what they do not agree on is told, and mended.

Belongs here: a lake that was put back, whose claims are newer or older than its tables. Does not belong here: claims
that a power cut has torn (`batch.recovery`), comparing everything with everything (`batch.verification`).

A batch that is claimed and not closed runs again; the books forget one that was at work, so that sensors ask for it. A
batch that tables have and nobody claimed is claimed as known, from its rows in raw_files. What was returned by a batch
that nobody claimed is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.books import Status, all_books
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect
from dicom_assets.landing import claim_index, claims, returns, uri_index
from dicom_assets.landing.claims import MANIFEST, BatchKind, ClaimLog, with_defaults
from dicom_assets.schema.registry import BATCHES


@dataclass(frozen=True)
class Agreement:
    """What was found of a lake that was put back.

    to_run: batches that are claimed and not closed, which run again; of these, begun: those that were at work. claimed:
    batches that tables have and that are claimed as known now. forgotten: batches of the books without rows or claim.
    returns: rows of returned objects of batches that nobody claimed.
    """

    to_run: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()
    claimed: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    returns: int = 0


def agree(lake: Lake) -> Agreement:
    """Mends a lake that nobody works on. Raises LakeError."""
    for folder in (claim_index.FOLDER, uri_index.FOLDER):  # of other claims
        lake.files.delete(folder)
    known = {claim.batch_id for claim in ClaimLog(lake.files).claims()}
    claimed = _claim_known(lake, known)
    known |= set(claimed)
    books = all_books(lake)
    forgotten = [one.batch_id for one in books if one.batch_id not in known]
    begun = [one.batch_id for one in books if one.batch_id in known and one.status == Status.OPEN]
    _forget(lake, [*forgotten, *begun])
    closed = {one.batch_id for one in books if one.status == Status.CLOSED}
    waits = {one.batch_id for one in books if one.status in (Status.PAUSED, Status.FAILED)}
    return Agreement(
        tuple(sorted(known - closed - waits)),
        tuple(begun),
        tuple(claimed),
        tuple(forgotten),
        _drop_returns(lake, known),
    )


def _claim_known(lake: Lake, known: set[str]) -> list[str]:
    """Claims the batches that raw_files has and nobody claimed, oldest first; which."""
    kinds = {one.batch_id: one.kind for one in all_books(lake)}
    with connect(lake, ["raw_files"]) as connection:
        connection.register("known", pa.table({"batch_id": pa.array(sorted(known), pa.string())}))
        rows = arrow(
            connection,
            "SELECT * FROM raw_files ANTI JOIN known USING (batch_id) "
            "WHERE container_id IS NULL ORDER BY batch_id, uri",
        )
    found = sorted(set(rows["batch_id"].to_pylist()))
    numbers = [claims.number_of(path) for path in lake.files.names(claims.FOLDER)]
    for number, batch in enumerate(found, max(numbers, default=0) + 1):
        own = with_defaults(rows.filter(pc.equal(rows["batch_id"], batch)))
        kind = kinds.get(batch) or str(BatchKind.ARRIVAL)
        at = own.column_names.index("batch_kind")
        own = own.set_column(at, MANIFEST.field("batch_kind"), pa.array([kind] * len(own), pa.string()))
        manifest = own.select(MANIFEST.names).cast(MANIFEST)
        lake.files.put_parquet(f"{claims.FOLDER}/{number:012d}.parquet", manifest, create=True)
    return found


def _forget(lake: Lake, batches: Sequence[str]) -> None:
    if batches:
        with lake.committing(BATCHES.name):
            lake.replace(BATCHES.name, sorted(batches), BATCHES.schema.empty_table())


def _drop_returns(lake: Lake, known: set[str]) -> int:
    """Takes out what batches have returned that nobody claimed; how many rows."""
    dropped = 0
    for name in lake.files.names(returns.FOLDER):
        if not name.endswith(".parquet"):
            continue
        rows = lake.files.get_parquet(name)
        kept = rows.filter(pc.is_in(rows["batch_id"], pa.array(sorted(known), pa.string())))
        if len(kept) < len(rows):
            dropped += len(rows) - len(kept)
            lake.files.put_parquet(name, kept)
    return dropped
