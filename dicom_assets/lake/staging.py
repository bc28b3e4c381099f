"""Where a batch's rows wait until its checks have passed: `{lake}/_staging/{batch_id}/{part}/…arrow`.

Belongs here: the parts and their schemas, writing, reading, clearing. Staged rows are as the tables will have them,
without batch_id where a part says so. Does not belong here: what the rows mean.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Lock
from typing import Any, TypeVar

import pyarrow as pa

from dicom_assets.schema.registry import (
    CLINICAL,
    CORRECTION,
    FLAT_METADATA,
    INGESTION_ERRORS,
    RAW_FILES,
    VALIDATED_BATCH,
)
from dicom_assets.storage.files import LakeError, LakeFiles, arrow_bytes

FOLDER = "_staging"
Result = TypeVar("Result")

_WHOLE = "whole"
"""Name of the mark beside a part's files: it holds their rows, is written last and goes with them."""
_BEGUN = "begun"
"""Name of the mark by which a turn is taken; see `Staging.begin`."""
KEPT_BYTES = 32 << 20
"""What is kept of a batch's staged files on an object store; what comes after that is fetched when it is read."""
KEPT_ROWS_BYTES = 32_000_000
"""What is kept of a batch's staged rows in memory; what comes after that is read again."""


class Part(StrEnum):
    """One kind of staged rows."""

    RAW = "raw_files"
    LEDGER = "validated_batch"
    FLAT = "flat_metadata"
    CLINICAL = "clinical"
    CORRECTION = "correction"
    ERRORS = "ingestion_errors"
    TOUCHED = "touched_studies"
    ALIKE = "touched_digests"
    REFUSED = "refused_metadata"


OPTIONAL = frozenset((Part.REFUSED,))
"""Parts that a batch need not have: rows of metadata that a rule of the house keeps out, for the check to judge."""

LOCATION = pa.struct(
    [
        pa.field("uri", pa.string()),
        pa.field("etag", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("member", pa.string()),
        pa.field("entry", pa.list_(pa.int64())),
        pa.field("container_size", pa.int64()),
    ]
)
"""Where an object lies; member, entry and container_size where that is in an archive."""

RAW_STAGED = pa.schema(
    [
        *RAW_FILES.schema,
        pa.field("entry", pa.list_(pa.int64())),
        pa.field("container_size", pa.int64()),
        pa.field("verdict", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("at", LOCATION),
    ]
)
"""raw_files with what reading needs besides.

entry, container_size: place in the container, and its size. verdict: a code that is settled already. at: where the
object lies now, if it was moved since it was claimed.
"""

_NARROW = frozenset((Part.RAW, Part.LEDGER, Part.ERRORS, Part.TOUCHED))
"""Parts that are read whole as soon as something of them is asked for."""
_NARROW_FLAT = frozenset((
    "object_id", "study_key", "issues", "operation", "version_text", "StudyInstanceUID", "SeriesInstanceUID",
    "SOPInstanceUID", "stable_digest", "pixel_digest",
))  # fmt: skip
"""Columns of flat_metadata that are read together as soon as one is asked for: opening its files is what costs."""

SCHEMAS: dict[Part, pa.Schema] = {
    Part.RAW: RAW_STAGED,
    Part.LEDGER: VALIDATED_BATCH.schema,
    Part.FLAT: FLAT_METADATA.schema,
    Part.REFUSED: FLAT_METADATA.schema,
    Part.CLINICAL: CLINICAL.schema,
    Part.CORRECTION: CORRECTION.schema,
    Part.ERRORS: INGESTION_ERRORS.schema,
    Part.TOUCHED: pa.schema([pa.field("study_key", pa.string())]),
    Part.ALIKE: pa.schema([pa.field("shared_key", pa.string()), pa.field("was_there", pa.bool_())]),
}


class StagingMissing(LakeError):
    """An asset was run alone, and what it needs is not staged, or not any more."""


def again(batch_id: str) -> str:
    """The sentence that says how a batch is run from its beginning to its end."""
    return f"Run the whole job: dagster job backfill -j ingest_batch --partitions {batch_id} --noprompt"


@dataclass
class StagingCache:
    """What the one process that holds a batch knows of its staged files: nobody else writes or deletes them meanwhile.

    names: the files of a part; parts that are not in it have to be listed. whole: rows of parts that are staged whole.
    data: files of a lake on an object store. tables: rows of parts, in some columns, that were read already: a dozen
    rules ask for the same ones, and a part lies in many files. results: what a step has made for the next one as well,
    by its type. check: raises LakeError when the right to the batch is lost. turn: see `Staging.begin`; None before it
    is known.
    """

    check: Callable[[], None] = lambda: None
    turn: int | None = None
    names: dict[Part, list[str]] = field(default_factory=dict)
    whole: dict[Part, int] = field(default_factory=dict)
    data: dict[str, bytes] = field(default_factory=dict)
    tables: dict[tuple[Part, tuple[str, ...]], pa.Table] = field(default_factory=dict)
    results: dict[type[Any], Any] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    @contextmanager
    def writing(self, part: Part, name: str, data: bytes | None) -> Iterator[None]:
        """Around the writing of a file; data: None for files that are quick to read."""
        with self.lock:
            before = self.names.pop(part, None)  # when it fails, the storage tells what is there
            self.data.pop(name, None)
            self._forget({part})
            yield
            self._forget({part})
            if before is not None:
                self.names[part] = sorted({*before, name})
            if data is not None and sum(map(len, self.data.values())) + len(data) <= KEPT_BYTES:
                self.data[name] = data

    @contextmanager
    def deleting(self, parts: Iterable[Part]) -> Iterator[None]:
        """Around the deletion of parts."""
        gone = set(parts)
        with self.lock:
            for part in gone:
                self.names.pop(part, None)
                self.whole.pop(part, None)
            self.data = {name: data for name, data in self.data.items() if _part(name) not in gone}
            self._forget(gone)
            yield
            self._forget(gone)
            self.names.update({part: [] for part in gone})

    def read(self, part: Part, columns: tuple[str, ...], read: Callable[[], pa.Table]) -> pa.Table:
        """The rows of a part in some columns, read unless they were, and kept as long as there is room."""
        found = self.tables.get((part, columns))
        if found is None:
            names = self.names.get(part)
            found = read()
            with self.lock:
                is_unchanged = names is not None and self.names.get(part) is names
                if is_unchanged and sum(one.nbytes for one in self.tables.values()) + found.nbytes <= KEPT_ROWS_BYTES:
                    self.tables[part, columns] = found
        return found

    def _forget(self, parts: Collection[Part]) -> None:
        for key in [key for key in self.tables if key[0] in parts]:
            self.tables.pop(key, None)


def object_ids(rows: pa.Table) -> list[str]:
    """The object_ids of some rows, in their order."""
    ids: list[str] = rows["object_id"].to_pylist()
    return ids


def _part(name: str) -> str:
    return name.rsplit("/", 2)[1]


def _columns_of(part: Part, columns: list[str] | None) -> pa.Schema:
    schema = SCHEMAS[part]
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])


def _completed(rows: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
    """Staged rows with NULL in columns that an earlier release did not stage; a batch that waits may be as old."""
    names = rows.schema.names
    if names == wanted.names:
        return rows
    columns = [rows[one.name] if one.name in names else pa.nulls(len(rows), one.type) for one in wanted]
    return pa.RecordBatch.from_arrays(columns, schema=wanted)


@dataclass(frozen=True)
class Staging:
    """The staged rows of one batch. cache: for whoever holds the batch, which then asks the storage less often."""

    files: LakeFiles
    batch_id: str
    cache: StagingCache | None = field(default=None, repr=False, compare=False)

    @property
    def root(self) -> str:
        """The batch's own prefix; nothing else is ever deleted."""
        return f"{FOLDER}/{self.batch_id}"

    @property
    def folder(self) -> str:
        """Where the files of the batch's last turn lie. On an object store it is looked for; see `begin`."""
        if self.files.local_root is not None:
            return self.root
        if self.cache is None:
            return self._of_turn(self._last_turn())
        if self.cache.turn is None:
            self.cache.turn = self._last_turn()
        return self._of_turn(self.cache.turn)

    def begin(self) -> None:
        """Begins anew, with nothing staged, in a folder that nobody else writes to. Raises LakeError.

        The right to a batch on an object store is a lease, which ends while its holder is stopped: a write that was on
        its way then comes when somebody else has taken the batch over. So each turn has a number, which only one can
        take, and only what the last one has staged is ever read. A lock of the operating system is never lost.
        """
        if self.files.local_root is not None or self.cache is None:
            return
        self.cache.check()
        turn = self._last_turn() + 1
        if not self.files.put(f"{self._of_turn(turn)}/{_BEGUN}", b"", create=True):
            raise LakeError(f"Somebody else has taken over batch {self.batch_id}. {again(self.batch_id)}")
        with self.cache.deleting(Part):
            self.cache.turn = turn
        for earlier in {name.split("/")[2] for name in self.files.names(self.root)} - {f"{turn:06d}"}:
            self.files.delete(f"{self.root}/{earlier}")

    def _of_turn(self, turn: int) -> str:
        return f"{self.root}/{turn:06d}" if turn else self.root

    def _last_turn(self) -> int:
        """The number of the last turn; 0 when none has begun."""
        names = [name.split("/")[2] for name in self.files.names(self.root) if name.endswith(f"/{_BEGUN}")]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def _check(self) -> None:
        if self.cache is not None:
            self.cache.check()

    def remember(self, result: object) -> None:
        """Keeps what a step has made of the batch, in place of what it made before, as long as the batch is held."""
        if self.cache is not None:
            self.cache.results[type(result)] = result

    def recall(self, kind: type[Result]) -> Result | None:
        """What a step has made of the batch; None when nothing is kept."""
        return None if self.cache is None else self.cache.results.get(kind)

    def scope(self, *tables: str) -> dict[str, dict[str, list[str]]]:
        """What to open of some tables to see the batch's own rows; for `lake.query.connect`."""
        return {name: {"batch_id": [self.batch_id]} for name in tables}

    def put(self, part: Part, number: int, table: pa.Table) -> None:
        """Stages rows as file `number` of a part, whole or not at all."""
        self.put_bytes(part, number, arrow_bytes(table))

    def put_bytes(self, part: Part, number: int, arrow: bytes) -> None:
        """Stages rows that are an Arrow file already."""
        name = f"{self.folder}/{part}/{number:06d}.arrow"
        remote = self.files.local_root is None
        self._check()
        with self.cache.writing(part, name, arrow if remote else None) if self.cache else nullcontext():
            self.files.put(name, arrow, durable=False)  # it can be read again

    def names(self, part: Part) -> list[str]:
        """The staged files of a part, in their order."""
        if self.cache is None:
            return self._listed(part)
        with self.cache.lock:
            if part not in self.cache.names:
                self.cache.names[part] = self._listed(part)
            return self.cache.names[part]

    def _listed(self, part: Part) -> list[str]:
        return [name for name in self.files.names(f"{self.folder}/{part}") if name.endswith(".arrow")]

    def batches(self, part: Part, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The staged rows of a part, `storage.files.ARROW_ROWS` in memory at a time."""
        for name in self.names(part):
            data = None if self.cache is None else self.cache.data.get(name)
            wanted = _columns_of(part, columns)
            yield from (_completed(rows, wanted) for rows in self.files.arrow_batches(name, columns, data))

    def file_rows(self, part: Part, name: str) -> pa.Table:
        """The rows of one staged file of a part."""
        wanted = SCHEMAS[part]
        return pa.Table.from_batches((_completed(rows, wanted) for rows in self.files.arrow_batches(name)), wanted)

    def reader(self, part: Part, columns: list[str]) -> pa.RecordBatchReader:
        """The staged rows of a part one batch after the other, for DuckDB to run through once."""
        return pa.RecordBatchReader.from_batches(_columns_of(part, columns), self.batches(part, columns))

    def read(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        """All rows of a part; not for parts that hold headers."""
        if self.cache is None or (columns is None and part is Part.FLAT):
            return self._read(part, columns)
        self.names(part)  # known from here on, so that a change of them is seen
        wanted = SCHEMAS[part].names if columns is None else columns
        asked = wanted
        if part in _NARROW:
            asked = SCHEMAS[part].names
        elif part is Part.FLAT and _NARROW_FLAT.issuperset(wanted):
            asked = [name for name in SCHEMAS[part].names if name in _NARROW_FLAT]
        found = self.cache.read(part, tuple(asked), lambda: self._read(part, asked))
        return found.select(wanted) if columns is not None else found

    def _read(self, part: Part, columns: list[str] | None) -> pa.Table:
        return pa.Table.from_batches(self.batches(part, columns), _columns_of(part, columns))

    def clear(self, *parts: Part) -> None:
        """Deletes parts, so that a rerun starts anew."""
        self._delete([f"{self.folder}/{part}" for part in parts], parts)

    def complete(self, part: Part, rows: int) -> None:
        """Marks a part as staged whole, with so many rows; one without rows as well, which has no file."""
        self._check()
        self.files.put(f"{self.folder}/{part}/{_WHOLE}", str(rows).encode(), durable=False)
        if self.cache is not None:
            with self.cache.lock:
                self.cache.whole[part] = rows

    def complete_as_it_is(self, part: Part) -> None:
        """Marks a part as staged whole with the rows that are there, after some were added or taken out."""
        self.complete(part, sum(len(batch) for batch in self.batches(part, ["object_id"])))

    def stage(self, part: Part, table: pa.Table) -> None:
        """Stages all rows of a part, in place of those that it had."""
        self.clear(part)
        if len(table):
            self.put(part, 0, table)
        self.complete(part, len(table))

    def rows(self, part: Part) -> int:
        """How many rows of a part were staged. Raises StagingMissing when it is not staged whole."""
        found = None if self.cache is None else self.cache.whole.get(part)
        if found is not None:
            return found
        try:
            return int(self.files.get(f"{self.folder}/{part}/{_WHOLE}"))
        except (FileNotFoundError, ValueError):
            raise StagingMissing(
                f"Batch {self.batch_id} has no staged {part}: the steps before were not run, or it is closed since. "
                f"{again(self.batch_id)}"
            ) from None

    def require(self, *parts: Part) -> None:
        """Raises StagingMissing when one of some parts is not staged whole."""
        for part in parts:
            self.rows(part)

    def read_whole(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        """All rows of a part that is staged whole, see `read`. Raises StagingMissing when it is not."""
        wanted = self.rows(part)
        table = self.read(part, columns)
        if len(table) != wanted:
            raise self._torn(part, wanted, len(table))
        return table

    def require_all(self, part: Part, column: str) -> int:
        """How many rows of a part are there, counted. Raises StagingMissing when there were more or less."""
        wanted = self.rows(part)
        there = len(self.read(part, [column]))
        if there != wanted:
            raise self._torn(part, wanted, there)
        return there

    def _torn(self, part: Part, wanted: int, there: int) -> StagingMissing:
        return StagingMissing(
            f"Batch {self.batch_id}: {wanted} rows of {part} were staged, {there} are there. {again(self.batch_id)}"
        )

    def remove(self) -> int:
        """Deletes the batch's staging; how many files there were."""
        return self._delete([self.root], Part)

    def _delete(self, folders: Iterable[str], parts: Iterable[Part]) -> int:
        self._check()
        with self.cache.deleting(parts) if self.cache else nullcontext():
            return sum(map(self.files.delete, folders))

    def left(self) -> int:
        """How many staged files there are."""
        return len(self.files.names(self.root))
