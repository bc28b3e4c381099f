"""What the objects of a chunk are by their content, and what archives and window files among them hold.

It runs in a reading process, because what it opens may hang it or bring it down: inflating a member of an archive costs
what whoever made the archive wants it to cost. So it imports neither Dagster nor DuckDB nor delta-rs, and returns rows.
Does not belong here: which entries are accounted for already, staging (`expand`); judging what is inside (`judge`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

import pyarrow as pa

from dicom_assets.lake.staging import RAW_STAGED
from dicom_assets.landing.archives import ArchiveError, Member, members, recognise
from dicom_assets.landing.change_windows import PageLine, PageUnreadable, read_head, read_page
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.recognition import look_closer
from dicom_assets.landing.sniff import Form, Sniffed, is_system_file, kind_of
from dicom_assets.landing.store import LandingStore, ObjectError, ObjectRef, OpenObject, object_id, source_of
from dicom_assets.schema.codes import Kind
from dicom_assets.settings import ArchiveLimits, ClinicalSettings, SourceSettings
from dicom_assets.storage.files import ArrowSink

HEAD_BYTES = 4_096
ROWS = 20_000
"""Rows that are held before they become a table, which takes far less memory."""

Row = dict[str, Any]


@dataclass(frozen=True)  # slots would double what it costs to pickle one
class ClaimedObject:
    """One object of the manifest. verdict: the code that it ends in without being opened."""

    object_id: str
    uri: str
    etag: str
    size: int
    modified_at: datetime | None
    verdict: str | None = None


@dataclass(frozen=True)
class ListingChunk:
    """Some objects of a manifest. poison: codes by object_id of objects that broke a process.

    corrections: patterns of the files that tables of corrections are believed in.
    """

    batch_id: str
    claimed_at: datetime
    settings: SourceSettings
    archives: ArchiveLimits
    objects: tuple[ClaimedObject, ...]
    clinical: ClinicalSettings = field(default_factory=ClinicalSettings)
    corrections: tuple[str, ...] = ()
    poison: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Listed:
    """Rows of raw_files as an Arrow file (schema RAW_STAGED), each object before what it holds.

    revised: uris of window files that were read again, whose entries may be accounted for.
    """

    rows: bytes
    revised: tuple[str, ...]


class Rows:
    """Collects rows into tables of a bounded number each."""

    def __init__(self) -> None:
        """Holds none."""
        self._held: list[Row] = []
        self._tables: list[pa.Table] = []

    def add(self, rows: Iterable[Row]) -> None:
        """Takes rows as they come."""
        rows = iter(rows)
        while True:
            self._held += islice(rows, ROWS - len(self._held))
            if len(self._held) < ROWS:
                return
            self._fold()

    def append(self, others: Rows) -> None:
        """Takes what others hold."""
        if others._tables:
            self._fold()
            self._tables += others._tables
        self._held += others._held

    def __len__(self) -> int:
        return len(self._held) + sum(map(len, self._tables))

    def _fold(self) -> None:
        if self._held:
            self._tables.append(pa.Table.from_pylist(self._held, schema=RAW_STAGED))
            self._held = []

    def taken(self) -> pa.Table:
        """All of them, which are not held any more."""
        self._fold()
        tables, self._tables = self._tables, []
        return pa.concat_tables([RAW_STAGED.empty_table(), *tables])


def list_chunk(chunk: ListingChunk, beat: Callable[[int], None]) -> Listed:
    """One row for each object of a chunk and each member of each archive in it.

    An object that cannot be opened, or that broke a process, keeps its row with the code that it will end in. beat:
    called with an object's position before it is opened.
    """
    listing, sink = _Listing(chunk, open_store(chunk.settings)), ArrowSink(RAW_STAGED)
    codes = [listing.settled(claimed) for claimed in chunk.objects]
    opened = listing.store.open_all(
        [ObjectRef(o.uri, o.etag, o.size) for o, code in zip(chunk.objects, codes, strict=True) if code is None],
        HEAD_BYTES,
    )
    for position, (claimed, code) in enumerate(zip(chunk.objects, codes, strict=True)):
        beat(position)
        if code is not None:
            listing.rows.add([listing.own(claimed) | {"verdict": code}])
            continue
        source = next(opened)
        listing.add(claimed, source)
        if not isinstance(source, ObjectError):
            source.close()
        if len(listing.rows) >= ROWS:
            sink.write(listing.rows.taken())
    beat(len(chunk.objects))
    sink.write(listing.rows.taken())
    return Listed(sink.close(), tuple(listing.revised))


@dataclass
class _Listing:
    """One chunk on its way."""

    chunk: ListingChunk
    store: LandingStore
    rows: Rows = field(default_factory=Rows)
    revised: list[str] = field(default_factory=list)

    def settled(self, claimed: ClaimedObject) -> str | None:
        """The code of an object that is not opened."""
        if claimed.verdict is not None:
            return claimed.verdict
        if is_system_file(self.store.below_root(claimed.uri)):
            return "SYSTEM_FILE"
        return self.chunk.poison.get(claimed.object_id)

    def own(self, claimed: ClaimedObject) -> Row:
        """The row of an object of which nothing is known but its claim."""
        return self._shared(claimed) | {
            "object_id": claimed.object_id,
            "size": claimed.size,
            "kind": str(Kind.OTHER),
        }

    def _shared(self, claimed: ClaimedObject) -> Row:
        return {
            "batch_id": self.chunk.batch_id,
            "source": source_of(self.store.name, claimed.uri),
            "uri": claimed.uri,
            "etag": claimed.etag,
            "modified_at": claimed.modified_at,
            "claimed_at": self.chunk.claimed_at,
        }

    def add(self, claimed: ClaimedObject, source: OpenObject | ObjectError) -> None:
        """Adds the rows of one object."""
        own = self.own(claimed)
        if isinstance(source, ObjectError):
            self.rows.add([own | {"verdict": source.code, "detail": source.detail}])
            return
        inside = Rows()
        try:
            head = source.read(0, HEAD_BYTES)
            first = kind_of(head, claimed.size)
            found, _ = recognise(first, source, head)
            if found is first:  # else its end has told what it is
                names = (self.store.below_root(claimed.uri),)
                found = look_closer(found, source, names, self.chunk.clinical, self.chunk.corrections)
            own["kind"], own["verdict"], own["detail"] = str(found.kind), found.code, found.detail
            if found.kind is Kind.ARCHIVE and found.code is None:
                # Members are listed before the archive's own row, because only then is it known whether it opens.
                inside.add(self._inside(claimed, source, found))
                own["verdict"] = "ARCHIVE_EXPANDED"
        except (ArchiveError, ObjectError, PageUnreadable) as error:
            own |= {"verdict": error.code, "detail": error.detail}
            inside = Rows()
        except OSError as error:
            own |= {"verdict": "READ_FAILED", "detail": type(error).__name__}
            inside = Rows()
        except MemoryError:
            raise  # this process has grown too far for the next object too; the engine replaces it
        except Exception as error:  # noqa: BLE001 - one object must not end its batch, whatever its bytes do to a parser
            own |= {"verdict": "UNPARSEABLE", "detail": type(error).__name__}
            inside = Rows()
        self.rows.add([own])
        self.rows.append(inside)

    def _inside(self, claimed: ClaimedObject, source: OpenObject, found: Sniffed) -> Iterator[Row]:
        shared = self._shared(claimed) | {"container_id": claimed.object_id, "container_size": claimed.size}
        if found.form is not Form.CHANGES:
            path = self.store.below_root(claimed.uri)
            for member in members(source, self.chunk.archives, self.chunk.clinical, path, self.chunk.corrections):
                yield shared | _member_row(self.store.name, claimed, member)
            return
        if read_head(source).revision:
            self.revised.append(claimed.uri)
        for line in read_page(source):
            yield shared | _entry_row(self.store.name, claimed, line)


def _entry_row(source: str, container: ClaimedObject, line: PageLine) -> Row:
    """One entry. Its version is that of its line: an entry that reads the same again is the same object."""
    return {
        "object_id": object_id(source, container.uri, line.etag, line.member),
        "member": line.member,
        "size": len(line.data),
        "kind": str(Kind.CHANGE),
        "entry": [line.number],
    }


def _member_row(source: str, container: ClaimedObject, member: Member) -> Row:
    return {
        "object_id": object_id(source, container.uri, container.etag, member.name),
        "member": member.name,
        "size": member.size,
        "kind": str(member.kind),
        "entry": list(member.entry),
        "verdict": member.code,
        "detail": member.detail,
    }


MOST_BYTES = 1 << 30
"""Bytes of the objects of a chunk, so that not all of what archives hold is in memory at once; one may have more.

Most objects are no archives, however large they are: at a sixteenth of this a folder of films is handed over in threes.
"""
SHORTEST = 64
"""Objects of a chunk at least, where there are so many: telling what a file is takes less than handing it over."""


def cut(objects: Sequence[ClaimedObject], longest: int, shares: int) -> Iterator[tuple[ClaimedObject, ...]]:
    """Cuts objects into chunks of at most `longest`, at least `shares` of them where there are many."""
    bound = min(longest, max(SHORTEST, -(-len(objects) // shares)))
    held: list[ClaimedObject] = []
    size = 0
    for one in objects:
        if held and (len(held) >= bound or size + one.size > MOST_BYTES):
            yield tuple(held)
            held, size = [], 0
        held.append(one)
        size += one.size
    if held:
        yield tuple(held)
