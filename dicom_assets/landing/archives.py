"""ZIP files and the ZIP files in them, opened up into members.

Belongs here: which members an archive has, how each is called, which of them are fit to be read, and opening them
again one after the other. Does not belong here: bytes of the directory (`zipdirectory`), inflating (`inflate`), what a
member is (`sniff`). Nothing is ever written under a member's name.

Names. A member of a nested archive is called `outer.zip!inner.dcm`. The second member of the same name gets `#2`, and
so on, in the directory's order; a member without a name is called `#1`. So each name stands once in an archive.

Folders are no members, whether their attributes or a slash of either kind at the end of their name says so. What has
content all the same is one.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from dicom_assets.landing.inflate import Budget, MemberBytes
from dicom_assets.landing.recognition import look_closer, package_of
from dicom_assets.landing.sniff import ZIP, Form, Sniffed, is_program, is_system_file, kind_of, may_end_as_zip
from dicom_assets.landing.store import ObjectError
from dicom_assets.landing.zipdirectory import Directory, Entry, content_at
from dicom_assets.landing.zipend import ArchiveError
from dicom_assets.schema.codes import Kind
from dicom_assets.settings import ArchiveLimits, ClinicalSettings
from dicom_assets.storage.byte_ranges import ByteSource
from dicom_assets.storage.window import Window

__all__ = ["ArchiveError", "Member", "ends_as_zip", "members", "open_members"]

HEAD_BYTES = 4_096
"""What is inflated of a member to tell what it is."""

_LISTING_WINDOW = 32 * 1024
_SMALLEST = 98
"""Bytes of an archive with one member without name and content: local header, record, end."""
_USUAL = ClinicalSettings()
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive.

    name: distinct within the outermost archive. entry: where its directory records stand, from the outermost archive
    inward; `open_members` takes it. size: bytes as declared. code, detail: its reason code where that is settled
    without reading it, and why; ARCHIVE_EXPANDED for a nested archive whose members follow.
    """

    name: str
    entry: tuple[int, ...]
    size: int
    modified_at: datetime | None
    kind: Kind
    code: str | None = None
    detail: str | None = None

    @property
    def is_archive(self) -> bool:
        """Whether it is a nested archive, opened or not."""
        return self.kind is Kind.ARCHIVE


def members(
    source: ByteSource, limits: ArchiveLimits, clinical: ClinicalSettings = _USUAL, path: str = ""
) -> Iterator[Member]:
    """Every member of a ZIP file and of those nested in it, in the directories' order; none is left out.

    A nested archive is a member itself, followed by its members when it can be opened and lies within `max_depth`
    (1: members of the archive itself only). Only the first bytes of a member are inflated, nested archives whole, into
    an anonymous temporary file. clinical, path: settings and the archive's own path, by which clinical files are told.

    Raises ArchiveError before the first member when the archive as a whole cannot be read (ARCHIVE_UNREADABLE) or has
    too many members (ARCHIVE_LIMIT); storage errors as they come.
    """
    walk = _Walk(limits, clinical, path)
    yield from walk.members(walk.directory(source), source, "", (), 1)


def open_members(
    source: ByteSource, entries: Sequence[tuple[int, ...]], limits: ArchiveLimits
) -> Iterator[tuple[tuple[int, ...], MemberBytes | ObjectError]]:
    """Opens members by their `Member.entry`, in this order, one result each; nothing is raised.

    A member is valid until the next one is asked for. Entries of one nested archive should stand together: it is
    inflated anew whenever another archive came between, and once for each call.
    """
    chain = _Chain(source, limits)
    try:
        for entry in entries:
            opened = chain.open(entry)
            yield entry, opened
            if isinstance(opened, MemberBytes):
                opened.close()
    finally:
        chain.close()


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


class _Walk:
    """State of listing one archive: names given, members counted, bytes inflated."""

    def __init__(self, limits: ArchiveLimits, clinical: ClinicalSettings, path: str) -> None:
        self._limits = limits
        self._clinical, self._path = clinical, path
        self._budget = Budget(limits)
        self._entries = 0
        self._taken: dict[str, int] = {}

    def directory(self, source: ByteSource) -> Directory:
        """The directory of an archive, walked through once; ArchiveError."""
        directory = Directory(source)
        self._entries += directory.count(self._limits.max_entries - self._entries)
        return directory

    def members(
        self, directory: Directory, source: ByteSource, prefix: str, path: tuple[int, ...], depth: int
    ) -> Iterator[Member]:
        """Members of one archive at this depth, each named behind `prefix`."""
        window = Window(source, _LISTING_WINDOW)
        for entry in directory:
            if entry.is_directory:
                continue
            name = self._name(prefix + (entry.name or "#1"))
            place = (*path, entry.at)
            try:
                _refuse(entry)
                member = MemberBytes(window, entry, self._limits, self._budget)
                sniffed = _kind_of_member(member)
                if sniffed.form is not Form.ZIP:
                    sniffed = look_closer(sniffed, member, (self._path, name), self._clinical)
            except ArchiveError as error:
                yield Member(name, place, entry.size, entry.modified_at, Kind.OTHER, error.code, error.detail)
                continue
            if sniffed.form is not Form.ZIP:
                yield Member(name, place, entry.size, entry.modified_at, sniffed.kind, sniffed.code, sniffed.detail)
                continue
            try:
                if depth >= self._limits.max_depth:
                    raise ArchiveError("ARCHIVE_LIMIT", f"nested deeper than {self._limits.max_depth} archives")
                member.spool()
                inner = self.directory(member)
                package = package_of(inner)
            except ArchiveError as error:
                yield Member(name, place, entry.size, entry.modified_at, Kind.ARCHIVE, error.code, error.detail)
            else:
                if package is not None:
                    yield Member(name, place, entry.size, entry.modified_at, package.kind, package.code)
                    continue
                yield Member(name, place, entry.size, entry.modified_at, Kind.ARCHIVE, "ARCHIVE_EXPANDED")
                yield from self.members(inner, member, f"{name}!", place, depth + 1)
            finally:
                member.close()

    def _name(self, name: str) -> str:
        """`name`, or with the first free number behind it when another member has it."""
        if name not in self._taken:
            self._taken[name] = 1
            return name
        number = self._taken[name] + 1
        while (numbered := f"{name}#{number}") in self._taken:
            number += 1
        self._taken[name] = number
        self._taken[numbered] = 1
        return numbered


class _Chain:
    """The archives that are open, from the outermost to the one that was last read from."""

    def __init__(self, source: ByteSource, limits: ArchiveLimits) -> None:
        self._source = source
        self._limits = limits
        self._budget = Budget(limits)
        self._open: list[_Opened] = []

    def open(self, entry: tuple[int, ...]) -> MemberBytes | ObjectError:
        """The member at this place, or why it cannot be read."""
        try:
            archive = self._archive(entry[:-1])
            return self._member(archive, entry[-1])
        except ObjectError as error:
            return error

    def close(self) -> None:
        """Closes every archive."""
        self._shrink(0)

    def _archive(self, path: tuple[int, ...]) -> _Opened:
        """The archive at this path, opened with those around it; ObjectError, the same one when asked again."""
        same = 0
        while same < min(len(self._open), len(path) + 1) and self._open[same].path == path[:same]:
            same += 1
        self._shrink(same)
        while len(self._open) <= len(path):
            here = path[: len(self._open)]
            try:
                source = self._nested(here)
                self._open.append(_Opened(here, source, Directory(source), Window(source), None))
            except ObjectError as error:
                self._open.append(_Opened(here, None, None, None, error))
            if self._open[-1].failure is not None:
                break
        failure = self._open[-1].failure
        if failure is not None:
            raise failure
        return self._open[-1]

    def _nested(self, path: tuple[int, ...]) -> ByteSource:
        if not path:
            return self._source
        member = self._member(self._open[-1], path[-1])
        try:
            member.spool()
        except ObjectError:
            member.close()
            raise
        return member

    def _member(self, archive: _Opened, at: int) -> MemberBytes:
        if archive.directory is None or archive.window is None:
            raise AssertionError("an archive that failed has no members")
        entry = archive.directory.entry(at)
        _refuse(entry)
        return MemberBytes(archive.window, entry, self._limits, self._budget)

    def _shrink(self, length: int) -> None:
        while len(self._open) > length:
            source = self._open.pop().source
            if isinstance(source, MemberBytes):
                source.close()


@dataclass(frozen=True, slots=True)
class _Opened:
    """One archive of a chain, or why it did not open."""

    path: tuple[int, ...]
    source: ByteSource | None
    directory: Directory | None
    window: Window | None
    failure: ObjectError | None


def _kind_of_member(member: MemberBytes) -> Sniffed:
    """What a member is. To see its end it is inflated whole: only programs, which may unpack themselves, are asked."""
    head = member.read(0, HEAD_BYTES)
    found = kind_of(head, member.size)
    return ZIP if is_program(head) and may_end_as_zip(head, found) and ends_as_zip(member, head) else found


def _refuse(entry: Entry) -> None:
    """ArchiveError for a member that is never read: unsafe, of a system, or encrypted."""
    parts = entry.name.replace("\\", "/").split("/")
    if parts[0] == "" and len(parts) > 1:
        raise ArchiveError("ARCHIVE_MEMBER_UNSAFE", "its name is absolute")
    if _DRIVE.match(entry.name):
        raise ArchiveError("ARCHIVE_MEMBER_UNSAFE", "its name begins with a drive")
    if ".." in parts:
        raise ArchiveError("ARCHIVE_MEMBER_UNSAFE", "its name climbs")
    if stat.S_IFMT(entry.unix_mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError("ARCHIVE_MEMBER_UNSAFE", "it is a link or a device")
    if is_system_file("/".join(parts)):
        raise ArchiveError("SYSTEM_FILE", "a file of a system")
    if entry.is_encrypted:
        raise ArchiveError("ARCHIVE_ENCRYPTED", "a password is needed")
