"""Returns: objects that a batch gave back to be claimed again, why, and from when on.

Belongs here: the log of returns, beside the log of claims. Does not belong here: which objects a batch gives back
(`batch.leaving`), claiming them again (`claims`).

There are two kinds. What *waits* could not be read for an outside reason: it has left its batch, no table has a row of
it there, and it is claimed again when its pause is over. What was *absent* was gone or changed when it was to be read:
its batch has accounted for it, and it is claimed again only when it is listed as it was.

What a batch returns stands in write-once files `_returns/batches/{batch}/{n}.parquet`, so a batch that is run again
knows what is not its own any more. So that a round of claiming need not look at every batch, a mark
`_returns/open/{batch}.{n}/` says that not all of such a file is claimed again. It is written first: a mark without its
file means nothing, a file without its mark cannot be. Marks that have piled up, and those of files that are claimed
again, are merged into `_returns/open/merged-{n}/` by whoever has the right to claim.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.landing.refusals import ERASED
from dicom_assets.schema.registry import OWN, TIMESTAMP
from dicom_assets.storage.files import LakeFiles

FOLDER = "_returns"
_BATCHES, _OPEN, _MERGED = f"{FOLDER}/batches", f"{FOLDER}/open", "merged-"
MERGE_AFTER = 16
"""Files of `_returns/open` after which they are merged: each is a request of every round of claiming."""

RETURNS = pa.schema(
    [
        *(OWN[name].field for name in ("batch_id", "object_id", "source", "uri", "etag", "size", "modified_at")),
        pa.field("attempt", pa.int64()),
        pa.field("code", pa.string()),
        pa.field("waits", pa.bool_()),
        pa.field("returned_at", TIMESTAMP),
        pa.field("due_at", TIMESTAMP),
        pa.field("batch_kind", pa.string()),
        pa.field("read_in", pa.string()),
    ]
)
"""Columns of the log.

attempt: how often the object had been claimed when it was returned. waits: whether it has left the batch; otherwise it
was absent. due_at: it is not claimed again before. batch_kind, read_in: as in the manifest of the batch that
returned it; NULL in files of releases that knew one kind of batch.
"""


def returned(
    objects: pa.Table, codes: Mapping[str, str], pauses: tuple[float, ...], now: datetime, *, waits: bool
) -> pa.Table:
    """Rows for the log (schema RETURNS).

    objects: rows of a batch's manifest. codes: reason by object_id, for each of them. pauses: seconds until an object
    is claimed again, by attempt; the last one counts from then on. What was absent for the first time is claimed as
    soon as it is listed again, since it is its listing that says that it is back.
    """
    attempts = objects["attempt"].to_pylist()
    skipped = 1 if waits else 2
    seconds = [0.0 if a < skipped else pauses[min(a - skipped, len(pauses) - 1)] for a in attempts]
    extra = {
        "code": pa.array([codes[one] for one in objects["object_id"].to_pylist()], pa.string()),
        "waits": pa.array([waits] * len(objects), pa.bool_()),
        "returned_at": pa.array([now] * len(objects), TIMESTAMP),
        "due_at": pa.array([now + timedelta(seconds=one) for one in seconds], TIMESTAMP),
    }
    own = objects.select([name for name in objects.column_names if name in RETURNS.names])
    for name, values in extra.items():
        own = own.append_column(name, values)
    return _as_returns(own)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Objects of one source that left their batch and wait to be read again.

    codes: how many there are for each reason. next_at: when the first of them is claimed again.
    """

    source: str
    objects: int
    codes: Mapping[str, int]
    next_at: datetime


def waiting(returned: pa.Table) -> list[Waiting]:
    """What of the returned rows (schema RETURNS) waits, source by source."""
    by_source: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in returned.filter(returned["waits"]).select(["source", "code", "due_at"]).to_pylist():
        by_source[row["source"]].append(row)
    return [
        Waiting(source, len(rows), Counter(row["code"] for row in rows), min(row["due_at"] for row in rows))
        for source, rows in sorted(by_source.items())
    ]


class ReturnLog:
    """What the batches of one lake have returned."""

    def __init__(self, files: LakeFiles) -> None:
        """A log among the lake's files."""
        self._files = files
        self._read: dict[str, pa.Table] = {}

    def of_batch(self, batch_id: str) -> pa.Table:
        """What a batch has returned (schema RETURNS), whether it was claimed again or not. Raises LakeError."""
        tables = [self._get(path) for path in self._files.names(f"{_BATCHES}/{batch_id}")]
        return pa.concat_tables([RETURNS.empty_table(), *(table for table in tables if table is not None)])

    def write(self, batch_id: str, rows: pa.Table) -> None:
        """Returns objects of a batch; durable when it comes back. Those that it has returned already stay as they are.

        rows: schema RETURNS. Whoever calls it holds the batch. Raises LakeError.
        """
        known = self.of_batch(batch_id)["object_id"]
        fresh = rows.filter(pc.invert(pc.is_in(rows["object_id"], value_set=known.combine_chunks())))
        if not len(fresh):
            return
        number = len(self._files.names(f"{_BATCHES}/{batch_id}"))
        while True:
            self._files.put(f"{_OPEN}/{batch_id}.{number:06d}/mark", b"")
            if self._files.put_parquet(f"{_BATCHES}/{batch_id}/{number:06d}.parquet", fresh, create=True):
                return
            number += 1

    def open(self, attempts: Mapping[str, int]) -> pa.Table:
        """What was returned and is not claimed again (schema RETURNS), each object once. Raises LakeError.

        attempts: how often objects were claimed that were claimed more than once, by object_id.
        """
        tables = [table for name in self._files.names(_OPEN) if (table := self._get(_record(name))) is not None]
        return _still_open(pa.concat_tables([RETURNS.empty_table(), *tables]), attempts)

    def merge(self, attempts: Mapping[str, int]) -> None:
        """Merges the marks when there are many, or when what some stand for is claimed again; see `open`.

        Call it with the right to claim. Raises LakeError.
        """
        names = self._files.names(_OPEN)
        tables = {name: table for name in names if (table := self._get(_record(name))) is not None}
        settled = any(not len(_still_open(table, attempts)) for table in tables.values())
        if len(tables) <= MERGE_AFTER and not settled:
            return
        left = _still_open(pa.concat_tables([RETURNS.empty_table(), *tables.values()]), attempts)
        if len(left):
            numbers = [int(name.split(_MERGED)[1].split("/")[0]) for name in names if _MERGED in name]
            number = max(numbers, default=0) + 1
            self._files.put_parquet(f"{_OPEN}/{_MERGED}{number:012d}/rows.parquet", left, create=True)
        for name in tables:
            self._files.delete(name.rpartition("/")[0])

    def _get(self, path: str) -> pa.Table | None:
        """A file of the log, which never changes; None when there is none."""
        if path not in self._read:
            try:
                self._read[path] = _as_returns(self._files.get_parquet(path))
            except FileNotFoundError:
                return None
        return self._read[path]


def _as_returns(rows: pa.Table) -> pa.Table:
    for field in RETURNS:
        if field.name not in rows.column_names:
            rows = rows.append_column(field.name, pa.nulls(len(rows), field.type))
    return rows.select(RETURNS.names).cast(RETURNS)


def _record(name: str) -> str:
    """The file that a name in `_returns/open` stands for."""
    folder = name.split("/")[-2]
    if folder.startswith(_MERGED):
        return name
    batch_id, _, number = folder.rpartition(".")
    return f"{_BATCHES}/{batch_id}/{number}.parquet"


def _still_open(rows: pa.Table, attempts: Mapping[str, int]) -> pa.Table:
    rows = rows.filter(pc.invert(pc.fill_null(pc.starts_with(rows["uri"], ERASED), False)))
    seen: set[tuple[str, int]] = set()
    keep: list[bool] = []
    for one, attempt in zip(rows["object_id"].to_pylist(), rows["attempt"].to_pylist(), strict=True):
        keep.append(attempts.get(one, 1) <= attempt and (one, attempt) not in seen)
        seen.add((one, attempt))
    return rows.filter(pa.array(keep, pa.bool_()))
