"""One object opened where it lies, so that a range of it can be read: a frame, the value that a reference stands for.

Belongs here: from a place, as the tables name it, to bytes in which references count. Does not belong here: which range
a frame is (`dicom.frames`), what a reference says (`dicom.references`), reading objects as they arrive (`reading`).

    with open_data(store, place, row["TransferSyntaxUID"], archives, most) as source:
        frame = read_frame(source, row, 3)
        value = retrieve(source, uri)

A file, a blob and a stored member are read by that range alone; a compressed member is inflated up to it, and a data
set in a deflated transfer syntax is inflated whole (PS3.5 A.5).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from dicom_assets.dicom.rejections import NotDicom, Unreadable
from dicom_assets.dicom.syntax import data_set, is_deflated, read_preface
from dicom_assets.landing.archives import OpenMember, entries_by_name, members, open_members
from dicom_assets.landing.moves import size_of
from dicom_assets.landing.store import LandingStore, ObjectError, ObjectRef, OpenObject, RangedStore
from dicom_assets.settings import ArchiveLimits
from dicom_assets.storage.byte_ranges import ByteSource

_PREFACE_BYTES = 1 << 16


class Place(NamedTuple):
    """Where an object lies.

    uri, etag, size: of the file or blob; of a member's archive (`lake.files_of_objects`). size: None where it is not
    known; it is asked for. member: its name in the archive. entry: where its records stand, as `entry_of` found it; it
    is looked up where it is not given.
    """

    uri: str
    etag: str
    size: int | None
    member: str | None = None
    entry: tuple[int, ...] | None = None


@contextmanager
def open_data(
    store: LandingStore, place: Place, transfer_syntax: str | None, archives: ArchiveLimits, max_inflated_bytes: int
) -> Iterator[ByteSource]:
    """What offsets of an object's row and header count in: its bytes, or its inflated data set.

    transfer_syntax: as in its row. Raises ObjectError when the object is not there, cannot be read, or is not what was
    claimed any more; the last is seen at the end at the latest, so what was read is used only behind the block.
    """
    opened = OpenPlace(store, place, archives)
    try:
        yield opened.data(transfer_syntax, max_inflated_bytes)
        opened.verify()
    finally:
        opened.close()


@contextmanager
def open_object(store: LandingStore, place: Place, archives: ArchiveLimits) -> Iterator[ByteSource]:
    """The bytes of an object, of a member as it is unpacked; errors as of `open_data`."""
    opened = OpenPlace(store, place, archives)
    try:
        yield opened.source
        opened.verify()
    finally:
        opened.close()


class OpenPlace:
    """An object that is open for as long as somebody reads it, piece by piece.

    source: its bytes, of a member as it is unpacked. Raises ObjectError; what it holds is closed then.
    """

    def __init__(self, store: LandingStore, place: Place, archives: ArchiveLimits) -> None:
        """Opens it."""
        size = size_of(store, place.uri) if place.size is None else place.size
        self._opened = _open(store, ObjectRef(place.uri, place.etag, size))
        self._unpacked: Generator[tuple[tuple[int, ...], OpenMember | ObjectError]] | None = None
        self.source: ByteSource = self._opened
        if place.member is not None:
            try:
                self.source = self._member(place, place.member, archives)
            except BaseException:
                self.close()
                raise

    def _member(self, place: Place, name: str, archives: ArchiveLimits) -> ByteSource:
        entry = place.entry or entry_of(self._opened, name, archives)
        self._unpacked = open_members(self._opened, [entry], archives)
        _, member = next(self._unpacked)
        if isinstance(member, ObjectError):
            raise member
        return member

    def data(self, transfer_syntax: str | None, max_inflated_bytes: int) -> ByteSource:
        """What offsets of the object's row and header count in: `source`, or its inflated data set."""
        if not is_deflated(transfer_syntax):
            return self.source
        try:
            preface = read_preface(self.source.read(0, _PREFACE_BYTES), self.source.size)
            return data_set(self.source, preface, max_inflated_bytes)[0]
        except (NotDicom, Unreadable, IndexError):
            raise ObjectError("CHANGED_DURING_READ", "The object does not begin as it did when it was read.") from None

    def verify(self) -> None:
        """ObjectError(CHANGED_DURING_READ) when what was read so far is not what was claimed.

        Of a member its archive is looked at; its checksum is compared where it is read to its end.
        """
        self._opened.verify()

    def close(self) -> None:
        """Closes the object, and the archives around it."""
        if self._unpacked is not None:
            self._unpacked.close()
        self._opened.close()


def entry_of(archive: ByteSource, member: str, archives: ArchiveLimits) -> tuple[int, ...]:
    """Where the records of a member stand in an archive and those nested in it, by its name; who asks again keeps it.

    Reads the directory; where an archive is nested in it, the beginning of each member up to the one that is sought.
    ObjectError(OBJECT_GONE) where there is none.
    """
    named = entries_by_name(archive, archives)
    if named is not None and member in named:
        return named[member]
    if named is None or "!" in member:
        for one in members(archive, archives):
            if one.name == member:
                return one.entry
    raise ObjectError("OBJECT_GONE", "The archive does not have the member any more.")


def entries_at(store: LandingStore, place: Place, archives: ArchiveLimits) -> Mapping[str, tuple[int, ...]]:
    """Where the records of an archive's members stand, by name, as far as one look tells; that of the place's own does.

    For who opens several members of an archive, and keeps it. place: of a member. Raises ObjectError.
    """
    assert place.member is not None, "the place of a member"
    archive = OpenPlace(store, place._replace(member=None), archives)
    try:
        named = entries_by_name(archive.source, archives) or {}
        if place.member in named:
            return named
        return {place.member: entry_of(archive.source, place.member, archives)}
    finally:
        archive.close()


def _open(store: LandingStore, claimed: ObjectRef) -> OpenObject:
    if isinstance(store, RangedStore):
        return store.open_for_ranges(claimed)
    opened = next(store.open_all([claimed], 1))
    if isinstance(opened, ObjectError):
        raise opened
    return opened
