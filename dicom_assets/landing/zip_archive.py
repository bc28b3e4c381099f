"""ZIP files as a kind of archive (`archives.Archive`): recognising one, its entries, opening a member.

Belongs here: what `archives` asks of a kind. Does not belong here: which members are fit to be read and how they are
called (`archives`), bytes of the directory (`zipdirectory`), inflating (`inflate`).
"""

from __future__ import annotations

from collections.abc import Iterator

from dicom_assets.landing.inflate import Budget, MemberBytes
from dicom_assets.landing.recognition import package_of
from dicom_assets.landing.sniff import ZIP, Form, Sniffed, is_program, may_end_as_zip
from dicom_assets.landing.zipdirectory import Directory, Entry, content_at
from dicom_assets.landing.zipend import ArchiveError
from dicom_assets.settings import ArchiveLimits
from dicom_assets.storage.byte_ranges import ByteSource
from dicom_assets.storage.window import WINDOW_BYTES, Window

_SMALLEST = 98
"""Bytes of an archive with one member without name and content: local header, record, end."""


class ZipArchive:
    """The kind."""

    def begins(self, head: bytes) -> bool:
        """Whether an object with these first bytes is a ZIP file from its beginning on."""
        return head.startswith(b"PK")

    def recognise(self, found: Sniffed, source: ByteSource, head: bytes, *, is_member: bool) -> Sniffed | None:
        """ZIP where an object is one, also one behind other bytes; None otherwise.

        To see the end of a member it is inflated whole: only programs, which may unpack themselves, are asked. Raises
        storage errors as they come.
        """
        if found.form is Form.ZIP:
            return found
        if is_member and not is_program(head):
            return None
        return ZIP if may_end_as_zip(head, found) and ends_as_zip(source, head) else None

    def open(self, source: ByteSource, block: int = WINDOW_BYTES) -> OpenZip:
        """The archive. ArchiveError when it has no directory; storage errors as they come."""
        return OpenZip(source, block)


class OpenZip:
    """A ZIP file that is open, its members' bytes read through one window."""

    def __init__(self, source: ByteSource, block: int) -> None:
        """Finds the directory."""
        self._directory = Directory(source)
        self._window = Window(source, block)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._directory)

    def count(self, most: int) -> int:
        """See `Directory.count`."""
        return self._directory.count(most)

    def entry(self, at: int) -> Entry:
        """See `Directory.entry`."""
        return self._directory.entry(at)

    def package(self) -> Sniffed | None:
        """What it is when it is an Office document. Raises ArchiveError."""
        return package_of(self._directory)

    def member(self, entry: Entry, limits: ArchiveLimits, budget: Budget) -> MemberBytes:
        """The bytes of one of its entries. ArchiveError when they cannot be read."""
        return MemberBytes(self._window, entry, limits, budget)


def ends_as_zip(source: ByteSource, head: bytes) -> bool:
    """Whether an object that does not begin as a ZIP file is one behind other bytes: self-extracting, for example.

    Its end must tell of a directory, and the directory of a member that is there. Costs one read of 80 KiB where it
    has no mark. head: its first bytes. Raises storage errors as they come.
    """
    if source.size <= _SMALLEST:
        return False
    try:
        first = next(iter(Directory(source, head[:4])), None)
        return first is not None and content_at(source, first) is not None
    except ArchiveError:
        return False  # a mark in what is no archive tells nothing
